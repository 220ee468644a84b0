"""Do measured states move as actions say? Signs, axes, units, references, times, the gripper.

An action field is held against the state field of the same name (see `paired_state`). A delta a_t
is correlated with the state's change s_{t+1} - s_t, an absolute target with s_{t+1}; and both with
what comes a step earlier and later, since a robot may lag and a recording may be shifted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rt2_jax.actions.space import ActionField
from rt2_jax.data.checks.finding import Finding
from rt2_jax.data.checks.survey import Survey

FOLLOWS = 0.6
"""A correlation from which a state follows. On real robots it is 0.74 to 0.94 (Bridge, 5 Hz)."""
UNRELATED = 0.2
"""Below it a state that moves doesn't follow. Chance gives 0.2 in one of 20 cases of 100 steps."""
IS_LEVEL = 0.9
"""A "delta" that correlates with the state itself like this is no delta."""
LESS = 0.7
"""Another reading than the declared one is told where that correlates less than this part of it."""
SHIFTED = 0.4
"""A shift is told where it leaves less than this part of the unexplained variance. A lag of half a
step, which control loops have, leaves both times alike."""
SCALE = 5.0
"""Robots reach 0.5 to 1 of a commanded delta; five times off is another unit."""
LEAST_STEPS = 50
IDLE = 0.1
"""A field rests where action and state move less than this part of the farthest of its unit."""
FASTEST = {"m": 5.0, "rad": 20.0}
"""Per second; arms reach 2 m/s and 4 rad/s. Where no state is there to compare with."""
FARTHEST = {"m": 20.0, "rad": 4 * np.pi}
"""Of absolute values, likewise."""
_FACTORS = {
    1000.0: "metres against millimetres",
    100.0: "metres against centimetres",
    57.2958: "radians against degrees",
}
_LAGS = (0, -1, 1)
_FILLERS = {
    *("position", "pos", "delta", "target", "action", "command", "cmd", "state", "measured"),
    *("eef", "ee", "tcp", "tip", "hand", "qpos"),
}
_TURNS = {"roll": "x", "pitch": "y", "yaw": "z", "rx": "x", "ry": "y", "rz": "z"}
_TURN_WORDS = {"rotation", "rot", "orientation", "angle", "euler"}


def paired_state(field: ActionField, states: Sequence[str]) -> int | None:
    """The state field that an action field moves, by name; None where names don't say.

    `position_delta_x` goes with `x`, `tip_x` or `eef_position_x`; `rotation_delta_x` with `roll`,
    `rx` or `rotation_x`; `joint_3` with `joint_3_position`.
    """
    wanted = _axis(field.name, turn=field.rotation is not None)
    found = [i for i, name in enumerate(states) if _axis(name) == wanted]
    return found[0] if len(found) == 1 else None


def _axis(name: str, turn: bool = False) -> tuple[bool, tuple[str, ...]]:
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    turn = turn or any(word in _TURN_WORDS or word in _TURNS for word in words)
    kept = [_TURNS.get(w, w) for w in words if w not in _FILLERS and w not in _TURN_WORDS]
    return turn, tuple(kept)


@dataclass(frozen=True)
class _Response:
    """How states answer actions, for one kind of pairing and each lag."""

    correlation: np.ndarray  # [lags, D, S]
    ratio: np.ndarray  # [lags, D, S]: spread of states over spread of actions


def check_motion(survey: Survey) -> Iterator[Finding]:
    """Signs, axes, units, references and times of translations, rotations and joints."""
    robot = survey.info.robot
    if robot is None or not survey.kept:
        return
    fields, states = robot.action_space.fields, robot.state_fields
    rate = robot.action_space.control_rate_hz
    pairs = {}
    for i, field in enumerate(fields):
        partner = paired_state(field, states)
        if partner is not None and _comparable(field):
            pairs[i] = partner
    steps = sum(
        int((np.isfinite(e.actions).all(1) & np.isfinite(e.states).all(1))[1:].sum())
        for e in survey.kept
    )
    responses = {}
    if pairs and steps >= LEAST_STEPS:
        turns = [state for i, state in pairs.items() if fields[i].unit.startswith("rad")]
        responses = {kind: _responses(survey, kind, turns) for kind in ("change", "level")}
    judge = _Judge(survey, fields, states, pairs, responses, steps, rate)
    for i, field in enumerate(fields):
        if field.levels is None and field.polarity is None:
            yield from judge.judge(i)
    yield from judge.together()


def _comparable(field: ActionField) -> bool:
    """Whether its numbers can be held against one state number; a tool's axes turn with it."""
    several = field.rotation is not None and field.rotation.startswith(("quaternion", "rot6d"))
    return (
        (field.levels is None and field.polarity is None)
        and field.frame != "tool"
        and field.reference != "chunk_start"
        and not several
    )


class _Judge:
    """Turns responses into findings; what several fields have in common becomes one."""

    def __init__(
        self,
        survey: Survey,
        fields: Sequence[ActionField],
        states: Sequence[str],
        pairs: dict[int, int],
        responses: dict[str, _Response],
        steps: int,
        rate: float,
    ) -> None:
        self.survey, self.fields, self.states = survey, fields, states
        self.pairs, self.responses, self.steps, self.rate = pairs, responses, steps, rate
        self.shifts: dict[int, list[str]] = {}

    def judge(self, i: int) -> Iterator[Finding]:
        """Findings about one action field."""
        field = self.fields[i]
        if not self.responses or i not in self.pairs:
            yield from self._implausible(i)
            return
        velocity = field.unit.endswith("/s")
        own, level = self.pairs[i], field.reference == "absolute" and not velocity
        response = self.responses["level" if level else "change"]
        other = self.responses["change" if level else "level"]
        strengths = np.abs(response.correlation[:, i])
        best = int(strengths[:, own].argmax())
        strength = strengths[best, own]
        taken = [state for j, state in self.pairs.items() if j != i]
        rival = max(taken, key=lambda s: strengths[:, s].max(), default=own)
        confused = IS_LEVEL if not level else FOLLOWS
        if not self._moves(i):
            return
        state = self.states[own]
        otherwise = abs(other.correlation[0, i, own])
        of_one_size = 1 / SCALE <= other.ratio[0, i, own] <= SCALE
        if otherwise >= confused and strength < LESS * otherwise and of_one_size:
            now, then = ("absolute", "a delta") if level else ("a delta", "absolute")
            yield self._finding(
                "reference",
                i,
                f"declared as {now}, but its values go with the {'change' if level else 'value'} "
                f"of state {state!r} (correlation {other.correlation[0, i, own]:.2f})",
                f"declare its reference as {then}, or make the values what is declared",
            )
        elif strengths[:, rival].max() >= FOLLOWS and strength < strengths[:, rival].max() / 2:
            yield self._finding(
                "swapped-axes",
                i,
                f"state {self.states[rival]!r} follows it (correlation "
                f"{strengths[:, rival].max():.2f}), not {state!r} ({strength:.2f})",
                "put the fields of the action or of the state into the declared order",
            )
        elif strength < FOLLOWS:
            if strength < UNRELATED and self.steps >= 2 * LEAST_STEPS:
                yield self._finding(
                    "unrelated",
                    i,
                    f"state {state!r} does not follow it (correlation {strength:.2f})",
                    "check that both are of one arm and frame, and that the action was executed",
                    severity="warning",
                )
            yield from self._implausible(i)
        else:
            yield from self._related(i, own, best, response)

    def _related(self, i: int, own: int, best: int, response: _Response) -> Iterator[Finding]:
        state, signed = self.states[own], response.correlation[best, i, own]
        if signed < 0:
            yield self._finding(
                "sign-flip",
                i,
                f"state {state!r} moves the other way (correlation {signed:.2f})",
                "change the sign of the action or of the state",
            )
        scale = response.ratio[best, i, own]
        if self.fields[i].unit.endswith("/s"):
            scale *= self.rate
        if not 1 / SCALE <= scale <= SCALE:
            yield self._finding(
                "scale",
                i,
                f"state {state!r} moves {scale:.3g} times as far as it says{self._guess(scale)}",
                f"give the action in {self.fields[i].unit}, and the state in the same unit",
            )
        left = 1 - np.square(response.correlation[:, i, own])
        if best != 0 and left[best] < SHIFTED * left[0]:
            self.shifts.setdefault(_LAGS[best], []).append(self.fields[i].name)

    def together(self) -> Iterator[Finding]:
        """What is told of several fields at once: shifts in time."""
        for lag, names in self.shifts.items():
            when = "one step before" if lag < 0 else "one step after"
            yield Finding(
                "error" if lag < 0 else "warning",
                "time-shift",
                ", ".join(f"action {name}" for name in names),
                f"the state moves {when} the step that the action stands at",
                "store the action with the observation that it was chosen for"
                if lag < 0
                else "a robot that lags by a step, or actions stored one step too early",
                self.survey.split,
            )

    def _moves(self, i: int) -> bool:
        """Whether a field does more than tremble: an arm that rests follows nothing but noise."""
        alike = [j for j in self.pairs if self.fields[j].unit == self.fields[i].unit]
        actions = _ranges(self.survey.actions[:, alike])
        states = _ranges(self.survey.states[:, [self.pairs[j] for j in alike]])
        at = alike.index(i)
        rests = actions[at] < IDLE * actions.max() and states[at] < IDLE * states.max()
        return bool(actions[at] > 0 and states[at] > 0 and not rests)

    def _implausible(self, i: int) -> Iterator[Finding]:
        field, values = self.fields[i], np.abs(self.survey.actions[:, i])
        unit = field.unit.removesuffix("/s")
        if unit not in FASTEST or not len(values):
            return
        absolute = field.reference == "absolute" and unit == field.unit
        per_second = 1.0 if absolute or unit != field.unit else self.rate
        reached = float(np.quantile(values, 0.99)) * per_second
        limit = (FARTHEST if absolute else FASTEST)[unit]
        if reached > limit:
            what = unit if absolute else f"{unit}/s"
            yield self._finding(
                "scale",
                i,
                f"reaches {reached:.3g} {what} (99 % of steps lie below), more than {limit:.3g} "
                f"{what}, which no arm does",
                f"give it in {field.unit}: these look like "
                + ("degrees" if unit == "rad" else "millimetres"),
            )

    def _guess(self, scale: float) -> str:
        known = {**_FACTORS, self.rate: "a velocity against a change per step"}
        off = {abs(np.log(max(scale, 1 / scale) / factor)): name for factor, name in known.items()}
        nearest = min(off)
        return f": {off[nearest]}?" if nearest < np.log(2) else ""

    def _finding(
        self, check: str, i: int, found: str, advice: str, severity: str = "error"
    ) -> Finding:
        name = f"action {self.fields[i].name}"
        return Finding(severity, check, name, found, advice, self.survey.split)


def _ranges(values: np.ndarray) -> np.ndarray:
    """From the 1st to the 99th percentile of each column."""
    low, high = np.nanquantile(values, (0.01, 0.99), axis=0)
    return np.asarray(high - low)


def check_gripper(survey: Survey) -> Iterator[Finding]:
    """Does the measured gripper open when the action says so?"""
    robot = survey.info.robot
    if robot is None:
        return
    grippers = [i for i, name in enumerate(robot.state_fields) if "gripper" in name.lower()]
    for i, field in enumerate(robot.action_space.fields):
        if field.polarity is None or field.reference != "absolute" or not grippers:
            continue
        side = [w for w in ("left", "right") if w in field.name]
        states = [g for g in grippers if all(w in robot.state_fields[g] for w in side)]
        if len(states) != 1:
            continue
        name = robot.state_fields[states[0]]
        means_open = (field.polarity == "high_is_open") == ("clos" not in name.lower())
        # A gripper needs several steps to open.
        found = [_lagged(survey, i, states[0], lag) for lag in range(4)]
        signed = max((r for r, steps in found if steps >= LEAST_STEPS), key=abs, default=0.0)
        if abs(signed) >= FOLLOWS and (signed > 0) != means_open:
            yield Finding(
                "error",
                "gripper-polarity",
                f"action {field.name}",
                f"declared {field.polarity.replace('_', ' ')}, but the measured {name!r} goes the "
                f"other way (correlation {signed:.2f}, taking its high values for "
                f"{'closed' if 'clos' in name.lower() else 'open'})",
                "declare the other polarity, or turn the action or the state round: 1 - x",
                survey.split,
            )


def _lagged(survey: Survey, action: int, state: int, lag: int) -> tuple[float, int]:
    """Correlation of an action with a state `lag` steps later, and of how many steps."""
    episodes = [episode for episode in survey.kept if len(episode.actions) > lag]
    if not episodes:
        return 0.0, 0
    x = np.concatenate([e.actions[: len(e.actions) - lag, action] for e in episodes])
    y = np.concatenate([e.states[lag:, state] for e in episodes])
    correlation, _ = _correlate(x[:, None], y[:, None])
    return float(correlation[0, 0]), len(x)


def _responses(survey: Survey, kind: str, turns: list[int]) -> _Response:
    """Correlations of actions with changes or levels of states, at each lag."""
    tables = []
    for lag in _LAGS:
        said, done = [], []
        for episode in survey.kept:
            states = episode.states.astype(np.float64)
            after = states[1:]
            if kind == "change":
                with np.errstate(invalid="ignore"):  # infinity; such rows are left out
                    after = np.diff(states, axis=0)
                for s in turns:
                    if np.abs(states[:, s]).max(initial=0) <= 2 * np.pi + 0.1:
                        after[:, s] = (after[:, s] + np.pi) % (2 * np.pi) - np.pi
            actions = episode.actions[: len(after)]
            said.append(actions[max(0, -lag) : len(actions) - max(0, lag)])
            done.append(after[max(0, lag) : len(after) - max(0, -lag)])
        tables.append(_correlate(np.concatenate(said), np.concatenate(done)))
    correlations, ratios = zip(*tables, strict=True)
    return _Response(np.stack(correlations), np.stack(ratios))


def _correlate(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations and ratios of standard deviations, float64 [D, S], without the outer hundredths.

    0 where a column doesn't move.
    """
    usable = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    x, y = (_inner(z[usable].astype(np.float64)) for z in (x, y))
    if not len(x):
        return np.zeros((x.shape[1], y.shape[1])), np.ones((x.shape[1], y.shape[1]))
    spread_x, spread_y = x.std(axis=0), y.std(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = spread_y / spread_x[:, None]
        correlation = (x - x.mean(0)).T @ (y - y.mean(0)) / len(x) / np.outer(spread_x, spread_y)
    still = ~np.isfinite(correlation)
    correlation[still], ratio[still] = 0.0, 1.0
    return correlation, ratio


def _inner(values: np.ndarray) -> np.ndarray:
    if not len(values):
        return values
    return np.clip(values, *np.quantile(values, (0.01, 0.99), axis=0))
