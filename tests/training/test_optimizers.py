"""The optimizers under the trainer's convention are optax's; groups have rates of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.optimizers import SGD, AdamW, Lion, check_multipliers, with_multipliers

RATES = [0.1, 0.02, 0.3]
AXES = {
    "vision": {"kernel": ("embed", "mlp"), "scale": ("embed",)},
    "text": {"kernel": ("embed", "mlp")},
}


def descend(transformation, convention):
    """Parameters after three steps; `convention`: with the learning rate from outside."""
    shapes = {("embed", "mlp"): (2, 3), ("embed",): (3,)}
    params = jax.tree.map(
        lambda axes: jnp.linspace(-1, 1, np.prod(shapes[axes])).reshape(shapes[axes]),
        AXES,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    state = transformation.init(params)
    for step, rate in enumerate(RATES):
        gradient = jax.tree.map(lambda x, step=step: jnp.cos(step + 3 * x), params)
        keywords = {"step": jnp.int32(step), "learning_rate": jnp.float32(rate)}
        updates, state = transformation.update(
            gradient, state, params, **(keywords if convention else {})
        )
        params = optax.apply_updates(params, updates)
    return params


def rate(step):
    return jnp.array(RATES)[step]


def mask(params):
    return {"vision": {"kernel": True, "scale": False}, "text": {"kernel": True}}


NO_SCALES = (".*/scale",)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (AdamW(0.8, 0.95, 1e-6, 0.01), optax.adamw(rate, 0.8, 0.95, 1e-6, weight_decay=0.01)),
        (
            AdamW(weight_decay=0.3, no_decay=NO_SCALES),
            optax.adamw(rate, weight_decay=0.3, mask=mask),
        ),
        (AdamW(), optax.adam(rate)),
        (
            Lion(0.8, 0.95, 0.3, NO_SCALES),
            optax.lion(rate, 0.8, 0.95, weight_decay=0.3, mask=mask),
        ),
        (SGD(0.8, nesterov=True), optax.sgd(rate, 0.8, nesterov=True)),
        (SGD(0.0), optax.sgd(rate)),
    ],
)
def test_an_optimizer_is_that_of_optax_with_the_learning_rate_from_outside(ours, theirs):
    found = descend(ours.transformation(AXES), convention=True)
    expected = descend(theirs, convention=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_what_does_not_decay_is_as_without_weight_decay_under_adafactor_too():
    decaying, partly, without = (
        descend(Adafactor(weight_decay_rate=decay, no_decay=names).transformation(AXES), True)
        for decay, names in ((0.1, ()), (0.1, NO_SCALES), (None, ()))
    )
    np.testing.assert_array_equal(partly["text"]["kernel"], decaying["text"]["kernel"])
    np.testing.assert_array_equal(partly["vision"]["scale"], without["vision"]["scale"])
    assert np.abs(decaying["vision"]["scale"] - without["vision"]["scale"]).max() > 0.05


@pytest.mark.parametrize("optimizer", [AdamW, Adafactor, Lion, SGD])
def test_a_pattern_of_what_does_not_decay_must_match(optimizer):
    name = optimizer.__name__
    with pytest.raises(ValueError, match=rf"{name}.no_decay: '\(' is no regular expression"):
        optimizer(no_decay=("(",))
    with pytest.raises(ValueError, match=rf"{name}.no_decay: 'vision/scal' .*near: vision/scale"):
        optimizer(no_decay=("vision/scal",)).transformation(AXES)


@pytest.mark.parametrize(
    "optimizer", [AdamW(weight_decay=0.1), Adafactor(beta1=0.9, weight_decay_rate=0.1), Lion()]
)
def test_a_groups_updates_are_multiplied_and_the_first_match_counts(optimizer):
    plain = optimizer.transformation(AXES)
    grouped = with_multipliers(plain, AXES, {"vision/scale": 3.0, "vision/.*": 0.1})
    params = jax.tree.map(
        lambda axes: jnp.ones((2, 3)[: len(axes)]), AXES, is_leaf=lambda x: isinstance(x, tuple)
    )
    gradient = jax.tree.map(lambda x: x * 0.7, params)
    keywords = {"step": jnp.int32(0), "learning_rate": jnp.float32(0.01)}
    (one, state), (other, same) = (
        each.update(gradient, each.init(params), params, **keywords) for each in (plain, grouped)
    )
    jax.tree.map(np.testing.assert_array_equal, state, same)
    for path, factor in (
        (("vision", "scale"), 3.0),
        (("vision", "kernel"), 0.1),
        (("text", "kernel"), 1.0),
    ):
        a, b = (tree[path[0]][path[1]] for tree in (one, other))
        np.testing.assert_allclose(b, factor * a, rtol=1e-6)


@pytest.mark.parametrize(
    ("multipliers", "message"),
    [
        ({"vision/.*": 0.0}, r"found 0 for 'vision/\.\*'; .*frozen.*--gin.FROZEN"),
        ({"vision/.*": -1.0}, r"found -1.0 for 'vision/\.\*', expected above 0"),
        ({"(": 1.0}, "is no regular expression"),
        ({"vison/.*": 0.1}, r"'vison/\.\*' matches no parameter as a whole; near: vision/\.\*"),
        (
            {"vision/.*": 0.1, "vision/scale": 3.0},
            r"'vision/scale' stands behind 'vision/\.\*', which takes vision/scale before it",
        ),
    ],
)
def test_multipliers_that_cannot_be_meant_are_refused(multipliers, message):
    with pytest.raises(ValueError, match=rf"^RunConfig.rate_multipliers: .*{message}"):
        check_multipliers(multipliers)
        with_multipliers(AdamW().transformation(AXES), AXES, multipliers)
