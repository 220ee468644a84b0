"""The scene vocabulary of the table-top world, read from data (`tabletop.toml` by default)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pathlib
import re
import tomllib
from collections.abc import Mapping
from typing import Any

DEFAULT_WORLD = pathlib.Path(__file__).with_name("tabletop.toml")
SYMBOL_COLUMNS, SYMBOL_ROWS = 5, 7
SKILL_ROLES: Mapping[str, tuple[str, ...]] = {"reach": ("target",), "push": ("target", "goal")}
"""The skills that `rt2_jax.sim.skills` can judge, and the roles that their wordings must name."""

Range = tuple[float, float]
Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class SceneRules:
    """How a scene is drawn. Lengths in metres, in the robot's base frame; ranges are inclusive."""

    objects: tuple[int, int]
    symbol_cubes: tuple[int, int]
    object_radius: float
    object_height: float
    region_x: Range
    region_y: Range
    separation: float
    home_x: Range
    home_y: Range
    home_z: Range
    light_x: Range
    light_y: Range
    light_z: Range


@dataclasses.dataclass(frozen=True)
class Shape:
    """An outline inside the unit circle, counter-clockwise, star-shaped around the origin."""

    outline: tuple[tuple[float, float], ...]
    height: float


@dataclasses.dataclass(frozen=True)
class Table:
    """A table top: a pattern of `rt2_jax.sim.textures` between two sRGB colours."""

    pattern: str
    colours: tuple[Colour, Colour]


@dataclasses.dataclass(frozen=True)
class Skill:
    """How a skill is worded and when it has succeeded (metres)."""

    templates: tuple[str, ...]
    start_distance: float
    success_distance: float


@dataclasses.dataclass(frozen=True)
class World:
    """Everything that can stand on the table, be named and be asked for."""

    name: str
    scene: SceneRules
    colours: Mapping[str, Colour]
    shapes: Mapping[str, Shape]
    tables: Mapping[str, Table]
    skills: Mapping[str, Skill]
    places: Mapping[str, tuple[Range, Range]]
    symbols: Mapping[str, tuple[str, ...]]

    @property
    def hash(self) -> str:
        """SHA-256 of the whole vocabulary: part of the identity of everything recorded in it."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def skill(self, name: str) -> Skill:
        """The skill of that name; raises `ValueError` that lists the known ones."""
        if name not in self.skills:
            raise ValueError(
                f"skill: found {name!r}, expected one of {', '.join(sorted(self.skills))} "
                f"(world {self.name!r})"
            )
        return self.skills[name]

    def place_of(self, x: float, y: float) -> str:
        """The name of the place at (x, y) metres, as seen in the front camera's picture."""
        column = _fraction(y, self.scene.region_y)
        row = _fraction(x, self.scene.region_x)
        for name, (columns, rows) in self.places.items():
            if columns[0] <= column <= columns[1] and rows[0] <= row <= rows[1]:
                return name
        raise ValueError(
            f"world {self.name!r}: no place covers ({x:.3f}, {y:.3f}) m, i.e. "
            f"({column:.2f}, {row:.2f}) of the region; add one to [places]"
        )


def _fraction(value: float, span: Range) -> float:
    return min(max((value - span[0]) / (span[1] - span[0]), 0.0), 1.0)


def load_world(path: str | pathlib.Path | None = None) -> World:
    """Reads a world file; `None` is the built-in one.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file does not describe a world; the message names the table and the key.
    """
    path = pathlib.Path(path) if path is not None else DEFAULT_WORLD
    if not path.is_file():
        raise FileNotFoundError(f"world: no file {path}; leave it out for the built-in table top")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"world {path}: not a TOML file: {error}") from error
    try:
        return _world(data)
    except ValueError as error:
        raise ValueError(f"world {path}: {error}") from error


def _world(data: Mapping[str, Any]) -> World:
    _same_keys("the file", data, {field.name for field in dataclasses.fields(World)})
    rules = _scene_rules(data["scene"])
    world = World(
        name=str(data["name"]),
        scene=rules,
        colours={name: _colour(f"[colours] {name}", c) for name, c in data["colours"].items()},
        shapes={name: _shape(name, s, rules.object_height) for name, s in data["shapes"].items()},
        tables={name: _table(name, t) for name, t in data["tables"].items()},
        skills={name: _skill(name, s) for name, s in data["skills"].items()},
        places={
            name: (_range(f"[places] {name}", span[0]), _range(f"[places] {name}", span[1]))
            for name, span in data["places"].items()
        },
        symbols={name: _symbol(name, rows) for name, rows in data["symbols"].items()},
    )
    _check_enough(world)
    return world


def _check_enough(world: World) -> None:
    for table in ("colours", "shapes", "tables", "skills", "places"):
        if not getattr(world, table):
            raise ValueError(f"[{table}] is empty; a world needs at least one")
    (least, most), symbols = world.scene.objects, world.scene.symbol_cubes
    if least < 4:
        raise ValueError(
            f"[scene] objects = {list(world.scene.objects)}, expected at least 4: two to push "
            "together and two others to name instead"
        )
    if len(world.colours) * len(world.shapes) < most:
        raise ValueError(
            f"[scene] objects = {list(world.scene.objects)}, but {len(world.colours)} colours x "
            f"{len(world.shapes)} shapes give too few different names"
        )
    if symbols[1] > min(len(world.symbols), least):
        raise ValueError(
            f"[scene] symbol_cubes = {list(symbols)}, expected at most the number of symbols "
            f"({len(world.symbols)}) and of objects ({least})"
        )


def _scene_rules(data: Mapping[str, Any]) -> SceneRules:
    _same_keys("[scene]", data, {field.name for field in dataclasses.fields(SceneRules)})
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key in ("objects", "symbol_cubes"):
            low, high = _range(f"[scene] {key}", value)
            if low != int(low) or high != int(high) or low < 0:
                raise ValueError(f"[scene] {key}: found {value}, expected two whole numbers >= 0")
            values[key] = (int(low), int(high))
        elif isinstance(value, list):
            values[key] = _range(f"[scene] {key}", value)
        elif isinstance(value, (int, float)) and value > 0:
            values[key] = float(value)
        else:
            raise ValueError(
                f"[scene] {key}: found {value!r}, expected a positive number of metres"
            )
    return SceneRules(**values)


def _same_keys(where: str, found: Mapping[str, Any], expected: set[str]) -> None:
    missing, unknown = sorted(expected - set(found)), sorted(set(found) - expected)
    if missing or unknown:
        raise ValueError(
            f"{where}: missing {missing}, unknown {unknown}; expected {sorted(expected)}"
        )


def _range(where: str, value: Any) -> Range:
    if not (isinstance(value, list) and len(value) == 2 and value[0] <= value[1]):
        raise ValueError(f"{where}: found {value!r}, expected [low, high]")
    return float(value[0]), float(value[1])


def _colour(where: str, value: Any) -> Colour:
    if not (isinstance(value, list) and len(value) == 3 and all(0 <= v <= 255 for v in value)):
        raise ValueError(f"{where}: found {value!r}, expected [red, green, blue] in 0..255")
    return int(value[0]), int(value[1]), int(value[2])


def _shape(name: str, data: Mapping[str, Any], height: float) -> Shape:
    where = f"[shapes.{name}]"
    kinds = [kind for kind in ("regular", "star", "outline") if kind in data]
    unknown = sorted(set(data) - {"regular", "star", "outline", "height"})
    if len(kinds) != 1 or unknown:
        raise ValueError(
            f"{where}: found {sorted(data)}, expected one of regular, star, outline (and height)"
        )
    if kinds[0] == "regular":
        outline = _ring([1.0] * int(data["regular"]))
    elif kinds[0] == "star":
        points, inner = data["star"]
        outline = _ring([1.0, float(inner)] * int(points))
    else:
        outline = tuple((float(x), float(y)) for x, y in data["outline"])
    if len(outline) < 3:
        raise ValueError(f"{where}: an outline needs at least 3 corners, found {len(outline)}")
    for i, ((x0, y0), (x1, y1)) in enumerate(zip(outline, outline[1:] + outline[:1], strict=True)):
        if math.hypot(x0, y0) > 1.001:  # outlines are written with three decimals
            raise ValueError(f"{where}: corner {i} ({x0}, {y0}) lies outside the unit circle")
        if x0 * y1 - x1 * y0 <= 0:
            raise ValueError(
                f"{where}: the side from corner {i} ({x0}, {y0}) to ({x1}, {y1}) does not run "
                "counter-clockwise around the origin; every corner must be visible from there"
            )
    return Shape(outline, float(data.get("height", height)))


def _ring(radii: list[float]) -> tuple[tuple[float, float], ...]:
    step = 2 * math.pi / len(radii)
    return tuple((r * math.cos(i * step), r * math.sin(i * step)) for i, r in enumerate(radii))


def _table(name: str, data: Mapping[str, Any]) -> Table:
    _same_keys(f"[tables] {name}", data, {"pattern", "colours"})
    first, second = data["colours"]
    where = f"[tables] {name} colours"
    return Table(str(data["pattern"]), (_colour(where, first), _colour(where, second)))


def _skill(name: str, data: Mapping[str, Any]) -> Skill:
    where = f"[skills.{name}]"
    if name not in SKILL_ROLES:
        raise ValueError(f"{where}: no judge for it; known skills: {', '.join(SKILL_ROLES)}")
    _same_keys(where, data, {field.name for field in dataclasses.fields(Skill)})
    expected = set(SKILL_ROLES[name])
    for template in data["templates"]:
        if set(re.findall(r"{(\w*)}", template)) != expected:
            raise ValueError(
                f"{where}: template {template!r} must name each of {sorted(expected)} in braces, "
                "and nothing else"
            )
    return Skill(
        tuple(data["templates"]), float(data["start_distance"]), float(data["success_distance"])
    )


def _symbol(name: str, rows: Any) -> tuple[str, ...]:
    dots = tuple(str(rows).split())
    if len(dots) != SYMBOL_ROWS or any(
        len(row) != SYMBOL_COLUMNS or set(row) - set("#.") for row in dots
    ):
        raise ValueError(
            f"[symbols] {name}: expected {SYMBOL_ROWS} rows of {SYMBOL_COLUMNS} dots "
            f"('#' or '.') separated by blanks, found {rows!r}"
        )
    return dots
