"""AdamW under the trainer's convention is optax's AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rt2_jax.training.optimizers import AdamW


def test_adamw_is_that_of_optax_with_the_learning_rate_from_outside():
    rates = [0.1, 0.02, 0.3]
    expected = optax.adamw(lambda step: jnp.array(rates)[step], 0.8, 0.95, 1e-6, weight_decay=0.01)
    found = AdamW(0.8, 0.95, 1e-6, 0.01).transformation(None)
    params = [{"w": jnp.linspace(-1, 1, 5)}] * 2
    states = [found.init(params[0]), expected.init(params[1])]
    for step, rate in enumerate(rates):
        gradient = {"w": jnp.cos(step + jnp.arange(5.0))}
        keywords = {"step": jnp.int32(step), "learning_rate": jnp.float32(rate)}
        updates, states[0] = found.update(gradient, states[0], params[0], **keywords)
        params[0] = optax.apply_updates(params[0], updates)
        updates, states[1] = expected.update(gradient, states[1], params[1])
        params[1] = optax.apply_updates(params[1], updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *params)
