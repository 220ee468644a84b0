"""Statistics that OpenVLA publishes load as this project's, and scale as its own do."""

import json

import numpy as np
import pytest

from rt2_jax.actions.binning import OpenVLACentres
from rt2_jax.actions.bounds import QuantileBounds
from rt2_jax.actions.space import ActionField, ActionSpace, rt2_action_space
from rt2_jax.actions.statistics import resolve_bounds
from rt2_jax.data.published_statistics import load_published_statistics, published_statistics

POSE = rt2_action_space(
    "oxe_bridge_orig",
    translation_bound_m=QuantileBounds(),
    rotation_bound_rad=QuantileBounds(),
    gripper_polarity="high_is_open",
    control_rate_hz=5.0,
)
ENTRY = {
    "action": {
        "mean": [0.0] * 7,
        "std": [0.1] * 7,
        "min": [-1.0] * 6 + [0.0],
        "q01": [-0.5] * 6 + [0.0],
        "q99": [0.5] * 6 + [1.0],
        "max": [1.0] * 7,
    },
    "num_transitions": 1000,
    "num_trajectories": 25,
}


def test_openvlas_statistics_of_bridge_give_its_normalised_values_and_digits(shared_data):
    golden = json.loads((shared_data / "golden/action_token_vectors.json").read_text())
    golden = golden["bounds_q99_normalisation"]
    table = load_published_statistics(
        shared_data / "stats/openvla7b_norm_stats.json", {"bridge_orig": ("widowx", POSE)}
    )
    statistics = table.get("widowx", POSE)
    assert list(statistics.q01[1:]) == golden["q01"]
    assert list(statistics.q99[1:]) == golden["q99"]
    bounds = resolve_bounds(POSE, statistics)
    action = np.array([1, *golden["example"]["action"]])
    unit = (np.clip(action, bounds.low, bounds.high) - bounds.low) / (bounds.high - bounds.low)
    # OpenVLA leaves the gripper at 0..1.
    np.testing.assert_allclose((2 * unit - 1)[1:7], golden["example"]["normalised"][:6], atol=2e-6)
    levels = OpenVLACentres().bind(POSE, bounds).encode(action[None]).levels[0]
    assert (levels[1:] + 1).tolist() == golden["example"]["openvla_digit"]


@pytest.mark.parametrize(
    "file", ["openvla7b_norm_stats.json", "cogact_vgmact_oxe_dataset_statistics.json"]
)
def test_every_published_data_set_loads(file, shared_data):
    data = json.loads((shared_data / "stats" / file).read_text())
    entries = data.get("norm_stats", data)
    wanted = {name: (name, POSE) for name in entries}
    table = load_published_statistics(shared_data / "stats" / file, wanted)
    assert [entry.count for entry in table.entries] == [
        entries[name]["num_transitions"] for name in wanted
    ]
    assert len(table.entries) >= 25


def test_terminate_is_zero_once_in_every_trajectory():
    statistics = published_statistics(ENTRY, "arm", POSE)
    assert statistics.mean[0] == 1 - 0.025
    assert (statistics.min[0], statistics.q01[0], statistics.max[0]) == (0, 0, 1)
    assert statistics.std[0] == pytest.approx(np.sqrt(0.025 * 0.975))
    assert published_statistics({**ENTRY, "num_trajectories": 0}, "arm", POSE).min[0] == 1


def test_a_space_without_terminate_takes_the_numbers_as_they_are():
    fields = [ActionField(f"j{i}", "rad", "joint", "absolute", QuantileBounds()) for i in range(7)]
    statistics = published_statistics(ENTRY, "arm", ActionSpace("joints", fields, 10.0))
    assert statistics.q99 == (0.5,) * 6 + (1.0,)


def test_other_widths_keys_and_files_are_refused(tmp_path):
    fields = [ActionField(f"j{i}", "rad", "joint", "absolute", QuantileBounds()) for i in range(9)]
    with pytest.raises(ValueError, match="7 numbers, but action space 'joints' has the 9 fields"):
        published_statistics(ENTRY, "arm", ActionSpace("joints", fields, 10.0))
    with pytest.raises(ValueError, match="expected 'action' with .*'q01'"):
        published_statistics({"num_transitions": 5}, "arm", POSE)
    file = tmp_path / "stats.json"
    file.write_text(json.dumps({"norm_stats": {"toto": ENTRY}}))
    with pytest.raises(KeyError, match=r"no statistics of \['viola'\]; it has \['toto'\]"):
        load_published_statistics(file, {"viola": ("franka", POSE)})
    file.write_text("no")
    with pytest.raises(ValueError, match="no JSON file"):
        load_published_statistics(file, {})
