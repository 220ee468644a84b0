"""The scene vocabulary is data: it can grow, and a mistake in it is named."""

import dataclasses
import pathlib

import numpy as np
import pytest

from rt2_jax.data.vocabulary import load_vocabulary
from rt2_jax.sim.textures import symbol_texture, table_texture
from rt2_jax.sim.world import DEFAULT_WORLD, load_world


def _changed(tmp_path: pathlib.Path, old: str, new: str) -> pathlib.Path:
    text = DEFAULT_WORLD.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "world.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_built_in_world_has_what_the_documentation_promises():
    world = load_world()
    assert world.scene.objects[0] >= 5
    assert {"red", "green", "blue"} <= set(world.colours)
    assert {"star", "cube", "heart"} <= set(world.shapes)
    assert set("ABCXYZ0123456789") <= set(world.symbols)
    assert set(world.skills) == {"reach", "push"}
    assert all(len(skill.templates) >= 5 for skill in world.skills.values())
    assert world.skills["reach"].success_distance == 0.04
    assert world.skills["reach"].start_distance == 0.10
    assert (world.skills["push"].start_distance, world.skills["push"].success_distance) == (
        0.12,
        0.05,
    )


def test_two_touching_objects_count_as_pushed_together():
    world = load_world()
    assert 2 * world.scene.object_radius < world.skills["push"].success_distance


def test_a_new_colour_makes_another_world(tmp_path):
    path = _changed(tmp_path, "[colours]", "[colours]\nsilver = [190, 190, 200]")
    grown = load_world(path)
    assert "silver" in grown.colours
    assert grown.hash != load_world().hash


def test_the_hash_is_of_the_content_and_not_of_the_file(tmp_path):
    path = _changed(tmp_path, "[colours]", "# a comment\n[colours]")
    assert load_world(path).hash == load_world().hash


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("red = [214, 32, 36]", "red = [214, 32]", r"\[colours\] red.*\[red, green, blue\]"),
        ("red = [214, 32, 36]", "red = [214, 32, 300]", r"\[colours\] red"),
        ("star = [5, 0.42]", "stra = [5, 0.42]", r"\[shapes.star\].*regular, star, outline"),
        ("star = [5, 0.42]", "star = 5", r"\[shapes.star\] star: found 5, .*\[points, inner"),
        (
            "star = [5, 0.42]",
            "star = [5.5, 0.42]",
            r"\[shapes.star\] star: found 5.5, .*whole number",
        ),
        ("star = [5, 0.42]", 'star = [5, "thin"]', r"\[shapes.star\] star: found 'thin', .*number"),
        (
            "[shapes.star]\nstar = [5, 0.42]",
            "[shapes]\nstar = 5",
            r"\[shapes.star\]: found 5, .*table",
        ),
        (
            "[shapes.cube]",
            "[shapes.box]",
            r"symbol_cubes = \[0, 1\].* no \[shapes.cube\], only box",
        ),
        ("regular = 3", "regular = 2", r"\[shapes.triangle\] regular: found 2, .*whole .* from 3"),
        ("regular = 3", 'regular = "many"', r"\[shapes.triangle\] regular: found 'many'"),
        (
            "height = 0.033",
            "height = nan",
            r"\[shapes.cube\] height: found nan, .*from 0.001 to 0.2",
        ),
        (
            "height = 0.033",
            "height = 0",
            r"\[shapes.cube\] height: found 0, expected a number from",
        ),
        (
            "[1.000, 0.000]",
            "[1.500, 0.000]",
            r"\[shapes.arrow\] outline: found 1.5, .*from -1 to 1",
        ),
        ("[1.000, 0.000]", "[0.900, 0.900]", r"\[shapes.arrow\].*outside the unit circle"),
        ("[1.000, 0.000]", "[1.000]", r"\[shapes.arrow\] outline: found \[1.0\], .*as \[x, y\]"),
        ("[1.000, 0.000]", "[-0.200, 0.500]", r"\[shapes.arrow\].*counter-clockwise"),
        ('"go to the {target}"', '"go to the {goal}"', r"\[skills.reach\].*each of {target} once"),
        ('"go to the {target}"', '"go away"', r"\[skills.reach\].*go away"),
        ('"go to the {target}"', '"{target} or {target}"', r"\[skills.reach\].*{target} once"),
        ('"go to the {target}"', '"go { to the {target}"', r"\[skills.reach\].*no other braces"),
        ('"go to the {target}"', '"to the {target!r}"', r"\[skills.reach\].*no other braces"),
        ('"go to the {target}"', "7", r"\[skills.reach\] templates: found 7, expected a text"),
        ("success_distance = 0.04", 'success_distance = "near"', r"success_distance: found 'near'"),
        ("success_distance = 0.04", "success_distance = 0", r"reach\] success_distance: found 0, "),
        ("success_distance = 0.04", "success_distance = 3", r"reach\] success_distance: found 3, "),
        (
            "success_distance = 0.04",
            "success_distance = 0.1",
            r"\[skills.reach\]: start_distance = 0.1",
        ),
        (
            "start_distance = 0.12",
            "start_distance = 0.03",
            r"\[skills.push\]: start_distance = 0.03",
        ),
        ("[skills.push]", "[skills.throw]", r"\[skills.throw\].*reach, push"),
        ("separation = 0.070", "", r"\[scene\]: missing \['separation'\]"),
        (
            "separation = 0.070",
            "separation = -1.0",
            r"\[scene\] separation: found -1.0, .* 0.001 to",
        ),
        (
            "separation = 0.070",
            "separation = true",
            r"\[scene\] separation: found True, .*a number",
        ),
        (
            "separation = 0.070",
            "separation = 0.04",
            r"separation = 0.04, .*twice object_radius = 0.0235",
        ),
        (
            "region_x = [-0.10, 0.16]",
            "region_x = 5",
            r"\[scene\] region_x: found 5, .*\[low, high\]",
        ),
        (
            "region_x = [-0.10, 0.16]",
            "region_x = [-0.1, 0.5]",
            r"region_x: found 0.5, .*-0.27 to 0.23",
        ),
        (
            "region_x = [-0.10, 0.16]",
            "region_x = [0.1, 0.1]",
            r"region_x = \[0.1, 0.1\], .*an area",
        ),
        ("objects = [5, 6]", "objects = [5, 6.5]", r"\[scene\] objects: found 6.5, .*whole number"),
        ("objects = [5, 6]", "objects = [6, 5]", r"\[scene\] objects.*\[low, high\]"),
        ("objects = [5, 6]", "objects = [3, 6]", r"expected at least 4"),
        ("objects = [5, 6]", "objects = [5, 90]", r"too few different names"),
        ("symbol_cubes = [0, 1]", "symbol_cubes = [0, 9]", r"symbol_cubes"),
        ('A = ".###.', 'A = ".##', r"\[symbols\] A: expected 7 rows of 5 dots"),
        ('name = "tabletop"', 'nam = "tabletop"', r"missing \['name'\], unknown \['nam'\]"),
        ('name = "tabletop"', "name = 3", r"name: found 3, expected a text"),
        ("[colours]", "[colours", r"not a TOML file"),
        ("[colours]", "[colours.dark]", r"\[colours\] dark: found {"),
        ("red = [214, 32, 36]", 'red = ["a", 3, 4]', r"\[colours\] red: found 'a', .*whole number"),
        ("[symbols]", "[symbols]\nred = '####. #...# #...# ####. #...# #...# ####.'", "'red cube'"),
        ("oak = {", "oak = 3\nelm = {", r"\[tables\] oak: found 3, expected a table"),
        ('"wood"', '"lava"', r"\[tables\] oak pattern: found 'lava', expected one of plain, wood"),
        (
            '"marble", colours = [',
            '"marble", colours = [[0, 0, 0], ',
            r"marble colours: .*two colours",
        ),
        (
            '"top left" = [',
            '"top left" = 3\nx = [',
            r"\[places\] top left: found 3, expected \[\[left",
        ),
        (
            "[[0.667, 1.0], [0.667, 1.0]]",
            "[[0.667, 1.0]]",
            r"\[places\] bottom right: .*\[top, bottom\]",
        ),
    ],
)
def test_a_mistake_in_a_world_file_is_named(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message) as error:
        load_world(_changed(tmp_path, old, new))
    assert "world.toml" in str(error.value)


def test_a_world_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "Küche"'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.toml: not a TOML file in UTF-8: .*codec"):
        load_world(path)


def test_a_table_without_entries_is_refused_unless_nothing_needs_them(tmp_path):
    before, symbols = DEFAULT_WORLD.read_text(encoding="utf-8").split("[symbols]")
    path = tmp_path / "world.toml"
    path.write_text(before.replace("symbol_cubes = [0, 1]", "symbol_cubes = [0, 0]") + "[symbols]")
    assert load_world(path).symbols == {}
    start = before.index("[places]") + len("[places]")
    path.write_text(before[:start] + "\n[symbols]" + symbols)
    with pytest.raises(ValueError, match=r"\[places\] is empty; a world needs at least one"):
        load_world(path)


@pytest.mark.parametrize("value", ['"x"', "3", "-1.5", "nan", "true", "[]", "[[]]", "[1]", "{}"])
def test_whatever_a_key_holds_the_answer_is_a_world_or_an_error_that_names_it(tmp_path, value):
    """Every `key = value` of the built-in file is given this value in turn."""
    lines = DEFAULT_WORLD.read_text(encoding="utf-8").splitlines()
    path, refused = tmp_path / "world.toml", 0
    for number, line in enumerate(lines):
        key, equals, found = line.partition(" = ")
        whole = found.count("[") == found.count("]") and not line.startswith("#")
        if not equals or not whole or number % 3:
            continue
        path.write_text("\n".join([*lines[:number], f"{key} = {value}", *lines[number + 1 :]]))
        try:
            load_world(path)
        except ValueError as error:
            refused += 1
            assert key.strip('"') in str(error) or "several objects" in str(error), str(error)
    assert refused > 20


def test_a_missing_world_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.toml"):
        load_world(tmp_path / "nowhere.toml")


def test_an_unknown_skill_lists_the_known_ones():
    with pytest.raises(ValueError, match="'juggle', expected one of push, reach"):
        load_world().skill("juggle")


def test_places_are_named_as_the_front_camera_sees_them():
    world = load_world()
    near_robot_left = (world.scene.region_x[0], world.scene.region_y[0])
    assert world.place_of(*near_robot_left) == "top left"
    assert world.place_of(0.03, 0.0) == "centre"
    for x in np.linspace(-0.3, 0.3, 31):
        for y in np.linspace(-0.3, 0.3, 31):
            assert world.place_of(x, y) in world.places


def test_a_point_that_no_place_covers_is_named():
    world = load_world()
    partial = dataclasses.replace(world, places={"top left": world.places["top left"]})
    with pytest.raises(ValueError, match=r"no place covers \(0.030, 0.000\) m"):
        partial.place_of(0.03, 0.0)


def test_every_table_pattern_and_symbol_can_be_drawn():
    world = load_world()
    pictures = {
        name: table_texture(table, np.random.default_rng(0)) for name, table in world.tables.items()
    }
    assert len(set(pictures.values())) == len(world.tables)
    faces = {name: symbol_texture(dots) for name, dots in world.symbols.items()}
    assert len(set(faces.values())) == len(world.symbols)


def test_every_word_of_an_instruction_is_one_piece_of_the_projects_vocabulary():
    world, tokenizer = load_world(), load_vocabulary()
    templates = [t for skill in world.skills.values() for t in skill.templates]
    words = {word for t in templates for word in t.split() if not word.startswith("{")}
    for word in sorted(words | set(world.colours) | set(world.shapes) | set(world.symbols)):
        assert len(tokenizer.encode(f"the {word}")) == 2, word
