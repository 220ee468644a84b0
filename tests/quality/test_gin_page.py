"""docs/gin.md says what the shipped gin files say."""

import importlib.util
from pathlib import Path

import pytest

from rt2_jax.training.gin_files import SHIPPED, load_run_config

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("gin_reference", ROOT / "docs/gin_reference.py")
gin_reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gin_reference)


def test_the_page_is_up_to_date():
    assert gin_reference.PAGE.read_text() == gin_reference.page(), "run `make docs`"


@pytest.mark.parametrize(
    "name", ["base", "pretrain", "finetune", "cofinetune", "eval", "infer", "export"]
)
def test_every_macro_of_a_kind_of_run_has_a_meaning(name):
    macros, _ = gin_reference._macros(SHIPPED / f"runs/{name}.gin")
    assert [name for name, (_, note) in macros.items() if not note] == []


def test_every_run_file_and_all_of_its_macros_are_on_the_page():
    page = gin_reference.PAGE.read_text()
    for path in (SHIPPED / "runs").glob("*.gin"):
        if path.name != "base.gin":
            section = page.split(f"\n## runs/{path.name}\n")[1].split("\n## ")[0]
            macros, _ = gin_reference._macros(path)
            assert [name for name in macros if f"| `{name}` | " not in section] == []


def test_the_command_on_the_page_is_one_that_loads():
    (line,) = [line for line in gin_reference.HEAD.splitlines() if line.startswith("    rt2 train")]
    words = line.split()[2:]
    file = words[0].removeprefix("--gin_file=")
    flags = [word.removeprefix("--gin.") for word in words[1:]]
    flags = [
        f"{name}='{value}'" if "/" in value else f"{name}={value}"
        for name, value in (flag.split("=") for flag in flags)
    ]
    config, _ = load_run_config([file], flags)
    assert (config.model_dir, config.loop.total_steps) == ("/tmp/run", 100)
