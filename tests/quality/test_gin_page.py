"""docs/gin.md says what the shipped gin files say."""

import importlib.util
from pathlib import Path

from rt2_jax.training.gin_files import SHIPPED, load_run_config

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("gin_reference", ROOT / "docs/gin_reference.py")
gin_reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gin_reference)


def test_the_page_is_up_to_date():
    assert gin_reference.PAGE.read_text() == gin_reference.page(), "run `make docs`"


def test_every_macro_of_every_run_has_a_meaning_or_a_value_of_its_own():
    base, _ = gin_reference._macros(SHIPPED / "runs/base.gin")
    assert [name for name, (_, note) in base.items() if not note] == []


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
