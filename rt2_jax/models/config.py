"""What a vision-language model is made of: frozen dataclasses; config_json.py has their JSON."""

from __future__ import annotations

import dataclasses

ACTIVATIONS = ("gelu", "relu", "silu", "linear")
DTYPES = ("float32", "bfloat16")
STEMS = ("patch", "conv")
EMBEDDING_SCALES = ("none", "inputs", "logits")
PREFIX_ATTENTIONS = ("bidirectional", "causal")
PADDING = 0
"""The id of padding, T5's convention."""
PLACEHOLDER = -1
"""Stands for one token of a picture in a decoder-only model's input.

No vocabulary has this id, so none has to reserve one.
"""
IMPLEMENTATIONS = ("xla", "fused")
REMAT = ("none", "full", "dots", "named")

FREE_FIELDS = ("attention", "remat")
"""Fields that say how numbers are computed, not which: they may differ between any two runs."""


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A vision transformer (Dosovitskiy et al. 2021) without a classification head.

    Attributes:
      image_size: height and width of a picture, in pixels.
      patch_size: side of the square that becomes one token, in pixels.
      embed_dim: width of the transformer.
      num_layers: its depth.
      num_heads: attention heads; each has `embed_dim / num_heads` features.
      mlp_dim: hidden width of the MLPs.
      stem: `patch`, one linear map of a patch's pixels; `conv`, 3x3 convolutions of stride 2 down
        to the same grid (Xiao et al. 2021), which learn from far fewer pictures; `patch_size` is
        then a power of two.
      parallel_block: attention and MLP read the same normed input and are added together, instead
        of one after the other. This and what follows is as in the ViT of 2021; ViT-22B has the
        opposite of each (Dehghani et al. 2023, section 2).
      qk_norm: queries and keys of each head are normed before their product.
      qkv_bias: the projections to queries, keys and values have biases. The attention's output and
        the MLP have them in any case.
      norm_bias: norms have a bias, not only a scale.
      norm_centering: norms take the mean away first.
    """

    image_size: tuple[int, int]
    patch_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    stem: str = "patch"
    parallel_block: bool = False
    qk_norm: bool = False
    qkv_bias: bool = True
    norm_bias: bool = True
    norm_centering: bool = True

    def __post_init__(self) -> None:
        _check_positive(self, "patch_size", "embed_dim", "num_layers", "num_heads", "mlp_dim")
        _check_choice(self, "stem", STEMS)
        if len(self.image_size) != 2 or min(self.image_size) <= 0:
            raise ValueError(
                f"VisionConfig.image_size: found {self.image_size}, expected (height, width)"
            )
        if any(side % self.patch_size for side in self.image_size):
            raise ValueError(
                f"VisionConfig.image_size: found {self.image_size}, expected multiples of "
                f"patch_size {self.patch_size}"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"VisionConfig.embed_dim: found {self.embed_dim}, expected a multiple of "
                f"num_heads {self.num_heads}"
            )
        if self.embed_dim % 4:
            raise ValueError(
                f"VisionConfig.embed_dim: found {self.embed_dim}, expected a multiple of 4 "
                "(a sine and a cosine for rows and for columns)"
            )
        if self.stem == "conv" and (self.patch_size < 2 or self.patch_size & (self.patch_size - 1)):
            raise ValueError(
                f"VisionConfig.patch_size: found {self.patch_size}, expected a power of two with "
                "the stem 'conv'"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Tokens of one picture."""
        return self.grid[0] * self.grid[1]


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """A T5 1.1 encoder-decoder (Raffel et al. 2020; Shazeer 2020 for the gated MLP).

    Attributes:
      vocab_size: rows of the embedding; at least the vocabulary's size.
      embed_dim: width of encoder and decoder.
      encoder_layers: depth of the encoder.
      decoder_layers: depth of the decoder.
      num_heads: attention heads.
      head_dim: features of a head; `num_heads * head_dim` need not be `embed_dim`.
      mlp_dim: hidden width of the MLPs.
      mlp_activations: one for each input projection, multiplied: `("gelu", "linear")` is T5 1.1,
        `("silu", "linear")` UL2, `("relu",)` T5 1.0.
      relative_buckets: of the relative position bias.
      relative_max_distance: beyond it all distances share a bucket.
      tie_embeddings: the output layer is the embedding (T5 1.0, UL2-20B) instead of its own.
      dropout_rate: in training.
      relative_bias_per_layer: every layer has a relative position bias of its own (umT5) instead of
        one for the encoder and one for the decoder.
    """

    vocab_size: int
    embed_dim: int
    encoder_layers: int
    decoder_layers: int
    num_heads: int
    head_dim: int
    mlp_dim: int
    mlp_activations: tuple[str, ...] = ("gelu", "linear")
    relative_buckets: int = 32
    relative_max_distance: int = 128
    tie_embeddings: bool = False
    dropout_rate: float = 0.0
    relative_bias_per_layer: bool = False

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "embed_dim", "encoder_layers", "decoder_layers", "num_heads")
        _check_positive(self, *sizes, "head_dim", "mlp_dim")
        _check_activations(self)
        if self.relative_buckets < 4 or self.relative_buckets % 2:
            raise ValueError(
                f"TextConfig.relative_buckets: found {self.relative_buckets}, expected an even "
                "number from 4"
            )
        if self.relative_max_distance <= self.relative_buckets // 2:
            raise ValueError(
                f"TextConfig.relative_max_distance: found {self.relative_max_distance}, expected "
                f"more than half of relative_buckets {self.relative_buckets}"
            )
        _check_dropout(self)

    @property
    def embedding_stddev(self) -> float:
        """Of new embeddings."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class DecoderOnlyConfig:
    """A decoder-only language model with rotary positions: PaLM, Gemma 1, Llama and their like.

    Attributes:
      vocab_size: rows of the embedding; at least the vocabulary's size.
      embed_dim: width.
      num_layers: depth.
      num_heads: attention heads of the queries.
      num_kv_heads: of keys and values: 1 is multi-query attention (Shazeer 2019), `num_heads` is
        multi-head attention, what lies between is grouped-query attention (Ainslie et al. 2023).
      head_dim: features of a head, an even number.
      mlp_dim: hidden width of the MLPs, of each input projection.
      mlp_activations: one for each input projection, multiplied: `("silu", "linear")` is SwiGLU,
        `("gelu", "linear")` GeGLU (Shazeer 2020).
      parallel_block: attention and MLP read the same normed input and are added together (PaLM,
        section 2), instead of one after the other.
      norm_scale_plus_one: norms multiply by 1 + their parameter, which begins at 0.
      norm_epsilon: added to the mean square.
      embedding_scale: where the root of the width stands. `inputs`: embedded tokens are multiplied
        by it (Gemma); `logits`: those of the tied output are divided by it (PaLM, section 5);
        `none`.
      tie_embeddings: the output layer is the embedding.
      rope_max_wavelength: base of the rotary positions' wave lengths.
      dropout_rate: in training.
    """

    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    mlp_activations: tuple[str, ...] = ("silu", "linear")
    parallel_block: bool = False
    norm_scale_plus_one: bool = False
    norm_epsilon: float = 1e-6
    embedding_scale: str = "none"
    tie_embeddings: bool = True
    rope_max_wavelength: float = 10_000.0
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "embed_dim", "num_layers", "num_heads", "num_kv_heads")
        _check_positive(self, *sizes, "head_dim", "mlp_dim")
        _check_activations(self)
        _check_choice(self, "embedding_scale", EMBEDDING_SCALES)
        _check_dropout(self)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"DecoderOnlyConfig.num_kv_heads: found {self.num_kv_heads}, expected a divisor of "
                f"num_heads {self.num_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"DecoderOnlyConfig.head_dim: found {self.head_dim}, expected an even number: "
                "rotary positions turn pairs of features"
            )
        if self.embedding_scale == "logits" and not self.tie_embeddings:
            raise ValueError(
                "DecoderOnlyConfig.embedding_scale: found 'logits' without tie_embeddings, "
                "expected 'inputs' or 'none': an output layer of its own needs no scale"
            )
        if self.norm_epsilon <= 0:
            raise ValueError(
                f"DecoderOnlyConfig.norm_epsilon: found {self.norm_epsilon}, expected more than 0"
            )
        if self.rope_max_wavelength <= 1:
            raise ValueError(
                f"DecoderOnlyConfig.rope_max_wavelength: found {self.rope_max_wavelength}, "
                "expected more than 1"
            )

    @property
    def embedding_stddev(self) -> float:
        """Of new embeddings.

        PaLM's table has entries around 1, Gemma's around the inverse root of the width: with their
        scales, embedded tokens and logits begin around 1 in both.
        """
        return 1.0 if self.embedding_scale == "logits" else self.embed_dim**-0.5


@dataclasses.dataclass(frozen=True)
class VisionLanguageConfig:
    """PaLI-X's shape (Chen et al. 2023): pictures, then text, into an encoder-decoder.

    Attributes:
      vision: the picture encoder.
      text: the encoder-decoder.
      image_slots: (view, time) of every picture that an example may have, in order; time 0 is now
        and -1 the step before.
      dtype: of activations; parameters are always float32.
      scan_layers: layers are stacked and scanned: compile time no longer grows with depth.
      remat: what the backward pass keeps of every layer, to trade memory for time: `none`, keep
        all; `dots`, products with weights; `named`, all but the MLP's hidden features and the
        attention weights; `full`, the layer's input alone.
      attention: `xla`, or `fused`, a kernel where there is one; see `attention.attend`.
    """

    vision: VisionConfig
    text: TextConfig
    image_slots: tuple[tuple[str, int], ...] = (("front", 0),)
    dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self) -> None:
        _check_whole(self)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every picture, in pixels."""
        return self.vision.image_size

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.text.vocab_size

    @property
    def tokens_per_image(self) -> int:
        """Positions of a picture in the row that the language model reads."""
        return self.vision.num_tokens

    @property
    def placeholders_per_image(self) -> int:
        """Tokens that stand for a picture in the decoder's input: none, there is an encoder."""
        return 0

    @property
    def instruction_embedding_dim(self) -> int:
        """Numbers of a vector that is read instead of a prompt: none, it reads words."""
        return 0

    @property
    def writes_text(self) -> bool:
        """Whether it can answer in words."""
        return True


@dataclasses.dataclass(frozen=True)
class DecoderVisionLanguageConfig:
    """PaLM-E's and PaliGemma's shape: pictures among the tokens of a decoder-only model's prefix.

    Attributes:
      vision: the picture encoder.
      text: the language model.
      image_slots: (view, time) of every picture that an example may have, in order.
      prefix_attention: how a prompt and its pictures see each other: `bidirectional` (PaliGemma,
        Beyer et al. 2024, section 3.2) or `causal` (PaLM-E, Driess et al. 2023, section 3).
      dtype: of activations; parameters are always float32.
      scan_layers: layers are stacked and scanned: compile time no longer grows with depth.
      remat: as of `VisionLanguageConfig`.
      attention: as of `VisionLanguageConfig`.
    """

    vision: VisionConfig
    text: DecoderOnlyConfig
    image_slots: tuple[tuple[str, int], ...] = (("front", 0),)
    prefix_attention: str = "bidirectional"
    dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self) -> None:
        _check_whole(self)
        _check_choice(self, "prefix_attention", PREFIX_ATTENTIONS)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every picture, in pixels."""
        return self.vision.image_size

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.text.vocab_size

    @property
    def tokens_per_image(self) -> int:
        """Positions of a picture in the row that the language model reads."""
        return self.vision.num_tokens

    @property
    def placeholders_per_image(self) -> int:
        """Tokens that stand for a picture in the decoder's input."""
        return self.vision.num_tokens

    @property
    def instruction_embedding_dim(self) -> int:
        """Numbers of a vector that is read instead of a prompt: none, it reads words."""
        return 0

    @property
    def writes_text(self) -> bool:
        """Whether it can answer in words."""
        return True


def tiny_config(vocab_size: int) -> VisionLanguageConfig:
    """The smallest model that was seen to point at named things: 1.3M parameters at 8,000 pieces.

    For tests and laptops: pictures of 64 x 64 pixels, 64 tokens each.
    """
    return VisionLanguageConfig(
        vision=VisionConfig(
            image_size=(64, 64),
            patch_size=8,
            embed_dim=64,
            num_layers=1,
            num_heads=4,
            mlp_dim=128,
            stem="conv",
        ),
        text=TextConfig(
            vocab_size=vocab_size,
            embed_dim=64,
            encoder_layers=2,
            decoder_layers=2,
            num_heads=4,
            head_dim=16,
            mlp_dim=128,
        ),
    )


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if type(value) is not int or value <= 0:
            raise ValueError(
                f"{type(config).__name__}.{name}: found {value!r}, expected a positive integer"
            )


def _check_choice(config: object, name: str, known: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in known:
        raise ValueError(
            f"{type(config).__name__}.{name}: found {value!r}, expected one of {', '.join(known)}"
        )


def _check_activations(config: TextConfig | DecoderOnlyConfig) -> None:
    unknown = sorted(set(config.mlp_activations) - set(ACTIVATIONS))
    if unknown or not config.mlp_activations:
        raise ValueError(
            f"{type(config).__name__}.mlp_activations: found {config.mlp_activations}, expected "
            f"some of {', '.join(ACTIVATIONS)}"
        )


def _check_dropout(config: TextConfig | DecoderOnlyConfig) -> None:
    if not 0 <= config.dropout_rate < 1:
        raise ValueError(
            f"{type(config).__name__}.dropout_rate: found {config.dropout_rate}, expected 0 to "
            "below 1"
        )


def _check_whole(config: VisionLanguageConfig | DecoderVisionLanguageConfig) -> None:
    _check_choice(config, "dtype", DTYPES)
    _check_choice(config, "remat", REMAT)
    _check_choice(config, "attention", IMPLEMENTATIONS)
    if not config.image_slots or len(set(config.image_slots)) != len(config.image_slots):
        raise ValueError(
            f"{type(config).__name__}.image_slots: found {config.image_slots}, expected at least "
            "one (view, time), each once"
        )
