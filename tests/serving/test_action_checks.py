"""No action leaves the server outside its space or the operator's limits, and none is bent."""

import json

import numpy as np
import pytest

from rt2_jax.actions.bounds import Bounds
from rt2_jax.actions.policy import Observation
from rt2_jax.client import PolicyServerError, RemotePolicy
from rt2_jax.serving.action_checks import ActionChecks, FieldLimit, Safety, read_limits
from rt2_jax.serving.outcomes import PolicyError, UnsafeActionError

from .conftest import SPACE, Toy, seen
from .test_server import page

METADATA = {"action_space": SPACE.to_json()}
SLOW = {"position_delta_x": FieldLimit(max_abs=0.02, max_change=0.01)}


def moves(*x):
    actions = np.zeros((len(x), 8), np.float32)
    actions[:, 0], actions[:, 1] = 1, x
    return {"actions": actions}


def at(step=None, session="s"):
    return Observation({}, "go", session=session, step=step)


def test_an_action_outside_the_bounds_of_its_space_is_no_action():
    checks = ActionChecks(METADATA, Safety())
    for inside in (0.05, -0.05):
        assert checks.check(at(), moves(inside))["actions"][0, 1] == np.float32(inside)
    with pytest.raises(
        PolicyError,
        match=r"'position_delta_x' at step 1 is 0.06 m, outside its bounds -0.05 to 0.05; it is "
        "not given, and not clipped",
    ):
        checks.check(at(), moves(0.0, 0.06))


def test_bounds_from_statistics_are_those_of_the_metadata():
    low, high = np.full(8, -0.01), np.full(8, 1.0)
    bounds = Bounds(SPACE.hash, low, high).to_json()
    checks = ActionChecks({**METADATA, "action_bounds": bounds}, Safety())
    checks.check(at(), moves(-0.01))
    with pytest.raises(PolicyError, match="-0.02 m, outside its bounds -0.01 to 1"):
        checks.check(at(), moves(-0.02))


def test_an_action_beyond_a_limit_is_refused_with_field_value_and_limit():
    checks = ActionChecks(METADATA, Safety(SLOW))
    checks.check(at(), moves(0.02, 0.01))
    with pytest.raises(UnsafeActionError, match="is 0.03 m, .* allow 0.02 .*max_abs 0.02"):
        checks.check(at(), moves(0.02, 0.03))
    with pytest.raises(UnsafeActionError, match="is -0.005 m, .* allow 0 .*max_change 0.01, after"):
        checks.check(at(), moves(-0.005))
    checks.check(at(session="other"), moves(-0.005))
    checks.forget("s")
    checks.check(at(), moves(-0.005))


def test_the_change_counts_from_the_step_that_was_executed_last():
    checks = ActionChecks(METADATA, Safety(SLOW))
    checks.check(at(0), moves(0.0, 0.01, 0.02))
    with pytest.raises(UnsafeActionError, match="after 0.01"):
        checks.check(at(2), moves(-0.001))
    checks.check(at(2), moves(0.0))
    checks.check(at(), moves(0.01))  # no step number: all of the last answer was executed
    checks.check(at(), moves(0.02))


def test_holding_back_is_asked_for_and_said():
    checks = ActionChecks(METADATA, Safety(SLOW, hold_back=True))
    first = checks.check(at(), moves(0.05))
    assert first["held_back"] == ["position_delta_x"]
    np.testing.assert_allclose(first["actions"][0, 1], 0.02)
    second = checks.check(at(), moves(-0.02))
    np.testing.assert_allclose(second["actions"][0, 1], 0.01, rtol=1e-6)
    assert second["actions"].dtype == np.float32 and second["actions"][0, 0] == 1
    third = checks.check(at(), moves(0.015))
    assert third["held_back"] == [] and third["actions"][0, 1] == np.float32(0.015)


def test_low_confidence_is_said_or_refused():
    sure, unsure = {**moves(0), "confidence": 0.9}, {**moves(0), "confidence": 0.1}
    reports = ActionChecks(METADATA, Safety(min_confidence=0.3))
    assert not reports.check(at(), sure)["low_confidence"]
    assert reports.check(at(), unsure)["low_confidence"]
    assert reports.check(at(), {**moves(0), "confidence": np.nan})["low_confidence"]
    assert "low_confidence" not in reports.check(at(), moves(0))
    refuses = ActionChecks(METADATA, Safety(min_confidence=0.3, refuse_low_confidence=True))
    with pytest.raises(UnsafeActionError, match="confidence is 0.1, expected 0.3 or more"):
        refuses.check(at(), unsure)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "found list, expected a map"),
        ({"x": 1}, "expected a JSON object, found int"),
        ({"x": {"max": 1}}, "unknown keys ..max"),
        ({"x": {"max_abs": -1}}, "max_abs of 'x': found -1, expected a number above 0"),
        ({"position": {"max_abs": 1}}, "no field 'position'; it has ..terminate"),
        ({"terminate": {"max_abs": 1}}, "'terminate' is discrete"),
    ],
)
def test_limits_that_mean_nothing_are_refused_before_anything_is_served(tmp_path, data, message):
    path = tmp_path / "limits.json"
    path.write_text(json.dumps(data))
    with pytest.raises((TypeError, KeyError, ValueError), match=message):
        ActionChecks(METADATA, Safety(read_limits(path)))


def test_a_robot_never_gets_an_action_beyond_the_limits(serve):
    _, url = serve(safety=Safety(SLOW))
    with RemotePolicy(url) as robot:
        assert robot.infer(seen(100))["actions"][0, 1] == np.float32(0.01)
        with pytest.raises(PolicyServerError, match=r"UNSAFE \(seq 1\): field 'position_delta_x'"):
            robot.infer(seen(250))
        assert robot.infer(seen(200))["actions"][0, 1] == np.float32(0.02)
    assert 'rt2_requests_total{outcome="unsafe"} 1.0' in page(url, "/metrics")[1]


def test_what_was_held_back_is_in_the_answer_and_counted(serve):
    _, url = serve(safety=Safety(SLOW, hold_back=True))
    with RemotePolicy(url) as robot:
        assert robot.infer(seen(250))["held_back"] == ["position_delta_x"]
    assert 'rt2_held_back_total{field="position_delta_x"} 1.0' in page(url, "/metrics")[1]


def test_low_confidence_is_in_the_answer_its_warnings_and_the_count(serve):
    class Unsure(Toy):
        def infer_batch(self, observations):
            return [{**each, "confidence": 0.1} for each in super().infer_batch(observations)]

    _, url = serve(Unsure(), safety=Safety(min_confidence=0.5))
    with RemotePolicy(url) as robot:
        answer = robot.infer(seen())
    assert answer["low_confidence"]
    assert "the policy is not sure of this action" in answer["warnings"]
    assert "rt2_low_confidence_total 1.0" in page(url, "/metrics")[1]
