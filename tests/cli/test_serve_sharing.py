"""The flags of `rt2 serve` for the queue and for limits of actions."""

import argparse

import pytest

from rt2_jax.cli.serve_sharing import add_sharing_flags, sharing_options
from rt2_jax.serving.action_checks import FieldLimit
from rt2_jax.serving.options import ServerOptions


def options(*words):
    parser = argparse.ArgumentParser()
    add_sharing_flags(parser)
    return sharing_options(parser.parse_args(words))


def test_without_flags_the_server_has_its_defaults():
    assert ServerOptions(**options()) == ServerOptions()


def test_the_flags_are_the_servers_options(tmp_path):
    limits = tmp_path / "limits.json"
    limits.write_text('{"x": {"max_abs": 0.02}, "y": {"max_change": 0.5}}')
    found = ServerOptions(
        **options(
            *("--max-queue", "64", "--max-wait", "0.01", "--model-timeout", "5"),
            *("--limits", str(limits), "--hold-back", "--min-confidence", "0.2"),
        )
    )
    assert (found.max_queue, found.max_wait_s, found.model_timeout_s) == (64, 0.01, 5.0)
    assert found.safety.limits == {"x": FieldLimit(0.02, None), "y": FieldLimit(None, 0.5)}
    assert found.safety.hold_back and found.safety.min_confidence == 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hold-back"], "found no --limits"),
        (["--refuse-low-confidence"], "found no --min-confidence"),
        (["--max-queue", "2"], "max_queue: found 2, expected room for at least one batch of 8"),
        (["--model-timeout", "-1"], "model_timeout_s: found -1.0, expected seconds from 0"),
    ],
)
def test_flags_that_mean_nothing_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        ServerOptions(**options(*words))
