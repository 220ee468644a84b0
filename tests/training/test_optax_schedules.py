"""optax's schedules by name: optax's numbers, and arguments that are checked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rt2_jax.training.gin_files import load_run_config
from rt2_jax.training.optax_schedules import SCHEDULES, OptaxSchedule

WHOLE = {"init_value": 0.1, "end_value": 0.01, "transition_steps": 20}
WARM = {"init_value": 0.0, "peak_value": 0.2, "warmup_steps": 5}
ARGUMENTS = {
    "constant": {"value": 0.3},
    "linear": WHOLE,
    "polynomial": {**WHOLE, "power": 2, "transition_begin": 3},
    "cosine_decay": {"init_value": 0.1, "decay_steps": 20, "alpha": 0.1},
    "cosine_onecycle": {"transition_steps": 30, "peak_value": 0.2},
    "linear_onecycle": {"transition_steps": 30, "peak_value": 0.2},
    "exponential_decay": {
        "init_value": 0.1,
        "transition_steps": 5,
        "decay_rate": 0.5,
        "staircase": True,
    },
    "piecewise_constant": {"init_value": 0.1, "boundaries_and_scales": {10: 0.5, 20: 0.1}},
    "piecewise_interpolate": {
        "interpolate_type": "cosine",
        "init_value": 0.1,
        "boundaries_and_scales": {10: 0.5, 20: 0.1},
    },
    "warmup_constant": WARM,
    "warmup_cosine_decay": {**WARM, "decay_steps": 25, "end_value": 0.01},
    "warmup_exponential_decay": {**WARM, "transition_steps": 5, "decay_rate": 0.5},
}


def test_every_schedule_gives_the_numbers_of_optax():
    steps = jnp.array([0, 4, 11, 24, 60])

    def rates(step):
        ours, theirs = {}, {}
        for name, arguments in ARGUMENTS.items():
            function = getattr(optax, f"{name}_schedule", None) or getattr(optax, name)
            ours[name] = OptaxSchedule(name, arguments, step_offset=100)(step + 100)
            theirs[name] = jnp.asarray(function(**arguments)(step), jnp.float32)
        return ours, theirs

    assert set(ARGUMENTS) == set(SCHEDULES)
    ours, theirs = jax.jit(jax.vmap(rates))(steps)
    for name in SCHEDULES:
        assert ours[name].dtype == jnp.float32
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, err_msg=name)
    early = OptaxSchedule("linear", ARGUMENTS["linear"], step_offset=100)(3)
    np.testing.assert_allclose(early, 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("warmup_cosine", WARM, r"name: found 'warmup_cosine', did you mean 'warmup_cosine_decay'"),
        ("linear", {**WHOLE, "peek": 1.0}, "'linear' has no 'peek'; it has init_value, end_value"),
        ("constant", {"valeu": 1.0}, "has no 'valeu', did you mean 'value'"),
        ("linear", {"init_value": 0.1}, "'linear' lacks end_value, transition_steps"),
        ("piecewise_constant", {"init_value": 0.1}, "lacks boundaries_and_scales"),
        ("linear", {**WHOLE, "transition_steps": 0}, "found 0, expected a whole number from 1 on"),
        ("linear", {**WHOLE, "init_value": -0.1}, "init_value: found -0.1, expected a number from"),
        ("constant", {"value": float("nan")}, "found nan, expected a number from 0 on"),
        ("constant", {"value": "fast"}, "value: found 'fast', expected a number"),
        (
            "warmup_cosine_decay",
            {**WARM, "decay_steps": 5},
            "requires positive decay_steps",
        ),
        (
            "piecewise_constant",
            {"init_value": 0.1, "boundaries_and_scales": {10: -1.0}},
            r"found \{10: -1.0\}, expected a table",
        ),
    ],
)
def test_an_unknown_name_or_a_value_that_cannot_be_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        OptaxSchedule(name, arguments)


def test_a_gin_file_names_one_with_macros_in_it(tiny_mixture):
    arguments = "{'init_value': 0.0, 'peak_value': %LEARNING_RATE, 'warmup_steps': %WARMUP_STEPS}"
    config, _ = load_run_config(
        [str(tiny_mixture.gin)],
        [
            "MODEL_DIR = 'run'",
            "RunConfig.learning_rate = @OptaxSchedule()",
            "OptaxSchedule.name = 'warmup_constant'",
            f"OptaxSchedule.arguments = {arguments}",
        ],
    )
    assert config.learning_rate == OptaxSchedule(
        "warmup_constant", {"init_value": 0.0, "peak_value": 1e-3, "warmup_steps": 2}
    )
    assert dataclasses.is_dataclass(config.learning_rate)
    with pytest.raises(ValueError, match=r"OptaxSchedule.name = 'sine'.*|.*found 'sine'"):
        load_run_config(
            [str(tiny_mixture.gin)],
            [
                "MODEL_DIR = 'run'",
                "RunConfig.learning_rate = @OptaxSchedule()",
                "OptaxSchedule.name = 'sine'",
                "OptaxSchedule.arguments = {}",
            ],
        )
