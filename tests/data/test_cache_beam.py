"""Caching on Apache Beam, in an environment of its own: it asks for other releases of packages."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import venv

import pytest

from rt2_jax.cli.main import main

ROOT = pathlib.Path(__file__).parents[2]
MODULE = pathlib.Path(__file__).with_name("sharded_tasks.py")
PACKAGES = ("apache-beam>=2.77,<3", "sentencepiece==0.2.1")  # as in setup.py


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with Apache Beam, and everything else from the environment of the tests."""
    if importlib.util.find_spec("apache_beam"):
        return sys.executable
    folder = tmp_path_factory.mktemp("beam") / "venv"
    venv.create(folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    outer = pathlib.Path(pytest.__file__).parents[1]
    (site / "outer.pth").write_text(f"{outer}\n")
    interpreter = str(folder / "bin" / "python")
    # The pip of the tests, and only what is imported is compiled: both take seconds otherwise.
    install = [sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-compile"]
    subprocess.run([*install, "--quiet", *PACKAGES], check=True)
    return interpreter


@pytest.fixture
def cache(tmp_path, python):
    """Runs `rt2 data cache` on the task of `sharded_tasks` in a process."""
    shutil.copy(MODULE, tmp_path)
    (tmp_path / "data/here").mkdir(parents=True)

    def run(*words, **environment):
        command = "data cache sharded --module sharded_tasks --data-dir data --shard-steps 3"
        return subprocess.run(
            [python, "-m", "rt2_jax.cli.main", *command.split(), *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_beam_caches_the_same_bytes_and_says_what_is_wrong_in_one_line(cache, tmp_path):
    direct = ("--cache-dir", "beam", "--runner", "DirectRunner", "--", "--direct_num_workers=2")
    result = cache(*direct, RT2_TEST_FAULT="c/1/2")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(
        "rt2 data: error: task 'sharded', episode 1 ('c-1'), step 2: action: field "
        "'position_delta_x' is nan"
    )
    result = cache(*direct)
    assert result.returncode == 0, result.stderr
    assert "sharded train: 20 steps of 8 episodes" in result.stdout
    result = cache("--cache-dir", "one")
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "beam") == files(tmp_path / "one")


def test_without_beam_it_is_said_what_to_install(built_in_tasks, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    words = ("data", "cache", "bridge", "--cache-dir", str(tmp_path))
    assert main([*words, "--runner", "DataflowRunner", "--", "--project=p"]) == 2
    message = "runner 'DataflowRunner' needs Apache Beam: pip install 'rt2-jax[beam]'"
    assert capsys.readouterr().err == f"rt2 data: error: {message}\n"
    assert main([*words, "--", "--project=p"]) == 2
    message = "--project=p behind -- is for Apache Beam, which needs --runner"
    assert capsys.readouterr().err == f"rt2 data: error: {message}\n"
