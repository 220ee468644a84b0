"""What the demo does: every stage is commands of `rt2` that a user could type."""

from __future__ import annotations

import dataclasses
import pathlib

RUN_FILE = "gin_configs/runs/tabletop.gin"
MIXTURE = "tabletop_mix"
SKILLS = ("reach", "push")


@dataclasses.dataclass(frozen=True)
class DemoPlan:
    """How much of everything.

    Attributes:
      folder: gets everything, `report.html` and `results.json` too.
      episodes: demonstrations to record.
      scenes: of pictures of the world, each drawn four times.
      train_steps: of co-fine-tuning.
      test_episodes: for each skill and policy, on scenes that were never recorded.
      minutes: what each stage takes on two cores, for the plan that is shown.
    """

    folder: pathlib.Path
    episodes: int
    scenes: int
    train_steps: int
    test_episodes: int
    minutes: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Policy:
    """A row of the success table.

    Attributes:
      name: of its results file.
      label: as the report calls it.
      source: of `rt2 eval closed-loop`: a name, or a checkpoint that is to be served.
      swapped: whether it is told another object's name.
      film: whether films are made.
    """

    name: str
    label: str
    source: str
    swapped: bool = False
    film: bool = False

    @property
    def served(self) -> bool:
        """Whether a server answers for it."""
        return "/" in self.source


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of the plan.

    Attributes:
      name: short.
      text: what it is, for people.
      minutes: that it takes on two cores.
      commands: of `rt2`, one after the other; each goes on where it was interrupted.
      policies: to be evaluated after the commands.
    """

    name: str
    text: str
    minutes: float
    commands: tuple[tuple[str, ...], ...] = ()
    policies: tuple[Policy, ...] = ()


def short_plan(folder: pathlib.Path) -> DemoPlan:
    """About 20 minutes on two cores."""
    return DemoPlan(
        folder=folder,
        episodes=2200,
        scenes=1600,
        train_steps=5400,
        test_episodes=100,
        minutes={"record": 2, "draw": 0.5, "cache": 1, "train": 13, "drive": 3, "compare": 1},
    )


def long_plan(folder: pathlib.Path) -> DemoPlan:
    """Under two hours on two cores."""
    return DemoPlan(
        folder=folder,
        episodes=8000,
        scenes=5000,
        train_steps=34_000,
        test_episodes=200,
        minutes={"record": 7, "draw": 2, "cache": 3, "train": 74, "drive": 4, "compare": 2},
    )


def stages(plan: DemoPlan) -> tuple[Stage, ...]:
    """The demo, in order."""
    folder = plan.folder
    data, cache, run = folder / "data", folder / "cache", folder / "run"
    last = str(run / f"checkpoint_{plan.train_steps}")
    in_cache = (MIXTURE, "--cache-dir", str(cache), "--data-dir", str(data))
    return (
        Stage(
            "record",
            f"{plan.episodes} demonstrations by a scripted expert",
            plan.minutes["record"],
            (
                (
                    *("sim", "record", "--out", str(data)),
                    *("--episodes", str(plan.episodes), "--noise", "0.03", "--noise-rate", "0.2"),
                ),
            ),
        ),
        Stage(
            "draw",
            f"{4 * plan.scenes} pictures of the world's things, with captions and questions",
            plan.minutes["draw"],
            (("sim", "pictures", "--out", str(data), "--scenes", str(plan.scenes)),),
        ),
        Stage(
            "cache",
            "robot steps and web examples as training reads them",
            plan.minutes["cache"],
            (("data", "cache", *in_cache), ("data", "resolve", *in_cache[:3])),
        ),
        Stage(
            "train",
            "co-fine-tuning the checked-in vision-language model, robot and web 1:1",
            plan.minutes["train"],
            (
                (
                    *("train", f"--gin_file={RUN_FILE}"),
                    f"--gin.MODEL_DIR={run}",
                    f"--gin.CACHE_DIR={cache}",
                    f"--gin.TRAIN_STEPS={plan.train_steps}",
                ),
            ),
        ),
        Stage(
            "drive",
            f"the policy drives through the server, {plan.test_episodes} new scenes a skill",
            plan.minutes["drive"],
            policies=(
                Policy("policy", "co-fine-tuned policy", last, film=True),
                Policy("swapped", "the same, told another object's name", last, swapped=True),
                Policy("before", "the vision-language model before", str(run / "checkpoint_0")),
            ),
        ),
        Stage(
            "compare",
            "the expert and those that know nothing, on the same scenes",
            plan.minutes["compare"],
            policies=(
                Policy("expert", "scripted expert (knows where things are)", "expert"),
                Policy("random", "random actions", "random"),
                Policy("nothing", "doing nothing", "nothing"),
            ),
        ),
    )
