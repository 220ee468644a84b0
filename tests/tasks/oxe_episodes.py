"""Synthetic raw episodes in the layouts of Open X-Embodiment's data sets."""

import io
import re
import tomllib
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

LAYOUTS = tomllib.loads(Path(__file__).with_name("oxe_layouts.toml").read_text())
FIELD = re.compile(r"(\S+):(\d*)([fibsc])")
INSTRUCTION = "move the red star to the cup"
# What a gripper's number may be: relative changes, noise around 0, and values between.
GRIPPER = np.array([0.0, 1.0, -1.0, 0.5, 0.97, 0.03, 0.05, 0.0, 1.0, 0.3], np.float32)


def picture(size):
    file = io.BytesIO()
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def raw_steps(name, row, length=8):
    """Path -> array [T, ...] of an episode of a data set; the same numbers at every call."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    last = np.arange(length) == length - 1
    steps = {"is_first": np.arange(length) == 0, "is_last": last, "is_terminal": last}
    for path, width, kind in FIELD.findall(LAYOUTS[name]):
        shape = (length, int(width)) if width else (length,)
        if kind == "s":
            steps[path] = np.array([INSTRUCTION.encode()] * length, object)
        elif kind == "c":
            codes = np.zeros(shape, np.int32)
            codes[:, : len(INSTRUCTION)] = [ord(letter) for letter in INSTRUCTION]
            steps[path] = codes
        elif path.endswith("terminate_episode"):
            one_hot = np.stack([last, ~last, last & ~last], axis=1)
            steps[path] = one_hot.astype(np.int32) if width else last.astype(np.float32)
        elif kind == "f":
            values = random.uniform(-1, 1, shape).astype(np.float32)
            if "gripper" in path:
                values = random.choice(GRIPPER, shape)
            elif path.startswith("action"):
                values[:, -1] = random.choice(GRIPPER, length)
            steps[path] = values
        else:
            steps[path] = random.integers(0, 2, shape).astype(bool if kind == "b" else np.int32)
    columns = " ".join(row["action"])
    if "euler_from_quaternion" in columns:
        quaternion = steps["action"][:, 3:7]
        steps["action"][:, 3:7] = quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)
    if row.get("terminate", "").startswith("action[-1:]"):
        steps["action"][:, -1] = last
    for key in row["views"].values():
        frame = picture(row.get("image_size", (4, 6)))
        steps[f"observation/{key}"] = np.array([frame] * length, object)
    return steps


def nested(steps):
    """The same with an RLDS step's nesting: a field's own name may hold slashes."""
    tree = {}
    for path, values in steps.items():
        head, _, rest = path.partition("/")
        if rest:
            tree.setdefault(head, {})[rest] = values
        else:
            tree[path] = values
    return tree


def write_rlds(directory, episodes, metadata=None):
    """An RLDS data set of raw episodes, with the features that their arrays have.

    Args:
      directory: `<name>/<version>` to be made.
      episodes: of each the steps as `raw_steps` gives them.
      metadata: fields beside the steps of every episode.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    from rt2_jax.data.tfrecord import write_records

    def feature(path, values):
        if values.dtype == object and path.startswith("observation/") and values[0][:1] == b"\x89":
            return tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        if values.dtype == object:
            return tfds.features.Text()
        return tfds.features.Tensor(shape=values.shape[1:], dtype=values.dtype)

    metadata = metadata or {}
    fields = {path: feature(path, values) for path, values in episodes[0].items()}
    features = tfds.features.FeaturesDict(
        {
            "steps": tfds.features.Dataset(nested(fields)),
            **{key: tfds.features.Scalar(dtype=np.bool_) for key in metadata},
        }
    )
    serializer = ExampleSerializer(features.get_serialized_info())
    records = []
    for steps in episodes:
        count = len(steps["is_first"])
        rows = [nested({path: values[i] for path, values in steps.items()}) for i in range(count)]
        records.append(
            serializer.serialize_example(features.encode_example({"steps": rows, **metadata}))
        )
    directory.mkdir(parents=True)
    name = directory.parent.name
    write_records(directory / f"{name}-train.tfrecord-00000-of-00001", records)
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        split_infos=[
            tfds.core.SplitInfo(
                name="train",
                shard_lengths=[len(records)],
                num_bytes=sum(map(len, records)),
                filename_template=None,
            )
        ],
        version=directory.name,
        check_data=False,
    )
