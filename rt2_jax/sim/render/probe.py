"""Whether a GL library works here: found out in a child process, which a bad one may kill."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

_PACKAGES = {"osmesa": "libosmesa6", "egl": "libegl1 libegl-mesa0 libgl1-mesa-dri"}
_LIBRARIES = {"osmesa": "libOSMesa", "egl": "libEGL and a driver for it"}
_SECONDS = 60  # the first use of a driver compiles shaders
_CHILD = """
import importlib, sys, mujoco
context = importlib.import_module("mujoco." + sys.argv[1]).GLContext(8, 8)
context.make_current()
drawing = mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), 100)
drawing.free()
context.free()
"""


@functools.cache
def probe(library: str) -> None:
    """Makes sure that `library` (`osmesa` or `egl`) can draw in this process.

    Raises:
      RuntimeError: it can't; the message says why, and what to do.
    """
    chosen = os.environ.get("PYOPENGL_PLATFORM", library)
    if chosen.lower() != library:
        raise RuntimeError(
            f"renderer {library!r}: this process has already chosen {chosen!r} (PYOPENGL_PLATFORM, "
            f"which MUJOCO_GL or another renderer sets), and can't change it; start a process with "
            f"MUJOCO_GL={library}, or use the renderer ray"
        )
    environment = {**os.environ, "MUJOCO_GL": library, "PYOPENGL_PLATFORM": library}
    command = [sys.executable, "-c", _CHILD, library]
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        reason = f"it didn't answer in {_SECONDS} s"
    else:
        if child.returncode == 0:
            return
        last = child.stderr.strip().splitlines()[-1:] or ["no message"]
        reason = f"exit status {child.returncode}: {last[0]}"
    raise RuntimeError(
        f"renderer {library!r}: {_LIBRARIES[library]} doesn't work here ({reason}); install it "
        f"(on Debian: apt-get install {_PACKAGES[library]}), or use the renderer ray, which needs "
        "no GL library"
    )
