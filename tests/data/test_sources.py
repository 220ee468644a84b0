"""Sources: RLDS directories and folders of photos become steps; what is missing is named."""

import json

import numpy as np
import pytest
import tensorflow as tf

from rt2_jax.data.cache import StepCache
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.coco_source import caption_source, detection_source, pointing_source
from rt2_jax.data.image import decode_image
from rt2_jax.data.registration import robot_task, web_task
from rt2_jax.data.rlds_reader import rlds_source, steps_of_episodes
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.task_info import RobotInfo
from rt2_jax.data.vqa_reader import vqa_source

from .conftest import ARM, encoded, picture
from .test_rlds import SPACE, record
from .test_rlds import step as recorded_step

SPLITS = {"train": "train", "one": "train[:1]", "some": "train[1:4]", "two": "train[3:]+train[:3]"}


@pytest.fixture
def recorded(registry, tmp_path, monkeypatch):
    """Registers a task of a recording of five episodes of three steps, of which two succeeded."""
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    record(tmp_path, successes=2)

    def make(directory="test_arm/2.0.0", space=SPACE):
        def to_step(step):
            views = (step["observation"]["image"], step["observation"]["wrist_image"])
            return {
                "images": tf.stack(views),
                "text": step["language_instruction"],
                "action": step["action"],
                "state": step["observation"]["state"],
            }

        robot = RobotInfo("arm", space, ("x", "y"))
        return robot_task(
            "recorded",
            rlds_source(directory, SPLITS, recorded=robot),
            embodiment="arm",
            action_space=space,
            views=["front", "wrist"],
            state_fields=robot.state_fields,
            read_from=directory,
            preprocessors=[
                steps_of_episodes(
                    to_step,
                    episode_id=lambda episode: episode["episode_id"],
                    keep=lambda episode: episode["success"],
                )
            ],
        )

    return make


def test_a_recording_becomes_the_steps_of_its_kept_episodes(recorded):
    steps = list(read_steps(recorded(), "train"))
    assert [(s.episode, s.step) for s in steps] == [(e, s) for e in range(2) for s in range(3)]
    for found in steps:
        expected = recorded_step(found.step)
        np.testing.assert_array_equal(found.action, expected.action)
        np.testing.assert_array_equal(found.state, expected.observation.state)
        for image, view in zip(found.images, ("front", "wrist"), strict=True):
            np.testing.assert_array_equal(decode_image(image), expected.observation.images[view])


def test_a_split_of_a_task_is_any_split_of_the_data_set(recorded):
    assert len(list(read_steps(recorded(), "one"))) == 3


def test_the_shards_of_a_recording_are_the_parts_of_its_files(recorded, check_shards, monkeypatch):
    task = recorded()
    names = task.source.list_shards("train")
    assert len(names) == 1, "few episodes are not divided, whatever the number of files"
    monkeypatch.setattr("rt2_jax.data.tfds_parts._EXAMPLES", 1)
    file = "test_arm-train.tfrecord-0000{}-of-00003[{}]".format
    assert check_shards(task, numbered=True) == [file(0, "0:2"), file(1, "0:2"), file(2, "0:1")]
    assert check_shards(task, "some", numbered=True) == [file(0, "1:2"), file(1, "0:2")]
    assert check_shards(task, "two", numbered=True) == [
        *(file(1, "1:2"), file(2, "0:1")),
        *(file(0, "0:2"), file(1, "0:1")),
    ]
    monkeypatch.setattr("rt2_jax.data.tfds_parts._EXAMPLES", 3)
    assert check_shards(task, numbered=True) == [
        f"{file(0, '0:2')} to {file(1, '0:2')}",
        file(2, "0:1"),
    ]
    monkeypatch.setattr("rt2_jax.data.tfds_parts._EXAMPLES", 1)
    steps = list(read_steps(task, "train"))
    assert [(s.episode, s.step) for s in steps] == [(e, s) for e in range(2) for s in range(3)]


def test_a_file_of_fewer_episodes_than_the_data_set_says_is_refused(recorded, tmp_path):
    first, second = sorted((tmp_path / "test_arm/2.0.0").glob("*.tfrecord-*"))[1:]
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match="cannot be read: .*expected to contain 5 elements"):
        list(read_steps(recorded(), "train"))


def test_a_recording_of_another_action_space_is_refused(recorded):
    with pytest.raises(ValueError, match="belongs to another action space than 'test_arm'"):
        list(read_steps(recorded(space=ARM), "train"))


def test_data_that_are_not_here_can_be_registered_and_are_named_when_read(recorded, tmp_path):
    task = recorded("elsewhere/1.0.0")
    with pytest.raises(FileNotFoundError, match="no RLDS data set at .*elsewhere/1.0.0.*RT2_DATA"):
        cache_task(task, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def photos(registry, tmp_path, monkeypatch):
    """A folder of two photos with captions, questions and boxes (16 x 12 pixels)."""
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    for i in (1, 2):
        (folder / f"images/{i:012d}.jpg").write_bytes(encoded(picture(i)))
    images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in (1, 2)]
    captions = [{"id": 7 + i, "image_id": i, "caption": f" a cat {i} "} for i in (1, 2, 1)]
    questions = [{"question_id": 5, "image_id": 2, "question": "how many?"}]
    answers = [{"question_id": 5, "image_id": 2, "multiple_choice_answer": "two"}]
    sizes = [image | {"width": 16, "height": 12} for image in images]
    names = [{"id": 1, "name": "red cup"}, {"id": 2, "name": "cat"}]
    boxes = [
        {"id": i, "image_id": image, "category_id": category, "bbox": box}
        for i, (image, category, box) in enumerate(
            [(1, 1, [8, 6, 2, 2]), (1, 2, [0, 8, 4, 4]), (1, 2, [4, 0, 4, 6]), (2, 1, [0, 0, 2, 2])]
        )
    ]
    for name, data in {
        "captions.json": {"images": images, "annotations": captions},
        "vqa_questions.json": {"questions": questions},
        "vqa_annotations.json": {"annotations": answers},
        "instances.json": {"images": sizes, "annotations": boxes, "categories": names},
    }.items():
        (folder / name).write_text(json.dumps(data))
    return folder


def captions(name="captions"):
    return web_task(name, caption_source("photos"), prompt="Caption", read_from="photos")


def vqa():
    return web_task("vqa", vqa_source("photos"), prompt="Answer: {text}", read_from="photos")


def places(source, name="places", **options):
    task = web_task(name, source("photos", **options), prompt="{text}", read_from="photos")
    return list(read_steps(task, "train"))


def test_detection_lists_all_things_by_name_then_place_with_the_name_first(photos):
    first, second = places(detection_source)
    assert (first.text, first.episode_id) == ("", "1")
    assert first.target == ("cat<loc0288><loc0416> cat<loc0864><loc0160> red cup<loc0608><loc0608>")
    assert second.target == "red cup<loc0096><loc0096>"
    np.testing.assert_array_equal(decode_image(second.images[0]), picture(2))


def test_detection_keeps_the_largest_things_and_as_many_levels_as_asked_for(photos):
    first, _ = places(detection_source, most=1, place_levels=2)
    assert first.target == "cat<loc0256><loc0256>"


def test_pointing_asks_for_a_thing_that_is_the_only_one_of_its_name(photos):
    first, second = places(pointing_source)
    assert (first.text, first.target) == ("red cup", "red cup<loc0608><loc0608>")
    assert (second.text, second.target) == ("red cup", "red cup<loc0096><loc0096>")


def test_photos_with_nothing_to_find_give_no_example(photos):
    path = photos / "instances.json"
    data = json.loads(path.read_text())
    data["annotations"] = data["annotations"][1:3]
    path.write_text(json.dumps(data))
    assert [step.episode_id for step in places(detection_source, "found")] == ["1"]
    assert places(pointing_source, "pointed") == []


def test_each_split_can_be_a_folder_of_its_own(photos):
    for split in ("train", "validation"):
        (photos / split).symlink_to(photos, target_is_directory=True)
    (photos / "captions.json").rename(photos / "other.json")
    splits = {"train": "train", "test": "test"}
    source = caption_source("photos/{split}", annotations="other.json", splits=splits)
    task = web_task("folders", source, prompt="Caption", read_from="photos")
    assert task.splits == ("train", "test")
    assert len(list(read_steps(task, "train"))) == 3
    with pytest.raises(FileNotFoundError, match="no file .*photos/test/other.json"):
        list(read_steps(task, "test"))


def test_things_in_real_photos_can_be_pointed_to(registry, shared_data, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(shared_data))
    source = pointing_source("coco/ccby", longest_side=64)
    task = web_task("real", source, prompt="{text}", read_from="coco/ccby")
    for step, _ in zip(read_steps(task, "train"), range(20), strict=False):
        assert step.target.startswith(f"{step.text}<loc")
        assert max(decode_image(step.images[0]).shape) == 64


def test_every_caption_of_a_photo_is_an_example(photos):
    steps = list(read_steps(captions(), "train"))
    assert [s.target for s in steps] == ["a cat 1", "a cat 2", "a cat 1"]
    np.testing.assert_array_equal(decode_image(steps[1].images[0]), picture(2))


def test_a_question_comes_with_its_photo_and_answer(photos):
    (step,) = read_steps(vqa(), "train")
    assert (step.text, step.target, step.episode_id) == ("how many?", "two", "5")
    np.testing.assert_array_equal(decode_image(step.images[0]), picture(2))


def test_large_photos_are_shrunk_and_small_ones_stay_as_they_are(photos):
    def images(name, side):
        source = caption_source("photos", longest_side=side)
        task = web_task(name, source, prompt="Caption", read_from="photos")
        return [step.images[0] for step in read_steps(task, "train")]

    assert images("same", 16)[1] == encoded(picture(2))
    assert {decode_image(image).shape for image in images("small", 8)} == {(6, 8, 3)}


def test_missing_photos_and_files_are_named_before_anything_is_read(photos):
    (photos / "images/000000000002.jpg").unlink()
    for task in (captions(), vqa()):
        with pytest.raises(FileNotFoundError, match="1 photos are missing, .* 000000000002.jpg"):
            list(read_steps(task, "train"))
    (photos / "captions.json").unlink()
    with pytest.raises(FileNotFoundError, match="no file .*captions.json"):
        list(read_steps(captions("again"), "train"))


def test_files_that_do_not_fit_together_are_refused(photos):
    (photos / "vqa_questions.json").write_text(json.dumps({"questions": []}))
    with pytest.raises(ValueError, match="vqa_annotations.json: question_id 5 of an annotation"):
        list(read_steps(vqa(), "train"))
    (photos / "captions.json").write_text(json.dumps({"images": []}))
    with pytest.raises(ValueError, match="captions.json: missing keys \\['annotations'\\]"):
        list(read_steps(captions(), "train"))


def test_photos_can_be_cached(photos, tmp_path):
    assert cache_task(vqa(), tmp_path / "cache").steps == 1
    assert StepCache(tmp_path / "cache", "vqa", "train")[0].target == "two"
