"""What a checkpoint says about itself: all that evaluation and serving need, as plain JSON."""

from __future__ import annotations

import base64
import io
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from rt2_jax import __version__
from rt2_jax.actions.binning import codec_from_json
from rt2_jax.actions.codec import ActionCodec
from rt2_jax.actions.identity import check_keys, differences, without
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.image import decode_image
from rt2_jax.data.instructions import InstructionTable
from rt2_jax.data.manifest import Manifest
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.state_text import StateText
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.data.vocabulary.tokenizer import Tokenizer, load_vocabulary
from rt2_jax.models.config import FREE_FIELDS
from rt2_jax.models.config_json import ModelConfig, config_from_json, config_to_json
from rt2_jax.models.make_model import make_model
from rt2_jax.models.model import TransformerModel
from rt2_jax.models.rt1.config import RT1Config
from rt2_jax.training.adapters import Adapters
from rt2_jax.training.checkpoints import read_description

VERSION = 2
_KEYS = (
    "version",
    "code_version",
    "model",
    "inputs",
    "vocabulary",
    "codec",
    "action_vocabulary",
    "mixture",
    "seed",
    "global_batch_size",
    "example_input",
)
_OPTIONAL_KEYS = ("instructions", "adapters")
# What the input spec has from the model: its field, and the model's.
_SAME = {
    "image_slots": "image_slots",
    "image_size": "image_size",
    "placeholders_per_image": "placeholders_per_image",
    "answer_end": "writes_text",
    "instruction_dim": "instruction_embedding_dim",
}
# What may differ between a run and the checkpoint that it goes on from: always, and where the data
# may change.
_OWN = ("code_version", "example_input")
_DATA = ("mixture", "global_batch_size", "instructions")


@dataclass(frozen=True, eq=False)
class RunDescription:
    """The item `rt2` of a checkpoint; with the weights it is all that a policy is made of.

    Attributes:
      model: the shape of the weights.
      inputs: shapes of the features, and what is done to pictures.
      tokenizer: the vocabulary. A built-in one stands in the JSON by its hash, others as a whole.
      manifest: of the mixture: tasks, prompts, shares, action spaces, statistics.
      codec: how actions are written; None for a mixture without robots.
      action_vocabulary: the tokens that they are written in; None with `codec`.
      seed: of the data's order and augmentation.
      global_batch_size: in examples.
      example_input: what a prediction reads of one example, see `ModelInputs.observe`.
      code_version: of the package that trained.
      instructions: the vectors of all instructions of the mixture, for a model that reads vectors.
      adapters: of a run with LoRA, whose checkpoints have them alone.

    Raises:
      ValueError: the parts do not belong together, or a mixture with robots has no codec.
    """

    model: ModelConfig
    inputs: InputSpec
    tokenizer: Tokenizer
    manifest: Manifest
    codec: ActionCodec | None
    action_vocabulary: ActionVocabulary | None
    seed: int
    global_batch_size: int
    example_input: Mapping[str, np.ndarray]
    code_version: str = __version__
    instructions: InstructionTable | None = None
    adapters: Adapters | None = None

    def __post_init__(self) -> None:
        check_fits(self.model, self.inputs, self.tokenizer)
        if (self.codec is None) != (self.action_vocabulary is None):
            raise ValueError("RunDescription: a codec and an action vocabulary come together")
        if self.action_vocabulary is not None:
            self.action_vocabulary.check_tokenizer(self.tokenizer)
        dim = self.instructions.encoder.dim if self.instructions else 0
        if dim != self.inputs.instruction_dim:
            raise ValueError(
                f"RunDescription: found vectors of {dim} numbers for the instructions, expected "
                f"{self.inputs.instruction_dim}, as the model reads"
            )
        words = [task.info.name for task in self.manifest.tasks if task.info.robot is None]
        if words and not self.model.writes_text:
            raise ValueError(f"the model writes actions only, but {', '.join(words)} have answers")
        for task in self.robot_tasks:
            self.action_tokens(task)
            self.state_text(task)

    @property
    def vocab_size(self) -> int:
        """How many token ids there are: the model's, which may be more than the vocabulary's."""
        return max(self.model.vocab_size, self.tokenizer.vocab_size)

    @property
    def robot_tasks(self) -> tuple[TaskInfo, ...]:
        """The tasks with actions, in the mixture's order."""
        tasks = (task.info for task in self.manifest.tasks)
        return tuple(task for task in tasks if task.robot is not None)

    def action_tokens(self, task: TaskInfo) -> ActionTokens:
        """How the actions of a robot task of this mixture are written.

        Raises:
          ValueError: the task has no actions, or nothing says how they are written.
          KeyError: the statistics are missing.
        """
        if task.robot is None:
            raise ValueError(f"task {task.name!r} has no actions")
        if self.codec is None or self.action_vocabulary is None:
            raise ValueError(
                f"task {task.name!r} has actions, but there is no action codec to write them with"
            )
        bound = self.codec.bind(task.robot.action_space, self.manifest.bounds(task))
        return ActionTokens(bound, self.action_vocabulary)

    def state_text(self, task: TaskInfo) -> StateText | None:
        """How a task's state is written before its prompt; None where the model reads none.

        Raises:
          KeyError: its robot has no such numbers, or the manifest no ranges of them.
        """
        return self.manifest.state_text(task, self.inputs.state_fields, self.inputs.state_bins)

    def make_model(self, optimizer_def: Any = None, **options: Any) -> TransformerModel:
        """The model; `options` are those of `TransformerModel`."""
        ids = None if self.action_vocabulary is None else self.action_vocabulary.ids
        return make_model(
            self.model,
            optimizer_def,
            action_token_ids=ids,
            eos_id=self.tokenizer.eos_id,
            **options,
        )

    @cached_property
    def model_inputs(self) -> ModelInputs:
        """What makes the model's features."""
        return ModelInputs(self.inputs, self.tokenizer)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives an equal description back."""
        built_in = self.tokenizer.hash == load_vocabulary().hash
        model = None if built_in else base64.b64encode(self.tokenizer.model).decode()
        vocabulary, table = self.action_vocabulary, self.instructions
        return {
            "version": VERSION,
            "code_version": self.code_version,
            "model": config_to_json(self.model),
            "inputs": self.inputs.to_json(),
            "vocabulary": {"hash": self.tokenizer.hash, "sentencepiece_model": model},
            "codec": None if self.codec is None else self.codec.to_json(),
            "action_vocabulary": None if vocabulary is None else vocabulary.to_json(),
            "mixture": self.manifest.to_json(),
            "seed": self.seed,
            "global_batch_size": self.global_batch_size,
            "example_input": _example_to_json(self.example_input),
            **({} if table is None else {"instructions": table.to_json()}),
            **({} if self.adapters is None else {"adapters": self.adapters.to_json()}),
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "description") -> RunDescription:
        """Reads what `to_json` wrote; only classes of closed registries are ever made.

        Raises:
          TypeError, KeyError, ValueError: another version, or anything missing, unknown or wrong.
        """
        check_keys(where, data, _KEYS, optional=_OPTIONAL_KEYS)
        if data["version"] != VERSION:
            raise ValueError(
                f"{where}: version {data['version']!r}, this code reads {VERSION}; it was written "
                f"by rt2_jax {data['code_version']!r}: use that release"
            )
        model = config_from_json(data["model"], f"{where}.model")
        if not isinstance(model, ModelConfig):
            raise ValueError(
                f"{where}.model: found a {type(model).__name__}, expected a whole model"
            )
        codec, vocabulary = data["codec"], data["action_vocabulary"]
        table = data.get("instructions")
        inputs = InputSpec.from_json(data["inputs"])
        return cls(
            model=model,
            inputs=inputs,
            tokenizer=_tokenizer_from_json(data["vocabulary"], f"{where}.vocabulary"),
            manifest=Manifest.from_json(data["mixture"], f"{where}.mixture"),
            codec=None if codec is None else codec_from_json(codec),
            action_vocabulary=None
            if vocabulary is None
            else ActionVocabulary.from_json(vocabulary),
            seed=data["seed"],
            global_batch_size=data["global_batch_size"],
            example_input=_example_from_json(
                data["example_input"], inputs, f"{where}.example_input"
            ),
            code_version=data["code_version"],
            instructions=None if table is None else InstructionTable.from_json(table),
            adapters=Adapters.from_json(data["adapters"], f"{where}.adapters")
            if "adapters" in data
            else None,
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: str | pathlib.Path) -> RunDescription:
        """Reads the description of a `checkpoint_<step>` directory.

        Raises:
          FileNotFoundError: it is no checkpoint, or not a whole one.
          TypeError, KeyError, ValueError: it is damaged, or of another version.
        """
        path = pathlib.Path(checkpoint)
        return cls.from_json(read_description(path), f"{path}: rt2")

    def check_same(
        self, checkpoint: Mapping[str, Any], where: str, *, may_change_data: bool = False
    ) -> None:
        """Refuses to go on from the checkpoint of another run.

        Args:
          checkpoint: the item `rt2` of the checkpoint.
          where: what errors call it.
          may_change_data: whether mixture and batch size may differ. Robots that are in both
            mixtures must be told the same numbers in the same tokens all the same.

        Raises:
          ValueError: it lists everything that differs; the code's version may.
        """
        free = _OWN + (_DATA if may_change_data else ())
        theirs = {name: value for name, value in checkpoint.items() if name not in free}
        # Fields that did not exist when it was written have their defaults.
        theirs["inputs"] = InputSpec.from_json(theirs["inputs"]).to_json()
        theirs["model"] = config_to_json(config_from_json(theirs["model"], f"{where}: model"))
        ours = {name: value for name, value in self.to_json().items() if name not in free}
        for each in (theirs, ours):
            each["model"] = without(each.get("model"), FREE_FIELDS)
            # A base that has moved is the same one: its hash says so.
            each["adapters"] = without(each.get("adapters"), ("base",))
        lines = differences(theirs, ours)
        if may_change_data:
            lines += self._other_robots(Manifest.from_json(checkpoint["mixture"], where))
        if lines:
            shown = "\n  ".join(
                line if len(line) < 200 else f"{line[:200]}..." for line in lines[:20]
            )
            more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
            advice = ""
            if not may_change_data and all(line.startswith(_DATA) for line in lines):
                advice = (
                    "; or go on with these data, if that is meant: "
                    "--gin.RunConfig.may_change_data=True"
                )
            raise ValueError(
                f"{where} is of another run (found there, not in this run):\n  {shown}{more}\n"
                f"give this run a directory of its own, or start it as that one was started{advice}"
            )

    def _other_robots(self, before: Manifest) -> list[str]:
        """One line for each robot of both mixtures whose actions or state would mean others."""
        fields, bins = self.inputs.state_fields, self.inputs.state_bins
        lines = []
        for task in self.robot_tasks:
            for earlier in (each.info for each in before.tasks):
                if earlier.robot is None or task.robot is None or _key(earlier) != _key(task):
                    continue
                old, new = before.bounds(earlier).to_json(), self.manifest.bounds(task).to_json()
                found = differences(old, new, "bounds")
                states = before.state_text(earlier, fields, bins), self.state_text(task)
                a, b = ({"low": s.ranges.low, "high": s.ranges.high} if s else {} for s in states)
                found += differences(a, b, "ranges of the state")
                lines += [f"task {task.name!r}: {line}" for line in found]
        if lines:
            lines.append(
                "a policy would be taught other numbers by the same tokens; keep those of the run: "
                f"rt2 data resolve {self.manifest.mixture} --statistics MANIFEST_OF_THE_RUN"
            )
        return lines


def _key(task: TaskInfo) -> tuple[str, str, tuple[str, ...]]:
    """What statistics and ranges of a robot go by."""
    assert task.robot is not None
    return task.robot.embodiment, task.robot.action_space.name, task.robot.state_fields


def check_fits(model: ModelConfig, inputs: InputSpec, tokenizer: Tokenizer) -> None:
    """Refuses features that are not the model's.

    Raises:
      ValueError: other image slots or sizes, or a vocabulary larger than the embedding.
    """
    for name, field in _SAME.items():
        found, expected = getattr(inputs, name), getattr(model, field)
        if found != expected:
            raise ValueError(f"InputSpec.{name}: found {found}, but the model has {expected}")
    if inputs.plan_length and not model.writes_text:
        raise ValueError(
            f"InputSpec.plan_length: found {inputs.plan_length}, but the model writes actions "
            "only; make it 0"
        )
    if isinstance(model, RT1Config) and inputs.decoder_length > model.action_tokens:
        raise ValueError(
            f"RunConfig.task_feature_lengths: found {inputs.decoder_length} targets, but the model "
            f"writes at most {model.action_tokens} action tokens (RT1Config.action_tokens) and no "
            "end; make it the number of an action's tokens"
        )
    if 0 < model.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"vocab_size of the model: found {model.vocab_size}, expected "
            f"{tokenizer.vocab_size} or more, the pieces of the vocabulary"
        )


def _example_to_json(example: Mapping[str, np.ndarray]) -> dict[str, Any]:
    pictures: list[str | None] = []
    for image, there in zip(example["images"], example["image_mask"], strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        pictures.append(base64.b64encode(file.getvalue()).decode() if there else None)
    others = {name: value for name, value in example.items() if not name.startswith("image")}
    return {
        "size": list(example["images"].shape[1:3]),
        "images": pictures,
        **{name: value.tolist() for name, value in others.items()},
    }


def _example_from_json(data: Any, inputs: InputSpec, where: str) -> dict[str, np.ndarray]:
    others = [name for name in inputs.observed if not name.startswith("image")]
    check_keys(where, data, ("size", "images", *others))
    height, width = data["size"]
    images = np.zeros((len(data["images"]), height, width, 3), np.uint8)
    for image, encoded in zip(images, data["images"], strict=True):
        if encoded is not None:
            image[:] = decode_image(base64.b64decode(encoded), where)
    return {
        "images": images,
        "image_mask": np.array([encoded is not None for encoded in data["images"]]),
        **{
            name: np.array(data[name], np.float32 if name == "instruction_embedding" else np.int32)
            for name in others
        },
    }


def _tokenizer_from_json(data: Any, where: str) -> Tokenizer:
    check_keys(where, data, ("hash", "sentencepiece_model"))
    if data["sentencepiece_model"] is None:
        tokenizer = load_vocabulary()
    else:
        tokenizer = Tokenizer(base64.b64decode(data["sentencepiece_model"]), where)
    if tokenizer.hash != data["hash"]:
        raise ValueError(
            f"{where}: the checkpoint was trained with vocabulary {data['hash'][:12]}, this "
            f"package has {tokenizer.hash[:12]}: use the release that wrote it"
        )
    return tokenizer
