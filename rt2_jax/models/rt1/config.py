"""What RT-1 is made of, its published size, and a tiny one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

DTYPES = ("float32", "bfloat16")
NORMS = ("frozen_batch", "group")
PADDINGS = ("same", "even")
INSTRUCTIONS = ("embedding", "tokens")
FEED_FORWARDS = ("linear", "swiglu")


class Stage(NamedTuple):
    """Equal blocks of EfficientNet-B0; the first of them has the stride and the new width."""

    kernel: int
    repeats: int
    channels: int
    expansion: int
    stride: int


STEM_CHANNELS = 32
TOP_CHANNELS = 1280
STAGES = (
    Stage(kernel=3, repeats=1, channels=16, expansion=1, stride=1),
    Stage(kernel=3, repeats=2, channels=24, expansion=6, stride=2),
    Stage(kernel=5, repeats=2, channels=40, expansion=6, stride=2),
    Stage(kernel=3, repeats=3, channels=80, expansion=6, stride=2),
    Stage(kernel=5, repeats=3, channels=112, expansion=6, stride=1),
    Stage(kernel=5, repeats=4, channels=192, expansion=6, stride=2),
    Stage(kernel=3, repeats=1, channels=320, expansion=6, stride=1),
)
"""EfficientNet-B0 (Tan and Le 2019, table 1), which the other sizes are scaled from."""


class Block(NamedTuple):
    """One MBConv block of a scaled network."""

    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int


def _require(config: Any, name: str, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(
            f"{type(config).__name__}.{name}: found {getattr(config, name)!r}, expected {expected}"
        )


def _require_choice(config: Any, name: str, known: tuple[str, ...]) -> None:
    _require(config, name, getattr(config, name) in known, f"one of {', '.join(known)}")


def _require_rate(config: Any, name: str) -> None:
    _require(config, name, 0 <= getattr(config, name) < 1, "0 to below 1")


@dataclasses.dataclass(frozen=True)
class EfficientNetConfig:
    """EfficientNet (Tan and Le 2019) without its classifier, scaled from B0.

    Attributes:
      image_size: height and width of a picture, in pixels.
      width: factor of all channel counts, which are rounded to multiples of 8.
      depth: factor of the blocks of a stage, rounded up.
      num_stages: the first so many of the seven stages.
      norm: `group`, groups of 8 channels (Wu and He 2018), for training from nothing;
        `frozen_batch`, batch norm with stored statistics that do not learn, for imported weights.
      padding: of convolutions with stride 2. `same`: TensorFlow's rule, half of the side, rounded
        up; `even`: as if every side were even, half of the side, rounded down.
      drop_connect_rate: in training, of the last block's residual; it grows linearly from 0.
    """

    image_size: tuple[int, int]
    width: float = 1.0
    depth: float = 1.0
    num_stages: int = len(STAGES)
    norm: str = "group"
    padding: str = "same"
    drop_connect_rate: float = 0.0

    def __post_init__(self) -> None:
        _require(self, "width", self.width > 0, "more than 0")
        _require(self, "depth", self.depth > 0, "more than 0")
        stages = range(1, len(STAGES) + 1)
        _require(self, "num_stages", self.num_stages in stages, f"1 to {len(STAGES)}")
        _require_choice(self, "norm", NORMS)
        _require_choice(self, "padding", PADDINGS)
        _require_rate(self, "drop_connect_rate")
        sides = len(self.image_size) == 2 and min(self.image_size) > 0
        _require(self, "image_size", sides, "(height, width)")
        strides = 2 * math.prod(stage.stride for stage in STAGES[: self.num_stages])
        expected = f"sides of at least {strides} pixels, which {self.num_stages} stages divide by"
        _require(self, "image_size", min(self.image_size) >= strides, expected)

    @property
    def stem_channels(self) -> int:
        """Of the first convolution."""
        return self._scaled(STEM_CHANNELS)

    @property
    def top_channels(self) -> int:
        """Of the features that come out."""
        return self._scaled(TOP_CHANNELS)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Every MBConv block, in order."""
        blocks, channels = [], self.stem_channels
        for stage in STAGES[: self.num_stages]:
            for i in range(math.ceil(stage.repeats * self.depth)):
                stride, width = 1 if i else stage.stride, self._scaled(stage.channels)
                blocks.append(Block(stage.kernel, stride, stage.expansion, channels, width))
                channels = width
        return tuple(blocks)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features."""
        rows, columns = self.image_size
        for stride in (2, *(block.stride for block in self.blocks)):
            rows, columns = self._strided(rows, stride), self._strided(columns, stride)
        return rows, columns

    def _strided(self, side: int, stride: int) -> int:
        return side // stride if self.padding == "even" else -(-side // stride)

    def _scaled(self, channels: int) -> int:
        """To the nearest multiple of 8, but not below nine tenths (Tan and Le's code)."""
        wanted = channels * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded


@dataclasses.dataclass(frozen=True)
class RT1Config:
    """RT-1 (Brohan et al. 2022): pictures of some steps and an instruction, action bins out.

    Attributes:
      vision: the picture encoder; the instruction modulates each of its blocks (FiLM).
      image_slots: (view, time) of every picture, oldest first; time 0 is now.
      instruction: `embedding`, vectors that were stored with the data (the Universal Sentence
        Encoder's 512 for RT-1's and Bridge's data); `tokens`, a small encoder learned with the
        rest.
      instruction_dim: width of the instruction's vector, and of that encoder.
      vocab_size: of its tokens; 0 with `embedding`.
      instruction_layers: its depth.
      instruction_heads: its attention heads; each has `instruction_dim / instruction_heads`
        features.
      instruction_mlp_dim: hidden width of its MLPs.
      tokens_per_image: what TokenLearner makes of a picture (Ryoo et al. 2021).
      token_learner_dim: hidden width of its MLP.
      embed_dim: width of picture tokens and of the transformer.
      num_layers: its depth.
      num_heads: its attention heads.
      head_dim: features of a head; `num_heads * head_dim` need not be `embed_dim`.
      feed_forward: `linear`, one linear map, as in RT-1's code; `swiglu`, as in RT-1-X's.
      mlp_dim: hidden width of `swiglu`; `linear` has none.
      action_tokens: the most that are ever predicted at once.
      num_bins: that an action token can be.
      dropout_rate: of the transformer, in training.
      dtype: of activations; parameters are always float32.
      scan_layers: the transformer's layers are stacked and scanned.
    """

    vision: EfficientNetConfig
    image_slots: tuple[tuple[str, int], ...] = tuple(("front", time) for time in range(-5, 1))
    instruction: str = "embedding"
    instruction_dim: int = 512
    vocab_size: int = 0
    instruction_layers: int = 2
    instruction_heads: int = 8
    instruction_mlp_dim: int = 1024
    tokens_per_image: int = 8
    token_learner_dim: int = 64
    embed_dim: int = 512
    num_layers: int = 8
    num_heads: int = 8
    head_dim: int = 128
    feed_forward: str = "linear"
    mlp_dim: int = 512
    action_tokens: int = 11
    num_bins: int = 256
    dropout_rate: float = 0.1
    dtype: str = "float32"
    scan_layers: bool = True

    def __post_init__(self) -> None:
        sizes = ("tokens_per_image", "token_learner_dim", "embed_dim", "num_layers", "num_heads")
        sentence = ("instruction_dim", "instruction_layers", "instruction_heads")
        more = ("head_dim", "mlp_dim", "action_tokens", "num_bins", "instruction_mlp_dim")
        for name in (*sizes, *sentence, *more):
            value = getattr(self, name)
            _require(self, name, type(value) is int and value > 0, "a positive integer")
        _require_choice(self, "instruction", INSTRUCTIONS)
        _require_choice(self, "feed_forward", FEED_FORWARDS)
        _require_choice(self, "dtype", DTYPES)
        _require_rate(self, "dropout_rate")
        learned = self.instruction == "tokens"
        expected = "the vocabulary's size with the instruction 'tokens'"
        _require(self, "vocab_size", self.vocab_size > 0 or not learned, expected)
        expected = "0 with the instruction 'embedding', which has no vocabulary"
        _require(self, "vocab_size", self.vocab_size == 0 or learned, expected)
        expected = f"a multiple of instruction_heads {self.instruction_heads}"
        divides = self.instruction_dim % self.instruction_heads == 0
        _require(self, "instruction_dim", divides or not learned, expected)
        slots = self.image_slots
        each_once = bool(slots) and len(set(slots)) == len(slots)
        _require(self, "image_slots", each_once, "at least one (view, time), each once")
        times = [time for _, time in slots]
        expected = "the oldest first: a picture's tokens see those before them"
        _require(self, "image_slots", times == sorted(times), expected)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every picture, in pixels."""
        return self.vision.image_size

    @property
    def placeholders_per_image(self) -> int:
        """Tokens that stand for a picture in a decoder's input: there is none."""
        return 0

    @property
    def instruction_embedding_dim(self) -> int:
        """Numbers of a stored vector that is read instead of a prompt; 0 where it reads words."""
        return self.instruction_dim if self.instruction == "embedding" else 0

    @property
    def writes_text(self) -> bool:
        """Whether it can answer in words: it writes actions only."""
        return False

    @property
    def num_image_tokens(self) -> int:
        """Of all slots together."""
        return len(self.image_slots) * self.tokens_per_image


RT1_35M = RT1Config(
    vision=EfficientNetConfig(
        image_size=(300, 300),
        width=1.2,
        depth=1.4,
        norm="frozen_batch",
        padding="even",
        drop_connect_rate=0.2,
    )
)
"""RT-1 as published: 35M parameters, 16M of them for the pictures, 19M for the transformer.

Brohan et al. 2022, section 5 and appendix C, and google-research/robotics_transformer:
`film_efficientnet/` for EfficientNet-B3 at 300 x 300 with its `even` padding (9 x 9 = 81 tokens;
`same` gives 10 x 10) and drop connect 0.2; `configs/transformer_mixin.gin` for 8 layers, 8 heads
of 128, width 512, 256 bins, dropout 0.1 and 6 steps; `tokenizers/token_learner.py` for 8 tokens and
width 64. docs/rt1.md has the counts and what differs.
"""


def rt1_tiny(vocab_size: int = 0, num_frames: int = 2) -> RT1Config:
    """The same in small, for tests and laptops: pictures of 64 x 64 pixels, an 8 x 8 map of each.

    Args:
      vocab_size: of instruction tokens; 0: stored vectors of 512 numbers.
      num_frames: steps of history with the present one.
    """
    return RT1Config(
        vision=EfficientNetConfig(image_size=(64, 64), width=0.5, depth=0.5, num_stages=3),
        image_slots=tuple(("front", time) for time in range(1 - num_frames, 1)),
        instruction="tokens" if vocab_size else "embedding",
        instruction_dim=64 if vocab_size else 512,
        vocab_size=vocab_size,
        instruction_heads=4,
        instruction_mlp_dim=128,
        token_learner_dim=32,
        embed_dim=64,
        num_layers=2,
        num_heads=4,
        head_dim=16,
        feed_forward="swiglu",
        mlp_dim=128,
        dropout_rate=0.0,
    )
