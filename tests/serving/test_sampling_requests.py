"""Robots that ask for drawn answers get them, beside robots that do not."""

import pytest

from rt2_jax.client.frames import pack, unpack

from .conftest import Toy, together
from .test_server import raw, request


class Drawing(Toy):
    """Says what it was asked to draw."""

    def __init__(self, seconds=0.0):
        super().__init__(seconds)
        self.metadata["most_samples"] = 4
        self.drawn = []

    def infer_batch(self, observations, sampling=None):
        self.drawn.append((sampling, len(observations)))
        answers = super().infer_batch(observations)
        return [{**answer, "samples": {"seed": sampling and sampling.seed}} for answer in answers]


def test_requests_that_draw_alike_share_a_batch_and_others_do_not(serve):
    policy = Drawing(seconds=0.2)
    _, url = serve(policy)
    wishes = [{}, {}, *[{"num_samples": 2, "seed": 5}] * 2, {"temperature": 0.5}]

    def ask(number):
        frame = pack(request(session=f"s{number}", **wishes[number]))
        return unpack(raw(url, frame)[0])

    answers = together(len(wishes), ask)
    assert [each["samples"]["seed"] for each in answers] == [None, None, 5, 5, 0]
    assert sum(count for _, count in policy.drawn) == 5
    assert len({sampling for sampling, _ in policy.drawn}) == 3


@pytest.mark.parametrize(
    ("policy", "fields", "message"),
    [
        (Toy, {"num_samples": 2}, "asks for 2 drawn answers, and this server gives the likeliest"),
        (
            Drawing,
            {"num_samples": 5},
            "num_samples: found 5, expected at most 4",
        ),
        (Drawing, {"top_k": -1}, "sampling: top_k: found -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(serve, policy, fields, message):
    _, url = serve(policy())
    [answer] = raw(url, pack(request(**fields)))
    assert answer.startswith("REFUSED: ") and message in answer
