"""A closed-loop evaluation counts honestly, can be interrupted, and mixes nothing."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rt2_jax.evaluation.closed_loop import evaluate, read_evaluation
from rt2_jax.evaluation.films import choose, film
from rt2_jax.evaluation.policy_sources import LocalPolicy, NamedPolicy
from rt2_jax.evaluation.suite import Suite
from rt2_jax.sim.policies import DoNothing
from rt2_jax.sim.record import RecordSettings
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.simulation import SIMULATION_VERSION

ROOT = Path(__file__).parents[2]
BLIND = RenderSettings(height=2, width=2)
SUITE = Suite(episodes=4, render=BLIND)
EXPERT = NamedPolicy("expert")


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    """The expert's evaluation and its file."""
    out = tmp_path_factory.mktemp("expert") / "new" / "expert.jsonl"
    return evaluate(SUITE, EXPERT, out=out, parallel=2), out


def same(results):
    return [(result.outcome, result.actions) for result in results]


def test_the_expert_succeeds_and_random_motion_does_not(expert):
    evaluation, _ = expert
    chance = evaluate(SUITE, NamedPolicy("random"), parallel=2)
    for skill in SUITE.skills:
        assert (evaluation.rate(skill).successes, chance.rate(skill).successes) == (4, 0)
        compared = evaluation.compare(chance)[skill]
        assert (compared.first_only, compared.p_value) == (4, 0.125)


def test_a_line_stands_for_itself(expert):
    evaluation, out = expert
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(line["skill"], line["seed"]) for line in lines} == set(SUITE.scenes)
    for line in lines:
        assert line["policy"] == "expert" and line["instruction_mode"] == "original"
        assert line["world_hash"] == SUITE.world.hash and line["render_hash"] == BLIND.hash
        assert line["simulation_version"] == SIMULATION_VERSION
        assert line["latency_ms_p50"] == pytest.approx(np.median(line["latency_ms"]), abs=1e-3)
        assert line["latency_ms_p95"] >= line["latency_ms_p50"] > 0
    read = read_evaluation(out, SUITE.scenes)
    assert read == evaluation


def test_the_table_shows_counts_and_intervals(expert):
    header, reach, push = expert[0].table().splitlines()
    assert header.split()[:4] == ["policy", "told", "skill", "success"]
    assert reach.startswith("expert  its own object  reach  4/4 = 100%  39.8% to 100.0%  ")
    assert " push " in push and reach.endswith(" ms")
    assert expert[0].to_json()["skills"]["push"]["interval"] == [pytest.approx(0.3976, abs=1e-4), 1]


def test_an_interrupted_evaluation_goes_on_where_it_stopped(expert, tmp_path):
    evaluation, out = expert
    lines = out.read_bytes().splitlines(keepends=True)
    part = tmp_path / "part.jsonl"
    part.write_bytes(b"".join(lines[:3]) + lines[3][:100])  # the fourth was cut short
    told = []
    again = evaluate(
        SUITE, EXPERT, out=part, parallel=2, report=lambda *numbers: told.append(numbers)
    )
    assert same(again.results) == same(evaluation.results)
    assert told[0] == (3, 3) and told[-1] == (8, 8) and len(told) == 6
    assert part.read_bytes().splitlines(keepends=True)[:3] == lines[:3]
    assert len(part.read_text().splitlines()) == 8


def test_a_finished_evaluation_is_read_and_not_played(expert):
    evaluation, out = expert
    before = out.read_bytes()
    told = []
    again = evaluate(SUITE, EXPERT, out=out, report=lambda *numbers: told.append(numbers))
    assert again == evaluation and told == [(8, 8)]
    assert out.read_bytes() == before


def test_an_interruption_keeps_what_was_played(tmp_path):
    out = tmp_path / "out.jsonl"

    def interrupt(done, successes):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(SUITE, EXPERT, out=out, parallel=1, report=interrupt)
    assert len(out.read_text().splitlines()) == 2


PROGRAM = """
import sys
from rt2_jax.evaluation import NamedPolicy, Suite, evaluate
from rt2_jax.sim.render import RenderSettings
if __name__ == "__main__":
    suite = Suite(episodes=500, render=RenderSettings(height=64, width=64))
    evaluate(suite, NamedPolicy("expert"), out=sys.argv[1], parallel=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_evaluation_leaves_no_process_and_a_file_to_go_on_from(tmp_path, end):
    program, out = tmp_path / "program.py", tmp_path / "out.jsonl"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, program, out],
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") >= 3)
    if end == signal.SIGINT:  # a terminal's Ctrl-C reaches all its processes
        os.killpg(process.pid, end)
    else:
        process.kill()
    _, printed = process.communicate(timeout=30)
    assert printed.count("Traceback") == (end == signal.SIGINT)  # the program's own
    wait_until(lambda: not group_lives(process.pid))
    before = out.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    played = whole.count(b"\n")
    episodes = played // 2 + 2
    suite = dataclasses.replace(
        SUITE, render=RenderSettings(height=64, width=64), episodes=episodes
    )
    evaluate(suite, EXPERT, out=out, parallel=2)
    assert out.read_bytes().startswith(whole)
    assert all(result.success for result in read_evaluation(out, suite.scenes).results)


def wait_until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_more_episodes_are_added_to_a_file(expert, tmp_path):
    evaluation, out = expert
    more = tmp_path / "more.jsonl"
    more.write_bytes(out.read_bytes())
    larger = dataclasses.replace(SUITE, episodes=5, skills=("reach",))
    grown = evaluate(larger, EXPERT, out=more, parallel=1)
    assert same(grown.results[:4]) == same(evaluation.of_skill("reach"))
    assert len(more.read_text().splitlines()) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": "swapped"}, "instruction_mode 'original', not 'swapped'"),
        ({"render": RenderSettings(height=3, width=2)}, "render_hash "),
    ],
)
def test_another_configuration_in_the_same_file_is_refused(expert, change, message):
    _, out = expert
    before = out.read_bytes()
    with pytest.raises(ValueError, match=f"line 1: results of another configuration: {message}"):
        evaluate(dataclasses.replace(SUITE, **change), EXPERT, out=out)
    with pytest.raises(ValueError, match="policy 'expert', not 'random'.*Nothing was changed"):
        evaluate(SUITE, NamedPolicy("random"), out=out)
    assert out.read_bytes() == before


def test_another_policy_of_the_same_name_is_refused(tmp_path):
    suite = Suite(skills=("reach",), episodes=1, render=BLIND)
    out = tmp_path / "out.jsonl"
    evaluate(suite, LocalPolicy(DoNothing(None), "mine", {"step": 1}), out=out)
    with pytest.raises(ValueError, match="another configuration: policy_hash"):
        evaluate(suite, LocalPolicy(DoNothing(None), "mine", {"step": 2}), out=out)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("{", "[", 1), "line 1: not a result of an episode"),
        (lambda text: text.replace('"success"', '"succes"', 1), "line 1: .*missing keys"),
        (lambda text: "notes\n" + text, "line 1: not a result of an episode"),
    ],
)
def test_a_damaged_file_is_refused_and_kept(expert, tmp_path, damage, message):
    path = tmp_path / "damaged.jsonl"
    path.write_text(damage(expert[1].read_text()))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        evaluate(SUITE, EXPERT, out=path)
    assert path.read_bytes() == before


def test_two_evaluations_do_not_write_one_file(tmp_path):
    out = tmp_path / "out.jsonl"

    def second(done, successes):
        with pytest.raises(OSError, match="another evaluation is writing it"):
            evaluate(SUITE, EXPERT, out=out)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(SUITE, EXPERT, out=out, parallel=1, report=second)


def test_scenes_that_were_recorded_are_refused(tmp_path):
    recording = RecordSettings(episodes=300, seed=100).info()
    for seed, overlap in ((399, "399 to 399"), (98, "100 to 101"), (200, "200 to 203")):
        with pytest.raises(ValueError, match=f"seeds {overlap} of this evaluation were recorded"):
            evaluate(
                dataclasses.replace(SUITE, seed=seed),
                EXPERT,
                recordings=[recording],
                out=tmp_path / "out",
            )
    assert not (tmp_path / "out").exists()
    for seed in (96, 400, SUITE.seed):
        dataclasses.replace(SUITE, seed=seed).refuse_recorded_scenes(recording)


def test_a_recording_that_hides_its_seeds_is_refused():
    recording = dataclasses.replace(RecordSettings().info(), origin={})
    with pytest.raises(ValueError, match="does not say its seeds"):
        SUITE.refuse_recorded_scenes(recording)


def test_policies_are_compared_on_the_same_scenes_only(expert):
    shifted = evaluate(dataclasses.replace(SUITE, seed=5), NamedPolicy("nothing"), parallel=2)
    with pytest.raises(ValueError, match="needs the same scenes"):
        expert[0].compare(shifted)
    other = dataclasses.replace(shifted, identity={**shifted.identity, "world_hash": "x"})
    with pytest.raises(ValueError, match="their scenes are not the same: world_hash"):
        expert[0].compare(other)


def test_a_results_file_must_hold_the_scenes_that_are_asked_for(expert, tmp_path):
    with pytest.raises(ValueError, match=r"lacks 2 of the 10 scenes \(reach-10000004, push-"):
        read_evaluation(expert[1], dataclasses.replace(SUITE, episodes=5).scenes)
    with pytest.raises(FileNotFoundError, match="no results file"):
        read_evaluation(tmp_path / "none.jsonl")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="no results in it"):
        read_evaluation(tmp_path / "empty")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skills": ("reach", "lift")}, "skill: found 'lift'"),
        ({"skills": ()}, r"skills: found \[\], expected some, each once"),
        ({"episodes": 0}, "episodes: found 0"),
        ({"seed": -1}, "seed: found -1"),
        ({"cameras": ("side",)}, r"cameras: found \['side'\], expected some of front, top, wrist"),
        ({"instruction": "loud"}, "instruction: found 'loud', expected one of original, swapped"),
    ],
)
def test_an_impossible_suite_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SUITE, **change)


def test_films_show_the_episodes_that_were_evaluated(expert, tmp_path):
    idle = evaluate(SUITE, NamedPolicy("nothing"), parallel=2)
    chosen = choose((*expert[0].results, *idle.results), successes=1, failures=1)
    assert [(result.skill, result.success) for result in chosen] == [
        *(("reach", True), ("push", True), ("reach", False), ("push", False))
    ]
    paths = film(SUITE, chosen[:3:2], tmp_path / "films", size=(32, 32))
    assert [path.name for path in paths] == [
        *("reach_10000000_success.gif", "reach_10000000_failure.gif")
    ]
    with Image.open(paths[0]) as picture:
        assert picture.n_frames >= chosen[0].steps


def test_an_episode_that_ends_otherwise_is_not_filmed(expert, tmp_path):
    liar = dataclasses.replace(expert[0].results[0], success=False)
    with pytest.raises(ValueError, match="played again it ends otherwise"):
        film(SUITE, [liar], tmp_path, size=(8, 8))
    assert list(tmp_path.iterdir()) == []


def test_the_pages_program_runs_as_it_stands(tmp_path):
    page = (ROOT / "docs/closed_loop.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "program.py").write_text(program)
    result = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "10/10 = 100%" in result.stdout
    assert "only the first 10, only the second 0, neither 0: p = 0.00195" in result.stdout
    assert len((tmp_path / "expert.jsonl").read_text().splitlines()) == 10
