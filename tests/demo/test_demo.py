"""The demo's stages with small numbers, in real processes."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from rt2_jax.cli.main import main
from rt2_jax.demo.plan import short_plan, stages
from rt2_jax.demo.program import run_demo

TINY = {"episodes": 8, "scenes": 4, "train_steps": 3, "test_episodes": 1}
PROGRAM = """
import dataclasses, pathlib, sys
from rt2_jax.demo.plan import short_plan
from rt2_jax.demo.program import run_demo
run_demo(dataclasses.replace(short_plan(pathlib.Path(sys.argv[1])), **{tiny}))
"""


def tiny_plan(folder, **changes):
    return dataclasses.replace(short_plan(folder), **{**TINY, **changes})


@pytest.fixture
def one_device(monkeypatch):
    """As at a user's; of two flags the later one counts."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    monkeypatch.setenv("XLA_FLAGS", flags)


@pytest.mark.slow
def test_the_whole_demo_survives_an_interruption_and_reports_what_happened(
    one_device, tmp_path, capsys
):
    folder = tmp_path / "demo"
    program = [sys.executable, "-c", PROGRAM.format(tiny=TINY), str(folder)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while not (folder / "stages" / "cache.json").exists():
        assert time.monotonic() < end and process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not (folder / "report.html").exists()

    report = run_demo(tiny_plan(folder))
    printed = capsys.readouterr().out
    assert "record: 8 demonstrations by a scripted expert: done before" in printed
    assert "\nco-fine-tuned policy  " in printed

    numbers = json.loads((folder / "results.json").read_text())
    assert set(numbers["policies"]) == {
        *("policy", "swapped", "before", "expert", "random", "nothing")
    }
    assert numbers["policies"]["expert"]["skills"]["reach"]["successes"] == 1
    assert numbers["policies"]["nothing"]["skills"]["push"]["successes"] == 0
    assert set(numbers["stage_seconds"]) == {stage.name for stage in stages(tiny_plan(folder))}
    text = report.read_text()
    assert not re.search(r'(src|href)="(?!data:)', text), "the report needs another file"
    assert text.count("<img src=") == len(list((folder / "films").glob("*.gif"))) > 0
    assert "100% (1/1)" in text

    run_demo(tiny_plan(folder))
    assert capsys.readouterr().out.count(": done before") == len(stages(tiny_plan(folder)))
    with pytest.raises(ValueError, match="holds a demo with other sizes; choose another folder"):
        run_demo(tiny_plan(folder, episodes=9))


def test_a_failed_command_is_told_with_its_last_words_and_its_log(tmp_path, monkeypatch):
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(ChildProcessError, match=r"rt2 sim ended with status 2(.|\n)*record.log"):
        run_demo(tiny_plan(tmp_path))
    assert not (tmp_path / "stages").exists()


def test_the_plan_is_shown_before_it_begins(tmp_path, capsys):
    (tmp_path / "data").write_text("in the way")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("The plan, about ")
    for stage in stages(short_plan(tmp_path)):
        assert stage.text in printed.out
    assert printed.err.startswith("rt2 demo: error: rt2 sim ended with status 2")
