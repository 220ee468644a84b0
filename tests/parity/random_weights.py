"""Weights, tokens and pictures that both sides make for themselves, from names, in plain numpy.

The bits of PCG64 are fixed by its definition; numpy's distributions may change between releases.
"""

import math
import re
import zlib

import numpy as np

# What a name ends with -> (mean, standard deviation). Anything else is a linear map: mean 0, and
# the root of what one output sums over as standard deviation of its sums.
VECTORS = (
    (r"(norm|bn|norm[12]|layernorm_(before|after)|layernorm)\.weight", 1.0, 0.25),
    (r"running_var", 1.0, 0.25),
    (r"running_mean", 0.0, 0.25),
    (r"relative_attention_bias\.weight", 0.0, 1.0),
    (r"shared\.weight", 0.0, 1.0),
    (r"(position_embeddings|position_embedding\.weight|cls_token)", 0.0, 0.5),
    (r"bias", 0.0, 0.25),
)


def uniform(key: str, count: int) -> np.ndarray:
    """float32 [count], of mean 0 and variance 1, always the same for the same key."""
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(-(-count // 4)).astype("<u8")
    steps = raw.view("<u2")[:count].astype(np.float32)
    return (steps - np.float32(32767.5)) * np.float32(math.sqrt(12) / 65536)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of this Hugging Face name: float32, of a size that keeps activations around 1."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    mean, deviation = 0.0, None
    for pattern, *rule in VECTORS:
        if re.search(f"{pattern}$", name):
            mean, deviation = rule
            break
    if deviation is None:
        deviation = math.prod(shape[1:]) ** -0.5
        if name.endswith("Attention.q.weight"):
            deviation *= 64**-0.5  # T5 has the scale of attention in its weights
    drawn = uniform(name, math.prod(shape)).reshape(shape)
    return drawn * np.float32(deviation) + np.float32(mean)


def whole_numbers(key: str, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """int64 from `low` to below `high`."""
    parts = uniform(key, math.prod(shape)) / math.sqrt(12) + 0.5
    return (low + np.floor(parts * (high - low)).clip(0, high - low - 1)).astype(int).reshape(shape)


def picture(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [..., H, W, 3]: smooth waves of some frequencies, and a little noise."""
    rows, columns = np.meshgrid(*(np.linspace(0, 1, n) for n in shape[-3:-1]), indexing="ij")
    noise = uniform(key, math.prod(shape)).reshape(-1, *shape[-3:]).astype(float)
    waves = np.zeros_like(noise)
    for i, each in enumerate(waves):
        for channel in range(3):
            a, b, c = uniform(f"{key} {i} {channel}", 3) * 6
            each[..., channel] = np.sin(a * rows + b * columns + c)
    return (127.5 + 90 * waves + 15 * noise).round().clip(0, 255).astype(np.uint8).reshape(shape)
