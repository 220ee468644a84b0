"""Frames are those of their time, wherever in a video an episode begins and however it is coded."""

import av
import numpy as np
import pytest

from rt2_jax.data.lerobot_video import read_frames

from .lerobot_sets import FPS, frame, write_video

COUNT = 70
CODINGS = {  # of x264, which makes no B frames without loss (`qp` of 0)
    "no_b_frames": "keyint=250:bframes=0",
    "b_frames": "keyint=250:bframes=8:b-adapt=0",
    "many_key_frames": "keyint=5:bframes=2:b-adapt=0",
    "open_groups": "keyint=12:bframes=4:b-adapt=0:open-gop=1",
}


def write(path, coding):
    still = frame(0, 0, 0)
    frames = [np.roll(still, i, axis=1) for i in range(COUNT)]
    options = {"qp": "1", "x264-params": f"scenecut=0:threads=1:{CODINGS[coding]}"}
    write_video(path, frames, **options)
    return frames


@pytest.fixture(scope="module", params=CODINGS)
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "frames.mp4"
    return path, write(path, request.param)


def read(path, first, count):
    where = "episode_000003, camera 'front'"
    return read_frames(path, start=first / FPS, fps=FPS, count=count, where=where)


@pytest.mark.parametrize("first", [0, 1, 16, 17, 18, 29, 36, 50, COUNT - 2])
def test_an_episode_begins_anywhere_in_a_video(video, first):
    path, frames = video
    expected = frames[first : first + 15]
    found = np.array(list(read(path, first, len(expected))))
    assert np.abs(found.astype(int) - expected).max() < 20
    assert np.abs(found[1:].astype(int) - expected[:-1]).max((1, 2, 3)).min() > 40  # neighbours


def test_the_codings_are_what_their_names_say(tmp_path):
    def packets(name):
        write(tmp_path / "x.mp4", name)
        with av.open(str(tmp_path / "x.mp4")) as container:
            return [p for p in container.demux(video=0) if p.dts is not None]

    assert any(p.pts != p.dts for p in packets("b_frames"))
    assert all(p.pts == p.dts for p in packets("no_b_frames"))
    assert sum(p.is_keyframe for p in packets("many_key_frames")) == COUNT // 5
    assert sum(p.is_keyframe for p in packets("b_frames")) == 1


def test_a_video_that_ends_before_the_episode_is_refused_at_the_missing_frame(video):
    frames = read(video[0], COUNT - 3, 5)
    assert len([next(frames) for _ in range(3)]) == 3
    with pytest.raises(ValueError, match="episode_000003, camera 'front', frame 3: .*ends before"):
        next(frames)


def test_a_frame_that_is_missing_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "gap.mp4"
    write_video(path, (frame(0, 0, i) for i in range(6)))
    with av.open(str(path)) as source, av.open(str(tmp_path / "out.mp4"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                late = packet.pts * packet.time_base * FPS >= 3
                packet.pts += int(late / packet.time_base / FPS)
                packet.dts = packet.pts
                packet.stream = stream
                out.mux(packet)
    frames = read(tmp_path / "out.mp4", 0, 6)
    assert len([next(frames) for _ in range(3)]) == 3
    with pytest.raises(ValueError, match="frame 3: expected at 0.300000 s .* is at 0.400000 s"):
        next(frames)


def test_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="episode_000003, camera 'front': no file"):
        next(read(tmp_path / "none.mp4", 0, 1))
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        silence.rate = 8000
        container.mux(stream.encode(silence))
    with pytest.raises(ValueError, match="sound.wav holds no video"):
        next(read(sound, 0, 1))
