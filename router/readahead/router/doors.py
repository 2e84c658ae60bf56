"""Both front doors: they listen from their making, and serve while they are open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio

from readahead.router.config import DoorsConfig
from readahead.router.grpc_door import SERVICE, InferenceDoor
from readahead.router.http.application import application
from readahead.router.http.server import HttpServer
from readahead.router.prompts import Prompts
from readahead.router.sessions import Sessions
from readahead.router.stalls import StallWatch
from readahead.runtime.rpc.server import HealthBoard, bind, grpc_server
from readahead.v1 import inference_service_pb2_grpc

_CLOSE_S = 1.0
"""At shutdown the answers have ended; this is for their last bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What clients connect to."""

    host: str
    grpc_port: int
    board: HealthBoard
    _grpc: grpc.aio.Server
    _http: HttpServer | None
    _stalls: StallWatch

    @property
    def grpc_address(self) -> str:
        return f"{self.host}:{self.grpc_port}"

    @property
    def http_address(self) -> str:
        """Empty iff there is no HTTP door."""
        return f"{self.host}:{self._http.port}" if self._http is not None else ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serves until the block is left; then what is under way gets a moment to end."""
        await self._grpc.start()
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._stalls.run())
            if self._http is not None:
                tasks.create_task(self._http.run())
            try:
                yield
            finally:
                if self._http is not None:
                    self._http.stop()
                watch.cancel()
                await self._grpc.stop(_CLOSE_S)


async def listen(config: DoorsConfig, sessions: Sessions, prompts: Prompts) -> Doors:
    """Binds the ports.

    Raises:
        OSError: one cannot be had.
    """
    stalls = StallWatch(config.client_stall_s_max)
    board = HealthBoard([SERVICE])
    server = grpc_server(
        services=[SERVICE], message_bytes_max=config.body_bytes_max, health_board=board
    )
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(
        InferenceDoor(sessions, prompts, stalls=stalls), server
    )
    try:
        grpc_port = bind(server, host=config.host, port=config.grpc_port, tls=config.tls)
        http = None
        if config.http_port >= 0:
            http = HttpServer(application(sessions, prompts, config), config)
    except OSError:
        await server.stop(None)
        raise
    return Doors(
        host=config.host,
        grpc_port=grpc_port,
        board=board,
        _grpc=server,
        _http=http,
        _stalls=stalls,
    )
