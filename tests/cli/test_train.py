"""`rt2 train`: what it prints, what it refuses in one line, and how it stops."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from rt2_jax.cli.main import main

# The same rate however many steps there are, so the same program: compiled once for all runs.
RATE = "--gin.LearningRate.steps_per_cycle=2000"


@pytest.fixture
def rt2_train(tiny_mixture, tmp_path):
    """Runs `rt2 train` on the tiny mixture, with more flags."""

    def run(*flags, gin=tiny_mixture.gin):
        words = [f"--gin_file={gin}", f"--gin.MODEL_DIR={tmp_path / 'run'}", RATE]
        return main(["train", *words, *flags])

    return run


@pytest.fixture(scope="module")
def trained(tiny_mixture, tmp_path_factory):
    """The directory of a short run."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    flags = ["--gin.TRAIN_STEPS=2", f"--gin.MODEL_DIR={directory}", RATE]
    assert main(["train", f"--gin_file={tiny_mixture.gin}", *flags]) == 0
    return directory


@pytest.fixture
def refused(capsys, tmp_path):
    """The one line that a call with bad input answers; nothing is in the run's directory."""

    def check(status):
        output = capsys.readouterr()
        assert status == 2
        assert output.err.startswith("rt2 ") and output.err.count("\n") == 1, output.err
        assert not (tmp_path / "run").exists()
        return output.err

    return check


def test_a_dry_run_prints_what_would_be_and_writes_nothing(rt2_train, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert rt2_train("--dry_run", "--gin.RunConfig.source_weights={'tiny_web': 0.5}") == 0
    output = capsys.readouterr().out
    for text in (
        "BATCH_SIZE = 8",
        "RunConfig.global_batch_size = %BATCH_SIZE",
        "decoder/logits_dense/kernel",
        "tiny_arm  tiny_arm  50.0 %  1",
        "tiny_web  web       50.0 %  0.5",
        "position_delta_x   m ",
        "19 of 256",
        "images                 8 x 1 x 8 x 8 x 3",
        "mesh {'replica': 1, 'fsdp': 1, 'data': 8, 'sequence': 1, 'tensor': 1}",
        "bytes per device",
    ):
        assert text in output, f"{text!r} is not in:\n{output}"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_says_where_it_starts_and_ends_and_leaves_its_configuration(
    rt2_train, trained, tmp_path, capsys
):
    shutil.copytree(trained, tmp_path / "run")
    assert rt2_train("--gin.TRAIN_STEPS=3", "--gin.RANDOM_SEED=0") == 0
    output = capsys.readouterr().out
    assert f"going on from {tmp_path / 'run'}/checkpoint_2 to step 3" in output
    assert re.search(r"\nstep 3/3  [\d:]{8}  loss .*  tiny_arm .* MFLOP/s  left 0:00:00\n", output)
    assert output.endswith(f"done at step 3: {tmp_path / 'run'}/checkpoint_3\n")
    assert "in 2 starts:\n  step " in output and "  lost " not in output
    assert "TRAIN_STEPS = 3" in (tmp_path / "run" / "config.gin").read_text()


def test_a_report_is_of_a_folder_or_of_the_run_that_gin_files_describe(
    rt2_train, trained, tiny_mixture, tmp_path, capsys
):
    shutil.copytree(trained, tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    for call in (
        lambda: main(["train", "--report", str(tmp_path / "run")]),
        lambda: rt2_train("--report"),
        lambda: main(
            ["train", "--report", str(tiny_mixture.gin), f"--gin.MODEL_DIR={tmp_path / 'run'}"]
        ),
    ):
        page.unlink(missing_ok=True)
        assert call() == 0
        assert capsys.readouterr().out == f"{page}\n"
        assert "tiny_arm" in page.read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--report"], "--report: say of which run: its folder, or a gin file"),
        (["--report=nowhere"], "there is no nowhere/metrics.jsonl"),
        ([], "there is nothing to train: say what with --gin_file"),
    ],
)
def test_a_report_of_nothing_and_a_run_without_a_gin_file_are_one_line(refused, flags, message):
    assert message in refused(main(["train", *flags]))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--profile_steps=7:7"], "found '7:7', expected A:B with A below B, as 20:25"),
        (["--gin.BATCHSIZE=3"], "--gin.BATCHSIZE=3: unknown macro BATCHSIZE; did you mean BATCH_"),
        (["--gin.RunConfig.data_sed=3"], "RunConfig.data_sed; did you mean RunConfig.data_seed?"),
        (["--gin.TRAIN_STEPS=ten"], "LoopConfig.total_steps: found 'ten', expected int"),
        (["--gin.MIXTURE_OR_TASK_NAME=tiny_mx"], "mixture 'tiny_mx' is not ready: there is no "),
        (["--gin.INITIAL_CHECKPOINT_PATH=/"], "/: no checkpoint and no run: it holds no whole"),
        (["--gin_fil=x"], "unknown option '--gin-fil'; did you mean '--gin-file'?"),
        (["--gin_file=tabletop"], "no gin file 'tabletop' in "),
    ],
)
def test_bad_input_is_one_line(rt2_train, refused, flags, message):
    try:
        status = rt2_train(*flags)
    except SystemExit as exit:  # argparse's own
        status = exit.code
    assert message in refused(status)


def test_a_mistake_in_a_file_is_one_line_with_its_place(rt2_train, refused, tiny_mixture, tmp_path):
    gin = tmp_path / "typo.gin"
    gin.write_text(tiny_mixture.gin.read_text() + "\nRunConfig.brigtness = 0.2\n")
    last = len(gin.read_text().splitlines())
    assert (
        f"{gin}, line {last}: unknown parameter of RunConfig RunConfig.brigtness; did you mean "
        "RunConfig.brightness?"
    ) in refused(rt2_train(gin=gin))


def test_a_mixture_without_statistics_is_one_line(rt2_train, refused, tiny_mixture, tmp_path):
    shutil.copytree(tiny_mixture.cache, tmp_path / "cache")
    path = tmp_path / "cache" / "tiny_mix.train.json"
    manifest = json.loads(path.read_text())
    manifest["statistics"] = type(manifest["statistics"])()
    path.write_text(json.dumps(manifest))
    line = refused(rt2_train(f"--gin.CACHE_DIR={tmp_path / 'cache'}"))
    assert "tiny_arm" in line and "statistics" in line


def test_a_directory_that_is_no_checkpoint_is_one_line(rt2_train, refused, tmp_path):
    (tmp_path / "photos").mkdir()
    line = refused(rt2_train(f"--gin.INITIAL_CHECKPOINT_PATH={tmp_path / 'photos'}"))
    assert f"{tmp_path / 'photos'}: no checkpoint and no run" in line


def test_a_truncated_checkpoint_is_one_line_and_stays(rt2_train, trained, tmp_path, capsys):
    copied = shutil.copytree(trained, tmp_path / "run")
    for path in (copied / "checkpoint_2" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert rt2_train("--gin.TRAIN_STEPS=3") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "checkpoint_2: the checkpoint is damaged" in error
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_loss_that_stays_not_finite_is_one_line_and_status_1(rt2_train, tmp_path, capsys):
    flags = ["--gin.LoopConfig.max_skipped_in_a_row=2", "--gin.TRAIN_STEPS=4"]
    flags.append("--gin.RunConfig.source_weights={'tiny_arm': 1e39, 'tiny_web': 1e39}")
    assert rt2_train(*flags) == 3
    error = capsys.readouterr().err
    assert "not finite in the last 2 steps, batches 0 to 1" in error and "Traceback" not in error
    assert not (tmp_path / "run" / ".lock").exists()


def nan(steps):
    steps[7]["action"] = steps[7]["action"].copy()
    steps[7]["action"][2] = np.nan


def large(steps):
    steps[7]["images"] = [png((16, 16))]


def png(size):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, "action: field 'position_delta_y' is nan, expected a finite"),
        (large, "view 'front': the picture has 16 x 16 pixels, the task declares 8 x 8"),
    ],
)
def test_a_bad_demonstration_is_one_line_when_it_is_cached(
    tiny_mixture, tmp_path, capsys, change, message
):
    steps = copy.deepcopy(tiny_mixture.robot_steps())
    change(steps)
    with tiny_mixture.registered(steps):
        status = main(["data", "cache", "tiny_mix", "--cache-dir", str(tmp_path / "cache")])
    error = capsys.readouterr().err
    assert status == 2 and "\n" not in error.strip().split("rt2 data: error: ")[-1]
    assert "task 'tiny_arm', episode 1 ('demo-1'), step 2" in error and message in error
    assert not list(tmp_path.rglob("*.array_record"))


@pytest.mark.slow
def test_sigterm_saves_and_ends_with_143(tiny_mixture, tmp_path):
    command = [
        *(sys.executable, "-m", "rt2_jax.train", f"--gin_file={tiny_mixture.gin}"),
        *(f"--gin.MODEL_DIR={tmp_path / 'run'}", "--gin.TRAIN_STEPS=100000"),
        *("--gin.SAVE_PERIOD=100000", RATE),
    ]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    ) as process:
        for line in process.stdout:
            if line.startswith("step 5/"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.communicate(timeout=120)[0]
    assert process.returncode == 143, rest
    step = int(rest.split("stopped at step ")[1].split(":")[0])
    assert step >= 5 and (tmp_path / "run" / f"checkpoint_{step}" / "rt2").is_dir()
    logged = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(logged[-1])["step"] == step
