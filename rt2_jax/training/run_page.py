"""`rt2 train --report`: a run's curves as one HTML page that needs nothing else."""

from __future__ import annotations

import datetime
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from rt2_jax.training.charts import (
    CHART_STYLE,
    CHART_STYLE_DARK,
    Points,
    line_chart,
    share_bar,
    thinned,
)
from rt2_jax.training.goodput import PHASES, Start, duration, read_ledger, wall_seconds
from rt2_jax.training.watching import LEDGER

_STYLE = """
:root { color-scheme: light dark; --ink: #1a202c; --soft: #5a6676; --line: #dfe5ea;
  --paper: #fff; --ground: #f5f7f9 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaef; --soft: #a0abb8; --line: #313a45;
  --paper: #1b2129; --ground: #12161b } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--ground); margin: 0 }
main { max-width: 76rem; margin: 0 auto; padding: 1.6rem 1.2rem 4rem }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere } h2 { font-size: 1.15rem;
  margin: 2.2rem 0 .7rem } p { margin: .3rem 0 } .soft, figcaption small { color: var(--soft) }
figure, .tiles div, .card { background: var(--paper); border: 1px solid var(--line);
  border-radius: 8px; padding: .8rem 1rem; margin: 0; min-width: 0 }
figcaption { font-weight: 600; margin-bottom: .4rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem;
  margin-top: 1.1rem } .tiles b { display: block; font-size: 1.3rem; font-weight: 600;
  font-variant-numeric: tabular-nums } .tiles span { color: var(--soft); font-size: .85rem }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr));
  gap: .8rem }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; white-space: nowrap }
th { color: var(--soft); font-weight: 500 }
th:first-child, td:first-child, td.text { text-align: left; white-space: normal;
  overflow-wrap: anywhere; min-width: 9rem }
.share { border-radius: 5px; display: block; margin-bottom: .6rem }
i.swatch { display: inline-block; width: .75rem; height: .75rem; border-radius: 3px;
  margin-right: .5rem; vertical-align: -1px }
pre { overflow-x: auto; font-size: .8rem } summary { cursor: pointer }
"""

_SPEED = (
    ("Step time", "seconds_per_step", "seconds a step", False),
    ("Examples", "examples_per_second", "a second", False),
    ("Pictures", "images_per_second", "a second", False),
    ("Useful positions", "tokens_per_second", "a second", False),
    ("Waiting for batches", "data_wait", "of the time", True),
    ("Model FLOP/s of a device", "model_flops_per_second", "FLOP/s", False),
    ("MFU", "mfu", "of the device's peak", True),
    ("Memory of a device, peak", "device_memory_peak_bytes", "bytes", False),
    ("Memory of the host process, peak", "host_memory_peak_bytes", "bytes", False),
)

Lines = Sequence[Mapping[str, float]]


def write_run_page(directory: pathlib.Path) -> pathlib.Path:
    """Writes `<directory>/report.html` from what the run has logged so far.

    Args:
      directory: of a run; it may still go on.

    Raises:
      FileNotFoundError: the folder has no numbers of a run.
      ValueError: a file of numbers is damaged.
    """
    lines = _numbers(directory / "metrics.jsonl")
    starts = read_ledger(directory / LEDGER)
    config = directory / "config.gin"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    page = directory / "report.html"
    unfinished = page.with_suffix(".unfinished")
    name = directory.absolute().name
    unfinished.write_text(
        _page(name, lines, starts, _evaluations(directory), text), encoding="utf-8"
    )
    unfinished.replace(page)
    return page


def _numbers(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines by step; of a step that was taken again the later line counts."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}, so no run has logged numbers there; give --report the folder of "
            "a run (its MODEL_DIR)"
        )
    lines: list[dict[str, Any]] = []
    for line in _json_lines(path):
        while lines and lines[-1]["step"] >= line["step"]:
            lines.pop()
        lines.append(line)
    if not lines:
        raise FileNotFoundError(f"{path} is empty: the run has not logged numbers yet")
    return lines


def _json_lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(path.read_text().splitlines(keepends=True), 1):
        if not text.endswith("\n"):  # it is being written
            continue
        try:
            line = json.loads(text)
            line["step"] + 0
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{path}, line {number}: found {text.strip()[:60]!r}, expected a JSON object with "
                "a step"
            ) from None
        yield line


def _evaluations(directory: pathlib.Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Of every metric, as `mean_error_m`, the points of each task and field that has it."""
    paths = sorted((directory / "eval").glob("*.jsonl"))
    found: dict[str, dict[str, dict[float, float]]] = {}
    for path in paths:
        for line in _json_lines(path):
            for key, value in line.items():
                if key in ("step", "seconds") or not isinstance(value, int | float):
                    continue
                prefix, _, metric = key.rpartition("/")
                name = prefix or path.stem
                if prefix and len(paths) > 1:
                    name = f"{path.stem}: {prefix}"
                found.setdefault(metric, {}).setdefault(name, {})[line["step"]] = value
    return {
        metric: {name: sorted(points.items()) for name, points in series.items()}
        for metric, series in found.items()
    }


def _page(
    name: str,
    lines: Lines,
    starts: Sequence[Start],
    evaluations: Mapping[str, Mapping[str, Points]],
    config: str,
) -> str:
    sources = list(
        dict.fromkeys(
            key.removesuffix("/loss") for line in lines for key in line if key.endswith("/loss")
        )
    )
    marks = [start.first_step for start in starts[1:]]
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M")
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{escape(name)}: training</title>",
        f"<style>{_STYLE}{CHART_STYLE}{CHART_STYLE_DARK}</style><main>",
        f"<h1>{escape(name)}</h1><p class=soft>step {lines[-1]['step']:,}, page written {now}</p>",
        _tiles(lines, starts),
        "<h2>Learning</h2><div class=charts>",
        _figure(
            "Loss, of each source",
            _by_source(lines, sources, "loss"),
            "nats per unit of target weight",
            marks=marks,
        ),
        _figure(
            "Accuracy, of each source",
            _by_source(lines, sources, "accuracy"),
            "targets predicted right; of robots, action tokens",
            percent=True,
            marks=marks,
        ),
        _figure("Loss that was minimised", _one(lines, "loss"), "nats", marks=marks),
        _figure("Learning rate", _one(lines, "learning_rate"), "", marks=marks),
        _figure("Norm of the gradient", _one(lines, "gradient_norm"), "", marks=marks),
        _skipped(lines, marks),
        "</div>",
        "<h2>Sources</h2>",
        _source_table(lines, sources),
        _evaluation_part(evaluations),
        "<h2>Where the time went</h2>",
        _time(starts),
        "<h2>Speed and memory</h2><div class=charts>",
        *(
            _figure(title, points, unit, percent=percent, marks=marks)
            for title, key, unit, percent in _SPEED
            if (points := _one(lines, key))
        ),
        _figure(
            "Useful positions, of each source",
            _by_source(lines, sources, "useful_tokens"),
            "of all that are computed; the rest is padding and missing pictures",
            percent=True,
            marks=marks,
        ),
        "</div>",
    ]
    if config:
        parts.append(
            "<h2>Configuration</h2><details class=card><summary>config.gin</summary>"
            f"<pre>{escape(config)}</pre></details>"
        )
    return "\n".join([*parts, "</main></html>"]) + "\n"


def _figure(
    title: str,
    series: Mapping[str, Points],
    y_label: str,
    percent: bool = False,
    marks: Sequence[float] = (),
) -> str:
    chart = line_chart(
        {name: thinned(points) for name, points in series.items()},
        "step",
        y_label,
        percent,
        sorted(set(marks)),
    )
    return f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>"


def _one(lines: Lines, key: str) -> dict[str, Points]:
    points = [(line["step"], line[key]) for line in lines if key in line]
    return {key: points} if points else {}


def _by_source(lines: Lines, sources: Sequence[str], key: str) -> dict[str, Points]:
    return {source: _one(lines, f"{source}/{key}").get(f"{source}/{key}", []) for source in sources}


def _tiles(lines: Lines, starts: Sequence[Start]) -> str:
    last, tail = lines[-1], lines[-20:]

    def recent(key: str) -> float | None:
        values = [line[key] for line in tail if key in line]
        return sum(values) / len(values) if values else None

    tiles = [("step", f"{last['step']:,}")]
    for name, key, form in (
        ("loss", "loss", "{:.4g}"),
        ("accuracy", "accuracy", "{:.1%}"),
        ("seconds a step", "seconds_per_step", "{:.3g}"),
        ("examples a second", "examples_per_second", "{:,.0f}"),
        ("MFU", "mfu", "{:.1%}"),
        ("useful positions", "useful_tokens", "{:.0%}"),
    ):
        if (value := recent(key)) is not None:
            tiles.append((name, form.format(value)))
    if starts:
        seconds = wall_seconds(starts)
        wall = sum(seconds.values()) or 1.0
        tiles.append(("goodput", f"{seconds['step'] / wall:.0%}"))
        tiles.append(("wall time", duration(wall)))
    return "".join(
        ["<div class=tiles>", *(f"<div><b>{value}</b><span>{n}</span></div>" for n, value in tiles)]
    ) + ("</div><p class=soft>Loss, accuracy and speeds: means of the last logged lines.</p>")


def _skipped(lines: Lines, marks: Sequence[float]) -> str:
    total, points = 0.0, []
    for line in lines:
        total += line.get("skipped_steps", 0.0)
        points.append((line["step"], total))
    if not total:
        return (
            "<figure><figcaption>Skipped steps</figcaption><p class=soft>Every step's loss and "
            "gradient was finite.</p></figure>"
        )
    return _figure("Skipped steps, in all", {"skipped": points}, "not finite", marks=marks)


def _source_table(lines: Lines, sources: Sequence[str]) -> str:
    rows = ["<tr><th>source<th>examples<th>share<th>loss<th>accuracy<th>useful positions"]
    examples = {
        source: sum(line.get(f"{source}/examples", 0.0) for line in lines) for source in sources
    }
    total = sum(examples.values()) or 1.0
    for source in sources:
        cells = []
        for key, form in (("loss", "{:.4f}"), ("accuracy", "{:.1%}"), ("useful_tokens", "{:.0%}")):
            values = [line[f"{source}/{key}"] for line in lines if f"{source}/{key}" in line][-20:]
            cells.append(form.format(sum(values) / len(values)) if values else "")
        rows.append(
            f"<tr><td>{escape(source)}<td>{examples[source]:,.0f}"
            f"<td>{examples[source] / total:.1%}<td>{'<td>'.join(cells)}"
        )
    return f"<div class='card wide'><table>{''.join(rows)}</table></div>"


def _evaluation_part(evaluations: Mapping[str, Mapping[str, Points]]) -> str:
    if not evaluations:
        return ""
    figures = [_figure(metric, series, "") for metric, series in evaluations.items()]
    return f"<h2>Evaluations of checkpoints</h2><div class=charts>{''.join(figures)}</div>"


def _time(starts: Sequence[Start]) -> str:
    if not starts:
        return "<p class=soft>This run has no ledger.</p>"
    seconds = wall_seconds(starts)
    wall = sum(seconds.values()) or 1.0
    rows = ["<tr><th>phase<th>time<th>share<th>"]
    for index, (phase, meaning) in enumerate(PHASES.items()):
        rows.append(
            f'<tr><td><i class=swatch style="background:var(--c{index})"></i>{phase}'
            f"<td>{duration(seconds[phase])}<td>{seconds[phase] / wall:.1%}"
            f"<td class=text>{escape(meaning)}"
        )
    times = ["<tr><th>start<th>began<th>lasted<th>from step<th>steps that count"]
    for number, start in enumerate(starts, 1):
        began = datetime.datetime.fromtimestamp(start.begin).strftime("%Y-%m-%d %H:%M:%S")
        times.append(
            f"<tr><td>{number}<td>{began}<td>{duration(start.end - start.begin)}"
            f"<td>{start.first_step:,}<td>{start.step - start.first_step:,}"
        )
    return (
        f"<div class='card wide'>{share_bar([seconds[phase] for phase in PHASES])}"
        f"<table>{''.join(rows)}</table></div>"
        f"<h2>Starts</h2><div class='card wide'><table>{''.join(times)}</table></div>"
    )
