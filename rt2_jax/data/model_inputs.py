"""From what is seen and said to a model's features: one object for training and for serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rt2_jax.actions.identity import check_keys
from rt2_jax.data.image import Colours, Crop, resize
from rt2_jax.data.prompt_template import IMAGE_MARK, IMAGE_PLACE
from rt2_jax.data.vocabulary.tokenizer import Tokenizer
from rt2_jax.models.config import PLACEHOLDER

# What checkpoints from before the first release lack.
_LATER = {
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "placeholders_per_image": 0,
    "prompt_end": "",
    "answer_end": True,
    "instruction_dim": 0,
}
_ANSWER = ("input_tokens", "target_tokens", "loss_weights")
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
      placeholders_per_image: tokens that stand for a picture in the input of a decoder-only model,
        which reads prompt and answer as one row; 0 for a model with an encoder.
      prompt_end: text that ends a decoder-only model's prompt; "" for the end-of-sequence token.
      answer_end: whether answers end with the end-of-sequence token; False for a model that writes
        actions only, all of one length.
      instruction_dim: numbers of the vector that the model reads instead of a prompt, stored with
        the data's instructions; 0 for a model that reads words.

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
    placeholders_per_image: int = 0
    prompt_end: str = ""
    answer_end: bool = True
    instruction_dim: int = 0

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
        if self.instruction_dim and self.state_fields:
            raise ValueError(
                f"InputSpec.state_fields: found {list(self.state_fields)}, but the model reads a "
                "vector of the instruction and no prompt, where they would stand; make it ()"
            )
        if not 0 <= self.plan_length < self.decoder_length:
            raise ValueError(
                f"InputSpec.plan_length: found {self.plan_length}, expected 0 up to below the "
                f"decoder_length of {self.decoder_length}, which it is a part of"
            )

    @property
    def answer_start(self) -> int:
        """The place of an answer's first token in `decoder_target_tokens`."""
        if not self.placeholders_per_image:
            return 0
        return self.placeholders_per_image * len(self.image_slots) + self.encoder_length

    @property
    def observed(self) -> tuple[str, ...]:
        """The features that a prediction reads; the others are what it is to write."""
        if self.placeholders_per_image:
            return ("images", "image_mask", "decoder_input_tokens", "decoder_causal_attention")
        if self.instruction_dim:
            return ("images", "image_mask", "instruction_embedding")
        return ("images", "image_mask", "encoder_input_tokens")

    def batch_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """The shape of every feature of a batch."""
        row = self.answer_start + self.decoder_length
        prompt = {"encoder_input_tokens": self.encoder_length}
        if self.instruction_dim:
            prompt = {"instruction_embedding": self.instruction_dim}
        if self.placeholders_per_image:
            prompt = {"decoder_causal_attention": row}
        answer = {f"decoder_{name}": row for name in _ANSWER}
        return {
            "images": (batch_size, len(self.image_slots), *self.image_size, 3),
            "image_mask": (batch_size, len(self.image_slots)),
            **{name: (batch_size, length) for name, length in {**prompt, **answer}.items()},
        }

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
        self._begin = [tokenizer.bos_id] if tokenizer.bos_id >= 0 else []
        self._end = tokenizer.encode(spec.prompt_end) if spec.prompt_end else [tokenizer.eos_id]
        if not self._end:
            raise ValueError(
                f"InputSpec.prompt_end: {spec.prompt_end!r} is no token of the vocabulary, so "
                "prompts would have no end; choose another text"
            )

    def observe(
        self,
        images: Mapping[ImageSlot, np.ndarray | bytes],
        prompt: str,
        *,
        robot: bool,
        where: str = "observation",
        instruction_embedding: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
    ) -> dict[str, np.ndarray]:
        """What a prediction reads: the features of `InputSpec.observed`.

        Args:
          images: uint8 [H, W, 3] of any size, or encoded, for the slots that there are.
          prompt: the filled prompt; `IMAGE_PLACE` in it is where an image stands.
          robot: whether these are a robot's pictures, which `robot_crop` holds for.
          where: what errors call the example.
          instruction_embedding: float32 [instruction_dim], of a model that reads it and no prompt.
          rng: augments; None in evaluation and serving.

        Returns:
          images: uint8 [N, H, W, 3], zeros where a slot is missing.
          image_mask: bool [N].
          encoder_input_tokens: int32 [L_in], ended and padded with 0; or, of a decoder-only model,
          decoder_input_tokens: int32 [P + 1], P being `InputSpec.answer_start`: padding, pictures'
          placeholders and prompt; and decoder_causal_attention: int32 [P + 1], ones; or, of a model
          that reads no words, instruction_embedding.

        Raises:
          KeyError: a picture for a slot that the model doesn't have.
          ValueError: a damaged picture, a prompt that is too long, or one that names places of
            pictures that the model does not have.
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
            **(
                _embedding(instruction_embedding, spec.instruction_dim, where)
                if spec.instruction_dim
                else self._prompt(prompt, f"{where}: prompt {prompt!r}")
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
        end = self.spec.answer_end
        target = self._padded(tokens, self.spec.decoder_length, where, end)
        return _features(target, _weights(len(tokens), len(target), weighted, end))

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
        room, end = self.spec.plan_length, self.spec.answer_end
        action = self._padded(tokens, self.spec.decoder_length - room, where, end)
        weights = _weights(len(tokens), len(action), weighted, end)
        if room:
            words = self.tokenizer.encode(plan)
            before = self._padded(words, room, f"{where}: plan {plan!r}")
            action = np.concatenate([before, action])
            weights = np.concatenate([_weights(len(words), room, None), weights])
        return _features(action, weights)

    def complete(
        self, observed: Mapping[str, np.ndarray], answer: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The features of an example: what is observed, and what is to be written.

        Of a decoder-only model the two are one row, inputs and targets int32 and weights float32
        [P + L_out]; the answer stands at `InputSpec.answer_start` in all of them.
        """
        if not self.spec.placeholders_per_image:
            return {**observed, **answer}
        shown = observed["decoder_input_tokens"]
        prefix, inputs = len(shown) - 1, answer["decoder_input_tokens"][1:]
        target, weights = answer["decoder_target_tokens"], answer["decoder_loss_weights"]
        attention = np.concatenate(
            [observed["decoder_causal_attention"], np.zeros(len(inputs), np.int32)]
        )
        return {
            **observed,
            "decoder_input_tokens": np.concatenate([shown, inputs]),
            "decoder_target_tokens": np.concatenate([shown[1:], target]),
            "decoder_loss_weights": np.concatenate([np.zeros(prefix, np.float32), weights]),
            "decoder_causal_attention": attention,
        }

    def observed(self, example: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What a prediction may read of a complete example."""
        part = {name: example[name] for name in self.spec.observed}
        if self.spec.placeholders_per_image:
            for name in ("decoder_input_tokens", "decoder_causal_attention"):
                part[name] = part[name][: self.spec.answer_start + 1]
        return part

    def _prompt(self, prompt: str, where: str) -> dict[str, np.ndarray]:
        spec, encode = self.spec, self.tokenizer.encode
        parts, slots = prompt.split(IMAGE_PLACE), len(spec.image_slots)
        marks = len(parts) - 1
        if not spec.placeholders_per_image:
            if marks:
                raise ValueError(
                    f"{where}: found {IMAGE_MARK}, but this model reads all pictures before the "
                    "text; take it out of the prompt, or train a decoder-only model"
                )
            tokens = self._padded(encode(prompt), spec.encoder_length, where)
            return {"encoder_input_tokens": tokens}
        if marks not in (0, slots):
            raise ValueError(
                f"{where}: found {marks} times {IMAGE_MARK}, expected it {slots} times, once for "
                f"each of the image slots {list(spec.image_slots)} in their order, or never: then "
                "all pictures stand before the text"
            )
        picture = [PLACEHOLDER] * spec.placeholders_per_image
        if marks:
            words = [*self._begin, *encode(parts[0])]
            for part in parts[1:]:
                words += [*picture, *encode(part)]
        else:
            words = [*picture * slots, *self._begin, *encode(prompt)]
        words += self._end
        room = spec.answer_start
        if len(words) > room:
            before = len(picture) * slots
            raise ValueError(
                f"{where}: {len(words) - before} tokens with its beginning and end are more than "
                f"the {spec.encoder_length} that the model was given; give it more, or leave the "
                "example out"
            )
        tokens = np.zeros(room + 1, np.int32)
        tokens[room + 1 - len(words) :] = words
        return {
            "decoder_input_tokens": tokens,
            "decoder_causal_attention": np.ones(room + 1, np.int32),
        }

    def _padded(
        self, tokens: Sequence[int], length: int, where: str, end: bool = True
    ) -> np.ndarray:
        if len(tokens) + end > length:
            raise ValueError(
                f"{where}: {len(tokens)} tokens{' and the end of the sequence' if end else ''} are "
                f"more than the {length} that the model was given; give it more, or leave the "
                "example out"
            )
        padded = np.zeros(length, np.int32)
        padded[: len(tokens)] = tokens
        if end:
            padded[len(tokens)] = self.tokenizer.eos_id
        return padded


def _embedding(vector: np.ndarray | None, dim: int, where: str) -> dict[str, np.ndarray]:
    if vector is None or vector.shape != (dim,):
        found = "none" if vector is None else f"one of shape {list(vector.shape)}"
        raise ValueError(
            f"{where}: the model reads a vector of the instruction; found {found}, expected {dim} "
            "numbers"
        )
    return {"instruction_embedding": vector.astype(np.float32)}


def _weights(count: int, length: int, weighted: int | None, end: bool = True) -> np.ndarray:
    """Float32 [length]: 1 on the first `weighted` of `count` tokens, and on the end behind them."""
    weights = np.zeros(length, np.float32)
    weights[: count if weighted is None else weighted] = 1
    if end:
        weights[count] = 1
    return weights


def _features(target: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "decoder_target_tokens": target,
        "decoder_input_tokens": np.concatenate([np.zeros(1, np.int32), target[:-1]]),
        "decoder_loss_weights": weights,
    }
