"""How many parameters were published of models that have a configuration here."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

from rt2_jax.models.config import DecoderOnlyConfig, TextConfig, VisionConfig
from rt2_jax.models.published import GEMMA_2B, PALM_8B, UL2_20B
from rt2_jax.models.published_vision import (
    SIGLIP_SO400M_14,
    VIT_22B,
    VIT_B_16,
    VIT_E_14,
    VIT_G_14,
    VIT_L_16,
)
from rt2_jax.models.rt1.config import RT1_35M, RT1Config

_JFT_CLASSES = 29_593  # Collier et al. 2023 (arXiv 2301.12860), section 1


@dataclasses.dataclass(frozen=True)
class PublishedCount:
    """A published number of parameters, and what of it the configuration here does not have.

    Attributes:
      config: of the model.
      parameters: the number, with the digits that were published.
      source: where it stands.
      elsewhere: parameters that the number includes and the configuration lacks: name -> how many.
    """

    config: VisionConfig | TextConfig | DecoderOnlyConfig | RT1Config
    parameters: int
    source: str
    elsewhere: Mapping[str, int] = dataclasses.field(default_factory=dict)


def map_head_parameters(config: VisionConfig) -> int:
    """Of big_vision's `MAPHead` on a tower: a probe, attention, a norm and an MLP, with biases."""
    width, hidden = config.embed_dim, config.mlp_dim
    attention, mlp = 4 * width * (width + 1), 2 * width * hidden + hidden + width
    return width + attention + 2 * width + mlp


PUBLISHED_COUNTS: Mapping[str, PublishedCount] = types.MappingProxyType(
    {
        "ViT-B/16": PublishedCount(
            VIT_B_16, 86_000_000, "Dosovitskiy et al. 2021, table 1; two digits"
        ),
        "ViT-L/16": PublishedCount(VIT_L_16, 303_000_000, "Zhai et al. 2022, table 2"),
        "SigLIP So400m/14": PublishedCount(
            SIGLIP_SO400M_14,
            428_000_000,
            "Alabdulmohsin et al. 2023; timm's model cards: 428M, without the MAP head 412M",
            {"MAP head": map_head_parameters(SIGLIP_SO400M_14)},
        ),
        "ViT-G/14": PublishedCount(
            VIT_G_14, 1_843_000_000, "Zhai et al. 2022, table 2; Dehghani et al. 2023, table 1"
        ),
        "ViT-e/14": PublishedCount(
            VIT_E_14,
            3_926_000_000,
            "Dehghani et al. 2023, table 1; Chen et al. 2022 (PaLI)",
            {
                "MAP head": map_head_parameters(VIT_E_14),
                "JFT classifier": (VIT_E_14.embed_dim + 1) * _JFT_CLASSES,
            },
        ),
        "ViT-22B": PublishedCount(
            VIT_22B,
            21_743_000_000,
            "Dehghani et al. 2023, table 1: the kernels of the layers alone are 21,743,271,936",
        ),
        "PaLM 8B": PublishedCount(PALM_8B, 8_630_000_000, "Chowdhery et al. 2022, table 1"),
        "Gemma 2B": PublishedCount(
            GEMMA_2B, 2_506_434_560, "Gemma Team 2024, table 2: 524,550,144 + 1,981,884,416"
        ),
        "Gemma 2B of PaliGemma": PublishedCount(
            dataclasses.replace(GEMMA_2B, vocab_size=257_152),
            2_506_434_560,
            "Gemma Team 2024, table 2",
            {"1,024 rows of embedding that Gemma lacks": -1024 * GEMMA_2B.embed_dim},
        ),
        "RT-1": PublishedCount(
            RT1_35M,
            35_000_000,
            "Brohan et al. 2022, section 5.1: two digits; docs/rt1.md has the code's",
        ),
        "UL2-20B": PublishedCount(
            UL2_20B, 19_460_000_000, "the released configuration, tied; 19.5B in Tay et al. 2023"
        ),
    }
)
"""Name -> count. What is `elsewhere` was found by arithmetic: no source lists what its count has.

ViT-e's 3,926M are the tower, the MAP head and a classifier of JFT's 29,593 classes, to the last
digit; ViT-G's 1,843M and ViT-22B's 21,743M, in the same table, are towers alone.
"""
