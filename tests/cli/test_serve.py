"""`rt2 serve` as a process: cold, warm, on several devices, and what probes are told meanwhile."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from rt2_jax.actions.policy import Observation
from rt2_jax.cli.main import main
from rt2_jax.client import RemotePolicy


@pytest.fixture
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def probe(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextlib.contextmanager
def started(run, health_port, *flags):
    """A server: its URL, how many programs came from the cache, what probes saw meanwhile."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rt2_jax.cli.main", "serve", str(run), "--port", "0"),
            *("--batch-sizes", "2", "--health-port", str(health_port), *flags),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
        },
    )
    seen, done = [], threading.Event()

    def watch():
        while not done.wait(0.1):
            with contextlib.suppress(OSError):
                seen.append((probe(health_port, "/healthz"), probe(health_port, "/readyz")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    said = ""
    try:
        while not (ready := re.search(r"^ready in .*\((\d+) from the cache\)\n", said, re.M)):
            line = process.stdout.readline()
            assert line, said
            said += line
        done.set()
        watcher.join()
        yield re.search(r"at (ws://\S+)", said)[1], int(ready[1]), seen
    finally:
        done.set()
        watcher.join()
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0, said + rest


def answers(url):
    draw = np.random.default_rng(0)
    with RemotePolicy(url) as policy:
        for number in range(4):
            images = {v: draw.integers(0, 256, (24, 32, 3), np.uint8) for v in ("front", "wrist")}
            yield policy.infer(Observation(images, f"push cube {number}"))["tokens"].tolist()


@pytest.mark.slow
def test_a_restart_takes_its_programs_from_the_cache_and_devices_together_give_the_same_tokens(
    run, free_port, full_check, tmp_path
):
    cache = ("--cache-dir", str(tmp_path / "cache"))
    with started(run, free_port, *cache) as (url, from_cache, seen):
        assert from_cache == 0
        assert {alive for alive, _ in seen} == {(200, "OK\n")}
        assert any(
            status == 503 and "compiling checkpoint_0: batches of 2 (1 of 1)" in text
            for _, (status, text) in seen
        )
        assert probe(free_port, "/readyz") == (200, "OK\n")
        tokens = list(answers(url))
    with started(run, free_port, *cache) as (url, from_cache, _):
        assert from_cache == 1
        assert list(answers(url)) == tokens
    for expected in (0, 1) if full_check else (0,):
        mesh = ("--mesh", "fsdp=2,tensor=2", *cache)
        with started(run, free_port, *mesh) as (url, from_cache, _):
            assert from_cache == expected
            assert list(answers(url)) == tokens


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mesh", "tensor"], "such as tensor=4"),
        (["--mesh", "tensor=1024"], "1024"),
        (["--cache-dir", "x", "--no-cache"], "exclude each other"),
    ],
)
def test_flags_that_cannot_be_are_refused_before_anything_is_read(flags, message, capsys):
    assert main(["serve", "no_such_run", *flags]) == 2
    assert message in capsys.readouterr().err
