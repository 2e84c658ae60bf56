"""Calls to one server over HTTP/2 connections of our own: as few as it lets us."""

from __future__ import annotations

import asyncio
import math

import grpc

from readahead.loadgen.grpc_connection import Connection
from readahead.loadgen.grpc_hpack import encoded
from readahead.loadgen.grpc_status import CallFailedError
from readahead.loadgen.grpc_stream import OnMessage
from readahead.runtime.clock import monotonic_s

CONNECT_S_MAX = 20.0
"""Until a server has said that it speaks HTTP/2: gRPC's own limit."""
TIMEOUT_DIGITS_MAX = 8
"""Of grpc-timeout, before its unit."""


class Channel:
    """Calls to one server, without TLS. Nothing is tried again."""

    def __init__(self, address: str) -> None:
        """A channel that connects at its first call.

        Args:
            address: host:port; an IPv6 host is in brackets.
        """
        host, _, port = address.rpartition(":")
        self._address = address
        self._host, self._port = host.removeprefix("[").removesuffix("]"), int(port)
        self._connections: list[Connection] = []
        self._connecting: asyncio.Task[None] | None = None
        self._heads: dict[str, bytes] = {}

    async def call(
        self, method: str, message: bytes, on_message: OnMessage, *, timeout_s: float
    ) -> None:
        """Sends one message, and hands those of the answer to `on_message`, as `Connection.call`.

        Args:
            method: /package.Service/Method.
            message: the request.
            on_message: what takes the answer; true: no more of it is of use.
            timeout_s: for all of it, connecting included; the server is told.

        Raises:
            CallFailedError: the call ended with another status than OK.
            Exception: of `on_message`.
        """
        end_s = monotonic_s() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._free()
                head = self._head(method) + encoded(
                    [(b"grpc-timeout", timeout_text(end_s - monotonic_s()))]
                )
                await connection.call(head, message, on_message)
        except TimeoutError as error:
            raise CallFailedError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error

    def close(self) -> None:
        """Gives all connections up; running calls end as cancelled."""
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    async def _free(self) -> Connection:
        """A connection with room for a call. Those who wait for a new one wait for the same."""
        while True:
            for connection in self._connections:
                if connection.has_room:
                    return connection
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
                self._connecting.add_done_callback(self._connected)
            connecting = self._connecting
            await asyncio.wait([connecting])
            if connecting.cancelled():
                raise CallFailedError(grpc.StatusCode.CANCELLED, "the client was closed")
            error = connecting.exception()
            if error is not None:
                raise CallFailedError(
                    grpc.StatusCode.UNAVAILABLE, f"cannot connect to {self._address}: {error}"
                ) from error

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # those who waited have it, unless they are gone

    async def _connect(self) -> None:
        """Adds a connection.

        Raises:
            OSError: none can be made.
        """
        self._connections = [one for one in self._connections if not one.is_lost]
        loop = asyncio.get_running_loop()
        connection = Connection()
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await loop.create_connection(lambda: connection, self._host, self._port)
                await connection.ready
        except BaseException:
            connection.close()
            raise
        if not connection.has_room:
            connection.close()
            raise ConnectionError("the server takes no calls")
        self._connections.append(connection)

    def _head(self, method: str) -> bytes:
        """The headers that are the same for all calls of a method."""
        if method not in self._heads:
            self._heads[method] = encoded(
                [
                    (b":method", b"POST"),
                    (b":scheme", b"http"),
                    (b":path", method.encode()),
                    (b":authority", self._address.encode()),
                    (b"te", b"trailers"),
                    (b"content-type", b"application/grpc"),
                    (b"user-agent", b"readahead-load"),
                    (b"grpc-accept-encoding", b"identity"),
                ]
            )
        return self._heads[method]


def timeout_text(timeout_s: float) -> bytes:
    """A time limit as grpc-timeout has it, rounded up."""
    for unit, per_s in ((b"m", 1e3), (b"S", 1.0)):
        count = max(1, math.ceil(timeout_s * per_s))
        if len(str(count)) <= TIMEOUT_DIGITS_MAX:
            return str(count).encode() + unit
    return b"9" * TIMEOUT_DIGITS_MAX + b"H"
