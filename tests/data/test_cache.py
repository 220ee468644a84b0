"""The cache: what comes out is what went in, bad steps are named, nothing is overwritten."""

import fcntl
import json
import resource

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


def stop_at(number):
    """Ends caching as an error would, at the step of this number."""

    def report(steps):
        if steps == number:
            raise Stop

    return report


def test_an_interrupted_cache_is_no_cache_and_continues_with_the_shards_that_are_missing(
    robot, sharded, tmp_path
):
    task = robot(source=sharded(robot_steps()))
    whole = cache_task(task, tmp_path / "whole", shard_steps=2)
    with pytest.raises(Stop):
        cache_task(task, tmp_path / "cut", shard_steps=2, report=stop_at(8))
    with pytest.raises(FileNotFoundError, match="task 'arm_pick' is not cached.*rt2 data cache"):
        StepCache(tmp_path / "cut", "arm_pick", "train")
    partial = tmp_path / "cut/arm_pick/train.incomplete"
    written = {p: p.stat().st_mtime_ns for p in partial.glob("*.array_record")}
    assert len(written) == 4 and len(list(partial.glob("shard-*.json"))) == 2
    (partial / "steps-00002-00000.array_record.0.unfinished").write_bytes(b"of a killed run")
    told = []
    assert cache_task(task, tmp_path / "cut", shard_steps=2, report=told.append) == whole
    assert told == [3, 7, 8, 9]
    final = tmp_path / "cut/arm_pick/train"
    assert files(final).keys() == {final / p.name for p in files(tmp_path / "whole")}
    assert len(list(final.iterdir())) == 5 + 3
    assert all((final / p.name).stat().st_mtime_ns == time for p, time in written.items())


def test_a_run_that_was_killed_before_its_folder_got_its_name_has_finished(robot, tmp_path):
    task = robot()
    info = cache_task(task, tmp_path)
    before = {p.name: data for p, data in files(tmp_path).items()}
    final = tmp_path / "arm_pick/train"
    final.rename(final.with_name("train.incomplete"))
    (tmp_path / "arm_pick/train.incomplete/actions-00000.bytes").write_bytes(b"not yet removed")
    assert cache_task(task, tmp_path, report=stop_at(1)) == info, "nothing is read again"
    assert {p.name: data for p, data in files(final).items()} == before


def test_what_an_interrupted_run_has_finished_is_read_again_and_compared(robot, sharded, tmp_path):
    task = robot(source=sharded(robot_steps()))
    with pytest.raises(Stop):
        cache_task(task, tmp_path, report=stop_at(4))
    (file,) = (tmp_path / "arm_pick/train.incomplete").glob("*.array_record")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    with pytest.raises(ValueError, match="steps-00000-00000.array_record: .*delete it and run ag"):
        cache_task(task, tmp_path)
    file.unlink()
    assert cache_task(task, tmp_path).steps == 9


def test_other_shards_of_the_source_than_when_it_was_interrupted_are_refused(
    robot, sharded, tmp_path
):
    with pytest.raises(Stop):
        cache_task(robot("arm_a", source=sharded(robot_steps())), tmp_path, report=stop_at(4))
    (tmp_path / "arm_a").rename(tmp_path / "arm_b")
    partial = tmp_path / "arm_b/train.incomplete"
    plan = partial / "plan.json"
    plan.write_text(plan.read_text().replace("arm_a", "arm_b"))
    other = robot("arm_b", source=sharded(robot_steps((3, 4))))
    with pytest.raises(ValueError, match="source_shards.count: 3, not 2.*Nothing was changed"):
        cache_task(other, tmp_path)
    (partial / "shard-00000.json").unlink()
    assert cache_task(other, tmp_path).steps == 7, "nothing was finished, so it begins again"


def test_the_hash_and_the_steps_do_not_depend_on_the_shards_of_the_source(robot, sharded, tmp_path):
    one = cache_task(robot("arm_a"), tmp_path)
    three = cache_task(robot("arm_b", source=sharded(robot_steps())), tmp_path)
    assert one.hash == three.hash and (one.episodes, len(three.source_shards)) == (3, 3)
    first, second = (StepCache(tmp_path, name, "train") for name in ("arm_a", "arm_b"))
    assert [first[i].pack() for i in range(9)] == [second[i].pack() for i in range(9)]


def test_two_processes_do_not_write_one_cache(robot, tmp_path):
    (tmp_path / "arm_pick").mkdir()
    with (tmp_path / "arm_pick/train.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process is writing .*arm_pick/train; wait"):
            cache_task(robot(), tmp_path)


def test_opening_a_cache_makes_room_for_its_files(robot, tmp_path):
    cache_task(robot(), tmp_path, shard_steps=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 100, hard))
        StepCache(tmp_path, "arm_pick", "train")
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard - 95, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
    file = cached / "steps-00000-00001.array_record"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="00000-00001.array_record: damaged, found .* delete"):
        open_cache(cached)


def test_a_missing_file_is_named(cached):
    (cached / "steps-00000-00002.array_record").unlink()
    with pytest.raises(FileNotFoundError, match="00000-00002.array_record is missing; delete"):
        open_cache(cached)


def test_damaged_bytes_are_noticed_when_the_step_is_read(cached):
    file = cached / "steps-00000-00000.array_record"
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
    with pytest.raises(ValueError, match="version 99, this code reads 3: delete .*train and cache"):
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
