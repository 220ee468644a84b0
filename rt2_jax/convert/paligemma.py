"""PaliGemma under its Hugging Face names: SigLIP's tower, a linear map, Gemma."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from rt2_jax.convert.hugging_face_text import decoder_only_map
from rt2_jax.convert.hugging_face_vision import siglip_map
from rt2_jax.convert.name_map import Entry, under
from rt2_jax.models.config import DecoderVisionLanguageConfig

_SPELLINGS = (
    (r"model\.(vision_tower|multi_modal_projector|language_model)\.", r"\1."),
    (r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
    (r"language_model\.(?!model\.|lm_head\.)", "language_model.model."),
    (r"lm_head\.", "language_model.lm_head."),
)


def paligemma_map(config: DecoderVisionLanguageConfig) -> tuple[Entry, ...]:
    """The tree of `DecoderVisionLanguageModule`, of a file with the names that Google published.

    Its embedding has 257,216 rows there, of which 257,152 are PaliGemma's: see `first_rows`. A
    model with several image slots has a `slot_embedding` besides, which no published file has.
    """
    vision, language = config.vision, config.text
    projector, path = "multi_modal_projector.linear", ("vision_projection",)
    shape = (language.embed_dim, vision.embed_dim)
    return (
        *under(siglip_map(vision), "vision_tower.vision_model.", ("vision",)),
        Entry(f"{projector}.weight", shape, (*path, "kernel"), "transposed"),
        Entry(f"{projector}.bias", shape[:1], (*path, "bias")),
        *under(decoder_only_map(language), "language_model.", ("language",)),
    )


def published_paligemma_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays under the names of the files that Google published.

    Transformers renames the parts from release to release: 5.24 leaves `vision_model.` out when it
    saves, and has `model.` before the parts in memory.
    """
    renamed = {}
    for name, array in arrays.items():
        for found, published in _SPELLINGS:
            name = re.sub(f"^{found}", published, name)
        renamed[name] = array
    return renamed
