"""A registered task is checked with all of its splits and the raw data set behind them."""

import dataclasses

import numpy as np
import pytest
import seqio
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rt2_jax.data.checks import check_task
from rt2_jax.data.checks.rlds import RldsSplit, add_episode, check_rlds, read_rlds
from rt2_jax.data.registration import robot_task
from rt2_jax.data.rlds_reader import rlds_source, steps_of_episodes
from rt2_jax.sim.record import RecordSettings, record
from rt2_jax.tasks import bridge, tabletop  # noqa: F401  (registers)

from ..conftest import encoded, picture, robot_steps
from ..test_rlds import record as record_arm

BRIDGE = "robot/octo_bridge_debug/1.0.0"
SETTINGS = settings(max_examples=15, phases=(Phase.explicit, Phase.generate))


@pytest.fixture
def bridge_views(registry, shared_data, monkeypatch):
    """The real Bridge sample as its splits stand, with its first and last camera."""
    monkeypatch.setenv("RT2_DATA_DIR", str(shared_data))

    def to_step(step):
        views = [step["observation"][name] for name in ("image_0", "image_3")]
        return {**bridge.bridge_step(step), "images": tf.stack(views)}

    return robot_task(
        "bridge_views",
        rlds_source(BRIDGE, {"train": "train", "validation": "val"}),
        embodiment="widowx",
        action_space=bridge.BRIDGE_ACTIONS,
        views=["image_0", "image_3"],
        state_fields=bridge.STATE_FIELDS,
        read_from=BRIDGE,
        preprocessors=[
            steps_of_episodes(
                to_step, episode_id=lambda episode: tf.strings.as_string(episode["episode_id"])
            )
        ],
    )


def by_check(report, name):
    return [finding for finding in report.findings if finding.check == name]


def test_every_defect_of_the_bridge_sample_is_reported(bridge_views):
    report = check_task(bridge_views)
    assert report.read["train"] == report.read["raw val"] == (25, 250)
    for split, finding in zip(
        ("train", "validation"), by_check(report, "black-picture"), strict=True
    ):
        assert (finding.severity, finding.field) == ("error", "view image_3")
        assert finding.split == split and "all of 250" in finding.found
    (splits,) = by_check(report, "duplicate-splits")
    assert splits.severity == "error" and "25 of 25 episodes" in splits.found
    assert [f.severity for f in by_check(report, "no-end")] == ["error", "error"]
    assert {f.field for f in by_check(report, "blank-column")} == {"observation image_3"}
    assert {f.field for f in by_check(report, "step-marks")} == {"is_last"}
    for flags in by_check(report, "lying-flag"):
        assert flags.field == "episode_metadata has_image_0, has_image_1, has_image_2"
        assert flags.found.startswith("False in 25 of 25 episodes that have")
    assert len(by_check(report, "one-length")) == len(by_check(report, "lying-flag")) == 2
    # Nothing else: signs, axes, units, times and the gripper of the real robot agree.
    assert {f.check for f in report.findings} == {
        *("black-picture", "duplicate-splits", "no-end", "blank-column", "step-marks"),
        *("lying-flag", "one-length", "duplicate-raw-splits"),
    }


def test_the_tables_own_recording_has_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    record(RecordSettings(episodes=16), tmp_path, jobs=1)
    for skill in ("reach", "push"):
        report = check_task(seqio.TaskRegistry.get(f"rt2_tabletop_{skill}"))
        assert report.errors == 0 and report.read["raw train"][0] == 16
        # Its hand neither turns nor closes.
        assert {f.check for f in report.findings} == {"dead-field"}


def test_web_tasks_are_checked_for_copies_and_empty_answers(web):
    steps = [
        {
            "images": [encoded(picture(i))],
            "text": f"what is {i}?",
            "target": "" if i == 2 else "a cup",
            "episode": i,
            "episode_id": str(i),
        }
        for i in range(4)
    ]
    steps.append({**steps[1], "episode": 4, "episode_id": "4"})
    report = check_task(web(steps=steps))
    assert [(f.check, f.place.episode) for f in report.findings] == [
        ("duplicate-episodes", 4),
        ("empty-text", 2),
    ]


def test_a_cached_task_is_read_from_its_cache(robot, tmp_path):
    from rt2_jax.data.cache_writer import cache_task

    task = robot(steps=robot_steps(lengths=(3, 4, 2)))
    cache_task(task, tmp_path)
    direct, cached = check_task(task), check_task(task, cache_dir=tmp_path)
    assert direct == cached and direct.read == {"train": (3, 9)}
    (tmp_path / task.name / "train" / "info.json").unlink()
    assert check_task(task, cache_dir=tmp_path) == direct
    assert check_task(task, episodes=2).read == {"train": (2, 7)}


def test_a_clean_recording_has_no_raw_finding(tmp_path):
    splits = read_rlds(record_arm(tmp_path).directory)
    assert [(s.name, s.episodes, s.steps) for s in splits] == [("train", 5, 15)]
    assert list(check_rlds(splits)) == []


def raw_episode(seed, **changes):
    """An RLDS episode with two cameras."""
    random, length = np.random.default_rng(seed), 5 + seed % 4
    steps = [
        {
            "observation": {
                "image_0": encoded(picture(10 * seed + i)),
                "image_1": encoded(picture(10 * seed + i + 5)),
                "state": random.random(3),
            },
            "action": random.random(3),
            "language_instruction": b"pick it up",
            "is_first": i == 0,
            "is_last": i == length - 1,
            "is_terminal": i == length - 1,
        }
        for i in range(length)
    ]
    metadata = {"episode_id": seed, "has_image_0": True, "has_image_1": True, "has_language": True}
    return {"steps": steps, "episode_metadata": metadata | changes}


def read(episodes, name="train"):
    split = RldsSplit(name)
    for episode in episodes:
        tensors = tf.nest.map_structure(tf.constant, episode)
        add_episode(split, tensors, ("image_0", "image_1"))
    return split


@SETTINGS
@given(
    rate=st.floats(0.05, 1),
    fault=st.sampled_from(["blank", "flag", "is_first", "is_last", "is_terminal", "language"]),
    camera=st.integers(0, 1),
    seed=st.integers(0, 1000),
)
def test_raw_faults_are_found_where_they_are_planted(rate, fault, camera, seed):
    episodes = [raw_episode(i) for i in range(8)]
    assert list(check_rlds([read(episodes)])) == []
    hit = np.flatnonzero(np.random.default_rng(seed).random(8) < rate)
    hit = hit if len(hit) else np.array([3])
    image = f"image_{camera}"
    for i in hit:
        steps, metadata = episodes[i]["steps"], episodes[i]["episode_metadata"]
        if fault == "blank":
            for step in steps:
                step["observation"][image] = encoded(np.zeros((6, 8, 3), np.uint8))
        elif fault == "flag":
            metadata[f"has_{image}"] = False
        elif fault == "language":
            metadata["has_language"] = False
        else:
            steps[2][fault] = True
    found = {(f.check, f.field): f for f in check_rlds([read(episodes)])}
    expected = {
        "blank": ("blank-column", f"observation {image}"),
        "flag": ("lying-flag", f"episode_metadata has_{image}"),
        "language": ("lying-flag", "episode_metadata has_language"),
    }.get(fault, ("step-marks", fault))
    # A flag that says True of a camera without pictures lies, too.
    also = {("lying-flag", f"episode_metadata has_{image}")} if fault == "blank" else set()
    assert set(found) == {expected} | also
    if fault != "blank":
        assert found[expected].place.episode == hit[0]


@SETTINGS
@given(shared=st.integers(1, 8))
def test_raw_episodes_in_two_splits_are_counted(shared):
    train, val = [raw_episode(i) for i in range(8)], [raw_episode(i) for i in range(8 - shared, 12)]
    (finding,) = check_rlds([read(train), read(val, "val")])
    assert finding.check == "duplicate-raw-splits"
    assert finding.found.startswith(f"{shared} of {4 + shared} episodes of 'val'")


def test_a_finding_says_where_what_and_what_to_change(robot):
    steps = robot_steps(lengths=(3, 4, 2))
    steps[4]["action"] = steps[4]["action"] * np.float32(np.nan)
    report = check_task(robot(steps=steps))
    finding = by_check(report, "not-finite")[0]
    text = finding.describe()
    assert "split train, episode 1 (demo-1), step 1" in text and "error: not-finite" in text
    assert finding.advice in text and report.errors >= 8
    assert report.to_json()["findings"][0]["place"]["episode_id"] == "demo-1"
    with pytest.raises(ValueError, match="severity: found 'bad'"):
        dataclasses.replace(finding, severity="bad")
