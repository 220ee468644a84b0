"""What a run is, in tables: its data, its parameters, its memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from rt2_jax.data.model_inputs import InputSpec
from rt2_jax.models.config_json import ModelConfig
from rt2_jax.models.make_model import make_model
from rt2_jax.models.parts import Part, model_parts, total_parameters
from rt2_jax.training.freezing import split_frozen
from rt2_jax.training.outlook import Outlook
from rt2_jax.training.run import Run


def data_table(run: Run) -> str:
    """Tasks of the mixture: share, size, and how often the run reads each example."""
    drawn = run.config.loop.total_steps * run.config.global_batch_size
    rows = [("task", "kind", "share", "loss weight", "episodes", "steps", "epochs")]
    for task in run.manifest.tasks:
        held = ("not cached", "", "")
        if task.steps:
            epochs = drawn * task.share / task.steps
            held = (f"{task.episodes:,}", f"{task.steps:,}", f"{epochs:.2f}")
        rows.append(
            (
                task.info.name,
                "web" if task.info.robot is None else task.info.robot.embodiment,
                f"{100 * task.share:.1f} %",
                f"{run.config.loss_weight(task.info):g}",
                *held,
            )
        )
    title = f"mixture {run.manifest.mixture}, split {run.manifest.split} ({run.manifest.hash[:12]})"
    return f"{title}\n{_table(rows)}"


def bins_table(run: Run) -> str:
    """Each robot task's fields: unit, bounds, how many bins its actions use, how many are clipped.

    Few bins in use mean bounds that are far too wide: the robot's motions then look all the same.
    Of a task that is not cached the first steps are counted.
    """
    rows = [("task", "field", "unit", "low", "high", "bins in use", "clipped")]
    for task, cache in zip(run.manifest.tasks, run.caches, strict=True):
        if task.info.robot is None:
            continue
        codec = run.description.action_tokens(task.info).codec
        actions = cache.actions()
        encoded = codec.encode(np.repeat(actions[:, None], codec.codec.horizon, axis=1))
        for i, field in enumerate(codec.space.fields):
            count = len(field.levels or ()) or codec.codec.count
            used = len(np.unique(encoded.levels[:, 0, i]))
            rows.append(
                (
                    task.info.name,
                    field.name,
                    field.unit,
                    f"{codec.bounds.low[i]:.4g}",
                    f"{codec.bounds.high[i]:.4g}",
                    f"{used} of {count}",
                    f"{100 * encoded.clipped[i] / encoded.levels[..., i].size:.1f} %",
                )
            )
    return _table(rows) if len(rows) > 1 else "no robot in this mixture"


def parameter_table(run: Run | Outlook) -> str:
    """Every parameter: shape, dtype, how it lies on the mesh, bytes on a device, if it trains."""
    frozen = run.initializer.frozen
    rows = [("parameter", "shape", "dtype", "layout", "bytes per device", "trains")]
    for name, leaf in flatten_dict(run.initializer.abstract.params, sep="/").items():
        layout = ", ".join(str(axis) for axis in leaf.sharding.spec) or "whole"
        rows.append(
            (
                name,
                " x ".join(map(str, leaf.shape)),
                str(leaf.dtype),
                layout,
                f"{_held(leaf):,}",
                "frozen" if name in frozen else "yes",
            )
        )
    return _table(rows)


def parts_table(parts: Sequence[Part]) -> str:
    """Every part of a model, its parameters and those that were published."""
    rows: list[tuple[str, ...]] = [
        ("part", "parameters", "compared", "published", "difference", "source")
    ]
    for part in parts:
        known: tuple[str, ...] = ("", "", "", "")
        if part.published is not None:
            lacking = ", ".join(part.published.elsewhere)
            where = f"{part.published.source}{f'; with {lacking}' if lacking else ''}"
            published = f"{part.published.parameters:,}"
            known = (f"{part.compared:,}", published, part.difference, where)
        rows.append((part.name, f"{part.parameters:,}", *known))
    total = total_parameters(parts)
    rows.append(("all", f"{total:,}", "", "", "", ""))
    size = (
        f"parameters: {total * 4 / 2**30:.2f} GiB in float32, {total * 2 / 2**30:.2f} in bfloat16"
    )
    return f"{_table(rows)}\n\n{size}"


def abstract_parts(config: ModelConfig) -> tuple[Part, ...]:
    """The parts of a model that belongs to no run; shapes are computed, no memory is used."""
    shapes = InputSpec(
        config.image_slots,
        config.image_size,
        encoder_length=64,
        decoder_length=2,
        placeholders_per_image=config.placeholders_per_image,
        instruction_dim=config.instruction_embedding_dim,
    ).batch_shapes(1)
    return model_parts(config, make_model(config).abstract_params(shapes))


def memory_table(run: Run | Outlook) -> str:
    """Exact bytes of the state and of a batch; activations are not in it."""
    state = run.initializer.abstract
    rows = [("what", "numbers", "bytes", "bytes per device")]
    trained, _ = split_frozen(state.params, run.initializer.frozen)
    for name, tree in (
        ("parameters", state.params),
        ("of them trained", trained),
        ("optimizer", state.param_states),
        *([] if state.ema is None else [("average", state.ema)]),
    ):
        leaves = jax.tree.leaves(tree)
        rows.append(
            (
                name,
                f"{sum(leaf.size for leaf in leaves):,}",
                f"{sum(leaf.size * leaf.dtype.itemsize for leaf in leaves):,}",
                f"{sum(map(_held, leaves)):,}",
            )
        )
    return f"mesh {dict(run.partitioner.mesh.shape)}\n{_table(rows)}"


def batch_table(run: Run | Outlook) -> str:
    """How many examples a step and the run take, and the features of a global batch."""
    config, parts = run.config, run.partitioner.batch_parts
    size, steps = config.global_batch_size, config.loop.total_steps
    micro = config.step.num_microbatches
    head = (
        f"{steps:,} steps of {size:,} examples: {steps * size:,} examples\n"
        f"{parts} parts of the mesh x {micro} microbatches x {size // parts // micro:,} examples"
    )
    rows = [("feature", "global shape")]
    rows += [(name, " x ".join(map(str, shape))) for name, shape in run.batch_shapes.items()]
    return f"{head}\n{_table(rows)}"


def _held(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
