"""Web tasks: each picture is captioned once, and people's answers are found in the cache."""

import contextlib

import numpy as np
import pytest

from rt2_jax.data.cache import StepCache
from rt2_jax.evaluation.tables import offline_table
from rt2_jax.evaluation.web_report import web_report
from rt2_jax.inference.engine import PolicyEngine

CAPTIONS = (
    ("a red cube on a table", "a cube", "the red cube"),
    ("two blue stars", "blue stars on a table", "a blue star"),
)


class Says(PolicyEngine):
    """An engine that answers what it is told to, and counts."""

    answers = ()
    asked = 0

    def decode_text(self, examples):
        first, self.asked = self.asked, self.asked + len(examples)
        return list(self.answers[first : self.asked])


@pytest.fixture
def says(small, untrained):
    from rt2_jax.inference.weights import abstract_params
    from rt2_jax.training.checkpoints import restore_params
    from rt2_jax.training.description import RunDescription

    description = RunDescription.from_checkpoint(untrained)
    params = restore_params(untrained, abstract_params(description))

    def make(*answers):
        engine = Says(description, params, (4,))
        engine.answers = answers
        return engine

    return make


@pytest.fixture
def cached(small, tmp_path):
    """Caches steps as a web task."""
    import seqio
    import tensorflow as tf

    from rt2_jax.data.cache_writer import cache_task
    from rt2_jax.data.registration import step_format, web_task

    def make(steps, **options):
        def dataset(split, shuffle_files, seed=None):
            kinds = {"images": ([None], tf.string), "references": ([None], tf.string)}
            kinds["episode"] = ([], tf.int64)
            spec = {key: tf.TensorSpec(*kinds.get(key, ([], tf.string))) for key in steps[0]}
            return tf.data.Dataset.from_generator(lambda: iter(steps), output_signature=spec)

        source = seqio.FunctionDataSource(dataset, splits=("train",))
        try:
            task = web_task("judged", source, read_from="here", **options)
            cache_task(task, tmp_path)
        finally:
            with contextlib.suppress(ValueError):
                seqio.TaskRegistry.remove("judged")
        return step_format(task).info, StepCache(tmp_path, "judged", "train")

    return make


def step(small, number, picture, text, target, *references):
    return {
        "images": [small.encoded(small.picture(picture))],
        "text": text,
        "target": target,
        "references": list(references),
        "episode": number,
        "episode_id": str(number),
    }


def test_a_picture_is_captioned_once_and_judged_by_all_its_captions(small, says, cached):
    pairs = [(text, i) for texts in zip(*CAPTIONS, strict=True) for i, text in enumerate(texts)]
    info, cache = cached(
        [step(small, n, picture, "", text) for n, (text, picture) in enumerate(pairs)],
        prompt="Generate caption in en",
    )
    engine, told = says("a cube", "nothing"), []
    report = web_report(engine, 0, info, cache, np.arange(3), lambda *words: told.append(words))
    assert engine.asked == 2 and told == [("judged", 2, 2)]
    # The first three steps: both pictures' first captions, and "a cube".
    assert (report.exact.successes, report.exact.trials) == (1, 3)
    [score] = report.scores
    assert (score.name, score.count, score.of) == ("cider_d", 2, "pictures")
    others = web_report(says("a cube on", "x"), 0, info, cache, np.arange(2), lambda *_: None)
    assert 0 < score.value != others.scores[0].value
    assert f"CIDEr-D: {score.value:.3f} (2 pictures)" in offline_table([report])


def test_ten_peoples_answers_come_out_of_the_cache(small, says, cached):
    ten = ["cup"] * 2 + ["mug"] * 8
    info, cache = cached(
        [
            step(small, 0, 0, "what is it?", "mug", *ten),
            step(small, 1, 1, "what is it?", "cube"),
        ],
        prompt="Q: {text} A:",
    )
    assert cache[0].references == tuple(ten) and cache[1].references == ()
    report = web_report(says("a cup", "The cube."), 0, info, cache, np.arange(2), lambda *_: None)
    assert [(each.name, each.value) for each in report.scores] == [
        ("vqa_accuracy", pytest.approx(0.6)),
        ("vqa_exact_match", 1.0),
    ]
    assert report.exact.successes == 0
    assert "VQA accuracy: 60.0% (1 questions)" in offline_table([report])
    assert report.to_json()["scores"][0] == {
        "name": "vqa_accuracy",
        "value": pytest.approx(0.6),
        "questions": 1,
    }


def test_a_task_says_what_it_is_judged_by(small, says, cached):
    steps = [step(small, n, n, "", text) for n, text in enumerate(("a cup", "a cube"))]
    info, cache = cached(steps, prompt="Say what is there", metrics=["cider_d"])
    report = web_report(says("a cup", "a cube"), 0, info, cache, np.arange(2), lambda *_: None)
    assert [each.name for each in report.scores] == ["cider_d"]
    with pytest.raises(ValueError, match=r"metrics \['bleu'\], expected some of vqa_accuracy, cid"):
        cached(steps, prompt="Say what is there", metrics=["bleu"])
