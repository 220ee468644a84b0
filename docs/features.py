"""Checks docs/features.yaml and writes what is made from it: docs/features.md, README.md's table.

Run as `python docs/features.py` (or `make docs`).
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
STATUSES = ("yes", "partly", "no")
BEGIN, END = "<!-- features: written by `make docs` -->", "<!-- /features -->"
HEAD = """# What works

Written by `make docs` from [features.yaml](features.yaml), where every "yes" and "partly" names the
test or benchmark that shows it.
"""


def load(path: Path = ROOT / "docs/features.yaml") -> dict[str, Any]:
    """Returns the file's contents, all scalars as text: `no` is a word here."""
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)


def problems(features: dict[str, Any], root: Path = ROOT) -> list[str]:
    """Returns a line for each thing that is wrong; evidence is sought in `root`."""
    found = []
    seen: Counter[str] = Counter()
    for row in _rows(features):
        where = row.get("id", "a row without id")
        seen[where] += 1
        wanted = {"id", "capability", "status", "systems"}
        status = row.get("status")
        if status not in STATUSES:
            found.append(f"{where}: status is {status!r}; expected one of {', '.join(STATUSES)}")
        if status in ("yes", "partly"):
            wanted.add("evidence")
        if status == "partly":
            wanted.add("missing")
        if wanted != set(row):
            found.append(f"{where}: has {sorted(row)}; a {status!r} has {sorted(wanted)}")
        for system in row.get("systems", []):
            if system not in features["systems"]:
                known = ", ".join(features["systems"])
                found.append(f"{where}: unknown system {system!r}; expected one of {known}")
        if status in ("yes", "partly") and not row.get("evidence"):
            found.append(f"{where}: {status!r} without evidence; name a test or benchmark")
        for evidence in row.get("evidence", []):
            if reason := _dangling(evidence, root):
                found.append(f"{where}: evidence {evidence!r}: {reason}")
    found += [f"{name}: {count} rows have this id" for name, count in seen.items() if count > 1]
    return found


def _rows(features: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for group in features["groups"] for row in group["capabilities"]]


def _dangling(evidence: str, root: Path) -> str | None:
    """Returns why `evidence` does not exist, or None if it does."""
    file, _, test = evidence.partition("::")
    folder = file.partition("/")[0]
    if folder not in ("tests", "benchmarks") or (folder == "tests") != bool(test):
        return "expected tests/FILE.py::TEST or benchmarks/FILE"
    if not (root / file).is_file():
        return "no such file"
    if test:
        tree = ast.parse((root / file).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if test not in functions or not test.startswith("test_"):
            return "no such test in that file"
    return None


def _summary(features: dict[str, Any]) -> str:
    lines = ["| | yes | partly | no |", "|---|---|---|---|"]
    total: Counter[str] = Counter()
    for group in features["groups"]:
        counts = Counter(row["status"] for row in group["capabilities"])
        total += counts
        lines.append(_count_line(group["group"], counts))
    return "\n".join([*lines, _count_line("**all**", total)])


def _count_line(title: str, counts: Counter[str]) -> str:
    return f"| {title} | " + " | ".join(str(counts[status]) for status in STATUSES) + " |"


def page(features: dict[str, Any]) -> str:
    """Returns docs/features.md: every capability, then the same by system."""
    parts = [HEAD, _summary(features)]
    for group in features["groups"]:
        lines = [f"\n## {group['group']}\n", "| capability | here | shown by | who has it |"]
        lines.append("|---|---|---|---|")
        for row in group["capabilities"]:
            status = row["status"] + (f": {row['missing']}" if "missing" in row else "")
            shown = "<br>".join(_evidence_link(each) for each in row.get("evidence", []))
            lines.append(
                f"| {row['capability']} | {status} | {shown} | {', '.join(row['systems'])} |"
            )
        parts += lines
    parts += [
        "\n## By system\n",
        "How many of each system's capabilities are here.\n",
        "| system | yes | partly | no |",
        "|---|---|---|---|",
    ]
    for system in features["systems"]:
        rows = [row for row in _rows(features) if system in row["systems"]]
        parts.append(_count_line(system, Counter(row["status"] for row in rows)))
    return "\n".join(parts) + "\n"


def _evidence_link(evidence: str) -> str:
    file, _, test = evidence.partition("::")
    return f"[{test or file}](../{file})"


def readme(features: dict[str, Any], text: str) -> str:
    """Returns README.md's `text` with the summary between its two markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md: expected the markers {BEGIN} and {END}, once each")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{_summary(features)}\n{END}{after}"


def main() -> None:
    """Writes both files, unless features.yaml is wrong."""
    features = load()
    if wrong := problems(features):
        raise SystemExit("docs/features.yaml is wrong:\n" + "\n".join(wrong))
    (ROOT / "docs/features.md").write_text(page(features))
    file = ROOT / "README.md"
    file.write_text(readme(features, file.read_text()))


if __name__ == "__main__":
    main()
