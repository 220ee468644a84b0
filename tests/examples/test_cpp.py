"""The C++ example, compiled and run against the real server."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.server import PolicyServer
from tests.serving.conftest import Toy

SOURCES = Path(__file__).parents[2] / "examples/cpp"


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """The program, compiled with warnings as errors."""
    for tool in ("g++", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on PATH")
    folder = tmp_path_factory.mktemp("cpp") / "cpp"
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("*.out"))
    made = subprocess.run(
        ["make", "-C", folder, "CXXFLAGS=-O1 -Werror"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return folder / "ask.out"


@pytest.fixture
def pictures(tmp_path):
    """Two PPM files of 100s."""
    for name in ("front", "wrist"):
        data = np.full((4, 6, 3), 100, np.uint8).tobytes()
        (tmp_path / f"{name}.ppm").write_bytes(b"P6\n6 4\n255\n" + data)
    return [str(tmp_path / "front.ppm"), str(tmp_path / "wrist.ppm")]


@pytest.mark.slow
def test_the_cpp_program_gets_the_servers_action(ask, pictures):
    toy = Toy()
    server = PolicyServer(toy, port=0, options=ServerOptions())
    with server.in_thread():
        port = str(server.port)

        def run(instruction, *files, **environment):
            return subprocess.run(
                [ask, "127.0.0.1", port, instruction, *files],
                capture_output=True,
                text=True,
                timeout=20,
                env={**os.environ, **environment},
            )

        done = run("go", *pictures)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "0 terminate +1.00000 level (none frame)"
        assert lines[1] == "0 position_delta_x +0.01000 m (base frame)"
        assert len(lines) == 9 and lines[8].startswith("control rate 5 Hz, infer ")
        assert toy.batches == [["cpp example"]] and "cpp example" in toy.forgotten
        refused = run("go", pictures[0])
        assert refused.returncode == 3
        assert "no action: REFUSED" in refused.stderr
        assert "no picture of view 'wrist'" in refused.stderr
        failed = run("broken", *pictures)
        assert failed.returncode == 3 and "no action: FAILED" in failed.stderr
    gone = run("go", *pictures)
    assert gone.returncode == 1 and "no server answers" in gone.stderr


@pytest.mark.slow
def test_the_cpp_program_shows_its_token(ask, pictures):
    server = PolicyServer(Toy(), port=0, options=ServerOptions(token="secret"))
    with server.in_thread():
        words = [ask, "127.0.0.1", str(server.port), "go", *pictures]
        without = subprocess.run(words, capture_output=True, text=True, timeout=20)
        assert without.returncode == 1 and "the server refused: HTTP/1.1 403" in without.stderr
        shown = {**os.environ, "RT2_TOKEN": "secret"}
        assert subprocess.run(words, capture_output=True, timeout=20, env=shown).returncode == 0
