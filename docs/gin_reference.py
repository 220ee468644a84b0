"""Writes docs/gin.md, the reference of the shipped gin files.

Run as `python docs/gin_reference.py` (or `make docs`).
"""

from __future__ import annotations

from pathlib import Path

from gin import config_parser

from rt2_jax.convert.export_config import ExportConfig
from rt2_jax.evaluation.job_configs import EvalConfig, InferConfig
from rt2_jax.training.gin_files import CONFIGURABLES, SHIPPED

PAGE = Path(__file__).with_name("gin.md")
JOBS = (EvalConfig, InferConfig, ExportConfig)
HEAD = """# gin files

Written by `make docs` from the files in [gin_configs](../gin_configs). A run is a gin file:

    rt2 train --gin_file=runs/bridge_sample.gin --gin.MODEL_DIR=/tmp/run --gin.TRAIN_STEPS=100

Macros have T5X's names. There are four kinds of files, each with the class that it makes and the
command that reads it; `python -m rt2_jax.main --run_mode=MODE`, T5X's entry point, does the same:
"""
KINDS = (
    ("pretrain finetune cofinetune", "RunConfig", "rt2 train", "train"),
    ("eval", "EvalConfig", "rt2 eval offline", "eval"),
    ("infer", "InferConfig", "rt2 eval infer", "infer"),
    ("export", "ExportConfig", "rt2 convert", "export"),
)
RULES = """
The first three files go behind one of models/; a run of one's own includes both, as those of the
demo and of the paper below. The last three take model, vocabulary, lengths and prompts from the
checkpoint; files of models and of runs beside them are refused.

- `--gin_file` may be given again; later files win, `--gin.NAME=VALUE` wins over all. Files are
  looked for in the current folder, in `--gin_search_paths` and in the package.
- `--gin.NAME=VALUE` sets a macro, `--gin.CLASS.parameter=VALUE` anything else. What is no number,
  text in quotes, tuple, dict, `@class` or `%macro` is taken as text. T5X's other form, which
  is read as gin, is `--gin_bindings='NAME = VALUE'`.
- `include` stands where its lines would stand. `import` is refused, but in files for
  [T5X](t5x.md), where it loads nothing. A checkpoint holds no gin.
- `--dry_run` prints what the files come to; a run keeps it as `config.gin`, for people.

Refused with the file, the line and the right name, before anything is evaluated: a name that
nothing knows; a macro that nothing uses; a parameter of a class that the run has not; a value of
the wrong type; a file of another kind; a macro's name of before (`MIXTURE`, `SEED`,
`ENCODER_LENGTH`), and T5X's names of what is not here (`USE_CACHED_TASKS`, `EVAL_PERIOD`). All
that is required and missing is named at once. One thing unused may stand in a file: numbers of a
class that a later line has put another in the place of, as AdamW's in base.gin after
`OPTIMIZER = @Adafactor()`; in a flag they are refused too.
"""


def page() -> str:
    """The text of docs/gin.md."""
    base, _ = _macros(SHIPPED / "runs/base.gin")
    lines = [HEAD, "| file in runs/ | class | command | T5X's mode |", "|---|---|---|---|"]
    for names, made, command, mode in KINDS:
        files = ", ".join(f"[{name}.gin](#runs{name}gin)" for name in names.split())
        lines.append(f"| {files} | `{made}` | `{command}` | `{mode}` |")
    lines += [RULES, "## Macros of every run", "", "| macro | value | |", "|---|---|---|"]
    lines += [f"| `{name}` | {_value(text)} | {note} |" for name, (text, note) in base.items()]
    for path in sorted(SHIPPED.glob("*/*.gin")):
        if path.name != "base.gin":
            lines += _file(path)
    lines += ["", "## Presets of models on chips", "", "See [sharding](sharding.md#presets).", ""]
    lines += ["| file | for | values |", "|---|---|---|"]
    lines += [_preset(path) for path in sorted(SHIPPED.glob("*/*/*.gin"))]
    lines += ["", "## Classes", ""]
    classes = [*CONFIGURABLES.items(), *((cls.__name__, cls) for cls in JOBS)]
    lines += [f"- `{name}`: {_first_line(cls)}" for name, cls in classes]
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
    values = {**macros, **bindings}
    if any(note for _, note in macros.values()):
        lines += ["", "| name | value | |", "|---|---|---|"]
        return lines + [
            f"| `{name}` | {_value(text)} | {note} |" for name, (text, note) in values.items()
        ]
    lines += ["", "| name | value |", "|---|---|"]
    return lines + [f"| `{name}` | {_value(text)} |" for name, (text, _) in values.items()]


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
