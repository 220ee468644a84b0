"""Thirty-two robots at 3 Hz and a model of 20 ms a batch; what batches are worth."""

import asyncio
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest
from websockets.asyncio.client import connect

from rt2_jax.client.frames import pack

from .test_server import page, request

pytestmark = pytest.mark.slow

PROGRAM = """
import runpy, sys
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.server import serve

policy = runpy.run_path(sys.argv[1])["Toy"](seconds=0.02)
policy.batches = type("Nothing", (), {"append": lambda self, batch: None})()
policy.asked = policy.forgotten = policy.batches
options = ServerOptions(largest_batch=int(sys.argv[2]))
serve(policy, port=0, options=options, ready=lambda url: print(url, flush=True))
"""


@pytest.fixture
def start():
    """Starts a server process of a largest batch; gives (process, URL)."""
    started = []

    def start(largest_batch):
        toy = pathlib.Path(__file__).with_name("conftest.py")
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(toy), str(largest_batch)],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=20)


def resident_mib(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


async def drive(url, robots, rate_hz, seconds):
    """Robots at a fixed rate, each in a phase of its own; (answered, late, refused)."""
    counts = {"answered": 0, "DEADLINE": 0, "refused": 0}

    async def robot(number):
        async with connect(url, compression=None) as socket:
            await socket.recv()
            tick = time.perf_counter() + number / robots / rate_hz
            end, seq = tick + seconds, 0
            while tick < end:
                await asyncio.sleep(max(0.0, tick - time.perf_counter()))
                frame = request(seq=seq, session=str(number), budget_ms=1000 / rate_hz)
                await socket.send(pack(frame))
                answer = await socket.recv()
                if isinstance(answer, bytes):
                    late = time.perf_counter() > tick + 1 / rate_hz
                    counts["DEADLINE" if late else "answered"] += 1
                else:
                    counts["DEADLINE" if answer.startswith("DEADLINE") else "refused"] += 1
                seq, tick = seq + 1, tick + 1 / rate_hz

    await asyncio.gather(*(robot(number) for number in range(robots)))
    return counts


async def saturate(url, robots, seconds):
    """Answers a second to robots that ask again at once."""
    count = 0

    async def robot(number):
        nonlocal count
        async with connect(url, compression=None) as socket:
            await socket.recv()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                await socket.send(pack(request(session=str(number))))
                assert isinstance(await socket.recv(), bytes)
                count += 1

    await asyncio.gather(*(robot(number) for number in range(robots)))
    return count / seconds


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
def test_32_robots_at_3_hz_miss_at_most_one_deadline_in_a_thousand(start, full_check):
    process, url = start(32)
    asyncio.run(drive(url, 32, 3.0, 3.0))
    before = resident_mib(process)
    seconds = 300.0 if full_check else 20.0
    counts = asyncio.run(drive(url, 32, 3.0, seconds))
    total = sum(counts.values())
    print(counts, f"{before:.0f} MiB, then {resident_mib(process):.0f}")
    assert total >= 32 * 3 * seconds * 0.99 and counts["refused"] == 0
    assert counts["DEADLINE"] <= 0.001 * total, counts
    assert resident_mib(process) - before < 8


def test_batches_of_8_answer_5_times_as_many_as_batches_of_1(start):
    rates = {}
    for largest in (1, 8):
        process, url = start(largest)
        rates[largest] = asyncio.run(saturate(url, 16, 2.0))
    print(rates)
    assert rates[8] >= 5 * rates[1], rates


def test_the_metrics_of_a_driven_server_add_up(start):
    _, url = start(8)
    counts = asyncio.run(drive(url, 8, 10.0, 1.0))
    text = page(url, "/metrics")[1]
    assert f'rt2_requests_total{{outcome="answered"}} {float(counts["answered"])}' in text
    assert "rt2_requests_waiting 0.0" in text and "rt2_requests_in_flight 0.0" in text
    assert f"rt2_queue_seconds_count {float(counts['answered'])}" in text
