"""Scenes: which objects stand where on which table, and what the robot is asked to do.

A scene is a function of (world, skill, seed) alone, so every policy can be judged on the same ones.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from rt2_jax.sim.world import SKILL_ROLES, World

_CORRIDOR = 0.065  # metres between a push's straight line and any other object's centre
_APPROACH = 0.075  # metres behind the pushed object that must be free, for the gripper
_ATTEMPTS = 2000


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One object. It is a symbol cube when `symbol` is set, else a coloured shape."""

    name: str
    shape: str
    colour: str | None
    symbol: str | None
    x: float
    y: float
    yaw: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """One episode's beginning. Lengths in metres and angles in radians, in the base frame.

    `roles` maps "target" (and "goal") to indices into `objects`; `instruction` is one wording of
    it, `swapped_instruction` the same wording with another object's name in place of each role.
    """

    skill: str
    seed: int
    objects: tuple[SceneObject, ...]
    roles: dict[str, int]
    instruction: str
    swapped_instruction: str
    tip: tuple[float, float, float]
    light: tuple[float, float, float]
    table: str
    table_seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; what a recorded episode says about its scene."""
        return dataclasses.asdict(self)


def sample_scene(world: World, skill: str, seed: int) -> Scene:
    """Draws the scene of this seed. The target (and the goal) are uniform over the objects.

    Raises:
      ValueError: an unknown skill, a negative seed, or rules that leave no room for the objects.
    """
    rules, limits = world.scene, world.skill(skill)
    if seed < 0:
        raise ValueError(f"seed: found {seed}, expected 0 or more")
    stream = np.random.SeedSequence(seed, spawn_key=tuple(skill.encode()))
    random = np.random.Generator(np.random.PCG64(stream))
    count = int(random.integers(rules.objects[0], rules.objects[1] + 1))
    cubes = int(random.integers(rules.symbol_cubes[0], rules.symbol_cubes[1] + 1))
    names = _draw_names(world, random, count, cubes)
    roles = dict(
        zip(SKILL_ROLES[skill], _distinct(random, len(names), len(SKILL_ROLES[skill])), strict=True)
    )
    tip = (
        _uniform(random, rules.home_x),
        _uniform(random, rules.home_y),
        _uniform(random, rules.home_z),
    )
    for _ in range(_ATTEMPTS):
        places = _draw_places(world, random, len(names))
        if places is not None and _allows(skill, places, roles, tip, limits.start_distance):
            break
    else:
        raise ValueError(
            f"world {world.name!r}, skill {skill!r}, seed {seed}: no arrangement of {len(names)} "
            "objects found; make the region larger, or separation or start_distance smaller"
        )
    objects = _place_objects(random, names, places)
    template = limits.templates[int(random.integers(len(limits.templates)))]
    return Scene(
        skill=skill,
        seed=seed,
        objects=objects,
        roles=roles,
        instruction=_word(template, objects, roles),
        swapped_instruction=_word(template, objects, _swap(random, len(objects), roles)),
        tip=tip,
        **_draw_surroundings(world, random),
    )


def sample_still(world: World, seed: int, objects: tuple[int, int], symbols: bool) -> Scene:
    """Draws a scene to look at: no skill, no robot, and as few objects as one.

    Args:
      world: the vocabulary.
      seed: of the scene.
      objects: the least and the greatest number of them, drawn uniformly.
      symbols: whether cubes with symbols may be among them.

    Raises:
      ValueError: numbers out of their range, or no room for so many objects.
    """
    most = len(world.colours) * len(world.shapes)
    if not 1 <= objects[0] <= objects[1] <= most or seed < 0:
        raise ValueError(
            f"objects: found {objects[0]} to {objects[1]} (seed {seed}), expected numbers from 1 "
            f"to {most} and a seed from 0"
        )
    stream = np.random.SeedSequence(seed, spawn_key=tuple(b"still"))
    random = np.random.Generator(np.random.PCG64(stream))
    rules = world.scene
    count = int(random.integers(objects[0], objects[1] + 1))
    cubes = min(count, int(random.integers(rules.symbol_cubes[1] + 1))) if symbols else 0
    names = _draw_names(world, random, count, cubes)
    for _ in range(_ATTEMPTS):
        places = _draw_places(world, random, count)
        if places is not None:
            break
    else:
        raise ValueError(
            f"world {world.name!r}, seed {seed}: no arrangement of {count} objects found; draw "
            "fewer, or make the region larger or the separation smaller"
        )
    return Scene(
        skill="still",
        seed=seed,
        objects=_place_objects(random, names, places),
        roles={},
        instruction="",
        swapped_instruction="",
        tip=(rules.home_x[0], rules.home_y[0], rules.home_z[0]),
        **_draw_surroundings(world, random),
    )


def _place_objects(
    random: np.random.Generator,
    names: list[tuple[str, str, str | None, str | None]],
    places: np.ndarray,
) -> tuple[SceneObject, ...]:
    return tuple(
        SceneObject(name, shape, colour, symbol, float(x), float(y), _draw_yaw(random, symbol))
        for (name, shape, colour, symbol), (x, y) in zip(names, places, strict=True)
    )


def _draw_surroundings(world: World, random: np.random.Generator) -> dict[str, Any]:
    rules = world.scene
    return {
        "light": (
            _uniform(random, rules.light_x),
            _uniform(random, rules.light_y),
            _uniform(random, rules.light_z),
        ),
        "table": sorted(world.tables)[int(random.integers(len(world.tables)))],
        "table_seed": int(random.integers(2**31)),
    }


def _uniform(random: np.random.Generator, span: tuple[float, float]) -> float:
    return float(span[0] + (span[1] - span[0]) * random.random())


def _distinct(random: np.random.Generator, count: int, how_many: int) -> list[int]:
    return [int(i) for i in random.permutation(count)[:how_many]]


def _draw_names(
    world: World, random: np.random.Generator, count: int, cubes: int
) -> list[tuple[str, str, str | None, str | None]]:
    """(name, shape, colour, symbol) of every object: all names differ within a scene."""
    pairs = [(colour, shape) for colour in world.colours for shape in world.shapes]
    symbols = list(world.symbols)
    drawn: list[tuple[str, str, str | None, str | None]] = [
        (f"{symbols[i]} cube", "cube", None, symbols[i])
        for i in _distinct(random, len(symbols), cubes)
    ]
    for i in _distinct(random, len(pairs), count - cubes):
        colour, shape = pairs[i]
        drawn.append((f"{colour} {shape}", shape, colour, None))
    return drawn


def _draw_places(world: World, random: np.random.Generator, count: int) -> np.ndarray | None:
    """Centres [count, 2] that keep their distance, or None if the draw has run into a corner."""
    rules = world.scene
    places: list[np.ndarray] = []
    for _ in range(count):
        for _ in range(50):
            place = np.array([_uniform(random, rules.region_x), _uniform(random, rules.region_y)])
            if all(math.dist(place, other) >= rules.separation for other in places):
                places.append(place)
                break
        else:
            return None
    return np.stack(places)


def _allows(
    skill: str,
    places: np.ndarray,
    roles: dict[str, int],
    tip: tuple[float, float, float],
    start_distance: float,
) -> bool:
    if skill == "reach":
        # Every object keeps the distance, not only the target: where things stand must not give
        # the target away.
        return bool(np.all(np.linalg.norm(places - tip[:2], axis=1) >= start_distance))
    start, goal = places[roles["target"]], places[roles["goal"]]
    length = float(np.linalg.norm(goal - start))
    if length < start_distance:
        return False
    along = (goal - start) / length
    others = [i for i in range(len(places)) if i not in roles.values()]
    offset = places[others] - start
    position = np.clip(offset @ along, -_APPROACH, length)
    return bool(np.all(np.linalg.norm(offset - position[:, None] * along, axis=1) >= _CORRIDOR))


def _draw_yaw(random: np.random.Generator, symbol: str | None) -> float:
    """Any direction for a shape; a symbol is turned by at most 0.35 rad, so it can be read."""
    return _uniform(random, (-math.pi, math.pi) if symbol is None else (-0.35, 0.35))


def _swap(random: np.random.Generator, count: int, roles: dict[str, int]) -> dict[str, int]:
    """Other objects for the roles; none keeps its own, and no two share one."""
    free = [i for i in random.permutation(count) if i not in roles.values()]
    return {role: int(i) for role, i in zip(roles, free, strict=False)}


def _word(template: str, objects: tuple[SceneObject, ...], roles: dict[str, int]) -> str:
    return template.format(**{role: objects[i].name for role, i in roles.items()})
