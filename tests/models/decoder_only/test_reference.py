"""Against plain numpy, written from the equations of the papers, one head and one place at a time.

PaLM: Chowdhery et al. 2022, sections 2 and 5; Gemma: Gemma Team 2024, section 2; rotary positions:
Su et al. 2021, as a product of complex numbers; SwiGLU and GeGLU: Shazeer 2020.
"""

import math

import numpy as np
import pytest

from rt2_jax.models.layer_stack import unstack_layers


def rms_norm(x, parameter, config):
    scale = 1 + parameter if config.norm_scale_plus_one else parameter
    return x / np.sqrt((x**2).mean() + config.norm_epsilon) * scale


def turn(x, position, base):
    """Feature i and feature i + d/2 are a complex number, turned by position * base^(-2i/d)."""
    half = len(x) // 2
    z = x[:half] + 1j * x[half:]
    z = z * np.exp(1j * position * base ** (-2 * np.arange(half) / len(x)))
    return np.concatenate([z.real, z.imag])


def gate(x, config):
    if config.mlp_activations[0] == "silu":
        return x / (1 + np.exp(-x))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def mlp(x, weights, config):
    hidden = gate(x @ weights["wi_0"]["kernel"], config) * (x @ weights["wi_1"]["kernel"])
    return hidden @ weights["wo"]["kernel"]


def attention(xs, weights, sees, positions, config):
    """[L, E] -> [L, E]; `sees[i]` are the places that place i may look at."""
    size, base = config.head_dim, config.rope_max_wavelength
    mixed = np.zeros((len(xs), config.num_heads * size))
    for head in range(config.num_heads):
        mine = slice(head * size, (head + 1) * size)
        group = head // (config.num_heads // config.num_kv_heads)
        theirs = slice(group * size, (group + 1) * size)
        queries = xs @ weights["query"]["kernel"][:, mine]
        keys = xs @ weights["key"]["kernel"][:, theirs]
        values = xs @ weights["value"]["kernel"][:, theirs]
        for i, seen in enumerate(sees):
            query = turn(queries[i], positions[i], base)
            scores = [query @ turn(keys[j], positions[j], base) / math.sqrt(size) for j in seen]
            odds = np.exp(scores)
            mixed[i, mine] = odds @ values[seen] / odds.sum()
    return mixed @ weights["out"]["kernel"]


def logits_of(tokens, prefix_length, params, config):
    table = params["token_embedder"]["embedding"]
    xs = table[tokens]
    if config.embedding_scale == "inputs":
        xs = xs * math.sqrt(config.embed_dim)
    positions = range(len(tokens))
    sees = [list(range(max(i + 1, prefix_length if i < prefix_length else 0))) for i in positions]
    for layer in range(config.num_layers):
        weights = params["decoder"][f"layers_{layer}"]

        def norm(xs, name, weights=weights):
            return np.stack([rms_norm(x, weights[name]["scale"], config) for x in xs])

        if config.parallel_block:
            normed = norm(xs, "layer_norm")
            attended = attention(normed, weights["self_attention"], sees, positions, config)
            xs = xs + mlp(normed, weights["mlp"], config) + attended
        else:
            normed = norm(xs, "pre_self_attention_layer_norm")
            xs = xs + attention(normed, weights["self_attention"], sees, positions, config)
            xs = xs + mlp(norm(xs, "pre_mlp_layer_norm"), weights["mlp"], config)
    last = params["decoder"]["decoder_norm"]["scale"]
    xs = np.stack([rms_norm(x, last, config) for x in xs])
    if not config.tie_embeddings:
        return xs @ params["logits_dense"]["kernel"]
    return xs @ table.T / (math.sqrt(config.embed_dim) if config.embedding_scale == "logits" else 1)


def as_float64(tree):
    if isinstance(tree, dict):
        return {name: as_float64(branch) for name, branch in tree.items()}
    return np.asarray(tree, np.float64)


@pytest.mark.parametrize("name", ["palm", "gemma", "llama", "full"])
def test_logits_are_those_of_the_papers_equations(apply, configs, make_params, rows, name):
    config, (tokens, prefix, mask) = configs[name], rows
    params = make_params(config)
    found = np.asarray(apply(config, "__call__", params, tokens, prefix, mask))
    plain = as_float64(unstack_layers(params))
    for row, held in enumerate(np.asarray(mask)):
        mine = np.asarray(tokens)[row, held]
        expected = logits_of(mine, int(prefix[row].sum()), plain, config)
        assert np.abs(found[row, held] - expected).max() < 1e-4 * np.abs(expected).max()
        assert expected.std() > 0.1, "choose other parameters: these logits say little"


def test_without_a_prefix_attention_is_causal(apply, configs, make_params, rows):
    config, tokens = configs["palm"], rows[0]
    params = make_params(config)
    found = np.asarray(apply(config, "__call__", params, tokens))
    expected = logits_of(np.asarray(tokens)[0], 0, as_float64(unstack_layers(params)), config)
    assert np.abs(found[0] - expected).max() < 1e-4 * np.abs(expected).max()
