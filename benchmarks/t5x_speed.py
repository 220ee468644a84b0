"""Real T5X and this trainer on the same T5 and the same synthetic batches: time and memory.

    python benchmarks/t5x_speed.py --python PYTHON_WITH_T5X [--rounds 5] [--json FILE]

Each side trains and decodes in processes of its own, which take turns, so that a busy machine meets
both. Compared are seconds of CPU time of a training step and of greedy decoding, the memory that
XLA plans for the step's temporaries, and the time from the start of a process to the end of its
first step. The ratios are ours to T5X's, medians over the rounds. docs/t5x.md says how T5X is
installed; PYTHON gets the variable PYTHONPATH as it is here.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
VOCAB, EMBED, HEADS, HEAD_DIM, MLP, LAYERS = 4096, 256, 8, 32, 1024, 4
BATCH, INPUTS, TARGETS, DECODED = 16, 128, 32, 8
STEPS, REPEATS, DECODES = 5, 3, 40
FIGURES = {
    "step_cpu_s": "CPU seconds of a step",
    "step_s": "seconds of a step",
    "temp_bytes": "XLA's temporary memory, bytes",
    "first_step_s": "start to the end of the first step, s",
    "decode_cpu_s": f"CPU seconds of decoding {DECODED} tokens",
    "decode_s": f"seconds of decoding {DECODED} tokens",
}


def make_batch(seed: int, rows: int = BATCH, targets: int = TARGETS) -> dict[str, Any]:
    """Random tokens without padding: features of text alone."""
    import numpy as np

    draw = np.random.default_rng(seed)
    target = draw.integers(2, VOCAB, (rows, targets)).astype(np.int32)
    return {
        "encoder_input_tokens": draw.integers(2, VOCAB, (rows, INPUTS)).astype(np.int32),
        "decoder_target_tokens": target,
        "decoder_input_tokens": np.pad(target, ((0, 0), (1, 0)))[:, :-1],
        "decoder_loss_weights": np.ones((rows, targets), np.float32),
    }


class Ours:
    """This project's model, step and decoding."""

    def __init__(self) -> None:
        from rt2_jax.models.config import TextConfig, VisionConfig, VisionLanguageConfig
        from rt2_jax.models.model import VisionLanguageModel
        from rt2_jax.training.adafactor import Adafactor
        from rt2_jax.training.mesh import MeshShape, make_mesh
        from rt2_jax.training.partitioning import Partitioner
        from rt2_jax.training.train_state import train_state_initializer

        text = TextConfig(
            vocab_size=VOCAB,
            embed_dim=EMBED,
            encoder_layers=LAYERS,
            decoder_layers=LAYERS,
            num_heads=HEADS,
            head_dim=HEAD_DIM,
            mlp_dim=MLP,
        )
        # Batches are text alone, so the model gets no part that reads pictures.
        unread = VisionConfig(
            image_size=(8, 8), patch_size=8, embed_dim=8, num_layers=1, num_heads=1, mlp_dim=8
        )
        self.model = VisionLanguageModel(
            VisionLanguageConfig(unread, text), Adafactor(), eos_id=-1, z_loss=1e-4
        )
        self.partitioner = Partitioner(make_mesh(MeshShape()))
        batch = self._with_sources(make_batch(0))
        self.initializer = train_state_initializer(
            self.model,
            self.partitioner,
            {name: value.shape for name, value in batch.items()},
            {name: value.dtype for name, value in batch.items()},
        )

    def _with_sources(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        import numpy as np

        rows = len(batch["encoder_input_tokens"])
        return {**batch, "source_id": np.zeros(rows, np.int32)}

    def trainer(self) -> tuple[Callable[[list], float], Callable[[], int]]:
        import jax
        import numpy as np

        from rt2_jax.training.metrics import SourceRules
        from rt2_jax.training.schedules import LearningRate
        from rt2_jax.training.step import make_train_step

        rules = SourceRules(("text",), np.ones(1), np.ones((1, TARGETS), bool))
        step = make_train_step(
            self.model,
            self.initializer,
            self.partitioner,
            LearningRate(factors="constant", base_learning_rate=1e-3),
            rules,
        )
        example = self._with_sources(make_batch(0))
        step.compile_ahead(
            self.initializer.abstract,
            {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in example.items()},
        )
        state, key = self.initializer.init(jax.random.key(0)), jax.random.key(1)
        batch: Any = None

        def train(batches: list) -> float:
            nonlocal state, batch
            for each in batches:
                batch = self.partitioner.to_devices(self._with_sources(each))
                state, metrics = step(state, batch, key)
            return float(jax.block_until_ready((state, metrics))[1].loss)

        def temporary() -> int:
            analysis: Any = step.memory_analysis()
            return int(analysis.temp_size_in_bytes)

        return train, temporary

    def decoder(self) -> Callable[[Any], Any]:
        import jax

        params = self.initializer.init(jax.random.key(0)).params
        generate = jax.jit(self.model.generate, static_argnums=2)
        return lambda batch: generate(params, batch, DECODED)[0]


class T5X:
    """scalable_t5 under T5X's trainer, partitioner and optimizer."""

    def __init__(self) -> None:
        import inspect

        import jax.numpy as jnp
        import seqio
        from t5x import adafactor, decoding, models, partitioning
        from t5x.examples.scalable_t5 import network

        def decode(**options: Any) -> Any:
            options |= {"eos_id": -1, "topk": 1, "temperature": 1.0}
            return decoding.temperature_sample(**options)

        # T5X tells decoders apart by their signatures.
        decode.__signature__ = inspect.signature(decoding.temperature_sample)  # type: ignore[attr-defined]
        config = network.T5Config(
            vocab_size=VOCAB,
            dtype=jnp.float32,
            emb_dim=EMBED,
            num_heads=HEADS,
            num_encoder_layers=LAYERS,
            num_decoder_layers=LAYERS,
            head_dim=HEAD_DIM,
            mlp_dim=MLP,
            mlp_activations=("gelu", "linear"),
            dropout_rate=0.0,
            logits_via_embedding=False,
            remat_policy="none",
            scan_layers=True,
        )
        vocabulary = seqio.PassThroughVocabulary(size=VOCAB, eos_id=1)
        rules = adafactor.standard_logical_factor_rules()
        self.model = models.EncoderDecoderModel(
            module=network.Transformer(config=config),
            input_vocabulary=vocabulary,
            output_vocabulary=vocabulary,
            optimizer_def=adafactor.Adafactor(
                decay_rate=0.8, step_offset=0, logical_factor_rules=rules
            ),
            decode_fn=decode,
            z_loss=1e-4,
        )
        self.partitioner = partitioning.PjitPartitioner(
            num_partitions=1, logical_axis_rules=partitioning.standard_logical_axis_rules()
        )

    def _state(self, optimizer: Any) -> tuple[Any, Any]:
        import jax
        from t5x import utils

        batch = make_batch(0)
        initializer = utils.TrainStateInitializer(
            optimizer_def=optimizer,
            init_fn=self.model.get_initial_variables,
            input_shapes={name: value.shape for name, value in batch.items()},
            input_types={name: value.dtype for name, value in batch.items()},
            partitioner=self.partitioner,
        )
        return initializer.from_scratch(jax.random.PRNGKey(0)), initializer.train_state_axes

    def trainer(self) -> tuple[Callable[[list], float], Callable[[], int]]:
        import jax
        from t5x import trainer, utils

        state, axes = self._state(self.model.optimizer_def)
        runs = trainer.Trainer(
            model=self.model,
            train_state=state,
            partitioner=self.partitioner,
            eval_names=[],
            summary_dir=tempfile.mkdtemp(),
            train_state_axes=axes,
            rng=jax.random.PRNGKey(1),
            learning_rate_fn=utils.create_learning_rate_scheduler(
                factors="constant", base_learning_rate=1e-3
            ),
            num_microbatches=None,
        )
        runs.compile_train(make_batch(0))

        def train(batches: list) -> float:
            summary = runs.train(iter(batches), len(batches))
            jax.block_until_ready(runs.train_state)
            return float(summary.result()["loss_per_all_target_tokens"].value)

        def temporary() -> int:
            return int(runs._compiled_train_step.memory_analysis().temp_size_in_bytes)

        return train, temporary

    def decoder(self) -> Callable[[Any], Any]:
        state, axes = self._state(None)
        predict = self.partitioner.partition(
            self.model.predict_batch,
            in_axis_resources=(axes.params, self.partitioner.data_partition_spec),
            out_axis_resources=None,
        )
        return lambda batch: predict(state.params, batch)


SIDES: Mapping[str, Any] = {"ours": Ours, "t5x": T5X}


def measure(side: str, mode: str, started: float) -> dict[str, float]:
    """What one process measures.

    Args:
      side: of `SIDES`.
      mode: `train` or `decode`.
      started: `time.time()` at the start of the process.
    """
    import jax

    made = SIDES[side]()
    if mode == "decode":
        decode, batch = made.decoder(), make_batch(7, rows=1, targets=DECODED)
        found = jax.block_until_ready(decode(batch))
        assert found.shape == (1, DECODED), found.shape
        seconds, cpu = _timed(lambda: jax.block_until_ready(decode(batch)), DECODES)
        return {"decode_s": seconds, "decode_cpu_s": cpu}
    train, temporary = made.trainer()
    batches = [make_batch(seed) for seed in range(STEPS)]
    train(batches[:1])
    first = time.time() - started
    train(batches)
    seconds, cpu = _timed(lambda: train(batches), REPEATS)
    return {
        "step_s": seconds / STEPS,
        "step_cpu_s": cpu / STEPS,
        "first_step_s": first,
        "temp_bytes": temporary(),
    }


def _timed(work: Callable[[], Any], times: int) -> tuple[float, float]:
    """Medians of the seconds by the clock and of CPU time, of this process and its threads."""
    clock, cpu = [], []
    for _ in range(times):
        begin = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    return statistics.median(clock), statistics.median(cpu)


def _process(python: str, side: str, mode: str) -> dict[str, float]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment.setdefault("JAX_PLATFORMS", "cpu")
    environment.pop("XLA_FLAGS", None)
    command = [python, __file__, "--side", side, "--mode", mode, "--started", str(time.time())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(done.stdout[-2000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
        raise SystemExit(f"{side}, {mode}: failed with exit status {done.returncode}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def compare(python: str, rounds: int) -> dict[str, Any]:
    """Both sides in rounds, every other round in reverse.

    Returns:
      For every figure the `ours` and `t5x` of each round, and their median `ratio`.
    """
    turns: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in list(SIDES)[:: -1 if number % 2 else 1]:
            print(f"round {number + 1} of {rounds}: {side}", file=sys.stderr, flush=True)
            who = python if side == "t5x" else sys.executable
            both = [_process(who, side, mode) for mode in ("train", "decode")]
            turns[side].append({**both[0], **both[1]})
    result = {}
    for name in FIGURES:
        ours, theirs = ([turn[name] for turn in turns[side]] for side in SIDES)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        result[name] = {"ours": ours, "t5x": theirs, "ratio": statistics.median(ratios)}
    return result


def main() -> None:
    """Compares and prints; with `--side` it is one of the processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has T5X")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="the figures of all rounds go there")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.mode, args.started)))
        return
    found = compare(args.python, args.rounds)
    for name, words in FIGURES.items():
        each = found[name]
        ours, theirs = statistics.median(each["ours"]), statistics.median(each["t5x"])
        print(f"{words:40} ours {ours:<12.4g} T5X {theirs:<12.4g} ratio {each['ratio']:.2f}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
