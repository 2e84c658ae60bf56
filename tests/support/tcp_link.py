"""A TCP proxy on loopback that a test can cut or freeze, or that is far away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TcpLink:
    """Passes bytes both ways until told otherwise."""

    def __init__(self, target: str, *, delay_s: float = 0.0) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._delay_s = delay_s
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_cut = False

    @property
    def address(self) -> str:
        """Where to connect instead."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def cut(self) -> None:
        """Breaks every connection and refuses new ones, as a killed process does."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Takes connections again."""
        self._is_cut = False

    def freeze(self) -> None:
        """Passes nothing on and breaks nothing, as a stopped process does."""
        self._flows.clear()

    def thaw(self) -> None:
        """Passes on what has waited."""
        self._flows.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        ends = {writer, there_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, there_writer))
                pumps.create_task(self._pump(there_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                if self._delay_s:
                    loop.call_later(self._delay_s, writer.write, data)
                else:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            if self._delay_s:
                loop.call_later(self._delay_s, writer.close)
            else:
                writer.close()


@asynccontextmanager
async def tcp_link(target: str, *, delay_s: float = 0.0) -> AsyncIterator[TcpLink]:
    """Runs a proxy to `target` on a free port. All bytes take `delay_s` each way."""
    link = TcpLink(target, delay_s=delay_s)
    link._server = await asyncio.start_server(link._connect, "127.0.0.1", 0)
    try:
        yield link
    finally:
        link._server.close()
        link.thaw()
        link.cut()
