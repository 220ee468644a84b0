"""`rt2 serve` in a process of its own gives the tokens that offline evaluation decodes."""

import base64
import json
import pathlib
import re
import runpy
import subprocess
import sys
import types
import urllib.request

import numpy as np
import pytest
from websockets.sync.client import connect

from rt2_jax.actions.policy import Observation
from rt2_jax.client import RemotePolicy
from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.image import decode_image
from rt2_jax.inference.engine import PolicyEngine, Question
from rt2_jax.serving.plain_actions import PlainActions
from rt2_jax.serving.wires import vla_eval_frames as frames
from rt2_jax.serving.wires.json_arrays import dumps, loads

SMALL_POLICY = pathlib.Path(__file__).parents[1] / "inference" / "small_policy.py"
EPISODES = 67  # of three steps
STEPS = 45  # that the other wires are asked about


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """The folder of the caches, and a checkpoint that plans and that knows the training split."""
    small = types.SimpleNamespace(**runpy.run_path(str(SMALL_POLICY)))
    caches = tmp_path_factory.mktemp("caches")
    small.write_caches(caches, held_out=EPISODES)
    description = small.describe(caches, plan=6)
    state, batch = small.make_state(description, caches)
    params, _ = small.overfit(description, state.params, batch)
    directory = tmp_path_factory.mktemp("trained")
    return caches, small.write_checkpoint(directory, description, state.replace(params=params))


@pytest.fixture(scope="module")
def url(policy):
    """Where `rt2 serve` answers."""
    command = [sys.executable, "-m", "rt2_jax.cli.main", "serve", str(policy[1]), "--port=0"]
    command += ["--batch-sizes=1", "--questions", "--no-cache"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if found := re.search(r"ws://\S+", line):
                    yield found[0].rstrip(".,;")
                    break
            else:
                pytest.fail(f"rt2 serve ended with status {process.wait()}")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def offline(policy):
    """The engine, the steps of the validation split, and what it decodes of them."""
    caches, checkpoint = policy
    engine = PolicyEngine.from_checkpoint(checkpoint, (32,))
    task = engine.robot_task()
    cache = StepCache(caches, task.name, "validation")
    examples = TaskExamples(0, cache, engine.description.model_inputs, engine.action_tokens(task))
    rows = [examples.example(i) for i in range(len(cache))]
    return engine, task, cache, engine.decode_actions(rows, task)


@pytest.fixture(scope="module")
def plain(offline):
    """The first steps' actions as other clients get them, float64 [N, 7], and where they end."""
    engine, task, _, (_, tokens, _) = offline
    bound = engine.action_tokens(task)
    pieces = engine.description.tokenizer.id_to_piece
    actions = [bound.codec.decode(bound.from_ids(row.tolist(), pieces)) for row in tokens[:STEPS]]
    metadata = engine.describe(task)
    convention = PlainActions(bound.codec.space, metadata["action_bounds"])
    return convention.convert(np.concatenate(actions)), np.concatenate(actions)


def act(url, body):
    request = urllib.request.Request(url.replace("ws", "http", 1) + "/act", dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return loads(answer.read()), answer.headers["x-rt2-episode-ends"]


@pytest.mark.parametrize("form", ["OFT", "yam"])
def test_act_gives_the_actions_of_offline_evaluation(offline, plain, url, form):
    _, task, cache, _ = offline
    (expected, ends), _ = plain
    names = {"OFT": ("full_image", "wrist_image"), "yam": task.views}[form]
    for number in range(STEPS):
        step = cache[number]
        body = dict(zip(names, map(decode_image, step.images), strict=True))
        body |= {"instruction": step.text, "session": step.episode_id + form, "step": step.step}
        data, said = act(url, body)
        actions = data if form == "OFT" else data["actions"]
        np.testing.assert_array_equal(actions, expected[number : number + 1])
        assert said == str(int(ends[number]))
    assert len(np.unique(expected, axis=0)) > 10


def test_vla_evals_wire_gives_the_actions_of_offline_evaluation(offline, plain, url):
    engine, task, cache, _ = offline
    _, actions = plain
    bounds = engine.describe(task)["action_bounds"]
    convention = PlainActions(engine.action_tokens(task).codec.space, bounds, keep_rotation=True)
    expected, ends = convention.convert(actions)
    with connect(f"{url}/vla-eval", compression=None) as socket:
        for number in range(STEPS):
            step = cache[number]
            if step.step == 0:
                socket.send(frames.pack(frames.Frame("episode_start", {"task": {}}, 0)))
            images = {
                view: {"__image__": True, "format": "png", "data": image, "shape": [24, 32, 3]}
                for view, image in zip(task.views, step.images, strict=True)
            }
            seen = {"images": images, "task_description": step.text}
            socket.send(frames.pack(frames.Frame("observation", seen, number)))
            answer = frames.unpack(socket.recv(timeout=20))
            assert answer.seq == number
            np.testing.assert_array_equal(
                answer.payload["actions"], expected[number].astype(np.float32)
            )
            assert answer.payload.get("episode_ends", False) == ends[number]


def test_generated_text_is_that_of_the_engine(offline, url):
    engine, _, cache, _ = offline
    for number in range(4):
        prompt, image = f"Answer in en: what is in place {number}?", cache[number].images[0]
        expected = engine.answer([Question(prompt, decode_image(image))])[0]
        body = {"prompt": prompt, "image": base64.b64encode(image).decode(), "num_samples": 2}
        request = urllib.request.Request(
            url.replace("ws", "http", 1) + "/v1/generate", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            found = json.loads(answer.read())
        assert found["samples"] == [expected] * 2 and found["text"] == expected


def test_served_answers_are_the_tokens_of_offline_evaluation_on_200_observations(offline, url):
    _, task, cache, (plans, tokens, scores) = offline
    assert len(cache) > 200
    with RemotePolicy(url) as robot:
        for number in range(len(cache)):
            step = cache[number]
            if step.step == 0:
                robot.reset(step.episode_id)
            images = dict(zip(task.views, map(decode_image, step.images), strict=True))
            answer = robot.infer(
                Observation(images=images, instruction=step.text, session=step.episode_id)
            )
            np.testing.assert_array_equal(answer["tokens"], tokens[number])
            assert answer["plan"] == plans[number]
            assert answer["score"] == pytest.approx(scores[number], abs=1e-3)
    assert len({tuple(row) for row in tokens.tolist()}) > 20
