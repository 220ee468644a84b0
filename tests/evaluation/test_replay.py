"""A log is asked again: the same tokens by the same weights, and what another model would do."""

import dataclasses

import jax
import numpy as np
import pytest

from rt2_jax.actions.policy import Observation
from rt2_jax.cli.main import main
from rt2_jax.client import RemotePolicy
from rt2_jax.data.journal import JournalWriter
from rt2_jax.data.request_log import journal_file, new_log
from rt2_jax.evaluation.replay import open_logs, replay
from rt2_jax.inference.engine import EnginePolicy, PolicyEngine
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.request_logger import RequestLogger
from rt2_jax.serving.server import PolicyServer


def seen(small, episode, step, more=0):
    number = 100 * episode + step + more
    views = {view: small.picture(number) for view in ("front", "wrist")}
    return Observation(views, f"pick object {episode}", session=f"episode {episode}")


@pytest.fixture(scope="module")
def engine(untrained):
    return PolicyEngine.from_checkpoint(untrained, (2,))


@pytest.fixture(scope="module")
def logged(small, engine, tmp_path_factory):
    """A real server's log: two sessions between each other, one begun anew, and a refusal."""
    policy = EnginePolicy(engine)
    folder = tmp_path_factory.mktemp("logs")
    log = RequestLogger(folder, policy.metadata)
    server = PolicyServer(policy, port=0, options=ServerOptions(largest_batch=2, log=log))
    with server.in_thread() as url, RemotePolicy(url) as a, RemotePolicy(url) as b:
        for step in range(3):
            a.infer(seen(small, 0, step))
            b.infer(seen(small, 1, step))
        a.reset("episode 0")
        for step in range(2):  # the first of them has no frame before it
            a.infer(seen(small, 0, step, more=7))
        wide = np.zeros((8, 64, 3), np.uint8)
        with pytest.raises(RuntimeError, match="REFUSED"):
            b.infer(Observation({"front": wide, "wrist": wide}, "go", session="episode 1"))
    return folder


@pytest.fixture
def rewritten(logged, tmp_path):
    """`rewritten(change, keep)`: the records that `keep` keeps, as `change` makes them."""

    def write(change=lambda record: record, keep=lambda record: True, **metadata):
        log = open_logs(logged)[0]
        folder, _ = new_log(tmp_path, {**log.info.metadata, **metadata})
        journal = JournalWriter(journal_file(folder, 0))
        for record in map(log.__getitem__, range(len(log))):
            if keep(record):
                journal.append(change(record).pack())
        journal.close()
        return folder

    return write


@pytest.fixture
def rt2_replay(engine, monkeypatch, capsys):
    """`rt2 eval replay` with the engine that is compiled already: (exit status, what it says)."""
    monkeypatch.setattr(PolicyEngine, "from_checkpoint", lambda *args, **options: engine)

    def run(*words):
        status = main(
            ["eval", "replay", *map(str, words), "--checkpoint", "c", "--batch-size", "2"]
        )
        output = capsys.readouterr()
        return status, output.out + output.err

    return run


def test_the_same_weights_give_the_same_tokens(logged, rt2_replay):
    status, text = rt2_replay(logged)
    assert status == 0
    assert "8 of them answered and asked again: 8 equal, 0 different" in text
    assert "tokens: 64 of 64 equal" in text


def test_frames_of_each_session_and_resets_are_those_of_the_server(logged, engine, monkeypatch):
    logs, task = open_logs(logged), engine.robot_task()
    assert replay(engine, logs, task).score_difference < 1e-4
    monkeypatch.setattr(EnginePolicy, "reset", lambda self, session=None: None)
    found = replay(engine, logs, task)
    assert found.same < found.answered or found.score_difference > 1e-3, "an earlier frame too many"


def test_another_token_is_named_and_the_exit_status_says_so(rewritten, rt2_replay):
    def change(record):
        if record.number != 3:
            return record
        tokens = record.tokens.copy()
        tokens[1] += 1
        return dataclasses.replace(record, tokens=tokens)

    status, text = rt2_replay(rewritten(change))
    assert status == 1 and "7 equal, 1 different" in text and "tokens: 63 of 64 equal" in text
    assert "of action 0): " in text and "episode 1" in text


def test_behind_a_gap_a_difference_is_no_failure_until_the_session_begins_anew(rewritten, engine):
    def change(record):  # all are different, so that only certainty decides
        return (
            record
            if record.tokens is None
            else dataclasses.replace(record, tokens=record.tokens + 1)
        )

    folder = rewritten(change, keep=lambda record: record.number != 2)
    report = replay(engine, open_logs(folder), engine.robot_task())
    assert report.missing == 1 and report.answered == 7
    numbers = {True: [], False: []}
    for each in report.differences:
        numbers[each.certain].append(each.number)
    # The session that is asked at 7 and 8 began anew at 6.
    assert numbers == {True: [0, 1, 7, 8], False: [3, 4, 5]} and report.uncertain == 3


def test_other_weights_are_said_first_and_their_actions_compared_on_request(
    logged, rewritten, rt2_replay, engine
):
    other = rewritten(weights="of another run", checkpoint="checkpoint_7")
    status, text = rt2_replay(other)
    assert status == 2 and "written by checkpoint_7 with other weights" in text
    params = jax.tree.map(lambda leaf: -leaf, engine.weights.params)
    changed = PolicyEngine(engine.description, params, (2,), compiled=engine.compiled)
    report = replay(changed, open_logs(logged), changed.robot_task())
    assert report.same_tokens < report.tokens and report.fields()["mean"].max() > 0
    status, text = rt2_replay(other, "--other-checkpoint")
    assert status == 0 and "(of another checkpoint)" in text and "mean difference" in text
