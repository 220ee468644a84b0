"""One step of a task as the cache keeps it: nothing in it depends on a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgpack
import numpy as np

from rt2_jax.actions.space import check_actions
from rt2_jax.data.image import decode_image
from rt2_jax.data.task_info import TaskInfo


@dataclass(frozen=True)
class TaskStep:
    """A step of a robot episode, or a web example (an episode of one step).

    Attributes:
      images: encoded pictures (JPEG or PNG), in the order of the task's views.
      text: the instruction or question; what goes into the task's prompt.
      target: the answer of a web example; in a robot task the plan, which a model may be trained
        to write before the action ("" where there is none).
      action: float32 [D], native units; D = 0 in a web task.
      state: float32 [S]; S = 0 where there is none.
      episode: its number in the split, from 0.
      step: its number in the episode, from 0.
      episode_id: the data set's own name for the episode.
      instruction_embedding: float32 [E], the vector that is stored with the text; E = 0 where there
        is none, and in a cached step: a cache keeps one for each text (`StepCache.instructions`).
      references: what several people answered, of a web example that has it; evaluation reads it,
        training does not.
    """

    images: tuple[bytes, ...]
    text: str
    target: str
    action: np.ndarray
    state: np.ndarray
    episode: int
    step: int
    episode_id: str
    instruction_embedding: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    references: tuple[str, ...] = ()

    def pack(self) -> bytes:
        """A msgpack map; arrays are little-endian float32. Equal steps give equal bytes.

        The instruction's vector is left out.
        """
        data = {
            **self.__dict__,
            "action": self.action.astype("<f4").tobytes(),
            "state": self.state.astype("<f4").tobytes(),
        }
        del data["instruction_embedding"]
        if not self.references:  # so were steps before there were any
            del data["references"]
        packed: bytes = msgpack.packb(data)
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> TaskStep:
        """Reads what `pack` wrote."""
        values = msgpack.unpackb(data)
        for name in ("action", "state"):
            values[name] = np.frombuffer(values[name], "<f4")
        for name in ("images", "references"):
            values[name] = tuple(values.get(name, ()))
        return cls(**values)

    def check(self, info: TaskInfo) -> None:
        """Refuses a step that training could not use.

        Raises:
          ValueError: a NaN or wrong shape in action or state, a picture that is missing, damaged or
            of the wrong size, an empty text. The message names task, episode, step and field.
        """
        where = (
            f"task {info.name!r}, episode {self.episode} ({self.episode_id!r}), step {self.step}"
        )
        if info.robot is None:
            wrong_empty = "target" if not self.target else ""
        else:
            wrong_empty = "text" if not self.text.strip() else ""
            check_actions(info.robot.action_space, self.action, f"{where}: action")
            names = info.robot.state_fields
            if self.state.shape != (len(names),):
                raise ValueError(
                    f"{where}: state has shape {list(self.state.shape)}, expected the "
                    f"{len(names)} numbers {list(names)}"
                )
            for name, value in zip(names, self.state, strict=True):
                if not np.isfinite(value):
                    raise ValueError(f"{where}: state {name!r} is {value}, expected a number")
        vector = self.instruction_embedding
        dim = info.instruction_encoder.dim if info.instruction_encoder else 0
        if vector.shape != (dim,) or not np.all(np.isfinite(vector)):
            raise ValueError(
                f"{where}: instruction_embedding has shape {list(vector.shape)} and "
                f"{int(np.sum(~np.isfinite(vector)))} numbers that are not finite, expected {dim} "
                "numbers; what made them is declared at registration (instruction_encoder)"
            )
        if wrong_empty:
            raise ValueError(f"{where}: the {wrong_empty} is empty")
        if len(self.images) != len(info.views):
            raise ValueError(
                f"{where}: found {len(self.images)} pictures, expected the views {list(info.views)}"
            )
        for view, image in zip(info.views, self.images, strict=True):
            size = decode_image(image, f"{where}, view {view!r}").shape[:2]
            if info.image_size and size != info.image_size:
                raise ValueError(
                    f"{where}, view {view!r}: the picture has {size[0]} x {size[1]} pixels, the "
                    f"task declares {info.image_size[0]} x {info.image_size[1]} (height x width)"
                )
