"""The resolved manifest: it says all that training needs, and never silently too little."""

import json

import numpy as np
import pytest
import seqio

from rt2_jax.actions.bounds import FixedBounds
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.actions.statistics import compute_statistics
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.manifest import Manifest, load_manifest, manifest_path, open_caches
from rt2_jax.data.resolve import resolve_mixture

from .conftest import ARM, robot_steps


def test_a_manifest_says_what_a_mixture_is(mixture, tmp_path):
    read = load_manifest(tmp_path / "half.train.json")
    assert read == mixture and read.hash == mixture.hash
    assert [(t.info.name, t.share, t.steps, t.episodes) for t in read.tasks] == [
        ("arm_pick", 0.5, 9, 3),
        ("cups", 0.5, 5, 5),
    ]
    assert read.tasks[0].info.robot.action_space == ARM


def test_the_bounds_are_the_quantiles_of_the_cached_actions(mixture):
    actions = np.stack([step["action"] for step in robot_steps()])
    expected = np.quantile(actions[:, 1].astype(np.float64), [0.01, 0.99])
    bounds = mixture.bounds(mixture.tasks[0].info)
    np.testing.assert_array_equal([bounds.low[1], bounds.high[1]], expected)


def test_tasks_of_one_robot_share_their_statistics(robot, tmp_path):
    parts = {"arm_a": robot_steps(), "arm_b": robot_steps(seed=1)}
    for name, steps in parts.items():
        cache_task(robot(name, steps), tmp_path)
    actions = np.stack([step["action"] for steps in parts.values() for step in steps])
    seqio.MixtureRegistry.add("arms", ["arm_a", "arm_b"], default_rate=1.0)
    manifest = resolve_mixture("arms", tmp_path)
    assert manifest.statistics.entries == (compute_statistics(ARM, "arm", actions),)


def test_a_tasks_loss_weight_is_in_the_manifest_and_not_in_the_cache(web, tmp_path):
    cache_task(web(), tmp_path)
    plain = resolve_mixture("cups", tmp_path)
    seqio.TaskRegistry.remove("cups")
    web(loss_weight=0.25)
    manifest = resolve_mixture("cups", tmp_path)
    assert (plain.tasks[0].info.loss_weight, manifest.tasks[0].info.loss_weight) == (1.0, 0.25)
    assert plain.tasks[0].cache_hash == manifest.tasks[0].cache_hash
    assert cache_task(seqio.TaskRegistry.get("cups"), tmp_path).hash == plain.tasks[0].cache_hash
    assert load_manifest(manifest_path(tmp_path, "cups", "train")).hash == manifest.hash
    assert plain.hash != manifest.hash
    with pytest.raises(
        ValueError, match="'dull': found loss_weight -1.0, expected a number from 0"
    ):
        web("dull", loss_weight=-1.0)


def test_tasks_of_one_robot_share_the_ranges_of_its_state(robot, tmp_path):
    for name, steps in (("arm_a", robot_steps()), ("arm_b", robot_steps(seed=1))):
        cache_task(robot(name, steps), tmp_path)
    cache_task(robot("arm_c", state_bounds={"x": (0.0, 2.0)}), tmp_path)
    seqio.MixtureRegistry.add("arms", ["arm_a", "arm_b"], default_rate=1.0)
    [ranges] = resolve_mixture("arms", tmp_path).state_ranges
    assert (ranges.embodiment, ranges.space, ranges.fields) == ("arm", "test_arm", ("x", "y"))
    assert ranges.count == 2 * len(robot_steps())
    seqio.MixtureRegistry.add("others", ["arm_a", "arm_c"], default_rate=1.0)
    with pytest.raises(ValueError, match="'arm_a' and 'arm_c' are of one robot and declare diff"):
        resolve_mixture("others", tmp_path)


def test_one_space_name_for_two_spaces_is_refused(robot, tmp_path):
    other = rt2_action_space(
        "test_arm",
        translation_bound_m=FixedBounds(-1, 1),
        rotation_bound_rad=0.25,
        gripper_polarity="high_is_open",
        control_rate_hz=5.0,
    )
    cache_task(robot("arm_a"), tmp_path)
    cache_task(robot("arm_b", action_space=other), tmp_path)
    seqio.MixtureRegistry.add("arms", ["arm_a", "arm_b"], default_rate=1.0)
    with pytest.raises(ValueError, match="task 'arm_b' belongs to another action space"):
        resolve_mixture("arms", tmp_path)


def test_a_mixture_without_statistics_is_refused(mixture, tmp_path):
    path = tmp_path / "half.train.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "statistics": []}))
    with pytest.raises(KeyError, match="mixture 'half', task 'arm_pick': no action statistics for"):
        load_manifest(path)


def test_a_task_that_is_not_cached_is_named_with_the_command(robot, tmp_path):
    robot()
    with pytest.raises(FileNotFoundError, match="task 'arm_pick' is not cached.*rt2 data cache"):
        resolve_mixture("arm_pick", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_of_an_older_declaration_is_refused(robot, registry, tmp_path):
    cache_task(robot(), tmp_path)
    seqio.TaskRegistry.remove("arm_pick")
    robot(prompt="Now {text}")
    with pytest.raises(ValueError, match="was cached before task 'arm_pick' changed .prompt: 'Q:"):
        resolve_mixture("arm_pick", tmp_path)


def test_a_cache_that_is_not_the_resolved_one_is_refused(mixture, robot, tmp_path):
    (tmp_path / "arm_pick").rename(tmp_path / "old")
    seqio.TaskRegistry.remove("arm_pick")
    cache_task(robot(steps=robot_steps(seed=1)), tmp_path)
    with pytest.raises(ValueError, match="is not the cache that mixture 'half' was resolved with"):
        open_caches(mixture, tmp_path)


def test_a_folder_of_caches_can_be_moved(mixture, tmp_path):
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    manifest = load_manifest(manifest_path(moved, "half", "train"))
    assert [len(cache) for cache in open_caches(manifest, moved)] == [9, 5]


def test_a_web_task_has_no_bounds(mixture):
    with pytest.raises(ValueError, match="task 'cups' has no actions"):
        mixture.bounds(mixture.tasks[1].info)


def test_a_damaged_or_missing_manifest_is_one_clear_line(mixture, tmp_path):
    path = tmp_path / "half.train.json"
    text = path.read_text()
    path.write_text(text[:50])
    with pytest.raises(ValueError, match="half.train.json: damaged, not JSON"):
        load_manifest(path)
    with pytest.raises(FileNotFoundError, match="no manifest .*rt2 data resolve"):
        load_manifest(tmp_path / "other.json")
    with pytest.raises(ValueError, match="version 7, this code reads 2: resolve it again"):
        Manifest.from_json({**json.loads(text), "version": 7})
