"""docs/robot_data.md shows the table of data sets as it is, and its row is a row."""

import importlib.util
import re
import tomllib
from pathlib import Path

from rt2_jax.tasks import oxe

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("robot_data", ROOT / "docs/robot_data.py")
robot_data = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(robot_data)


def test_the_page_is_up_to_date():
    assert robot_data.PAGE.read_text() == robot_data.page(), "run `make docs`"


def test_the_row_on_the_page_is_that_of_the_table():
    (text,) = re.findall(r"```toml\n(.*?)```", robot_data.PAGE.read_text(), re.DOTALL)
    shown = tomllib.loads(text)["taco_play"]
    row = oxe.read_rows()["taco_play"]
    assert {key: row[key] for key in shown if key != "citation"} == {
        key: value for key, value in shown.items() if key != "citation"
    }


def test_the_page_names_the_whole_vocabulary():
    from rt2_jax.data.columns import TRANSFORMS
    from rt2_jax.tasks.oxe_spaces import SPACES

    for name in (*TRANSFORMS, *SPACES):
        assert f"`{name}" in robot_data.PAGE.read_text(), name
