"""`rt2 bench decode`: how many actions a second a model of some size writes on this device.

It needs jax and flax alone; for the models' gin files also gin-config, optax, orbax and Pillow.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rt2_jax._text_table import aligned
from rt2_jax.models.config import PLACEHOLDER
from rt2_jax.models.config_json import ModelConfig, config_from_json
from rt2_jax.models.make_model import make_model

if TYPE_CHECKING:
    from rt2_jax.inference.weights import Weights

_ACTION_TOKENS = 256


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed.

    Attributes:
      model: a name in `gin_configs/models`, a gin file of a model, or a JSON file of its
        configuration (`config_to_json`).
      batch_sizes: each is a program.
      weights: `stored` (float32), `bfloat16` or `int8`.
      steps: tokens to write, 8 for RT-2's actions.
      prompt: tokens of the prompt.
      rounds: timed calls of each program.
      parts: also times reading and the first token alone.

    Raises:
      ValueError: a number below 1.
    """

    model: str
    batch_sizes: tuple[int, ...] = (1,)
    weights: str = "bfloat16"
    steps: int = 8
    prompt: int = 64
    rounds: int = 20
    parts: bool = False

    def __post_init__(self) -> None:
        numbers = {"steps": self.steps, "prompt": self.prompt, "rounds": self.rounds}
        numbers["batch"] = min(self.batch_sizes, default=0)
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name}: found {value}, expected 1 or more")


def measure(settings: Settings, report: Callable[[str], None]) -> dict[str, Any]:
    """Makes the weights, compiles, times; what was found, as plain JSON.

    Args:
      settings: what.
      report: called with a line on what happens.

    Raises:
      FileNotFoundError, ValueError: no such model.
    """
    from rt2_jax.inference.weights import random_weights

    config = model_config(settings.model)
    model = make_model(config)
    begin = time.perf_counter()
    weights = random_weights(model, _shapes(config, 1, settings), settings.weights)
    jax.block_until_ready(weights.params)
    report(
        f"{settings.model}: {weights.bytes / 1e9:.2f} GB of {settings.weights} weights made in "
        f"{time.perf_counter() - begin:.0f} s"
    )
    steps = [settings.steps, *([1] if settings.parts and settings.steps > 1 else [])]
    device = jax.devices()[0]
    found: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(weights.params)),
        "weights_bytes": weights.bytes,
        "batches": {},
    }
    for size in settings.batch_sizes:
        timed = {}
        for length in steps:
            report(f"batch {size}, {length} tokens: compiling")
            timed[length] = _timed(config, weights, size, length, settings)
            report(f"batch {size}, {length} tokens: {timed[length]['ms_median']:.2f} ms")
        whole = timed[settings.steps]
        if len(timed) > 1:
            whole["ms_read"] = timed[1]["ms_median"]
            rest = whole["ms_median"] - timed[1]["ms_median"]
            whole["ms_per_token"] = rest / (settings.steps - 1)
        found["batches"][str(size)] = whole
    stats = device.memory_stats() or {}
    found["peak_bytes"] = stats.get("peak_bytes_in_use")
    return found


def model_config(name: str) -> ModelConfig:
    """The model of a shipped name, of a gin file or of a JSON file.

    Raises:
      FileNotFoundError: no such file. ValueError: it describes no model alone.
    """
    if name.endswith(".json"):
        read = config_from_json(json.loads(pathlib.Path(name).read_text()), name)
        if not isinstance(read, ModelConfig):
            raise ValueError(f"{name}: found a {type(read).__name__}, expected a whole model")
        return read
    from rt2_jax.training.gin_files import SHIPPED, load_model_config

    shipped = SHIPPED / "models" / f"{name}.gin"
    config = load_model_config([str(shipped if shipped.is_file() else name)])
    if config is None:
        known = ", ".join(sorted(path.stem for path in shipped.parent.glob("*.gin")))
        raise ValueError(f"--model: {name!r} describes no model alone; known are {known}")
    return config


def _timed(
    config: ModelConfig, weights: Weights, size: int, length: int, settings: Settings
) -> dict[str, Any]:
    model = make_model(config).written_out()
    mask = np.zeros((length, config.vocab_size), bool) if config.vocab_size else None
    if mask is not None:
        mask[:, 2 : 2 + _ACTION_TOKENS] = True
    observed = _observed(config, size, settings)
    generate = jax.jit(model.generate, static_argnums=2)
    begin = time.perf_counter()
    program = generate.lower(weights.params, observed, length, mask).compile()
    compile_s = time.perf_counter() - begin
    on_device = jax.device_put((observed, mask))
    times = []
    for number in range(settings.rounds + 2):
        begin = time.perf_counter()
        # As a server does: pictures go to the device, tokens come back.
        observed_there = jax.device_put(observed)
        tokens = np.asarray(program(weights.params, observed_there, on_device[1]).tokens)
        if number >= 2:
            times.append(1000 * (time.perf_counter() - begin))
    assert tokens.shape == (size, length)
    median = statistics.median(times)
    memory = program.memory_analysis()
    return {
        "ms_median": median,
        "ms_p90": float(np.percentile(times, 90)),
        "ms_least": min(times),
        "hz": 1000 / median,
        "actions_per_second": 1000 * size / median,
        "tokens_per_second": 1000 * size * length / median,
        "compile_s": compile_s,
        "temporary_bytes": getattr(memory, "temp_size_in_bytes", None),
    }


def _shapes(config: ModelConfig, size: int, settings: Settings) -> dict[str, tuple[int, ...]]:
    """Shapes of the features that are read in training, as far as parameters depend on them."""
    observed = {name: each.shape for name, each in _observed(config, size, settings).items()}
    return {"decoder_input_tokens": (size, settings.steps), **observed}


def _observed(config: ModelConfig, size: int, settings: Settings) -> Mapping[str, np.ndarray]:
    """Features that a prediction reads: grey pictures in all slots and a prompt of token 3."""
    slots = len(config.image_slots)
    features: dict[str, np.ndarray] = {
        "images": np.full((size, slots, *config.image_size, 3), 128, np.uint8),
        "image_mask": np.ones((size, slots), bool),
    }
    prompt = np.full((size, settings.prompt), 3, np.int32)
    if config.instruction_embedding_dim:
        shape = (size, config.instruction_embedding_dim)
        return {**features, "instruction_embedding": np.zeros(shape, np.float32)}
    if not config.placeholders_per_image:
        return {**features, "encoder_input_tokens": prompt}
    places = np.full((size, slots * config.placeholders_per_image), PLACEHOLDER, np.int32)
    tokens = np.concatenate([places, prompt], axis=1)
    return {
        **features,
        "decoder_input_tokens": tokens,
        "decoder_causal_attention": np.ones(tokens.shape, np.int32),
    }


def table(found: dict[str, Any]) -> str:
    """What `measure` found, for people."""
    settings = found["settings"]
    peak = found["peak_bytes"]
    lines = [
        f"{settings['model']}: {found['parameters'] / 1e9:.2f} B parameters, "
        f"{found['weights_bytes'] / 1e9:.2f} GB as {settings['weights']}, on {found['device']} "
        f"(jax {found['jax']})",
        f"{settings['steps']} tokens an action, a prompt of {settings['prompt']}"
        + ("" if peak is None else f"; at most {peak / 1e9:.2f} GB of memory in use"),
    ]
    rows = [["batch", "ms", "p90", "Hz", "actions/s", "tokens/s", "temporary", "compiled in"]]
    more = any("ms_read" in each for each in found["batches"].values())
    rows[0] += ["ms to read", "ms a token"] if more else []
    for size, each in found["batches"].items():
        rows.append(
            [
                size,
                f"{each['ms_median']:.2f}",
                f"{each['ms_p90']:.2f}",
                f"{each['hz']:.1f}",
                f"{each['actions_per_second']:.1f}",
                f"{each['tokens_per_second']:.0f}",
                f"{(each['temporary_bytes'] or 0) / 1e6:.0f} MB",
                f"{each['compile_s']:.0f} s",
            ]
        )
        if more:
            rows[-1] += [f"{each['ms_read']:.2f}", f"{each['ms_per_token']:.2f}"]
    return "\n".join([*lines, aligned(rows)])
