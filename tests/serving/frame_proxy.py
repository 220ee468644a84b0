"""A proxy between client and server, frame by frame: it holds back, reorders, drops, cuts."""

import contextlib
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve


class FrameProxy:
    """Hands frames on; `on_answer(frame)` says which to send now, in which order.

    The metadata, which the server says first, is always handed on.
    """

    def __init__(self, upstream):
        self.upstream = upstream
        self.on_answer = lambda frame: [frame]
        self.asked = []
        self._open = []

    @contextlib.contextmanager
    def running(self):
        """The URL for clients."""
        with serve(self._handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
            finally:
                self.cut()
                server.shutdown()

    def cut(self):
        """Ends every connection as a network does, without a goodbye."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.socket.shutdown(2)
        self._open = []

    def _handle(self, client):
        with connect(self.upstream, compression=None, max_size=None) as server:
            self._open.append(client)
            threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
            with contextlib.suppress(ConnectionClosed):
                client.send(server.recv())
                for frame in server:
                    for each in self.on_answer(frame):
                        client.send(each)

    def _ask(self, client, server):
        with contextlib.suppress(ConnectionClosed):
            for frame in client:
                self.asked.append(frame)
                server.send(frame)
        with contextlib.suppress(ConnectionClosed):
            server.close()
