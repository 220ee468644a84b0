"""Published vision transformers by name: their dimensions, and where these stand.

All at 224 x 224 pixels; `dataclasses.replace(..., image_size=...)` gives another resolution. Width,
depth, MLP and heads of all but ViT-22B also stand in big_vision's `models/vit.py`
(`decode_variant`); its GELU (by tanh), its norms' epsilon (1e-6) and its patch embedding's bias are
taken for all of them.
"""

from __future__ import annotations

from rt2_jax.models.config import VisionConfig

VIT_B_16 = VisionConfig(
    image_size=(224, 224), patch_size=16, embed_dim=768, num_layers=12, num_heads=12, mlp_dim=3072
)
"""ViT-B/16 (Dosovitskiy et al. 2021, table 1)."""

VIT_L_16 = VisionConfig(
    image_size=(224, 224), patch_size=16, embed_dim=1024, num_layers=24, num_heads=16, mlp_dim=4096
)
"""ViT-L/16 (Dosovitskiy et al. 2021, table 1)."""

SIGLIP_SO400M_14 = VisionConfig(
    image_size=(224, 224), patch_size=14, embed_dim=1152, num_layers=27, num_heads=16, mlp_dim=4304
)
"""SoViT-400m/14 (Alabdulmohsin et al. 2023), the image tower of SigLIP So400m and of PaliGemma.

big_vision's released weights have these shapes; heads of 72 features.
"""

VIT_G_14 = VisionConfig(
    image_size=(224, 224), patch_size=14, embed_dim=1664, num_layers=48, num_heads=16, mlp_dim=8192
)
"""ViT-G/14 (Zhai et al. 2022, table 2)."""

VIT_E_14 = VisionConfig(
    image_size=(224, 224),
    patch_size=14,
    embed_dim=1792,
    num_layers=56,
    num_heads=16,
    mlp_dim=15_360,
)
"""ViT-e/14 (Chen et al. 2022 (PaLI); Dehghani et al. 2023, table 1): PaLM-E's "ViT-4B"."""

VIT_22B = VisionConfig(
    image_size=(224, 224),
    patch_size=14,
    embed_dim=6144,
    num_layers=48,
    num_heads=48,
    mlp_dim=24_576,
    parallel_block=True,
    qk_norm=True,
    qkv_bias=False,
    norm_bias=False,
    norm_centering=False,
)
"""ViT-22B (Dehghani et al. 2023, section 2 and table 1): that of PaLI-X 55B.

Queries, keys and values have no biases, norms neither biases nor centering ("omitting biases on QKV
projections and LayerNorms"); the MLP has its biases. Taken here, where no public source was found:
the attention's output has a bias, the last norm is like the others, and queries and keys are normed
head by head with one scale for all heads. Flax's attention, which names the paper (`normalize_qk`),
norms so too, without a bias, but takes the mean away; with `norm_centering=True` so does this.
"""
