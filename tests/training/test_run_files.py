"""Every file of gin_configs/runs: it parses, makes its configuration, and dry-runs."""

import subprocess
import sys

import pytest

from rt2_jax.cli.main import main
from rt2_jax.convert.export_config import ExportConfig
from rt2_jax.evaluation.job_configs import EvalConfig, InferConfig
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.gin_files import SHIPPED, load_config, load_run_config

TINY = "models/rt2_palix_tiny.gin"
GIVEN = {
    "MODEL_DIR": "run",
    "MIXTURE_OR_TASK_NAME": "tiny_mix",
    "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 24},
    "TRAIN_STEPS": 6,
    "BATCH_SIZE": 8,
    "INITIAL_CHECKPOINT_PATH": None,
}
# Of the tiny mixture's robot nothing is known but its pictures.
WITHOUT_STATE = {"RunConfig.state_fields": (), "RunConfig.source_weights": {}}
RECIPES = ("pretrain", "finetune", "cofinetune")
SMALL = ("bridge_sample", "tabletop", "tiny_vlm")
JOBS = {"eval": EvalConfig, "infer": InferConfig, "export": ExportConfig}
OUTPUT_DIRS = {
    "eval": "EVAL_OUTPUT_DIR",
    "infer": "INFER_OUTPUT_DIR",
    "export": "MODEL_OUTPUT_DIR",
}
# RT-2, appendix E and B: learning rate, batch size, steps.
PAPER = {
    "rt2_palix_55b": (1e-3, 2048, 80_000),
    "rt2_palix_5b": (1e-3, 2048, 270_000),
    "rt2_palme_12b": (4e-4, 512, 1_000_000),
    "rt2_palme_12b_cot": (4e-4, 512, 300),
    "rt2_pali_3b_language_table": (1e-3, 128, 300_000),
}


def bindings(values):
    return [f"{name} = {value!r}" for name, value in values.items()]


def flags(values):
    return [f"--gin.{name}={value!r}" for name, value in values.items()]


@pytest.fixture
def dry_run(tiny_mixture, tmp_path, capsys):
    """Prints what a dry run on the tiny mixture prints; nothing may be written."""

    def run(*files, **values):
        values = {"MODEL_DIR": str(tmp_path / "run"), "CACHE_DIR": str(tiny_mixture.cache)} | values
        words = [f"--gin_file={file}" for file in files]
        assert main(["train", *words, *flags(values), "--dry_run"]) == 0
        assert not list(tmp_path.iterdir())
        return capsys.readouterr().out

    return run


def test_every_run_file_is_looked_at_here():
    found = {path.stem for path in (SHIPPED / "runs").glob("*.gin")}
    assert found == {"base", *RECIPES, *SMALL, *JOBS, *PAPER}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_dry_runs_with_a_model_before_it(dry_run, name):
    printed = dry_run(TINY, f"runs/{name}.gin", **GIVEN)
    assert "RunConfig.optimizer = %OPTIMIZER" in printed and "OPTIMIZER = @Adafactor()" in printed
    share = "100.0 %" if name == "finetune" else "50.0 %"
    assert f"tiny_arm  tiny_arm  {share}" in printed
    assert ("tiny_web " in printed) == (name != "finetune")
    assert "6 steps of 8 examples: 48 examples\n8 parts of the mesh x 1 microbatches" in printed


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_all_that_it_requires(name):
    with pytest.raises(KeyError) as caught:
        load_run_config([TINY, f"runs/{name}.gin"])
    (message,) = caught.value.args
    names = {"MODEL_DIR", "MIXTURE_OR_TASK_NAME", "TASK_FEATURE_LENGTHS", "TRAIN_STEPS"}
    names |= {"INITIAL_CHECKPOINT_PATH"} if name != "pretrain" else set()
    assert {word.partition("=")[0] for word in message.split() if word.startswith("--gin.")} == {
        f"--gin.{each}" for each in names
    }


@pytest.mark.parametrize(
    "name",
    [
        "tabletop",
        pytest.param("bridge_sample", marks=pytest.mark.slow),
        pytest.param("tiny_vlm", marks=pytest.mark.slow),
    ],
)
def test_a_small_run_dry_runs(dry_run, name):
    values = {"MIXTURE_OR_TASK_NAME": "tiny_mix", "INITIAL_CHECKPOINT_PATH": None, **WITHOUT_STATE}
    values["TASK_FEATURE_LENGTHS"] = {"inputs": 32, "targets": 32}
    printed = dry_run(f"runs/{name}.gin", **values)
    assert "mixture tiny_mix, split train" in printed and "OPTIMIZER = @AdamW()" in printed


@pytest.mark.parametrize(("name", "numbers"), PAPER.items())
def test_the_papers_settings_are_the_papers(name, numbers):
    config, _ = load_run_config([f"runs/{name}.gin"], ["INITIAL_CHECKPOINT_PATH = 'vlm'"])
    rate, batch, steps = numbers
    assert config.learning_rate.base_learning_rate == rate
    assert (config.global_batch_size, config.loop.total_steps) == (batch, steps)
    assert isinstance(config.optimizer, Adafactor)
    assert config.initial_checkpoint == "vlm"
    assert float(config.learning_rate(steps)) == pytest.approx(rate)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_mixtures_are_registered(name):
    from rt2_jax.data.resolve import find_tasks
    from rt2_jax.tasks import mixtures

    assert mixtures
    config, _ = load_run_config([f"runs/{name}.gin"], ["INITIAL_CHECKPOINT_PATH = None"])
    assert len(find_tasks(config.mixture)) > 5


@pytest.mark.parametrize(
    "name",
    [
        "rt2_palix_55b",
        pytest.param("rt2_palix_5b", marks=pytest.mark.slow),
        pytest.param("rt2_palme_12b", marks=pytest.mark.slow),
        "rt2_palme_12b_cot",
        "rt2_pali_3b_language_table",
    ],
)
def test_a_run_of_the_paper_dry_runs_at_its_size_without_memory(dry_run, name):
    values = {"MIXTURE_OR_TASK_NAME": "tiny_mix", "INITIAL_CHECKPOINT_PATH": None}
    printed = dry_run(f"runs/{name}.gin", **values)
    rate, batch, steps = PAPER[name]
    assert f"{steps:,} steps of {batch:,} examples" in printed
    assert f"tiny_arm  {'tiny_arm':10}50.0 %" in printed
    assert "'fsdp': 8" in printed and "'data': 1" in printed


def test_a_dry_run_without_its_data_says_the_rest_and_how_to_make_them(tmp_path, capsys):
    words = ["train", "--gin_file=runs/rt2_palix_55b.gin", "--dry_run"]
    words += [
        f"--gin.CACHE_DIR={tmp_path / 'cache'}",
        f"--gin.INITIAL_CHECKPOINT_PATH={tmp_path}/x",
    ]
    assert main(words) == 2
    printed = capsys.readouterr()
    for text in (
        "language model             32,248,940,544",
        "80,000 steps of 2,048 examples: 163,840,000 examples",
        "images                 2048 x 1 x 224 x 224 x 3",
        "parameters       54,024,656,896  216,098,627,584  27,01",
    ):
        assert text in printed.out, printed.out
    options = f"rt2_palix --cache-dir {tmp_path / 'cache'}"
    first, second = printed.err.splitlines()
    assert first.startswith("rt2 train: error: missing: mixture 'rt2_palix' is not ready: ")
    assert first.endswith(f"write it with: rt2 data cache {options} && rt2 data resolve {options}")
    assert second.startswith(f"rt2 train: error: missing: {tmp_path}/x: no checkpoint and no run")
    assert main([*words, "--allow_missing"]) == 0
    assert "rt2 train: missing: mixture 'rt2_palix'" in capsys.readouterr().err


def test_without_dry_run_missing_data_are_refused(capsys, tmp_path):
    words = ["train", "--gin_file=runs/rt2_palix_5b.gin", "--gin.INITIAL_CHECKPOINT_PATH=None"]
    words += [f"--gin.CACHE_DIR={tmp_path}", f"--gin.MODEL_DIR={tmp_path / 'run'}"]
    assert main([*words, "--allow_missing"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "mixture 'rt2_palix' is not ready" in printed.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_dry_run_lays_55_billion_parameters_out_on_256_devices_in_two_gigabytes():
    words = ["train", "--gin_file=runs/rt2_palix_55b.gin", "--gin.INITIAL_CHECKPOINT_PATH=None"]
    words += ["--gin.CACHE_DIR=none", "--devices=256", "--dry_run", "--allow_missing"]
    program = (
        "import resource, sys; from rt2_jax.cli.main import main; assert main(sys.argv[1:]) == 0; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert "'fsdp': 256" in done.stdout
    assert int(done.stdout.splitlines()[-1]) < 2 * 2**20, "kilobytes; the parameters are 201 GiB"


@pytest.mark.parametrize(("name", "root"), JOBS.items())
def test_a_job_makes_its_configuration_and_names_what_it_requires(name, root):
    files = [f"runs/{name}.gin"]
    known = {root.__name__: root}
    given = {"CHECKPOINT_PATH": "run", OUTPUT_DIRS[name]: "out"}
    config, text = load_config(root, known, files, bindings(given))
    assert (config.checkpoint, config.output_dir) == ("run", "out")
    assert config == root("run", "out"), "the file's defaults are those of the class"
    assert f"{root.__name__}.checkpoint = %CHECKPOINT_PATH" in text
    with pytest.raises(KeyError) as caught:
        load_config(root, known, files)
    assert f"--gin.CHECKPOINT_PATH=... --gin.{OUTPUT_DIRS[name]}=..." in caught.value.args[0]


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("CHECKPOINT_PAHT = 'x'", "unknown macro CHECKPOINT_PAHT; did you mean CHECKPOINT_PATH?"),
        ("UNUSED = 3", "unknown macro UNUSED; known: "),
        ("LearningRate.factors = 'constant'", "unknown configurable LearningRate; "),
        ("RunConfig.data_seed = 3", "RunConfig is of `rt2 train`; `rt2 "),
        ("TASK_FEATURE_LENGTHS = {'inputs': 3}", "TASK_FEATURE_LENGTHS is the checkpoint's"),
        ("{root}.spilt = 'train'", "unknown parameter of {root} {root}.spilt; "),
        ("{root}.checkpoint = 3", "{root}.checkpoint: found 3, expected str"),
    ],
)
def test_a_mistake_in_a_job_is_refused_with_the_right_name(name, more, message):
    root = JOBS[name]
    line = more.format(root=root.__name__) if "{root}" in more else more
    with pytest.raises((KeyError, ValueError)) as caught:
        given = [f"{each} = 'x'" for each in ("CHECKPOINT_PATH", OUTPUT_DIRS[name])]
        load_config(root, {root.__name__: root}, [f"runs/{name}.gin"], [*given, line])
    assert message.format(root=root.__name__) in caught.value.args[0]


def test_a_file_of_another_kind_is_told_its_command():
    with pytest.raises(KeyError, match="EvalConfig is of `rt2 eval offline`, and this is `rt2 tr"):
        load_run_config(["runs/eval.gin"])
    with pytest.raises(ValueError, match="of these `rt2 train` alone reads any"):
        load_config(EvalConfig, {"EvalConfig": EvalConfig}, ["t5x/train.gin"])
