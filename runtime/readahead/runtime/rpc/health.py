"""grpc.health.v1 for one server: what it and each of its services answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

SERVICE: str = health.SERVICE_NAME

if TYPE_CHECKING:  # generic in the stubs only
    _Context = grpc.aio.ServicerContext[Any, Any]


class HealthBoard(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # generated, untyped
    """One answer for the whole server. Not serving until told otherwise.

    grpcio-health-checking's own servicer starts as serving, and can be told only from a coroutine.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._names = frozenset({health.OVERALL_HEALTH, SERVICE, *services})
        self._is_serving = False
        self._changed = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """What the board says now."""
        return self._is_serving

    def set_serving(self, is_serving: bool) -> None:
        """Changes the answer and tells those who watch."""
        self._is_serving = is_serving
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: _Context) -> Any:
        """Answers once; NOT_FOUND for a service that is not here."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return self._answer(request.service)

    async def Watch(self, request: Any, context: _Context) -> AsyncIterator[Any]:
        """Answers at once and after each change, until the caller leaves."""
        told: int | None = None
        while True:
            changed = self._changed
            answer = self._answer(request.service)
            if answer.status != told:
                told = answer.status
                yield answer
            await changed.wait()

    def _answer(self, service: str) -> Any:
        statuses = health_pb2.HealthCheckResponse
        if service not in self._names:
            return statuses(status=statuses.SERVICE_UNKNOWN)
        return statuses(status=statuses.SERVING if self._is_serving else statuses.NOT_SERVING)


def add_to(server: grpc.aio.Server, board: HealthBoard) -> None:
    """Puts the board's answers on a server."""
    health_pb2_grpc.add_HealthServicer_to_server(board, server)
