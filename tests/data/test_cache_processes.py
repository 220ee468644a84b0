"""Caching in several processes: the same bytes, the same errors, and no process that stays."""

import dataclasses
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rt2_jax.cli.main import main
from rt2_jax.data.cache import StepCache
from rt2_jax.data.cache_processes import in_processes
from rt2_jax.data.cache_shard import CacheWork
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.task_modules import declaration, import_tasks, open_task

MODULE = pathlib.Path(__file__).with_name("sharded_tasks.py")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def task(built_in_tasks, registry, tmp_path, monkeypatch):
    """The task of `sharded_tasks`, registered from the folder that a user would be in."""
    import seqio

    shutil.copy(MODULE, tmp_path)
    (tmp_path / "data/here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RT2_DATA_DIR", "data")
    import_tasks("sharded_tasks")
    yield seqio.TaskRegistry.get("sharded")
    del sys.modules["sharded_tasks"]


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_cache_is_the_same_bytes_for_any_number_of_processes(task, tmp_path):
    told = []
    one = cache_task(task, tmp_path / "one", shard_steps=3, report=told.append)
    many = cache_task(
        task,
        tmp_path / "two",
        shard_steps=3,
        report=told.append,
        run=in_processes(2, ["sharded_tasks"]),
    )
    assert one == many and told[-1] == one.steps == 20
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert [file.steps for file in one.files] == [3, 2, 3, 2, 3, 3, 3, 1]
    assert one.source_shards == ("a", "b", "c", "d", "e")
    cache = StepCache(tmp_path / "two", "sharded", "train")
    steps = list(read_steps(task, "train"))
    assert [cache[i].pack() for i in range(20)] == [step.pack() for step in steps]
    assert [s.episode for s in steps if s.step == 0] == list(range(one.episodes)) == list(range(8))
    np.testing.assert_array_equal(cache.actions(), [step.action for step in steps])
    np.testing.assert_array_equal(cache.states(), [step.state for step in steps])
    assert set(one.longest_texts) == {step.text for step in steps}


def rt2(*words):
    return main(["data", "cache", "sharded", "--module", "sharded_tasks", *map(str, words)])


def test_an_error_in_a_process_is_the_line_of_one_process_and_what_is_finished_stays(
    task, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("RT2_TEST_FAULT", "e/1/0")
    lines = []
    for jobs in (1, 2):
        assert rt2("--jobs", jobs, "--cache-dir", f"cache{jobs}") == 2
        lines.append(capsys.readouterr().err.splitlines()[-1])  # behind those of the progress
    assert lines[0] == lines[1]
    assert lines[0].startswith(
        "rt2 data: error: task 'sharded', episode 1 ('e-1'), step 0: action: field "
        "'position_delta_x' is nan"
    )
    assert lines[0].endswith("(split 'train', source shard e)")
    partial = tmp_path / "cache1/sharded/train.incomplete"
    assert len(list(partial.glob("shard-*.json"))) == 4
    monkeypatch.delenv("RT2_TEST_FAULT")
    before = {file: file.stat().st_mtime_ns for file in partial.glob("*.array_record")}
    assert rt2("--jobs", 1, "--cache-dir", "cache1") == 0
    final = tmp_path / "cache1/sharded/train"
    assert len(before) == 3
    assert all((final / file.name).stat().st_mtime_ns == time for file, time in before.items())


def test_processes_that_do_not_know_the_task_or_another_of_its_name_say_so(task, tmp_path):
    work = CacheWork("sharded", declaration(task), "train", tmp_path, 9, ("a",), tmp_path / "data")
    assert open_task(work, ["sharded_tasks"]) is task
    with pytest.raises(ValueError, match="'mine' is not registered in the processes .* sharded_ta"):
        open_task(dataclasses.replace(work, task="mine"), ["sharded_tasks"])
    other = {**work.info, "views": ["wrist"]}
    with pytest.raises(ValueError, match="declares something else .*'front', not 'wrist'; install"):
        open_task(dataclasses.replace(work, info=other), ["sharded_tasks"])
    with pytest.raises(ValueError, match="jobs: found 0, expected 1 or more"):
        in_processes(0, [])


def start(tmp_path, **environment):
    """`rt2 data cache` in a process and a group of its own, as a terminal starts it."""
    command = "data cache sharded --module sharded_tasks --jobs 2 --cache-dir cache --data-dir data"
    return subprocess.Popen(
        [sys.executable, "-m", "rt2_jax.cli.main", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def group(leader):
    """The processes of a group that are running."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_and_a_kill_end_all_processes_and_what_is_finished_is_kept(task, tmp_path):
    partial = tmp_path / "cache/sharded/train.incomplete"
    finished = lambda: sorted(partial.glob("shard-*.json"))  # noqa: E731

    process = start(tmp_path, RT2_TEST_PAUSE="0.3")
    wait_until(lambda: len(finished()) >= 2 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(60) == 130
    assert "interrupted: what is finished is kept in cache; run the same" in process.stderr.read()
    wait_until(lambda: group(process.pid) == [])
    kept = {file: file.stat().st_mtime_ns for file in finished()}
    assert 2 <= len(kept) < 5 and not (tmp_path / "cache/sharded/train").exists()

    process = start(tmp_path, RT2_TEST_PAUSE="0.3")
    wait_until(lambda: len(finished()) > len(kept) or process.poll() is not None)
    process.kill()
    process.wait()
    process.stderr.close()
    wait_until(lambda: group(process.pid) == [])
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(finished()) < 5

    assert cache_task(task, tmp_path / "cache") == cache_task(task, tmp_path / "whole")
    assert files(tmp_path / "cache") == files(tmp_path / "whole")


def test_a_killed_process_is_named(task, tmp_path, monkeypatch):
    monkeypatch.setenv("RT2_TEST_PAUSE", "0.2")
    killed = []

    def kill_one(steps):
        for child in multiprocessing.active_children()[: 1 - len(killed)]:
            killed.append(child)
            child.kill()

    with pytest.raises(OSError, match="a caching process ended before .* kept: run it again"):
        cache_task(
            task, tmp_path / "cache", report=kill_one, run=in_processes(2, ["sharded_tasks"])
        )
