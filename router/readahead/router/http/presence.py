"""Whether anybody is still there: clients that leave, and clients that take nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.types import Message, Receive, Scope, Send

from readahead.core.errors import ReadaheadError
from readahead.router.http.errors import ClientGone
from readahead.runtime.clock import monotonic_s

ABORT_KEY = "readahead.abort"
"""In the scope, where the server puts it: closes the connection without waiting for the client."""

Answer = Callable[[Send], Awaitable[None]]


async def while_present(
    answer: Answer, scope: Scope, receive: Receive, send: Send, *, stall_s_max: float
) -> None:
    """Runs `answer`, which sends; cancels it as soon as the client has left or stalls.

    Call it once the request's body is read: from then on the client has nothing more to say.

    Raises:
        ClientGone: it was cancelled.
        ReadaheadError: what `answer` raised.
    """
    failure: ReadaheadError | None = None
    is_gone = False
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_watch(receive))
            outlet = _Outlet(send, group, stall_s_max=stall_s_max)
            try:
                await answer(outlet.send)
            except ReadaheadError as error:  # else the group would wrap it
                failure = error
            finally:
                outlet.close()
                watcher.cancel()
    except* ClientGone:
        is_gone = True
    if is_gone:
        await _abort(scope, receive)
        raise ClientGone
    if failure is not None:
        raise failure


async def _watch(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientGone


async def _abort(scope: Scope, receive: Receive) -> None:
    """Closes the connection, and waits until the server has noticed."""
    abort = scope.get(ABORT_KEY)
    if abort is not None:
        abort()
        with suppress(ClientGone):
            await _watch(receive)


class _Outlet:
    """The way to the client. One timer per stream, since one per frame would cost 2 µs each."""

    def __init__(self, send: Send, group: asyncio.TaskGroup, *, stall_s_max: float) -> None:
        self._send = send
        self._group = group
        self._stall_s_max = stall_s_max
        self._blocked_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(stall_s_max, self._look)

    async def send(self, message: Message) -> None:
        self._blocked_since = monotonic_s()
        await self._send(message)
        self._blocked_since = None

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        wait_s = self._stall_s_max
        if self._blocked_since is not None:
            wait_s -= monotonic_s() - self._blocked_since
            if wait_s <= 0:
                self._group.create_task(_leave())
                return
        self._timer = self._loop.call_later(wait_s, self._look)


async def _leave() -> None:
    raise ClientGone
