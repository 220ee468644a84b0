"""What a checkpoint says about itself: plain JSON, read back equal, refused if it is not that."""

import base64
import copy
import json

import numpy as np
import pytest

from rt2_jax.data.vocabulary.tokenizer import load_vocabulary
from rt2_jax.training.description import RunDescription
from rt2_jax.training.run import prepare


@pytest.fixture(scope="module")
def description(prepared):
    return prepared.description


def through_text(description):
    return RunDescription.from_json(json.loads(json.dumps(description.to_json(), allow_nan=False)))


def test_it_goes_through_json_unchanged(description):
    again = through_text(description)
    assert again.to_json() == description.to_json()
    assert again.model == description.model and again.manifest == description.manifest
    assert again.codec == description.codec and again.inputs == description.inputs
    assert again.tokenizer.hash == description.tokenizer.hash
    for name, value in description.example_input.items():
        np.testing.assert_array_equal(again.example_input[name], value)
        assert again.example_input[name].dtype == value.dtype
    (task,) = again.robot_tasks
    found, expected = (each.action_tokens(task).codec.bounds for each in (again, description))
    np.testing.assert_array_equal(found.low, expected.low)
    np.testing.assert_array_equal(found.high, expected.high)


def test_a_mixture_without_robots_has_no_codec_and_no_action_token(run_config):
    description = prepare(run_config(mixture="tiny_web")).description
    data = description.to_json()
    assert data["codec"] is data["action_vocabulary"] is None
    again = through_text(description)
    assert again.codec is again.action_vocabulary is None and again.robot_tasks == ()
    assert again.to_json() == data
    with pytest.raises(ValueError, match="task 'tiny_web' has no actions"):
        again.action_tokens(again.manifest.tasks[0].info)


def test_a_built_in_vocabulary_stands_there_by_its_hash_and_another_as_a_whole(
    description, other_vocabulary, run_config
):
    assert description.to_json()["vocabulary"]["sentencepiece_model"] is None
    other = prepare(run_config(vocabulary=str(other_vocabulary))).description
    model = other.to_json()["vocabulary"]["sentencepiece_model"]
    assert base64.b64decode(model) == other_vocabulary.read_bytes()
    other_vocabulary.unlink()
    again = through_text(other)
    assert again.tokenizer.hash == other.tokenizer.hash != load_vocabulary().hash
    assert again.tokenizer.encode("pick object 1") == other.tokenizer.encode("pick object 1")


def test_a_checkpoint_gives_it_back(description, trained):
    path = trained / "checkpoint_6"
    assert RunDescription.from_checkpoint(path).to_json() == description.to_json()
    assert json.loads((path / "rt2" / "metadata").read_text()) == description.to_json()
    with pytest.raises(FileNotFoundError, match="checkpoint_2: no whole checkpoint"):
        RunDescription.from_checkpoint(path.with_name("checkpoint_2"))


def broken(data, change):
    data = copy.deepcopy(data)
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data.update(version=7, code_version="9.9"),
            "here: version 7, this code reads 2; it was written by rt2_jax '9.9': use that release",
        ),
        (lambda data: data.pop("mixture"), r"here: missing keys \['mixture'\]"),
        (lambda data: data.update(gin="x"), r"unknown keys \['gin'\]"),
        (lambda data: data["inputs"].pop("image_size"), r"missing keys \['image_size'\]"),
        (lambda data: data["vocabulary"].pop("hash"), r"here.vocabulary: missing keys \['hash'\]"),
        (lambda data: data["model"].update({"class": "os.system"}), "os.system"),
        (lambda data: data["codec"].update(name="pickle"), "action codec 'pickle' is not known"),
        (
            lambda data: data["vocabulary"].update(hash="f" * 64),
            "here.vocabulary: the checkpoint was trained with vocabulary ffffffffffff, this "
            "package has .*: use the release that wrote it",
        ),
        (
            lambda data: data.update(codec=None),
            "a codec and an action vocabulary come together",
        ),
        (
            lambda data: data.update(codec=None, action_vocabulary=None),
            "task 'tiny_arm' has actions, but there is no action codec",
        ),
        (
            lambda data: data["inputs"].update(image_size=[16, 16]),
            r"InputSpec.image_size: found \(16, 16\), but the model has \(8, 8\)",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_name(description, change, message):
    with pytest.raises((KeyError, ValueError), match=message):
        RunDescription.from_json(broken(description.to_json(), change), "here")


def test_a_list_is_no_description():
    with pytest.raises(TypeError, match="here: expected a JSON object, found list"):
        RunDescription.from_json([], "here")


def test_a_model_smaller_than_the_vocabulary_is_refused(description):
    def shrink(data):
        data["model"]["text"]["vocab_size"] = 100

    with pytest.raises(
        ValueError, match="vocab_size of the model: found 100, expected 8000 or more"
    ):
        RunDescription.from_json(broken(description.to_json(), shrink))


def test_the_checkpoint_of_another_run_is_refused_with_all_that_differs(description):
    data = description.to_json()
    description.check_same(data, "there")

    def change(data):
        data["seed"] = 7
        data["global_batch_size"] = 64
        data["inputs"]["encoder_length"] = 99
        data["mixture"]["tasks"][0]["share"] = 0.25

    with pytest.raises(ValueError) as caught:
        description.check_same(broken(data, change), "there")
    message = str(caught.value)
    assert message.startswith("there is of another run (found there, not in this run):\n")
    for line in (
        "seed: 7, not 0",
        "global_batch_size: 64, not 8",
        "inputs.encoder_length: 99, not 32",
        "mixture.tasks[0].share: 0.25, not 0.5",
    ):
        assert f"\n  {line}\n" in message
    assert message.endswith("or start it as that one was started")


def test_a_run_goes_on_with_a_field_of_the_model_that_its_checkpoint_does_not_know(description):
    def change(data):
        del data["model"]["vision"]["qk_norm"]

    description.check_same(broken(description.to_json(), change), "there")


def test_a_run_goes_on_with_other_code(description):
    def change(data):
        data["code_version"] = "0.0.1"
        data["example_input"]["encoder_input_tokens"][0] += 1

    description.check_same(broken(description.to_json(), change), "there")


def test_a_run_goes_on_with_another_way_to_compute_the_same(description):
    def change(data):
        data["model"]["attention"], data["model"]["remat"] = "fused", "full"

    description.check_same(broken(description.to_json(), change), "there")

    def change_before_the_fields(data):
        del data["model"]["attention"], data["model"]["remat"]

    description.check_same(broken(description.to_json(), change_before_the_fields), "there")
