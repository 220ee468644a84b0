"""The scene vocabulary of the table-top world, read from data (`tabletop.toml` by default)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from rt2_jax.sim.outlines import Outline, read_outline
from rt2_jax.sim.toml_values import (
    check_list,
    check_number,
    check_range,
    check_table,
    check_text,
    check_whole,
)

DEFAULT_WORLD = pathlib.Path(__file__).with_name("tabletop.toml")
SYMBOL_COLUMNS, SYMBOL_ROWS = 5, 7
SKILL_ROLES: Mapping[str, tuple[str, ...]] = {"reach": ("target",), "push": ("target", "goal")}
"""The skills that `rt2_jax.sim.skills` can judge, and the roles that their wordings must name."""

TABLE_PATTERNS = ("plain", "wood", "marble", "speckle", "weave", "checker", "stripes")
"""The patterns that `rt2_jax.sim.textures` can draw."""

Range = tuple[float, float]
Colour = tuple[int, int, int]

WORKSPACE: tuple[Range, Range, Range] = ((-0.27, 0.23), (-0.21, 0.21), (0.008, 0.22))
"""Where the gripper's tip can be: x, y and z in metres, in the robot's base frame."""

_SCENE_RANGES: Mapping[str, Range] = {  # metres
    "region_x": WORKSPACE[0],
    "region_y": WORKSPACE[1],
    "home_x": WORKSPACE[0],
    "home_y": WORKSPACE[1],
    "home_z": WORKSPACE[2],
    "light_x": (-3.0, 3.0),
    "light_y": (-3.0, 3.0),
    "light_z": (0.3, 3.0),
}
_LENGTH = (0.001, 0.2)  # metres of an object, and between two
_DISTANCE = (0.001, 0.5)  # metres of a skill: what the workspace has room for
_MOST_OBJECTS = 100


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

    outline: Outline
    height: float


@dataclasses.dataclass(frozen=True)
class Table:
    """A table top: one of `TABLE_PATTERNS` between two sRGB colours."""

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
    except ValueError as error:
        raise ValueError(f"world {path}: not a TOML file in UTF-8: {error}") from error
    try:
        world = _world(data)
        _check_names(world)
        _check_rules(world)
    except ValueError as error:
        raise ValueError(f"world {path}: {error}") from error
    return world


def _world(data: Mapping[str, Any]) -> World:
    check_table("the file", data, [field.name for field in dataclasses.fields(World)])

    def entries(table: str) -> Iterable[tuple[str, Any]]:
        found = check_table(f"[{table}]", data[table])
        if not found and table != "symbols":
            raise ValueError(f"[{table}] is empty; a world needs at least one")
        return found.items()

    rules = _scene_rules(data["scene"])
    return World(
        name=check_text("name", data["name"]),
        scene=rules,
        colours={name: _colour(f"[colours] {name}", c) for name, c in entries("colours")},
        shapes={
            name: _shape(f"[shapes.{name}]", s, rules.object_height)
            for name, s in entries("shapes")
        },
        tables={name: _table(f"[tables] {name}", t) for name, t in entries("tables")},
        skills={name: _skill(name, s) for name, s in entries("skills")},
        places={name: _place(f"[places] {name}", p) for name, p in entries("places")},
        symbols={name: _symbol(f"[symbols] {name}", rows) for name, rows in entries("symbols")},
    )


def _check_names(world: World) -> None:
    """Within a scene every object must have a name of its own."""
    rules = world.scene
    names = [f"{colour} {shape}" for colour in world.colours for shape in world.shapes]
    if len(names) < rules.objects[1]:
        raise ValueError(
            f"[scene] objects = {list(rules.objects)}, but {len(world.colours)} colours x "
            f"{len(world.shapes)} shapes give too few different names"
        )
    if rules.symbol_cubes[1] > 0:
        if "cube" not in world.shapes:
            raise ValueError(
                f"[scene] symbol_cubes = {list(rules.symbol_cubes)}, but there is no "
                f"[shapes.cube], only {', '.join(world.shapes)}; add it, or write [0, 0]"
            )
        names += [f"{symbol} cube" for symbol in world.symbols]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"[colours], [shapes] and [symbols]: several objects would be called {twice[0]!r}"
        )


def _check_rules(world: World) -> None:
    rules = world.scene
    if rules.objects[0] < 4:
        raise ValueError(
            f"[scene] objects = {list(rules.objects)}, expected at least 4: two to push "
            "together and two others to name instead"
        )
    if rules.symbol_cubes[1] > min(len(world.symbols), rules.objects[0]):
        raise ValueError(
            f"[scene] symbol_cubes = {list(rules.symbol_cubes)}, expected at most the number of "
            f"symbols ({len(world.symbols)}) and of objects ({rules.objects[0]})"
        )
    if rules.separation < 2 * rules.object_radius:
        raise ValueError(
            f"[scene] separation = {rules.separation}, expected at least twice object_radius = "
            f"{rules.object_radius}, or objects would begin inside each other"
        )
    for key in ("region_x", "region_y"):
        low, high = getattr(rules, key)
        if low == high:
            raise ValueError(f"[scene] {key} = {[low, high]}, expected an area and not a line")


def _scene_rules(data: Any) -> SceneRules:
    check_table("[scene]", data, [field.name for field in dataclasses.fields(SceneRules)])
    values: dict[str, Any] = {}
    for key, value in data.items():
        where = f"[scene] {key}"
        if key in ("objects", "symbol_cubes"):
            for count in check_list(where, value, "[low, high]", 2, 2):
                check_whole(where, count, 0, _MOST_OBJECTS)
            low, high = check_range(where, value, 0, _MOST_OBJECTS)
            values[key] = (int(low), int(high))
        elif key in _SCENE_RANGES:
            values[key] = check_range(where, value, *_SCENE_RANGES[key])
        else:
            values[key] = check_number(where, value, *_LENGTH)
    return SceneRules(**values)


def _colour(where: str, value: Any) -> Colour:
    red, green, blue = (
        check_whole(where, part, 0, 255)
        for part in check_list(where, value, "[red, green, blue] in 0..255", 3, 3)
    )
    return red, green, blue


def _shape(where: str, data: Any, height: float) -> Shape:
    outline = read_outline(where, check_table(where, data))
    return Shape(outline, check_number(f"{where} height", data.get("height", height), *_LENGTH))


def _table(where: str, data: Any) -> Table:
    check_table(where, data, ["pattern", "colours"])
    if data["pattern"] not in TABLE_PATTERNS:
        raise ValueError(
            f"{where} pattern: found {data['pattern']!r}, expected one of "
            f"{', '.join(TABLE_PATTERNS)}"
        )
    first, second = check_list(f"{where} colours", data["colours"], "two colours", 2, 2)
    return Table(
        data["pattern"], (_colour(f"{where} colours", first), _colour(f"{where} colours", second))
    )


def _skill(name: str, data: Any) -> Skill:
    where = f"[skills.{name}]"
    if name not in SKILL_ROLES:
        raise ValueError(f"{where}: no judge for it; known skills: {', '.join(SKILL_ROLES)}")
    check_table(where, data, [field.name for field in dataclasses.fields(Skill)])
    templates = check_list(f"{where} templates", data["templates"], "one wording or more", 1)
    braces = sorted(f"{{{role}}}" for role in SKILL_ROLES[name])
    for template in templates:
        text = check_text(f"{where} templates", template)
        if sorted(re.findall(r"{\w*}|[{}]", text)) != braces:
            raise ValueError(
                f"{where} templates: found {text!r}, expected each of {', '.join(braces)} once, "
                "and no other braces"
            )
    start, success = (
        check_number(f"{where} {key}", data[key], *_DISTANCE)
        for key in ("start_distance", "success_distance")
    )
    if start <= success:
        raise ValueError(
            f"{where}: start_distance = {start}, expected more than success_distance = {success}, "
            "or scenes would begin as successes"
        )
    return Skill(tuple(templates), start, success)


def _place(where: str, value: Any) -> tuple[Range, Range]:
    columns, rows = check_list(where, value, "[[left, right], [top, bottom]]", 2, 2)
    return check_range(where, columns, 0.0, 1.0), check_range(where, rows, 0.0, 1.0)


def _symbol(where: str, rows: Any) -> tuple[str, ...]:
    dots = tuple(str(rows).split())
    if len(dots) != SYMBOL_ROWS or any(
        len(row) != SYMBOL_COLUMNS or set(row) - set("#.") for row in dots
    ):
        raise ValueError(
            f"{where}: expected {SYMBOL_ROWS} rows of {SYMBOL_COLUMNS} dots ('#' or '.') separated "
            f"by blanks, found {rows!r}"
        )
    return dots
