"""LeRobot data sets of versions 2.1 and 3.0: the same steps, exact frames, named faults."""

import dataclasses
import json
import shutil
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest

from rt2_jax.actions.named_space import named_action_space
from rt2_jax.data.cache import StepCache
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.image import decode_image
from rt2_jax.data.lerobot import read_lerobot
from rt2_jax.data.lerobot_steps import LeRobotSteps, lerobot_names, lerobot_task
from rt2_jax.data.step_reader import read_steps

from .lerobot_sets import (
    CAMERAS,
    FPS,
    NAMES,
    SIZE,
    TEXTS,
    frame,
    numbers,
    png,
    write_v2,
    write_v3,
    write_video,
)

LENGTHS = (5, 7, 4)
ARMS = named_action_space(
    "arms",
    NAMES,
    control_rate_hz=FPS,
    reference="absolute",
    fields={
        "*_joint_*": {"unit": "rad", "frame": "joint"},
        "*_gripper": {"unit": "1", "polarity": "high_is_open"},
    },
)
STEPS = LeRobotSteps(
    "set",
    {"high": CAMERAS[0], "wrist": CAMERAS[1]},
    ARMS,
    state_fields=NAMES,
    image_format="png",
)
ALL = {"train": ":"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def v2(tmp_path_factory):
    """A data set of version 2.1; not to be changed."""
    return write_v2(tmp_path_factory.mktemp("lerobot") / "set", LENGTHS)


@pytest.fixture
def copied(v2, root):
    """The same, to be changed."""
    return shutil.copytree(v2, root / "set")


def read(split=":", **changes):
    return list(dataclasses.replace(STEPS, **changes).read(split))


def check_steps(steps, episodes):
    """That these steps are those of these episodes, exactly."""
    expected = [(e, i) for e in episodes for i in range(LENGTHS[e])]
    assert len(steps) == len(expected)
    for step, (e, i) in zip(steps, expected, strict=True):
        action, state = numbers(e, LENGTHS[e])
        np.testing.assert_array_equal(step["action"], [i < LENGTHS[e] - 1, *action[i]])
        np.testing.assert_array_equal(step["state"], state[i])
        assert step["text"] == TEXTS[e % 2] and step["episode_id"] == f"episode_{e:06d}"
        assert (step["episode"], step["step"]) == (list(episodes).index(e), i)
        for camera, image in enumerate(step["images"]):
            np.testing.assert_array_equal(decode_image(image), frame(e, camera, i))


def test_two_arms_of_14_numbers_and_two_cameras_are_read_and_cached(copied, registry, tmp_path):
    task = lerobot_task("arms", STEPS, ALL, embodiment="two_arms")
    info = cache_task(task, tmp_path / "cache")
    assert (info.steps, info.episodes, info.task.views) == (16, 3, ("high", "wrist"))
    assert info.statistics.count == 16
    cache = StepCache(tmp_path / "cache", "arms", "train")
    check_steps([cache[i].__dict__ for i in range(16)], range(3))


@pytest.mark.parametrize("layout", [{"to_a_file": 3}, {"to_a_file": 2, "row_group": 3}])
@pytest.mark.parametrize("index", ["task", "__index_level_0__"])
def test_version_3_gives_the_steps_of_version_2(v2, root, layout, index):
    write_v3(root / "set", v2, [0, 1, 2], index=index, **layout)
    check_steps(read(), range(3))


@pytest.mark.parametrize("episodes", [[1], [0, 2], [2]])
def test_some_episodes_are_read_from_the_middle_of_files(v2, root, episodes):
    write_v3(root / "set", v2, [0, 1, 2], to_a_file=3)
    check_steps(read(episodes), episodes)


def test_pictures_in_the_parquet_files_stay_byte_for_byte(root):
    write_v2(root / "set", LENGTHS, stored=True)
    steps = read(image_format="jpeg")
    check_steps(steps, range(3))
    assert steps[6]["images"] == [png(frame(1, camera, 1)) for camera in (0, 1)]
    write_v3(root / "third", root / "set", [0, 1, 2])
    check_steps(read(folder="third"), range(3))


def test_a_picture_may_be_a_file_that_the_row_names(root):
    def name_files(rows, episode):
        for key in CAMERAS:
            for i, cell in enumerate(rows[key]):
                path = f"images/{key}-{episode}-{i}.png"
                (root / "set/images").mkdir(exist_ok=True)
                (root / "set" / path).write_bytes(cell["bytes"])
                rows[key][i] = {"bytes": None, "path": path}
        return rows

    write_v2(root / "set", LENGTHS, stored=True, change=name_files)
    check_steps(read(), range(3))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"longest_side": 24}, (16, 24)),
        ({"longest_side": 100}, SIZE),
        ({"image_size": (20, 20)}, (20, 20)),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_pictures_get_the_size_that_is_asked_for(root, sizes, expected, stored):
    write_v2(root / "set", (2,), stored=stored)
    (first, _) = read(**sizes, image_format="jpeg")
    assert {decode_image(image).shape for image in first["images"]} == {(*expected, 3)}
    jpeg = first["images"][0].startswith(b"\xff\xd8")
    assert jpeg == (not stored or expected != SIZE)


@pytest.mark.parametrize(
    ("split", "episodes"),
    [(":", [0, 1, 2]), ("1:3", [1, 2]), (":67%", [0, 1]), ("67%:", [2]), ([2, 0], [0, 2])],
)
def test_a_split_is_a_range_a_share_or_a_list(v2, split, episodes):
    assert [e.index for e in read_lerobot(v2).select(split)] == episodes


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("3:5", "split '3:5' holds none of the 3 episodes"),
        ([1, 7], r"no episodes \[7\]; there are 3"),
        ("train", "split 'train': expected two bounds as in '0:80'"),
        ("a:b", "bound 'a' of a split is no number"),
    ],
)
def test_a_split_that_cannot_be_is_refused(v2, split, message):
    with pytest.raises(ValueError, match=message):
        read_lerobot(v2).select(split)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([NAMES], tuple(NAMES)),
        ({"motors": NAMES}, tuple(NAMES)),
        ({name: place for place, name in enumerate(NAMES)}, tuple(NAMES)),
        (None, tuple(f"action_{i}" for i in range(14))),
        (["dim"], tuple(f"action_{i}" for i in range(14))),
        ([*NAMES[:12], "grip", "grip"], (*NAMES[:12], "grip_12", "grip_13")),
    ],
)
def test_names_are_found_in_every_way_that_data_sets_write_them(root, names, expected):
    write_v2(root / "set", (1,), stored=True, names=names)
    assert lerobot_names("set", "action") == expected
    both = lerobot_names("set", "action", "observation.state")
    assert len(set(both)) == 28


def test_fields_are_taken_by_name_in_the_order_of_the_space(copied):
    space = named_action_space(
        "some", ["last", "left_joint_1"], control_rate_hz=FPS, reference="absolute", terminate=False
    )
    steps = read(
        action_space=space,
        field_names={"last": "right_joint_5"},
        state_fields=["observation.state.left_joint_0"],
        state_columns=["action", "observation.state"],
    )
    action, state = numbers(0, 5)
    np.testing.assert_array_equal(steps[3]["action"], action[3][[NAMES.index("right_joint_5"), 1]])
    np.testing.assert_array_equal(steps[3]["state"], state[3][:1])


@pytest.mark.parametrize("late", [0.02, -0.02])
def test_a_start_that_is_off_by_a_fraction_of_a_frame_finds_the_same_frames(v2, root, late):
    write_v3(root / "set", v2, [0, 1, 2], to_a_file=3, late=late)
    check_steps(read(), range(3))


@pytest.mark.parametrize("late", [0.05, -0.05, 0.03])
def test_a_start_between_two_frames_is_refused_with_episode_camera_and_frame(v2, root, late):
    write_v3(root / "set", v2, [0, 1, 2], to_a_file=3, late=late)
    with pytest.raises(ValueError, match=f"episode_00000[01], camera '{CAMERAS[0]}', frame 0: exp"):
        read([0, 1])


def video(folder, episode=1, camera=0):
    return folder / f"videos/chunk-{episode // 2:03d}/{CAMERAS[camera]}/episode_{episode:06d}.mp4"


def rows(folder, episode=1):
    return folder / f"data/chunk-{episode // 2:03d}/episode_{episode:06d}.parquet"


def edit(path, change):
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def edit_info(folder, change):
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def short_video(folder):
    write_video(video(folder), [frame(1, 0, i) for i in range(6)])


def slow_video(folder):
    write_video(video(folder), [frame(1, 0, i) for i in range(7)], fps=FPS // 2)


def missing_frame(folder):
    edit(rows(folder), lambda table: table.slice(0, 2))


def another_task(folder):
    edit(
        rows(folder),
        lambda t: t.set_column(t.column_names.index("task_index"), "task_index", [[5] * 7]),
    )


def shifted(folder):
    edit(
        rows(folder),
        lambda t: t.set_column(
            t.column_names.index("timestamp"), "timestamp", [[0.1 * (i + 1) for i in range(7)]]
        ),
    )


def few_numbers(folder):
    edit(
        rows(folder),
        lambda t: t.set_column(t.column_names.index("action"), "action", [[[0.0] * 13] * 7]),
    )


def other_episode(folder):
    shutil.copy(rows(folder, 0), rows(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (short_video, f"episode_000001, camera '{CAMERAS[0]}', frame 6: .* ends before it; .* 7"),
        (slow_video, f"episode_000001, camera '{CAMERAS[0]}', frame 1: expected at 0.100000 s"),
        (missing_frame, "episode_000001 has 2 rows, expected 7"),
        (another_task, r"episode_000001, frame 0: task_index 5 has no instruction .*\[0, 1\]"),
        (shifted, "episode_000001, frame 0: found frame_index 0 at 0.100000 s, expected 0 at 0.0"),
        (few_numbers, "episode_000001.parquet: action: found 91 numbers in 7 rows, expected 14"),
        (other_episode, "expected rows of episode_000001 here, found no more"),
        (lambda f: video(f).write_bytes(b"no video"), "episode_000001, .*cannot be decoded"),
        (lambda f: rows(f).write_bytes(b"no rows"), "episode_000001.parquet: no whole parquet"),
        (lambda f: edit(rows(f), lambda t: t.drop_columns("action")), r"no columns \['action'\]"),
    ],
)
def test_files_that_disagree_are_refused(copied, change, message):
    assert len(read([0, 2])) == 9
    change(copied)
    with pytest.raises(ValueError, match=message):
        read()


def make_old(info):
    info["codebase_version"] = "v1.6"


def make_deep(info):
    info["features"][CAMERAS[0]]["info"] = {"video.is_depth_map": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (make_old, "info.json: found version 'v1.6', expected one of v2.0, v2.1, v3.0"),
        (make_deep, f"camera '{CAMERAS[0]}' sees distances, expected colours"),
        (lambda info: info.pop("data_path"), "meta: lacks 'data_path'"),
        (lambda info: info.pop("features"), "features: lacks 'features'"),
        (lambda info: info.update(fps=30), "at 30 frames per second, but .* 'arms' says 10 Hz"),
        (lambda info: info.update(fps=0), "fps is 0.0, expected more than 0"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_first_step(copied, change, message):
    edit_info(copied, change)
    with pytest.raises(ValueError, match=message):
        STEPS.read(":")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": {"front": "front"}}, f"no camera 'front'; there are .*{CAMERAS[1]}"),
        (
            {"action_columns": ["actions"]},
            "no column 'actions' of numbers; there are .'action'",
        ),
        ({"state_columns": [CAMERAS[0]]}, "no column 'observation.images.high' of numbers"),
        ({"state_fields": ["x"]}, r"observation.state: no numbers \['x'\]; there are .*left_joint"),
        ({"field_names": {"left_gripper": "hand"}}, r"action: no numbers \['hand'\]; there are"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(copied, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(STEPS, **changes).read(":")


def test_a_wrong_choice_is_refused_at_registration():
    with pytest.raises(ValueError, match="both image_size .* and longest_side"):
        dataclasses.replace(STEPS, image_size=(8, 8), longest_side=8)
    with pytest.raises(KeyError, match="'arms' has no field 'hand'"):
        dataclasses.replace(STEPS, field_names={"hand": "left_gripper"})
    with pytest.raises(ValueError, match="image format 'webp' is not one of"):
        dataclasses.replace(STEPS, image_format="webp")


def test_missing_files_are_named_with_the_episodes_that_are_whole(copied, registry, tmp_path):
    video(copied).unlink()
    task = lerobot_task("arms", STEPS, ALL, embodiment="two_arms")
    with pytest.raises(FileNotFoundError, match=r"1 files .*episode_000001.mp4; 2 of 3 .*\[0, 2\]"):
        cache_task(task, tmp_path / "cache")
    shutil.rmtree(copied)
    with pytest.raises(FileNotFoundError, match="no LeRobot data set at .*/set: .* RT2_DATA_DIR"):
        cache_task(task, tmp_path / "cache")


@pytest.mark.parametrize(
    ("place", "message"),
    [(0, "action: field 'left_joint_1' is nan"), (1, "state 'left_joint_1' is nan, expected")],
)
def test_nan_is_refused_with_task_episode_step_and_field(root, registry, place, message):
    def change(rows, episode):
        if episode == 1:
            rows[["action", "observation.state"][place]][3][1] = float("nan")
        return rows

    write_v2(root / "set", LENGTHS, stored=True, change=change)
    task = lerobot_task("arms", STEPS, ALL, embodiment="two_arms")
    where = "task 'arms', episode 1 .'episode_000001'., step 3: "
    with pytest.raises(ValueError, match=where + message):
        cache_task(task, root / "cache")


def test_a_fault_in_the_middle_is_one_clear_line_when_it_is_cached(copied, registry, root):
    short_video(copied)
    task = lerobot_task("arms", STEPS, ALL, embodiment="two_arms")
    with pytest.raises(ValueError, match="^task 'arms', .*: episode_000001, .*6: ") as e:
        cache_task(task, root / "cache")
    assert "\n" not in str(e.value)


def test_an_episode_may_be_longer_than_memory(root):
    size, count = (384, 384), 400
    write_v2(root / "set", (1,))

    def lengthen(table):
        return (
            table.take([0] * count)
            .set_column(
                table.column_names.index("frame_index"), "frame_index", [list(range(count))]
            )
            .set_column(
                table.column_names.index("timestamp"),
                "timestamp",
                [[i / FPS for i in range(count)]],
            )
        )

    edit(rows(root / "set", 0), lengthen)
    episode = {"episode_index": 0, "tasks": [TEXTS[0]], "length": count}
    (root / "set/meta/episodes.jsonl").write_text(json.dumps(episode))
    write_video(
        video(root / "set", 0), (np.full((*size, 3), i % 256, np.uint8) for i in range(count))
    )

    decoded = count * size[0] * size[1] * 3
    steps = dataclasses.replace(STEPS, cameras={"high": CAMERAS[0]}, longest_side=16).read(":")
    before, most, seen = resident(), 0, 0
    tracemalloc.start()  # NumPy's arrays too
    try:
        for _ in steps:
            seen, most = seen + 1, max(most, resident())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == count
    assert peak < decoded / 20  # of 177 MB
    assert most - before < decoded / 2  # with the decoder's own


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_read_steps_of_a_task_are_those_of_the_source(copied, registry):
    task = lerobot_task("arms", STEPS, {"train": ":2", "validation": [2]}, embodiment="two_arms")
    check_steps([step.__dict__ for step in read_steps(task, "validation")], [2])


def test_the_shards_of_the_source_are_blocks_of_episodes(
    copied, registry, check_shards, monkeypatch, tmp_path
):
    monkeypatch.setattr("rt2_jax.data.lerobot_steps._BLOCK", 1)
    task = lerobot_task("arms", STEPS, {"train": ":", "two": [0, 2]}, embodiment="two_arms")
    names = [f"set, episodes {i} to {i} of the split" for i in range(3)]
    assert check_shards(task, numbered=True) == names
    assert check_shards(task, "two", numbered=True) == names[:2]
    info = cache_task(task, tmp_path / "cache")
    assert (info.steps, info.episodes, len(info.source_shards)) == (16, 3, 3)
    monkeypatch.setattr("rt2_jax.data.lerobot_steps._MOST_BLOCKS", 2)
    assert [list(block) for block in STEPS.blocks(":")] == [[0, 1], [2]]
