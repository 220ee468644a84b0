"""Requests that are almost right: made from right ones by damage to bytes, values and structure.

A wire is added by one line in `SAMPLES`.
"""

import base64
import collections
import contextlib
import dataclasses
import http.client
import json
import pathlib
import random
import socket as socket_library
from collections.abc import Callable

import msgpack
import numpy as np
from websockets.sync.client import connect

from rt2_jax.client.frames import pack

ROOT = pathlib.Path(__file__).parents[2]
_PICTURE = np.full((4, 6, 3), 50, np.uint8)
_REQUEST = {
    "images": {"front": _PICTURE, "wrist": _PICTURE},
    "prompt": "go",
    "session": "fuzz",
    "seq": 7,
    "step": 3,
    "state": np.zeros(4, np.float32),
    "budget_ms": 5000.0,
    "age_ms": 1,
}
_OPENPI = {"observation/image": _PICTURE, "observation/wrist_image": _PICTURE, "prompt": "go"}
_JSON_PICTURE = {
    "__numpy__": "MjIy" * 24,  # 72 bytes of 50
    "dtype": "|u1",
    "shape": [4, 6, 3],
}
_ACT = {"full_image": _JSON_PICTURE, "wrist_image": _JSON_PICTURE, "instruction": "go"}
_VLA_PICTURE = {
    "__ndarray__": True,
    "data": bytes(_PICTURE),
    "dtype": "|u1",
    "shape": [4, 6, 3],
}
_VLA_EVAL = {
    "type": "observation",
    "payload": {
        "images": {"agentview": _VLA_PICTURE, "wrist": _VLA_PICTURE},
        "task_description": "go",
        "states": [0.0] * 4,
    },
    "seq": 7,
    "timestamp": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """A request that is in order.

    Attributes:
      wire: whose; openpi's and vla-eval's are websockets.
      path: where it goes.
      body: of it: a frame, or a POST's body.
      load, dump: between the body and a tree of plain values.
    """

    wire: str
    path: str
    body: bytes
    load: Callable
    dump: Callable

    @property
    def is_websocket(self):
        return self.wire in (OPENPI, VLA_EVAL)


def _msgpack_load(body):
    return msgpack.unpackb(body, strict_map_key=False)


def _json_dump(tree):
    return json.dumps(tree, default=repr).encode()


_FRONT = {"front", "image", "full_image", "exterior_image_1_left", "top_cam", "cam_high"}
_WRIST = ("wrist", "gripper", "hand")


def toys_actions(wire, body):
    """What the toy policy may do at a body, computed without the server's code.

    Several where there are several pictures that may be the front one; none if it is no request
    that may be answered with actions. On vla-eval's wire every camera that is not the wrist's may
    be the front one; elsewhere any name with `wrist` in it is the wrist's.
    """
    try:
        words, pictures = _READ[wire](body)
        words = words.decode() if isinstance(words, bytes) else words
        if not (isinstance(words, str) and words.strip()):
            return []
        means = [(str(name).lower(), _mean(*parts)) for name, parts in pictures]
    except Exception:
        return []
    seen = [(name, mean) for name, mean in means if mean is not None]
    at_hand = [
        any(word in name for word in _WRIST[: 3 if wire == VLA_EVAL else 1]) for name, _ in seen
    ]
    if not any(at_hand):
        return []
    return [
        mean / 10_000
        for (name, mean), is_wrist in zip(seen, at_hand, strict=True)
        if not is_wrist and (wire == VLA_EVAL or name.removeprefix("observation/") in _FRONT)
    ]


def _read_openpi(body):
    tree = msgpack.unpackb(body, strict_map_key=False)
    named = [*(tree.get("images") or {}).items(), *tree.items()]
    pictures = [
        (name, (each[b"data"], each[b"dtype"], each[b"shape"]))
        for name, each in named
        if isinstance(each, dict) and b"__ndarray__" in each
    ]
    return tree.get("prompt", tree.get("instruction")), pictures


def _read_act(body):
    tree = json.loads(body)
    tree = json.loads(tree["encoded"]) if "encoded" in tree else tree
    pictures = [
        (name, (base64.b64decode(each["__numpy__"]), each["dtype"], each["shape"]))
        for name, each in tree.items()
        if isinstance(each, dict) and "__numpy__" in each
    ]
    return tree.get("instruction", tree.get("prompt")), pictures


def _read_vla_eval(body):
    payload = msgpack.unpackb(body)["payload"]
    named = [*(payload.get("images") or {}).items(), *payload.items()]
    pictures = [
        (name, (each["data"], each["dtype"], each["shape"]))
        for name, each in named
        if isinstance(each, dict) and "data" in each
    ]
    return payload.get("task_description", payload.get("prompt")), pictures


OPENPI, VLA_EVAL, ACT, GENERATE = "openpi", "vla-eval", "act", "generate"
_READ = {OPENPI: _read_openpi, VLA_EVAL: _read_vla_eval, ACT: _read_act}


def _mean(data, dtype, shape):
    """Of a picture of bytes, or of floats from 0 to 1, channels first or last; or None."""
    try:
        array = np.frombuffer(data, np.dtype(dtype)).reshape(shape)
        if len(shape) != 3 or 3 not in (shape[0], shape[2]):
            return None
        if array.dtype.kind == "f":
            return float(np.rint(255 * array).mean()) if (array >= 0).all() else None
        return float(array.mean()) if array.dtype == np.uint8 else None
    except Exception:
        return None


SAMPLES = [
    Sample(OPENPI, "/", pack(_REQUEST), _msgpack_load, msgpack.packb),
    Sample(OPENPI, "/any", pack(_OPENPI), _msgpack_load, msgpack.packb),
    Sample(OPENPI, "/", pack({"reset": "fuzz"}), _msgpack_load, msgpack.packb),
    Sample(VLA_EVAL, "/vla-eval", msgpack.packb(_VLA_EVAL), _msgpack_load, msgpack.packb),
    Sample(ACT, "/act", _json_dump(_ACT), json.loads, _json_dump),
    Sample(ACT, "/act", _json_dump({"encoded": json.dumps(_ACT)}), json.loads, _json_dump),
    Sample(GENERATE, "/v1/generate", _json_dump({"prompt": "what?"}), json.loads, _json_dump),
]

_EPISODE = msgpack.packb({"type": "episode_start", "payload": {}, "seq": 0, "timestamp": 0.0})

_HOSTILE = [
    None, True, 0, -1, 2**31, 2**63, -(2**63), 1e308, float("nan"), float("inf"), "", " ",
    "x" * 9000,
    b"", b"\xff\xfe", b"x" * 9000, [], {}, [[[[[]]]]], {"": {}}, [0] * 5000, "../../etc/passwd",
    {b"__ndarray__": True}, {"__numpy__": "", "dtype": "O", "shape": []},
    {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [0]},
    {b"__ndarray__": True, b"data": b"", b"dtype": "<U999999999", b"shape": [0, 2**62]},
    {b"__ndarray__": True, b"data": b"\0" * 12, b"dtype": "<f4", b"shape": [3]},
    {b"__ndarray__": True, b"data": b"", b"dtype": "|u1", b"shape": ["x" * 1000, 10**9]},
    {b"__npgeneric__": True, b"data": [1, [2]], b"dtype": "<i8"},
    {b"__npgeneric__": True, b"data": 1, b"dtype": {"names": []}},
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\10\2\0\0\0", b"\xff\xd8\xff\xe0" + b"\0" * 40,
]  # fmt: skip


def mutate(sample: Sample, rng: random.Random) -> bytes:
    """A damaged body of a sample; now and then it is still in order."""
    body = sample.body
    if rng.random() < 0.5 and body:
        try:
            tree = sample.load(body)
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                tree = _change(tree, rng)
            body = sample.dump(tree)
        except (
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ):  # what cannot even be written
            body = sample.body
    if body is sample.body or rng.random() < 0.1:
        for _ in range(rng.choice((1, 1, 2, 8))):
            body = _damage(body, rng)
    return body


def _damage(body: bytes, rng: random.Random) -> bytes:
    at, kind = rng.randrange(len(body) + 1), rng.randrange(6)
    if kind == 0:
        return body[:at]
    if kind == 1:
        return body[:at] + rng.randbytes(rng.randrange(1, 9)) + body[at:]
    if kind == 2:
        return body[:at] + body[at + rng.randrange(1, 9) :]
    if kind == 4 and rng.random() < 0.1:
        return body[:at] + rng.choice((b"[", b'{"":', b"\x91")) * 5000 + body[at:]
    if kind == 3:
        end = min(len(body), at + rng.randrange(1, 40))
        return body[:end] + body[at:end] * rng.randrange(1, 4) + body[end:]
    if not body:
        return body
    at = min(at, len(body) - 1)
    return body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :]


def _change(tree, rng):
    """A copy of a tree with one place of it changed."""
    places = list(_places(tree))
    if not places or rng.random() < 0.02:
        return rng.choice(_HOSTILE)
    parents = rng.choice(places)
    return _with_change(tree, parents, rng)


def _places(tree, above=()):
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in inside:
        yield (*above, key)
        if isinstance(value, (dict, list)) and len(above) < 6:
            yield from _places(value, (*above, key))


def _with_change(tree, path, rng):
    key, *rest = path
    tree = dict(tree) if isinstance(tree, dict) else list(tree)
    if rest:
        tree[key] = _with_change(tree[key], rest, rng)
        return tree
    kind = rng.randrange(5)
    if kind == 0:
        del tree[key]
    elif kind == 1 and isinstance(tree, dict):
        value = tree.pop(key)
        tree[rng.choice([1, None, b"x", "", "x" * 300, str(key) + "_", "observation/front"])] = (
            value
        )
    elif kind == 2:
        depth = rng.choice((1, 3, 40, 900))
        for _ in range(depth):
            tree[key] = [tree[key]]
    else:
        tree[key] = rng.choice(_HOSTILE)
    return tree


class Attack:
    """Damaged requests to a server, one after the other, and what came back.

    Args:
      url: `ws://...`
      seed: of the damage.

    Attributes:
      counts: of what came back.
      faults: answers that must not be, each with the body as hexadecimal digits.
    """

    def __init__(self, url, seed):
        host, port = url.split("//")[1].split(":")
        self._url, self._address = url, (host, int(port))
        self._rng = random.Random(seed)
        self._sockets = {}
        self._opened = contextlib.ExitStack()
        self._http = None
        self.counts = collections.Counter()
        self.faults = []
        self._samples = [each for each in SAMPLES if each.is_websocket or self._has(each)]

    def _has(self, sample):
        """Whether the server has this route."""
        connection = http.client.HTTPConnection(*self._address, timeout=10)
        connection.request("POST", sample.path, sample.body)
        return connection.getresponse().status not in (404, 405)

    def send(self, count):
        """Sends so many."""
        for _ in range(count):
            sample = self._rng.choice(self._samples)
            body = mutate(sample, self._rng)
            if self._rng.random() < 0.05:
                self._send_raw(self._rng.choice(SAMPLES), body)
            elif sample.is_websocket:
                self._send_frame(sample, body)
            else:
                self._post(sample, body)

    def close(self):
        self._opened.close()

    def _send_frame(self, sample, body):
        if sample.path not in self._sockets:
            opened = connect(self._url + sample.path, compression=None, max_size=None)
            socket = self._opened.enter_context(opened)
            if sample.wire == OPENPI:  # its server speaks first
                socket.recv(timeout=10)
            self._sockets[sample.path] = socket
        socket = self._sockets[sample.path]
        try:
            if sample.wire == VLA_EVAL:  # else no number after a damaged, large one is in order
                socket.send(_EPISODE)
            socket.send(body)
            answer = socket.recv(timeout=10)
        except Exception as error:
            self.faults.append((f"{sample.path}: no answer ({error!r})", body.hex()))
            del self._sockets[sample.path]
            return
        if isinstance(answer, str):
            self.counts[answer.split()[0].strip(":")] += 1
            if len(answer) > 2000 or "Traceback" in answer or str(ROOT) in answer:
                self.faults.append((answer, body.hex()))
            return
        answer = msgpack.unpackb(answer)
        if sample.wire == VLA_EVAL:
            self._vla_eval(sample, answer, body)
        elif (actions := answer.get("actions")) is None:
            self.counts["other answers"] += 1
        else:
            self._acted(sample, body, np.frombuffer(actions[b"data"], np.float32)[1])

    def _vla_eval(self, sample, answer, body):
        payload = answer["payload"]
        if answer["type"] == "action":
            found = np.frombuffer(payload["actions"]["data"], np.float32)[0]
            self._acted(sample, body, found)
            return
        self.counts[f"vla-eval {answer['type']}"] += 1
        said = str(payload)
        if len(said) > 2000 or "Traceback" in said or str(ROOT) in said:
            self.faults.append((said, body.hex()))

    def _acted(self, sample, body, found):
        """Compares a motion along x [m] with what the body asked for."""
        self.counts[f"{sample.wire} actions"] += 1
        expected = toys_actions(sample.wire, body)
        if not any(abs(found - each) < 1e-6 for each in expected):
            self.faults.append((f"{sample.path}: {found}, expected {expected}", body.hex()))

    def _post(self, sample, body):
        used, self._http = self._http, None
        try:
            try:
                answer, said = self._posted(used, sample, body)
            except ConnectionError:
                if used is None:
                    raise
                # A server may end a connection between two requests; of a new one it may not.
                answer, said = self._posted(None, sample, body)
        except Exception as error:
            self.faults.append((f"POST {sample.path}: {error!r}", body.hex()))
            return
        self.counts[f"POST {answer.status}"] += 1
        if answer.status >= 500 or b"Traceback" in said or str(ROOT).encode() in said:
            self.faults.append((f"POST {sample.path}: {answer.status} {said!r}", body.hex()))
        elif sample.wire == ACT and answer.status == 200:
            answered = json.loads(said)
            answered = json.loads(answered) if isinstance(answered, str) else answered
            chunk = (
                answered["actions"]
                if isinstance(answered, dict) and "actions" in answered
                else answered
            )
            first = chunk[0] if isinstance(chunk, list) else chunk
            self._acted(sample, body, np.frombuffer(base64.b64decode(first["__numpy__"]))[0])

    def _posted(self, connection, sample, body):
        connection = connection or http.client.HTTPConnection(*self._address, timeout=10)
        connection.request("POST", sample.path, body)
        answer = connection.getresponse()
        said = answer.read()
        self._http = connection
        return answer, said

    def _send_raw(self, sample, body):
        """Damage of what carries the body: headers, or the frame."""
        get = "GET" if sample.is_websocket else "POST"
        head = f"{get} {sample.path} HTTP/1.1\r\nHost: x\r\n"
        if not sample.is_websocket:
            raw = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        else:
            raw = f"{head}{_UPGRADE}".encode()
        frame = b"\x82\xfe" + len(body).to_bytes(2, "big") + b"\0\0\0\0" + body[:60_000]
        damaged = self._rng.choice((True, False))
        raw = _damage(raw[:300], self._rng) + raw[300:] if damaged else raw
        with socket_library.create_connection(self._address, timeout=10) as socket:
            try:
                socket.sendall(raw)
                if sample.is_websocket and not damaged:
                    socket.recv(65536)
                    socket.sendall(_damage(frame[:12], self._rng) + frame[12:])
                socket.shutdown(socket_library.SHUT_WR)
                while socket.recv(65536):
                    pass
            except (ConnectionError, BrokenPipeError):
                pass
            except TimeoutError:
                self.faults.append((f"raw {sample.path}: the connection hangs", raw.hex()))
        self.counts["raw"] += 1


_UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
