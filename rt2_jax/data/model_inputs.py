"""From what is seen and said to a model's features: one object for training and for serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rt2_jax.actions.identity import check_keys
from rt2_jax.data.image import Colours, Crop, resize
from rt2_jax.data.vocabulary.tokenizer import Tokenizer

# What checkpoints from before the first release lack.
_LATER = {"contrast": 0.0, "saturation": 0.0, "hue": 0.0}
ImageSlot = tuple[str, int]
"""A view and its time: ("front", 0) is the front camera now, ("front", -1) a step earlier."""


@dataclass(frozen=True)
class InputSpec:
    """The shapes of a model's features, and what is done to pictures.

    Attributes:
      image_slots: N views and times, in the model's order.
      image_size: (height, width) of every picture, in pixels.
      encoder_length: tokens of the prompt, its end-of-sequence token included.
      decoder_length: tokens of the answer, its end-of-sequence token included.
      plan_length: the first tokens of a robot's answer, which hold its plan and an end-of-sequence
        token, padded with 0, so that actions have one place in all answers; 0 leaves plans out.
      robot_crop: side of the crop of robot pictures, as a fraction; 1 is no crop. It lies anywhere
        in training and in the centre otherwise. Web pictures are never cropped, since answers may
        name places in them.
      brightness: in training, all pictures of an example are multiplied by a factor from
        1 - brightness to 1 + brightness. For this and the next three, see `Colours`.
      contrast: the same of their contrast.
      saturation: the same of their saturation.
      hue: in training, all pictures of an example are turned in hue by up to so many turns.
      action_input_dropout: in training, the part of a robot's earlier tokens that the decoder is
        not shown (word dropout, Bowman et al. 2016, section 3.1). With few demonstrations an
        action's first tokens tell the others, and what the picture says is not learned.
      state_fields: the numbers of a robot's state that are written before its prompt, see
        `StateText`; () for none, as in RT-2.
      state_bins: the parts that each of their ranges is written in.

    Raises:
      ValueError: no slots or one twice, a time after now, or a number out of its range.
    """

    image_slots: tuple[ImageSlot, ...]
    image_size: tuple[int, int]
    encoder_length: int
    decoder_length: int
    robot_crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    action_input_dropout: float = 0.0
    plan_length: int = 0
    state_fields: tuple[str, ...] = ()
    state_bins: int = 256

    def __post_init__(self) -> None:
        slots = self.image_slots
        if not slots or len(set(slots)) < len(slots) or any(time > 0 for _, time in slots):
            raise ValueError(
                f"InputSpec.image_slots: found {slots}, expected some (view, time), each once, "
                "time 0 or negative"
            )
        lengths = (*self.image_size, self.encoder_length, self.decoder_length)
        if len(self.image_size) != 2 or min(lengths) < 1:
            raise ValueError(f"{self}: expected sizes and lengths of 1 or more")
        if not 0 < self.robot_crop <= 1:
            raise ValueError(
                f"InputSpec.robot_crop: found {self.robot_crop}, expected above 0 up to 1"
            )
        for name, limit in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0.5)):
            if not 0 <= getattr(self, name) < limit:
                raise ValueError(
                    f"InputSpec.{name}: found {getattr(self, name)}, expected 0 to below {limit}"
                )
        if not 0 <= self.action_input_dropout <= 1:
            raise ValueError(
                f"InputSpec.action_input_dropout: found {self.action_input_dropout}, not in 0..1"
            )

        if self.state_bins < 2:
            raise ValueError(f"InputSpec.state_bins: found {self.state_bins}, expected 2 or more")
        if not 0 <= self.plan_length < self.decoder_length:
            raise ValueError(
                f"InputSpec.plan_length: found {self.plan_length}, expected 0 up to below the "
                f"decoder_length of {self.decoder_length}, which it is a part of"
            )

    @property
    def colours(self) -> Colours:
        """The limits of the change of colours in training."""
        return Colours(self.brightness, self.contrast, self.saturation, self.hue)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives an equal spec back."""
        slots = [list(slot) for slot in self.image_slots]
        lists = {"image_size": list(self.image_size), "state_fields": list(self.state_fields)}
        return {**asdict(self), "image_slots": slots, **lists}

    @classmethod
    def from_json(cls, data: Any) -> InputSpec:
        """Reads what `to_json` wrote; unknown and missing keys are refused by name."""
        data = {**_LATER, **data} if isinstance(data, Mapping) else data
        check_keys("input spec", data, tuple(cls.__dataclass_fields__))
        slots = tuple((view, time) for view, time in data["image_slots"])
        height, width = data["image_size"]
        fields = tuple(data["state_fields"])
        tuples = {"image_slots": slots, "image_size": (height, width), "state_fields": fields}
        return cls(**{**data, **tuples})


class ModelInputs:
    """Makes a model's features of pictures, prompts and answers, for one example.

    Args:
      spec: the shapes.
      tokenizer: the vocabulary.

    Raises:
      ValueError: the vocabulary has no end-of-sequence id, or its padding is not 0.
    """

    def __init__(self, spec: InputSpec, tokenizer: Tokenizer) -> None:
        if tokenizer.pad_id != 0 or tokenizer.eos_id < 0:
            raise ValueError(
                f"the vocabulary pads with id {tokenizer.pad_id} and ends with "
                f"{tokenizer.eos_id}, expected 0 and an id (T5's convention)"
            )
        self.spec = spec
        self.tokenizer = tokenizer

    def observe(
        self,
        images: Mapping[ImageSlot, np.ndarray | bytes],
        prompt: str,
        *,
        robot: bool,
        where: str = "observation",
        rng: np.random.Generator | None = None,
    ) -> dict[str, np.ndarray]:
        """What the encoder reads.

        Args:
          images: uint8 [H, W, 3] of any size, or encoded, for the slots that there are.
          prompt: the filled prompt.
          robot: whether these are a robot's pictures, which `robot_crop` holds for.
          where: what errors call the example.
          rng: augments; None in evaluation and serving.

        Returns:
          images: uint8 [N, H, W, 3], zeros where a slot is missing.
          image_mask: bool [N].
          encoder_input_tokens: int32 [L_in].

        Raises:
          KeyError: a picture for a slot that the model doesn't have.
          ValueError: a damaged picture, or a prompt that is too long.
        """
        spec = self.spec
        unknown = [slot for slot in images if slot not in spec.image_slots]
        if unknown:
            raise KeyError(
                f"{where}: pictures for {unknown}, but the model has the image slots "
                f"{list(spec.image_slots)}"
            )
        crop = Crop.choose(spec.robot_crop, rng) if robot and spec.robot_crop < 1 else None
        colours = Colours() if rng is None else Colours.choose(spec.colours, rng)
        pixels = np.zeros((len(spec.image_slots), *spec.image_size, 3), np.uint8)
        for i, slot in enumerate(spec.image_slots):
            if slot in images:
                view = f"{where}, view {slot[0]!r}"
                small = resize(images[slot], spec.image_size, crop, view)
                pixels[i] = colours.apply(small)
        return {
            "images": pixels,
            "image_mask": np.array([slot in images for slot in spec.image_slots]),
            "encoder_input_tokens": self._padded(
                self.tokenizer.encode(prompt), spec.encoder_length, f"{where}: prompt {prompt!r}"
            ),
        }

    def answer(
        self, tokens: Sequence[int], *, weighted: int | None = None, where: str = "answer"
    ) -> dict[str, np.ndarray]:
        """What the decoder is to write.

        Args:
          tokens: ids of the answer, without the end of the sequence.
          weighted: how many of them count in the loss, with the end of the sequence after the last
            one; None for all.
          where: what errors call the example.

        Returns:
          decoder_target_tokens: int32 [L_out], ended and padded with 0.
          decoder_input_tokens: int32 [L_out], the same after a 0 (T5's start).
          decoder_loss_weights: float32 [L_out], 1 on what counts.

        Raises:
          ValueError: the answer is too long.
        """
        target = self._padded(tokens, self.spec.decoder_length, where)
        return _features(target, _weights(len(tokens), len(target), weighted))

    def act(
        self,
        plan: str,
        tokens: Sequence[int],
        *,
        weighted: int | None = None,
        where: str = "action",
    ) -> dict[str, np.ndarray]:
        """What the decoder is to write for a robot: a plan where the spec has one, and the action.

        Args:
          plan: in words.
          tokens: ids of the action.
          weighted: how many of them count in the loss, as in `answer`.
          where: what errors call the example.

        Returns:
          As `answer`. The padding behind a plan has no weight, as that behind the action.

        Raises:
          ValueError: plan or action is too long.
        """
        room = self.spec.plan_length
        action = self._padded(tokens, self.spec.decoder_length - room, where)
        weights = _weights(len(tokens), len(action), weighted)
        if room:
            words = self.tokenizer.encode(plan)
            before = self._padded(words, room, f"{where}: plan {plan!r}")
            action = np.concatenate([before, action])
            weights = np.concatenate([_weights(len(words), room, None), weights])
        return _features(action, weights)

    def _padded(self, tokens: Sequence[int], length: int, where: str) -> np.ndarray:
        if len(tokens) + 1 > length:
            raise ValueError(
                f"{where}: {len(tokens)} tokens and the end of the sequence are more than the "
                f"{length} that the model was given; give it more, or leave the example out"
            )
        padded = np.zeros(length, np.int32)
        padded[: len(tokens) + 1] = [*tokens, self.tokenizer.eos_id]
        return padded


def _weights(count: int, length: int, weighted: int | None) -> np.ndarray:
    """Float32 [length]: 1 on the first `weighted` of `count` tokens, and on the end behind them."""
    weights = np.zeros(length, np.float32)
    weights[: count if weighted is None else weighted] = 1
    weights[count] = 1
    return weights


def _features(target: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "decoder_target_tokens": target,
        "decoder_input_tokens": np.concatenate([np.zeros(1, np.int32), target[:-1]]),
        "decoder_loss_weights": weights,
    }
