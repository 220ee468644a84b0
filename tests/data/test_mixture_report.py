"""What a mixture gives a run: shares, tokens, padding, epochs."""

import dataclasses

import pytest

from rt2_jax.data.mixture_report import PlannedRun, report_mixture
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary


@pytest.fixture
def report(mixture, tmp_path):
    return lambda **run: report_mixture(
        "half", tmp_path, "train", load_vocabulary(), PlannedRun(**run)
    )


def test_shares_sum_to_one_and_epochs_are_what_the_run_reads(report):
    found = report(steps=100, batch_size=6)
    robot, web = found.tasks
    assert (robot.steps, robot.episodes, web.steps, web.episodes) == (9, 3, 5, 5)
    assert robot.examples == web.examples == 0.5
    for name in ("loss_tokens", "loss"):
        assert getattr(robot, name) + getattr(web, name) == pytest.approx(1)
    assert (robot.epochs, web.epochs) == (100 * 6 / 2 / 9, 100 * 6 / 2 / 5)
    assert report().tasks[0].epochs is None


def test_tokens_are_those_of_the_models_own_features(report, mixture, tmp_path):
    from rt2_jax.actions.binning import UniformBins
    from rt2_jax.actions.vocabulary import ActionVocabulary
    from rt2_jax.data.examples import mixture_examples
    from rt2_jax.data.manifest import open_caches

    tokenizer = load_vocabulary()
    spec = InputSpec((("front", 0),), (8, 8), encoder_length=40, decoder_length=30)
    examples = mixture_examples(
        mixture,
        open_caches(mixture, tmp_path),
        ModelInputs(spec, tokenizer),
        UniformBins(),
        ActionVocabulary.from_integer_pieces(tokenizer),
    )
    found = report(encoder_length=40, decoder_length=30)
    for task, each in zip(found.tasks, examples, strict=True):
        features = [each.example(i) for i in range(len(each))]
        prompts = [(f["encoder_input_tokens"] != 0).sum() for f in features]
        targets = [f["decoder_loss_weights"].sum() for f in features]
        assert task.prompt_tokens == sum(prompts) / len(prompts)
        assert task.target_tokens == sum(targets) / len(targets)
        assert task.longest_prompt == max(prompts) and task.longest_target == max(targets)
        assert task.prompt_padding == pytest.approx(1 - task.prompt_tokens / 40)
        assert task.target_padding == pytest.approx(1 - task.target_tokens / 30)


def test_chunks_plans_and_weights_of_the_loss_count(report):
    plain, chunks = report().tasks, report(horizon=3).tasks
    assert (plain[0].target_tokens, chunks[0].target_tokens) == (9, 25)
    planned = report(plan_length=6).tasks[0]
    assert (planned.target_tokens, planned.longest_target) == (10, 15)  # an empty plan ends at once
    weighted = report(source_weights={"cups": 0.0}).tasks
    assert (weighted[0].loss, weighted[1].loss) == (1, 0)
    assert weighted[1].loss_tokens == plain[1].loss_tokens


def test_texts_that_do_not_fit_are_told(report):
    assert [task.too_long for task in report(decoder_length=9).tasks] == [False, True]
    assert (
        "too long for these lengths, a run refuses them: cups"
        in report(decoder_length=9).describe()
    )
    assert not any(task.too_long for task in report().tasks)


def test_the_table_and_the_json_hold_the_same(report):
    found = report(steps=100, batch_size=6)
    text, data = found.describe(), found.to_json()
    for task in data["tasks"]:
        assert task["task"] in text and f"{task['epochs']:.2f}" in text
        assert f"{task['loss_tokens']:.1%}" in text
    assert f"{data['target_padding']:.0%} are padding" in text
    assert set(data["tasks"][0]) == {f.name for f in dataclasses.fields(found.tasks[0])}


def test_a_planned_run_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batch_size: found 0, expected 1 or more"):
        PlannedRun(batch_size=0)
