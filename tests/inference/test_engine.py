"""The engine answers with the weights, the transforms and the bounds of its checkpoint alone."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from rt2_jax.actions.policy import Observation, Policy, check_policy_output
from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.image import decode_image
from rt2_jax.inference.engine import EnginePolicy, PolicyEngine, Question


@pytest.fixture(scope="module")
def warmed(untrained):
    """An engine, the seconds of its warm-up, and the programs it had then."""
    engine = PolicyEngine.from_checkpoint(untrained, (4, 1))
    seconds = engine.warm_up(questions=True)
    return engine, seconds, dict(engine.compiled.programs)


@pytest.fixture(scope="module")
def engine(warmed):
    return warmed[0]


@pytest.fixture(scope="module")
def knowing(trained, engine):
    """The engine of the run that knows its training split by heart, on the same programs."""
    return PolicyEngine.from_checkpoint(trained.parent, (1, 4), compiled=engine.compiled)


def observation(seed, size=(24, 32), **changes):
    draw = np.random.default_rng(seed)
    images = {view: draw.integers(0, 256, (*size, 3), np.uint8) for view in ("front", "wrist")}
    return Observation(**{"images": images, "instruction": f"push cube {seed}", **changes})


def test_a_checkpoint_directory_is_enough_and_an_answer_is_an_action(engine, small):
    [result] = engine.act([observation(0)])
    actions = check_policy_output(small.ARM, result)
    assert actions.shape == (1, 8)
    codec = engine.action_tokens(engine.robot_task())
    np.testing.assert_array_equal(codec.to_ids(result["levels"]), result["tokens"])
    np.testing.assert_array_equal(codec.codec.decode(result["levels"]), result["actions"])
    assert np.isfinite(result["score"]) and result["unused"] == ()
    assert result["plan"] == ""  # none was trained


def test_batched_answers_have_the_tokens_of_single_ones(engine):
    observations = [observation(seed) for seed in range(61)]
    together = engine.act(observations)
    for count in (1, 3):
        parts = [observations[i : i + count] for i in range(0, len(observations), count)]
        alone = [result for part in parts for result in engine.act(part)]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one["tokens"], other["tokens"])
    assert len({tuple(result["tokens"]) for result in together}) > 1
    assert engine.act([]) == []


def test_answers_are_those_of_decoding_without_a_cache(knowing, caches):
    engine = knowing
    task = engine.robot_task()
    examples = TaskExamples(
        0,
        StepCache(caches, "arm_pick", "validation"),
        engine.description.model_inputs,
        engine.action_tokens(task),
    )
    rows = [examples.example(i) for i in range(4)]
    _, tokens, scores = engine.decode_actions(rows, task)
    mask = engine.action_tokens(task).token_mask(engine.description.model.text.vocab_size)
    from rt2_jax.models.vision_language import VisionLanguageModule

    config = dataclasses.replace(engine.description.model, scan_layers=False)
    module = VisionLanguageModule(config)
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    written, total = np.zeros((4, len(mask)), np.int32), np.zeros(4)
    apply = jax.jit(lambda params, *inputs: module.apply({"params": params}, *inputs))
    for place, allowed in enumerate(mask):
        inputs = np.concatenate([np.zeros((4, 1), np.int32), written[:, :-1]], axis=1)
        logits = apply(
            engine.weights.params,
            batch["images"],
            batch["image_mask"],
            batch["encoder_input_tokens"],
            inputs,
        )[:, place]
        log_probs = jax.nn.log_softmax(np.where(allowed, logits, -np.inf))
        written[:, place] = log_probs.argmax(axis=1)
        total += np.asarray(log_probs).max(axis=1)
    np.testing.assert_array_equal(tokens, written)
    np.testing.assert_allclose(scores, total, rtol=1e-4, atol=1e-4)


def test_an_observation_has_the_features_of_the_same_cached_step_in_training(engine, caches):
    cache = StepCache(caches, "arm_pick", "validation")
    task = engine.robot_task()
    examples = TaskExamples(0, cache, engine.description.model_inputs, engine.action_tokens(task))
    policy = EnginePolicy(engine)
    for index in range(6):
        step = cache[index]
        now = Observation(
            {
                view: decode_image(image)
                for view, image in zip(task.views, step.images, strict=True)
            },
            f" {step.text} ",
            session="episode",
            step=step.step,
        )
        served = engine.observe(task, policy._history.images(now), now.instruction)
        for name, value in served.items():
            np.testing.assert_array_equal(value, examples.example(index)[name], err_msg=name)
        assert served["image_mask"].tolist() == [True, step.step > 0, True]
        policy.infer(now)


def test_what_was_learned_by_heart_is_answered(knowing, caches):
    engine, cache = knowing, StepCache(caches, "arm_pick", "train")
    policy = EnginePolicy(engine)
    assert isinstance(policy, Policy)
    codec = engine.action_tokens(engine.robot_task())
    for index in range(len(cache)):
        step = cache[index]
        images = dict(zip(("front", "wrist"), map(decode_image, step.images), strict=True))
        if step.step == 0:
            policy.reset("robot")
        result = policy.infer(Observation(images, step.text, session="robot"))
        np.testing.assert_array_equal(
            result["levels"], codec.codec.encode(step.action[None]).levels
        )
    web = StepCache(caches, "cups", "train")
    steps = [web[i] for i in range(len(web))]
    questions = [Question(f"Answer in en: {step.text}", step.images[0]) for step in steps]
    answers = engine.answer(questions)
    assert [" ".join(each.split()) for each in answers] == [
        " ".join(step.target.split()) for step in steps
    ]


def test_sessions_have_frames_of_their_own(knowing):
    policy, alone = EnginePolicy(knowing), EnginePolicy(knowing)
    for step in range(3):
        both = [observation(10 * i + step, session=f"s{i}", step=step) for i in range(2)]
        together = policy.infer_batch(both)
        for one, result in zip(both, together, strict=True):
            np.testing.assert_array_equal(alone.infer(one)["tokens"], result["tokens"])
    with pytest.raises(ValueError, match="2 observations of session 's0' in one batch"):
        policy.infer_batch([observation(0, session="s0")] * 2)


def test_a_frame_that_was_never_seen_leaves_its_slot_empty(engine):
    policy = EnginePolicy(engine)
    slot = ("front", -1)
    first = observation(0, step=0)
    policy.infer(first)
    assert slot in policy._history.images(observation(1, step=1))
    assert slot not in policy._history.images(observation(1, step=2))
    assert slot not in policy._history.images(observation(1, step=-1))
    assert slot in policy._history.images(observation(1))
    first.images["front"][:] = 7
    assert (policy._history.images(observation(1))[slot] != 7).any()
    policy.reset()
    assert slot not in policy._history.images(observation(1, step=1))


def test_inputs_that_are_not_read_are_named(engine):
    seen = observation(0)
    extra = dataclasses.replace(
        seen,
        images={**seen.images, "side": seen.images["front"]},
        state=np.zeros(2, np.float32),
    )
    [result] = engine.act([extra])
    assert result["unused"] == ("images/side", "state")
    np.testing.assert_array_equal(result["tokens"], engine.act([seen])[0]["tokens"])


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"images": {"front": np.zeros((24, 32, 3), np.uint8)}},
            KeyError,
            "no picture of view 'wr",
        ),
        ({"size": (32, 32)}, ValueError, "view 'front' has 32 x 32 pixels .* training saw 24 x 32"),
        ({"instruction": " "}, ValueError, "the instruction is empty"),
        ({"instruction": "pick " * 40}, ValueError, "tokens and the end of the sequence are more"),
    ],
)
def test_an_observation_that_cannot_be_read_is_refused_and_not_remembered(
    engine, changes, kind, message
):
    policy = EnginePolicy(engine)
    with pytest.raises(kind, match=message):
        policy.infer(observation(0, step=0, **changes))
    assert ("front", -1) not in policy._history.images(observation(1, step=1))


def test_larger_pictures_of_the_same_shape_are_welcome(engine):
    assert engine.act([observation(0, size=(48, 64))])[0]["actions"].shape == (1, 8)


def test_weights_that_are_not_numbers_never_become_an_action(engine):
    params = jax.tree.map(lambda leaf: leaf * np.nan, engine.weights.params)
    weights = dataclasses.replace(engine.weights, params=params)
    broken = PolicyEngine(engine.description, weights, (1,), "checkpoint_7", engine.compiled)
    with pytest.raises(ValueError, match="checkpoint_7: the model's scores are not finite"):
        broken.act([observation(0)])
    with pytest.raises(ValueError, match="scores are not finite"):
        broken.warm_up()


def test_the_metadata_tell_a_client_what_it_gets(engine, small, knowing):
    metadata = engine.metadata
    assert metadata["action_space_hash"] == small.ARM.hash
    assert metadata["action_space"] == small.ARM.to_json()
    assert metadata["terminate"] == "1 = go on, 0 = terminate"
    assert (metadata["control_rate_hz"], metadata["horizon"]) == (5.0, 1)
    assert metadata["views"] == ["front", "wrist"] and metadata["camera_size"] == [24, 32]
    assert EnginePolicy(engine).metadata == metadata
    assert knowing.metadata["weights"] != metadata["weights"]


def test_after_the_warm_up_nothing_is_compiled(warmed):
    engine, seconds, programs = warmed
    assert sorted(seconds) == [1, 4] == list(engine.batch_sizes)
    engine.act([observation(i) for i in range(5)])
    engine.answer([Question("Answer in en: what?")])
    assert engine.compiled.programs == programs


def test_the_task_is_chosen_by_name_or_robot(engine):
    assert engine.robot_task("arm_pick") == engine.robot_task(embodiment="arm")
    with pytest.raises(KeyError, match="no robot task 'cups' .* trained on 'arm_pick'"):
        engine.robot_task("cups")
    with pytest.raises(KeyError, match="of embodiment 'leg'"):
        engine.robot_task(embodiment="leg")


@pytest.mark.parametrize("sizes", [(), (0,), (1.5,)])
def test_batch_sizes_that_are_none_are_refused(engine, sizes):
    with pytest.raises(ValueError, match="batch_sizes: found .* expected one or more integers"):
        PolicyEngine(engine.description, engine.weights, sizes)


def test_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint and no run"):
        PolicyEngine.from_checkpoint(tmp_path)


def test_chunks_of_several_steps_are_answered_whole(small, caches):
    description = small.describe(caches, horizon=2)
    state, _ = small.make_state(description, caches)
    engine = PolicyEngine(description, state.params, (1,))
    [result] = engine.act([observation(0)])
    assert result["actions"].shape == (2, 8) and result["tokens"].shape == (16,)


def test_serving_never_loads_tensorflow(untrained):
    code = (
        "import sys; from rt2_jax.inference import PolicyEngine; import rt2_jax.evaluation.offline;"
        f"PolicyEngine.from_checkpoint({str(untrained)!r}, (1,)).warm_up();"
        "print(sorted({'tensorflow', 'seqio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def with_second_task(engine, **changes):
    """The engine, with a second robot task in its mixture."""
    description = engine.description
    first = description.manifest.tasks[0]
    info = dataclasses.replace(first.info, name="arm_push", **changes)
    tasks = (*description.manifest.tasks, dataclasses.replace(first, info=info))
    manifest = dataclasses.replace(description.manifest, tasks=tasks)
    return PolicyEngine(dataclasses.replace(description, manifest=manifest), engine.weights)


def test_tasks_that_act_alike_need_no_choice_and_others_do(engine):
    assert with_second_task(engine).robot_task().name == "arm_pick"
    other = with_second_task(engine, prompt="Robot: {text}")
    with pytest.raises(ValueError, match="differ in prompt, .* choose one of 'arm_pick', 'arm_pus"):
        other.robot_task()
    assert EnginePolicy(other, other.robot_task("arm_push")).metadata["prompt"] == "Robot: {text}"


def test_a_checkpoint_without_a_robot_cannot_act(engine):
    description = engine.description
    manifest = dataclasses.replace(description.manifest, tasks=description.manifest.tasks[1:])
    web = dataclasses.replace(description, manifest=manifest, codec=None, action_vocabulary=None)
    answers = PolicyEngine(web, engine.weights, (1,))
    with pytest.raises(ValueError, match="trained on 'half', which has no robot"):
        EnginePolicy(answers)
    assert list(answers.warm_up()) == [1] and len(answers.answer([Question("what?")])) == 1
