import dataclasses
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.bounds import FixedBounds, QuantileBounds
from rt2_jax.actions.space import ActionField, ActionSpace, rt2_action_space
from rt2_jax.actions.statistics import (
    ActionStatistics,
    StatisticsTable,
    compute_statistics,
    resolve_bounds,
)

SPACE = rt2_action_space(
    "bridge",
    translation_bound_m=QuantileBounds(),
    rotation_bound_rad=QuantileBounds("min", "max"),
    gripper_polarity="high_is_open",
    control_rate_hz=5,
)


def draw(count, seed=0):
    """Actions of a made-up robot that turns about z only."""
    random = np.random.default_rng(seed)
    actions = random.normal(0, 0.02, (count, 8)).astype(np.float32)
    actions[:, 0] = random.random(count) < 0.9
    actions[:, 4:6] = 0
    actions[:, 7] = random.random(count)
    return actions


ACTIONS = draw(1000)
STATISTICS = compute_statistics(SPACE, "widowx", ACTIONS)


def test_the_numbers_are_those_of_the_whole_array():
    assert STATISTICS.count == 1000
    for moment, expected in {
        "mean": ACTIONS.mean(0, dtype=np.float64),
        "std": ACTIONS.std(0, dtype=np.float64),
        "min": ACTIONS.min(0),
        "max": ACTIONS.max(0),
        "q01": np.quantile(ACTIONS.astype(np.float64), 0.01, axis=0),
        "q99": np.quantile(ACTIONS.astype(np.float64), 0.99, axis=0),
    }.items():
        np.testing.assert_allclose(getattr(STATISTICS, moment), expected, rtol=1e-12)


def test_episodes_one_after_the_other_give_the_same_statistics():
    episodes = np.split(ACTIONS, [3, 3, 400])
    assert compute_statistics(SPACE, "widowx", iter(episodes)) == STATISTICS
    assert compute_statistics(SPACE, "widowx", [ACTIONS.reshape(10, 100, 8)]) == STATISTICS


def test_actions_that_are_wrong_are_refused_by_array_field_and_step():
    episodes = [draw(5), draw(5)]
    episodes[1][3, 2] = np.nan
    with pytest.raises(
        ValueError, match=r"'widowx', array 1: field 'position_delta_y' at step \[3"
    ):
        compute_statistics(SPACE, "widowx", episodes)
    with pytest.raises(ValueError, match="there are no actions of 'widowx' in space 'bridge'"):
        compute_statistics(SPACE, "widowx", iter([]))
    with pytest.raises(ValueError, match="there are no actions"):
        compute_statistics(SPACE, "widowx", np.zeros((0, 8)))


def test_bounds_are_the_quantiles_that_the_space_names():
    bounds = resolve_bounds(SPACE, STATISTICS)
    assert bounds.low[1] == STATISTICS.q01[1]
    assert bounds.high[1] == STATISTICS.q99[1]
    assert bounds.low[6] == STATISTICS.min[6]
    assert bounds.high[6] == STATISTICS.max[6]
    assert (bounds.low[0], bounds.high[0]) == (0, 1)
    assert (bounds.low[7], bounds.high[7]) == (0, 1)


def test_missing_statistics_are_an_error_that_names_the_fields():
    with pytest.raises(ValueError) as error:
        resolve_bounds(SPACE)
    message = str(error.value)
    assert "'bridge'" in message and SPACE.hash[:12] in message
    assert "'position_delta_x'" in message and "'rotation_delta_z'" in message
    assert "gripper" not in message


def test_a_field_that_hardly_moves_is_widened_symmetrically_to_the_floor_and_named():
    still = ACTIONS.copy()
    still[:, 2] = 0.5 + np.where(np.arange(1000) % 2, 1e-4, -1e-4)
    statistics = compute_statistics(SPACE, "widowx", still, range_floor=0.004)
    bounds = resolve_bounds(SPACE, statistics)
    assert statistics.floored == ("position_delta_y", "rotation_delta_x", "rotation_delta_y")
    np.testing.assert_allclose([bounds.low[2], bounds.high[2]], [0.498, 0.502], atol=1e-7)
    assert statistics.q99[2] - statistics.q01[2] < 3e-4
    # Noise of a tenth of a millimetre stays a few levels wide instead of all 256.
    levels = UniformBins().bind(SPACE, bounds).encode(still[:, None]).levels[:, 0, 2]
    assert np.ptp(levels) < 16


def test_fixed_bounds_need_no_statistics_and_no_floor():
    field = ActionField("x", "m", "base", "absolute", FixedBounds(0, 0.001))
    space = ActionSpace("fixed", (field,), 5)
    assert resolve_bounds(space).high == [0.001]
    statistics = compute_statistics(space, "robot", np.zeros((9, 1)))
    assert statistics.floored == ()
    assert resolve_bounds(space, statistics).high == [0.001]


def test_statistics_of_another_space_are_refused_and_the_difference_is_told():
    other = dataclasses.replace(SPACE, control_rate_hz=10)
    with pytest.raises(
        ValueError, match="'widowx' belongs to .*\n *control_rate_hz: 5.0, not 10.0"
    ):
        resolve_bounds(other, STATISTICS)


def test_the_report_shows_numbers_floor_and_clipping():
    lines = STATISTICS.describe(np.vstack([ACTIONS, ACTIONS * 10]) * [0, 1, 1, 1, 1, 1, 1, 0])
    rows = {line.split()[0]: line for line in lines.splitlines()}
    assert "widowx, bridge: 1000 actions, range floor 0.01" in lines
    assert rows["rotation_delta_x"].endswith("widened to the floor")
    assert not rows["rotation_delta_z"].endswith("widened to the floor")
    shares = {
        name: float(row.partition(" %")[0].split()[-1]) for name, row in rows.items() if "%" in row
    }
    assert shares["gripper_extension"] == 0
    assert 30 < shares["position_delta_x"] < 60
    assert "%" not in STATISTICS.describe()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(values=st.lists(st.floats(-300, 300), min_size=2, max_size=20))
@example(values=[0.0, 0.7])
def test_bounds_of_min_and_max_clip_nothing_of_their_own_data(dtype, values):
    field = ActionField("x", "m", "base", "absolute", QuantileBounds("min", "max"))
    space = ActionSpace("line", (field,), 5)
    actions = np.array(values)[:, None]
    for data in (actions, actions.astype(np.float32)):
        bounds = resolve_bounds(space, compute_statistics(space, "robot", data))
        assert not bounds.outside(actions.astype(dtype)).any()


def test_equal_statistics_have_equal_hashes():
    zero = dataclasses.replace(STATISTICS, min=(-300,) * 8, q01=(0.0,) * 8, q99=(0.0,) * 8)
    minus = dataclasses.replace(zero, q01=(-0.0,) * 8, q99=(-0.0,) * 8)
    assert minus == zero
    assert minus.hash == zero.hash


def test_statistics_come_back_from_json_bit_for_bit():
    back = ActionStatistics.from_json(json.loads(json.dumps(STATISTICS.to_json())))
    assert back == STATISTICS
    assert back.hash == STATISTICS.hash
    assert back.hash != dataclasses.replace(STATISTICS, embodiment="franka").hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 7}, "version 7, this code reads 1"),
        ({"mean": [0.0]}, "mean needs 8 finite numbers, found"),
        ({"q01": [float("nan")] * 8}, "q01 needs 8 finite numbers"),
        ({"q01": [1.0] * 8}, "'position_delta_x' has min, q01, q99, max .* rising order"),
        ({"count": 0}, "one or more actions"),
        ({"embodiment": ""}, "need an embodiment"),
        ({"range_floor": 0}, "positive range floor"),
    ],
)
def test_wrong_statistics_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ActionStatistics.from_json({**STATISTICS.to_json(), **change})


def test_a_table_comes_back_from_its_file(tmp_path):
    franka = compute_statistics(SPACE, "franka", draw(50))
    table = StatisticsTable((STATISTICS, franka))
    table.save(tmp_path / "statistics.json")
    back = StatisticsTable.load(tmp_path / "statistics.json")
    assert back == table
    assert back.get("franka", SPACE) == franka
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.json"]


def test_looking_up_what_is_not_there_lists_what_is():
    table = StatisticsTable((STATISTICS,))
    with pytest.raises(KeyError, match=r"\('franka', 'bridge'\); there are \[\('widowx', 'bridge'"):
        table.get("franka", SPACE)


def test_looking_up_a_space_that_has_changed_says_how():
    changed = [dataclasses.replace(f, unit="mm") if f.unit == "m" else f for f in SPACE.fields]
    with pytest.raises(ValueError, match=r"fields\[1\].unit: 'm', not 'mm'"):
        StatisticsTable((STATISTICS,)).get("widowx", ActionSpace("bridge", changed, 5))


def test_two_statistics_with_one_key_are_refused():
    with pytest.raises(ValueError, match=r"same .*\('widowx', 'bridge'\)"):
        StatisticsTable((STATISTICS, STATISTICS))


def test_a_broken_file_is_refused_by_name(tmp_path):
    path = tmp_path / "statistics.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="statistics.json: no JSON file"):
        StatisticsTable.load(path)
    entry = STATISTICS.to_json()
    del entry["q99"]
    path.write_text(json.dumps({"statistics": [entry]}))
    with pytest.raises(ValueError, match=r"statistics.json: entry 0: missing keys \['q99'\]"):
        StatisticsTable.load(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, r'expected {"statistics": \[...\]}, found 3'),
        ([], r'expected {"statistics": \[...\]}, found \[\]'),
        ({"statistics": 3}, r"expected {\"statistics\": \[...\]}, found {'statistics': 3}"),
        ({"statistics": [], "version": 1}, r"unknown keys \['version'\]"),
        ({"statistics": [3]}, "entry 0: expected a JSON object, found int"),
        ({"statistics": [{**STATISTICS.to_json(), "count": 0}]}, "one or more actions"),
        ({"statistics": [{**STATISTICS.to_json(), "mean": 3}]}, "not iterable"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_name(tmp_path, data, message):
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"statistics.json: .*{message}"):
        StatisticsTable.load(path)


def test_real_bridge_actions_have_the_known_quantiles(shared_data):
    datasets = pytest.importorskip("tensorflow_datasets")
    builder = datasets.builder_from_directory(shared_data / "robot/octo_bridge_debug/1.0.0")
    fields = [
        ActionField(name, unit, "base", "current_state", QuantileBounds())
        for unit, names in {"m": ("x", "y", "z"), "rad": ("roll", "pitch", "yaw")}.items()
        for name in names
    ]
    hand = ActionField(
        "gripper", "1", "none", "absolute", FixedBounds(0, 1), polarity="high_is_open"
    )
    space = ActionSpace("bridge_v1", (*fields, hand), 5)
    episodes = [
        np.stack([step["action"] for step in episode["steps"]])
        for episode in datasets.as_numpy(builder.as_dataset(split="train"))
    ]
    statistics = compute_statistics(space, "widowx", episodes)
    assert (len(episodes), statistics.count) == (25, 250)
    known = {
        "min": [-0.019, -0.029, -0.021, -0.160, -0.117, -0.254, 0],
        "max": [0.018, 0.012, 0.033, 0.133, 0.072, 0.067, 1],
        "q01": [-0.016, -0.020, -0.018, -0.139, -0.090, -0.195, 0],
        "q99": [0.016, 0.010, 0.026, 0.068, 0.062, 0.052, 1],
    }
    for moment, numbers in known.items():
        np.testing.assert_allclose(getattr(statistics, moment), numbers, atol=6e-4)
    bounds = resolve_bounds(space, statistics)
    encoded = UniformBins().bind(space, bounds).encode(np.concatenate(episodes)[:, None])
    assert np.ptp(encoded.levels[:, 0], axis=0).min() > 200
    assert encoded.clipped[:6].max() <= 6
    assert encoded.clipped[6] == 0
