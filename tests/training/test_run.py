"""A run is refused before it costs anything, or trains what its configuration says."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rt2_jax.models.rt1.config import EfficientNetConfig, RT1Config
from rt2_jax.training.checkpoints import find_checkpoint
from rt2_jax.training.execution import execute
from rt2_jax.training.loop import LoopConfig
from rt2_jax.training.mesh import MeshShape
from rt2_jax.training.meter import MEASURED
from rt2_jax.training.report import data_table
from rt2_jax.training.run import prepare
from rt2_jax.training.step import StepConfig


@pytest.fixture
def copied(trained, tmp_path):
    """A complete run where `run_config` puts its own."""
    return shutil.copytree(trained, tmp_path / "run")


def smaller(config):
    text = dataclasses.replace(config.model.text, mlp_dim=8)
    return dataclasses.replace(config.model, text=text)


def digests(directory):
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def lines(directory):
    found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in found]


def saved(directory, step):
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(directory / f"checkpoint_{step}" / "state")


def assert_equal_trees(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_mixture_that_is_not_ready_is_answered_with_the_commands(run_config, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        prepare(run_config(mixture="other_mix", split="test"))
    options = f"other_mix --cache-dir {run_config().cache_dir} --split test"
    assert str(caught.value).endswith(
        f"write it with: rt2 data cache {options} && rt2 data resolve {options}"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"source_weights": {"tiny_arm": 2.0, "tiny_leg": 1.0}},
            KeyError,
            "source_weights: found tiny_leg, but the tasks of mixture 'tiny_mix' are tiny_arm, "
            "tiny_web",
        ),
        (
            {"source_weights": {"tiny_arm": -1.0}},
            ValueError,
            r"SourceRules.loss_weights: found \[-1.0, 1.0\], expected finite, from 0",
        ),
        (
            {"global_batch_size": 12},
            ValueError,
            "batch size: found 12, expected a multiple of 1 microbatches x 8 parts of the mesh",
        ),
        (
            {"step": StepConfig(num_microbatches=3)},
            ValueError,
            "batch size: found 8, expected a multiple of 3 microbatches x 8 parts",
        ),
        ({"mesh": MeshShape(fsdp=3)}, ValueError, "mesh: found .*'fsdp': 3.* for 8 devices"),
        (
            {"task_feature_lengths": {"inputs": 32, "targets": 8}},
            ValueError,
            "task 'tiny_arm': 8 tokens and the end of the sequence are more than the 8",
        ),
        (
            {"task_feature_lengths": {"inputs": 4, "targets": 10}},
            ValueError,
            "task 'tiny_arm': prompt .*more than the 4",
        ),
        (
            {"vocabulary": "no/such.model"},
            FileNotFoundError,
            "no/such.model",
        ),
        ({"initial_checkpoint": "no/run"}, FileNotFoundError, "no/run: no checkpoint and no run"),
        (
            {"initial_checkpoint": "pretrained:rt2_palix_huge"},
            FileNotFoundError,
            "no pretrained model 'rt2_palix_huge'; there are: ",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    run_config, tmp_path, changes, error, message
):
    with pytest.raises(error, match=message):
        prepare(run_config(**changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_dir": "gs://bucket/run"},
            "RunConfig.model_dir: found 'gs://bucket/run', expected a",
        ),
        ({"model_dir": ""}, "RunConfig.model_dir: found '', expected a folder"),
        ({"global_batch_size": 0}, "RunConfig.global_batch_size: found 0, expected 1 or more"),
        ({"keep": 0}, "RunConfig.keep: found 0, expected 1 or more"),
        ({"data_seed": -1}, "RunConfig.data_seed: found -1, expected 0 or more"),
        ({"workers": -1}, "RunConfig.workers: found -1, expected 0 or more"),
        ({"label_smoothing": 2.0}, "RunConfig.label_smoothing: found 2.0, expected 0 to below 1"),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_name(run_config, changes, message):
    with pytest.raises(ValueError, match=message):
        run_config(**changes)


@pytest.mark.parametrize("field", ["clip_norm", "num_microbatches"])
def test_a_step_that_cannot_be_computed_is_refused(field):
    with pytest.raises(ValueError, match=f"StepConfig.{field}: found -1, expected a positive"):
        StepConfig(**{field: -1})


def test_a_file_in_the_place_of_the_runs_folder_is_refused_and_kept(run_config, tmp_path):
    file = tmp_path / "notes"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match="notes is a file, expected a folder"):
        prepare(run_config(model_dir=str(file)))
    assert file.read_text() == "mine"


RT1_LENGTHS = {"inputs": 32, "targets": 8}


def rt1(**vision):
    size = {"image_size": (16, 16), "width": 0.25, "depth": 0.5, "num_stages": 2}
    return RT1Config(
        EfficientNetConfig(**size, **vision),
        image_slots=(("front", 0),),
        instruction="tokens",
        instruction_dim=16,
        vocab_size=8000,
        instruction_heads=2,
        action_tokens=8,
    )


@pytest.mark.parametrize(
    ("vision", "changes", "message"),
    [
        ({"norm": "frozen_batch"}, {}, "no initial checkpoint; to train from nothing: --gin.Eff"),
        ({}, {"ordinal_action_tokens": True}, "bins for actions and no tokens"),
        (
            {},
            {"task_feature_lengths": {"inputs": 32, "targets": 9}},
            "writes at most 8 action tokens .* and no end",
        ),
        ({}, {"plan_length": 4}, "found 4, but the model writes actions only"),
        ({}, {"source_weights": {"tiny_wep": 2.0}}, "the tasks of mixture 'tiny_mix' are tiny_arm"),
    ],
)
def test_what_rt1_cannot_is_refused(run_config, vision, changes, message):
    config = run_config(model=rt1(**vision), task_feature_lengths=RT1_LENGTHS)
    with pytest.raises((ValueError, KeyError), match=message):
        prepare(dataclasses.replace(config, **changes))


def test_rt1_reads_the_robots_of_a_mixture_and_ignores_weights_of_the_rest(run_config):
    weights = {"tiny_web": 0.5}
    config = run_config(model=rt1(), task_feature_lengths=RT1_LENGTHS)
    run = prepare(dataclasses.replace(config, source_weights=weights))
    assert [task.info.name for task in run.manifest.tasks] == ["tiny_arm"]
    assert run.manifest.tasks[0].share == 1


def test_a_vocabulary_larger_than_the_embedding_is_refused(run_config):
    config = run_config()
    text = dataclasses.replace(config.model.text, vocab_size=7999)
    model = dataclasses.replace(config.model, text=text)
    with pytest.raises(ValueError, match="vocab_size of the model: found 7999, expected 8000"):
        prepare(dataclasses.replace(config, model=model))


def test_a_part_of_the_mesh_without_an_integer_share_of_a_parameter_is_refused_by_name(run_config):
    config = run_config(mesh=MeshShape(tensor=4, data=2))
    with pytest.raises(ValueError, match="decoder.*heads"):
        prepare(config)


def test_an_initial_checkpoint_with_another_vocabulary_is_refused(
    run_config, trained, other_vocabulary
):
    config = run_config(vocabulary=str(other_vocabulary), initial_checkpoint=str(trained))
    with pytest.raises(
        ValueError, match="checkpoint_6: was trained with vocabulary .*other pieces"
    ):
        prepare(config)


def test_an_initial_checkpoint_of_another_shape_is_refused_by_name_before_anything_is_written(
    run_config, trained, tmp_path
):
    config = run_config(initial_checkpoint=str(trained))
    with pytest.raises(ValueError) as caught:
        prepare(dataclasses.replace(config, model=smaller(config)))
    message = str(caught.value)
    assert "holds other weights than the model" in message
    assert "mlp/wo/kernel: found shape" in message
    assert not (tmp_path / "run").exists()


def test_an_initial_checkpoint_whose_shapes_mean_other_things_is_refused(
    run_config, trained, tmp_path
):
    config = run_config(initial_checkpoint=str(trained))
    text = dataclasses.replace(config.model.text, relative_max_distance=64)
    with pytest.raises(ValueError, match="same shapes: text.relative_max_distance: .*, not 64$"):
        prepare(dataclasses.replace(config, model=dataclasses.replace(config.model, text=text)))
    dropped = dataclasses.replace(config.model.text, dropout_rate=0.5)
    free = dataclasses.replace(config.model, text=dropped, attention="fused", remat="full")
    prepare(dataclasses.replace(config, model=free))


def test_a_folder_in_which_another_process_trains_is_refused(quick_run, tmp_path):
    (tmp_path / "run").mkdir()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); "
    hold += "print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(OSError, match="another process trains in .*another MODEL_DIR"):
            execute(quick_run())
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        other.stdin.close()


@pytest.mark.parametrize("part", ["rt2", "state"])
def test_an_initial_checkpoint_that_was_cut_short_is_refused_and_nothing_is_written(
    run_config, trained, tmp_path, part
):
    broken = shutil.copytree(trained, tmp_path / "broken")
    for path in (broken / "checkpoint_6" / part).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="checkpoint_6: the checkpoint is damaged"):
        execute(prepare(run_config(initial_checkpoint=str(broken))))
    assert not (tmp_path / "run").exists()


def test_weights_that_were_cut_short_are_noticed_before_anything_is_written(
    run_config, trained, tmp_path
):
    broken = shutil.copytree(trained, tmp_path / "broken")
    # Some data files are copies that nothing reads, so all of them are cut.
    files = list((broken / "checkpoint_6" / "state").rglob("d/*"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="checkpoint_6: the checkpoint is damaged") as error:
        execute(prepare(run_config(initial_checkpoint=str(broken))))
    assert len(str(error.value)) < 700  # not TensorStore's whole specification
    assert not (tmp_path / "run").exists()


def test_a_latest_checkpoint_without_its_state_is_never_stepped_over(run_config, trained, tmp_path):
    broken = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(broken / "checkpoint_6" / "state")
    before = (broken / "metrics.jsonl").read_bytes()
    with pytest.raises(FileNotFoundError, match="checkpoint_6: .*state"):
        execute(prepare(run_config(initial_checkpoint=str(trained))))
    assert (broken / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_is_found_by_its_own_path_and_by_that_of_its_run(trained, tmp_path):
    assert find_checkpoint(str(trained)) == trained / "checkpoint_6"
    assert find_checkpoint(str(trained / "checkpoint_3")) == trained / "checkpoint_3"
    with pytest.raises(FileNotFoundError, match="holds no whole checkpoint"):
        find_checkpoint(str(tmp_path))


def test_a_run_goes_on_where_it_was_and_ends_as_if_it_had_never_stopped(
    run_config, trained, copied
):
    shutil.rmtree(copied / "checkpoint_6")
    starts = []
    outcome = execute(prepare(run_config()), lambda start: starts.append(start) or [])
    assert starts == [3] and not outcome.stopped
    assert lines(copied) == lines(trained)
    assert_equal_trees(saved(copied, 6), saved(trained, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_seed": 1}, "seed: 0, not 1"),
        ({"robot_crop": 0.5}, "inputs.robot_crop: 1.0, not 0.5"),
        ({"mixture": "tiny_web"}, "mixture.mixture: 'tiny_mix', not 'tiny_web'"),
        ({"global_batch_size": 16}, "global_batch_size: 8, not 16"),
        ({"global_batch_size": 16}, "if that is meant: --gin.RunConfig.may_change_data=True"),
    ],
)
def test_the_directory_of_another_run_is_refused_without_a_change_of_a_byte(
    run_config, copied, changes, message
):
    before = digests(copied)
    with pytest.raises(ValueError, match="checkpoint_6 is of another run") as caught:
        execute(prepare(run_config(**changes)))
    assert message in str(caught.value)
    assert digests(copied) == before


@pytest.fixture
def other_manifest(tiny_mixture, tmp_path):
    """Writes a cache folder whose `tiny_mix` is what `change` makes of the manifest's JSON."""

    def write(change):
        cache = shutil.copytree(tiny_mixture.cache, tmp_path / "cache")
        path = cache / "tiny_mix.train.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))
        return str(cache)

    return write


def test_a_run_may_go_on_with_other_data(quick_run, other_manifest, tmp_path, caplog):
    def change(manifest):
        for task, share in zip(manifest["tasks"], (0.25, 0.75), strict=True):
            task["share"] = share

    execute(quick_run())
    run = quick_run(
        cache_dir=other_manifest(change),
        global_batch_size=16,
        may_change_data=True,
        loop=LoopConfig(total_steps=8),
    )
    with caplog.at_level("WARNING"):
        outcome = execute(run)
    assert int(outcome.state.step) == 8
    assert "the data change at step 6" in caplog.text
    assert "task 'tiny_arm' goes on after 24 examples" in caplog.text
    dataset = json.loads((tmp_path / "run/checkpoint_8/dataset/metadata").read_text())
    assert dataset["start"] == {"step": 6, "taken": {"tiny_arm": 24, "tiny_web": 24}}
    assert dataset["taken"] == {"tiny_arm": 24 + 2 * 4, "tiny_web": 24 + 2 * 12}


def test_other_data_never_change_what_a_robots_tokens_mean(run_config, other_manifest, copied):
    def change(manifest):
        for name in ("min", "q01"):
            values = manifest["statistics"][0][name]
            manifest["statistics"][0][name] = [value - 0.1 for value in values]

    config = run_config(
        cache_dir=other_manifest(change), may_change_data=True, loop=LoopConfig(total_steps=8)
    )
    before = digests(copied)
    with pytest.raises(ValueError, match="(?s)task 'tiny_arm': bounds.low.1.: .*--statistics MAN"):
        execute(prepare(config))
    assert digests(copied) == before


def test_a_mixture_without_a_cache_is_trained_on(quick_run, run_config, tiny_mixture, tmp_path):
    from rt2_jax.data.resolve import resolve_mixture

    cache = tmp_path / "none"
    statistics = tiny_mixture.cache / "tiny_mix.train.json"
    changes = {"cache_dir": str(cache), "loop": LoopConfig(total_steps=2)}
    with tiny_mixture.registered():
        resolve_mixture("tiny_mix", cache, statistics=statistics, uncached=True)
        run = quick_run(**changes)
        assert data_table(run).count("not cached") == 2
        outcome = execute(run)
        with pytest.raises(ValueError, match="workers: found 1, but tiny_arm, tiny_web are not"):
            prepare(run_config(**changes, workers=1))
    assert int(outcome.state.step) == 2
    taken = json.loads((tmp_path / "run/checkpoint_2/dataset/metadata").read_text())["taken"]
    assert taken == {"tiny_arm": 8, "tiny_web": 8}


def test_a_damaged_checkpoint_is_refused_without_a_change_of_a_byte(run_config, copied):
    for path in (copied / "checkpoint_6" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    before = digests(copied)
    with pytest.raises(ValueError, match="checkpoint_6: the checkpoint is damaged .*remove it"):
        execute(prepare(run_config()))
    assert digests(copied) == before


def test_a_new_run_begins_at_step_0_with_the_initial_checkpoints_parameters(
    run_config, trained, tmp_path
):
    config = run_config(
        initial_checkpoint=str(trained),
        loop=LoopConfig(total_steps=1, seed=9, save_first=True),
        data_seed=5,
    )
    starts = []
    outcome = execute(prepare(config), lambda start: starts.append(start) or [])
    assert starts == [0] and int(outcome.state.step) == 1
    assert_equal_trees(saved(tmp_path / "run", 0)["target"], saved(trained, 6)["target"])


def test_the_run_alone_decides_once_it_has_a_checkpoint(run_config, trained, copied):
    config = run_config(
        initial_checkpoint=str(trained / "checkpoint_3"), loop=LoopConfig(total_steps=6)
    )
    outcome = execute(prepare(config))
    assert int(outcome.state.step) == 6
    assert_equal_trees(saved(copied, 6), saved(trained, 6))


def test_a_robots_accuracy_is_over_its_action_tokens_without_terminate_and_end(run_config):
    run = prepare(run_config())
    assert run.rules.names == ("tiny_arm", "tiny_web")
    robot, web = run.rules.accuracy_positions
    assert robot.tolist() == [False] + [True] * 7 + [False] * 2
    assert web.all()


def test_the_weights_of_sources_reach_the_loss(run_config):
    run = prepare(run_config(source_weights={"tiny_web": 0.25}))
    with run.batches() as batches:
        batch = next(batches)
    weighted = run.rules.apply({name: jax.numpy.asarray(value) for name, value in batch.items()})
    factors = np.where(batch["source_id"] == 1, 0.25, 1.0)[:, None]
    np.testing.assert_array_equal(
        weighted["decoder_loss_weights"], batch["decoder_loss_weights"] * factors
    )


def test_a_tasks_own_loss_weight_holds_where_the_run_says_nothing(run_config):
    config = run_config(source_weights={"tiny_web": 0.25})
    info = prepare(config).manifest.tasks[0].info
    heavy = dataclasses.replace(info, loss_weight=3.0)
    assert config.loss_weight(info) == 1.0 and config.loss_weight(heavy) == 3.0
    assert config.loss_weight(dataclasses.replace(heavy, name="tiny_web")) == 0.25
