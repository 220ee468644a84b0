"""A real run of the tiny mixture with `rt2 eval --watch` beside it, both started as a user does."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow


def watching(*words):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    return subprocess.Popen(
        [sys.executable, "-m", "rt2_jax.cli.main", "eval", "--watch", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    )


def test_a_watcher_evaluates_every_checkpoint_of_a_run_and_survives_being_stopped(
    start, tiny_mixture, tmp_path
):
    run = tmp_path / "run"
    watch = (str(run), f"--cache-dir={tiny_mixture.cache}", "--split=train")
    watch += ("--limit=4", "--batch-size=4", "--poll=0.2")
    results = run / "eval" / "train.jsonl"
    with watching(*watch) as watcher, start(run, "--gin.RunConfig.keep=None") as trainer:
        output = trainer.communicate(timeout=300)[0]
        assert trainer.returncode == 0, output
        deadline = time.monotonic() + 300
        while not results.is_file() or not results.read_text():
            assert watcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        if watcher.poll() is None:
            watcher.send_signal(signal.SIGTERM)
        first = watcher.communicate(timeout=300)[0]
    assert "waits for a checkpoint" in first and "Traceback" not in first
    # Ended by the signal, or by itself where it was done before.
    assert watcher.returncode == (130 if "the same command goes on" in first else 0)
    with watching(*watch) as watcher:
        second = watcher.communicate(timeout=300)[0]
    assert watcher.returncode == 0, second
    assert "goes on with" in second
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    told = [line for line in (first + second).splitlines() if line.startswith("step ")]
    assert len(told) == len({line.split()[1] for line in told})
    for name in ("tiny_arm/rotation_delta_x/mean_error_rad", "tiny_web/vqa_exact_match"):
        assert name in lines[0]
    best = json.loads((run / "eval" / "best.json").read_text())
    assert best["metric"] == "mean/token_accuracy"
    assert best["value"] == max(line["mean/token_accuracy"] for line in lines)
    assert list((run / "tensorboard" / "eval" / "train").glob("events.out.tfevents.*"))
