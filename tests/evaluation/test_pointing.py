"""The pointing game judges places as a person with a ruler would."""

import json

import numpy as np
import pytest
from PIL import Image

from rt2_jax.evaluation.pointing import evaluate_pointing, read_questions, score
from rt2_jax.evaluation.tables import pointing_table
from rt2_jax.inference.engine import PolicyEngine

NAMES = ("red cube", "blue star", "green moon")


def write_folder(folder, pictures, size=(100, 200)):
    """Pictures of size (height, width), each a list of (name, [x, y, w, h])."""
    (folder / "images").mkdir(parents=True)
    data = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
    }
    for number, objects in enumerate(pictures):
        name = f"{number}.png"
        Image.new("RGB", size[::-1], (number, 0, 0)).save(folder / "images" / name)
        data["images"].append(
            {"id": number, "file_name": name, "height": size[0], "width": size[1]}
        )
        data["annotations"] += [
            {"image_id": number, "category_id": NAMES.index(name), "bbox": box}
            for name, box in objects
        ]
    (folder / "instances.json").write_text(json.dumps(data))
    return folder


def place(y, x):
    return f"<loc{int(y * 1024):04d}><loc{int(x * 1024):04d}>"


def test_questions_are_the_objects_whose_name_occurs_once(tmp_path):
    folder = write_folder(
        tmp_path / "p",
        [
            [("red cube", [20, 10, 40, 30]), ("blue star", [0, 0, 2, 2])],
            [],
            [("red cube", [0, 0, 9, 9]), ("red cube", [9, 9, 9, 9]), ("green moon", [5, 5, 5, 5])],
        ],
    )
    questions = read_questions(folder)
    assert [(each.picture.name, each.name) for each in questions] == [
        ("0.png", "red cube"),
        ("0.png", "blue star"),
        ("2.png", "green moon"),
    ]
    np.testing.assert_allclose(questions[0].boxes[0], [0.1, 0.1, 0.4, 0.3])
    assert [len(each.boxes) for each in questions] == [2, 2, 3]
    assert [each.picture.name for each in read_questions(folder, 1)] == ["0.png", "0.png"]


def test_hits_misses_and_chance_are_those_of_a_count_by_hand(tmp_path):
    # One object in the left half, one small one in the right half.
    objects = [("red cube", [20, 20, 60, 60]), ("blue star", [150, 40, 4, 4])]
    questions = read_questions(write_folder(tmp_path / "p", [objects] * 4))
    answers = [
        f"red cube {place(0.5, 0.25)}",  # inside
        f"blue star {place(0.44, 0.78)}",  # beside the small box, inside the grown one
        f"red cube {place(0.42, 0.74)}",  # on the other object
        "blue star",  # no place
        f"red cube {place(0.99, 0.10)}",  # nowhere, but nearer to the red cube
        f"blue star {place(0.02, 0.98)}",
        place(0.21, 0.11),  # only a place, inside near the corner
        f"blue star {place(0.42, 0.76)} {place(0, 0)}",  # the first place counts
    ]
    report = score(questions, answers, 16)
    whole, two = report.rows
    assert (whole.objects, two.objects) == (None, 2) and whole.rates == two.rates
    assert {name: rate.successes for name, rate in whole.rates.items()} == {
        "strict": 3,
        "grown": 4,
        "nearest": 6,
    }
    assert whole.rates["strict"].trials == 8 and report.unreadable == 1
    assert whole.chance == {"strict": 0.5, "grown": 0.5, "nearest": 0.5}
    text = pointing_table(report)
    assert "3/8" not in text and "37.5%  8.5% to 75.5%   50.0%" in text
    assert "answers without a place: 1" in text
    assert report.to_json()["rows"][1]["objects"] == 2


@pytest.fixture(scope="module")
def engine(untrained):
    return PolicyEngine.from_checkpoint(untrained, (4,))


def test_an_untrained_model_points_at_nothing(engine, tmp_path):
    folder = write_folder(tmp_path / "p", [[("red cube", [20, 10, 40, 30])]] * 6)
    told = []
    report = evaluate_pointing(engine, folder, limit=5, report=lambda *x: told.append(x))
    assert report.rows[0].rates["strict"].successes == 0
    assert told == [("pointing", 4, 5), ("pointing", 5, 5)]


def test_folders_that_cannot_be_played_are_refused(engine, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*instances.json; expected a folder with"):
        evaluate_pointing(engine, tmp_path)
    with pytest.raises(ValueError, match="place levels: found 0, expected 1 to 1024"):
        evaluate_pointing(engine, tmp_path, levels=0)
    folder = write_folder(tmp_path / "p", [[("red cube", [0, 0, 9, 9])]])
    with pytest.raises(ValueError, match="limit: found 0, expected 1 or more pictures"):
        evaluate_pointing(engine, folder, limit=0)
    (folder / "images" / "0.png").unlink()
    with pytest.raises(FileNotFoundError, match="names the picture '0.png': no "):
        evaluate_pointing(engine, folder)
    file = folder / "instances.json"
    file.write_text(file.read_text().replace('"bbox"', '"box"'))
    with pytest.raises(ValueError, match="not in COCO's format .*bbox"):
        evaluate_pointing(engine, folder)
    file.write_text("{")
    with pytest.raises(ValueError, match="damaged, not JSON"):
        evaluate_pointing(engine, folder)
    twice = write_folder(tmp_path / "t", [[("red cube", [0, 0, 9, 9])] * 2])
    with pytest.raises(ValueError, match="no picture has an object whose name occurs once"):
        evaluate_pointing(engine, twice)
