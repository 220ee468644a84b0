import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from rt2_jax.actions.bounds import Bounds, FixedBounds, QuantileBounds
from rt2_jax.actions.space import (
    FRAMES,
    POLARITIES,
    REFERENCES,
    ROTATIONS,
    ActionField,
    ActionSpace,
    check_actions,
    language_table_action_space,
    rt2_action_space,
)
from rt2_jax.actions.statistics import resolve_bounds

SPACE = rt2_action_space(
    "table_top",
    translation_bound_m=0.05,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5,
)
GO_ON = np.array([1, 0.01, -0.02, 0, 0, 0, 0.1, 1], np.float32)


def arm(dimension: int) -> ActionSpace:
    fields = tuple(
        ActionField(f"joint_{i}", "rad", "joint", "absolute", FixedBounds(-3, 3))
        for i in range(dimension)
    )
    return ActionSpace("arm", fields, 50)


def field(**changes):
    values = {"name": "x", "unit": "m", "frame": "base", "reference": "absolute"}
    return ActionField(**{**values, "bounds": FixedBounds(0, 1), **changes})


def test_rt2_has_its_eight_fields_in_the_papers_order():
    assert SPACE.names == (
        "terminate",
        "position_delta_x",
        "position_delta_y",
        "position_delta_z",
        "rotation_delta_x",
        "rotation_delta_y",
        "rotation_delta_z",
        "gripper_extension",
    )


def test_the_description_says_what_a_robot_engineer_must_know():
    text = SPACE.describe()
    assert "8 fields at 5 Hz" in text
    assert "terminate: 0 = terminate, 1 = continue" in text
    assert "position_delta_x: m, base frame, added to the previous target, -0.05 to 0.05" in text
    assert (
        "rotation_delta_z: rad, base frame, added to the previous target, rotation_vector" in text
    )
    assert "gripper_extension: ratio, absolute, high is open, 0 to 1" in text


def test_language_table_moves_the_target_pose_in_metres():
    space = language_table_action_space()
    assert space.dimension == 2
    assert space.control_rate_hz == 5
    assert "m, base frame, added to the previous target, -0.1 to 0.1" in space.describe()


@pytest.mark.parametrize("dimension", [1, 14, 26])
def test_any_number_of_fields_is_a_space(dimension):
    space = arm(dimension)
    assert check_actions(space, np.zeros((3, dimension))).shape == (3, dimension)
    assert ActionSpace.from_json(json.loads(json.dumps(space.to_json()))) == space


@pytest.mark.parametrize("space", [SPACE, language_table_action_space(), arm(14)])
def test_a_space_comes_back_from_json_with_its_hash(space):
    back = ActionSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert back == space
    assert back.hash == space.hash


def test_the_hash_never_drifts():
    assert SPACE.hash == "5c12458d12da38da31c484c7b58abab2d8c3d7aefffab1f644b76c37aa6854d2"
    assert (
        language_table_action_space().hash
        == "a5b4ecdad3755fcb1dfd9b8e4ea3bf229523041637810038d3e5e4cc61ba7dcf"
    )


def test_integers_and_floats_of_one_value_hash_alike():
    assert field(bounds=FixedBounds(0, 1)) == field(bounds=FixedBounds(0.0, 1.0))
    assert arm(1).hash == dataclasses.replace(arm(1), control_rate_hz=50.0).hash


def test_zero_and_minus_zero_hash_alike():
    zero, minus = (
        ActionSpace("s", (field(bounds=bounds),), 5)
        for bounds in (FixedBounds(0.0, 1), FixedBounds(-0.0, 1))
    )
    assert zero == minus
    assert zero.hash == minus.hash


@pytest.mark.parametrize(
    "change",
    [
        {"name": "y"},
        {"unit": "mm"},
        {"frame": "tool"},
        {"reference": "current_state"},
        {"bounds": FixedBounds(0, 2)},
        {"bounds": QuantileBounds()},
        {"rotation": "single_axis"},
        {"polarity": "high_is_open"},
        {"bounds": None, "levels": ("off", "on")},
    ],
)
def test_the_hash_changes_with_every_attribute_of_a_field(change):
    before, after = (ActionSpace("s", (f,), 5) for f in (field(), field(**change)))
    assert before.hash != after.hash


def test_the_hash_changes_with_name_rate_and_order_of_the_fields():
    fields = (field(), field(name="y"))
    spaces = [
        ActionSpace("s", fields, 5),
        ActionSpace("t", fields, 5),
        ActionSpace("s", fields, 10),
        ActionSpace("s", fields[::-1], 5),
        ActionSpace("s", fields[:1], 5),
    ]
    assert len({space.hash for space in spaces}) == len(spaces)


def test_unknown_and_missing_keys_are_refused_by_name():
    data = SPACE.to_json()
    data["fields"][1]["colour"] = "red"
    del data["fields"][1]["unit"]
    with pytest.raises(KeyError, match=r"position_delta_x.*missing.*unit.*unknown.*colour"):
        ActionSpace.from_json(data)
    with pytest.raises(KeyError, match="control_rate_hz"):
        ActionSpace.from_json({"name": "x", "fields": []})
    with pytest.raises(TypeError, match="expected a JSON object, found list"):
        ActionSpace.from_json([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "needs a name and a unit"),
        ({"unit": ""}, "needs a name and a unit"),
        ({"frame": "camera"}, r"'x': frame 'camera' is not one of \['base', 'tool'"),
        ({"reference": "goal"}, "'x': reference 'goal' is not one of .*'previous_target'"),
        ({"rotation": "euler"}, "'x': rotation 'euler' is not one of .*'euler_xyz'"),
        ({"polarity": "open"}, "'x': polarity 'open' is not one of .*'high_is_open'"),
        ({"bounds": None}, "'x' needs either bounds .* or levels"),
        ({"levels": ("a", "b")}, "'x' needs either bounds .* or levels"),
        ({"bounds": None, "levels": ("a",)}, "two or more distinct levels"),
        ({"bounds": None, "levels": ("a", "a")}, "two or more distinct levels"),
        ({"name": "left_gripper"}, "'left_gripper' is a gripper without a polarity"),
    ],
)
def test_a_wrong_field_is_refused_with_what_to_change(change, message):
    with pytest.raises(ValueError, match=message):
        field(**change)


@pytest.mark.parametrize("low, high", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_bounds_that_span_nothing_are_refused(low, high):
    with pytest.raises(ValueError, match="finite low < high"):
        FixedBounds(low, high)


def test_only_quantiles_that_the_statistics_hold_can_be_bounds():
    with pytest.raises(ValueError, match="'q05'"):
        QuantileBounds("q05", "q95")


def test_an_unknown_kind_of_bounds_is_refused_with_the_known_ones():
    data = SPACE.to_json()
    data["fields"][1]["bounds"]["kind"] = "learned"
    with pytest.raises(
        ValueError, match=r"'learned' are not known; known: \['fixed', 'quantile'\]"
    ):
        ActionSpace.from_json(data)


def test_a_wrong_space_is_refused():
    with pytest.raises(ValueError, match="at least one field"):
        ActionSpace("empty", (), 5)
    with pytest.raises(ValueError, match=r"field names twice: \['x'\]"):
        ActionSpace("s", (field(), field()), 5)
    with pytest.raises(ValueError, match="control_rate_hz must be a positive number, found 0"):
        ActionSpace("s", (field(),), 0)
    with pytest.raises(KeyError, match="has no field 'roll'; it has.*'terminate'"):
        SPACE.index("roll")


def test_a_rotation_must_have_all_its_components_alike():
    turn = [field(name=f"r{i}", unit="rad", rotation="euler_xyz") for i in range(3)]
    assert ActionSpace("s", turn, 5).index("r2") == 2
    with pytest.raises(ValueError, match="euler_xyz needs 3 consecutive fields"):
        ActionSpace("s", turn[:2], 5)
    mixed = [*turn[:2], field(name="r2", unit="rad", rotation="euler_zyx")]
    with pytest.raises(ValueError, match="euler_xyz needs 3 consecutive fields"):
        ActionSpace("s", mixed, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_by_field_and_step(value):
    actions = np.stack([GO_ON, GO_ON, GO_ON])
    actions[2, 3] = value
    with pytest.raises(ValueError, match=r"episode 7: field 'position_delta_z' at step \[2\]"):
        check_actions(SPACE, actions, "episode 7")


def test_a_level_that_does_not_exist_is_refused_with_the_levels_names():
    with pytest.raises(ValueError, match=r"'terminate' is 2.0.*0 \(terminate\), 1 \(continue\)"):
        check_actions(SPACE, np.where(np.arange(8) == 0, 2, GO_ON))
    with pytest.raises(ValueError, match="'terminate' is 0.5"):
        check_actions(SPACE, np.where(np.arange(8) == 0, 0.5, GO_ON))


@pytest.mark.parametrize(
    ("actions", "error", "message"),
    [
        (np.zeros(7), ValueError, r"expected shape \[..., 8\].*'table_top'.*found \[7\]"),
        (np.float32(0), ValueError, r"found \[\]"),
        ([[0, 1], [2]], ValueError, "expected an array"),
        (["go"] * 8, TypeError, "expected real numbers, found dtype <U2"),
        ([True] * 8, TypeError, "found dtype bool"),
        ([1j] * 8, TypeError, "found dtype complex"),
    ],
)
def test_what_is_no_array_of_actions_is_refused(actions, error, message):
    with pytest.raises(error, match=message):
        check_actions(SPACE, actions)


def test_actions_that_are_right_come_back_unchanged():
    assert check_actions(SPACE, GO_ON) is GO_ON


def test_resolved_bounds_come_back_from_json_bit_for_bit():
    bounds = resolve_bounds(SPACE)
    back = Bounds.from_json(json.loads(json.dumps(bounds.to_json())))
    assert back.to_json() == bounds.to_json()
    assert back.low.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        bounds.low[1] = -1


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([0, 1], [1, 1], "found 1.0 and 1.0 at field index 1"),
        ([0, np.nan], [1, 2], "found nan and 2.0 at field index 1"),
        ([0], [1, 1], "one shape"),
    ],
)
def test_resolved_bounds_that_span_nothing_are_refused(low, high, message):
    with pytest.raises(ValueError, match=message):
        Bounds("hash", low, high)


def test_bounds_of_another_kind_are_refused_with_what_to_write():
    with pytest.raises(
        TypeError, match=r"'elbow': bounds must be FixedBounds\(low, high\).*\(0, 1\)"
    ):
        ActionField("elbow", "rad", "joint", "absolute", (0, 1))


def test_the_page_lists_every_value_that_a_field_may_have():
    page = (Path(__file__).parents[2] / "docs" / "actions.md").read_text(encoding="utf-8")
    for attribute, values in (
        ("frame", FRAMES),
        ("reference", REFERENCES),
        ("rotation", ROTATIONS),
        ("polarity", POLARITIES),
    ):
        assert f"| `{attribute}` | {', '.join(f'`{value}`' for value in values)} |" in page
