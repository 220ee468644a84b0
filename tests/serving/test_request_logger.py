"""The server's log: all that was asked and answered, and never at a robot's expense."""

import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rt2_jax.actions.policy import Observation
from rt2_jax.client import PolicyServerError, RemotePolicy
from rt2_jax.client.frames import pack
from rt2_jax.data.image import decode_image
from rt2_jax.data.request_log import RequestLog, find_logs
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.request_logger import RequestLogger
from rt2_jax.serving.server import PolicyServer

from .conftest import Toy, seen
from .test_server import page, raw, request

PROGRAM = """
import runpy, sys
from rt2_jax.serving.request_logger import RequestLogger
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.server import serve

policy = runpy.run_path(sys.argv[1])["Toy"]()
log = RequestLogger(sys.argv[2], policy.metadata)
serve(policy, port=0, options=ServerOptions(log=log), ready=lambda url: print(url, flush=True))
print("heavy:", sorted({"jax", "tensorflow"} & set(sys.modules)))
"""


def noise(number):
    """An observation that does not compress."""
    random = np.random.default_rng(number)
    pictures = random.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    state = random.random(3, np.float32)
    return Observation(dict(zip(("front", "wrist"), pictures, strict=True)), "go", state, "a")


@pytest.fixture
def start(tmp_path):
    """Starts a server process that logs; ended with the test. Gives (process, URL)."""
    started = []

    def start(prepare=None):
        toy = pathlib.Path(__file__).with_name("conftest.py")
        with open(tmp_path / "stderr", "w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(toy), str(tmp_path / "logs")],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=prepare,
            )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def metric(url, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", page(url, "/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen within 20 s"
        time.sleep(0.02)


def records(folder):
    log = RequestLog(folder)
    return [log[i] for i in range(len(log))]


def test_a_log_holds_what_was_asked_and_answered_bit_for_bit(tmp_path):
    policy = Toy()
    log = RequestLogger(tmp_path, policy.metadata, file_bytes=60_000)
    observations = [noise(number) for number in range(6)]
    with PolicyServer(policy, port=0, options=ServerOptions(log=log)).in_thread() as url:
        with RemotePolicy(url) as robot:
            robot.reset("a")
            answers = [robot.infer(observation) for observation in observations]
    found = records(log.folder)
    assert [each.outcome for each in found] == ["reset", *["answered"] * 6, "left"]
    assert [each.number for each in found] == list(range(8))
    assert {each.connection for each in found} == {"connection-1"}
    for number, (each, sent, answer) in enumerate(
        zip(found[1:-1], observations, answers, strict=True)
    ):
        for view, image in sent.images.items():
            np.testing.assert_array_equal(decode_image(each.pictures[view]), image)
        np.testing.assert_array_equal(each.state, sent.state)
        np.testing.assert_array_equal(each.actions, answer["actions"])
        assert (each.session, each.seq, each.instruction) == ("a", number, "go")
        assert each.infer_s == answer["server_timing"]["infer_ms"] / 1000
        assert each.batch_size == 1 and each.total_s >= each.queue_s + each.infer_s
        assert abs(each.time - time.time()) < 60
    times = [each.clock for each in found]
    assert times == sorted(times)
    files = sorted(file.name for file in log.folder.iterdir())
    assert files == [*(f"requests-0000{i}.array_record" for i in range(3)), "server.json"]
    info = RequestLog(log.folder).info
    assert info.metadata == policy.metadata and info.pid == os.getpid()
    assert info.ended["requests"] == 8 and info.ended["dropped"] == 0


def test_requests_without_an_action_are_logged_with_their_reason(tmp_path):
    policy = Toy()
    log = RequestLogger(tmp_path, policy.metadata)
    with PolicyServer(policy, port=0, options=ServerOptions(log=log)).in_thread() as url:
        raw(url, "text", pack(request(prompt=None, seq=5)), pack(request(images=None, session="b")))
        with RemotePolicy(url) as robot:
            for instruction in ("unreadable", "broken", "nan", "unsendable"):
                with pytest.raises(PolicyServerError):
                    robot.infer(seen(instruction=instruction))
        policy.seconds = 0.1
        raw(url, pack(request(budget_ms=20, session="c")))
    found = [each for each in records(log.folder) if each.outcome != "left"]
    assert [each.outcome for each in found] == [*["refused"] * 4, *["failed"] * 3, "late"]
    assert [each.actions for each in found] == [None] * 8
    reasons = ["found a text frame", "no 'prompt'", "no picture of view", "cannot be read"]
    reasons += ["the weights are gone", "expected a finite number", "cannot be sent", "the budget"]
    for each, reason in zip(found, reasons, strict=True):
        assert reason in each.error
    assert found[1].seq == 5 and found[2].session == "b" and found[2].instruction == "go"
    assert set(found[3].pictures) == {"front", "wrist"} and not found[2].pictures
    assert found[7].session == "c" and found[7].budget_s == 0.02


def test_a_full_queue_leaves_requests_out_of_the_log_and_answers_them(tmp_path, caplog):
    policy = Toy()
    log = RequestLogger(tmp_path, policy.metadata, queue_bytes=5000)
    with PolicyServer(policy, port=0, options=ServerOptions(log=log)).in_thread() as url:
        with RemotePolicy(url) as robot:
            robot.reset("a")  # is small enough
            for number in range(5):
                assert robot.infer(noise(number))["actions"].shape == (1, 8)
        assert metric(url, 'rt2_log_records_total{outcome="dropped"}') == 5
        assert metric(url, "rt2_log_stopped") == 0
    assert caplog.text.count("requests come faster than they can be logged") == 1
    info = RequestLog(log.folder).info
    assert info.ended["requests"] == 7 and info.ended["dropped"] == 5
    assert [each.number for each in records(log.folder)] == [0, 6], "the gap can be seen"


def test_a_killed_server_loses_nothing_that_it_has_counted_as_written(start, tmp_path):
    process, url = start()
    with RemotePolicy(url) as robot:
        answers = [robot.infer(noise(number)) for number in range(20)]
        wait_for(lambda: metric(url, 'rt2_log_records_total{outcome="written"}') == 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (folder,) = find_logs(tmp_path / "logs")
    log = RequestLog(folder)
    assert log.info.ended is None and log.unreadable == 0
    for number, (each, answer) in enumerate(zip(records(folder), answers, strict=True)):
        np.testing.assert_array_equal(each.actions, answer["actions"])
        np.testing.assert_array_equal(each.state, noise(number).state)


def test_a_full_disk_ends_the_log_and_not_the_server(start, tmp_path):
    limit = 100_000

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process, url = start(small_files)
    with RemotePolicy(url) as robot:
        for number in range(12):  # of 25,000 bytes
            assert robot.infer(noise(number))["actions"].shape == (1, 8)
        wait_for(lambda: metric(url, "rt2_log_stopped") == 1)
        assert robot.infer(noise(12))["actions"].shape == (1, 8)
        written = metric(url, 'rt2_log_records_total{outcome="written"}')
        assert page(url, "/readyz")[0] == 200
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "heavy: []" in output
    errors = (tmp_path / "stderr").read_text()
    assert errors.count("THE REQUEST LOG HAS STOPPED: [Errno 27] File too large") == 1
    (folder,) = find_logs(tmp_path / "logs")
    assert 0 < len(records(folder)) == written < 12
    info = RequestLog(folder).info
    assert info.ended["dropped"] == info.ended["requests"] - written


def test_a_log_that_cannot_be_made_is_told_before_anything_is_compiled(tmp_path, capsys):
    from rt2_jax.cli.main import main

    (tmp_path / "file").write_text("")
    log_dir = str(tmp_path / "file" / "logs")
    assert main(["serve", "pretrained:rt2_tabletop_tiny", "--port=0", "--log-dir", log_dir]) == 2
    printed = capsys.readouterr()
    assert "Not a directory" in printed.err and "compiling" not in printed.err


def test_server_json_says_what_was_served(tmp_path):
    policy = Toy()
    log = RequestLogger(tmp_path, policy.metadata)
    data = json.loads((log.folder / "server.json").read_text())
    assert data["rt2_request_log"] == 1 and data["ended"] is None
    assert data["metadata"]["action_space_hash"] == policy.metadata["action_space_hash"]
    again = RequestLogger(tmp_path, policy.metadata)
    assert again.folder != log.folder and find_logs(tmp_path) == sorted([log.folder, again.folder])
