"""Recording and driving need no GL library and no privileges: they run with all of them hidden."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

# Every GL library that the loader knows is covered by an empty file, in an own mount namespace;
# then a user namespace takes all privileges away.
_HIDE = r"""
for library in $(ldconfig -p | grep -E '/lib(GL|EGL|OSMesa|gbm|glapi)' | awk '{print $NF}'); do
    mount --bind /dev/null "$library"
done
exec unshare --user "$@"
"""


def _without_gl(*command: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MUJOCO_GL")}
    return subprocess.run(
        ["unshare", "--mount", "bash", "-euc", _HIDE, "hide", *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """Runs a command without GL libraries; skips where namespaces are not allowed."""
    folder = tmp_path_factory.mktemp("without_gl")
    if shutil.which("unshare") is None or shutil.which("ldconfig") is None:
        pytest.skip("needs unshare and ldconfig (Linux)")
    probe = _without_gl("id", "-u", cwd=folder)
    if probe.returncode != 0:
        pytest.skip(f"namespaces are not allowed here: {probe.stderr.strip()}")
    assert probe.stdout.strip() not in ("", "0")
    return lambda *command: _without_gl(*command, cwd=folder), folder


def _rt2(*arguments: str) -> tuple[str, ...]:
    return sys.executable, "-m", "rt2_jax.cli.main", *arguments


@pytest.mark.slow
def test_gl_libraries_really_are_hidden(hidden):
    run, _ = hidden
    code = "import ctypes; ctypes.CDLL('libEGL.so.1')"
    assert run(sys.executable, "-c", code).returncode != 0
    refused = run(*_rt2("sim", "rollout", "--renderer", "egl", "--episodes", "1"))
    assert refused.returncode == 2
    assert "ray" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
def test_the_world_records_and_drives_without_gl_and_without_privileges(hidden):
    run, folder = hidden
    recorded = run(*_rt2("sim", "record", "--episodes", "4", "--out", "demonstrations"))
    assert recorded.returncode == 0, recorded.stderr
    assert list(folder.glob("demonstrations/**/features.json"))
    driven = run(
        *_rt2("sim", "rollout", "--episodes", "2", "--video", "out.gif", "--jsonl", "out.jsonl")
    )
    assert driven.returncode == 0, driven.stderr
    lines = (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["success"] for line in lines] == [True, True]
    assert (folder / "out.gif").stat().st_size > 10_000
