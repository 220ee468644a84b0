"""Tasks without a cache: exact shares and whole windows, with less promised about their order."""

import itertools
import logging
import runpy
from pathlib import Path

import numpy as np
import pytest
import seqio

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.batches import train_batches
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.examples import mixture_examples
from rt2_jax.data.manifest import open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.registration import step_format
from rt2_jax.data.resolve import resolve_mixture
from rt2_jax.data.step_stream import StepStream
from rt2_jax.data.streamed_batches import StreamedBatches
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

TOKENIZER = load_vocabulary()
VOCABULARY = ActionVocabulary.from_integer_pieces(TOKENIZER)


def make_examples(manifest, root, horizon=2):
    slots = (("front", 0), ("front", -1))
    spec = InputSpec(slots, (8, 8), encoder_length=32, decoder_length=32)
    caches = open_caches(manifest, root)
    inputs = ModelInputs(spec, TOKENIZER)
    made = mixture_examples(manifest, caches, inputs, UniformBins(horizon=horizon), VOCABULARY)
    return made, caches


@pytest.fixture
def half_cached(mixture, tmp_path):
    """The mixture with a robot that is not cached, its statistics from where it is."""
    root = tmp_path / "other"
    cache_task(seqio.TaskRegistry.get("cups"), root)
    statistics = tmp_path / "half.train.json"
    return resolve_mixture("half", root, statistics=statistics, uncached=True), root


@pytest.fixture
def run_batches(half_cached):
    manifest, root = half_cached
    opened = []

    def make(**options):
        made, caches = make_examples(manifest, root)
        streams = {"arm_pick": caches[0]}
        options = {"seed": 5, "global_batch_size": 8, "shuffle_buffer": 9, **options}
        opened.append(StreamedBatches(streams, manifest, made, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def row(batch, i):
    return b"".join(batch[key][i].tobytes() for key in sorted(batch))


def test_shares_are_exact_and_every_example_is_one_of_the_caches(run_batches, mixture, tmp_path):
    cached, _ = make_examples(mixture, tmp_path)
    expected = {
        row({key: value[np.newaxis] for key, value in task.example(i).items()}, 0)
        for task in cached
        for i in range(len(task))
    }
    batches = run_batches()
    seen = set()
    for _ in range(4):
        batch = next(batches)
        assert np.bincount(batch["source_id"]).tolist() == [4, 4]
        seen |= {row(batch, i) for i in range(8)}
    assert seen <= expected and len(seen) > len(expected) / 2


def test_a_cached_task_keeps_its_order_beside_an_uncached_one(run_batches, mixture, tmp_path):
    cached, _ = make_examples(mixture, tmp_path)
    exact = iter(train_batches(cached, [0.5, 0.5], seed=5, global_batch_size=8))
    batches = run_batches()
    for _ in range(3):
        found, expected = next(batches), next(exact)
        for key in found:
            rows = found["source_id"] == 1
            np.testing.assert_array_equal(found[key][rows], expected[key][rows])


def test_a_restart_goes_on_with_other_examples_and_says_so(run_batches, caplog):
    with caplog.at_level(logging.WARNING):
        batches = run_batches()
    assert "arm_pick: not cached" in caplog.text and "not go on exactly" in caplog.text
    next(batches)
    state = batches.get_state()
    expected = next(batches)
    again = run_batches()
    again.set_state(state)
    found = next(again)
    assert again.taken() == batches.taken() == {"arm_pick": 8, "cups": 8}
    robot, web = found["source_id"] == 0, found["source_id"] == 1
    assert (found["images"][robot] != expected["images"][robot]).any()
    np.testing.assert_array_equal(found["images"][web], expected["images"][web])


def test_hosts_read_different_episodes(run_batches):
    prompts = []
    for host in range(2):
        batches = run_batches(host=host, hosts=2)
        rows = [
            row.tobytes()
            for _ in range(6)
            for batch in [next(batches)]
            for row in batch["encoder_input_tokens"][batch["source_id"] == 0]
        ]
        prompts.append(set(rows))
    assert prompts[0] and prompts[1] and not prompts[0] & prompts[1]


def test_a_stream_goes_forward_and_forgets(mixture):
    stream = StepStream(mixture.tasks[0].info, "train")
    steps = [stream[i] for i in range(9)]
    assert [step.step for step in steps] == [0, 1, 2, 0, 1, 2, 3, 0, 1]
    stream.forget(5)
    assert stream[5] == steps[5]
    with pytest.raises(IndexError, match="step 4 of task 'arm_pick' was forgotten"):
        stream[4]
    assert stream[9].step == 0  # the next epoch


def test_more_hosts_than_episodes_are_refused(mixture):
    stream = StepStream(mixture.tasks[0].info, "train")
    stream.begin(seed=0, host=3, hosts=4)
    with pytest.raises(ValueError, match="too few episodes for each of 4 hosts; cache it"):
        stream[0]


def test_a_robot_whose_bounds_are_statistics_needs_some(robot, tmp_path):
    robot()
    with pytest.raises(KeyError, match="'arm_pick': no action statistics .*--statistics FILE"):
        resolve_mixture("arm_pick", tmp_path / "none", uncached=True)


def test_a_task_that_is_not_registered_says_what_to_import(half_cached):
    manifest, root = half_cached
    seqio.TaskRegistry.remove("arm_pick")
    with pytest.raises(KeyError, match="name the module that does so, --module my_tasks"):
        open_caches(manifest, root)


@pytest.fixture
def sharded(registry, tmp_path, monkeypatch):
    """What a task declares whose source has five shards with eight episodes in all."""
    (tmp_path / "data/here").mkdir(parents=True)
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path / "data"))
    runpy.run_path(str(Path(__file__).with_name("sharded_tasks.py")))
    return step_format(seqio.TaskRegistry.get("sharded")).info


def test_more_hosts_than_shards_share_out_every_episode_of_an_epoch(sharded):
    found = []
    for host in range(6):
        stream = StepStream(sharded, "train")
        stream.begin(seed=3, host=host, hosts=6)
        starts = (stream[i] for i in itertools.count() if stream[i].step == 0)
        count = len(range(host, 8, 6))
        found += [step.episode_id for step in itertools.islice(starts, count)]
    assert len(found) == len(set(found)) == 8


def test_all_hosts_of_a_run_draw_from_one_order(half_cached, run_batches, monkeypatch):
    begun = []
    monkeypatch.setattr(StepStream, "begin", recording_begin(begun, StepStream.begin))
    for host in range(2):
        next(run_batches(host=host, hosts=2))
    seeds = {options["seed"] for options in begun if options.get("hosts") == 2}
    assert len(seeds) == 1


def recording_begin(begun, begin):
    """`begin`, which notes what it is called with."""

    def noting(self, **options):
        begun.append(options)
        return begin(self, **options)

    return noting
