"""What a task's numbers, pictures and texts mean: declared at registration, kept with its cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rt2_jax.actions.bounds import QuantileBounds
from rt2_jax.actions.identity import check_keys
from rt2_jax.actions.space import ActionSpace
from rt2_jax.data.instructions import InstructionEncoder
from rt2_jax.data.prompt_template import check_prompt, fill_prompt

ROBOT_PROMPT = "Q: what action should the robot take to {text}? A:"
"""RT-2, section 3.2."""
CAPTION_PROMPT = "Generate caption in en"
VQA_PROMPT = "Answer in en: {text}"
"""Both are PaLI-X's own (RT-2, appendix D)."""
DETECTION_PROMPT = "Detect the objects"
POINTING_PROMPT = "Point to the {text}"
"""Both are this project's; what is answered stands in `rt2_jax.data.places`."""
TEXT_METRICS = ("vqa_accuracy", "cider_d")
"""How answers in words can be judged, beside being equal; see docs/evaluation.md."""


@dataclass(frozen=True)
class RobotInfo:
    """Whose actions a task holds.

    Attributes:
      embodiment: the robot; with the action space it is the key of the statistics.
      action_space: of every action; it holds the control rate.
      state_fields: names of the proprioceptive state's numbers; () where there is none.
      state_bounds: (name, low, high) of numbers with a fixed range; others have that of the data.
    """

    embodiment: str
    action_space: ActionSpace
    state_fields: tuple[str, ...] = ()
    state_bounds: tuple[tuple[str, float, float], ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in self.state_bounds:
            finite = float("-inf") < low < high < float("inf")
            if name not in self.state_fields or not finite:
                raise ValueError(
                    f"robot {self.embodiment!r}: found state_bounds {low} to {high} of {name!r}, "
                    f"expected a rising range of one of {list(self.state_fields)}"
                )

    @property
    def needs_statistics(self) -> bool:
        """Whether any bound of the action space is read from statistics."""
        return any(isinstance(field.bounds, QuantileBounds) for field in self.action_space.fields)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "embodiment": self.embodiment,
            "action_space": self.action_space.to_json(),
            "state_fields": list(self.state_fields),
            "state_bounds": [list(bounds) for bounds in self.state_bounds],
        }


@dataclass(frozen=True)
class TaskInfo:
    """A task as everything behind its registration sees it.

    Attributes:
      name: the task's name in SeqIO's registry.
      prompt: of the model; `{text}` stands for a step's text (an instruction, a question). It may
        have optional slots, see `rt2_jax.data.prompt_template`.
      views: names of the pictures of a step, in order. A web task has at most one, whose name does
        not matter: it takes the model's first image slot.
      image_size: (height, width) that every picture must have, or None for any.
      robot: of a robot task; None for a web task, whose steps hold their answer as text.
      loss_weight: what the loss of its examples is multiplied by, if a run says nothing else. It
        is no part of what is cached.
      instruction_encoder: what made the vectors that are stored with a robot's instructions; None
        where there are none.
      metrics: of `TEXT_METRICS`, what a web task's answers are judged by, beside being equal; None
        for those of its prompt, see `rt2_jax.data.prompts.text_metrics`. Not cached either.

    Raises:
      ValueError: a robot task without views or without `{text}` in its prompt, a prompt that could
        not be filled, a view twice, a web task with several views or instructions, or an unknown
        metric.
    """

    name: str
    prompt: str
    views: tuple[str, ...]
    image_size: tuple[int, int] | None = None
    robot: RobotInfo | None = None
    loss_weight: float = field(default=1.0, compare=False)
    instruction_encoder: InstructionEncoder | None = None
    metrics: tuple[str, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        def refuse(problem: str) -> None:
            raise ValueError(f"task {self.name!r}: {problem}")

        if len(set(self.views)) < len(self.views):
            refuse(f"found views {list(self.views)}, expected each once")
        if self.robot is None and len(self.views) > 1:
            refuse(f"a web task has at most one picture, found views {list(self.views)}")
        if self.robot is None and self.instruction_encoder is not None:
            refuse("a web task has no instructions, so it has no vectors of them")
        if self.robot is not None and not self.views:
            refuse("a robot task needs one view or more, found none")
        if self.robot is not None and "{text}" not in self.prompt:
            refuse(f"prompt {self.prompt!r} has no {{text}}, where the instruction goes")
        if not 0 <= self.loss_weight < float("inf"):
            refuse(f"found loss_weight {self.loss_weight}, expected a number from 0")
        if unknown := sorted(set(self.metrics or ()) - set(TEXT_METRICS)):
            refuse(f"found metrics {unknown}, expected some of {', '.join(TEXT_METRICS)}")
        if self.metrics and self.robot is not None:
            refuse("metrics are of answers in words, but a robot's are actions")
        try:
            check_prompt(self.prompt)
        except ValueError as error:
            refuse(str(error))

    def fill_prompt(self, text: str) -> str:
        """The prompt for a step's text, which brings the values of slots, a line for each.

        Raises:
          ValueError: as `rt2_jax.data.prompt_template.fill_prompt`.
        """
        return fill_prompt(self.prompt, text)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives an equal value back."""
        data: dict[str, Any] = {
            "name": self.name,
            "prompt": self.prompt,
            "views": list(self.views),
            "image_size": list(self.image_size) if self.image_size else None,
            "robot": self.robot.to_json() if self.robot else None,
        }
        if self.loss_weight != 1:
            data["loss_weight"] = self.loss_weight
        if self.instruction_encoder is not None:
            data["instruction_encoder"] = self.instruction_encoder.to_json()
        if self.metrics is not None:
            data["metrics"] = list(self.metrics)
        return data

    @classmethod
    def from_json(cls, data: Any) -> TaskInfo:
        """Reads what `to_json` wrote; unknown and missing keys are refused by name."""
        names = ("name", "prompt", "views", "image_size", "robot")
        optional = ("loss_weight", "instruction_encoder", "metrics")
        check_keys("task", data, names, optional=optional)
        robot, encoder = data["robot"], data.get("instruction_encoder")
        if robot is not None:
            of_robot = ("embodiment", "action_space", "state_fields", "state_bounds")
            check_keys("task's robot", robot, of_robot)
            robot = RobotInfo(
                robot["embodiment"],
                ActionSpace.from_json(robot["action_space"]),
                tuple(robot["state_fields"]),
                tuple((name, low, high) for name, low, high in robot["state_bounds"]),
            )
        size = data["image_size"]
        return cls(
            data["name"],
            data["prompt"],
            tuple(data["views"]),
            (size[0], size[1]) if size else None,
            robot,
            data.get("loss_weight", 1.0),
            InstructionEncoder.from_json(encoder) if encoder else None,
            tuple(data["metrics"]) if data.get("metrics") is not None else None,
        )
