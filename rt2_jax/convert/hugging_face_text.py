"""Language models under their Hugging Face names: T5 and its kin, Gemma 1, Llama."""

from __future__ import annotations

from collections.abc import Iterator

from rt2_jax.convert.name_map import Entry
from rt2_jax.models.config import DecoderOnlyConfig, TextConfig


def encoder_decoder_map(config: TextConfig) -> tuple[Entry, ...]:
    """T5 1.0, T5 1.1, mT5, UL2, and umT5 with `relative_bias_per_layer`.

    The tree is that of `token_embedder`, `encoder` and `decoder` of `VisionLanguageModule`. Files
    of T5 1.0 hold "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight" too,
    which nothing reads: name it in `leave_out`.
    """
    return tuple(_encoder_decoder(config))


def decoder_only_map(config: DecoderOnlyConfig) -> tuple[Entry, ...]:
    """Gemma 1 and Llama: the tree of `DecoderOnly`.

    Raises:
      ValueError: a model that has no such form: a parallel block, or an MLP without a gate.
    """
    if config.parallel_block or len(config.mlp_activations) != 2:
        raise ValueError(
            f"DecoderOnlyConfig: found parallel_block {config.parallel_block} and mlp_activations "
            f"{config.mlp_activations}, expected False and two: Gemma's and Llama's names know "
            "blocks one after the other and gated MLPs only"
        )
    return tuple(_decoder_only(config))


def _encoder_decoder(config: TextConfig) -> Iterator[Entry]:
    width = config.embed_dim
    copies: tuple[str, ...] = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    if config.tie_embeddings:
        copies = (*copies, "lm_head.weight")
    table = (config.vocab_size, width)
    yield Entry("shared.weight", table, ("token_embedder", "embedding"), copies=copies)
    for i in range(config.encoder_layers):
        block, at = f"encoder.block.{i}.layer", ("encoder", "layers")
        norm = ("encoder", "layers", "pre_attention_layer_norm", "scale")
        yield Entry(f"{block}.0.layer_norm.weight", (width,), norm, layer=i)
        yield from _t5_attention(config, f"{block}.0.SelfAttention", (*at, "attention"), i)
        yield from _t5_mlp(config, f"{block}.1", at, i)
    for i in range(config.decoder_layers):
        block, at = f"decoder.block.{i}.layer", ("decoder", "layers")
        for j, theirs, ours in (
            (0, "SelfAttention", "self_attention"),
            (1, "EncDecAttention", "encoder_decoder_attention"),
        ):
            norm_name = ("pre_self_attention_layer_norm", "pre_cross_attention_layer_norm")[j]
            norm = (*at, norm_name, "scale")
            yield Entry(f"{block}.{j}.layer_norm.weight", (width,), norm, layer=i)
            yield from _t5_attention(config, f"{block}.{j}.{theirs}", (*at, ours), i)
        yield from _t5_mlp(config, f"{block}.2", at, i)
    for stack, depth in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        last = (stack, f"{stack}_norm", "scale")
        yield Entry(f"{stack}.final_layer_norm.weight", (width,), last)
        each = config.relative_bias_per_layer
        for i in range(depth if each else 1):
            yield Entry(
                f"{stack}.block.{i}.layer.0.SelfAttention.relative_attention_bias.weight",
                (config.relative_buckets, config.num_heads),
                (stack, "relpos_bias", "rel_embedding"),
                "transposed",
                layer=i if each else None,
            )
    if not config.tie_embeddings:
        yield Entry("lm_head.weight", table, ("decoder", "logits_dense", "kernel"), "transposed")


def _t5_attention(
    config: TextConfig, name: str, path: tuple[str, ...], layer: int
) -> Iterator[Entry]:
    inner = config.num_heads * config.head_dim
    for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")):
        shape = (config.embed_dim, inner) if ours == "out" else (inner, config.embed_dim)
        yield Entry(f"{name}.{theirs}.weight", shape, (*path, ours, "kernel"), "transposed", layer)


def _t5_mlp(config: TextConfig, name: str, path: tuple[str, ...], layer: int) -> Iterator[Entry]:
    width, hidden = config.embed_dim, config.mlp_dim
    norm = (*path, "pre_mlp_layer_norm", "scale")
    yield Entry(f"{name}.layer_norm.weight", (width,), norm, layer=layer)
    gates = len(config.mlp_activations)
    for part in ("wi",) if gates == 1 else tuple(f"wi_{i}" for i in range(gates)):
        kernel = (*path, "mlp", part, "kernel")
        where = f"{name}.DenseReluDense.{part}.weight"
        yield Entry(where, (hidden, width), kernel, "transposed", layer)
    kernel = (*path, "mlp", "wo", "kernel")
    where = f"{name}.DenseReluDense.wo.weight"
    yield Entry(where, (width, hidden), kernel, "transposed", layer)


def _decoder_only(config: DecoderOnlyConfig) -> Iterator[Entry]:
    width, table = config.embed_dim, (config.vocab_size, config.embed_dim)
    copies = ("lm_head.weight",) if config.tie_embeddings else ()
    yield Entry("model.embed_tokens.weight", table, ("token_embedder", "embedding"), copies=copies)
    if not config.tie_embeddings:
        yield Entry("lm_head.weight", table, ("logits_dense", "kernel"), "transposed")
    yield Entry("model.norm.weight", (width,), ("decoder", "decoder_norm", "scale"))
    queries = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    kernels = {
        "self_attn.q_proj": ((queries, width), ("self_attention", "query")),
        "self_attn.k_proj": ((keys, width), ("self_attention", "key")),
        "self_attn.v_proj": ((keys, width), ("self_attention", "value")),
        "self_attn.o_proj": ((width, queries), ("self_attention", "out")),
        "mlp.gate_proj": ((config.mlp_dim, width), ("mlp", "wi_0")),
        "mlp.up_proj": ((config.mlp_dim, width), ("mlp", "wi_1")),
        "mlp.down_proj": ((width, config.mlp_dim), ("mlp", "wo")),
    }
    norms = {
        "input_layernorm": "pre_self_attention_layer_norm",
        "post_attention_layernorm": "pre_mlp_layer_norm",
    }
    for i in range(config.num_layers):
        layer, at = f"model.layers.{i}", ("decoder", "layers")
        for name, (shape, path) in kernels.items():
            where = f"{layer}.{name}.weight"
            yield Entry(where, shape, (*at, *path, "kernel"), "transposed", layer=i)
        for name, norm in norms.items():
            yield Entry(f"{layer}.{name}.weight", (width,), (*at, norm, "scale"), layer=i)
