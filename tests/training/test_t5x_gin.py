"""gin files for T5X: what both trainers have is translated, the rest is refused by name."""

import pytest

from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.gin_files import load_run_config
from rt2_jax.training.mesh import MeshShape

FILES = ("t5x/rt2_palix_tiny.gin", "t5x/train.gin")
HEAD = """from __gin__ import dynamic_registration
import __main__ as train_script
from rt2_jax.models import config as shapes
from rt2_jax.training import t5x_bridge
from t5x import adafactor
from t5x import models
from t5x import partitioning
from t5x import trainer
from t5x import utils
MODEL_DIR = "runs/mine"
MIXTURE_OR_TASK_NAME = "mine_mix"
TASK_FEATURE_LENGTHS = {"inputs": 16, "targets": 9}
TRAIN_STEPS = 10
"""
FIRST = HEAD.count("\n") + 1


@pytest.fixture
def load(tmp_path):
    """The configuration of the shipped files with these lines after them."""

    def make(text="", *bindings):
        (tmp_path / "mine.gin").write_text(HEAD + text)
        return load_run_config([*FILES, str(tmp_path / "mine.gin")], bindings)[0]

    return make


def test_the_shipped_files_are_a_run_of_ours(load):
    config = load()
    assert (config.mixture, config.model_dir, config.cache_dir) == (
        *("mine_mix", "runs/mine"),
        "cache",
    )
    assert (config.encoder_length, config.decoder_length) == (16, 9)
    assert (config.global_batch_size, config.keep) == (128, 3)
    assert (config.loop.total_steps, config.loop.log_period, config.loop.save_period) == (
        *(10, 50),
        1000,
    )
    assert config.learning_rate.factors == "constant * linear_warmup * rsqrt_normalized_decay"
    assert config.optimizer == Adafactor() and config.mesh == MeshShape()
    assert config.loss_normalizing_factor == "NUM_REAL_TARGET_TOKENS"


def test_their_model_and_mixture_are_those_of_our_own_files():
    ours = load_run_config(["runs/tabletop.gin"])[0]
    theirs = load_run_config([*FILES, "t5x/tabletop.gin"])[0]
    for name in (
        *("model", "mixture", "encoder_length", "decoder_length", "codec", "plan_length"),
        *("brightness", "state_fields", "state_bins", "source_weights", "global_batch_size"),
    ):
        assert getattr(theirs, name) == getattr(ours, name), name


def test_flags_set_macros_parameters_of_t5x_and_ours(load):
    config = load(
        "",
        "BATCH_SIZE = 8",
        "train/utils.DatasetConfig.seed = 3",
        "train.random_seed = 4",
        "trainer.Trainer.num_microbatches = 2",
        "RunConfig.brightness = 0.5",
        "shapes.VisionConfig.num_layers = 5",
        "LoopConfig.save_first = True",
    )
    assert (config.global_batch_size, config.data_seed, config.loop.seed) == (8, 3, 4)
    assert (config.step.num_microbatches, config.brightness) == (2, 0.5)
    assert config.model.vision.num_layers == 5 and config.loop.save_first


def test_a_scope_wins_over_what_is_bound_without_one(load):
    lines = "utils.DatasetConfig.split = 'all'\nutils.DatasetConfig.batch_size = 2\n"
    config = load(lines)
    assert (config.split, config.global_batch_size) == ("train", 128)


def test_the_partitioner_becomes_a_mesh(load):
    lines = """partitioning.PjitPartitioner.num_partitions = 4
partitioning.standard_logical_axis_rules.parameter_partitioning_dims = 2
"""
    assert load(lines).mesh == MeshShape(fsdp=-1, data=1, tensor=4)


def test_the_optimizer_is_t5xs_adafactor_or_one_of_ours(load):
    assert load("adafactor.Adafactor.beta1 = 0.9").optimizer == Adafactor(beta1=0.9)
    config = load("from rt2_jax.training import optimizers\nOPTIMIZER = @optimizers.AdamW()")
    assert type(config.optimizer).__name__ == "AdamW"


def test_checkpoints_are_kept_as_t5x_keeps_them_where_nothing_is_said(load):
    assert load("utils.SaveCheckpointConfig.keep = None").keep is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train_script.train.infer_eval_dataset_cfg = @infer_eval/utils.DatasetConfig()",
            "train.train.infer_eval_dataset_cfg: found .*no evaluation runs inside training",
        ),
        ("train_script.train.model = @models.EncoderDecoderModel()", "@t5x_bridge.T5XModel"),
        (
            "utils.RestoreCheckpointConfig.path = 'gs://t5/checkpoint'",
            "utils.RestoreCheckpointConfig.path: .*--gin.RunConfig.initial_checkpoint=PATH",
        ),
        ("train/utils.DatasetConfig.pack = True", "utils.DatasetConfig.pack: found True: .*False"),
        ("train/utils.DatasetConfig.module = 'my.tasks'", "give --module=MODULE"),
        (
            "partitioning.PjitPartitioner.model_parallel_submesh = (2, 2, 1, 1)",
            "--gin.MeshShape.fsdp",
        ),
        ("utils.SaveCheckpointConfig.dtype = 'bfloat16'", "found 'bfloat16': weights are saved"),
        (
            "trainer.Trainer.weight_metrics_computer = @trainer.WeightMetricsComputer()",
            "weight_metrics_computer: found ",
        ),
        ("LOSS_NORMALIZING_FACTOR = None", "found None, which is a sum in T5X and a mean here"),
        ("train_script.train.get_dataset_fn = @utils.get_dataset", "rt2 data cache"),
        ("TASK_FEATURE_LENGTHS = {'inputs': 16}", "found {'inputs': 16}, expected tokens"),
        ("t5x_bridge.get_dataset.vocabulary = 'other.model'", "give both the same"),
        ("BATCH_SIZE = %BATCH_SIZE", "goes in a circle: BATCH_SIZE -> BATCH_SIZE"),
    ],
)
def test_what_has_no_equal_is_refused_with_its_place_and_what_to_use(load, line, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(line)
    assert f"mine.gin, line {FIRST}: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("utils.DatasetConfg.split = 'a'", "utils.DatasetConfg; did you mean utils.DatasetConfig?"),
        ("train/utils.DatasetConfig.splt = 'a'", "splt; did you mean split?"),
        ("shapes.VisionConfg.num_layers = 1", "config.VisionConfg; did you mean VisionConfig?"),
        ("utils.DatasetConfig.split = %SPLT", "unknown macro %SPLT; "),
        ("import my_tasks", "import statements are not used here; remove it .--module registers"),
        ("utils.EvalSomething.x = 1", "unknown name, or one without an equal here: utils.EvalSome"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(load, line, message):
    with pytest.raises((KeyError, ValueError)) as caught:
        load(line)
    assert caught.match(message) and f"mine.gin, line {FIRST}: " in caught.value.args[0]


def test_a_macro_that_nothing_uses_is_refused_in_a_flag(load):
    with pytest.raises(KeyError, match="--gin.BATCHSIZE = 3: unknown macro BATCHSIZE; did you"):
        load("", "BATCHSIZE = 3")


def test_what_is_required_is_asked_for(load):
    with pytest.raises(KeyError, match=r"--gin.MIXTURE_OR_TASK_NAME=... --gin.TASK_FEATURE_LENGTH"):
        load_run_config(list(FILES))
    with pytest.raises(KeyError, match="nothing is bound to train.train.model, .*t5x/train.gin"):
        load_run_config([FILES[0]])


def test_nothing_that_a_file_imports_is_loaded(load, tmp_path, monkeypatch):
    (tmp_path / "t5x.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert load("import t5x.anything").mixture == "mine_mix"
