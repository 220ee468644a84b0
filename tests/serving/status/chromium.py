"""A headless Chromium, driven over its DevTools protocol."""

import base64
import contextlib
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")


class Page:
    """One tab.

    Attributes:
      errors: what went wrong in the page: exceptions, and what its policy of contents refused.
    """

    def __init__(self, socket):
        self._socket = socket
        self._number = 0
        self.errors = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.do(f"{domain}.enable")

    def do(self, method, **arguments):
        """Sends a command of the protocol and gives its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": arguments}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"]))
            entry = message.get("params", {}).get("entry", {})
            if entry.get("level") == "error" and entry.get("source") == "security":
                self.errors.append(entry["text"])
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def look(self, script):
        """The value of a script's expression; promises are waited for."""
        result = self.do(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script, seconds=15):
        """Waits until a script's expression is true."""
        end = time.monotonic() + seconds
        while not self.look(f"!!({script})"):
            shown = self.look("document.body.innerText")
            assert time.monotonic() < end, f"never true: {script}; the page says:\n{shown}"
            time.sleep(0.05)

    def open(self, address, width=1366, height=768, scheme="light"):
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.do(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.do("Page.navigate", url=address)
        self.wait(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def type_in(self, selector, text):
        self.look(f"document.querySelector({json.dumps(selector)}).focus()")
        self.do("Input.insertText", text=text)

    def choose_file(self, selector, path):
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def picture(self, path, whole=False):
        data = self.do("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser_page():
    """A tab of a browser of its own; the test is skipped where there is no Chromium."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [
                found,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}/profile",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = _tab(pathlib.Path(folder, "profile/DevToolsActivePort"))
            with connect(address, max_size=None, proxy=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(20)


def _tab(port_file):
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError, IndexError, StopIteration):
            port = port_file.read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                tabs = json.load(answer)
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            return address
        assert time.monotonic() < end, "Chromium did not start within a minute"
        time.sleep(0.1)
