"""Recording demonstrations: the same bytes always, the same values as a fresh roll-out."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
import venv
from importlib.metadata import version
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rt2_jax.data.recording import read_recording
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.policies import DisturbedPolicy, make_policy
from rt2_jax.sim.record import EpisodeRecorder, RecordSettings, record
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.rollout import outcome, play
from rt2_jax.sim.scene import sample_scene
from rt2_jax.sim.simulation import SIMULATION_VERSION, STATE_FIELDS, TABLETOP_ACTIONS
from rt2_jax.sim.world import DEFAULT_WORLD, load_world

ROOT = Path(__file__).parents[2]
SMALL = RenderSettings(height=16, width=16)
SETTINGS = RecordSettings(episodes=10, seed=5, render=SMALL, shard_episodes=3)
COMMAND = [
    *(sys.executable, "-m", "rt2_jax.cli.main", "sim", "record", "--episodes", "10", "--seed", "5"),
    *("--size", "16", "--shard-episodes", "3", "--jobs", "2", "--out"),
]

READ = """
import json, sys
sys.modules["rt2_jax"] = None  # importing it fails
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
lengths, instructions = [], []
for episode in builder.as_dataset(split="train"):
    steps = list(episode["steps"])
    assert steps[0]["observation"]["image"].shape == (16, 16, 3)
    lengths.append(len(steps))
    instructions.append(steps[0]["language_instruction"].numpy().decode())
fields = builder.info.metadata["rt2_recording"]["action_space"]["fields"]
print(json.dumps([lengths, instructions, [field["name"] for field in fields]]))
"""


def contents(root):
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """The recording of `SETTINGS`, by one process."""
    return record(SETTINGS, tmp_path_factory.mktemp("recording"), jobs=1)


@pytest.fixture(scope="module")
def episodes(recording):
    data = tfds.builder_from_directory(recording.directory).as_dataset(split="train")
    return [(e["episode_metadata"], list(e["steps"])) for e in tfds.as_numpy(data)]


def test_the_values_are_those_of_a_fresh_rollout_of_the_same_seed(episodes):
    assert len(episodes) == 10
    for number, (metadata, steps) in enumerate(episodes):
        skill, seed = ("reach", "push")[number % 2], 5 + number
        env = TabletopEnv(skill, render=SMALL)
        played = list(play(env, make_policy("expert", env), seed))
        end = outcome(env, played)
        assert metadata["episode_id"].decode() == f"{skill}-{seed}"
        assert (metadata["skill"].decode(), metadata["seed"]) == (skill, seed)
        assert (metadata["success"], metadata["steps"]) == (end.success, end.steps)
        scene = sample_scene(env.world, skill, seed).to_json()
        assert json.loads(metadata["scene"]) == json.loads(json.dumps(scene))
        assert len(steps) == len(played)
        for found, step in zip(steps, played, strict=True):
            seen = step.observation
            np.testing.assert_array_equal(found["observation"]["image"], seen.images["front"])
            np.testing.assert_array_equal(found["observation"]["state"], seen.state)
            np.testing.assert_array_equal(found["action"], step.action)
            assert found["language_instruction"].decode() == seen.instruction
            assert found["reward"] == step.reward
        assert steps[-1]["is_terminal"] == end.terminated
        assert steps[-1]["action"][TABLETOP_ACTIONS.index("terminate")] == 0


def test_the_recording_says_what_it_is_and_how_it_was_made(recording):
    found = read_recording(recording.directory)
    assert found == recording
    assert found.successes == 10
    assert found.info.action_space == TABLETOP_ACTIONS
    assert found.info.state_fields == STATE_FIELDS
    origin = found.info.origin
    assert RenderSettings.from_json(origin["render"]) == SMALL
    assert origin["render_hash"] == SMALL.hash
    assert origin["world_hash"] == load_world().hash
    assert origin["simulation_version"] == SIMULATION_VERSION
    assert origin["skills"] == ["reach", "push"]
    assert (origin["seed"], origin["policy"], origin["noise_m"]) == (5, "expert", 0)
    assert origin["software"]["mujoco"] == version("mujoco")


def test_the_bytes_do_not_depend_on_the_number_of_processes(recording, tmp_path):
    two = record(SETTINGS, tmp_path, jobs=2)
    assert contents(two.directory) == contents(recording.directory)


def test_a_killed_recording_is_continued_to_the_same_bytes(recording, tmp_path):
    first = subprocess.Popen([*COMMAND, tmp_path], cwd=ROOT, start_new_session=True)
    finished = wait_for_shard(tmp_path, first)
    workers = children(first.pid)
    first.kill()
    first.wait()
    assert not (tmp_path / "rt2_tabletop" / "2.0.0").exists()
    assert len(workers) >= 2
    wait_until(lambda: not any(running(pid) for pid in workers), "the workers outlive their parent")
    started = {file: file.stat().st_mtime_ns for file in finished}
    told = []
    again = record(SETTINGS, tmp_path, jobs=1, report=told.append)
    assert told == list(range(told[0], 11))
    assert told[0] >= 3
    for file, changed in started.items():
        assert (again.directory / file.name).stat().st_mtime_ns == changed
    assert contents(again.directory) == contents(recording.directory)


@pytest.mark.slow
def test_recordings_killed_again_and_again_end_with_the_same_bytes(recording, tmp_path, full_check):
    random, finished, interrupted = Random(0), 0, 0
    for _ in range(20 if full_check else 2):
        out = tmp_path / str(finished)
        wanted = random.randint(1, 6)
        with subprocess.Popen(
            [*COMMAND, out], cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr:
                wanted -= "episodes recorded" in line
                if not wanted:
                    time.sleep(random.uniform(0, 0.1))
                    process.kill()
                    break
        if process.returncode == 0:  # it was faster
            assert contents(out / "rt2_tabletop" / "2.0.0") == contents(recording.directory)
            finished += 1
        else:
            interrupted += (out / "rt2_tabletop" / "2.0.0.incomplete").exists()
    assert interrupted > 0
    again = record(SETTINGS, tmp_path / str(finished))
    assert [file.name for file in again.directory.parent.iterdir()] == ["2.0.0"]
    assert contents(again.directory) == contents(recording.directory)


@pytest.mark.parametrize("stop", ["Ctrl-C", "SIGTERM"])
def test_ctrl_c_and_sigterm_leave_a_state_to_continue_from_and_say_so(recording, tmp_path, stop):
    process = subprocess.Popen(
        [*COMMAND, tmp_path], cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    wait_for_shard(tmp_path, process)
    if stop == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    else:
        process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == (
        f"rt2 sim: interrupted: the finished files are kept in {tmp_path}; run the same command "
        "again to continue"
    )
    assert "Traceback" not in errors
    again = record(SETTINGS, tmp_path, jobs=1)
    assert contents(again.directory) == contents(recording.directory)


def test_a_killed_worker_is_an_error_that_says_how_to_continue(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, tmp_path], cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    wait_for_shard(tmp_path, process)
    for pid in children(process.pid):
        os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "rt2 sim: error: a recording process was killed" in errors
    assert "run it again to continue, with fewer jobs" in errors


def test_a_second_recorder_of_a_folder_is_refused_at_once_and_harms_nothing(recording, tmp_path):
    first = subprocess.Popen([*COMMAND, tmp_path], cwd=ROOT, start_new_session=True)
    wait_for_workers(first)
    with pytest.raises(OSError, match="another process is recording .*2.0.0; wait until it has"):
        record(SETTINGS, tmp_path, report=pytest.fail)
    assert first.wait(timeout=60) == 0
    found = record(SETTINGS, tmp_path)
    assert contents(found.directory.parent) == contents(recording.directory.parent)


def wait_for_workers(process):
    """Waits until a recording has begun its folder and started its two processes, or has ended."""
    wait_until(lambda: process.poll() is not None or len(children(process.pid)) >= 2, "no workers")


def wait_for_shard(root, process):
    """Waits for the first whole shard of a recording in progress."""

    def shards():
        return list((root / "rt2_tabletop" / "2.0.0.incomplete").glob("*-of-00004"))

    wait_until(lambda: shards() or process.poll() is not None, "no shard")
    assert process.poll() is None, "the recording ended before it could be interrupted"
    return shards()


def wait_until(condition, otherwise, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.005)


def children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_noise_moves_the_robot_and_leaves_the_experts_action_to_imitate(tmp_path):
    settings = dataclasses.replace(SETTINGS, episodes=4, noise=0.01)
    found = record(settings, tmp_path, jobs=1)
    assert found.info.disturbed
    assert found.info.origin["noise_m"] == 0.01
    data = tfds.builder_from_directory(found.directory).as_dataset(split="train")
    for number, episode in enumerate(tfds.as_numpy(data)):
        env = TabletopEnv(("reach", "push")[number % 2], render=SMALL)
        observed, _ = env.reset(seed=5 + number)
        expert, moved = make_policy("expert", env), 0.0
        for step in episode["steps"]:
            np.testing.assert_array_equal(step["observation"]["image"], observed["images"]["front"])
            # The label is what the expert does here, and the next state is what the noise made.
            np.testing.assert_array_equal(step["action"], expert.infer(None)["actions"][0])
            moved = max(moved, np.abs(step["executed_action"] - step["action"]).max())
            observed, *_ = env.step(step["executed_action"])
        assert 0.003 < moved < 0.05


def test_noise_belongs_to_the_seed_and_keeps_to_the_bounds():
    env = TabletopEnv(render=SMALL)
    env.reset(seed=0)

    def noise(session):
        policy = DisturbedPolicy(make_policy("do_nothing", env), env, 0.03)
        policy.reset(session)
        return np.concatenate([policy.infer(None)["actions"] for _ in range(400)])

    first = noise("reach-0")
    np.testing.assert_array_equal(first, noise("reach-0"))
    assert (first != noise("reach-1")).any()
    moved = first[:, 1:4]
    assert np.abs(moved).max() == np.float32(0.05)
    inside = np.abs(moved) < 0.05
    assert np.abs(np.mean(moved)) < 0.003
    assert 0.85 < inside.mean() < 0.94  # 90.4 % of a normal distribution lie within 5/3 sigma
    np.testing.assert_array_equal(np.delete(first, (1, 2, 3), 1), noise("x")[:, [0, 4, 5, 6, 7]])


def test_a_rate_disturbs_that_part_of_the_steps():
    env = TabletopEnv(render=SMALL)
    env.reset(seed=0)
    policy = DisturbedPolicy(make_policy("do_nothing", env), env, 0.03, 0.2)
    policy.reset("x")
    moved = [policy.infer(None)["actions"][0, 1:4].any() for _ in range(500)]
    assert 0.15 < np.mean(moved) < 0.25


@pytest.mark.parametrize("noise", [(0.005, 1.0), (0.03, 0.2)])
@pytest.mark.parametrize("skill", ["reach", "push"])
def test_the_expert_succeeds_in_spite_of_noise(skill, noise):
    env = TabletopEnv(skill, render=RenderSettings(height=1, width=1))
    policy = DisturbedPolicy(make_policy("expert", env), env, *noise)
    ends = [outcome(env, list(play(env, policy, seed))) for seed in range(20)]
    assert sum(end.success for end in ends) >= 18


def test_further_cameras_have_their_own_key(tmp_path):
    settings = dataclasses.replace(SETTINGS, episodes=1, cameras=("front", "wrist"))
    example = EpisodeRecorder(settings).record(0)
    assert b"steps/observation/wrist_image" in example
    assert b"steps/observation/image" in example


def test_all_episodes_are_kept_and_failures_are_counted(tmp_path):
    settings = dataclasses.replace(SETTINGS, episodes=2, policy="do_nothing")
    found = record(settings, tmp_path, jobs=1)
    assert found.successes == 0
    data = tfds.builder_from_directory(found.directory).as_dataset(split="train")
    for episode in tfds.as_numpy(data):
        assert not episode["episode_metadata"]["success"]
        steps = list(episode["steps"])
        assert len(steps) == 40
        assert steps[-1]["is_last"] and not steps[-1]["is_terminal"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skills": ("lift",)}, "skill: found 'lift', expected one of push, reach"),
        ({"skills": ()}, r"skills: found \[\], expected some, each once"),
        (
            {"skills": ("push", "push")},
            r"found \['push', 'push'\], expected some, each once",
        ),
        ({"policy": "hero"}, "policy: found 'hero', expected one of expert, random, do_nothing"),
        ({"cameras": ("front", "side")}, "cameras: .*'side'.*, expected some of front, top, wrist"),
        ({"episodes": 0}, "episodes: found 0, expected 1 or more"),
        ({"shard_episodes": 0}, "shard_episodes: found 0, expected 1 or more"),
        ({"seed": -1}, "seed: found -1, expected 0 or more"),
        ({"noise_rate": 1.5}, "noise_rate: found 1.5, expected 0 to 1"),
        ({"noise": -0.01}, "noise: found -0.01 m, expected 0 to 0.05 m"),
        ({"noise": float("nan")}, "noise: found nan m, expected 0 to 0.05 m"),
        ({"image_format": "gif"}, "image format: found 'gif', expected one of png, jpeg"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        record(dataclasses.replace(SETTINGS, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": "3"}, r"episodes: found '3' \(str\), expected int"),
        ({"seed": 1.5}, r"seed: found 1.5 \(float\), expected int"),
        ({"shard_episodes": True}, r"shard_episodes: found True \(bool\), expected int"),
        ({"noise": "0.1"}, r"noise: found '0.1' \(str\), expected float or int"),
        ({"skills": "reach"}, r"skills: found 'reach' \(str\), expected tuple"),
        ({"cameras": ["front"]}, r"cameras: found \['front'\] \(list\), expected tuple"),
        ({"render": 64}, r"render: found 64 \(int\), expected RenderSettings"),
        ({"world": "my.toml"}, r"world: found 'my.toml' \(str\), expected World"),
        ({"policy": None}, r"policy: found None \(NoneType\), expected str"),
        ({"image_format": 1}, r"image_format: found 1 \(int\), expected str"),
    ],
)
def test_a_setting_of_another_type_is_refused_by_name(changes, message):
    with pytest.raises(TypeError, match=message):
        dataclasses.replace(SETTINGS, **changes)


def test_less_than_one_process_is_refused(tmp_path):
    with pytest.raises(ValueError, match="jobs: found 0, expected 1 or more"):
        record(SETTINGS, tmp_path, jobs=0)


def test_a_recording_with_other_settings_is_refused_and_kept(recording):
    before = contents(recording.directory)
    other = dataclasses.replace(SETTINGS, render=RenderSettings(height=16, width=20), seed=6)
    with pytest.raises(
        ValueError, match=r"origin.render.width: 16, not 20; .*origin.seed: 5, not 6"
    ):
        record(other, recording.directory.parents[1])
    assert contents(recording.directory) == before


def test_a_world_of_ones_own_is_recorded_and_told_apart(tmp_path):
    path = tmp_path / "world.toml"
    path.write_text(DEFAULT_WORLD.read_text().replace('"tabletop"', '"mine"', 1))
    assert tomllib.loads(path.read_text())["name"] == "mine"
    mine = dataclasses.replace(SETTINGS, world=load_world(path)).info()
    assert mine.origin["world"] == "mine"
    assert mine.origin["world_hash"] != SETTINGS.info().origin["world_hash"]


def read(recording, python, empty):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONPATH", None)
    command = [python, "-c", READ, recording.directory]
    result = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def check_what_was_read(found, episodes):
    lengths, instructions, fields = found
    assert lengths == [len(steps) for _, steps in episodes]
    assert instructions == [s[0]["language_instruction"].decode() for _, s in episodes]
    assert fields == list(TABLETOP_ACTIONS.names)


def test_the_recording_is_read_without_this_package(recording, episodes, tmp_path):
    check_what_was_read(read(recording, sys.executable, tmp_path), episodes)


@pytest.mark.slow
def test_the_recording_is_read_in_a_bare_environment(recording, episodes, tmp_path, full_check):
    if not full_check:
        pytest.skip("in the full form only: the test before this one reads it without the package")
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    packages = [f"{name}=={version(name)}" for name in ("tensorflow-datasets", "tensorflow")]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(install, check=True)
    (tmp_path / "empty").mkdir()
    check_what_was_read(read(recording, python, tmp_path / "empty"), episodes)
