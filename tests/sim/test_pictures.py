"""Pictures as web data: boxes and texts are right, the bytes always the same."""

import collections
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mujoco
import numpy as np
import pytest
from PIL import Image

from rt2_jax.sim import pictures
from rt2_jax.sim.mjcf import build_model
from rt2_jax.sim.picture_texts import NUMBERS, Thing, describe, place_name, question_and_answer
from rt2_jax.sim.pictures import STYLES, PictureSettings, draw_pictures
from rt2_jax.sim.render import RenderSettings, make_renderer
from rt2_jax.sim.scene import sample_still
from rt2_jax.sim.world import DEFAULT_WORLD, load_world

ROOT = Path(__file__).parents[2]
SIZE = 64
SETTINGS = PictureSettings(scenes=60, validation_scenes=6, seed=7)
# Three parts of a training folder, quickly.
QUICK = PictureSettings(scenes=120, validation_scenes=1, styles=("front",), size=8)
DRAW_QUICKLY = [
    *(sys.executable, "-m", "rt2_jax.cli.main", "sim", "pictures", "--scenes", "120"),
    *("--validation-scenes", "1", "--styles", "front", "--size", "8", "--jobs", "2", "--out"),
]
WORLD = SETTINGS.world
NAME = r"(\w+ (?:cube|disc|triangle|star|cross|heart|arrow|diamond))"
PLACES = ("top left", "top", "top right", "left", "centre", "right")
PLACES += ("bottom left", "bottom", "bottom right")


def contents(root):
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of `SETTINGS`, by one process."""
    return draw_pictures(SETTINGS, tmp_path_factory.mktemp("drawn"), jobs=1)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return draw_pictures(QUICK, tmp_path_factory.mktemp("quick"), jobs=1)


@dataclasses.dataclass
class Picture:
    style: str
    scene: int
    file: str
    things: dict
    caption: str
    question: str
    answer: str


@pytest.fixture(scope="module")
def entries(drawn):
    """Every training picture, with name -> (y, x) of its things as fractions of the sides."""

    def read(name, key):
        return json.loads((drawn / "train" / name).read_text())[key]

    names = {each["id"]: each["name"] for each in read("instances.json", "categories")}
    found = {
        image["id"]: Picture(image["style"], image["scene"], image["file_name"], {}, "", "", "")
        for image in read("instances.json", "images")
    }
    for thing in read("instances.json", "annotations"):
        left, top, width, height = thing["bbox"]
        middle = (top + height / 2) / SIZE, (left + width / 2) / SIZE
        things = found[thing["image_id"]].things
        assert names[thing["category_id"]] not in things
        things[names[thing["category_id"]]] = middle
    for caption in read("captions.json", "annotations"):
        found[caption["image_id"]].caption = caption["caption"]
    for question in read("vqa_questions.json", "questions"):
        found[question["image_id"]].question = question["question"]
    for answer in read("vqa_annotations.json", "annotations"):
        found[answer["image_id"]].answer = answer["multiple_choice_answer"]
        assert answer["question_id"] == answer["image_id"]
    return list(found.values())


def ninth(middle):
    y, x = middle
    row, column = min(int(3 * y), 2), min(int(3 * x), 2)
    return PLACES[3 * row + column]


@pytest.mark.parametrize("seed", [3, 4, 12])
def test_a_box_is_where_the_thing_is_in_every_style(seed, monkeypatch):
    size = 128
    artist = pictures._Artist(PictureSettings(objects=(4, 6), size=size))
    artist._renderer = artist._flat  # a thing's shadow is no part of it
    whole = list(artist.draw(seed))
    scene = sample_still(WORLD, seed, (4, 6), False)
    checked = 0
    for index, removed in enumerate(scene.objects):
        others = scene.objects[:index] + scene.objects[index + 1 :]
        less = dataclasses.replace(scene, objects=others)
        monkeypatch.setattr(pictures, "sample_still", lambda *_, less=less: less)
        for (style, image, things), (_, without, _) in zip(whole, artist.draw(seed), strict=True):
            boxes = [thing.box for thing in things if thing.name == removed.name]
            if not boxes:
                assert style == "moved"  # only from another place can something be out of sight
                continue
            rows, columns = np.nonzero((image != without).any(axis=2))
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            left, top, width, height = boxes[0]
            np.testing.assert_allclose(found, (left, top, left + width, top + height), atol=1.5)
            checked += 1
    assert checked >= 4 * (len(scene.objects) - 1)


def test_the_front_picture_is_what_the_robot_sees_without_the_robot():
    artist = pictures._Artist(SETTINGS)
    style, image, things = next(artist.draw(11))
    assert style == "front" and things
    model = build_model(WORLD, sample_still(WORLD, 11, (1, 6), False))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = make_renderer(RenderSettings(height=SIZE, width=SIZE))
    renderer.load(model)
    differs = (renderer.render(data, "front") != image).any(axis=(1, 2))
    assert differs[: SIZE // 3].any() and not differs[SIZE // 2 :].any()


def test_a_mirrored_picture_is_the_front_one_with_left_and_right_swapped(drawn, entries):
    by_scene = collections.defaultdict(dict)
    for entry in entries:
        by_scene[entry.scene][entry.style] = entry
    for styles in by_scene.values():
        front, mirrored = styles["front"], styles["mirrored"]
        assert front.things.keys() == mirrored.things.keys()
        for name, (y, x) in front.things.items():
            np.testing.assert_allclose(mirrored.things[name], (y, 1 - x), atol=1e-3)
    first, second = (
        np.asarray(Image.open(drawn / "train/images" / styles[style].file), np.int16)
        for style in ("front", "mirrored")
    )
    assert np.abs(first - second[:, ::-1]).mean() < 3  # JPEG


def test_every_scene_is_drawn_in_every_style_and_scenes_of_one_thing_exist(drawn, entries):
    assert [(e.scene, e.style) for e in entries] == [(7 + i, s) for i in range(60) for s in STYLES]
    counts = collections.Counter(len(e.things) for e in entries if e.style == "front")
    assert set(counts) == set(range(1, 7))
    for entry in entries:
        with Image.open(drawn / "train/images" / entry.file) as image:
            assert image.size == (SIZE, SIZE)


def test_captions_say_where_up_to_three_things_are(entries):
    for entry in entries:
        found = re.findall(rf"an? {NAME} (?:in|at) the (.+?)(?=, an? | and an? |$)", entry.caption)
        assert len(found) == min(3, len(entry.things))
        for name, place in found:
            assert ninth(entry.things[name]) == place


def true_answer(entry):
    """What the question's answer is, from the boxes alone."""
    things, question = entry.things, entry.question
    where = {name: ninth(middle) for name, middle in things.items()}
    if question == "how many objects are there?":
        return NUMBERS[len(things)]
    if match := re.fullmatch(rf"is there an? {NAME}\?", question):
        return "yes" if match[1] in things else "no"
    if match := re.fullmatch(r"what colour is the (\w+)\?", question):
        (colour,) = [name.split()[0] for name in things if name.split()[1] == match[1]]
        return colour
    if match := re.fullmatch(rf"where is the {NAME}\?", question):
        return where[match[1]]
    if match := re.fullmatch(r"what is (?:in|at) the (.+)\?", question):
        (name,) = [name for name, place in where.items() if place == match[1]]
        return name
    if match := re.fullmatch(r"how many objects are (?:in|at) the (.+)\?", question):
        return NUMBERS[list(where.values()).count(match[1])]
    if match := re.fullmatch(rf"is the {NAME} left or right of the {NAME}\?", question):
        return "left" if things[match[1]][1] < things[match[2]][1] else "right"
    match = re.fullmatch(rf"is the {NAME} above or below the {NAME}\?", question)
    return "above" if things[match[1]][0] < things[match[2]][0] else "below"


def test_every_answer_is_right_and_the_only_one(entries):
    for entry in entries:
        assert entry.answer == true_answer(entry), entry
    kinds = {" ".join(entry.question.split()[:2]) for entry in entries}
    assert kinds >= {"how many", "is there", "what colour", "where is", "what is", "is the"}


def test_no_text_holds_a_digit_which_would_be_an_action_token(entries):
    for entry in entries:
        assert not re.search(r"\d", entry.caption + entry.question + entry.answer)


def some_things(count, random):
    names = [(c, s) for c in WORLD.colours for s in WORLD.shapes]
    return [
        Thing(f"{names[i][0]} {names[i][1]}", names[i][1], names[i][0], (*place, 6.0, 6.0))
        for i, place in zip(
            random.permutation(len(names))[:count], random.uniform(0, 58, (count, 2)), strict=True
        )
    ]


def test_is_there_is_answered_yes_as_often_as_no():
    random, answers = np.random.default_rng(0), collections.Counter()
    for _ in range(4000):
        things = some_things(int(random.integers(1, 7)), random)
        question, answer = question_and_answer(things, SIZE, WORLD, random)
        if question.startswith("is there"):
            answers[answer] += 1
    assert sum(answers.values()) > 400
    assert abs(answers["yes"] / sum(answers.values()) - 0.5) < 0.07


def test_a_picture_without_things_has_texts_too():
    random = np.random.default_rng(0)
    assert describe([], SIZE, random) == "an empty table"
    asked = {question_and_answer([], SIZE, WORLD, random)[1] for _ in range(50)}
    assert asked == {"no"}


def test_things_that_are_side_by_side_are_not_asked_to_be_told_apart():
    random = np.random.default_rng(0)
    pair = [
        dataclasses.replace(thing, box=(30.0 + i, 30.0, 6.0, 6.0))
        for i, thing in enumerate(some_things(2, random))
    ]
    for _ in range(200):
        question, _ = question_and_answer(pair, SIZE, WORLD, random)
        assert " of the " not in question and "below" not in question


def test_places_are_the_ninths_of_a_picture():
    def at(left, top):
        return place_name(Thing("red cube", "cube", "red", (left, top, 6.0, 6.0)), SIZE)

    assert [at(left, top) for top in (0, 29, 58) for left in (0, 29, 58)] == list(PLACES)


def test_symbols_are_named_with_the_article_that_is_said(tmp_path):
    settings = PictureSettings(scenes=12, validation_scenes=0, symbols=True, styles=("front",))
    folder = draw_pictures(settings, tmp_path, jobs=1)
    captions = json.loads((folder / "train/captions.json").read_text())["annotations"]
    cubes = re.findall(r"(an?) ([A-Z0-9]) cube", " ".join(c["caption"] for c in captions))
    assert cubes
    for article, symbol in cubes:
        assert article == ("an" if symbol in "AEFHILMNORSX8" else "a")


def test_validation_scenes_are_none_of_the_training_scenes(drawn, entries):
    images = json.loads((drawn / "validation/instances.json").read_text())["images"]
    seeds = {image["scene"] for image in images}
    assert len(seeds) == 6 and not seeds & {entry.scene for entry in entries}
    assert min(seeds) >= pictures.VALIDATION_SEED


def test_the_bytes_do_not_depend_on_the_number_of_processes(quick, tmp_path):
    two = draw_pictures(QUICK, tmp_path, jobs=2)
    assert contents(two) == contents(quick)


def test_more_scenes_begin_with_the_same_pictures(quick, tmp_path):
    fewer = draw_pictures(dataclasses.replace(QUICK, scenes=3), tmp_path, jobs=1)
    images = contents(fewer / "train/images")
    assert len(images) == 3
    assert images.items() <= contents(quick / "train/images").items()


def start_drawing(out):
    """A process that draws into `out` and has finished a part of the training folder."""
    process = subprocess.Popen(
        [*DRAW_QUICKLY, str(out)],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not list(out.glob("rt2_pictures/train/shards/*.json")):
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < end, "no part was drawn"
        time.sleep(0.002)
    return process


def test_a_killed_drawing_is_continued_to_the_same_bytes(quick, tmp_path):
    process = start_drawing(tmp_path)
    with pytest.raises(OSError, match="another process is drawing into .*wait until it has"):
        draw_pictures(QUICK, tmp_path, report=pytest.fail)
    process.kill()
    process.communicate()
    told = []
    again = draw_pictures(QUICK, tmp_path, jobs=1, report=told.append)
    assert 50 <= told[0] < 121 and told[-1] == 121
    assert contents(again) == contents(quick)


def test_ctrl_c_says_how_to_continue(quick, tmp_path):
    process = start_drawing(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("rt2 sim: interrupted: the finished files are kept")
    assert "Traceback" not in errors
    assert contents(draw_pictures(QUICK, tmp_path, jobs=1)) == contents(quick)


def test_a_finished_folder_is_left_as_it_is(quick, tmp_path):
    before = {file: file.stat().st_mtime_ns for file in quick.rglob("*")}
    told = []
    draw_pictures(QUICK, quick.parent, report=told.append)
    assert told == [121]
    assert {file: file.stat().st_mtime_ns for file in quick.rglob("*")} == before


def test_other_settings_are_refused_by_name_and_nothing_is_changed(quick):
    before = contents(quick)
    with pytest.raises(ValueError, match="pictures of other settings .*seed"):
        draw_pictures(dataclasses.replace(QUICK, seed=1), quick.parent, jobs=1)
    assert contents(quick) == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "rt2_pictures").mkdir()
    (tmp_path / "rt2_pictures/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else, and no info.json"):
        draw_pictures(QUICK, tmp_path, jobs=1)
    assert contents(tmp_path) == {"rt2_pictures/notes.txt": b"mine"}


def test_a_folder_says_how_it_was_drawn(drawn):
    info = json.loads((drawn / "info.json").read_text())
    assert info["world_hash"] == WORLD.hash
    assert (info["seed"], info["styles"], info["objects"]) == (7, list(STYLES), [1, 6])
    assert info["generator_version"] == pictures.GENERATOR_VERSION
    assert RenderSettings.from_json(info["render"]) == RenderSettings(height=SIZE, width=SIZE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"styles": ("front", "cubist")}, "styles: found .*cubist.*expected some of .*mirrored"),
        ({"styles": ()}, "styles: found \\[\\]"),
        ({"styles": ("top", "top")}, "each once"),
        ({"symbols": True}, "symbols cannot be mirrored"),
        ({"scenes": 0}, "scenes: found 0, .*expected 1 or more"),
        ({"seed": -1}, "seed -1; expected"),
        ({"seed": 999_999_990}, "seed: found 999999990 and 60 scenes"),
        ({"objects": (0, 3)}, "objects: found 0 to 3"),
        ({"objects": (3, 2)}, "objects: found 3 to 2"),
        ({"objects": (1, 11)}, "at most 10: texts have words for no more"),
        ({"size": 0}, "height: found 0"),
    ],
)
def test_bad_settings_are_refused_with_what_was_expected(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **changes)


def test_a_table_with_too_little_room_is_refused_before_anything_is_drawn(tmp_path):
    path = tmp_path / "small.toml"
    text = DEFAULT_WORLD.read_text().replace("[-0.10, 0.16]", "[-0.10, 0.02]")
    path.write_text(text.replace("[-0.14, 0.14]", "[-0.07, 0.07]"))
    world = load_world(path)
    assert PictureSettings(world=world, objects=(1, 2)).objects == (1, 2)
    with pytest.raises(ValueError, match=r"no arrangement of \d objects found; draw fewer"):
        PictureSettings(world=world, objects=(1, 9))


def test_a_world_whose_things_are_all_there_is_never_asked_for_others():
    one = dataclasses.replace(
        WORLD, colours={"red": WORLD.colours["red"]}, shapes={"cube": WORLD.shapes["cube"]}
    )
    things = [Thing("red cube", "cube", "red", (10.0, 10.0, 6.0, 6.0))]
    random = np.random.default_rng(0)
    asked = dict(question_and_answer(things, SIZE, one, random) for _ in range(100))
    assert asked["is there a red cube?"] == "yes"


def test_fewer_than_one_process_is_refused(tmp_path):
    with pytest.raises(ValueError, match="jobs: found 0"):
        draw_pictures(QUICK, tmp_path, jobs=0)
    assert not contents(tmp_path)
