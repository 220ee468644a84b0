"""Writes the table of Open X-Embodiment into docs/robot_data.md.

Run as `python docs/robot_data.py` (or `make docs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rt2_jax.tasks.oxe import CONVENTIONS, read_rows

PAGE = Path(__file__).with_name("robot_data.md")
START, END = "<!-- table of tasks/oxe_datasets.toml -->", "<!-- end of the table -->"


def page() -> str:
    """The text of docs/robot_data.md with the table as the rows are now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    return "\n".join([before + START, "", *_table(), "", END + after])


def _table() -> list[str]:
    heads = (
        "data set",
        "robot",
        "Hz",
        "space",
        "views",
        "other conventions",
        "note, what is missing",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return lines + [_line(name, row) for name, row in read_rows().items()]


def _line(name: str, row: Mapping[str, Any]) -> str:
    rate = row.get("control_rate_hz")
    missing = "; ".join(row.get("missing", []))
    words = [row.get("note", ""), f"Missing: {missing}." if missing else ""]
    cells = [
        f"`{name}`",
        row["embodiment"],
        f"{rate:g}" if rate else "?",
        row.get("space", "pose"),
        ", ".join(row["views"]),
        ", ".join(each for each in CONVENTIONS if each in row),
        " ".join(word for word in words if word),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
