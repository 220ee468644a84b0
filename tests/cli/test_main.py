"""The `rt2` command: flags, errors and exit statuses, tried with a verb of the test's own."""

import os
import subprocess
import sys
import types

import pytest

import rt2_jax
from rt2_jax.cli import main as command


@pytest.fixture
def verb(monkeypatch):
    """A verb `plant` with the flags `--dry-run` and `--gin.NAME`; `verb.run` is what it does."""
    module = types.ModuleType("rt2_jax.cli.plant")

    def add_parser(subparsers):
        parser = subparsers.add_parser("plant")
        parser.add_argument("--dry-run", action="store_true")
        parser.add_argument("--gin-file")
        parser.add_argument("--gin.RATE_NAME", dest="gin")
        parser.add_argument("words", nargs="*")

    module.add_parser = add_parser
    module.run = vars
    monkeypatch.setitem(sys.modules, "rt2_jax.cli.plant", module)
    monkeypatch.setitem(command.VERBS, "plant", command.Verb("plants", "data"))
    monkeypatch.delenv("RT2_TRACEBACK", raising=False)
    return module


def raising(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    "flags", [["--dry_run", "--gin_file=a_b"], ["--dry-run", "--gin-file=a_b"]]
)
def test_flags_work_with_dashes_and_with_underscores(verb, flags):
    seen = command.main(["plant", *flags])
    assert seen["dry_run"] is True
    assert seen["gin_file"] == "a_b"


def test_gin_bindings_and_words_after_two_dashes_are_left_alone(verb):
    seen = command.main(["plant", "--gin.RATE_NAME=0_5", "--", "--a_b"])
    assert seen["gin"] == "0_5"
    assert seen["words"] == ["--a_b"]


def test_the_status_of_a_verb_is_the_commands_and_nothing_means_success(verb):
    verb.run = lambda args: 3
    assert command.main(["plant"]) == 3
    verb.run = lambda args: None
    assert command.main(["plant"]) == 0


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("found 3, expected 4"), "rt2 plant: error: found 3, expected 4\n"),
        (KeyError("no task 'x'"), "rt2 plant: error: no task 'x'\n"),
        (ValueError(), "rt2 plant: error: ValueError\n"),
        (
            FileNotFoundError(2, "No such file or directory", "a.gin"),
            "rt2 plant: error: [Errno 2] No such file or directory: 'a.gin'\n",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(verb, capsys, error, line):
    verb.run = raising(error)
    assert command.main(["plant"]) == 2
    assert capsys.readouterr().err == line


def test_the_traceback_of_bad_input_can_be_asked_for(verb, monkeypatch):
    monkeypatch.setenv("RT2_TRACEBACK", "1")
    verb.run = raising(ValueError("found 3"))
    with pytest.raises(ValueError, match="found 3"):
        command.main(["plant"])


def test_a_missing_package_is_answered_with_the_extra_to_install(verb, capsys):
    verb.run = raising(ModuleNotFoundError("No module named 'seqio'", name="seqio"))
    assert command.main(["plant"]) == 2
    expected = "rt2 plant: error: needs 'seqio': pip install 'rt2-jax[data]'\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("oops"),
        ModuleNotFoundError("oops", name="rt2_jax.oops"),
        KeyError("cube"),  # what `{}["cube"]` raises
        KeyError(3),
    ],
)
def test_a_mistake_in_the_program_is_not_taken_for_bad_input(verb, error):
    verb.run = raising(error)
    with pytest.raises(type(error)):
        command.main(["plant"])


def test_a_pipe_that_breaks_elsewhere_is_no_reader_that_has_gone(verb, capsys):
    verb.run = raising(BrokenPipeError(32, "Broken pipe"))
    assert command.main(["plant"]) == 2
    assert capsys.readouterr().err == "rt2 plant: error: [Errno 32] Broken pipe\n"


def test_ctrl_c_ends_with_status_130(verb):
    verb.run = raising(KeyboardInterrupt())
    assert command.main(["plant"]) == 130


def test_an_unknown_verb_is_answered_with_the_nearest_one(verb, capsys):
    assert command.main(["plannt"]) == 2
    assert "unknown verb 'plannt'; did you mean 'plant'? (verbs: " in capsys.readouterr().err


def test_without_a_verb_the_help_is_printed_with_status_2(verb, capsys):
    assert command.main([]) == 2
    printed = capsys.readouterr().out
    assert "plants" in printed
    assert "RT2_TRACEBACK=1 shows where" in printed


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"rt2 {rt2_jax.__version__}\n"


@pytest.mark.parametrize("name", command.VERBS)
def test_every_listed_verb_is_there_and_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: rt2 {name}" in capsys.readouterr().out


def test_a_reader_that_has_gone_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "rt2_jax.cli.main", "sim", "list"]
    result = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert result.stderr == ""
    assert result.returncode == 141


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sim", "recrd"), "rt2 sim: error: unknown VERB 'recrd'; did you mean 'record'?"),
        (("sim", "rollout", "--polcy", "x"), "unknown option '--polcy'; did you mean '--policy'?"),
        (("sim", "rollout", "--vid", "x.gif"), "unknown option '--vid'; did you mean '--video'?"),
        (("sim", "record"), "rt2 sim record: error: the following arguments are required: --out"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_the_nearest(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        command.main(words)
    errors = capsys.readouterr().err
    assert end.value.code == 2
    assert message in errors and errors.count("\n") == 1


def test_a_gl_library_that_mujoco_does_not_know_is_one_line():
    result = subprocess.run(
        [sys.executable, "-m", "rt2_jax.cli.main", "sim", "list"],
        env={**os.environ, "MUJOCO_GL": "banana"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "MUJOCO_GL: banana; unset it" in result.stderr and "Traceback" not in result.stderr
