"""TFRecord files as TensorFlow writes and reads them."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from rt2_jax.data.tfrecord import crc32c, read_records, write_records

LENGTHS = [0, 1, 251, 252, 253, 508, 5000]


def records():
    random = np.random.default_rng(0)
    return [random.bytes(length) for length in LENGTHS]


def test_the_checksum_is_that_of_rfc_3720():
    assert crc32c(b"\x00" * 32) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_the_file_is_byte_for_byte_tensorflows(tmp_path):
    write_records(tmp_path / "ours", records())
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records():
            writer.write(record)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["ours", "theirs"]


@hypothesis.given(st.lists(st.binary(max_size=700), max_size=4))
def test_what_was_written_is_read(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("records") / "file"
    write_records(path, written)
    assert list(read_records(path)) == written


@pytest.mark.parametrize("place", [0, 9, 20, -1])
def test_a_changed_byte_is_refused_with_the_files_name(tmp_path, place):
    path = tmp_path / "file"
    write_records(path, [b"x" * 40])
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"file: record 0 is cut short or damaged; delete the file"
    ):
        list(read_records(path))


@pytest.mark.parametrize("left", [5, 12, 30, 55])
def test_a_cut_file_is_refused(tmp_path, left):
    path = tmp_path / "file"
    write_records(path, [b"x" * 40])
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match="record 0 is cut short or damaged"):
        list(read_records(path))


def test_a_file_of_that_name_is_always_whole(tmp_path):
    def broken():
        yield b"first"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(tmp_path / "file", broken())
    assert not (tmp_path / "file").exists()
