"""What `rt2_jax.models.products` saves: gradients of the tiny model's loss with and without it.

    python benchmarks/gradients.py [--rounds 20] [--batch-size 32]

Both sides take turns in every round, so that a change in the machine's load meets each of them.
The figures are medians over the rounds; the last one is the median of the rounds' ratios. `rt2`
asks for huge pages for itself; here GLIBC_TUNABLES=glibc.malloc.hugetlb=1 does it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np

from rt2_jax.models import layers
from rt2_jax.models.make_model import make_model
from rt2_jax.models.model import TransformerModel
from rt2_jax.training.gin_files import load_run_config

RUN_FILE = "runs/tabletop.gin"


def problem(batch_size: int) -> tuple[TransformerModel, Any, dict[str, Any]]:
    """The model of the table-top run, parameters, and a batch of noise."""
    config, _ = load_run_config([RUN_FILE], [], [])
    model, draw = make_model(config.model), np.random.default_rng(0)
    height, width = config.model.image_size
    tokens = {
        "encoder_input_tokens": config.encoder_length,
        "decoder_input_tokens": config.decoder_length,
        "decoder_target_tokens": config.decoder_length,
    }
    batch: dict[str, Any] = {
        name: draw.integers(1, config.model.vocab_size, (batch_size, length), np.int32)
        for name, length in tokens.items()
    }
    slots = len(config.model.image_slots)
    batch["images"] = draw.integers(0, 256, (batch_size, slots, height, width, 3), np.uint8)
    batch["image_mask"] = np.ones((batch_size, slots), bool)
    batch["decoder_loss_weights"] = np.ones((batch_size, config.decoder_length), np.float32)
    shapes = {name: value.shape for name, value in batch.items()}
    params = model.get_initial_variables(jax.random.key(0), shapes)["params"]
    return model, params, jax.tree.map(jax.numpy.asarray, batch)


def gradient(batch_size: int) -> Callable[[], Any]:
    """A compiled gradient of the loss, called once already."""
    model, params, batch = problem(batch_size)
    compiled = jax.jit(jax.grad(lambda params, batch: model.loss_fn(params, batch, None)[0]))

    def call() -> Any:
        return jax.block_until_ready(compiled(params, batch))

    call()
    return call


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    ours = gradient(args.batch_size)
    with (
        mock.patch.object(layers, "matmul", lambda x, kernel: x @ kernel),
        mock.patch.object(layers, "add_bias", lambda logits, bias: logits + bias),
    ):
        plain = gradient(args.batch_size)
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(args.rounds):
        for name, call in (("ours", ours), ("plain", plain)):
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    for name, seconds in times.items():
        print(f"{name:<6} {1000 * statistics.median(seconds):7.1f} ms")
    ratios = [a / b for a, b in zip(times["ours"], times["plain"], strict=True)]
    print(f"ratio  {statistics.median(ratios):7.2f}")


if __name__ == "__main__":
    main()
