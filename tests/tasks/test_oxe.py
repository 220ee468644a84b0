"""The Open X-Embodiment table: every data set's steps, against Octo's and OpenVLA's own results."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import seqio
import tensorflow as tf

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.statistics import compute_statistics, resolve_bounds
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.registration import step_format
from rt2_jax.data.step_reader import read_steps
from rt2_jax.tasks import oxe, rt1

EPISODES = runpy.run_path(str(Path(__file__).with_name("oxe_episodes.py")))
nested, raw_steps = EPISODES["nested"], EPISODES["raw_steps"]
ROWS = oxe.read_rows()
# Made once by the standardisation functions of octo-models/octo and openvla/openvla on these
# episodes; "both" is what the two agree on.
GOLDEN = json.loads(Path(__file__).with_name("oxe_golden.json").read_text())
CASES = [
    (name, "openvla" if group == "both" else group, np.float32(actions))
    for group, entries in GOLDEN.items()
    for name, actions in entries.items()
]


@pytest.fixture
def registry():
    """SeqIO's registry, which is put back after the test."""
    before = dict(seqio.TaskRegistry._REGISTRY)
    yield
    seqio.TaskRegistry._REGISTRY.clear()
    seqio.TaskRegistry._REGISTRY.update(before)


def columns(task, steps):
    """The columns of a registered task, of the fields that it reads."""
    preprocessor = seqio.TaskRegistry.get(task).preprocessors[0]
    tensors = {path: tf.constant(values) for path, values in steps.items()}
    return {name: values.numpy() for name, values in preprocessor.episode(tensors).items()}


@pytest.mark.parametrize(("name", "who", "expected"), CASES)
def test_actions_are_those_of_the_published_transforms(name, who, expected):
    found = columns(oxe.task_name(name, who), raw_steps(name, ROWS[name]))["action"]
    np.testing.assert_allclose(found[:, 1:], expected, atol=1e-5)
    assert found[:, 0].tolist() == [1] * (len(found) - 1) + [0]


def pipeline(task, name, steps):
    """The steps that the registered task makes of an in-memory RLDS episode."""
    around = {
        "tfds_id": f"{name}-train__0",
        "success": True,
        "episode_metadata": {"has_language": True},
    }
    dataset = tf.data.Dataset.from_tensors((nested(steps), around)).map(
        lambda tree, rest: {**rest, "steps": tf.data.Dataset.from_tensor_slices(tree)}
    )
    return list(seqio.TaskRegistry.get(task).preprocess_precache(dataset).as_numpy_iterator())


def check_tokens(task, actions):
    """Actions go to text and back within half a bin of the bounds that their statistics give."""
    robot = step_format(seqio.TaskRegistry.get(task)).info.robot
    statistics = compute_statistics(robot.action_space, robot.embodiment, [actions])
    codec = UniformBins().bind(robot.action_space, resolve_bounds(robot.action_space, statistics))
    low, high = codec.bounds.low, codec.bounds.high
    for action in actions:
        text = codec.to_text(codec.encode(action[None]).levels)
        back = codec.decode(codec.from_text(text))[0]
        levels = [f.levels is not None for f in robot.action_space.fields]
        half = np.where(levels, 0, (high - low) / 512)
        assert (np.abs(np.clip(action, low, high) - back) <= half * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize("task", oxe.TASKS)
def test_an_episode_in_the_data_sets_layout_goes_to_tokens_and_back(task):
    (name,) = [n for n in ROWS if re.fullmatch(rf"oxe_{n}(_octo|_openvla|_published)?", task)]
    info = step_format(seqio.TaskRegistry.get(task)).info
    found = columns(task, raw_steps(name, ROWS[name]))
    assert found["images"].shape[1] == len(info.views)
    assert set(found["text"]) == {EPISODES["INSTRUCTION"].encode()}
    assert found.get("state", np.zeros((1, 0))).shape[1] == len(info.robot.state_fields)
    assert found["action"][-1, 0] == 0, "the episode ends although steps are left out"
    check_tokens(task, found["action"])


def test_every_data_set_of_the_table_has_a_layout_and_a_task():
    assert set(ROWS) == set(EPISODES["LAYOUTS"])
    assert {f"oxe_{name}" for name in ROWS} <= set(oxe.TASKS)
    assert len(ROWS) == 80
    assert len({name for name, *_ in CASES}) >= 70


def test_the_table_names_all_data_sets_and_weights_of_the_facts(shared_data):
    facts = json.loads((shared_data / "stats/oxe_facts.json").read_text())
    assert set(ROWS) == set(facts["datasets"])
    for name, sides in facts["datasets"].items():
        for side in sides.values():
            cameras = {key for key in side["image_obs_keys"].values() if key}
            extra = {"image_1"} if name == "bridge_oxe" else set()
            assert cameras <= {*ROWS[name]["views"].values(), *extra}, name


# Three of the six without published results: two numbers, seven and fourteen behind `terminate`.
WHOLE = ("gnm_dataset", "libero_4_task_suites_no_noops", "aloha1_fold_shirt_30_demos")


@pytest.mark.parametrize("name", WHOLE)
def test_a_registered_task_makes_the_steps_of_an_episode(name):
    steps = raw_steps(name, ROWS[name])
    found = pipeline(f"oxe_{name}", name, steps)
    assert [step["step"] for step in found] == list(range(len(steps["is_first"])))
    assert {step["episode_id"] for step in found} == {f"{name}-train__0".encode()}
    check_tokens(f"oxe_{name}", np.stack([step["action"] for step in found]))


def write(root, name, episodes):
    row = ROWS[name]
    folder = row.get("directory", f"{name}/{row.get('version', '0.1.0')}")
    flags = {row["keep"]: True} if row.get("keep") == "success" else {}
    EPISODES["write_rlds"](root / folder, episodes, flags)


@pytest.mark.slow
def test_real_files_in_the_layout_are_cached(full_check, tmp_path, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    for name in sorted(ROWS) if full_check else ("kuka", "bc_z"):
        row = ROWS[name]
        if row.get("keep", "").startswith("episode_metadata"):
            continue  # the files that are written here have no metadata
        steps = raw_steps(name, row)
        write(tmp_path, name, [steps] * 3)
        info = cache_task(seqio.TaskRegistry.get(f"oxe_{name}"), tmp_path / "cache")
        skipped = row.get("skip_first", 0) + row.get("skip_last", 0)
        assert (name, info.episodes) == (name, 3)
        assert (name, info.steps) == (name, 3 * (len(steps["is_first"]) - skipped))


def test_rt1_keeps_rt1s_numbers_and_needs_no_statistics(tmp_path, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    name = "fractal20220817_data"
    steps = raw_steps(name, ROWS[name])
    vectors = np.random.default_rng(0).normal(size=(len(steps["is_first"]), 512))
    steps["observation/natural_language_embedding"] = vectors.astype(np.float32)
    write(tmp_path, name, [steps])
    task = seqio.TaskRegistry.get("rt1")
    robot = step_format(task).info.robot
    assert robot.action_space == rt1.RT1_ACTIONS
    assert not robot.needs_statistics and robot.action_space.control_rate_hz == 3
    found = list(read_steps(task, "train"))
    actions = np.stack([step.action for step in found])
    np.testing.assert_array_equal(actions[:, 1:4], steps["action/world_vector"])
    np.testing.assert_array_equal(actions[:, 7:], steps["action/gripper_closedness_action"])
    assert [step.action[0] for step in found] == [1] * 7 + [0]
    found[0].check(step_format(task).info)
    stored = np.stack([step.instruction_embedding for step in found])
    np.testing.assert_array_equal(stored, steps["observation/natural_language_embedding"])
    # The same files, as Octo and OpenVLA read them.
    absolute = np.stack(
        [s.action for s in read_steps(seqio.TaskRegistry.get(f"oxe_{name}"), "train")]
    )
    assert set(absolute[:, 7]) == {0, 1}


def test_bridge_leaves_out_episodes_without_an_instruction():
    name = "bridge_orig"
    steps = raw_steps(name, ROWS[name])
    steps["language_instruction"][:] = b" "
    assert pipeline(f"oxe_{name}", name, steps) == []
    assert pipeline("oxe_bridge_dataset_octo", "bridge_dataset", steps) == []


def test_a_missing_field_is_named_with_those_that_are_there():
    steps = raw_steps("toto", ROWS["toto"])
    del steps["action/open_gripper"]
    with pytest.raises(
        ValueError, match="'oxe_toto'.*no field 'action/open_gripper'.*action/world"
    ):
        pipeline("oxe_toto", "toto", steps)


def test_columns_of_another_width_are_refused():
    steps = raw_steps("dobbe", ROWS["dobbe"])
    steps["action"] = steps["action"][:, :6]
    with pytest.raises(ValueError, match=r"oxe_dobbe.*action give \[1, 6\] numbers, expected 8"):
        columns("oxe_dobbe", steps)


def test_steps_that_are_left_out_hand_their_terminate_on():
    name = "aloha_static_dataset"
    found = columns(f"oxe_{name}_octo", raw_steps(name, ROWS[name], length=13))
    assert found["action"][:, 0].tolist() == [1, 1, 0]
    found = columns("oxe_bridge_orig", raw_steps("bridge_orig", ROWS["bridge_orig"], length=2))
    assert found["action"].shape == (0, 8), "no step is left of two"


def test_a_row_of_ones_own_is_registered(tmp_path, registry):
    table = tmp_path / "mine.toml"
    table.write_text(
        '[my_arm]\nembodiment = "my_arm"\nviews = { front = "cam" }\naction = ["action"]\n'
        'citation = "none"\n[my_arm_too]\nlike = "my_arm"\ncontrol_rate_hz = 20\n'
    )
    assert oxe.register_rows(table, prefix="") == ["my_arm", "my_arm_too"]
    form = step_format(seqio.TaskRegistry.get("my_arm_too"))
    assert form.read_from == "my_arm_too/0.1.0"
    assert form.info.robot.action_space.control_rate_hz == 20


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('embodyment = "x"', "x lacks .*'embodiment'.*unknown.*'embodyment'"),
        ('like = "y"', "x is like 'y'"),
        (
            'embodiment = "x"\nviews = { a = "a" }\ncitation = "x"\naction = ["a | flip"]',
            "x: .*'flip' is not known; known: .*'invert'",
        ),
        (
            'embodiment = "x"\nviews = { a = "a" }\ncitation = "x"\naction = []\nspace = "y"',
            "space 'y' is not known",
        ),
    ],
)
def test_a_wrong_row_is_refused_by_name(row, message, tmp_path, registry):
    (tmp_path / "t.toml").write_text(f"[x]\n{row}\n")
    with pytest.raises(ValueError, match=message):
        oxe.register_rows(tmp_path / "t.toml", prefix="")


def test_a_fact_that_no_source_gives_is_said_and_nothing_is_guessed():
    space = step_format(seqio.TaskRegistry.get("oxe_toto")).info.robot.action_space
    assert "as recorded frame, reference as recorded, rotation as recorded" in space.describe()
    for name, row in ROWS.items():
        said = any("control rate" in fact for fact in row.get("missing", []))
        assert said == ("control_rate_hz" not in row), name
