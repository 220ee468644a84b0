"""The best checkpoints are kept, by a number that training or evaluation wrote beside them."""

import json

import jax.numpy as jnp

from rt2_jax.training.checkpoints import Checkpoints
from rt2_jax.training.keeping import KeepBest
from rt2_jax.training.train_state import TrainState


def write(path, **values):
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"step": int(step[1:]), "error": value}) for step, value in values.items()]
    path.write_text("\n".join([*lines, '{"step": 9, "err']))


def test_the_best_by_a_metric_stay_beside_the_latest_and_the_round_ones(tmp_path):
    write(tmp_path / "eval" / "offline.jsonl", _1=0.5, _2=0.1, _3=0.4, _4=0.3)
    best = KeepBest(tmp_path, "error", "min", count=1)
    with Checkpoints(tmp_path, keep=1, keep_period=3, keep_best=best) as checkpoints:
        for step in range(1, 6):
            state = TrainState(jnp.int32(step), {"a": jnp.ones(2)}, {})
            checkpoints.save(state, {}, {})
    kept = sorted(path.name for path in tmp_path.glob("checkpoint_*"))
    assert kept == ["checkpoint_2", "checkpoint_3", "checkpoint_5"]


def test_the_mode_the_count_and_evaluation_before_training(tmp_path):
    write(tmp_path / "metrics.jsonl", _1=9.0, _2=8.0)
    write(tmp_path / "eval" / "offline.jsonl", _1=0.5, _3=float("nan"))
    assert KeepBest(tmp_path, "error", "max").best_steps([1, 2, 3, 4]) == {2}
    assert KeepBest(tmp_path, "error", "min", 2).best_steps([1, 2, 3, 4]) == {1, 2}
    assert KeepBest(tmp_path, "other").best_steps([1, 2, 3]) == set()
