"""`rt2 serve --log-dir` in a process, a robot, `rt2 data import-log`, `rt2 data cache`."""

import re
import signal
import subprocess
import sys

import numpy as np
import seqio

from rt2_jax.actions.policy import Observation
from rt2_jax.cli.main import main
from rt2_jax.client import RemotePolicy
from rt2_jax.data.cache import StepCache
from rt2_jax.data.image import decode_image

RT2 = [sys.executable, "-m", "rt2_jax.cli.main"]


def test_what_a_robot_was_told_is_the_next_training_set(tmp_path, monkeypatch, capsys):
    command = [*RT2, "serve", "pretrained:rt2_tabletop_tiny", "--port=0", "--batch-sizes=1"]
    command.append("--no-cache")
    process = subprocess.Popen(
        [*command, "--log-dir", str(tmp_path / "logs")], stdout=subprocess.PIPE, text=True
    )
    try:
        url = next(found[0] for x in process.stdout if (found := re.search(r"ws://\S+", x)))
        with RemotePolicy(url) as robot:
            views, fields = robot.metadata["views"], robot.metadata["state_fields"]
            random, sent = np.random.default_rng(0), []
            for number in range(8):
                episode, step = divmod(number, 4)
                if step == 0:
                    robot.reset(f"episode {episode}")
                pictures = {
                    view: random.integers(0, 256, (64, 64, 3)).astype(np.uint8) for view in views
                }
                state = np.zeros(len(fields), np.float32) if fields else None
                words = ("move to the red cube", "push the blue cube")[episode]
                seen = Observation(pictures, words, state, f"episode {episode}", step)
                sent.append((seen, robot.infer(seen)))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and "records written, 0 dropped" in output
    finally:
        process.kill()
        process.communicate()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RT2_DATA_DIR", "data")
    # `rt2 data` imports the tasks of the package, but only the first time in a process.
    import rt2_jax.tasks.mixtures  # noqa: F401

    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    capsys.readouterr()
    # An action that terminates ends an episode, and which ones do is the policy's business.
    assert main(["data", "import-log", "logs", "data", "--min-steps", "1"]) == 0
    (tmp_path / "log_of_this_test.py").write_text(capsys.readouterr().out)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["data", "cache", "request_log", "--module", "log_of_this_test"]) == 0
    cache = StepCache(tmp_path / "cache", "request_log", "train")
    steps = [cache[i] for i in range(len(cache))]
    for step, (seen, answer) in zip(steps, sent, strict=True):
        np.testing.assert_array_equal(step.action, answer["actions"][0])
        for image, view in zip(step.images, views, strict=True):
            np.testing.assert_array_equal(decode_image(image), seen.images[view])
        assert step.text == seen.instruction and step.episode_id.endswith(f"/{seen.session}")
