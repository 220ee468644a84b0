"""Frames of an episode from a video that may hold many: by their time, one after the other."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import av
import numpy as np

# Of a frame's duration. Writers of version 3 add up durations, and the sums drift by fractions of a
# frame (huggingface/lerobot issue 3177); half a frame could be either neighbour.
_TOLERANCE = 0.25
# A key frame is found by its decoding time, which may lie so many frames before its time of display
# (H.264, section A.3.1: 16 reference frames).
_REORDERED = 16


def read_frames(
    path: pathlib.Path, *, start: float, fps: float, count: int, where: str
) -> Iterator[np.ndarray]:
    """The frames of an episode, uint8 [H, W, 3], RGB; one at a time is in memory.

    Frame i is the one at `start + i / fps` seconds.

    Args:
      path: the video.
      start: the second of the episode's first frame.
      fps: frames per second of the data set.
      count: of the episode's frames.
      where: the episode and camera, for messages.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: no video, or it has no frame at one of these times; the message names the frame.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{where}: no file {path}; copy the LeRobot data set again")
    wanted = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{where}: {path} holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            before = start - _REORDERED / fps
            if before > 0 and stream.time_base:
                container.seek(int(before / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time is None:
                    raise ValueError(f"{where}, frame {wanted}: {path} does not say its time")
                place = (frame.time - start) * fps  # in frames
                if round(place) < 0:  # of the episode before
                    continue
                if abs(place - wanted) > _TOLERANCE:
                    raise ValueError(
                        f"{where}, frame {wanted}: expected at {start + wanted / fps:.6f} s in "
                        f"{path}, but the next frame is at {frame.time:.6f} s; the data set and "
                        f"its video disagree ({fps:g} frames per second)"
                    )
                yield frame.to_ndarray(format="rgb24")
                wanted += 1
                if wanted == count:
                    return
    except av.FFmpegError as error:
        raise ValueError(f"{where}, frame {wanted}: {path} cannot be decoded: {error}") from error
    raise ValueError(
        f"{where}, frame {wanted}: {path} ends before it; the episode has {count} frames"
    )
