"""A whole run in small: python tiny_run.py DIRECTORY TOTAL_STEPS; restarted, it goes on.

Its batches are a function of seed and step.
"""

import dataclasses
import pathlib
import sys
import time

import jax
import numpy as np
from flax.linen.partitioning import AxisMetadata

from rt2_jax.models.config import TextConfig, VisionConfig, VisionLanguageConfig
from rt2_jax.models.losses import ExampleSums
from rt2_jax.models.model import VisionLanguageModel
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.checkpoints import Checkpoints
from rt2_jax.training.logs import JsonlLog
from rt2_jax.training.loop import LoopConfig, restore_or_init, train
from rt2_jax.training.mesh import MeshShape, make_mesh
from rt2_jax.training.metrics import SourceRules
from rt2_jax.training.optimizers import AdamW
from rt2_jax.training.partitioning import Partitioner
from rt2_jax.training.schedules import LearningRate
from rt2_jax.training.step import make_train_step
from rt2_jax.training.train_state import train_state_initializer

SOURCES = ("robot", "web")
CONFIG = VisionLanguageConfig(
    vision=VisionConfig(
        image_size=(8, 8), patch_size=4, embed_dim=16, num_layers=2, num_heads=2, mlp_dim=16
    ),
    text=TextConfig(
        vocab_size=32,
        embed_dim=16,
        encoder_layers=2,
        decoder_layers=2,
        num_heads=8,
        head_dim=2,
        mlp_dim=16,
        dropout_rate=0.1,
    ),
)


@dataclasses.dataclass
class Batches:
    """Every target's weight differs."""

    batch_size: int = 8
    seed: int = 0
    step: int = 0

    def __next__(self):
        draw = np.random.default_rng((self.seed, self.step))
        self.step += 1
        rows = self.batch_size
        targets = draw.integers(2, 32, (rows, 4)).astype(np.int32)
        targets[::3, 2:] = 0
        weights = (targets > 0) * draw.uniform(0.1, 3, targets.shape)
        return {
            "images": draw.integers(0, 256, (rows, 1, 8, 8, 3)).astype(np.uint8),
            "image_mask": np.ones((rows, 1), bool),
            "encoder_input_tokens": draw.integers(2, 32, (rows, 5)).astype(np.int32),
            "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
            "decoder_target_tokens": targets,
            "decoder_loss_weights": weights.astype(np.float32),
            "source_id": np.arange(rows, dtype=np.int32) % 2,
        }

    def get_state(self):
        return {"seed": self.seed, "step": self.step}

    def set_state(self, state):
        if state["seed"] != self.seed:
            raise ValueError(f"data: found seed {self.seed}, expected {state['seed']}")
        self.step = state["step"]

    def shapes_and_types(self):
        batch = next(Batches(self.batch_size))
        return (
            {name: value.shape for name, value in batch.items()},
            {name: value.dtype for name, value in batch.items()},
        )


def make_model(optimizer=None, dropout_rate=0.0, **kwargs):
    text = dataclasses.replace(CONFIG.text, dropout_rate=dropout_rate)
    config = dataclasses.replace(CONFIG, text=text)
    return VisionLanguageModel(config, optimizer or Adafactor(), **kwargs)


class Table:
    """A model that compiles in no time: two numbers for each of 16 kinds of tokens."""

    loss_normalizing_factor = None
    optimizer_def = AdamW()

    def get_initial_variables(self, rng, input_shapes, input_types=None):
        parts = ("vision", "decoder")  # with the names of a real model, for patterns
        return {
            "params": {name: {"bias": jax.random.normal(rng, (16,))} for name in parts},
            "params_axes": {name: {"bias_axes": AxisMetadata(("embed",))} for name in parts},
        }

    def example_sums(self, params, batch, dropout_rng=None):
        bias = params["vision"]["bias"] + params["decoder"]["bias"]
        distance = (bias[batch["decoder_target_tokens"] % 16] - 2.0) ** 2
        weights = batch["decoder_loss_weights"]
        sums, weight = (distance * weights).sum(1), weights.sum(1)
        return ExampleSums(sums, 0 * sums, 0 * sums, weight, weight)


def make_partitioner(devices=1, **shape):
    return Partitioner(make_mesh(MeshShape(**shape), jax.devices()[:devices]))


class Compiled:
    """Model, mesh and step, compiled once for several runs."""

    def __init__(self):
        model, self.partitioner = make_model(AdamW(), dropout_rate=0.1), make_partitioner()
        self.initializer = train_state_initializer(
            model, self.partitioner, *Batches().shapes_and_types()
        )
        rate = LearningRate(base_learning_rate=0.01, warmup_steps=4)
        self.step = make_train_step(
            model, self.initializer, self.partitioner, rate, SourceRules(tuple(SOURCES))
        )

    def run(self, directory, total_steps, batches=None, logs=(), watch=None, **config):
        """One start of a run; a number for every step goes to `metrics.jsonl`."""
        config = {"log_period": 1, "save_period": 3, **config}
        batches = batches or Batches()
        with Checkpoints(directory) as checkpoints:
            jsonl = JsonlLog(directory / "metrics.jsonl", checkpoints.latest_step or 0)
            return train(
                LoopConfig(total_steps, **config),
                restore_or_init(self.initializer, batches, checkpoints, seed=0),
                self.step,
                batches,
                self.partitioner,
                checkpoints,
                {"model": "tiny"},
                SOURCES,
                [jsonl, *logs],
                watch,
            )


class SlowBatches(Batches):
    """Leaves time to be killed in, and says when the first step is compiled and under way."""

    asked = 0

    def __next__(self):
        self.asked += 1
        if self.asked == 2:
            print("stepping", flush=True)
        time.sleep(0.02)
        return super().__next__()


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    outcome = Compiled().run(pathlib.Path(sys.argv[1]), int(sys.argv[2]), SlowBatches())
    print("stopped" if outcome.stopped else "done", flush=True)
