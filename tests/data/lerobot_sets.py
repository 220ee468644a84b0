"""LeRobot data sets for tests: a small one of version 2.1, and version 3.0 made of any such.

The layouts are those of huggingface/lerobot: `datasets/utils.py` of release 0.3 for version 2.1,
`datasets/v30/convert_dataset_v21_to_v30.py` for what becomes of it in version 3.0: rows of many
episodes in one parquet file, the packets of their videos behind one another in one file,
`from_timestamp` as the sum of the durations before, `tasks.parquet` with the instruction as pandas'
index.
"""

import io
import json
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FPS = 10
JOINTS = [f"{side}_joint_{i}" for side in ("left", "right") for i in range(6)]
NAMES = [*JOINTS[:6], "left_gripper", *JOINTS[6:], "right_gripper"]  # 14 of a pair of arms
CAMERAS = ("observation.images.high", "observation.images.wrist")
TEXTS = ("fold the shirt", "open the drawer")
SIZE = (32, 48)


def frame(episode, camera, number, size=SIZE):
    """A picture that no other frame has."""
    random = np.random.default_rng([episode, camera, number])
    blocks = random.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)


def numbers(episode, length):
    """Actions and states, float32 [length, 14] each."""
    random = np.random.default_rng(episode)
    return random.uniform(-1, 1, (2, length, len(NAMES))).astype(np.float32)


def write_v2(folder, lengths=(5, 7, 4), *, stored=False, names=NAMES, change=lambda rows, e: rows):
    """A data set of version 2.1: 14 numbers, two cameras, two instructions.

    Args:
      stored: whether pictures stand in the parquet files instead of videos.
      names: of the numbers in info.json.
      change: of the rows of an episode, before they are written.
    """
    (folder / "meta").mkdir(parents=True)
    vector = {"dtype": "float32", "shape": [len(NAMES)], "names": names}
    camera = {
        "dtype": "image" if stored else "video",
        "shape": [*SIZE, 3],
        "names": ["height", "width", "channel"],
    }
    scalars = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64"}
    scalars |= {"index": "int64", "task_index": "int64"}
    info = {
        "codebase_version": "v2.1",
        "fps": FPS,
        "chunks_size": 2,  # so that there are two folders of three episodes
        "total_episodes": len(lengths),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": {
            "action": vector,
            "observation.state": vector,
            **{key: camera for key in CAMERAS},
            **{key: {"dtype": kind, "shape": [1], "names": None} for key, kind in scalars.items()},
        },
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    tasks = [{"task_index": i, "task": text} for i, text in enumerate(TEXTS)]
    _write_lines(folder / "meta/tasks.jsonl", tasks)
    _write_lines(
        folder / "meta/episodes.jsonl",
        [
            {"episode_index": e, "tasks": [TEXTS[e % 2]], "length": length}
            for e, length in enumerate(lengths)
        ],
    )
    for e, length in enumerate(lengths):
        action, state = numbers(e, length)
        rows = {
            "action": action.tolist(),
            "observation.state": state.tolist(),
            "timestamp": (np.arange(length, dtype=np.float32) / np.float32(FPS)).tolist(),
            "frame_index": list(range(length)),
            "episode_index": [e] * length,
            "index": list(range(sum(lengths[:e]), sum(lengths[: e + 1]))),
            "task_index": [e % 2] * length,
        }
        for c, key in enumerate(CAMERAS):
            frames = [frame(e, c, i) for i in range(length)]
            if stored:
                rows[key] = [{"bytes": png(each), "path": None} for each in frames]
            else:
                path = folder / info["video_path"].format(
                    episode_chunk=e // 2, video_key=key, episode_index=e
                )
                write_video(path, frames)
        path = folder / info["data_path"].format(episode_chunk=e // 2, episode_index=e)
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = pa.schema(
            [(key, pa.list_(pa.float32())) for key in ("action", "observation.state")]
            + [(key, pa.type_for_alias(kind)) for key, kind in scalars.items()]
            + [
                (key, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
                for key in CAMERAS
                if stored
            ]
        )
        pq.write_table(pa.table(change(rows, e), schema=schema), path)
    return folder


def write_v3(folder, source, episodes, *, to_a_file=2, row_group=None, late=0.0, index="task"):
    """Version 3.0 of these episodes of a data set of version 2.1.

    Args:
      to_a_file: how many episodes a file holds.
      row_group: rows to a row group of the parquet files.
      late: seconds that `from_timestamp` is off.
      index: the name of the instructions' column: pandas' index, named or not.
    """
    info = json.loads((source / "meta/info.json").read_text())
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    texts = [json.loads(line) for line in (source / "meta/tasks.jsonl").read_text().splitlines()]
    lines = (source / "meta/episodes.jsonl").read_text().splitlines()
    known = {row["episode_index"]: row for row in map(json.loads, lines)}
    data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    table = []
    for file in range(-(-len(episodes) // to_a_file)):
        block = episodes[file * to_a_file : (file + 1) * to_a_file]
        places = [{"episode_index": e, "episode_chunk": e // info["chunks_size"]} for e in block]
        rows = pa.concat_tables(
            pq.read_table(source / info["data_path"].format(**place)) for place in places
        )
        where = {"chunk_index": 0, "file_index": file}
        path = folder / data.format(**where)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, path, row_group_size=row_group)
        found = [
            {"episode_index": e, "length": known[e]["length"], "tasks": known[e]["tasks"]}
            | {f"data/{name}": value for name, value in where.items()}
            for e in block
        ]
        for key in videos:
            paths = [source / info["video_path"].format(video_key=key, **p) for p in places]
            starts = _join(paths, folder / video.format(video_key=key, **where))
            for row, start in zip(found, starts, strict=True):
                row |= {f"videos/{key}/{name}": value for name, value in where.items()}
                row[f"videos/{key}/from_timestamp"] = start + late
        table += found
    meta = folder / "meta/episodes/chunk-000"
    meta.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(table), meta / "file-000.parquet")
    tasks = {
        "task_index": [row["task_index"] for row in texts],
        index: [row["task"] for row in texts],
    }
    pq.write_table(pa.table(tasks), folder / "meta/tasks.parquet")
    info |= {"codebase_version": "v3.0", "data_path": data, "video_path": video}
    (folder / "meta/info.json").write_text(json.dumps(info))
    return folder


def write_video(path, frames, fps=FPS, **options):
    """H.264 without loss, in RGB, so that frames come back as they were; `options` of x264."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"qp": "0", "preset": "ultrafast", **options}
    with av.open(str(path), "w") as container:
        stream = None
        for image in frames:
            if stream is None:
                stream = container.add_stream("libx264rgb", rate=fps, options=options)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _join(paths, out):
    """Puts the packets of videos behind one another; the second at which each begins."""
    out.parent.mkdir(parents=True, exist_ok=True)
    starts, end = [], Fraction(0)
    with av.open(str(out), "w") as container:
        joined = None
        for path in paths:
            starts.append(float(end))
            with av.open(str(path)) as source:
                stream = source.streams.video[0]
                if joined is None:
                    joined = _stream_of_packets(container, stream)
                shift = int(end / stream.time_base)
                for packet in source.demux(stream):
                    if packet.dts is not None:
                        packet.pts += shift
                        packet.dts += shift
                        packet.stream = joined
                        container.mux(packet)
                end += stream.duration * stream.time_base
    return starts


def _stream_of_packets(container, source):
    if source.codec.name == "libdav1d":  # a decoder only; a frame of AV1 describes itself
        return container.add_mux_stream(
            "av1",
            rate=source.average_rate,
            width=source.width,
            height=source.height,
            time_base=source.time_base,
        )
    return container.add_stream_from_template(source)


def _write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
