"""Published language models by name: their dimensions, and where these stand."""

from __future__ import annotations

from rt2_jax.models.config import DecoderOnlyConfig, TextConfig

PALM_8B = DecoderOnlyConfig(
    vocab_size=256_000,
    embed_dim=4096,
    num_layers=32,
    num_heads=16,
    num_kv_heads=1,
    head_dim=256,
    mlp_dim=16_384,
    mlp_activations=("silu", "linear"),
    parallel_block=True,
    norm_scale_plus_one=True,
    embedding_scale="logits",
)
"""PaLM 8B (Chowdhery et al. 2022, section 2 and table 1): the language model of PaLM-E 12B.

The paper says "LayerNorm"; the code that Google published to run PaLM's weights
(google-research, `scaling_transformer_inference_efficiency`) has T5's, without a mean, and 1 + the
stored scale. It pads the vocabulary to 256,128 rows and reads no scale for the last norm; here the
vocabulary is the paper's, and the last norm is like the others.
"""

GEMMA_2B = DecoderOnlyConfig(
    vocab_size=256_128,
    embed_dim=2048,
    num_layers=18,
    num_heads=8,
    num_kv_heads=1,
    head_dim=256,
    mlp_dim=16_384,
    mlp_activations=("gelu", "linear"),
    norm_scale_plus_one=True,
    embedding_scale="inputs",
)
"""Gemma 1 2B (Gemma Team 2024, table 1; big_vision, `models/ppp/gemma.py`): that of PaliGemma 3B.

The table's "feedforward hidden dims" of 32,768 are both input projections together. Released files
have 256,000 or 256,128 rows of embedding; PaliGemma's has 257,152.
"""

UL2_20B = TextConfig(
    vocab_size=32_128,
    embed_dim=4096,
    encoder_layers=32,
    decoder_layers=32,
    num_heads=16,
    head_dim=256,
    mlp_dim=16_384,
    mlp_activations=("silu", "linear"),
    tie_embeddings=True,
)
"""UL2-20B (Tay et al. 2023) as released: the configuration of google/ul2, T5X's on Vertex AI."""
