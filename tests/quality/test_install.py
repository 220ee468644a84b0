"""Every form of the distribution works from an empty folder and brings nothing generic along.

Works offline: the build backend is called as pip calls it, the bare environments see numpy of the
environment that runs the tests, and nothing else.
"""

import importlib.metadata
import os
import shutil
import sys
import venv
import zipfile
from pathlib import Path

import numpy
import pytest

import rt2_jax

BUILD = """
import sys
from setuptools import build_meta
build_meta.{hook}(sys.argv[1])
"""
IMPORTS = """
import importlib
for name in ("actions", "benchmarks", "client", "gin_configs", "launch", "tasks"):
    module = importlib.import_module("rt2_jax." + name)
    for public in getattr(module, "__all__", []):
        getattr(module, public)
for name in ("tasks", "gin_configs", "launch", "tests", "docs", "benchmarks", "packages"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError("site-packages holds a top-level " + name)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, copy_project):
    return copy_project(tmp_path_factory.mktemp("build"))


def build(hook, source, target, run):
    """Runs a PEP 517 or PEP 660 hook of the build backend in `source`; returns what it built."""
    target.mkdir()
    result = run(source, sys.executable, "-c", BUILD.format(hook=hook), target)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = target.iterdir()
    return built


def unpack(sdist, target):
    shutil.unpack_archive(sdist, target)
    (source,) = target.iterdir()
    return source


def bare_environment(folder):
    """A virtual environment with numpy and nothing else, not even pip; returns its `bin`."""
    venv.create(folder / "venv", symlinks=True)
    (site_packages,) = folder.glob("venv/lib/python3*/site-packages")
    site = Path(numpy.__file__).parents[1]
    for part in site.glob("numpy*"):
        (site_packages / part.name).symlink_to(part)
    return folder / "venv/bin"


@pytest.fixture(scope="module", params=["wheel", "wheel from sdist", "editable"])
def installed(request, checkout, tmp_path_factory, run):
    """The `bin` folder of a bare environment with the package installed in one of its forms."""
    folder = tmp_path_factory.mktemp("installed")
    hook, source = "build_wheel", checkout
    if request.param == "wheel from sdist":
        source = unpack(build("build_sdist", checkout, folder / "sdist", run), folder / "source")
    elif request.param == "editable":
        hook = "build_editable"
    wheel = build(hook, source, folder / "built", run)
    bin_folder = bare_environment(folder)
    pip = (sys.executable, "-m", "pip", "--python", bin_folder / "python")
    result = run(folder, *pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    assert result.returncode == 0, result.stderr
    return bin_folder


def test_every_form_imports_from_an_empty_folder(installed, tmp_path, run):
    result = run(tmp_path, installed / "python", "-c", IMPORTS)
    assert result.returncode == 0, result.stderr


def test_every_form_has_the_command(installed, tmp_path, run):
    assert "VERB" in run(tmp_path, installed / "rt2", "--help").stdout
    assert run(tmp_path, installed / "rt2", "--version").stdout == f"rt2 {rt2_jax.__version__}\n"


def test_a_verb_without_its_extra_says_what_to_install(installed, tmp_path, run):
    result = run(tmp_path, installed / "rt2", "sim", "rollout", "--policy", "expert")
    assert result.returncode == 2
    assert "pip install 'rt2-jax[sim,data]'" in result.stderr


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(checkout, tmp_path, run):
    wheel = build("build_wheel", checkout, tmp_path / "built", run)
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    written = {
        str(Path(folder, file).relative_to(checkout))
        for folder, _, files in os.walk(checkout / "rt2_jax", followlinks=True)
        for file in files
    }
    assert packed == written


def test_the_clients_wheel_is_the_robots_part_of_the_package(checkout, tmp_path, run):
    client = checkout / "packages/rt2_client"
    source = unpack(build("build_sdist", client, tmp_path / "sdist", run), tmp_path / "source")
    wheel = build("build_wheel", source, tmp_path / "built", run)
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    written = {"rt2_jax/__init__.py", "rt2_jax/_lazy.py"}
    for part in ("actions", "client"):
        files = (file for file in (checkout / "rt2_jax" / part).rglob("*") if file.is_file())
        written |= {str(file.relative_to(checkout)) for file in files}
    assert packed == written


def test_the_environment_holds_no_package_that_overwrites_seqio_or_tfds():
    installed = {each.metadata["Name"].lower() for each in importlib.metadata.distributions()}
    assert not installed & {"t5", "airio", "seqio-nightly", "tfds-nightly"}
