"""FLOPs by counting: loops in full, what is computed again never, what does not train neither."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.data.model_inputs import InputSpec
from rt2_jax.training.devices import memory_numbers, peak_flops
from rt2_jax.training.flops import jaxpr_flops, model_flops
from rt2_jax.training.gin_files import load_model_config


def flops(function, *arguments):
    return jaxpr_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_a_scan_counts_every_time_and_its_gradient_twice_more():
    def product(weights, x):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0].sum()

    weights, x = jnp.ones((5, 8, 8)), jnp.ones((3, 8))
    once = 2 * 3 * 8 * 8
    assert flops(product, weights, x) == 5 * once
    assert flops(jax.grad(product), weights, x) == 3 * 5 * once


def test_a_convolution_and_its_gradients_count_what_is_not_zero():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID")

    x, kernel = jnp.ones((2, 3, 8, 8)), jnp.ones((4, 3, 2, 2))
    once = 2 * (2 * 4 * 4 * 4) * (3 * 2 * 2)
    assert flops(convolve, x, kernel) == once
    gradient = jax.grad(lambda *both: convolve(*both).sum(), argnums=(0, 1))
    # The output is 4 x 4; its gradient, spread out and framed, gives the 8 x 8 of the input.
    assert flops(gradient, x, kernel) == pytest.approx(3 * once, rel=0.01)


@pytest.fixture(scope="module")
def features(tiny):
    shapes, types = tiny.Batches().shapes_and_types()
    return tuple((name, shape, np.dtype(types[name]).name) for name, shape in shapes.items())


def test_neither_remat_nor_scanned_layers_change_the_count(tiny, features):
    config = tiny.CONFIG
    expected = model_flops(config, features)
    assert model_flops(dataclasses.replace(config, remat="full"), features) == expected
    assert model_flops(dataclasses.replace(config, scan_layers=False), features) == expected


def test_a_step_costs_three_times_its_forward_pass(tiny, features):
    model = tiny.make_model()
    shapes = {name: shape for name, shape, _ in features}
    batch = {name: jnp.zeros(shape, dtype) for name, shape, dtype in features}
    forward = flops(lambda params: model.example_sums(params, batch), model.abstract_params(shapes))
    # Less the first layer's input, plus sums over the batch that XLA is given as products.
    assert model_flops(tiny.CONFIG, features) == pytest.approx(3 * forward, rel=0.02)


def test_palix_55b_costs_what_was_planned_for_it():
    config = load_model_config(["models/rt2_palix_55b.gin"])
    spec = InputSpec(config.image_slots, config.image_size, encoder_length=64, decoder_length=32)
    kinds = {"images": "uint8", "image_mask": "bool", "decoder_loss_weights": "float32"}
    shapes = spec.batch_shapes(2048).items()
    counted = model_flops(config, tuple((n, shape, kinds.get(n, "int32")) for n, shape in shapes))
    # By hand, 2 for each weight and position: pictures 33, encoder 26, decoder 6 TFLOP an example.
    assert counted == pytest.approx(1.353e17, rel=0.001)
    assert counted == pytest.approx(2048 * (33 + 26 + 6) * 1e12, rel=0.03)


def test_what_only_frozen_parameters_need_is_not_counted(tiny, features):
    names = jax.tree_util.tree_leaves_with_path(
        tiny.make_model().abstract_params({name: shape for name, shape, _ in features})
    )
    paths = {"/".join(key.key for key in path) for path, _ in names}
    frozen = frozenset(path for path in paths if path.startswith("vision/"))
    assert frozen and model_flops(tiny.CONFIG, features, frozen) < model_flops(
        tiny.CONFIG, features
    )


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("cpu", None),
        ("TPU v55", None),
    ],
)
def test_a_devices_peak_is_that_of_its_family(kind, peak):
    assert peak_flops(kind) == peak


def test_memory_is_the_fullest_devices_and_the_processs():
    class Device:
        def __init__(self, peak):
            self.peak = peak

        def memory_stats(self):
            return self.peak and {"peak_bytes_in_use": self.peak, "bytes_limit": 100}

    found = memory_numbers([Device(30), Device(40), Device(None)])
    assert found["device_memory_peak_bytes"] == 40 and found["device_memory_limit_bytes"] == 100
    assert set(memory_numbers(jax.devices("cpu"))) == {"host_memory_peak_bytes"}
