"""Scenes are functions of (world, skill, seed), obey the rules, and hide nothing in the layout."""

import dataclasses
import hashlib
import itertools
import json
import math

import numpy as np
import pytest

from rt2_jax.sim.scene import Scene, sample_scene
from rt2_jax.sim.world import World, load_world

SEEDS = range(300)


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module", params=["reach", "push"])
def scenes(request, world) -> list[Scene]:
    return [sample_scene(world, request.param, seed) for seed in SEEDS]


def test_the_same_seed_gives_the_same_scene_and_another_seed_another(world, scenes):
    skill = scenes[0].skill
    assert scenes[7] == sample_scene(world, skill, 7)
    assert len({json.dumps(scene.to_json()["objects"]) for scene in scenes}) == len(scenes)


def test_skills_do_not_share_their_scenes(world):
    assert sample_scene(world, "reach", 0).objects != sample_scene(world, "push", 0).objects


def test_objects_keep_to_the_region_and_their_distance(world, scenes):
    rules = world.scene
    for scene in scenes:
        assert rules.objects[0] <= len(scene.objects) <= rules.objects[1]
        assert len({thing.name for thing in scene.objects}) == len(scene.objects)
        for thing in scene.objects:
            assert rules.region_x[0] <= thing.x <= rules.region_x[1]
            assert rules.region_y[0] <= thing.y <= rules.region_y[1]
        for a, b in itertools.combinations(scene.objects, 2):
            assert math.dist((a.x, a.y), (b.x, b.y)) >= rules.separation


def test_the_start_is_as_far_from_success_as_the_skill_says(world, scenes):
    for scene in scenes:
        target = scene.objects[scene.roles["target"]]
        start = world.skill(scene.skill).start_distance
        if scene.skill == "reach":
            assert all(math.dist(scene.tip[:2], (o.x, o.y)) >= start for o in scene.objects)
        else:
            goal = scene.objects[scene.roles["goal"]]
            assert math.dist((target.x, target.y), (goal.x, goal.y)) >= start


def test_the_target_is_uniform_over_the_objects(scenes):
    """Five objects at least, so no index is the target of more than a fifth, within chance."""
    counts = np.bincount([scene.roles["target"] for scene in scenes], minlength=6)
    expected = np.zeros(6)
    for scene in scenes:
        expected[: len(scene.objects)] += 1 / len(scene.objects)
    spread = np.sqrt(expected)
    assert np.all(np.abs(counts - expected) < 4 * spread)


def test_the_layout_hardly_gives_the_target_away(scenes):
    """The most isolated object is the target as often as chance has it, in push a little more."""
    right = 0
    for scene in scenes:
        places = np.array([(thing.x, thing.y) for thing in scene.objects])
        distances = np.linalg.norm(places[:, None] - places, axis=2) + np.eye(len(places))
        right += int(np.argmax(distances.min(axis=1))) == scene.roles["target"]
    assert right / len(scenes) < {"reach": 0.27, "push": 0.40}[scenes[0].skill]


def test_scenes_of_a_seed_never_drift(world):
    """Recordings and results name scenes by their seeds: see `SIMULATION_VERSION`."""
    text = json.dumps([sample_scene(world, s, 7).to_json() for s in ("push", "reach")])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "a0cf9b5e6f51917a"


def test_instructions_name_the_roles_and_swapped_ones_name_none_of_them(scenes):
    for scene in scenes:
        for index in scene.roles.values():
            assert scene.objects[index].name in scene.instruction
            assert scene.objects[index].name not in scene.swapped_instruction
        others = [o.name for i, o in enumerate(scene.objects) if i not in scene.roles.values()]
        assert sum(name in scene.swapped_instruction for name in others) == len(scene.roles)


def test_wordings_colours_shapes_and_tables_all_occur(world, scenes):
    assert len({scene.table for scene in scenes}) == len(world.tables)
    things = [thing for scene in scenes for thing in scene.objects]
    assert {thing.colour for thing in things} - {None} == set(world.colours)
    assert {thing.shape for thing in things} == set(world.shapes)
    assert len({thing.symbol for thing in things}) > 20
    openings = {scene.instruction.split(" the ")[0] for scene in scenes}
    assert len(openings) >= 3


def test_rules_without_room_say_what_to_change(world):
    crowded = dataclasses.replace(world, scene=dataclasses.replace(world.scene, separation=0.3))
    with pytest.raises(ValueError, match="seed 0: no arrangement.*make the region larger"):
        sample_scene(crowded, "reach", 0)


def test_a_negative_seed_is_refused(world):
    with pytest.raises(ValueError, match="seed: found -1"):
        sample_scene(world, "reach", -1)
