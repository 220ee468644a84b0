"""A small policy: caches of a robot and a web task, a run's description, weights, checkpoints."""

import contextlib
import io
import pathlib

import jax
import numpy as np
import optax
from PIL import Image

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.bounds import QuantileBounds
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.manifest import load_manifest, manifest_path, open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary
from rt2_jax.models.config import (
    DecoderOnlyConfig,
    DecoderVisionLanguageConfig,
    TextConfig,
    VisionConfig,
    VisionLanguageConfig,
)
from rt2_jax.models.rt1.config import EfficientNetConfig, RT1Config
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.checkpoints import Checkpoints
from rt2_jax.training.description import RunDescription
from rt2_jax.training.mesh import MeshShape, make_mesh
from rt2_jax.training.partitioning import Partitioner
from rt2_jax.training.train_state import train_state_initializer

ARM = rt2_action_space(
    "test_arm",
    translation_bound_m=QuantileBounds(),
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5.0,
)
SIZE = (24, 32)
PLANS = ("red cube", "the cup", "", "cup")
VISION = VisionConfig(
    image_size=(16, 16), patch_size=8, embed_dim=32, num_layers=1, num_heads=2, mlp_dim=32
)
FAST = {"xla_backend_optimization_level": 2, "xla_llvm_disable_expensive_passes": False}
SLOTS = (("front", 0), ("front", -1), ("wrist", 0))


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def picture(seed, size=SIZE):
    """Coarse, so that shrinking leaves pictures different."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((size[0] // 3, size[1] // 4, 1), np.uint8))


def robot_steps(episodes, seed):
    random = np.random.default_rng(seed)
    for episode in range(episodes):
        for step in range(3):
            action = random.uniform(-0.2, 0.2, 8).astype(np.float32)
            action[0], action[7] = step < 2, step % 2
            number = 1000 * seed + 10 * episode + step
            yield {
                "images": [encoded(picture(number)), encoded(picture(number + 500))],
                "text": f"pick object {episode}",
                "target": PLANS[episode % len(PLANS)],
                "action": action,
                "state": np.array([0.1 * episode, 0.3 * step], np.float32),
                "episode": episode,
                "step": step,
                "episode_id": str(episode),
            }


def web_steps(count, seed):
    for i in range(count):
        yield {
            "images": [encoded(picture(5000 * (seed + 1) + i, (30, 40)))],
            "text": f"what is in place {i}?",
            "target": ("Red cube", "blue  star", "green moon", "cup")[i % 4],
            "episode": i,
            "episode_id": str(i),
        }


@contextlib.contextmanager
def registered_tasks(action_space=ARM, held_out=10):
    """The tasks `arm_pick` and `cups`, and the mixture `half`, in SeqIO's registries."""
    import seqio
    import tensorflow as tf

    from rt2_jax.data.registration import robot_task, web_task

    kinds = {"images": ([None], tf.string), "action": ([None], tf.float32)}
    kinds |= {"state": ([None], tf.float32), "episode": ([], tf.int64), "step": ([], tf.int64)}

    def source(make):
        def dataset(split, shuffle_files, seed=None):
            steps = list(make(*((4, 0) if split == "train" else (held_out, 1))))
            spec = {key: tf.TensorSpec(*kinds.get(key, ([], tf.string))) for key in steps[0]}
            return tf.data.Dataset.from_generator(lambda: iter(steps), output_signature=spec)

        return seqio.FunctionDataSource(dataset, splits=("train", "validation"))

    before = {r: dict(r._REGISTRY) for r in (seqio.TaskRegistry, seqio.MixtureRegistry)}
    robot_task(
        "arm_pick",
        source(robot_steps),
        embodiment="arm",
        action_space=action_space,
        views=["front", "wrist"],
        state_fields=["x", "y"],
        image_size=SIZE,
        read_from="arm",
    )
    web_task("cups", source(web_steps), prompt="Answer in en: {text}", read_from="cups")
    seqio.MixtureRegistry.add("half", [("arm_pick", 0.5), ("cups", 0.5)])
    try:
        yield
    finally:
        for kind, entries in before.items():
            kind._REGISTRY.clear()
            kind._REGISTRY.update(entries)


def write_caches(root, splits=("train", "validation"), action_space=ARM, held_out=10):
    """Caches both tasks and resolves `half`; episodes of the validation split: `held_out`."""
    import seqio

    from rt2_jax.data.cache_writer import cache_task
    from rt2_jax.data.resolve import resolve_mixture

    with registered_tasks(action_space, held_out):
        for split in splits:
            for name in ("arm_pick", "cups"):
                cache_task(seqio.TaskRegistry.get(name), root, split=split)
        if "train" in splits:
            resolve_mixture("half", root)


def _encoder_decoder(vocab_size):
    text = TextConfig(
        vocab_size=vocab_size,
        embed_dim=32,
        encoder_layers=1,
        decoder_layers=1,
        num_heads=4,
        head_dim=8,
        mlp_dim=64,
    )
    return VisionLanguageConfig(VISION, text, SLOTS)


def _decoder_only(vocab_size):
    text = DecoderOnlyConfig(
        vocab_size=vocab_size,
        embed_dim=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=1,
        head_dim=8,
        mlp_dim=64,
        embedding_scale="inputs",
    )
    return DecoderVisionLanguageConfig(VISION, text, SLOTS)


def _rt1(vocab_size):
    return RT1Config(
        EfficientNetConfig(image_size=(16, 16), width=0.5, depth=0.5, num_stages=2),
        image_slots=tuple(sorted(SLOTS, key=lambda slot: slot[1])),
        instruction="tokens",
        instruction_dim=32,
        vocab_size=vocab_size,
        instruction_layers=1,
        instruction_heads=4,
        instruction_mlp_dim=64,
        token_learner_dim=16,
        tokens_per_image=4,
        embed_dim=32,
        num_layers=2,
        num_heads=4,
        head_dim=8,
        feed_forward="swiglu",
        mlp_dim=64,
        action_tokens=8,
        dropout_rate=0.0,
    )


MODELS = {"encoder_decoder": _encoder_decoder, "decoder_only": _decoder_only, "rt1": _rt1}


def describe(root, horizon=1, mixture="half", plan=0, state=(), family="encoder_decoder"):
    """A run on these caches: answers begin with a plan of `plan` tokens, prompts with the state."""
    tokenizer = load_vocabulary()
    codec = UniformBins(256, horizon)
    manifest = load_manifest(manifest_path(root, mixture, "train"))
    model = MODELS[family](tokenizer.vocab_size)
    if not model.writes_text:
        manifest = manifest.robots()
    length = plan + 8 * horizon + (2 if model.writes_text else 0)
    inputs = InputSpec(
        model.image_slots,
        (16, 16),
        32,
        length,
        robot_crop=0.9,
        plan_length=plan,
        state_fields=state,
        placeholders_per_image=model.placeholders_per_image,
        answer_end=model.writes_text,
    )
    cache = open_caches(manifest, root)[0]
    features = ModelInputs(inputs, tokenizer).observe(
        {("front", 0): cache[0].images[0], ("wrist", 0): cache[0].images[0]},
        "Q: wave A:",
        robot=True,
    )
    return RunDescription(
        model=model,
        inputs=inputs,
        tokenizer=tokenizer,
        manifest=manifest,
        codec=codec,
        action_vocabulary=ActionVocabulary.from_integer_pieces(tokenizer, range(256)),
        seed=0,
        global_batch_size=8,
        example_input=features,
    )


def training_examples(description, root):
    """All examples of the training split, stacked."""
    examples = []
    for number, cache in enumerate(open_caches(description.manifest, root)):
        info = cache.info.task
        tokens = description.action_tokens(info) if info.robot else None
        state = description.state_text(info)
        task = TaskExamples(number, cache, description.model_inputs, tokens, state)
        examples += [task.example(i) for i in range(len(task))]
    return {name: np.stack([each[name] for each in examples]) for name in examples[0]}


def make_state(description, root, seed=0):
    """A new train state, drawn by numpy: to compile a program for it would take longer."""
    batch = training_examples(description, root)
    model = description.make_model(Adafactor())
    partitioner = Partitioner(make_mesh(MeshShape(), jax.devices()[:1]))
    initializer = train_state_initializer(
        model,
        partitioner,
        {name: value.shape for name, value in batch.items()},
        {name: value.dtype for name, value in batch.items()},
    )
    draw = np.random.default_rng(seed)

    def fill(path, leaf):
        names = [entry.key for entry in path]
        if names[-1] in ("scale", "bias") or any(name.startswith("film") for name in names):
            value = np.full(leaf.shape, float(names[-1] == "scale"))
        else:
            width = leaf.shape[-1 if names[-1] == "embedding" else 0]
            value = draw.normal(scale=width**-0.5, size=leaf.shape)
        return jax.device_put(value.astype(leaf.dtype), leaf.sharding)

    state = jax.tree.map(
        lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding),
        initializer.abstract,
    )
    params = jax.tree_util.tree_map_with_path(fill, initializer.abstract.params)
    return state.replace(params=params), batch


def overfit(description, params, batch, steps=80):
    """Weights that know these examples by heart, from a program that is compiled once."""
    model = description.make_model(loss_normalizing_factor="NUM_REAL_TARGET_TOKENS")
    optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0, 1e-2, 20, steps))
    batch = {name: jax.numpy.asarray(value) for name, value in batch.items()}

    def step(carry, _):
        params, state = carry
        loss, gradients = jax.value_and_grad(lambda p: model.loss_fn(p, batch, None)[0])(params)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(params, updates), state), loss

    def train(params):
        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)

    # Rows with their prompts have so many logits that a fast program is worth its compilation.
    whole_rows = description.inputs.placeholders_per_image > 0
    (params, _), losses = jax.jit(train, compiler_options=FAST if whole_rows else None)(params)
    return params, float(losses[-1])


def write_checkpoint(directory, description, state):
    """Returns the checkpoint's path."""
    with Checkpoints(pathlib.Path(directory)) as checkpoints:
        checkpoints.save(state, {}, description.to_json())
        checkpoints.wait()
    return pathlib.Path(directory) / f"checkpoint_{int(state.step)}"
