"""Vision transformers under their Hugging Face names: ViT and SigLIP's tower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from rt2_jax.convert.name_map import Entry
from rt2_jax.models.config import VisionConfig

_VIT = {
    "attention.attention.query": ("attention", "query"),
    "attention.attention.key": ("attention", "key"),
    "attention.attention.value": ("attention", "value"),
    "attention.output.dense": ("attention", "out"),
    "intermediate.dense": ("mlp", "wi"),
    "output.dense": ("mlp", "wo"),
    "layernorm_before": ("pre_attention_layer_norm",),
    "layernorm_after": ("pre_mlp_layer_norm",),
}
_SIGLIP = {
    "self_attn.q_proj": ("attention", "query"),
    "self_attn.k_proj": ("attention", "key"),
    "self_attn.v_proj": ("attention", "value"),
    "self_attn.out_proj": ("attention", "out"),
    "mlp.fc1": ("mlp", "wi"),
    "mlp.fc2": ("mlp", "wo"),
    "layer_norm1": ("pre_attention_layer_norm",),
    "layer_norm2": ("pre_mlp_layer_norm",),
}
CLASS_TOKEN, POSITIONS = "embeddings.cls_token", "embeddings.position_embeddings"


def vit_map(config: VisionConfig) -> tuple[Entry, ...]:
    """ViT (`ViTModel`): the tree of `VisionTransformer`, which has no class token and no pooling.

    Published files have both: see `without_class_token`, and leave out "pooler.". They were trained
    with the exact GELU, which is within 0.0005 of ours.
    """
    positions = Entry(
        POSITIONS, (1, config.num_tokens, config.embed_dim), ("pos_embedding",), "one_row"
    )
    names = ("embeddings.patch_embeddings.projection", "encoder.layer", "layernorm")
    return (positions, *_transformer(config, *names, _VIT))


def siglip_map(config: VisionConfig) -> tuple[Entry, ...]:
    """SigLIP's picture tower (`SiglipVisionModel`): the tree of `VisionTransformer`.

    In files of the whole model `under(siglip_map(config), "vision_model.")` are its names; leave
    out "vision_model.head.", "text_model." and "logit_".
    """
    positions = Entry(
        "embeddings.position_embedding.weight",
        (config.num_tokens, config.embed_dim),
        ("pos_embedding",),
    )
    names = ("embeddings.patch_embedding", "encoder.layers", "post_layernorm")
    return (positions, *_transformer(config, *names, _SIGLIP))


def without_class_token(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A ViT's arrays without the class token and its position, the first.

    What is left computes other features than before: every patch attended to that token.
    """
    arrays = {name: array for name, array in arrays.items() if name != CLASS_TOKEN}
    return {**arrays, POSITIONS: arrays[POSITIONS][:, 1:]}


def _transformer(
    config: VisionConfig, embedding: str, layers: str, norm: str, parts: Mapping[str, tuple]
) -> Iterator[Entry]:
    plain = VisionConfig(
        config.image_size,
        config.patch_size,
        config.embed_dim,
        config.num_layers,
        config.num_heads,
        config.mlp_dim,
    )
    if config != plain:
        raise ValueError(
            f"vision: found {config}, expected {plain}: these names know no other kind of vision "
            "transformer"
        )
    width, side = config.embed_dim, config.patch_size
    patches = (width, 3, side, side)
    yield Entry(f"{embedding}.weight", patches, ("embedding", "kernel"), "convolution")
    yield Entry(f"{embedding}.bias", (width,), ("embedding", "bias"))
    yield Entry(f"{norm}.weight", (width,), ("norm", "scale"))
    yield Entry(f"{norm}.bias", (width,), ("norm", "bias"))
    for i in range(config.num_layers):
        for name, part in parts.items():
            where, path = f"{layers}.{i}.{name}", ("layers", *part)
            out = config.mlp_dim if part[-1] == "wi" else width
            if len(part) == 1:
                yield Entry(f"{where}.weight", (width,), (*path, "scale"), layer=i)
            else:
                shape = (out, config.mlp_dim if part[-1] == "wo" else width)
                yield Entry(f"{where}.weight", shape, (*path, "kernel"), "transposed", i)
            yield Entry(f"{where}.bias", (out,), (*path, "bias"), layer=i)
