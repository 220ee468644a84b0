"""What XLA makes of the training step for TPUs, where their compiler is installed."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program():
    pytest.importorskip("libtpu", reason="no libtpu: nothing compiles for TPUs here")
    path = pathlib.Path(__file__).with_name("tpu_program.py")
    done = subprocess.run([sys.executable, path, "v5e:2x4"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def sizes(program, operation, dtype):
    """Elements of the arrays of one kind of collective."""
    found = []
    for shape, kind in program["collectives"]:
        if kind == operation and shape.startswith(dtype):
            count = 1
            for size in re.findall(r"\d+", shape.partition("[")[2]):
                count *= int(size)
            found.append(count)
    return found


def test_layers_are_gathered_in_bfloat16_alone(program):
    halves = sizes(program, "all-gather", "bf16")
    assert len(halves) > 40
    # Once each: the output layer, whose logits are float32; what flows back into the last norms of
    # encoder and decoder; the table of relative positions.
    assert len([size for size in sizes(program, "all-gather", "f32") if size > 64]) <= 4


def test_gradients_and_the_residual_stream_are_scattered(program):
    assert program["scattered"] > 20


def test_the_weights_of_attention_stay_where_their_heads_are(program):
    rows, picture_and_prompt = 4, 128
    moved = [size for dtype in ("f32", "bf16") for size in sizes(program, "all-to-all", dtype)]
    assert all(size < rows * picture_and_prompt**2 for size in moved), moved


def test_it_needs_no_more_memory_than_its_activations(program):
    assert program["bytes"] < 20 * 2**20
