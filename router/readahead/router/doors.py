"""Both front doors: they listen from their making, and serve while they are open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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


class Curtain:
    """Stands before the HTTP door's application: 503 to everything until it is lifted."""

    def __init__(self) -> None:
        self._application: ASGIApp | None = None

    def lift(self, application: ASGIApp) -> None:
        """Lets requests through to `application`."""
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._application is not None:
            await self._application(scope, receive, send)
            return
        message = "The router is starting."
        error = {"message": message, "type": "server_error", "param": None, "code": "no_worker"}
        headers = {"retry-after-ms": "500", "retry-after": "1", "x-should-retry": "true"}
        await JSONResponse({"error": error}, 503, headers)(scope, receive, send)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What clients connect to."""

    config: DoorsConfig
    grpc_port: int
    board: HealthBoard
    _grpc: grpc.aio.Server
    _http: HttpServer | None
    _curtain: Curtain
    _stalls: StallWatch

    @property
    def grpc_address(self) -> str:
        return f"{self.config.host}:{self.grpc_port}"

    @property
    def http_address(self) -> str:
        """Empty iff there is no HTTP door."""
        return f"{self.config.host}:{self._http.port}" if self._http is not None else ""

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """HTTP answers, 503 until `serving`; so that a probe sees a router that starts."""
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
                await self._grpc.stop(None)

    @asynccontextmanager
    async def serving(self, sessions: Sessions, prompts: Prompts) -> AsyncIterator[None]:
        """Both doors serve, until the block is left; then what is under way gets a moment."""
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(
            InferenceDoor(sessions, prompts, stalls=self._stalls), self._grpc
        )
        await self._grpc.start()
        self._curtain.lift(application(sessions, prompts, self.config))
        try:
            yield
        finally:
            if self._http is not None:
                self._http.stop()
            await self._grpc.stop(_CLOSE_S)


async def listen(config: DoorsConfig) -> Doors:
    """Binds the ports.

    Raises:
        OSError: one cannot be had.
    """
    board = HealthBoard([SERVICE])
    server = grpc_server(
        services=[SERVICE], message_bytes_max=config.body_bytes_max, health_board=board
    )
    curtain = Curtain()
    try:
        grpc_port = bind(server, host=config.host, port=config.grpc_port, tls=config.tls)
        http = HttpServer(curtain, config) if config.http_port >= 0 else None
    except OSError:
        await server.stop(None)
        raise
    return Doors(
        config=config,
        grpc_port=grpc_port,
        board=board,
        _grpc=server,
        _http=http,
        _curtain=curtain,
        _stalls=StallWatch(config.client_stall_s_max),
    )
