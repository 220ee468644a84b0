"""RT-1 on the vectors that a real data set stores with its instructions, trained and served."""

import dataclasses

import numpy as np
import pytest
import seqio

from rt2_jax.actions.policy import Observation
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.image import decode_image
from rt2_jax.data.manifest import open_caches
from rt2_jax.data.resolve import resolve_mixture
from rt2_jax.inference.engine import EnginePolicy, PolicyEngine
from rt2_jax.models.rt1.config import EfficientNetConfig, RT1Config
from rt2_jax.serving.requests import Schema
from rt2_jax.training.execution import execute
from rt2_jax.training.loop import LoopConfig
from rt2_jax.training.run import prepare
from rt2_jax.training.run_config import RunConfig
from rt2_jax.training.schedules import LearningRate


@pytest.fixture(scope="module")
def run(shared_data, tmp_path_factory):
    """A run on 20 episodes of Bridge, with the Universal Sentence Encoder's vectors."""
    import rt2_jax.tasks.bridge  # noqa: F401

    root = tmp_path_factory.mktemp("bridge")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RT2_DATA_DIR", str(shared_data))
        cache_task(seqio.TaskRegistry.get("bridge_sample"), root)
        resolve_mixture("bridge_sample", root)
    model = RT1Config(
        EfficientNetConfig(image_size=(16, 16), width=0.25, depth=0.5, num_stages=1),
        image_slots=(("front", 0),),
        token_learner_dim=8,
        tokens_per_image=2,
        embed_dim=16,
        num_layers=1,
        num_heads=2,
        head_dim=8,
        action_tokens=8,
    )
    return prepare(
        RunConfig(
            model_dir=str(root / "run"),
            mixture="bridge_sample",
            cache_dir=str(root),
            model=model,
            task_feature_lengths={"inputs": 1, "targets": 8},
            global_batch_size=8,
            loop=LoopConfig(total_steps=2, save_period=2),
            learning_rate=LearningRate(),
            tensorboard=False,
        )
    )


def test_every_example_has_the_vector_of_its_instruction(run):
    steps = open_caches(run.manifest, run.config.cache_dir)[0]
    seen = {}
    for number in range(0, len(steps), 7):
        vector = run.examples[0].example(number)["instruction_embedding"]
        assert vector.shape == (512,) and abs(np.linalg.norm(vector) - 1) < 1e-4
        assert np.array_equal(seen.setdefault(steps[number].text, vector), vector)
    assert len(seen) == 4 and len({vector.tobytes() for vector in seen.values()}) == 4
    assert "encoder_input_tokens" not in run.batch_shapes
    assert run.batch_shapes["instruction_embedding"] == (8, 512)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instruction_dim": 256}, "vectors have 512 numbers, the model reads 256"),
        ({"state_fields": ("x",)}, "reads a vector of the instruction and no prompt"),
    ],
)
def test_what_does_not_fit_the_vectors_is_refused(run, changes, message):
    config = run.config
    if "instruction_dim" in changes:
        changes = {"model": dataclasses.replace(config.model, **changes)}
    with pytest.raises(ValueError, match=message):
        prepare(dataclasses.replace(config, **changes))


@pytest.mark.slow
def test_a_served_policy_knows_the_instructions_of_its_training_and_is_told_others(run):
    assert execute(run).state.step == 2
    engine = PolicyEngine.from_checkpoint(run.config.model_dir, (2,))
    step = open_caches(run.manifest, run.config.cache_dir)[0][0]
    image = decode_image(step.images[0], "step")
    known = Observation({"front": image}, step.text)
    vector = run.examples[0].example(0)["instruction_embedding"]
    told = dataclasses.replace(known, instruction="anything", instruction_embedding=vector)
    policy = EnginePolicy(engine)
    first, second = policy.infer_batch(
        [dataclasses.replace(each, session=str(i)) for i, each in enumerate((known, told))]
    )
    np.testing.assert_array_equal(first["tokens"], second["tokens"])
    features = engine.observe(engine.robot_task(), {("front", 0): image}, step.text)
    for name, value in run.description.model_inputs.observed(run.examples[0].example(0)).items():
        np.testing.assert_array_equal(features[name], value, err_msg=name)
    with pytest.raises(KeyError, match="no vector is stored for the instruction 'dance'; there"):
        policy.infer(dataclasses.replace(known, instruction="dance"))
    with pytest.raises(ValueError, match=r"found one of shape \[3\], expected 512 numbers"):
        policy.infer(dataclasses.replace(told, instruction_embedding=np.ones(3, np.float32)))
    assert policy.metadata["instruction_encoder"] == {
        "name": "universal-sentence-encoder",
        "dim": 512,
        "known": 4,
    }
    frame = {"images": {"front": image}, "prompt": "x", "instruction_embedding": vector.tolist()}
    request = Schema(policy.metadata).read(frame, "s")
    np.testing.assert_array_equal(request.observation.instruction_embedding, vector)
    assert not request.warnings
