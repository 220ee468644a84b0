"""The fixtures of `tests/inference/conftest.py`: `small`, `caches`, `untrained`, `trained`."""

import pathlib
import runpy

_CONFTEST = pathlib.Path(__file__).parents[1] / "inference" / "conftest.py"
_DEFINED = runpy.run_path(str(_CONFTEST))
globals().update(
    {name: _DEFINED[name] for name in ("small", "caches", "untrained", "learn", "trained")}
)
