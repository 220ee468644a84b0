"""What a fresh interpreter loads: a robot or a `--help` does not wait for jax or TensorFlow."""

import json
import sys

import pytest

# Packages outside the standard library that `statement` loads, `rt2_jax` left out.
THIRD_PARTY = """
import json, sys
before = set(sys.modules)
{statement}
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(loaded - set(sys.stdlib_module_names) - {{"rt2_jax"}})))
"""
EVERY_MODULE = """
import importlib, pkgutil
import {package}
for module in pkgutil.walk_packages({package}.__path__, "{package}."):
    importlib.import_module(module.name)
for name in {package}.__all__:
    getattr({package}, name)
"""
RT2_HELP = """
import contextlib, io
from rt2_jax.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
"""


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import rt2_jax", set()),
        ("import rt2_jax.actions, rt2_jax.client", set()),
        (EVERY_MODULE.format(package="rt2_jax.actions"), {"numpy"}),
        (EVERY_MODULE.format(package="rt2_jax.client"), {"numpy"}),
        (RT2_HELP, set()),
    ],
    ids=["rt2_jax", "actions and client", "all of actions", "all of client", "rt2 --help"],
)
def test_light_imports_stay_light(statement, allowed, root, run):
    result = run(root, sys.executable, "-c", THIRD_PARTY.format(statement=statement))
    assert result.returncode == 0, result.stderr
    loaded = set(json.loads(result.stdout))
    assert loaded <= allowed
