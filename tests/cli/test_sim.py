"""`rt2 sim`: what it prints, writes and refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rt2_jax.cli.main import main
from rt2_jax.data.recording import read_recording
from rt2_jax.sim.mjcf import CAMERAS
from rt2_jax.sim.policies import POLICIES
from rt2_jax.sim.simulation import STATE_FIELDS, TABLETOP_ACTIONS
from rt2_jax.sim.world import DEFAULT_WORLD, load_world

ROOT = Path(__file__).parents[2]


def rt2_sim(*words):
    return main(["sim", *map(str, words)])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording of two failures: the policy does nothing."""
    out = tmp_path_factory.mktemp("recorded")
    words = ("--policy", "do_nothing", "--episodes", 2, "--size", 8, "--width", 10, "--jobs", 1)
    command = ("record", *words, "--image_format", "jpeg", "--cameras", "front,top", "--out", out)
    return command, rt2_sim(*command), out / "rt2_tabletop" / "2.0.0"


def test_list_names_everything_that_can_be_asked_for(capsys):
    assert rt2_sim("list") == 0
    printed, world = capsys.readouterr().out, load_world()
    for names in (
        *(world.skills, world.shapes, world.colours, world.symbols, world.tables, world.places),
        *(CAMERAS, POLICIES, STATE_FIELDS),
    ):
        for name in names:
            assert name in printed
    assert "renderer ray: works here" in printed
    assert TABLETOP_ACTIONS.describe() in printed
    assert world.hash[:12] in printed


def without_egl(*words):
    """Runs `rt2 sim` in a process in which only another GL library can be used."""
    return subprocess.run(
        [sys.executable, "-m", "rt2_jax.cli.main", "sim", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYOPENGL_PLATFORM": "glx"},
        capture_output=True,
        text=True,
    )


def test_list_says_why_a_renderer_does_not_work_here():
    listed = without_egl("list")
    assert listed.returncode == 0
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("renderer egl: ")]
    assert "has already chosen 'glx'" in line


def test_record_refuses_a_renderer_that_does_not_work_here(tmp_path):
    refused = without_egl("record", "--out", tmp_path / "out", "--renderer", "egl")
    assert refused.returncode == 2
    assert refused.stderr.startswith("rt2 sim: error: renderer 'egl': this process has already")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_world_of_ones_own_is_listed(capsys, tmp_path):
    path = tmp_path / "world.toml"
    path.write_text(DEFAULT_WORLD.read_text().replace('"tabletop"', '"kitchen"', 1))
    assert rt2_sim("list", "--world", path) == 0
    assert "world kitchen (" in capsys.readouterr().out


def test_rollout_prints_a_line_for_each_episode_and_the_count(capsys, tmp_path):
    lines = tmp_path / "lines.jsonl"
    words = ("--skill", "reach", "--episodes", 3, "--seed", 4, "--size", 8, "--jsonl", lines)
    assert rt2_sim("rollout", *words) == 0
    *episodes, count = capsys.readouterr().out.splitlines()
    assert count.startswith("expert, reach: 3/3 successes, ")
    results = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [result["seed"] for result in results] == [4, 5, 6]
    mean = sum(result["steps"] for result in results) / 3
    assert count.endswith(f" {mean:.1f} steps on average")
    for printed, result in zip(episodes, results, strict=True):
        assert result["success"] and result["reason"] == ""
        assert printed == (
            f"seed {result['seed']}: {result['instruction']!r}, {result['steps']} steps, "
            f"{result['distance']:.3f} m, success"
        )


def test_rollout_says_why_an_episode_failed(capsys):
    assert rt2_sim("rollout", "--policy", "do_nothing", "--episodes", 1, "--size", 8) == 0
    episode, count = capsys.readouterr().out.splitlines()
    assert "40 steps" in episode and "failure: the tip is " in episode
    assert count == "do_nothing, reach: 0/1 successes, 40.0 steps on average"


def test_rollout_disturbs_what_is_executed(capsys):
    def printed(*flags):
        assert rt2_sim("rollout", "--episodes", 1, "--seed", 3, "--size", 8, *flags) == 0
        return capsys.readouterr().out

    assert printed("--noise", 0) == printed()
    disturbed = printed("--noise", 0.02)
    assert disturbed != printed()
    assert disturbed == printed("--noise", 0.02)


def test_rollout_swaps_the_instruction(capsys):
    def instruction(*flags):
        assert rt2_sim("rollout", "--episodes", 1, "--seed", 3, "--size", 8, *flags) == 0
        return capsys.readouterr().out.split("'")[1]

    assert instruction() != instruction("--swap-instruction")


def test_rollout_films_every_step(tmp_path):
    lines, film = tmp_path / "lines", tmp_path / "new" / "out.gif"
    command = ("rollout", "--episodes", 1, "--size", 8, "--video", film, "--jsonl", lines)
    assert rt2_sim(*command) == 0
    with Image.open(film) as pictures:
        assert pictures.n_frames > json.loads(lines.read_text())["steps"]
        assert pictures.width == 320


def test_record_writes_what_was_asked_for_and_warns_of_failures(recorded, capsys):
    command, status, directory = recorded
    assert status == 0
    info = read_recording(directory).info
    assert (info.height, info.width, info.image_format) == (8, 10, "jpeg")
    assert info.cameras == ("front", "top")
    assert info.origin["policy"] == "do_nothing"
    assert rt2_sim(*command) == 0  # a second time: nothing to do
    printed = capsys.readouterr()
    assert printed.out == f"{directory}: complete, 0/2 episodes succeeded\n"
    assert printed.err.startswith("2/2 episodes recorded, 0 s\n")
    assert "warning: 100% of the episodes are failures" in printed.err


def test_record_shows_a_bar_on_a_terminal(recorded, capsys, monkeypatch):
    command, _, _ = recorded
    monkeypatch.setenv("FORCE_COLOR", "1")  # as rich is told that there is a terminal
    assert rt2_sim(*command) == 0
    assert re.search(r"episodes.*\u2501.*100%.*2/2", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--skills", "reach,lift"), "skill: found 'lift', expected one of push, reach"),
        (("--policy", "hero"), "policy: found 'hero', expected one of expert"),
        (("--cameras", "side"), "cameras: found ['side'], expected some of front, top, wrist"),
        (("--renderer", "vulkan"), "renderer: found 'vulkan', expected one of ray, osmesa, egl"),
        (("--episodes", 0), "episodes: found 0, expected 1 or more"),
        (("--seed", -1), "seed: found -1, expected 0 or more"),
        (("--size", 0), "height: found 0 pixels, expected 1 to 2048"),
        (("--noise", 1), "noise: found 1.0 m, expected 0 to 0.05 m"),
        (("--image-format", "gif"), "image format: found 'gif', expected one of png, jpeg"),
        (("--world", "nowhere.toml"), "world: no file nowhere.toml"),
        (("--shard-episodes", 0), "shard_episodes: found 0, expected 1 or more"),
        (("--jobs", 0), "jobs: found 0, expected 1 or more"),
    ],
)
def test_record_refuses_bad_input_in_one_line(capsys, tmp_path, words, message):
    assert rt2_sim("record", "--out", tmp_path / "out", *words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rt2 sim: error: {message}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_record_refuses_a_file_in_place_of_the_folder(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert rt2_sim("record", "--out", tmp_path / "file") == 2
    error = f"rt2 sim: error: cannot record into {tmp_path / 'file'}: Not a directory\n"
    assert capsys.readouterr().err == error


def test_record_refuses_to_mix_recordings(recorded, capsys):
    command, _, _ = recorded
    assert rt2_sim(*command, "--seed", 9) == 2
    assert "origin.seed: 0, not 9. Nothing was changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--episodes", 0), "episodes: found 0, expected 1 or more"),
        (("--skill", "lift"), "skill: found 'lift', expected one of push, reach"),
        (("--policy", "hero"), "policy: found 'hero', expected one of expert"),
        (("--seed", -2), "seed: found -2, expected 0 or more"),
        (("--video", "out.mp4"), "film: found 'out.mp4', expected a name that ends in .gif"),
        (("--noise", "nan"), "noise: found nan m, expected 0 to 0.05 m"),
        (("--video", "/dev/null/out.gif"), "[Errno "),
        (("--jsonl", "/dev/null/lines"), "[Errno 20] Not a directory: '/dev/null/lines'"),
    ],
)
def test_rollout_refuses_bad_input_in_one_line(capsys, words, message):
    assert rt2_sim("rollout", *words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rt2 sim: error: {message}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_pictures_are_drawn_and_counted(capsys, tmp_path):
    words = ("--scenes", 3, "--validation_scenes", 2, "--styles", "front,top", "--size", 8)
    command = ("pictures", "--out", tmp_path, *words, "--objects", 1, 2, "--jobs", 1)
    assert rt2_sim(*command) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}/rt2_pictures: complete, 5 scenes in 2 styles\n"
    assert [line.rpartition(",")[0] for line in printed.err.splitlines()] == [
        "0/5 scenes drawn",
        "3/5 scenes drawn",
        "5/5 scenes drawn",
    ]
    assert len(list(tmp_path.glob("rt2_pictures/train/images/*.jpg"))) == 6
    assert len(list(tmp_path.glob("rt2_pictures/validation/images/*.jpg"))) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--styles", "front,cubist"), "styles: found ['front', 'cubist'], expected some of"),
        (("--symbols",), "styles: symbols cannot be mirrored; leave out the one or the other"),
        (("--scenes", 0), "scenes: found 0, 500 for validation and seed 0; expected 1 or more"),
        (("--objects", 1, 20), "objects: found 1 to 20, expected at most 10"),
        (("--size", 0), "height: found 0 pixels, expected 1 to 2048"),
        (("--world", "nowhere.toml"), "world: no file nowhere.toml"),
        (("--jobs", 0), "jobs: found 0, expected 1 or more"),
    ],
)
def test_pictures_refuses_bad_input_in_one_line(capsys, tmp_path, words, message):
    assert rt2_sim("pictures", "--out", tmp_path / "out", *words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rt2 sim: error: {message}")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
