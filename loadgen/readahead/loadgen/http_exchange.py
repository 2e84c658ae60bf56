"""HTTP/1.1 connections of our own: bytes are stamped when they are received, before anything is
made of them, and no task is woken for a token.

aiohttp's client wakes the reading task for each chunk, after it has parsed it. At 5,000 tokens/s
that took half as much processor time again per token, and stamps came that much later for the
tokens behind it: `python benchmarks/bench_load.py --door aiohttp` beside `--door http`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast
from weakref import WeakSet

import httptools

from readahead.runtime.clock import monotonic_s

LINGER_S = 2.0
"""How long an answer that is through may take to say so before its connection is given up."""


class ConnectionLostError(OSError):
    """The connection cannot be made, broke, or ended before the answer did."""


class NotHttpError(ValueError):
    """What came is not HTTP/1.1."""


OnBody = Callable[[bytes, float], bool]
"""Takes a piece of a body and the time at which it was received; true: the rest is of no use."""


@dataclass(slots=True)
class _Exchange:
    """One request on a connection, and the answer to it so far."""

    on_body: OnBody
    done: asyncio.Future[int]
    status: int = 0
    error_body: bytearray | None = None
    is_complete: bool = False
    is_kept_alive: bool = False
    has_bytes: bool = False


class Connection(asyncio.Protocol):
    """One connection, for one exchange after the other."""

    def __init__(self, when_idle: Callable[[Connection], None]) -> None:
        self._when_idle = when_idle
        self._transport: asyncio.Transport | None = None
        self._exchange: _Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._stamp_s = 0.0
        self._has_length = False
        self._lingers: asyncio.TimerHandle | None = None
        self.uses = 0

    @property
    def is_open(self) -> bool:
        """Whether an exchange can be begun on it."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, on_body: OnBody) -> tuple[int, bytes]:
        """Sends a request; returns the answer's status, and its body unless the status is 200.

        A body with status 200 goes to `on_body` piece by piece, and the exchange is over when
        that says so, or with the answer's end.

        Raises:
            ConnectionLostError: the connection broke.
            NotHttpError: what came is no HTTP.
            ValueError: of `on_body`.
        """
        assert self._transport is not None
        self.uses += 1
        exchange = _Exchange(on_body, asyncio.get_running_loop().create_future())
        self._exchange = exchange
        self._has_length = False
        try:
            self._transport.write(request)
            status = await exchange.done
        except BaseException:  # cancelled too: the server learns of it by the closed connection
            self.close()
            raise
        self._give_back(exchange)
        return status, bytes(exchange.error_body or b"")

    @property
    def got_nothing(self) -> bool:
        """Whether the last exchange broke off before any answer, as on a connection gone stale."""
        return self._exchange is not None and not self._exchange.has_bytes

    def close(self) -> None:
        """Gives the connection up."""
        if self._lingers is not None:
            self._lingers.cancel()
            self._lingers = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio. It turns Nagle's algorithm off."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of its own kind

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._stamp_s = monotonic_s()
        if self._exchange is None:
            self.close()  # nothing was asked for
            return
        self._exchange.has_bytes = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._fail(cause if isinstance(cause, Exception) else NotHttpError(str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._transport = None
        exchange = self._exchange
        if exchange is None or exchange.done.done():
            return
        if exc is None and exchange.status and not self._has_length:
            exchange.done.set_result(exchange.status)  # such a body ends with its connection
        else:
            self._fail(ConnectionLostError(str(exc or "the connection ended before the answer")))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of httptools."""
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._has_length = True

    def on_headers_complete(self) -> None:
        """Of httptools."""
        exchange = self._exchange
        if exchange is not None:
            exchange.status = self._parser.get_status_code()
            if exchange.status != 200:
                exchange.error_body = bytearray()

    def on_body(self, body: bytes) -> None:
        """Of httptools."""
        exchange = self._exchange
        if exchange is None or exchange.done.done():
            return
        if exchange.error_body is not None:
            exchange.error_body += body
        elif exchange.on_body(body, self._stamp_s):
            exchange.done.set_result(exchange.status)

    def on_message_complete(self) -> None:
        """Of httptools."""
        exchange = self._exchange
        if exchange is None or exchange.status < 200:  # 100 Continue announces another one
            return
        exchange.is_complete = True
        exchange.is_kept_alive = self._parser.should_keep_alive()
        if not exchange.done.done():
            exchange.done.set_result(exchange.status)
        elif self._lingers is not None:
            self._give_back(exchange)

    def _give_back(self, exchange: _Exchange) -> None:
        """Keeps the connection for the next exchange, now or once the answer has ended."""
        if self._lingers is not None:
            self._lingers.cancel()
            self._lingers = None
        if not self.is_open:
            return
        if not exchange.is_complete:
            self._lingers = asyncio.get_running_loop().call_later(LINGER_S, self.close)
        elif exchange.is_kept_alive:
            self._exchange = None
            self._when_idle(self)
        else:
            self.close()

    def _fail(self, error: Exception) -> None:
        if self._exchange is not None and not self._exchange.done.done():
            self._exchange.done.set_exception(error)
        self.close()


class Connections:
    """Connections to one server: as many as exchanges run at once."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._address: str | None = None
        self._idle: list[Connection] = []
        self._all: WeakSet[Connection] = WeakSet()

    async def exchange(self, request: bytes, on_body: OnBody) -> tuple[int, bytes]:
        """Sends a request on a free connection, or a new one, as `Connection.exchange`.

        A kept connection that turns out to have been closed meanwhile is replaced.

        Raises:
            OSError: the server cannot be reached, or the connection broke.
            ValueError: what came is not what it should be.
        """
        while True:
            connection = await self._free()
            try:
                return await connection.exchange(request, on_body)
            except ConnectionLostError:
                if connection.uses == 1 or not connection.got_nothing:
                    raise

    def close(self) -> None:
        """Gives all connections up."""
        for connection in list(self._all):
            connection.close()
        self._all.clear()
        self._idle.clear()

    async def _free(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        connection = Connection(self._idle.append)
        await self._connect(connection)
        self._all.add(connection)
        return connection

    async def _connect(self, connection: Connection) -> None:
        """Names are looked up once: a look-up per request would be part of what is measured."""
        loop = asyncio.get_running_loop()
        addresses = [self._address] if self._address else await self._look_up(loop)
        failure: OSError | None = None
        for address in addresses:
            try:
                await loop.create_connection(
                    lambda: connection,
                    address,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls is not None else None,
                )
            except OSError as error:
                failure = error
            else:
                self._address = address
                return
        raise ConnectionLostError(str(failure or f"{self._host} has no address")) from failure

    async def _look_up(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return [str(sockaddr[0]) for *_, sockaddr in found]
