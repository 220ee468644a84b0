"""Offline evaluation counts what a slow count by hand counts, and refuses other data."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from rt2_jax.actions.space import rt2_action_space
from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import TaskExamples
from rt2_jax.evaluation.cached_tasks import open_cached_tasks, task_examples
from rt2_jax.evaluation.infer import infer
from rt2_jax.evaluation.offline import evaluate_offline, spread
from rt2_jax.evaluation.tables import offline_table
from rt2_jax.evaluation.web_report import normalised
from rt2_jax.inference.engine import PolicyEngine


@pytest.fixture(scope="module")
def engine(untrained):
    return PolicyEngine.from_checkpoint(untrained, (8,))


@pytest.fixture(scope="module")
def expert(trained):
    return PolicyEngine.from_checkpoint(trained, (8,))


def test_a_policy_that_knows_the_steps_by_heart_is_right_and_beats_the_median(expert, caches):
    robot, web = evaluate_offline(expert, caches, split="train")
    assert robot.policy.token_accuracy == 1 and robot.policy.exact.rate == 1
    assert web.exact.rate == 1 and web.exact.trials == 4
    codec = expert.action_tokens(robot.task).codec
    width = (codec.bounds.high - codec.bounds.low) / 256
    inside = robot.clipped == 0
    assert (robot.policy.mean_error <= width / 2 + 1e-7)[inside].all()
    assert robot.median.token_accuracy < 0.3
    assert (robot.policy.mean_error < robot.median.mean_error)[1:7].all()


def test_an_untrained_policy_is_no_better_than_chance(engine, caches):
    robot, web = evaluate_offline(engine, caches)
    assert robot.policy.token_accuracy < 0.2 and robot.policy.exact.successes == 0
    assert web.exact.successes == 0


@pytest.mark.parametrize("horizon", [1, 2])
def test_the_numbers_are_those_of_a_count_by_hand(horizon, small, engine, caches):
    description = small.describe(caches, horizon=horizon)
    if horizon > 1:  # no weight depends on it
        engine = PolicyEngine(description, engine.weights, (8,))
    robot, _ = evaluate_offline(engine, caches)
    cache = StepCache(caches, "arm_pick", "validation")
    tokens = engine.action_tokens(robot.task)
    examples = TaskExamples(0, cache, description.model_inputs, tokens)
    bound = tokens.codec
    train = np.sort(StepCache(caches, "arm_pick", "train").actions(), axis=0)
    median = bound.encode(np.stack([train[(len(train) - 1) // 2]] * horizon)).levels[0]
    errors, median_errors, equal, median_equal = [], [], [], []
    for index in range(len(cache)):
        _, [row], _ = engine.decode_actions([examples.example(index)], robot.task)
        levels = tokens.from_ids(row.tolist())
        actions = bound.decode(levels)
        for ahead in range(horizon):
            if index + ahead >= len(cache) or cache[index + ahead].episode != cache[index].episode:
                continue
            true = cache[index + ahead].action
            wanted = bound.encode(np.stack([true] * horizon)).levels[0]
            errors.append(abs(actions[ahead].astype(float) - true))
            median_errors.append(abs(bound.decode(np.stack([median] * horizon))[0] - true))
            equal.append(levels[ahead] == wanted)
            median_equal.append(median == wanted)
    assert robot.steps == 30 and robot.actions == len(errors) == (30 if horizon == 1 else 50)
    np.testing.assert_allclose(robot.policy.mean_error, np.mean(errors, axis=0))
    np.testing.assert_allclose(robot.policy.median_error, np.median(errors, axis=0))
    np.testing.assert_allclose(robot.median.mean_error, np.mean(median_errors, axis=0), rtol=1e-5)
    np.testing.assert_allclose(robot.policy.field_accuracy, np.mean(equal, axis=0))
    assert robot.policy.token_accuracy == pytest.approx(np.mean(np.array(equal)[:, 1:]))
    assert robot.median.token_accuracy == pytest.approx(np.mean(np.array(median_equal)[:, 1:]))
    assert robot.policy.exact.successes == np.sum(np.all(equal, axis=1))


def test_bounds_are_the_checkpoints_and_values_outside_are_counted(engine, caches):
    robot, _ = evaluate_offline(engine, caches)
    statistics = engine.description.manifest.statistics.get("arm", robot.task.robot.action_space)
    held = StepCache(caches, "arm_pick", "validation").actions()
    for i in (1, 2, 3):
        low, high = np.float32(statistics.q01[i]), np.float32(statistics.q99[i])
        assert robot.clipped[i] == np.sum((held[:, i] < low) | (held[:, i] > high))
    assert robot.clipped[1:4].sum() > 0


def test_a_limit_spreads_over_the_split_and_tasks_can_be_chosen(engine, caches):
    told = []
    [web] = evaluate_offline(engine, caches, ["cups"], limit=4, report=lambda *x: told.append(x))
    assert web.exact.trials == 4 and told == [("cups", 4, 4)]
    assert [text for text, *_ in web.examples] == [f"what is in place {i}?" for i in (0, 2, 5, 7)]
    assert spread(10, 4).tolist() == [0, 2, 5, 7] and spread(3, 9).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="limit: found 0, expected 1 or more steps"):
        evaluate_offline(engine, caches, limit=0)


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_predictions_in_a_file_are_what_the_evaluation_compares(expert, caches, tmp_path):
    files = infer(expert, caches, tmp_path / "out", split="train")
    names = ("arm_pick-predict", "cups-predict")
    assert files == [tmp_path / "out" / f"{name}.jsonl-00000-of-00001" for name in names]
    (robot,) = evaluate_offline(expert, caches, ["arm_pick"], split="train")
    rows, answers = map(_lines, files)
    errors = []
    for row in rows:
        recorded = np.float32(row["targets"]["actions"]).astype(np.float64)
        errors.append(np.abs(np.float32(row["prediction"]["actions"])[:1] - recorded))
    np.testing.assert_allclose(np.concatenate(errors).mean(axis=0), robot.policy.mean_error)
    assert [row["prediction"] for row in answers] == [row["targets"] for row in answers]
    assert [row["step"] for row in answers] == [0, 1, 2, 3]
    assert answers[1]["inputs"] == "what is in place 1?" and answers[1]["episode_id"] == "1"


def test_scores_are_those_of_the_models_score_batch_in_any_shards(expert, caches, tmp_path):
    parts = []
    for shard in (0, 1):
        options = {"split": "train", "mode": "score", "limit": 3}
        parts += infer(expert, caches, tmp_path, **options, shard_id=shard, num_shards=2)
    assert [path.name for path in parts[::2]] == [
        f"arm_pick-score.jsonl-0000{shard}-of-00002" for shard in (0, 1)
    ]
    model = expert.description.make_model()
    rows, examples = [], []
    for entry, cache in open_cached_tasks(expert.description, caches, split="train"):
        found = [_lines(path) for path in parts if path.name.startswith(entry.info.name)]
        assert list(map(len, found)) == [2, 1]
        source = task_examples(expert.description, entry, cache)
        rows += sum(found, [])
        examples += [source.example(row["step"]) for row in sum(found, [])]
    batch = {name: np.stack([each[name] for each in examples]) for name in model.features}
    expected = jax.jit(model.written_out().score_batch)(expert.weights.params, batch)
    np.testing.assert_allclose([row["score"] for row in rows], expected, rtol=1e-4, atol=1e-5)
    assert len(rows) == 6 and min(expected) > -3, "it knows these steps by heart"


def test_a_mixtures_name_stands_for_all_of_its_tasks(engine, caches):
    found = open_cached_tasks(engine.description, caches, ["half"])
    assert [entry.info.name for entry, _ in found] == ["arm_pick", "cups"]
    found = open_cached_tasks(engine.description, caches, ["cups"])
    assert [entry.info.name for entry, _ in found] == ["cups"]


def test_answers_are_compared_without_case_and_blanks():
    assert normalised("  Red\tCube ") == normalised("red  cube") != normalised("redcube")


def test_the_table_shows_units_the_median_and_intervals(engine, caches):
    reports = evaluate_offline(engine, caches, limit=5)
    text = offline_table(reports)
    lines = text.splitlines()
    assert "arm_pick: 5 steps, 5 actions" in lines[0]
    assert [line.split()[1] for line in lines[2:4]] == ["level", "m"]
    assert "whole actions right: 0/5 = 0.0% (95 % CI 0.0% to 52.2%)" in text
    assert "cups: answers right: 0/5 = 0.0%" in text
    for each in reports:
        assert each.to_json()["task"] in text


def test_a_split_that_is_not_cached_is_refused_with_the_command(engine, caches):
    with pytest.raises(FileNotFoundError, match="rt2 data cache arm_pick --split test --cache-dir"):
        evaluate_offline(engine, caches, split="test")


def test_a_task_that_was_not_trained_is_refused(engine, caches):
    with pytest.raises(KeyError, match="no task 'mugs' .* its tasks: arm_pick, cups"):
        evaluate_offline(engine, caches, ["mugs"])


def test_held_out_steps_of_another_action_space_are_refused(engine, small, caches, tmp_path):
    other = rt2_action_space(
        "test_arm",
        translation_bound_m=0.3,
        rotation_bound_rad=0.25,
        gripper_polarity="high_is_open",
        control_rate_hz=5.0,
    )
    small.write_caches(tmp_path, ("validation",), other)
    with pytest.raises(ValueError, match="the checkpoint's task 'arm_pick' and this cache"):
        evaluate_offline(engine, tmp_path)


def test_steps_of_another_prompt_are_refused(engine, caches):
    description = engine.description
    cups = description.manifest.tasks[1]
    changed = dataclasses.replace(cups, info=dataclasses.replace(cups.info, prompt="Say: {text}"))
    manifest = dataclasses.replace(
        description.manifest, tasks=(description.manifest.tasks[0], changed)
    )
    other = PolicyEngine(
        dataclasses.replace(description, manifest=manifest), engine.weights, (8,), "checkpoint_0"
    )
    with pytest.raises(ValueError, match="not of the task that the checkpoint was trained on"):
        evaluate_offline(other, caches, ["cups"])


def test_the_median_is_only_of_the_cache_that_was_trained_on(engine, caches):
    description = engine.description
    arm = dataclasses.replace(description.manifest.tasks[0], cache_hash="0" * 64)
    manifest = dataclasses.replace(description.manifest, tasks=(arm, description.manifest.tasks[1]))
    other = PolicyEngine(dataclasses.replace(description, manifest=manifest), engine.weights, (8,))
    with pytest.raises(ValueError, match="is not the cache that the checkpoint was trained on"):
        evaluate_offline(other, caches)
