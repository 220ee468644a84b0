"""`python -m rt2_jax.train` in real processes: killed and started again; two that train as one."""

import dataclasses
import random
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

pytestmark = pytest.mark.slow

KEPT = 3  # checkpoints of a run


@dataclasses.dataclass(frozen=True)
class Length:
    """Steps between two saves, steps before a kill at most, seconds until the others give up."""

    save_period: int
    steps: int
    host_timeout: int


SHORT = Length(save_period=4, steps=16, host_timeout=6)
FULL = Length(save_period=9, steps=40, host_timeout=10)


def finish(process):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def state(model_dir, step):
    path = model_dir / f"checkpoint_{step}" / "state"
    with ocp.PyTreeCheckpointer() as checkpointer:
        # As arrays of NumPy: those of several processes have no devices here.
        kinds = jax.tree.map(
            lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray),
            checkpointer.metadata(path).item_metadata.tree,
        )
        return jax.tree.leaves_with_path(checkpointer.restore(path, restore_args=kinds))


def assert_losses_within_float_noise(found, expected):
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for name in ("loss", "tiny_arm/loss", "tiny_web/loss", "gradient_norm"):
        np.testing.assert_allclose(
            [line[name] for line in found], [line[name] for line in expected], rtol=2e-4
        )


def unfinished(model_dir):
    return list(model_dir.glob("checkpoint_*tmp*"))


def kill_one(processes, model_dir, draw, steps, *, during_a_save):
    """Kills one of them at a time drawn; whether a checkpoint was half written then."""
    wanted = draw.randint(1, steps)
    for line in processes[0].stdout:
        wanted -= line.startswith("step ")
        if not wanted:
            break
    else:
        raise AssertionError(f"ended before it was killed: {processes[0].wait()}")
    time.sleep(draw.uniform(0, 0.3))
    end = time.monotonic() + 10
    while during_a_save and not unfinished(model_dir) and time.monotonic() < end:
        time.sleep(0.001)
    draw.choice(processes).kill()
    found = bool(unfinished(model_dir))
    for process in processes:
        output = process.communicate(timeout=60)[0]
        assert process.returncode in (-signal.SIGKILL, 75), output
    for step in steps_of(model_dir)[-KEPT:]:  # one more may be half deleted
        assert state(model_dir, step)
    return found


def kill_again_and_again(together, numbers, tmp_path, kills, count, length):
    """Kills one of `count` processes so often; how often it was during a save."""
    steps = 400 * (kills + 1)  # more than the processes take before they are killed
    flags = (f"--gin.TRAIN_STEPS={steps}", f"--gin.SAVE_PERIOD={length.save_period}")
    flags += (f"--host_timeout={length.host_timeout}",)
    whole, killed = tmp_path / f"whole_{count}", tmp_path / f"killed_{count}"
    seed = time.time_ns()
    print(f"seed {seed}")
    draw = random.Random(seed)
    during = 0
    for kill in range(kills):
        processes = together(killed, *flags, count=count)
        during += kill_one(processes, killed, draw, length.steps, during_a_save=kill % 3 == 0)
    print(f"{during} of {kills} kills during a save")
    saved = max(steps_of(killed), default=0) // length.save_period
    done = length.save_period * max(saved + 1, KEPT)
    end = f"--gin.TRAIN_STEPS={done}"
    for directory in (killed, whole):
        for process in together(directory, *flags, end, count=count):
            finish(process)
    assert numbers(killed) == numbers(whole)
    assert len(steps_of(killed)) == KEPT, "what was half deleted is gone"
    for (name, found), (_, expected) in zip(state(killed, done), state(whole, done), strict=True):
        assert np.array_equal(found, expected), jax.tree_util.keystr(name)
    return during


def steps_of(model_dir):
    """Of the checkpoints that have their final names, rising."""
    names = [path.name.removeprefix("checkpoint_") for path in model_dir.glob("checkpoint_*")]
    return sorted(int(name) for name in names if name.isdigit())


def test_killed_at_random_steps_a_run_ends_bit_for_bit_as_one_that_was_not(
    together, numbers, full_check, tmp_path
):
    if not full_check:
        assert kill_again_and_again(together, numbers, tmp_path, 3, 2, SHORT) >= 1
        return
    found = kill_again_and_again(together, numbers, tmp_path, 34, 2, FULL)
    found += kill_again_and_again(together, numbers, tmp_path, 18, 4, FULL)
    assert found >= 10


def test_killed_and_started_again_on_another_number_of_processes_losses_are_the_same(
    together, numbers, full_check, tmp_path
):
    if not full_check:
        pytest.skip("in the full form only: test_two_processes_give_the_losses_of_one")
    flags = ("--gin.TRAIN_STEPS=60", "--gin.SAVE_PERIOD=5", "--host_timeout=10")
    for process in together(tmp_path / "whole", *flags):
        finish(process)
    for number, (before, after) in enumerate([(2, 4), (4, 2), (2, 1)]):
        killed = tmp_path / str(number)
        processes = together(killed, *flags, count=before)
        until = iter(processes[0].stdout)
        next(line for line in until if line.startswith("step 20/"))
        processes[-1].kill()
        for process in processes:
            process.communicate(timeout=60)
        for process in together(killed, *flags, count=after):
            finish(process)
        assert_losses_within_float_noise(numbers(killed), numbers(tmp_path / "whole"))


def test_two_processes_give_the_losses_of_one_and_go_on_together(
    one, together, numbers, full_check, tmp_path
):
    # That they go on together is seen above, too, bit for bit.
    for steps in (4, 6) if full_check else (6,):
        processes = together(tmp_path / "two", f"--gin.TRAIN_STEPS={steps}")
        assert "done at step" in finish(processes[0])
        assert "done at step" not in finish(processes[1])  # one of them speaks
    assert_losses_within_float_noise(numbers(tmp_path / "two"), numbers(one))


def test_eight_devices_give_the_losses_of_one(start, one, numbers, full_check, tmp_path):
    if not full_check:
        pytest.skip(
            "in the full form only: test_a_mesh_of_eight_devices_gives_the_losses_of_one of the "
            "step, and test_processes_that_share_a_model_give_the_losses_of_one of the command"
        )
    flags = ("--gin.MeshShape.fsdp=2", "--gin.MeshShape.tensor=2")
    with start(tmp_path / "eight", *flags, devices=8) as process:
        assert "mesh {'replica': 1, 'fsdp': 2, 'data': 2, 'sequence': 1, 'tensor': 2}" in finish(
            process
        )
    assert_losses_within_float_noise(numbers(tmp_path / "eight"), numbers(one))
