"""T5X's names for what a run measures: dashboards that were made for T5X go on working."""

from __future__ import annotations

from collections.abc import Mapping


def t5x_names(numbers: Mapping[str, float], num_devices: int) -> dict[str, float]:
    """The same numbers by T5X's names (`t5x/models.py`, `compute_base_metrics`).

    `accuracy`, `loss` and `learning_rate` have one name in both. As in T5X, target tokens count
    with their padding, and a core is what jax calls a device.
    """
    named = {}
    if seconds := numbers.get("seconds_per_step"):
        named["timing/steps_per_second"] = 1 / seconds
    for ours, theirs in (
        ("examples_per_second", "timing/seqs_per_second"),
        ("target_positions_per_second", "timing/target_tokens_per_second"),
    ):
        if ours in numbers:
            named[theirs] = numbers[ours]
            named[f"{theirs}_per_core"] = numbers[ours] / num_devices
    if "target_tokens" in numbers:
        named["non_padding_fraction/loss_weights"] = numbers["target_tokens"]
    return named
