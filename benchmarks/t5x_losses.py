"""Real T5X and `rt2 train` on the same gin files: the same parameters, batches and optimizer.

    python benchmarks/t5x_losses.py --python PYTHON_WITH_T5X [--steps 20] [--folder FOLDER]

Both are programs of their own: `rt2_jax.train` saves its first parameters, `t5x.train` begins with
them. Printed are the losses of every step and the largest differences, of losses, parameters and
optimizer state; docs/t5x.md says how T5X is installed. PYTHON gets the variable PYTHONPATH as
it is here, so that copies of sources can be named there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
RUN = ("t5x/rt2_palix_tiny.gin", "t5x/train.gin", "t5x/tabletop.gin")
VERSIONS = """
import importlib.metadata as metadata, t5x.train
names = ("jax", "flax", "orbax-checkpoint", "seqio")
print(*(f"{name} {metadata.version(name)}" for name in names))
"""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came out, of T5X against ours.

    Attributes:
      ours: the loss of every step.
      t5x: the loss of every step.
      steps: of the checkpoints of both that were compared.
      weights: for each of them, parameter -> the largest difference, relative to the largest value
        of its array. The biases of keys are left out: they change no softmax, so that their
        gradient is rounding alone, which Adafactor scales to a step like any other's.
      moments: for each of them, the largest of the same of the optimizer's second moments.
    """

    ours: np.ndarray
    t5x: np.ndarray
    steps: tuple[int, ...]
    weights: tuple[Mapping[str, float], ...]
    moments: tuple[float, ...]

    @property
    def losses(self) -> float:
        """The largest relative difference of the losses."""
        return float(np.max(np.abs(self.t5x - self.ours) / np.abs(self.ours)))


def make_data(folder: pathlib.Path, episodes: int = 8, scenes: int = 60) -> None:
    """Records the demo's mixture in small and caches it below the folder."""
    data = ["--data-dir", str(folder), "--cache-dir", str(folder / "cache")]
    noise = ["--noise", "0.03", "--noise-rate", "0.2"]
    drawn = ["--scenes", str(scenes), "--validation-scenes", "4"]
    out = ["--out", str(folder)]
    _rt2("sim", "record", *out, "--episodes", str(episodes), *noise)
    _rt2("sim", "pictures", *out, *drawn)
    _rt2("data", "cache", "tabletop_mix", *data)
    _rt2("data", "resolve", "tabletop_mix", *data)


def compare(
    python: str,
    folder: pathlib.Path,
    *,
    steps: int = 20,
    batch_size: int = 16,
    warmup: int = 4,
    period: int = 5,
) -> Comparison:
    """Trains with both on the cache below the folder, which gets their runs too.

    Parameters and moments are compared after every `period` steps and after the last.

    Raises:
      subprocess.CalledProcessError: one of them failed; its output was shown.
    """
    ours, theirs = folder / "ours", folder / "t5x"
    compared = tuple(sorted({*range(period, steps + 1, period), steps}))
    values: dict[str, Any] = {
        "SAVE_PERIOD": period,
        "utils.SaveCheckpointConfig.keep": None,
        "CACHE_DIR": str(folder / "cache"),
        "BATCH_SIZE": batch_size,
        "TRAIN_STEPS": steps,
        "STATS_PERIOD": 1,
        "utils.create_learning_rate_scheduler.warmup_steps": warmup,
    }
    _run([sys.executable, "-m", "rt2_jax.train"], {**values, "MODEL_DIR": str(ours)}, save_first=1)
    restore = {
        "utils.RestoreCheckpointConfig.path": str(ours / "checkpoint_0"),
        "utils.RestoreCheckpointConfig.mode": "specific",
    }
    _run([python, "-m", "t5x.train"], {**values, "MODEL_DIR": str(theirs), **restore})
    lines = (ours / "metrics.jsonl").read_text().splitlines()
    pairs = [
        _differences(ours / f"checkpoint_{step}", theirs / f"checkpoint_{step}")
        for step in compared
    ]
    return Comparison(
        np.array([json.loads(line)["loss"] for line in lines]),
        np.array(event_values(theirs / "train", "loss")),
        compared,
        tuple(weights for weights, _ in pairs),
        tuple(max(moments.values()) for _, moments in pairs),
    )


def event_values(folder: pathlib.Path, name: str) -> list[float]:
    """A curve of TensorBoard event files, by step."""
    from tensorflow import make_ndarray
    from tensorflow.core.util.event_pb2 import Event

    from rt2_jax.data.tfrecord import read_records

    found: dict[int, float] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in map(Event.FromString, read_records(path)):
            for value in event.summary.value:
                if value.tag == name:
                    found[event.step] = float(make_ndarray(value.tensor))
    return [found[step] for step in sorted(found)]


def _run(program: Sequence[str], values: Mapping[str, Any], save_first: int = 0) -> None:
    files = [f"--gin_file={ROOT / 'gin_configs' / name}" for name in RUN]
    flags = [f"--gin.{name}={value!r}" for name, value in values.items()]
    flags += ["--gin.LoopConfig.save_first=True"] if save_first else []
    _call([*program, *files, *flags])


def _rt2(*words: str) -> None:
    _call([sys.executable, "-c", "from rt2_jax.cli.main import main; main()", *words])


def _call(command: Sequence[str]) -> None:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment.setdefault("JAX_PLATFORMS", "cpu")
    environment.pop("XLA_FLAGS", None)  # one device each
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        done.check_returncode()


def _differences(
    ours: pathlib.Path, theirs: pathlib.Path
) -> tuple[dict[str, float], dict[str, float]]:
    """Of the weights and of the moments of two checkpoints, by name."""
    import orbax.checkpoint as ocp
    from flax.traverse_util import flatten_dict

    with ocp.PyTreeCheckpointer() as checkpointer:
        trees = [checkpointer.restore(path / "state") for path in (ours, theirs)]

    def of(part: Any) -> dict[str, float]:
        mine, other = (flatten_dict(part(tree), sep="/") for tree in trees)
        if set(mine) != set(other):
            raise ValueError(f"{theirs}: found other names: {sorted(set(mine) ^ set(other))}")
        scales = {name: float(np.max(np.abs(value))) or 1.0 for name, value in mine.items()}
        return {
            name: float(np.max(np.abs(np.asarray(value) - np.asarray(other[name])))) / scales[name]
            for name, value in mine.items()
            if "/key/bias" not in name
        }

    return of(lambda tree: tree["target"]), of(lambda tree: tree["state"]["param_states"])


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has T5X")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--folder", type=pathlib.Path, help="kept; with a cache, it is used")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or pathlib.Path(temporary)).absolute()
        if not (folder / "cache").is_dir():
            make_data(folder)
        subprocess.run([args.python, "-c", VERSIONS], check=True)
        found = compare(args.python, folder, steps=args.steps, batch_size=args.batch_size)
    for step, (mine, theirs) in enumerate(zip(found.ours, found.t5x, strict=True), 1):
        print(f"step {step:3}  rt2 train {mine:.7f}  T5X {theirs:.7f}  {theirs / mine - 1:+.1e}")
    print(f"largest relative difference of the losses {found.losses:.1e}")
    print("largest differences, relative to the largest value of their array:")
    for step, weights, moments in zip(found.steps, found.weights, found.moments, strict=True):
        worst = max(weights, key=lambda name: weights[name])
        print(
            f"step {step:3}  {len(weights)} parameters {weights[worst]:.1e} ({worst})  "
            f"second moments {moments:.1e}"
        )


if __name__ == "__main__":
    main()
