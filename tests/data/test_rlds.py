"""RLDS recordings: what is written, how it describes itself, what is refused."""

import dataclasses
import fcntl
import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.data.recording import RecordingInfo, read_recording
from rt2_jax.data.rlds import EpisodeEncoder, RecordedStep, RecordingWriter, episode_features

SPACE = rt2_action_space(
    "test_arm",
    translation_bound_m=0.05,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5.0,
)
INFO = RecordingInfo(
    name="test_arm",
    embodiment="arm",
    action_space=SPACE,
    state_fields=("x", "y"),
    points=(),
    cameras=("front", "wrist"),
    height=12,
    width=16,
    image_format="png",
    disturbed=False,
    episodes=5,
    shard_episodes=2,
    origin={"seed": 7},
)
METADATA = {"episode_id": "e", "skill": "reach", "seed": 3, "success": True, "scene": "{}"}


def step(number, info=INFO, **changes):
    random = np.random.default_rng(number)
    smooth = np.add.outer(np.arange(info.height), np.arange(info.width)) * 4 + number
    images = {c: np.repeat(smooth[..., None], 3, 2).astype(np.uint8) for c in info.cameras}
    fields = {
        "observation": Observation(images, "go", random.random(2, np.float32)),
        "action": random.random(SPACE.dimension, np.float32),
        "reward": 0.5 * number,
    }
    return RecordedStep(**{**fields, **changes})


def record(root, info=INFO, successes=5, terminated=True):
    """A finished recording: episodes of three steps, of which the first ones succeed."""
    writer, encoder = RecordingWriter(root, info), EpisodeEncoder(info)
    steps = [step(i, info) for i in range(3)]
    for shard in writer.missing_shards():
        writer.write_shard(
            shard,
            [
                encoder.encode(
                    steps,
                    terminated=terminated,
                    metadata={**METADATA, "seed": e, "success": e < successes},
                )
                for e in info.shards[shard]
            ],
        )
    return writer.finish()


def episodes(directory):
    data = tfds.builder_from_directory(directory).as_dataset(split="train")
    return [(e["episode_metadata"], list(e["steps"])) for e in tfds.as_numpy(data)]


def test_tensorflow_datasets_reads_what_was_written(tmp_path):
    read = episodes(record(tmp_path).directory)
    assert [int(metadata["seed"]) for metadata, _ in read] == [0, 1, 2, 3, 4]
    metadata, steps = read[0]
    assert metadata["skill"] == b"reach"
    assert metadata["success"] and metadata["steps"] == 3
    for index, found in enumerate(steps):
        expected = step(index)
        observation = expected.observation
        np.testing.assert_array_equal(found["observation"]["image"], observation.images["front"])
        np.testing.assert_array_equal(
            found["observation"]["wrist_image"], observation.images["wrist"]
        )
        np.testing.assert_array_equal(found["observation"]["state"], observation.state)
        np.testing.assert_array_equal(found["action"], expected.action)
        assert found["language_instruction"] == b"go"
        assert found["reward"] == expected.reward


@pytest.mark.parametrize("terminated", [True, False])
def test_only_the_last_step_of_a_terminated_episode_is_terminal(tmp_path, terminated):
    for _, steps in episodes(record(tmp_path, terminated=terminated).directory):
        assert [bool(s["is_first"]) for s in steps] == [True, False, False]
        assert [bool(s["is_last"]) for s in steps] == [False, False, True]
        assert [bool(s["is_terminal"]) for s in steps] == [False, False, terminated]
        assert [float(s["discount"]) for s in steps] == [1, 1, 0 if terminated else 1]


def test_features_json_is_what_open_x_embodiment_readers_expect(tmp_path):
    directory = record(tmp_path).directory
    features = tfds.features.FeaturesDict.from_config(directory)
    assert isinstance(features["steps"], tfds.features.Dataset)
    steps = features["steps"].feature
    assert set(steps) == {
        "observation",
        "action",
        "language_instruction",
        "is_first",
        "is_last",
        "is_terminal",
        "reward",
        "discount",
    }
    assert isinstance(steps["observation"]["image"], tfds.features.Image)
    assert steps["observation"]["image"].shape == (12, 16, 3)
    assert steps["observation"]["state"].shape == (2,)
    assert (steps["action"].shape, steps["action"].np_dtype) == ((8,), np.float32)
    assert isinstance(steps["language_instruction"], tfds.features.Text)
    for flag in ("is_first", "is_last", "is_terminal"):
        assert (steps[flag].shape, steps[flag].np_dtype) == ((), np.bool_)
    text = (directory / "features.json").read_text()
    assert "gripper_extension: ratio, absolute, high is open" in text
    shards = sorted(file.name for file in directory.glob("*.tfrecord*"))
    assert shards == [f"test_arm-train.tfrecord-0000{i}-of-00003" for i in range(3)]


def test_jpeg_pictures_are_jpeg_and_close_to_the_original(tmp_path):
    info = dataclasses.replace(INFO, image_format="jpeg")
    example = EpisodeEncoder(info).encode([step(1)], terminated=True, metadata=METADATA)
    assert b"\xff\xd8\xff" in example and b"\x89PNG" not in example
    _, steps = episodes(record(tmp_path, info).directory)[0]
    found = steps[1]["observation"]["image"].astype(int)
    assert np.abs(found - step(1).observation.images["front"]).max() <= 4


def test_pictures_are_compressed_once_and_kept_as_they_are(tmp_path):
    directory = record(tmp_path).directory
    skip = {"steps": {"observation": {"image": tfds.decode.SkipDecoding()}}}
    data = tfds.builder_from_directory(directory).as_dataset(split="train", decoders=skip)
    (episode,) = data.take(1)
    (first,) = episode["steps"].take(1)
    with Image.open(io.BytesIO(first["observation"]["image"].numpy())) as picture:
        assert picture.format == "PNG"


def test_equal_episodes_give_equal_bytes():
    examples = {
        EpisodeEncoder(INFO).encode([step(0), step(1)], terminated=True, metadata=METADATA)
        for _ in range(3)
    }
    assert len(examples) == 1


def test_a_recording_says_what_its_numbers_mean(tmp_path):
    written = record(tmp_path, successes=3)
    found = read_recording(str(written.directory))
    assert found == written
    assert found.info == INFO
    assert found.successes == 3
    info = tfds.builder_from_directory(written.directory).info
    assert info.metadata["rt2_recording"]["action_space_hash"] == SPACE.hash
    assert "5 episodes of arm, of which 3 (60 %) succeeded" in info.description
    assert info.splits["train"].num_examples == 5
    assert info.splits["train"].shard_lengths == [2, 2, 1]


def test_the_executed_action_is_there_where_it_differs():
    assert "executed_action" not in episode_features(INFO)["steps"].feature
    disturbed = episode_features(dataclasses.replace(INFO, disturbed=True))["steps"].feature
    assert disturbed["executed_action"].shape == (8,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_format": "gif"}, "image format: found 'gif', expected one of png, jpeg"),
        ({"cameras": ()}, r"cameras: found \[\], expected some, each once"),
        ({"cameras": ("top", "top")}, r"cameras: found \['top', 'top'\], expected some, each once"),
        ({"episodes": 0}, "episodes: found 0, expected 1 or more"),
        ({"shard_episodes": -1}, "shard_episodes: found -1, expected 1 or more"),
    ],
)
def test_a_recording_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(INFO, **changes)


def test_a_picture_of_another_size_is_refused_with_its_camera():
    encoder = EpisodeEncoder(dataclasses.replace(INFO, height=20))
    with pytest.raises(
        ValueError, match=r"'front': .* shape \[12, 16, 3\], expected \[20, 16, 3\]"
    ):
        encoder.encode([step(0)], terminated=True, metadata=METADATA)


def test_shards_are_whole_or_missing_and_the_folder_is_unfinished_until_the_end(tmp_path):
    writer, encoder = RecordingWriter(tmp_path, INFO), EpisodeEncoder(INFO)
    example = encoder.encode([step(0)], terminated=True, metadata=METADATA)

    def killed():
        yield example
        raise KeyboardInterrupt

    writer.write_shard(0, [example, example])
    with pytest.raises(KeyboardInterrupt):
        writer.write_shard(1, killed())
    writer.close()
    again = RecordingWriter(tmp_path, INFO)
    assert again.missing_shards() == [1, 2]
    assert not again.directory.exists()
    with pytest.raises(ValueError, match="unfinished recording; run the command that began"):
        read_recording(tmp_path / "test_arm" / "2.0.0.incomplete")
    again.write_shard(1, [example, example])
    again.write_shard(2, [example])
    directory = again.finish().directory
    assert len(list(directory.iterdir())) == 3 + 3  # shards; features, dataset_info and metadata
    assert list(directory.parent.iterdir()) == [directory]


def test_there_is_one_writer_of_a_recording_at_a_time(tmp_path):
    first = RecordingWriter(tmp_path, INFO)
    with pytest.raises(OSError, match="another process is recording .*2.0.0; wait until it has"):
        RecordingWriter(tmp_path, INFO)
    RecordingWriter(tmp_path / "elsewhere", INFO)
    first.close()
    RecordingWriter(tmp_path, INFO)


def test_a_refused_writer_keeps_nobody_out(tmp_path):
    RecordingWriter(tmp_path, INFO).close()
    with pytest.raises(ValueError, match="holds another recording") as error:
        RecordingWriter(tmp_path, dataclasses.replace(INFO, episodes=6))
    RecordingWriter(tmp_path, INFO)
    assert error.tb is not None  # which keeps the refused writer alive


def test_a_writer_that_waits_for_the_lock_while_another_finishes_finds_it_finished(
    tmp_path, monkeypatch
):
    lock = fcntl.flock

    def after_another_has_finished(*arguments):
        monkeypatch.undo()
        (tmp_path / "test_arm" / "2.0.0.lock").unlink()
        record(tmp_path)
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", after_another_has_finished)
    writer = RecordingWriter(tmp_path, INFO)
    assert writer.complete and writer.missing_shards() == []
    assert [file.name for file in (tmp_path / "test_arm").iterdir()] == ["2.0.0"]


def test_what_a_killed_writer_left_beside_the_folder_is_cleared_away(tmp_path):
    RecordingWriter(tmp_path, INFO).close()
    (tmp_path / "test_arm" / "2.0.0.incomplete.metadata.json").write_text("{")
    directory = record(tmp_path).directory
    assert list(directory.parent.iterdir()) == [directory]


def test_a_shard_with_a_wrong_number_of_episodes_is_refused(tmp_path):
    writer = RecordingWriter(tmp_path, INFO)
    for shard in writer.missing_shards():
        writer.write_shard(shard, [])
    with pytest.raises(ValueError, match="-of-00003: found 0 episodes, expected 2; delete"):
        writer.finish()


@pytest.mark.parametrize("finished", [True, False])
def test_another_recording_is_not_overwritten_and_the_difference_is_named(tmp_path, finished):
    if finished:
        record(tmp_path)
    else:
        RecordingWriter(tmp_path, INFO)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    other = dataclasses.replace(INFO, origin={"seed": 8})
    with pytest.raises(
        ValueError, match="holds another recording .*: origin.seed: 7, not 8. Nothing was changed"
    ):
        RecordingWriter(tmp_path, other)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_the_same_recording_is_left_as_it_is(tmp_path):
    first = record(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    assert record(tmp_path) == first
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot record into .*file: Not a directory"):
        RecordingWriter(tmp_path / "file", INFO)


def test_a_folder_with_something_else_is_not_touched(tmp_path):
    other = tmp_path / "test_arm" / "2.0.0.incomplete"
    other.mkdir(parents=True)
    (other / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="no recording of this package"):
        RecordingWriter(tmp_path, INFO)
    assert [file.name for file in other.iterdir()] == ["thesis.tex"]


def test_a_data_set_that_somebody_else_made_is_refused(tmp_path):
    directory = record(tmp_path).directory
    (directory / "metadata.json").unlink()
    with pytest.raises(ValueError, match="nothing says what its actions mean"):
        read_recording(directory)
    (directory / "metadata.json").write_text('{"theirs": 1}')
    with pytest.raises(ValueError, match="there is no 'rt2_recording' in metadata.json"):
        read_recording(directory)
    (directory / "metadata.json").write_text("{")
    with pytest.raises(ValueError, match="metadata.json: not JSON"):
        read_recording(directory)
    with pytest.raises(FileNotFoundError, match="no folder .*expected a recording"):
        read_recording(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(version="9.0.0"), "version '9.0.0', this package reads '2.0.0'"),
        (lambda data: data["rt2_recording"].pop("origin"), r"missing keys \['origin'\]"),
        (
            lambda data: data["rt2_recording"]["action_space"].update(control_rate_hz=10),
            "action space 'test_arm': its hash is .*somebody has edited it",
        ),
    ],
)
def test_metadata_that_does_not_fit_is_refused(tmp_path, change, message):
    path = record(tmp_path).directory / "metadata.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises((ValueError, KeyError), match=message):
        read_recording(path.parent)


def test_a_lost_shard_is_named(tmp_path):
    directory = record(tmp_path).directory
    (directory / "test_arm-train.tfrecord-00001-of-00003").unlink()
    with pytest.raises(FileNotFoundError, match="lacks test_arm-train.tfrecord-00001-of-00003"):
        read_recording(directory)
