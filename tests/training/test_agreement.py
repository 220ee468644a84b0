"""What hosts compare before the first step; that real ones do is in tests/integration."""

import dataclasses

import numpy as np

from rt2_jax.training.agreement import code_version, differences, digests


@dataclasses.dataclass
class Config:
    rate: float
    weights: dict
    function: object = None


def test_a_host_that_differs_is_named_with_what_it_has_another_of():
    found = np.zeros((3, 2, 32), np.uint8)
    found[1, 1] = 7
    assert differences(["code", "rate"], ["a", "b", "c"], found) == ["host 1 (b) has another rate"]
    assert differences(["code", "rate"], ["a", "b"], found[:2]) == ["host 1 (b) has another rate"]
    assert differences(["code", "rate"], ["a", "c"], found[[0, 2]]) == []


def test_every_field_counts_but_not_the_order_of_a_mapping_or_where_a_function_lies():
    one = digests(Config(0.1, {"a": 1, "b": 2}, lambda: 0), manifest="x")
    assert set(one) == {"Config.rate", "Config.weights", "Config.function", "manifest"}
    two = digests(Config(0.2, {"b": 2, "a": 1}, lambda: 0), manifest="x")
    assert {name for name in one if one[name] != two[name]} == {"Config.rate"}
    assert " at 0x" not in one["Config.function"]
    assert "+" in code_version()
