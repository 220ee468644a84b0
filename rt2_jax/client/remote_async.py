"""A policy behind a URL, for programs on asyncio: several requests may be in flight."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Dict, Optional

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.sampling import Sampling
from rt2_jax.client.conversation import Conversation, Patience, Pending


class AsyncRemotePolicy(Conversation):
    """`RemotePolicy` with `await`; it belongs to one event loop.

    A newer request of a session may be sent while older ones are under way, and the newest wins:
    the server refuses those that it has not begun (`RequestSuperseded`), and an older one whose
    answer comes after a newer one's raises `StaleAnswer`.

    ```
    async with AsyncRemotePolicy("ws://127.0.0.1:8000", budget_ms=180) as policy:
        await policy.reset("episode 1")
        result = await policy.infer(observation)
    ```

    The arguments are those of `Conversation`: `url`, `token`, `timeout_s`, `patience_s`,
    `budget_ms`, `reconnect`, `pictures`, `ca`. `connect`, `async with` or the first `reset`
    connects; they raise what `RemotePolicy` does.
    """

    def _begin(self) -> None:
        self._connection: Any = None
        self._reader: Optional[asyncio.Task] = None
        self._connecting: Optional[asyncio.Lock] = None  # made on the loop, as Python 3.8 needs

    async def __aenter__(self) -> AsyncRemotePolicy:
        await self.connect()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connects, unless it is connected. Raises what `RemotePolicy` raises."""
        await self._connect(new_episode=True)

    async def close(self) -> None:
        """Ends the connection; requests under way raise `ConnectionError`."""
        await self._end(ConnectionError(f"{self.url}: closed"))

    async def reset(self, session: Optional[str] = None) -> None:
        """As `RemotePolicy.reset`."""
        await self._connect(new_episode=True)
        await self._ask(self._reset_of(session))

    async def infer(
        self,
        observation: Observation,
        budget_ms: Optional[float] = None,
        sampling: Optional[Sampling] = None,
    ) -> Dict[str, Any]:
        """As `RemotePolicy.infer`; raises also `StaleAnswer`. Cancelling it drops its answer."""
        pending = self._question(observation, budget_ms, sampling)
        if self._connection is None:
            if self.reconnect != "always":
                raise self._not_connected()
            await self._connect(new_episode=False, end=pending.deadline)
        return await self._ask(pending)

    async def _ask(self, pending: Pending) -> Dict[str, Any]:
        from websockets.exceptions import ConnectionClosed

        settled = asyncio.Event()
        pending.when_settled = settled.set
        end = time.monotonic() + self._timeout_s
        connection = self._connection
        if connection is None:  # lost since
            raise self._not_connected()

        async def send_and_wait() -> None:
            await connection.send(self._frame(pending))
            await settled.wait()

        try:
            wait_s = min(pending.deadline, end) - time.monotonic()
            await asyncio.wait_for(send_and_wait(), max(0.0, wait_s))
        except (asyncio.TimeoutError, TimeoutError):
            if pending.deadline < end:
                self._give_up_late(pending)
            else:
                silent = self._silent()
                pending.settle(error=silent)
                await self._end(self._lost(silent))
        except (ConnectionClosed, OSError) as error:
            pending.settle(error=self._lost(error))
        finally:
            # Cancelled, or the frame could not be made: nobody waits for an answer.
            pending.settle(error=ConnectionError(f"{self.url}: given up"))
        return pending.outcome()

    async def _read(self, connection: Any) -> None:
        """Takes frames until the connection ends."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                self._received(await connection.recv())
        except (ConnectionClosed, OSError) as error:
            if self._connection is connection:
                self._connection = None
                self._lost(error)
        await connection.close()

    async def _end(self, error: Exception) -> None:
        connection, self._connection = self._connection, None
        self._forget(error)
        if connection is not None:
            await connection.close()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _connect(self, new_episode: bool, end: float = float("inf")) -> None:
        self._connecting = self._connecting or asyncio.Lock()
        async with self._connecting:
            patience = Patience(self._patience_s, end)
            while self._connection is None:
                try:
                    await self._try_to_connect(new_episode, end)
                except (ConnectionError, TimeoutError) as error:
                    await asyncio.sleep(patience.after(error))

    async def _try_to_connect(self, new_episode: bool, end: float) -> None:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        arguments = self._connect_arguments()
        wait_s = max(0.01, min(self._timeout_s, end - time.monotonic()))
        arguments["open_timeout"] = wait_s
        try:
            connection = await connect(self.url, **arguments)
        except (OSError, TimeoutError, asyncio.TimeoutError, WebSocketException) as error:
            raise self._no_connection(error) from error
        try:
            first = await asyncio.wait_for(connection.recv(), wait_s)
        except (OSError, asyncio.TimeoutError, WebSocketException) as error:
            await connection.close()
            raise ConnectionError(f"{self.url}: the server said nothing ({error})") from error
        try:
            self._greeted(first, new_episode)
        except ValueError:
            await connection.close()
            raise
        self._connection = connection
        self._reader = asyncio.get_running_loop().create_task(self._read(connection))
