"""Robot mixtures by name: RT-2's, RT-2-X's, Language-Table's, Octo's and OpenVLA's."""

from __future__ import annotations

import pathlib
import tomllib
from collections.abc import Mapping

import seqio

# Importing these modules registers the tasks that the mixtures name.
from rt2_jax.data.resolve import find_tasks
from rt2_jax.tasks import language_table, oxe, plans, rt1, web

__all__ = ["language_table", "plans", "rt1", "web"]

PUBLISHED = pathlib.Path(__file__).with_name("oxe_mixtures.toml")

PALIX_ROBOT_SHARE = 0.5
PALME_ROBOT_SHARE = 0.66
"""RT-2, appendix B."""

RT_X_WEIGHTS: Mapping[str, float] = {
    "fractal20220817_data": 150,
    "bridge_oxe": 50,
    "kuka": 20,
    "language_table": 30,
    "taco_play": 5,
    "jaco_play": 20,
    "berkeley_cable_routing": 20,
    "roboturk": 10,
    "nyu_door_opening_surprising_effectiveness": 5,
    "viola": 3,
    "berkeley_autolab_ur5": 5,
    "toto": 5,
}
"""Data set -> weight of RT-1-X's public training example.

RT-2-X trains on the same twelve (RT-X, section V). The example has kuka and language_table, too,
but leaves them out for their size.
"""


def published_rates(weights: Mapping[str, float], convention: str) -> list[tuple[str, float]]:
    """Tasks and rates of a published mixture.

    Both codebases multiply a weight by the data set's number of steps (`balance_weights`), so that
    equal weights show every step equally often; so a rate is the weight times the published number.
    A data set without one counts as the mean of the others in its mixture.

    Args:
      weights: data set -> weight.
      convention: "octo" or "openvla", where it differs from this project's.
    """
    rows = oxe.read_rows()
    known = [rows[name]["transitions"] for name in weights if "transitions" in rows[name]]
    mean = sum(known) / len(known) if known else 1.0
    return [
        (oxe.task_name(name, convention), weight * rows[name].get("transitions", mean))
        for name, weight in weights.items()
    ]


def _add(name: str, *parts: tuple[float, list[tuple[str, float]]]) -> None:
    """Adds a mixture of parts; each has its share and tasks with weights among themselves."""
    seqio.MixtureRegistry.add(
        name,
        [
            (task, share * weight / sum(weight for _, weight in tasks))
            for share, tasks in parts
            for task, weight in tasks
        ],
    )


_RT1 = [("rt1", 1.0)]
_PALIX_WEB, _PALME_WEB = (
    [(task.name, share) for task, share in find_tasks(name)] for name in ("palix_web", "palme_web")
)
_RT_X = [(oxe.task_name(name), weight) for name, weight in RT_X_WEIGHTS.items()]
_BOTH_TABLES = ("language_table", "language_table_sim")

_add("rt2_palix", (PALIX_ROBOT_SHARE, _RT1), (1 - PALIX_ROBOT_SHARE, _PALIX_WEB))
_add("rt2_palme", (PALME_ROBOT_SHARE, _RT1), (1 - PALME_ROBOT_SHARE, _PALME_WEB))
# RT-2 doesn't give the shares of its chain of thought: those of the policy that it is made of.
_add("rt2_palme_cot", (PALME_ROBOT_SHARE, [("rt1_cot", 1.0)]), (1 - PALME_ROBOT_SHARE, _PALME_WEB))
# About one to one with the web (RT-X, section IV).
_add("rt2_x", (0.5, _RT_X), (0.5, _PALIX_WEB))
# RT-2 doesn't give these shares: half are actions, half the four kinds of questions.
_add(
    "language_table",
    (0.5, [(f"{name}_action", 1.0) for name in _BOTH_TABLES]),
    (
        0.5,
        [
            (f"{name}_{question}", 1.0)
            for name in _BOTH_TABLES
            for question in language_table.QUESTIONS
        ],
    ),
)
for _who, _mixtures in tomllib.loads(PUBLISHED.read_text(encoding="utf-8")).items():
    for _name, _weights in _mixtures.items():
        _add(f"{_who}_{_name}", (1.0, published_rates(_weights, _who)))
