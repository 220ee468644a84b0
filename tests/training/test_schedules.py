"""Learning rates against their closed forms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.training.schedules import LearningRate

STEPS = st.integers(0, 2_000_000)


def rate(factors, step, **fields):
    fields = {"warmup_steps": 1000, "base_learning_rate": 0.5, **fields}
    return float(LearningRate(factors=factors, **fields)(step))


CLOSED_FORMS = {
    "constant": lambda s: 0.5,
    "constant * linear_warmup": lambda s: 0.5 * min(1, s / 1000),
    "constant*rsqrt_decay": lambda s: 0.5 / math.sqrt(max(s, 1000)),
    "constant * linear_warmup * rsqrt_normalized_decay": lambda s: (
        0.5 * min(1, s / 1000) * math.sqrt(1000 / max(s, 1000))
    ),
    "constant * decay_every": lambda s: 0.5 * 0.5 ** (s // 20_000),
    "constant * cosine_decay": lambda s: (
        0.5 * (1 + math.cos(math.pi * (max(0, s - 1000) / 100_000 % 1))) / 2
    ),
}


@pytest.mark.parametrize("factors", CLOSED_FORMS)
@given(step=STEPS)
def test_a_product_of_factors_follows_its_closed_form(factors, step):
    expected = max(CLOSED_FORMS[factors](step), 1e-8)
    assert rate(factors, step) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(step=STEPS)
def test_linear_decay_rises_and_falls_to_the_minimum(step):
    expected = max(0.5 * min(step / 1000, 1 + 1e-3 * (1000 - step)), 1e-8)
    assert rate("linear_decay", step, decay_factor=1e-3) == pytest.approx(expected, rel=1e-4)


@given(step=STEPS)
def test_a_step_offset_moves_the_schedule(step):
    factors = "constant * linear_warmup * rsqrt_decay"
    assert rate(factors, step + 777, step_offset=777) == rate(factors, step)
    assert rate(factors, 3, step_offset=777) == rate(factors, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factors": "constant * rsqrt"}, r"found \['rsqrt'\] .*expected some of constant, linear"),
        ({"factors": ""}, r"found \[''\]"),
        ({"warmup_steps": 0}, "warmup_steps: found 0, expected a positive number"),
        ({"steps_per_cycle": -1}, "steps_per_cycle: found -1"),
        ({"steps_per_decay": 0}, "steps_per_decay: found 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LearningRate(**fields)
