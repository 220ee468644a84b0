"""Recording and driving need no GL library and no privileges: they run with all of them hidden."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

# Every GL library that the loader knows is covered by an empty file, in an own mount namespace.
_HIDE = r"""
for library in $(ldconfig -p | grep -E '/lib(GL|EGL|OSMesa|gbm|glapi)' | awk '{print $NF}'); do
    mount --bind /dev/null "$library"
done
exec "$@"
"""
# Root becomes nobody, who keeps the right to read everything: the interpreter may lie in /root.
_NOBODY = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)


def _without_gl(*command: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    root = os.geteuid() == 0
    own = ("unshare", "--mount") if root else ("unshare", "--user", "--map-root-user", "--mount")
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MUJOCO_GL")}
    return subprocess.run(
        [*own, "bash", "-euc", _HIDE, "hide", *(_NOBODY if root else ()), *command],
        cwd=cwd,
        env={**environment, "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    """Runs a command without GL libraries and privileges; skips where that is not allowed."""
    folder = tmp_path_factory.mktemp("without_gl")
    folder.chmod(0o777)
    if any(shutil.which(tool) is None for tool in ("unshare", "setpriv", "ldconfig")):
        pytest.skip("needs unshare, setpriv and ldconfig (Linux)")
    probe = _without_gl("true", cwd=folder)
    if probe.returncode != 0:
        pytest.skip(f"namespaces are not allowed here: {probe.stderr.strip()}")
    return lambda *command: _without_gl(*command, cwd=folder), folder


def _rt2(*arguments: str) -> tuple[str, ...]:
    return sys.executable, "-m", "rt2_jax.cli.main", *arguments


@pytest.mark.slow
def test_gl_libraries_and_privileges_really_are_gone(hidden):
    run, _ = hidden
    code = "import ctypes; ctypes.CDLL('libEGL.so.1')"
    assert run(sys.executable, "-c", code).returncode != 0
    assert run("touch", "/usr/bin/forbidden").returncode != 0
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
