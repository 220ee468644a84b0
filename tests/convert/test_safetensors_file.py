"""Weights from safetensors files that the test writes."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from rt2_jax.convert import decoder_only_map, load_safetensors, read_parameters
from rt2_jax.models.config import DecoderOnlyConfig

ENTRIES = decoder_only_map(DecoderOnlyConfig(12, 8, 2, 4, 2, 4, 10, tie_embeddings=False))


@pytest.fixture
def arrays():
    draw = np.random.default_rng(0)
    return {each.name: draw.normal(size=each.shape).astype(np.float32) for each in ENTRIES}


def test_a_file_and_a_folder_of_shards_give_the_same(tmp_path, arrays):
    save_file(arrays, tmp_path / "whole.safetensors")
    shards, names = tmp_path / "shards", sorted(arrays)
    shards.mkdir()
    (shards / "model.safetensors.index.json").write_text("{}")
    save_file({name: arrays[name] for name in names[::2]}, shards / "1.safetensors")
    save_file({name: arrays[name] for name in names[1::2]}, shards / "2.safetensors")
    for path in (tmp_path / "whole.safetensors", shards):
        found = load_safetensors(path)
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[name], arrays[name]) for name in names)


def test_bfloat16_becomes_float32_parameters(tmp_path, arrays):
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()}
    save_file(half, tmp_path / "half.safetensors")
    found = load_safetensors(tmp_path / "half.safetensors")
    assert found["lm_head.weight"].dtype == ml_dtypes.bfloat16
    kernel = read_parameters(ENTRIES, found)["logits_dense"]["kernel"]
    assert kernel.dtype == np.float32
    assert np.array_equal(kernel.T, half["lm_head.weight"].astype(np.float32))


def test_what_is_not_there_or_twice_is_an_error(tmp_path, arrays):
    with pytest.raises(FileNotFoundError, match="found no safetensors file"):
        load_safetensors(tmp_path)
    with pytest.raises(FileNotFoundError, match="found no safetensors file"):
        load_safetensors(tmp_path / "away.safetensors")
    save_file(arrays, tmp_path / "1.safetensors")
    save_file(arrays, tmp_path / "2.safetensors")
    with pytest.raises(ValueError, match=r"2\.safetensors: .* stands in an earlier file"):
        load_safetensors(tmp_path)
