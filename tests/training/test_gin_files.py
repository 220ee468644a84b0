"""gin files: the shipped ones load; whatever is wrong in one is a line with file, line and name."""

import pathlib

import pytest

from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.gin_files import load_run_config

SMALL = ("bridge_sample.gin", "tabletop.gin", "tiny_vlm.gin")
PARENT = """include "models/rt2_palix_tiny.gin"
include "runs/base.gin"
MODEL_DIR = "runs/mine"
MIXTURE_OR_TASK_NAME = "mine_mix"
TRAIN_STEPS = 10
BATCH_SIZE = 4
TASK_FEATURE_LENGTHS = {"inputs": 16, "targets": 9}
"""


@pytest.fixture
def load(tmp_path):
    """The configuration of a whole run file with these lines after it; `bindings` are flags."""

    def make(text="", *bindings, before=PARENT):
        (tmp_path / "mine.gin").write_text(before + text)
        return load_run_config([str(tmp_path / "mine.gin")], bindings)[0]

    return make


@pytest.mark.parametrize("name", SMALL)
def test_a_small_run_loads_as_it_stands(name):
    config, text = load_run_config([f"runs/{name}"])
    assert config.loop.total_steps > 0 and config.model.vision.image_size == (64, 64)
    assert "RunConfig.global_batch_size = %BATCH_SIZE" in text and "BATCH_SIZE = " in text
    again, _ = load_run_config([f"gin_configs/runs/{name}"])
    assert again == config


def test_the_base_names_every_value_that_it_requires():
    with pytest.raises(KeyError) as caught:
        load_run_config(["runs/base.gin"])
    (message,) = caught.value.args
    assert "runs/base.gin, line 4: required values are missing; give them:" in message
    names = ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "TRAIN_STEPS", "BATCH_SIZE")
    for name in (*names, "TASK_FEATURE_LENGTHS"):
        assert f"--gin.{name}=..." in message


def test_flags_give_what_is_required():
    flags = [
        *('MODEL_DIR = "here"', 'MIXTURE_OR_TASK_NAME = "mix"', "TRAIN_STEPS = 3"),
        *("BATCH_SIZE = 2", "TASK_FEATURE_LENGTHS = {'inputs': 8, 'targets': 9}"),
    ]
    config, _ = load_run_config(["models/rt2_palix_tiny.gin", "runs/base.gin"], flags)
    assert (config.model_dir, config.loop.total_steps, config.learning_rate.steps_per_cycle) == (
        "here",
        3,
        3,
    )


def test_later_files_win_and_flags_win_over_files(load, tmp_path):
    assert load("BATCH_SIZE = 6").global_batch_size == 6
    assert load("BATCH_SIZE = 6", "BATCH_SIZE = 8").global_batch_size == 8
    assert load("", "RunConfig.global_batch_size = 12").global_batch_size == 12
    (tmp_path / "later.gin").write_text("BATCH_SIZE = 10\n")
    both = [str(tmp_path / "mine.gin"), str(tmp_path / "later.gin")]
    assert load_run_config(both)[0].global_batch_size == 10
    assert load_run_config(both[::-1])[0].global_batch_size == 4


def test_another_optimizer_is_one_line(load):
    assert load("RunConfig.optimizer = @Adafactor()").optimizer == Adafactor()


def test_one_load_leaves_nothing_for_the_next(load):
    assert load("RunConfig.z_loss = 0.5").z_loss == 0.5
    assert load().z_loss == 0.0


def test_a_search_path_is_where_files_and_includes_are_looked_for(load, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "part.gin").write_text("BATCH_SIZE = 14\n")
    (tmp_path / "mine" / "whole.gin").write_text(PARENT + 'include "part.gin"\n')
    config, _ = load_run_config(["whole.gin"], search_paths=[str(tmp_path / "mine")])
    assert config.global_batch_size == 14


def test_an_include_wins_over_what_stands_above_it_and_loses_to_what_stands_below(load, tmp_path):
    (tmp_path / "part.gin").write_text("BATCH_SIZE = 14\nRANDOM_SEED = 3\n")
    config = load(
        f"RANDOM_SEED = 1\ninclude '{tmp_path / 'part.gin'}'\nRunConfig.keep = 5\nRANDOM_SEED = 2"
    )
    assert (config.global_batch_size, config.data_seed, config.keep) == (14, 2, 5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("BATCH_SIZES = 3", "line 8: unknown macro BATCH_SIZES; did you mean BATCH_SIZE?"),
        ("RunConfg.seed = 3", "line 8: unknown configurable RunConfg; did you mean RunConfig?"),
        (
            "RunConfig.robot_corp = 0.9",
            "line 8: unknown parameter of RunConfig RunConfig.robot_corp; did you mean "
            "RunConfig.robot_crop?",
        ),
        (
            "RunConfig.optimizer = @Adafctor()",
            "line 8: unknown configurable @Adafctor; did you mean @Adafactor?",
        ),
        (
            "RunConfig.data_seed = %RANDOM_SED",
            "line 8: unknown macro %RANDOM_SED; did you mean %RANDOM_SEED?",
        ),
        ("import os", "line 8: import statements are not used here; remove it"),
        ("BATCH_SIZE = = 3", "line 8: this is not gin: "),
        ('include "runs/bse.gin"', "no gin file 'runs/bse.gin' in .*; did you mean runs/base.gin?"),
    ],
)
def test_a_mistake_is_one_line_with_its_place_and_the_right_name(load, line, message):
    with pytest.raises((KeyError, ValueError, FileNotFoundError)) as caught:
        load(line)
    found = caught.value.args[0]
    pattern = message.replace(".*", "\0").split("\0")
    position = -1
    for part in pattern:
        position = found.find(part, position + 1)
        assert position >= 0, found
    assert "\n" not in found
    assert "mine.gin" in found or "include" in line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("MIXTURE = 'mix'", "line 8: MIXTURE is called MIXTURE_OR_TASK_NAME now, as in T5X"),
        ("SEED = 3", "line 8: SEED is called RANDOM_SEED now, as in T5X"),
        ("RunConfig.data_seed = %SEED", "line 8: SEED is called RANDOM_SEED now"),
        ("ENCODER_LENGTH = 3", "line 8: ENCODER_LENGTH is a part of TASK_FEATURE_LENGTHS now: --g"),
        ("RunConfig.decoder_length = 3", "RunConfig.decoder_length is a part of TASK_FEATURE_LE"),
        ("USE_CACHED_TASKS = True", "line 8: USE_CACHED_TASKS is not here: `rt2 data cache`, or"),
        ("EVAL_PERIOD = 100", "line 8: EVAL_PERIOD is not here: evaluation is a process beside"),
    ],
)
def test_a_name_of_before_or_of_t5x_is_refused_with_the_name_here(load, line, message):
    with pytest.raises(KeyError) as caught:
        load(line)
    assert message in caught.value.args[0]


def test_a_macro_of_ones_own_may_have_a_name_of_before(load):
    assert load("SEED = 3\nRunConfig.data_seed = %SEED").data_seed == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("DecoderOnlyConfig.num_layers = 3", "line 8: this run has no DecoderOnlyConfig; it has"),
        ("Adafactor.decay_rate = 0.5", "line 8: this run has no Adafactor; it has AdamW, "),
        ("IntegerGrid.minimum = -5", "line 8: this run has no IntegerGrid; it has "),
    ],
)
def test_a_binding_that_nothing_uses_is_refused(load, line, message):
    with pytest.raises(KeyError) as caught:
        load(line)
    assert message in caught.value.args[0]


def test_numbers_of_a_class_that_another_was_put_in_the_place_of_may_stay(load):
    config = load("AdamW.b2 = 0.9\nOPTIMIZER = @Adafactor()\nAdafactor.decay_rate = 0.5")
    assert config.optimizer == Adafactor(decay_rate=0.5)
    with pytest.raises(KeyError, match="--gin.AdamW.b2=0.9: this run has no AdamW; it has Adaf"):
        load("OPTIMIZER = @Adafactor()", "AdamW.b2=0.9")


def test_a_mistake_in_a_flag_names_the_flag(load):
    with pytest.raises(
        KeyError, match="--gin.BATCHSIZE = 3: unknown macro BATCHSIZE; did you mean"
    ):
        load("", "BATCHSIZE = 3")
    with pytest.raises(ValueError, match="--gin.BATCH_SIZE = : this is not gin"):
        load("", "BATCH_SIZE = ")


def test_a_run_file_that_forgets_the_model_is_told_what_is_missing(load):
    text = "".join(line + "\n" for line in PARENT.splitlines() if "models/" not in line)
    with pytest.raises(KeyError, match="the gin files say nothing about RunConfig.model; bind"):
        load(before=text)
    model = "RunConfig.model = @VisionLanguageConfig()\nVisionLanguageConfig.text = @TextConfig()\n"
    with pytest.raises(
        KeyError, match="about TextConfig.vocab_size, .*VisionLanguageConfig.vision"
    ):
        load(model, before=text)


def test_a_circle_of_includes_is_refused(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.gin").write_text(f'include "{other}.gin"\n')
    with pytest.raises(ValueError, match=r"a\.gin: includes itself through .*a\.gin, .*b\.gin"):
        load_run_config(["a.gin"], search_paths=[str(tmp_path)])


@pytest.mark.parametrize(
    ("lines", "circle"),
    [
        (
            "RANDOM_SEED = %WORKERS\nWORKERS = %RANDOM_SEED",
            "RANDOM_SEED -> WORKERS -> RANDOM_SEED|WORKERS -> RANDOM_SEED -> WORKERS",
        ),
        ("RANDOM_SEED = %RANDOM_SEED", "line 8: goes in a circle: RANDOM_SEED -> RANDOM_SEED"),
        ("RunConfig.optimizer = @RunConfig()", "goes in a circle: RunConfig -> RunConfig"),
    ],
)
def test_a_circle_of_values_is_refused(load, lines, circle):
    with pytest.raises(ValueError, match=circle):
        load(lines)


def test_a_flag_of_a_class_that_the_run_has_not_is_refused():
    with pytest.raises(KeyError, match="this run has no VisionLanguageConfig; it has AdamW, Dec"):
        load_run_config(
            ["models/rt2_palme_tiny.gin", "runs/base.gin"],
            ["VisionLanguageConfig.remat='full'"]
            + [f"{name}='x'" for name in ("MODEL_DIR", "MIXTURE_OR_TASK_NAME")]
            + [f"{name}=8" for name in ("TRAIN_STEPS", "BATCH_SIZE")]
            + ["TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}"],
        )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("runs/tabletp.gin", "did you mean runs/tabletop.gin?"),
        ("gin_configs/runs/bridge.gin", "did you mean runs/bridge_sample.gin?"),
        ("zzz", "there are: models/rt1_35m.gin, "),
    ],
)
def test_a_file_that_is_not_there_is_refused_with_those_that_are(name, advice):
    with pytest.raises(FileNotFoundError) as caught:
        load_run_config([name])
    assert str(caught.value).startswith(f"no gin file '{name}' in .")
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("TRAIN_STEPS = 0", "LoopConfig.total_steps: found 0, expected a positive number"),
        (
            "TRAIN_STEPS = 'ten'",
            "mine.gin, line 8: LoopConfig.total_steps: found 'ten', expected int",
        ),
        ("BATCH_SIZE = 2.5", "RunConfig.global_batch_size: found 2.5, expected int"),
        ("LEARNING_RATE = 'fast'", "LearningRate.base_learning_rate: found 'fast', expected float"),
        ("LEARNING_RATE_FACTORS = 'konstant'", r"LearningRate.factors: found \['konstant'\]"),
        ("MODEL_DIR = 3", "RunConfig.model_dir: found 3, expected str"),
        ("RunConfig.optimizer = 'adam'", "RunConfig.optimizer: found 'adam', expected Optimizer"),
        ("RunConfig.codec = @Adafactor()", "RunConfig.codec: found Adafactor"),
        ("RunConfig.model = @VisionLanguageConfig", "RunConfig.model: found .*write it with"),
        ("RunConfig.tensorboard = 1", "RunConfig.tensorboard: found 1, expected bool"),
        ("VisionConfig.image_size = 64", "VisionConfig.image_size: found 64, expected"),
        ("RunConfig.source_weights = {'a': 'b'}", "RunConfig.source_weights: found {'a': 'b'}"),
        ("MeshShape.fsdp = None", "MeshShape.fsdp: found None, expected int"),
        ("TASK_FEATURE_LENGTHS = {'inputs': 8}", "RunConfig.task_feature_lengths: found {'inputs'"),
        ("TASK_FEATURE_LENGTHS = 8", "RunConfig.task_feature_lengths: found 8, expected"),
        ("RunConfig.action_tokens = 'some'", "RunConfig.action_tokens: found 'some', expected one"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_name(load, line, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        load(line)
    assert "\n" not in str(caught.value)


def test_a_whole_number_is_a_float_too(load):
    assert load("LEARNING_RATE = 1").learning_rate.base_learning_rate == 1


def test_nothing_of_a_gin_file_is_ever_run(load, tmp_path):
    with pytest.raises((KeyError, ValueError)):
        load(f"RunConfig.model_dir = @open('{tmp_path / 'made'}', 'w')")
    assert not pathlib.Path(tmp_path / "made").exists()
