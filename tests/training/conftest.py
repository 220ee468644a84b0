"""The tiny run."""

import dataclasses
import pathlib
import runpy
import types

import pytest

TINY_RUN = pathlib.Path(__file__).with_name("tiny_run.py")


@pytest.fixture(scope="session")
def tiny():
    """Everything that `tiny_run.py` defines, and its own path."""
    return types.SimpleNamespace(**runpy.run_path(str(TINY_RUN)), path=TINY_RUN)


@pytest.fixture(scope="package")
def compiled(tiny):
    """`tiny.Compiled`: `compiled.run(directory, total_steps)` starts a run."""
    return tiny.Compiled()


def tiny_config(tiny_mixture, model_dir):
    from rt2_jax.training.gin_files import load_run_config

    return load_run_config([str(tiny_mixture.gin)], [f"MODEL_DIR = '{model_dir}'"])[0]


@pytest.fixture
def run_config(tiny_mixture, tmp_path):
    """Makes the configuration of a run of `tiny_mix`, with values of your own."""

    def make(**changes):
        return dataclasses.replace(tiny_config(tiny_mixture, tmp_path / "run"), **changes)

    return make


@pytest.fixture(scope="package")
def prepared(tiny_mixture, tmp_path_factory):
    """A run of `tiny_mix` that is not begun."""
    from rt2_jax.training.run import prepare

    return prepare(tiny_config(tiny_mixture, tmp_path_factory.mktemp("prepared") / "run"))


@pytest.fixture
def quick_run(run_config, tiny):
    """Prepares a run of `tiny_mix` with `tiny.Table`, which compiles in no time, for its model."""
    from rt2_jax.training.run import prepare
    from rt2_jax.training.train_state import train_state_initializer

    def make(**changes):
        run, model = prepare(run_config(**changes)), tiny.Table()
        types = {name: each.dtype for name, each in run.batch.items()}
        initializer = train_state_initializer(
            model, run.partitioner, run.batch_shapes, types, frozen=run.config.frozen
        )
        return dataclasses.replace(run, model=model, initializer=initializer)

    return make


@pytest.fixture(scope="package")
def trained(tiny_mixture, tmp_path_factory):
    """The directory of a run of `tiny_mix` that is complete; copy it before you change it."""
    from rt2_jax.training.execution import execute
    from rt2_jax.training.run import prepare

    directory = tmp_path_factory.mktemp("trained") / "run"
    execute(prepare(tiny_config(tiny_mixture, directory)))
    return directory


@pytest.fixture
def other_vocabulary(tmp_path):
    """The file of a small SentencePiece model that is not the built-in one."""
    import sentencepiece

    from rt2_jax.data.vocabulary.corpus import sentences

    path = tmp_path / "other.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences(500),
            model_writer=file,
            vocab_size=700,
            byte_fallback=True,
            user_defined_symbols=[f"\u2581{i}" for i in range(256)],
            **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2},
        )
    return path
