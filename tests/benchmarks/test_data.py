"""`rt2 bench data`: its sides do the same work, and what it prints is what it measured."""

import json
import subprocess
import sys

import numpy as np
import pytest

from rt2_jax.benchmarks import data
from rt2_jax.benchmarks.data_sides import CROP, bare_picture, tf_picture
from rt2_jax.benchmarks.rounds import Turn, ratios, spread
from rt2_jax.benchmarks.synthetic_robot import HEIGHT, WIDTH, draw_picture
from rt2_jax.cli import main as command
from rt2_jax.data.image import Crop, decode_image, resize


def test_all_sides_make_the_same_picture():
    encoded = draw_picture(np.random.default_rng(0))
    top, left = 12, 20  # pixels
    crop = Crop(top / HEIGHT, left / WIDTH, CROP)
    ours = resize(decode_image(encoded), (224, 224), crop)
    np.testing.assert_array_equal(bare_picture(encoded, 224, crop.top, crop.left), ours)
    theirs = tf_picture(encoded, 224, top, left).numpy()
    # Other libraries of JPEG and of resizing, and a crop of whole pixels.
    assert abs(theirs.astype(float) - ours).mean() < 1.5
    # Another crop would be seen.
    other = resize(decode_image(encoded), (224, 224), Crop(0.0, 0.0, CROP))
    assert abs(other.astype(float) - ours).mean() > 4


def test_the_pictures_are_as_large_as_photos_of_their_size():
    draw = np.random.default_rng(0)
    sizes = [len(draw_picture(draw)) for _ in range(20)]
    assert 20_000 < np.mean(sizes) < 40_000
    assert decode_image(draw_picture(draw)).shape == (256, 320, 3)


def test_the_figure_is_the_median_of_the_rounds_ratios():
    turns = {"a": [Turn(90, 1), Turn(50, 1), Turn(80, 1)], "b": [Turn(100, 1)] * 3}
    turns["b"] = [Turn(100, 2), Turn(50, 2), Turn(200, 2)]
    assert ratios(turns, "a", "b") == [0.9, 1.0, 0.4]
    assert spread(ratios(turns, "a", "b")) == {"median": 0.9, "least": 0.4, "greatest": 1.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rounds", "0"), "rounds: found 0, expected 1 or more"),
        (("--records", "-3"), "records: found -3, expected 1 or more"),
        (("--json", "no/such/folder/f.json"), "expected a file's name in a folder that exists"),
    ],
)
def test_bad_numbers_and_names_are_refused_before_the_work(words, message, capsys):
    assert command.main(["bench", "data", *words]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


@pytest.mark.slow
def test_all_sides_run_and_what_is_printed_is_what_is_written(tmp_path):
    small = ("--rounds", "2", "--records", "64", "--size", "32", "--batches", "1")
    run = subprocess.run(
        [sys.executable, "-m", "rt2_jax.cli.main", "bench", "data", *small]
        + ["--json", str(tmp_path / "found.json")],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert run.stdout == data.table(found) + "\n"
    names = [data.PIPELINE, data.WORKER, data.BARE, data.TF_DATA, data.CACHING]
    assert list(found["sides"]) == names
    for side in found["sides"].values():
        for figures in side.values():
            assert 0 < figures["least"] <= figures["median"] <= figures["greatest"]
    assert [(row["side"], row["to"], row["aim"]) for row in found["ratios"]] == list(data.AIMS)
    assert found["settings"] == {"rounds": 2, "records": 64, "size": 32, "batches": 1}
