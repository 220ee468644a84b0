"""Writes docs/gin.md, the reference of the shipped gin files.

Run as `python docs/gin_reference.py` (or `make docs`).
"""

from __future__ import annotations

from pathlib import Path

from gin import config_parser

from rt2_jax.training.gin_files import CONFIGURABLES, SHIPPED

PAGE = Path(__file__).with_name("gin.md")
HEAD = """# gin files

Written by `make docs` from the files in [gin_configs](../gin_configs). A run is a gin file:

    rt2 train --gin_file=runs/bridge_sample.gin --gin.MODEL_DIR=/tmp/run --gin.TRAIN_STEPS=100

- `--gin_file` may be given again; later files win, `--gin.NAME=VALUE` wins over all. Files are
  looked for in the current folder, in `--gin_search_paths` and in the package.
- `--gin.NAME=VALUE` sets a macro, `--gin.CLASS.parameter=VALUE` anything else. What is no number,
  text in quotes, tuple, `@class` or `%macro` is taken as text.
- `include` stands where its lines would stand. A name that nothing knows, a macro that nothing
  uses, a value of the wrong type and a value that is missing are refused with the file, the line
  and the right name. `import` is refused, but in files for [T5X](t5x.md), where it loads nothing. A
  checkpoint holds no gin.
- `rt2 train --dry_run` prints what the files come to; a run keeps it as `config.gin`, for people.
"""


def page() -> str:
    """The text of docs/gin.md."""
    base, _ = _macros(SHIPPED / "runs/base.gin")
    lines = [HEAD, "## Macros of every run", "", "| macro | value | |", "|---|---|---|"]
    lines += [f"| `{name}` | {_value(text)} | {note} |" for name, (text, note) in base.items()]
    for path in sorted(SHIPPED.glob("*/*.gin")):
        if path.name != "base.gin":
            lines += _file(path)
    lines += ["", "## Presets of models on chips", "", "See [sharding](sharding.md#presets).", ""]
    lines += ["| file | for | values |", "|---|---|---|"]
    lines += [_preset(path) for path in sorted(SHIPPED.glob("*/*/*.gin"))]
    lines += ["", "## Classes", ""]
    lines += [f"- `{name}`: {_first_line(cls)}" for name, cls in CONFIGURABLES.items()]
    return "\n".join(lines) + "\n"


def _file(path: Path) -> list[str]:
    macros, bindings = _macros(path)
    about = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        about.append(line.removeprefix("#").removeprefix(" "))
    words = [line for line in about if not line.startswith("  ")]
    commands = [f"    {line.strip()}" for line in about if line.startswith("  ")]
    lines = ["", f"## {path.parent.name}/{path.name}", "", *words]
    lines += ["", *commands] if commands else []
    lines += ["", "| name | value |", "|---|---|"]
    lines += [
        f"| `{name}` | {_value(text)} |" for name, (text, _) in {**macros, **bindings}.items()
    ]
    return lines


def _preset(path: Path) -> str:
    first = path.read_text().splitlines()[0].removeprefix("# ")
    values = ", ".join(f"`{name} = {text}`" for name, (text, _) in _macros(path)[1].items())
    return f"| `{path.relative_to(SHIPPED)}` | {first} | {values} |"


Values = dict[str, tuple[str, str]]


def _macros(path: Path) -> tuple[Values, Values]:
    """The macros and the other bindings of a file alone: name -> (value, comment)."""
    macros: Values = {}
    bindings: Values = {}
    text = path.read_text()
    rows = text.splitlines()
    for statement in config_parser.ConfigParser(text, _AsText()):
        if isinstance(statement, config_parser.BindingStatement):
            line = rows[statement.location.line_num - 1]
            note = line.partition("#")[2].strip()
            value = statement.value if isinstance(statement.value, _Text) else repr(statement.value)
            name = statement.selector
            if statement.arg_name:
                bindings[f"{name}.{statement.arg_name}"] = (value, note)
            else:
                macros[name] = (value, note)
    return macros, bindings


class _Text(str):
    """A reference, as it is written."""

    __repr__ = str.__str__


class _AsText(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> _Text:
        return _Text(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, macro_name: str) -> _Text:
        return _Text(f"%{macro_name}")


def _value(text: str) -> str:
    return "required" if text == "%gin.REQUIRED" else f"`{text}`"


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    PAGE.write_text(page())
