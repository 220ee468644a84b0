"""The cache: what comes out is what went in, bad steps are named, nothing is overwritten."""

import json

import numpy as np
import pytest

from rt2_jax.actions.statistics import compute_statistics
from rt2_jax.data.cache import StepCache
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.step import TaskStep

from .conftest import ARM, encoded, picture, robot_steps


def files(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_steps_come_back_as_they_were(robot, tmp_path):
    cache_task(robot(), tmp_path, shard_steps=4)
    cache = StepCache(tmp_path, "arm_pick", "train")
    assert len(cache) == 9
    for found, expected in zip((cache[i] for i in range(9)), robot_steps(), strict=True):
        assert list(found.images) == expected["images"]
        assert (found.text, found.target) == (expected["text"], "")
        np.testing.assert_array_equal(found.action, expected["action"])
        np.testing.assert_array_equal(found.state, expected["state"])
        for name in ("episode", "step", "episode_id"):
            assert getattr(found, name) == expected[name]


def test_statistics_and_counts_are_those_of_the_steps(robot, tmp_path):
    info = cache_task(robot(), tmp_path)
    actions = np.stack([step["action"] for step in robot_steps()])
    assert info.statistics == compute_statistics(ARM, "arm", actions)
    assert (info.steps, info.episodes) == (9, 3)
    np.testing.assert_array_equal(StepCache(tmp_path, "arm_pick", "train").actions(), actions)


def test_a_web_task_has_no_statistics_and_no_actions(web, tmp_path):
    assert cache_task(web(), tmp_path).statistics is None
    assert StepCache(tmp_path, "cups", "train").actions().shape == (5, 0)


def test_the_number_of_files_does_not_change_the_hash(robot, tmp_path):
    task = robot()
    hashes = {cache_task(task, tmp_path / str(n), shard_steps=n).hash for n in (1, 2, 4, 100)}
    assert len(hashes) == 1


class Stop(Exception):
    pass


def test_an_interrupted_cache_is_no_cache_and_continues(robot, tmp_path):
    task = robot()
    whole = cache_task(task, tmp_path / "whole", shard_steps=2)

    def stop(steps):
        if steps == 7:
            raise Stop

    with pytest.raises(Stop):
        cache_task(task, tmp_path / "cut", shard_steps=2, report=stop)
    with pytest.raises(FileNotFoundError, match="task 'arm_pick' is not cached.*rt2 data cache"):
        StepCache(tmp_path / "cut", "arm_pick", "train")
    partial = tmp_path / "cut/arm_pick/train.incomplete"
    written = {p: p.stat().st_mtime_ns for p in partial.glob("*.array_record")}
    assert len(written) == 3
    (partial / "steps-00003.array_record.99").write_bytes(b"of a killed run")
    assert cache_task(task, tmp_path / "cut", shard_steps=2) == whole
    final = tmp_path / "cut/arm_pick/train"
    assert len(list(final.iterdir())) == 5 + 3
    assert all((final / p.name).stat().st_mtime_ns == time for p, time in written.items())


def test_files_of_an_interrupted_run_that_hold_other_steps_are_refused(robot, tmp_path):
    def stop(steps):
        if steps == 3:
            raise Stop

    with pytest.raises(Stop):
        cache_task(robot("arm_a"), tmp_path, shard_steps=2, report=stop)
    (tmp_path / "arm_a").rename(tmp_path / "arm_b")
    plan = tmp_path / "arm_b/train.incomplete/plan.json"
    plan.write_text(plan.read_text().replace("arm_a", "arm_b"))
    with pytest.raises(ValueError, match="hold other steps than the source gives now"):
        cache_task(robot("arm_b", robot_steps(seed=1)), tmp_path, shard_steps=2)


def test_a_finished_cache_stays_as_it_is(robot, tmp_path):
    task = robot()
    info = cache_task(task, tmp_path)
    before = files(tmp_path)
    assert cache_task(task, tmp_path) == info
    with pytest.raises(ValueError, match="shard_steps: 10000, not 5.*Nothing was changed"):
        cache_task(task, tmp_path, shard_steps=5)
    assert files(tmp_path) == before


def _change(index, **values):
    steps = robot_steps()
    steps[index].update(values)
    return steps


def _with_nan(index, field):
    steps = robot_steps()
    steps[index][field][1] = np.nan
    return steps


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            _with_nan(5, "action"),
            "task 'arm_pick', episode 1 \\('demo-1'\\), step 2: action: field 'position_delta_x' is"
            " nan",
        ),
        (_with_nan(4, "state"), "episode 1 .*, step 1: state 'y' is nan"),
        (
            _change(1, images=[encoded(picture(0)), encoded(picture(0, (8, 9)))]),
            "step 1, view 'wrist': the picture has 8 x 9 pixels, the task declares 12 x 16",
        ),
        (
            _change(1, images=[encoded(picture(0)), encoded(picture(0))[:99]]),
            "step 1, view 'wrist': 99 bytes that are no whole picture",
        ),
        (_change(1, images=[]), "found 0 pictures, expected the views \\['front', 'wrist'\\]"),
        (_change(1, text=" "), "step 1: the text is empty"),
        (_change(1, state=np.zeros(3, np.float32)), "state has shape \\[3\\], expected the 2"),
        (_change(1, action=np.zeros(7, np.float32)), "step 1: action: expected shape \\[..., 8\\]"),
        (_change(4, step=7), "found episode 1 step 7 after \\(1, 0\\); expected the steps of each"),
        ([], "there are no steps"),
    ],
    ids=[
        "NaN action",
        "NaN state",
        "size",
        "cut",
        "none",
        "text",
        "state",
        "dim",
        "order",
        "empty",
    ],
)
def test_a_step_that_cannot_be_used_is_named_and_leaves_no_cache(robot, tmp_path, steps, message):
    task = robot(steps=steps or robot_steps(), preprocessors=[] if steps else [lambda d: d.take(0)])
    with pytest.raises(ValueError, match=message):
        cache_task(task, tmp_path)
    assert not (tmp_path / "arm_pick/train").exists()


def test_an_empty_answer_is_refused(web, tmp_path):
    step = {"images": [encoded(picture(0))], "text": "q", "target": "", "episode": 0}
    with pytest.raises(ValueError, match="task 'cups', episode 0 .*: the target is empty"):
        cache_task(web(steps=[{**step, "episode_id": "0"}]), tmp_path)


def test_an_unknown_split_and_an_empty_file_are_refused(robot, tmp_path):
    with pytest.raises(ValueError, match="has no split 'test'; it has .*'train'"):
        cache_task(robot(), tmp_path, split="test")
    with pytest.raises(ValueError, match="shard_steps: found 0, expected 1 or more"):
        cache_task(robot("arm_b"), tmp_path, shard_steps=0)


def test_what_tensorflow_cannot_read_is_one_line_with_the_task(robot, tmp_path):
    import tensorflow as tf

    def broken(dataset):
        return dataset.map(lambda s: {**s, "text": tf.io.read_file("no/such/file")})

    with pytest.raises(ValueError, match="task 'arm_pick', split 'train': cannot be read") as error:
        cache_task(robot(preprocessors=[broken]), tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture
def cached(robot, tmp_path):
    cache_task(robot(), tmp_path, shard_steps=4)
    return tmp_path / "arm_pick/train"


def open_cache(folder):
    return StepCache(folder.parent.parent, "arm_pick", "train")


def test_a_file_that_was_cut_short_is_named(cached):
    file = cached / "steps-00001.array_record"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="steps-00001.array_record: damaged, found .* delete"):
        open_cache(cached)


def test_a_missing_file_is_named(cached):
    (cached / "steps-00002.array_record").unlink()
    with pytest.raises(FileNotFoundError, match="steps-00002.array_record is missing; delete"):
        open_cache(cached)


def test_damaged_bytes_are_noticed_when_the_step_is_read(cached):
    file = cached / "steps-00000.array_record"
    data = bytearray(file.read_bytes())
    position = data.find(b"pick object") if b"pick object" in data else len(data) // 2
    data[position] ^= 255
    file.write_bytes(data)
    with pytest.raises(ValueError, match="array_record.* of task 'arm_pick' is damaged|damaged"):
        cache = open_cache(cached)
        for i in range(len(cache)):
            cache[i]


def test_damaged_information_is_one_clear_line(cached):
    info = cached / "info.json"
    data = json.loads(info.read_text())
    info.write_text(json.dumps({**data, "version": 99}))
    with pytest.raises(ValueError, match="version 99, this code reads 2: cache it again"):
        open_cache(cached)
    info.write_text(json.dumps({**data, "steps": 8}))
    with pytest.raises(ValueError, match="damaged, found 9 steps, expected 8"):
        open_cache(cached)
    info.write_text(info.read_text()[:100])
    with pytest.raises(ValueError, match="info.json: damaged, not JSON"):
        open_cache(cached)


def test_packing_is_the_same_for_equal_steps():
    step = TaskStep((b"i",), "t", "", np.ones(8, np.float32), np.zeros(0, np.float32), 1, 2, "e")
    assert step.pack() == TaskStep.unpack(step.pack()).pack()
