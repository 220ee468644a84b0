"""Statistics from steps, and what differs from those in a file."""

import numpy as np
import pytest

from rt2_jax.actions.statistics import StatisticsTable
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.manifest import load_statistics
from rt2_jax.data.statistics_report import (
    compare,
    differences_table,
    measure_statistics,
    to_json,
)

from .conftest import robot_steps


def test_statistics_of_a_cache_are_those_of_the_steps(robot, tmp_path):
    task = robot()
    direct = measure_statistics(task.name, "train", None)
    info = cache_task(task, tmp_path)
    cached = measure_statistics(task.name, "train", tmp_path)
    assert direct[0].statistics == cached[0].statistics == info.statistics
    assert "clipped" in direct[0].describe() and "from arm_pick" in direct[0].describe()


def test_two_tasks_of_one_robot_are_measured_together_and_web_tasks_left_out(robot, web):
    import seqio

    robot(), web(), robot("arm_place", robot_steps(seed=1))
    names = ["arm_pick", "arm_place", "cups"]
    seqio.MixtureRegistry.add("all_three", names, default_rate=1.0)
    (measured,) = measure_statistics("all_three", "train", None)
    assert measured.statistics.count == 18 and measured.tasks == ("arm_pick", "arm_place")
    with pytest.raises(ValueError, match="'cups' has no robot task"):
        measure_statistics("cups", "train", None)


def test_a_field_below_the_floor_is_a_warning(robot):
    steps = robot_steps()
    for step in steps:
        step["action"][2] *= 0.01
    (measured,) = measure_statistics(robot(steps=steps).name, "train", None)
    assert "warning: position_delta_y: q01..q99 is narrower" in measured.describe()


def test_a_file_of_other_data_differs_at_its_fields(robot, tmp_path):
    steps = robot_steps(lengths=(30, 30))
    measured = measure_statistics(robot(steps=steps).name, "train", None)
    file = tmp_path / "statistics.json"
    StatisticsTable((measured[0].statistics,)).save(file)
    same = compare(measured, load_statistics(file)[0])
    assert len(same) == 14 and {each.share for each in same} == {0.0}
    assert differences_table(same, 0.0).startswith("0 of 14 quantiles")
    for step in steps:
        step["action"][3] += np.float32(0.1)
    moved = measure_statistics(robot("moved", steps).name, "train", None)
    wide = [each for each in compare(moved, load_statistics(file)[0]) if each.share > 0.02]
    assert {(each.field, each.quantile) for each in wide} == {
        ("position_delta_z", "q01"),
        ("position_delta_z", "q99"),
    }
    spread = measured[0].statistics.q99[3] - measured[0].statistics.q01[3]
    assert wide[0].share == pytest.approx(0.1 / spread, rel=1e-4)
    assert "2 of 14 quantiles differ by more than 2.0%" in differences_table(wide + same[:12], 0.02)
    assert to_json(moved, wide)["differences"][0]["field"] == "position_delta_z"


def test_a_manifest_is_a_file_of_statistics(mixture, tmp_path):
    measured = measure_statistics("half", "train", tmp_path)
    differences = compare(measured, load_statistics(tmp_path / "half.train.json")[0])
    assert max(each.share for each in differences) == 0


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(ValueError, match=r"no\.json: no JSON file"):
        load_statistics(tmp_path / "no.json")
