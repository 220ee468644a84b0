"""Training batches: one order for any hosts, workers, restarts and files; no TensorFlow."""

import dataclasses
import json
import logging
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.policy import Observation
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.batches import MixtureBatches, Start, train_batches
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.examples import mixture_examples
from rt2_jax.data.manifest import open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.resolve import resolve_mixture
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

from .conftest import picture, robot_steps

SLOTS = (("front", 0), ("front", -1))
TOKENIZER = load_vocabulary()
VOCABULARY = ActionVocabulary.from_integer_pieces(TOKENIZER)


@pytest.fixture
def examples(mixture, tmp_path):
    """Makes the examples of the mixture, with `InputSpec` values of your own."""

    def make(root=tmp_path, manifest=mixture, horizon=1, **values):
        spec = InputSpec(**{**DEFAULTS, **values})
        caches = open_caches(manifest, root)
        inputs = ModelInputs(spec, TOKENIZER)
        return mixture_examples(manifest, caches, inputs, UniformBins(horizon=horizon), VOCABULARY)

    return make


DEFAULTS = {
    "image_slots": SLOTS,
    "image_size": (8, 8),
    "encoder_length": 32,
    "decoder_length": 32,
    "robot_crop": 0.8,
    "brightness": 0.2,
}


def take(examples, count, *, seed=5, batch=8, **options):
    iterator = iter(
        train_batches(examples, [0.5, 0.5], seed=seed, global_batch_size=batch, **options)
    )
    return [next(iterator) for _ in range(count)]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_a_batch_has_the_keys_and_types_of_the_design(examples):
    (batch,) = take(examples(), 1)
    assert {key: (value.shape, str(value.dtype)) for key, value in batch.items()} == {
        "images": ((8, 2, 8, 8, 3), "uint8"),
        "image_mask": ((8, 2), "bool"),
        "encoder_input_tokens": ((8, 32), "int32"),
        "decoder_input_tokens": ((8, 32), "int32"),
        "decoder_target_tokens": ((8, 32), "int32"),
        "decoder_loss_weights": ((8, 32), "float32"),
        "source_id": ((8,), "int32"),
    }


def test_every_batch_holds_the_shares_of_the_mixture(examples):
    for batch in take(examples(), 5):
        assert np.bincount(batch["source_id"]).tolist() == [4, 4]


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_together_read_what_one_reads(examples, hosts):
    made = examples()
    parts = [take(made, 6, host=host, hosts=hosts) for host in range(hosts)]
    whole = [
        {key: np.concatenate([part[step][key] for part in parts]) for key in parts[0][0]}
        for step in range(6)
    ]
    assert_same(whole, take(made, 6))


@pytest.mark.parametrize("step", [1, 4, 1_000_000])
def test_a_restart_continues_exactly(examples, step):
    made = examples()
    before = take(made, 5, start_step=step - 1)
    assert_same(take(made, 4, start_step=step), before[1:])


def test_another_number_of_files_gives_the_same_batches(mixture, examples, robot, web, tmp_path):
    import seqio

    for name in ("arm_pick", "cups"):
        cache_task(seqio.TaskRegistry.get(name), tmp_path / "other", shard_steps=1)
    manifest = resolve_mixture("half", tmp_path / "other")
    assert manifest == mixture
    assert_same(take(examples(tmp_path / "other", manifest), 4), take(examples(), 4))


def test_another_seed_gives_another_order(examples):
    made = examples()
    a, b = take(made, 1), take(made, 1, seed=6)
    assert (a[0]["encoder_input_tokens"] != b[0]["encoder_input_tokens"]).any()


def test_an_epoch_shows_every_step_once_and_the_next_in_another_order(examples):
    made = examples(robot_crop=1.0, brightness=0.0)[:1]
    iterator = iter(train_batches(made, [1.0], seed=0, global_batch_size=9))
    first, second = (
        [row.tobytes() for row in batch["images"][:, 0]]
        for batch in (next(iterator), next(iterator))
    )
    assert len(set(first)) == 9 and sorted(first) == sorted(second) and first != second


PROGRAM = """
import hashlib, json, sys
from pathlib import Path
from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.batches import MixtureBatches, train_batches
from rt2_jax.data.examples import mixture_examples
from rt2_jax.data.manifest import load_manifest, open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

def digests(root, workers, start):
    manifest = load_manifest(Path(root) / "half.train.json")
    spec = InputSpec((("front", 0),), (8, 8), 32, 32, robot_crop=0.8, brightness=0.2)
    inputs = ModelInputs(spec, load_vocabulary())
    vocabulary = ActionVocabulary.from_integer_pieces(inputs.tokenizer)
    examples = mixture_examples(
        manifest, open_caches(manifest, root), inputs, UniformBins(), vocabulary
    )
    shares = [task.share for task in manifest.tasks]
    iterator = iter(train_batches(
        examples, shares, seed=1, global_batch_size=4, start_step=start, workers=workers
    ))
    found = []
    for _ in range(4):
        batch = next(iterator)
        data = b"".join(batch[key].tobytes() for key in sorted(batch))
        found.append(hashlib.sha256(data).hexdigest())
    if workers:
        iterator.close()
    return found

if __name__ == "__main__":
    root = sys.argv[1]
    result = {"alone": digests(root, 0, 0), "workers": digests(root, 2, 2)}
    heavy = {"tensorflow", "seqio", "tensorflow_datasets"} & set(sys.modules)
    print(json.dumps({**result, "heavy": sorted(heavy)}))
"""


def test_a_restart_with_workers_continues_exactly_and_tensorflow_is_never_loaded(mixture, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.run(
        [sys.executable, program, tmp_path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["heavy"] == []
    assert len(set(found["alone"])) == 4
    assert found["workers"][:2] == found["alone"][2:]


def test_serving_sees_exactly_what_evaluation_on_the_cache_sees(examples):
    step = robot_steps()[1]
    observation = Observation({"front": picture(1)}, step["text"])
    served = ModelInputs(InputSpec(**DEFAULTS), TOKENIZER).observe(
        {("front", 0): observation.images["front"], ("front", -1): picture(0)},
        f"Q: what action should the robot take to {observation.instruction}? A:",
        robot=True,
    )
    evaluated = examples()[0].example(1)
    for key, value in served.items():
        np.testing.assert_array_equal(value, evaluated[key])


def test_an_action_is_written_in_its_tokens_and_read_back(examples, mixture):
    info = mixture.tasks[0].info
    codec = UniformBins().bind(info.robot.action_space, mixture.bounds(info))
    written = ActionTokens(codec, VOCABULARY)
    for index, step in enumerate(robot_steps()):
        example = examples()[0].example(index)
        tokens = example["decoder_target_tokens"][:8]
        found = codec.decode(written.from_ids(tokens.tolist()))[0]
        half_bin = (codec.bounds.high - codec.bounds.low) / 512 + 1e-6
        clipped = np.clip(step["action"], codec.bounds.low, codec.bounds.high)
        assert (abs(found - clipped) <= half_bin).all()
        assert example["decoder_loss_weights"].tolist() == [1] * 9 + [0] * 23


def test_frames_of_the_past_stop_at_the_start_of_an_episode(examples):
    made = examples(robot_crop=1.0)[0]
    assert made.example(3)["image_mask"].tolist() == [True, False]
    later = made.example(4)
    assert later["image_mask"].tolist() == [True, True]
    np.testing.assert_array_equal(later["images"][1], made.example(3)["images"][0])


def test_a_chunk_ends_with_its_episode(examples):
    made = examples(horizon=3)[0]
    single = [examples()[0].example(i)["decoder_target_tokens"][:8] for i in range(4)]
    chunk = made.example(1)
    expected = np.concatenate([single[1], single[2], single[2]])
    np.testing.assert_array_equal(chunk["decoder_target_tokens"][:24], expected)
    assert chunk["decoder_loss_weights"].tolist() == [1] * 16 + [0] * 8 + [1] + [0] * 7


def test_a_web_example_is_question_picture_and_answer(examples):
    example = examples()[1].example(2)
    prompt = TOKENIZER.encode("Answer in en: what is in place 2?")
    answer = TOKENIZER.encode("a cup of colour 2 with a blue handle and a lid")
    assert example["encoder_input_tokens"][: len(prompt)].tolist() == prompt
    assert example["decoder_target_tokens"][: len(answer)].tolist() == answer
    assert example["image_mask"].tolist() == [True, False] and example["source_id"] == 1


def test_a_text_that_does_not_fit_is_refused_before_the_first_batch(examples):
    with pytest.raises(ValueError, match="task 'arm_pick': prompt 'Q: what action .*more than the"):
        examples(encoder_length=8)
    with pytest.raises(ValueError, match="task 'cups': 'a cup of .*more than the"):
        examples(decoder_length=9, encoder_length=40)


def test_a_chunk_that_does_not_fit_is_refused_before_the_first_batch(examples):
    with pytest.raises(ValueError, match="task 'arm_pick': 32 tokens .* more than the 32"):
        examples(horizon=4)


def test_a_robot_without_any_of_the_models_views_is_refused(examples):
    with pytest.raises(ValueError, match="task 'arm_pick' has the views .*none of which"):
        examples(image_slots=(("top", 0),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 6, "hosts": 4}, "global_batch_size: found 6 for 4 hosts, expected a multiple"),
        ({"host": 2, "hosts": 2}, "found host 2 of 2"),
        ({"start_step": -1}, "start_step -1.* a step from 0 on"),
        ({"start_step": 3, "start": Start(4)}, "start_step 3.* a step from 4 on"),
    ],
)
def test_impossible_numbers_are_refused(examples, options, message):
    with pytest.raises(ValueError, match=message):
        take(examples(), 1, **options)


@pytest.fixture
def run_batches(examples, mixture):
    """Makes a run's batches of the mixture, with values of your own; closed after the test."""
    opened = []

    def make(made=None, manifest=mixture, **changes):
        options = {"seed": 5, "global_batch_size": 8, **changes}
        opened.append(MixtureBatches(manifest, made or examples(), **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_a_runs_batches_are_those_of_the_data(examples, run_batches):
    made = examples()
    batches = run_batches(made)
    assert_same([next(batches) for _ in range(4)], take(made, 4))


@pytest.mark.parametrize("step", [0, 1, 3, 1_000_000])
def test_a_runs_batches_go_on_from_any_state(examples, run_batches, step):
    made = examples()
    batches = run_batches(made)
    assert batches.get_state()["step"] == 0
    batches.set_state({**batches.get_state(), "step": step})
    first = [next(batches) for _ in range(2)]
    assert_same(first, take(made, 2, start_step=step))
    state = json.loads(json.dumps(batches.get_state()))
    assert state["step"] == step + 2
    later = [next(batches) for _ in range(2)]
    again = run_batches(made)
    again.set_state(state)
    assert_same([next(again) for _ in range(2)], later)
    batches.set_state(state)
    assert_same([next(batches) for _ in range(2)], later)


def test_batches_made_ahead_are_not_yet_taken(run_batches):
    batches = run_batches()
    next(batches)
    assert batches.get_state()["step"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "seed: the checkpoint has 6, this run 5"),
        ({"global_batch_size": 16}, "global_batch_size: the checkpoint has 16, this run 8"),
        ({"manifest": "b" * 64}, "manifest: the checkpoint has 'b+', this run .*may_change_data"),
        ({"seed": 6, "manifest": ""}, "manifest: .*; seed: |seed: .*; manifest: "),
        ({"version": 1}, "order of version 1, this code has 2"),
    ],
)
def test_the_state_of_other_data_is_refused_and_the_data_stays_where_it_is(
    run_batches, change, message
):
    batches = run_batches()
    next(batches)
    before = batches.get_state()
    with pytest.raises(ValueError, match=message):
        batches.set_state({**before, **change})
    assert batches.get_state() == before


def rows(batches, source):
    """Every example of one source in these batches, in order."""
    return [
        {key: value[i].tobytes() for key, value in batch.items() if key != "source_id"}
        for batch in batches
        for i in np.flatnonzero(batch["source_id"] == source)
    ]


def changed(manifest, shares):
    """The mixture with other shares; a task of share 0 is left out."""
    tasks = zip(manifest.tasks, shares, strict=True)
    tasks = tuple(dataclasses.replace(task, share=share) for task, share in tasks if share)
    return dataclasses.replace(manifest, mixture="other", tasks=tasks)


def test_a_task_goes_on_where_it_was_when_the_shares_change(run_batches, examples, mixture, caplog):
    made = examples()
    alone = rows(take(made, 12), 0)
    before = run_batches(made)
    first = [next(before) for _ in range(3)]
    after = run_batches(made, changed(mixture, [0.25, 0.75]), may_change=True)
    with caplog.at_level(logging.WARNING):
        after.set_state(json.loads(json.dumps(before.get_state())))
    assert "task 'arm_pick' goes on after 12 examples" in caplog.text
    later = [next(after) for _ in range(4)]
    assert rows(first, 0) + rows(later, 0) == alone[:20]
    assert after.taken() == {"arm_pick": 12 + 8, "cups": 12 + 24}
    state = after.get_state()
    rest = [next(after) for _ in range(2)]
    again = run_batches(made, changed(mixture, [0.25, 0.75]))  # an ordinary restart
    again.set_state(state)
    assert_same([next(again) for _ in range(2)], rest)


def test_a_task_that_pauses_goes_on_and_a_new_one_begins(run_batches, examples, mixture, caplog):
    made = examples()
    robot = run_batches(made[:1], changed(mixture, [1, 0]))
    first = [next(robot) for _ in range(2)]
    both = run_batches(made, mixture, may_change=True)
    with caplog.at_level(logging.WARNING):
        both.set_state(robot.get_state())
    assert "task 'cups' begins" in caplog.text
    later = [next(both) for _ in range(3)]
    assert rows(first, 0) + rows(later, 0) == rows(take(made, 10), 0)[: 16 + 12]
    assert rows(later, 1) == rows(take(made, 3), 1)


def test_another_batch_size_goes_on_where_the_tasks_were(run_batches, examples):
    made = examples()
    before = run_batches(made)
    first = [next(before) for _ in range(2)]
    after = run_batches(made, global_batch_size=4, may_change=True)
    after.set_state(before.get_state())
    later = [next(after) for _ in range(4)]
    for source in (0, 1):
        assert rows([*first, *later], source) == rows(take(made, 4), source)


def test_a_task_with_another_cache_begins_anew(run_batches, examples, mixture, caplog):
    made = examples()
    before = run_batches(made)
    next(before)
    tasks = (dataclasses.replace(mixture.tasks[0], cache_hash="0" * 64), mixture.tasks[1])
    after = run_batches(made, dataclasses.replace(mixture, tasks=tasks), may_change=True)
    with caplog.at_level(logging.WARNING):
        after.set_state(before.get_state())
    assert "task 'arm_pick' has another cache and begins anew" in caplog.text
    assert after.taken() == {"arm_pick": 0, "cups": 4}


def test_closed_batches_start_again_where_they_were(examples, run_batches):
    made = examples()
    with run_batches(made) as batches:
        first = [next(batches), next(batches)]
    batches.close()
    assert_same([*first, next(batches)], take(made, 3))


def test_closing_stops_the_thread(run_batches):
    before = threading.active_count()
    batches = run_batches()
    next(batches)
    assert threading.active_count() > before
    batches.close()
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.05)
    assert threading.active_count() == before


def test_what_goes_wrong_in_the_thread_reaches_the_caller(examples, run_batches):
    class Broken:
        name = "arm_pick"

        def __len__(self):
            return 9

        def example(self, index, rng=None):
            raise ValueError("task 'arm_pick': the picture is damaged")

    batches = run_batches([Broken(), examples()[1]])
    with pytest.raises(ValueError, match="task 'arm_pick': the picture is damaged"):
        next(batches)


def test_a_runs_batches_refuse_impossible_numbers_at_once(run_batches):
    with pytest.raises(ValueError, match="global_batch_size: found 6 for 4 hosts"):
        run_batches(global_batch_size=6, hosts=4)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_give_a_runs_batches_too(examples, run_batches, workers, full_check):
    if workers != 2 and not full_check:
        pytest.skip("in the full form only: two workers share the work as any number does")
    made = examples()
    batches = run_batches(made, workers=workers)
    batches.set_state({**batches.get_state(), "step": 3})
    found = [next(batches) for _ in range(2)]
    batches.close()
    assert_same([*found, next(batches)], take(made, 3, start_step=3))
