"""What requests say of drawn answers."""

import numpy as np
import pytest

from rt2_jax.actions.sampling import Sampling


def test_a_request_without_the_fields_asks_for_the_likeliest_answer():
    assert Sampling.from_request({"prompt": "go", "seed": None}) is None


def test_fields_that_are_left_out_have_their_defaults():
    asked = {"num_samples": np.int64(4), "temperature": np.float32(0.5)}
    assert Sampling.from_request(asked) == Sampling(0.5, 0, 4, 0)


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ({"temperature": -1}, ValueError, "temperature: found -1, expected 0 to 100"),
        ({"temperature": float("nan")}, ValueError, "temperature: found nan"),
        ({"temperature": "hot"}, TypeError, "found str 'hot', expected a number"),
        ({"num_samples": 0}, ValueError, "num_samples: found 0, expected 1 to 1024"),
        ({"top_k": 2.0}, TypeError, "top_k: found float 2.0, expected an integer"),
        ({"top_k": 257}, ValueError, "top_k: found 257, expected 0 to 256"),
        ({"seed": 2**32}, ValueError, "seed: found 4294967296"),
        ({"seed": True}, TypeError, "seed: found bool True"),
    ],
)
def test_numbers_out_of_their_range_are_refused_by_name(asked, kind, message):
    with pytest.raises(kind, match=message):
        Sampling.from_request(asked)
