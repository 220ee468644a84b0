"""`report.html`, one file that needs nothing else, and the same numbers as `results.json`."""

from __future__ import annotations

import base64
import datetime
import html
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rt2_jax import __version__
from rt2_jax.demo.plan import SKILLS, DemoPlan, Policy, stages
from rt2_jax.evaluation.closed_loop import Evaluation, read_evaluation
from rt2_jax.evaluation.results import EpisodeResult
from rt2_jax.training.charts import CHART_STYLE, histogram, line_chart, success_bar

_SMOOTH = 5  # log lines averaged in a training curve

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a202c; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; background: #fff }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p.lead { color: #4a5568; margin-top: 0 }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #e2e8f0 }
td.n { white-space: nowrap; font-variant-numeric: tabular-nums }
tr.main td { font-weight: 600 }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 1rem }
.films figure { margin: 0 } .films img { width: 100%; border-radius: 4px; display: block }
.films figcaption { font-size: .85rem; color: #4a5568 }
.ok { color: #276749 } .bad { color: #9b2c2c }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1.5rem }
.charts figure { margin: 0 } .bar { vertical-align: middle; margin-left: .6rem }
code { background: #edf2f7; padding: .1rem .3rem; border-radius: 3px; font-size: .85rem }
"""


def write_report(plan: DemoPlan) -> pathlib.Path:
    """Writes both files from what the stages left.

    Raises:
      FileNotFoundError, ValueError: a stage's results are missing or damaged.
    """
    policies = [policy for stage in stages(plan) for policy in stage.policies]
    results = plan.folder / "results"
    evaluations = {
        policy.name: read_evaluation(results / f"{policy.name}.jsonl") for policy in policies
    }
    training = _training(plan.folder / "run" / "metrics.jsonl")
    seconds = {
        stage.name: json.loads((plan.folder / "stages" / f"{stage.name}.json").read_text())[
            "seconds"
        ]
        for stage in stages(plan)
        if (plan.folder / "stages" / f"{stage.name}.json").is_file()
    }
    summary = {
        "code_version": __version__,
        "date": datetime.date.today().isoformat(),
        "policies": {name: each.to_json() for name, each in evaluations.items()},
        "stage_seconds": seconds,
        "train_steps": plan.train_steps,
        "training": training[-1],
    }
    (plan.folder / "results.json").write_text(json.dumps(summary, indent=1) + "\n")
    text = _page(plan, policies, evaluations, training, seconds)
    report = plan.folder / "report.html"
    report.write_text(text, encoding="utf-8")
    print(success_table(policies, evaluations))
    return report


def success_table(policies: Sequence[Policy], evaluations: Mapping[str, Evaluation]) -> str:
    """The successes as plain text."""
    width = max(len(policy.label) for policy in policies)
    lines = [" " * width + "".join(f"  {skill:<34}" for skill in SKILLS)]
    for policy in policies:
        cells = []
        for skill in SKILLS:
            rate = evaluations[policy.name].rate(skill)
            low, high = rate.interval
            counts = f"{rate.successes}/{rate.trials}"
            cells.append(f"{counts} = {rate.rate:.0%} ({low:.0%} to {high:.0%})")
        lines.append(f"{policy.label:<{width}}" + "".join(f"  {cell:<34}" for cell in cells))
    lines.append("in brackets: 95 % Clopper-Pearson intervals")
    return "\n".join(line.rstrip() for line in lines)


def _page(
    plan: DemoPlan,
    policies: Sequence[Policy],
    evaluations: Mapping[str, Evaluation],
    training: Sequence[Mapping[str, float]],
    seconds: Mapping[str, float],
) -> str:
    main = policies[0]
    latencies = [ms for result in evaluations[main.name].results for ms in result.latency_ms]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>rt2_jax: the demo's report</title><style>{_STYLE}{CHART_STYLE}</style>",
        "<h1>A policy from pictures, words and demonstrations</h1>",
        f"<p class=lead>rt2_jax {__version__}: a vision-language model, co-fine-tuned on "
        f"{plan.episodes} demonstrations and as many web examples in {plan.train_steps} steps, "
        "drives a simulated robot through a policy server. Its actions are text tokens.</p>",
        "<h2>Successes</h2>",
        f"<p>{plan.test_episodes} scenes for each skill, none of which was recorded; the same for "
        "all. Lines in the bars are 95 % Clopper-Pearson intervals. Told another object's name, a "
        "policy that listens goes there, and fails here.</p>",
        _html_table(policies, evaluations),
        "<h2>Films</h2>",
        f"<div class=films>{_films(plan, evaluations[main.name])}</div>",
        "<h2>Training and latency</h2>",
        f"<div class=charts>{_charts(training, latencies)}</div>",
        "<h2>What was done</h2>",
        _stage_table(plan, seconds),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _html_table(policies: Sequence[Policy], evaluations: Mapping[str, Evaluation]) -> str:
    rows = ["<tr><th>policy</th>" + "".join(f"<th>{skill}</th>" for skill in SKILLS) + "</tr>"]
    for index, policy in enumerate(policies):
        cells = []
        for skill in SKILLS:
            rate = evaluations[policy.name].rate(skill)
            counts = f"{rate.rate:.0%} ({rate.successes}/{rate.trials})"
            cells.append(f"<td class=n>{counts} {success_bar(rate.rate, *rate.interval)}</td>")
        kind = " class=main" if index == 0 else ""
        rows.append(f"<tr{kind}><td>{html.escape(policy.label)}</td>{''.join(cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _films(plan: DemoPlan, evaluation: Evaluation) -> str:
    by_name = {f"{each.skill}_{each.seed}": each for each in evaluation.results}
    figures = []
    for path in sorted((plan.folder / "films").glob("*.gif"), key=_film_order):
        result = by_name.get("_".join(path.stem.split("_")[:2]))
        if result is not None:
            figures.append(_figure(path, result))
    return "".join(figures) or "<p>no films</p>"


def _film_order(path: pathlib.Path) -> tuple[bool, str]:
    return path.stem.endswith("failure"), path.stem


def _figure(path: pathlib.Path, result: EpisodeResult) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    word, kind = ("success", "ok") if result.success else ("failure", "bad")
    said = html.escape(result.instruction)
    return (
        f'<figure><img src="data:image/gif;base64,{data}" alt="{said}: {word}" loading=lazy>'
        f"<figcaption>{said}<br><span class={kind}>{word}</span>, {result.steps} steps, scene "
        f"{result.seed}</figcaption></figure>"
    )


def _charts(training: Sequence[Mapping[str, float]], latencies: Sequence[float]) -> str:
    tasks = sorted({key.rpartition("/")[0] for line in training for key in line if "/acc" in key})
    accuracy = {task: _curve(training, f"{task}/accuracy") for task in tasks}
    loss = {task: _curve(training, f"{task}/loss") for task in tasks}
    charts = (
        ("Tokens predicted right, of each task", line_chart(accuracy, "step", "", True)),
        ("Loss, of each task", line_chart(loss, "step", "nats a token", False)),
        (
            "From observation to action, through the server",
            histogram(latencies, "milliseconds", "answers"),
        ),
    )
    return "".join(
        f"<figure><figcaption>{title}</figcaption>{chart}</figure>" for title, chart in charts
    )


def _curve(training: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    points = [(line["step"], line[key]) for line in training if key in line]
    return [
        (
            points[end - 1][0],
            sum(y for _, y in points[max(0, end - _SMOOTH) : end]) / min(end, _SMOOTH),
        )
        for end in range(1, len(points) + 1)
    ]


def _stage_table(plan: DemoPlan, seconds: Mapping[str, float]) -> str:
    rows = ["<tr><th>stage</th><th>what</th><th>took</th></tr>"]
    for stage in stages(plan):
        commands = "".join(
            f"<br><code>rt2 {html.escape(' '.join(command))}</code>" for command in stage.commands
        )
        took = f"{seconds[stage.name] / 60:.1f} min" if stage.name in seconds else ""
        rows.append(
            f"<tr><td>{stage.name}</td><td>{html.escape(stage.text)}{commands}</td>"
            f"<td class=n>{took}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _training(path: pathlib.Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: the training stage left no numbers")
    return [json.loads(line) for line in path.read_text().splitlines()]
