"""A restart neither traces nor compiles; a file that isn't what it should be is never used."""

import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.inference.engine import PolicyEngine
from rt2_jax.inference.exported import ProgramStore
from rt2_jax.inference.program_files import program_path, read_program_file, write_program_file
from rt2_jax.models.model import VisionLanguageModel

IDENTITY = {"decode": [4, None]}
INPUTS = ({"w": jnp.arange(12.0).reshape(4, 3)}, {"x": np.ones((2, 4), np.float32)}, None)


def ask(folder, inputs=INPUTS, identity=IDENTITY):
    """A start of its own: the answer, how often the function was traced, the store."""
    traced = []

    def function(params, batch, mask):
        traced.append(mask)
        return jnp.argmax(batch["x"] @ params["w"], axis=-1), jnp.sum(params["w"])

    store = ProgramStore(folder)
    answer = store.program(function, inputs, identity)(*inputs)
    return [np.asarray(each).tolist() for each in answer], len(traced), store


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with the file of one program, and what that answers."""
    folder = tmp_path_factory.mktemp("kept")
    answer, traced, store = ask(folder)
    assert (traced > 0, store.loaded, store.compiled) == (True, 0, 1)
    return folder, answer


@pytest.fixture
def file(kept, tmp_path):
    """The same in a folder of the test's own: its one file."""
    [path] = kept[0].glob("*.rt2program")
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    return copy


def test_a_program_of_an_earlier_start_is_neither_traced_nor_compiled(kept, file):
    answer, traced, store = ask(file.parent)
    assert (answer, traced, store.loaded, store.compiled) == (kept[1], 0, 1, 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
        lambda data: b"",
        lambda data: b"not ours at all",
    ],
    ids=["cut off", "one bit", "empty", "foreign"],
)
def test_a_damaged_file_is_named_compiled_anew_and_whole_afterwards(kept, file, damage, caplog):
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    answer, traced, store = ask(file.parent)
    assert (answer, traced > 0, store.compiled) == (kept[1], True, 1)
    assert str(file) in caplog.text and "compiled anew" in caplog.text
    assert ask(file.parent)[2].loaded == 1


def test_the_file_of_another_program_under_this_name_is_not_used(kept, file, caplog):
    store = ProgramStore(file.parent)
    other = {**store._environment, "decode": [8, None]}
    program_path(file.parent, other).write_bytes(file.read_bytes())
    _, traced, store = ask(file.parent, identity={"decode": [8, None]})
    assert (traced > 0, store.compiled) == (True, 1)
    assert "another model, program version or device" in caplog.text


@pytest.mark.parametrize("name", ["versions", "devices", "processor", "flags", "traced_with"])
def test_whatever_decides_a_program_is_in_its_key(file, name, monkeypatch):
    store = ProgramStore(file.parent)
    assert read_program_file(file.parent, {**store._environment, **IDENTITY}) is not None
    other = {**store._environment, name: "another"}
    assert read_program_file(file.parent, {**other, **IDENTITY}) is None


def test_what_cannot_be_exported_is_traced_again_and_works(tmp_path, caplog):
    shape = jax.ShapeDtypeStruct((), jnp.float32)

    def function(x):
        return jax.pure_callback(lambda x: np.float32(x + 1), shape, x)

    store = ProgramStore(tmp_path)
    assert store.program(function, [np.float32(1)], {})(np.float32(1)) == 2
    assert "cannot be exported" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        ProgramStore(tmp_path / "file" / "programs")


def test_a_new_folder_is_for_its_user_alone_and_jax_gets_its_own_settings_back(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    store = ProgramStore(tmp_path / "a" / "programs")
    assert os.stat(store.folder).st_mode & 0o777 == 0o700
    with store.active("test"):
        assert jax.config.jax_compilation_cache_dir != before
    assert jax.config.jax_compilation_cache_dir == before


def test_servers_that_write_the_same_file_at_once_leave_it_whole_at_every_moment(tmp_path):
    parts = {"a": b"x" * 100_000, "b": b"y"}
    write_program_file(tmp_path, IDENTITY, parts)
    done = threading.Event()

    def write():
        while not done.is_set():
            write_program_file(tmp_path, IDENTITY, parts)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert all(read_program_file(tmp_path, IDENTITY) == parts for _ in range(100))
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_policy_starts_again_without_tracing_its_model(untrained, tmp_path, monkeypatch):
    def start():
        store = ProgramStore(tmp_path)
        with store.active("test"):
            engine = PolicyEngine.from_checkpoint(untrained, (2,), store=store)
            engine.warm_up()
            store.keep_rest()
        [tokens] = engine.decode_actions(
            [dict(engine.description.example_input)], engine.robot_task()
        )[1]
        return tokens.tolist(), (store.loaded, store.compiled)

    tokens, counts = start()
    assert counts == (0, 1)
    monkeypatch.setattr(VisionLanguageModel, "generate", None)
    assert start() == (tokens, (1, 0))
