"""Results of offline evaluation as text, for people."""

from __future__ import annotations

from collections.abc import Sequence

from rt2_jax._text_table import aligned
from rt2_jax.evaluation.offline import RobotReport
from rt2_jax.evaluation.pointing import PointingReport
from rt2_jax.evaluation.web_report import WebReport

_MEASURES = {
    "vqa_accuracy": "VQA accuracy",
    "vqa_exact_match": "normalised as VQAv2 does, equal to the one known answer",
    "cider_d": "CIDEr-D",
}


def offline_table(reports: Sequence[RobotReport | WebReport]) -> str:
    """All tasks, one after the other; errors are absolute, in each field's unit."""
    return "\n\n".join(
        _robot(report) if isinstance(report, RobotReport) else _web(report) for report in reports
    )


def pointing_table(report: PointingReport) -> str:
    """Hit rates with their 95 % intervals, and those of pointing at any object (`chance`)."""
    titles = {"strict": "in the box", "grown": "in the grown box", "nearest": "nearest is it"}
    header = ["objects", "asked"]
    for title in titles.values():
        header += [title, "95 % CI", "chance"]
    rows = [header]
    for row in report.rows:
        words = ["all" if row.objects is None else str(row.objects)]
        words.append(str(row.rates["strict"].trials))
        for name in titles:
            low, high = row.rates[name].interval
            words += [f"{row.rates[name].rate:.1%}", f"{low:.1%} to {high:.1%}"]
            words.append(f"{row.chance[name]:.1%}")
        rows.append(words)
    lines = [aligned(rows)]
    lines.append(
        f"grown: by half of one of {report.levels} levels on every side; answers without a place: "
        f"{report.unreadable}"
    )
    for picture, name, answer, hit in report.examples:
        lines.append(f"  {picture}, {name!r}: answered {answer!r}, {'hit' if hit else 'miss'}")
    return "\n".join(lines)


def _robot(report: RobotReport) -> str:
    assert report.task.robot is not None
    policy, median = report.policy, report.median
    rows = [
        ["field", "unit", "mean error", "(of median)", "median error", "(of median)"]
        + ["tokens right", "(of median)", "clipped"]
    ]
    for i, field in enumerate(report.task.robot.action_space.fields):
        numbers = (
            *(policy.mean_error[i], median.mean_error[i]),
            *(policy.median_error[i], median.median_error[i]),
        )
        shares = f"{policy.field_accuracy[i]:.1%}", f"{median.field_accuracy[i]:.1%}"
        words = [f"{number:.4g}" for number in numbers]
        unit = "ratio" if field.unit == "1" else field.unit
        rows.append([field.name, unit, *words, *shares, str(report.clipped[i])])
    return "\n".join(
        [
            f"{report.task.name}: {report.steps} steps, {report.actions} actions, decoded freely; "
            "beside it the training split's median action",
            aligned(rows),
            f"tokens right without terminate: {policy.token_accuracy:.1%} "
            f"(median action: {median.token_accuracy:.1%})",
            f"whole actions right: {policy.exact} (median action: {median.exact.rate:.1%})",
        ]
    )


def _web(report: WebReport) -> str:
    lines = [f"{report.task.name}: answers right: {report.exact}"]
    for score in report.scores:
        value = f"{score.value:.3f}" if score.name == "cider_d" else f"{score.value:.1%}"
        lines.append(f"  {_MEASURES[score.name]}: {value} ({score.count} {score.of})")
    for text, recorded, answer in report.examples:
        asked = f"{text!r}: " if text else ""
        lines.append(f"  {asked}expected {recorded!r}, answered {answer!r}")
    return "\n".join(lines)
