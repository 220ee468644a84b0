"""Robots that ask a server at a rate: some of those of `rt2 bench serve`, in one process.

A tick is due at its time whether or not the answer before it has come. A robot has one request in
flight, as robots on this wire do, so a tick that comes due meanwhile is asked as soon as it can be,
and its latency counts from when it was due: a server that is slow for a while is slow at every tick
that it held up, not at one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import re
import selectors
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from PIL import Image

from rt2_jax.client.frames import pack, unpack

WARM_UP = 3
"""Requests of each robot before the first tick."""

_AGAIN_S = 1.0  # between two tries to connect
_GRACE_S = 5.0  # for answers after the last tick


@dataclass(frozen=True)
class Robots:
    """How robots ask.

    Attributes:
      url: of the server.
      token: that it asks for, or None.
      rate_hz: of each robot; None: the next request as soon as the last is answered.
      seconds: of ticks.
      picture: (height, width) of every view; None: the policy's `camera_size`.
      jpeg: sends pictures as JPEG of quality 90 instead of their pixels.
      budget_ms: that requests carry, or None.
      instruction: of every request.
      together: ticks of all robots at the same moments, instead of evenly spread.
    """

    url: str
    token: str | None = None
    rate_hz: float | None = 3.0
    seconds: float = 10.0
    picture: tuple[int, int] | None = (224, 224)
    jpeg: bool = False
    budget_ms: float | None = None
    instruction: str = "pick up the red cube"
    together: bool = False


@dataclass
class Ticks:
    """What became of the ticks of some robots.

    Attributes:
      due, free, sent, back: float64 [N], seconds of a clock that all processes share: when a tick
        was due, when the answer before it had come too, when it was asked and when it was answered;
        nan for what did not happen.
      queue_ms, infer_ms, batch_size: float64 [N], as the server says; nan without an action.
      acted: bool [N], an action came.
      reasons: of those without one, how often.
      bytes_sent: of all requests.
      cpu_s: of the process, during the ticks.
    """

    due: np.ndarray
    free: np.ndarray
    sent: np.ndarray
    back: np.ndarray
    queue_ms: np.ndarray
    infer_ms: np.ndarray
    batch_size: np.ndarray
    acted: np.ndarray
    reasons: Counter[str]
    bytes_sent: int
    cpu_s: float

    @classmethod
    def joined(cls, parts: list[Ticks]) -> Ticks:
        """Those of all processes."""
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            each = [getattr(part, field.name) for part in parts]
            arrays = isinstance(each[0], np.ndarray)
            values[field.name] = np.concatenate(each) if arrays else sum(each, type(each[0])())
        return cls(**values)


def drive(robots: Robots, numbers: list[int], of: int, pipe: Connection) -> None:
    """Drives robots in this process: sends "ready", receives the time to begin, sends `Ticks`.

    An exception is sent instead of either.

    Args:
      robots: how they ask.
      numbers: which of all robots these are.
      of: how many there are in all.
      pipe: to who started this process.
    """
    try:
        # The usual selector counts whole milliseconds, which would be added to every latency.
        with asyncio.Runner(loop_factory=_precise_loop) as runner:
            pipe.send(runner.run(_drive(robots, numbers, of, pipe)))
    except Exception as error:
        pipe.send(error if isinstance(error, (OSError, ValueError)) else RuntimeError(repr(error)))


def _precise_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _drive(robots: Robots, numbers: list[int], of: int, pipe: Connection) -> Ticks:
    all_robots = [_Robot(robots, number) for number in numbers]
    for robot in all_robots:
        await robot.connect()
        await robot.warm_up()
    pipe.send("ready")
    begin = await asyncio.to_thread(pipe.recv)
    cpu = time.process_time()
    period = 0.0 if robots.rate_hz is None else 1 / robots.rate_hz
    await asyncio.gather(
        *(
            robot.run(begin + (0.0 if robots.together else period * robot.number / of))
            for robot in all_robots
        )
    )
    cpu = time.process_time() - cpu
    reasons: Counter[str] = sum((robot.reasons for robot in all_robots), Counter())
    rows = np.array([row for robot in all_robots for row in robot.rows]).reshape(-1, 8)
    due, free, sent, back, queue, infer, size, acted = rows.T
    count = sum(robot.bytes_sent for robot in all_robots)
    acted = acted.astype(bool)
    return Ticks(due, free, sent, back, queue, infer, size, acted, reasons, count, cpu)


class _Robot:
    """One connection; `rows` are the columns of `Ticks`, from `due` to `acted`."""

    def __init__(self, robots: Robots, number: int) -> None:
        self.number = number
        self.rows: list[tuple[float, ...]] = []
        self.reasons: Counter[str] = Counter()
        self.bytes_sent = 0
        self._robots = robots
        self._socket: Any = None

    async def connect(self) -> None:
        """Raises ConnectionError with the address, ValueError where no policy server is."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        robots = self._robots
        try:
            self._socket = await connect(
                robots.url,
                compression=None,
                max_size=None,
                additional_headers=(
                    {"Authorization": f"Bearer {robots.token}"} if robots.token else {}
                ),
            )
            metadata = unpack(await self._socket.recv())
        except (OSError, WebSocketException) as error:
            raise ConnectionError(f"{robots.url}: no server answers ({error})") from error
        if not isinstance(metadata, dict) or "action_space" not in metadata:
            raise ValueError(f"{robots.url}: no server of this project: it names no action space")
        size = robots.picture or tuple(metadata.get("camera_size") or (224, 224))
        pixels = make_picture(size, self.number)
        view = _as_jpeg(pixels) if robots.jpeg else pixels
        self._request: dict[str, Any] = {
            "images": {name: view for name in metadata["views"]},
            "prompt": robots.instruction,
            "session": f"bench robot {self.number}",
        }
        if robots.budget_ms is not None:
            self._request["budget_ms"] = robots.budget_ms
        if fields := metadata.get("state_fields"):
            self._request["state"] = np.zeros(len(fields), np.float32)

    async def warm_up(self) -> None:
        """Raises ValueError with what the server says against such requests."""
        for seq in range(WARM_UP):
            request = {**self._request, "seq": seq}
            request.pop("budget_ms", None)
            await self._socket.send(pack(request))
            answer = await self._socket.recv()
            if isinstance(answer, str):
                raise ValueError(f"{self._robots.url}: {answer}")

    async def run(self, begin: float) -> None:
        robots = self._robots
        end = begin + robots.seconds
        last = end + _GRACE_S
        number = 0
        while True:
            now = time.monotonic()
            due = max(begin, now)
            if robots.rate_hz is not None:
                due = begin + number / robots.rate_hz
            if due >= end:
                break
            if now > last:
                self._lost(due, "never asked: answers before it took too long")
            else:
                if (wait := due - now) > 0:
                    await asyncio.sleep(wait)
                    now = due
                await self._tick(number, due, now, last)
            number += 1
        if self._socket is not None:
            await self._socket.close()

    async def _tick(self, number: int, due: float, free: float, last: float) -> None:
        from websockets.exceptions import ConnectionClosed

        request = {**self._request, "seq": WARM_UP + number, "step": WARM_UP + number}
        sent = time.monotonic()
        if "budget_ms" in request:
            request["age_ms"] = 1000 * max(sent - due, 0)
        try:
            if self._socket is None:
                await self.connect()
            frame = pack(request)
            self.bytes_sent += len(frame)
            await self._socket.send(frame)
            async with asyncio.timeout(max(last - sent, 0.1)):
                answer = await self._socket.recv()
        except (ConnectionClosed, ConnectionError) as error:
            self._socket = None
            self._lost(due, f"connection lost: {type(error).__name__}")
            await asyncio.sleep(_AGAIN_S)
            return
        except TimeoutError:
            await self._socket.close()
            self._socket = None
            self._lost(due, "no answer until the end")
            return
        if isinstance(answer, str):
            self._lost(due, _reason(answer), free, sent, time.monotonic())
            return
        timing = unpack(answer)["server_timing"]
        back = time.monotonic()
        said = (timing["queue_ms"], timing["infer_ms"], timing["batch_size"])
        self.rows.append((due, free, sent, back, *said, 1.0))

    def _lost(self, due: float, reason: str, *times: float) -> None:
        self.reasons[reason] += 1
        self.rows.append((due, *(times or (np.nan,) * 3), *(np.nan,) * 3, 0.0))


def make_picture(size: tuple[int, int], seed: int) -> np.ndarray:
    """Uint8 [H, W, 3] that JPEG makes about as small as a photo: smooth shapes, a little noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.int16)
    return np.clip(smooth + random.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)


def _as_jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=90)
    return file.getvalue()


def _reason(text: str) -> str:
    """An error's text without its numbers, so that equal reasons are counted together."""
    return re.sub(r"\d+(\.\d+)?", "N", text)[:160]
