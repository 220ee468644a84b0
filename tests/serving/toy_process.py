"""A server in a process of its own, so that its memory and its end can be looked at.

As a program: `toy_process.py JSON` serves the toy policy and prints the URL.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]


class ToyProcess:
    """The toy policy behind a real server; `options` as `main` reads them."""

    def __init__(self, **options):
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.said = []
        threading.Thread(target=self._listen, daemon=True).start()
        self.url = self._process.stdout.readline().strip()
        assert self.url, "".join(self.said)

    def _listen(self):
        for line in self._process.stderr:
            self.said.append(line)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait()

    @property
    def address(self):
        host, port = self.url.split("//")[1].split(":")
        return host, int(port)

    @property
    def alive(self):
        return self._process.poll() is None

    def memory(self):
        """Resident, in bytes."""
        text = pathlib.Path(f"/proc/{self._process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self):
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def signal(self, number):
        self._process.send_signal(number)

    def end(self):
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return self._process.wait(30)


class Robot:
    """A well-behaved one, that asks all the time beside a fault and checks every answer."""

    def __init__(self, url, **options):
        from rt2_jax.client import RemotePolicy

        self.answers = 0
        self.wrong = []
        self._policy = RemotePolicy(url, timeout_s=10, **options)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drive)

    def _drive(self):
        from tests.serving.conftest import seen

        i = 0
        while not self._stop.wait(0.005):
            i = (i + 1) % 256
            try:
                found = self._policy.infer(seen(i, session="robot"))["actions"][0, 1]
            except Exception as error:
                self.wrong.append(repr(error))
                return
            if abs(found - np.float32(i / 10_000)) > 1e-7:
                self.wrong.append(f"{found} to a picture of {i}")
            self.answers += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *error):
        self._stop.set()
        self._thread.join(20)
        self._policy.close()
        if kind is None:
            assert not self.wrong and self.answers > 0, self.wrong


def main(options):
    from rt2_jax.serving.keys import Keys
    from rt2_jax.serving.limits import Limits
    from rt2_jax.serving.options import ServerOptions
    from rt2_jax.serving.server import serve
    from tests.serving.conftest import Toy

    policy = Toy(options.get("seconds", 0.0))
    policy.batches = _Nothing()
    policy.forgotten = policy.asked = _Nothing()
    keys = Keys.read(pathlib.Path(options["token_file"])) if "token_file" in options else None
    limits = Limits.of_policy(policy.metadata, **options.get("limits", {}))
    settings = ServerOptions(options.get("largest_batch", 8), keys=keys, limits=limits)
    serve(policy, port=0, options=settings, ready=lambda url: print(url, flush=True))


class _Nothing:
    def append(self, item):
        """Keeps nothing: memory is measured."""


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
