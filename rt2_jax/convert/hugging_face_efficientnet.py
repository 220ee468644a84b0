"""EfficientNet under its Hugging Face names, batch norm's statistics with it."""

from __future__ import annotations

from collections.abc import Iterator

from rt2_jax.convert.name_map import Entry
from rt2_jax.models.rt1.config import EfficientNetConfig


def efficientnet_map(config: EfficientNetConfig) -> tuple[Entry, ...]:
    """EfficientNet (`EfficientNetModel`): the tree of `EfficientNet` without an instruction.

    In files with a classifier `under(efficientnet_map(config), "efficientnet.")` are its names;
    leave out "classifier.".

    Raises:
      ValueError: group norms.
    """
    if config.norm != "frozen_batch":
        raise ValueError(
            f"EfficientNetConfig.norm: found {config.norm!r}, expected 'frozen_batch': published "
            "weights have batch norm's statistics"
        )
    return tuple(_efficientnet(config))


def _efficientnet(config: EfficientNetConfig) -> Iterator[Entry]:
    stem, stem_path = config.stem_channels, ("stem",)
    yield Entry(
        "embeddings.convolution.weight",
        (stem, 3, 3, 3),
        (*stem_path, "kernel"),
        "convolution",
    )
    yield from _batch_norm("embeddings.batchnorm", stem, stem_path)
    for i, block in enumerate(config.blocks):
        name, at = f"encoder.blocks.{i}", f"block_{i}"
        wide = block.channels_in * block.expansion
        if block.expansion != 1:
            where, path = f"{name}.expansion.expand", (at, "expand")
            shape = (wide, block.channels_in, 1, 1)
            yield Entry(f"{where}_conv.weight", shape, (*path, "kernel"), "convolution")
            yield from _batch_norm(f"{where}_bn", wide, path)
        where, path = f"{name}.depthwise_conv.depthwise", (at, "depthwise")
        shape = (wide, 1, block.kernel, block.kernel)
        yield Entry(f"{where}_conv.weight", shape, (*path, "kernel"), "depthwise")
        yield from _batch_norm(f"{where}_norm", wide, path)
        narrow = max(1, block.channels_in // 4)
        for part, ours, size_in, size_out in (
            ("reduce", "squeeze", wide, narrow),
            ("expand", "excite", narrow, wide),
        ):
            where, shape = f"{name}.squeeze_excite.{part}", (size_out, size_in, 1, 1)
            yield Entry(f"{where}.weight", shape, (at, ours, "kernel"), "convolution")
            yield Entry(f"{where}.bias", (size_out,), (at, ours, "bias"))
        where, path = f"{name}.projection.project", (at, "project")
        shape = (block.channels_out, wide, 1, 1)
        yield Entry(f"{where}_conv.weight", shape, (*path, "kernel"), "convolution")
        yield from _batch_norm(f"{where}_bn", block.channels_out, path)
    shape = (config.top_channels, config.blocks[-1].channels_out, 1, 1)
    yield Entry("encoder.top_conv.weight", shape, ("top", "kernel"), "convolution")
    yield from _batch_norm("encoder.top_bn", config.top_channels, ("top",))


def _batch_norm(name: str, channels: int, path: tuple[str, ...]) -> Iterator[Entry]:
    for theirs, ours in (
        ("weight", "scale"),
        ("bias", "bias"),
        ("running_mean", "mean"),
        ("running_var", "var"),
    ):
        yield Entry(f"{name}.{theirs}", (channels,), (*path, "norm", ours))
    # How many batches the statistics come from.
    yield Entry(f"{name}.num_batches_tracked", ())
