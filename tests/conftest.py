"""What every test may rely on: repeatable property tests, the sample data, how long to check."""

import os
import runpy
import types
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]

# Read when jax makes its first array, in whichever test, and by the processes that tests start.
# Eight devices on one CPU for meshes. A test's programs run for moments, so they are compiled
# quickly and not for speed, and those of one run are there for the next (`make clean` ends that).
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real data sets; it is not part of the project, so tests skip without."""
    folder = Path(os.environ.get("RT2_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        state = "is set, but" if "RT2_SHARED_DATA" in os.environ else "is not set, and"
        pytest.skip(f"no sample data: RT2_SHARED_DATA {state} {folder} is not a folder")
    return folder


@pytest.fixture(scope="session")
def full_check() -> bool:
    """Whether `slow` tests run in full (`make check-long`) or in their short form (`.ci/run`)."""
    length = os.environ.get("RT2_CHECK", "short")
    if length not in ("short", "full"):
        raise ValueError(f"RT2_CHECK is {length!r}; expected 'short' or 'full'")
    return length == "full"


@pytest.fixture(scope="session")
def tiny_mixture(tmp_path_factory) -> types.SimpleNamespace:
    """What `tiny_mixture.py` defines, and what it wrote: `folder`, `cache` and `gin`."""
    folder = tmp_path_factory.mktemp("tiny_mixture")
    defined = runpy.run_path(str(Path(__file__).with_name("tiny_mixture.py")))
    defined["write"](folder)
    return types.SimpleNamespace(
        **defined, folder=folder, cache=folder / "cache", gin=folder / "tiny.gin"
    )
