"""The HTTP door's listening socket and the connections behind it."""

from __future__ import annotations

import asyncio
import socket
import ssl

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from readahead.router.config import DoorsConfig
from readahead.router.http.connection import Connection

KEEP_ALIVE_S_MAX = 75
"""How long an idle connection is kept; nginx's default. Clients keep theirs for less."""
BACKLOG = 2048
"""Connections that wait to be accepted: a burst of twice the default queue of requests."""
CLOSE_S_MAX = 2.0
"""At shutdown the requests have ended already; this is for their last bytes."""
UNWIND_S_MAX = 2.0
"""What still runs after that is cancelled, and gets this to let go of its session."""


class HttpServer:
    """Listens from its making; serves while `run` runs.

    It is uvicorn's connections without uvicorn's server, which takes the process's signals,
    polls ten times a second and calls sys.exit.
    """

    def __init__(self, application: ASGIApp, doors: DoorsConfig) -> None:
        self._doors = doors
        self._config = _config(application, doors)
        self._config.load()
        self._state = ServerState()
        self._is_stopped = asyncio.Event()
        self._socket = _listening_socket(doors)
        self.port: int = self._socket.getsockname()[1]

    async def run(self) -> None:
        """Serves until `stop`. Answers under way then get a short time to end."""
        with self._socket:
            server = await asyncio.get_running_loop().create_server(
                self._connection, sock=self._socket, ssl=self._config.ssl, backlog=BACKLOG
            )
            try:
                await self._is_stopped.wait()
            finally:
                server.close()
                await self._close_connections()

    def stop(self) -> None:
        """Takes no more connections and makes `run` return soon."""
        self._is_stopped.set()

    async def _close_connections(self) -> None:
        for connection in tuple(self._state.connections):
            connection.shutdown()
        await self._finish(CLOSE_S_MAX)
        for task in tuple(self._state.tasks):
            task.cancel()
        await self._finish(UNWIND_S_MAX)
        for connection in tuple(self._state.connections):
            connection.transport.abort()

    async def _finish(self, limit_s: float) -> None:
        tasks = tuple(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)

    def _connection(self) -> Connection:
        return Connection(self._config, self._state, stall_s_max=self._doors.client_stall_s_max)


def _listening_socket(doors: DoorsConfig) -> socket.socket:
    """Connections inherit its options."""
    family = socket.AF_INET6 if ":" in doors.host else socket.AF_INET
    # With the protocol left at 0 asyncio does not know TCP, and leaves Nagle's algorithm on.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Where bytes are not acknowledged for so long, or the peer has no room for them, the
        # kernel gives up; also on an answer that is complete on our side.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = int(doors.client_stall_s_max * 1000)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        listening.bind((doors.host, doors.http_port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _config(application: ASGIApp, doors: DoorsConfig) -> Config:
    tls = doors.tls
    return Config(
        application,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S_MAX,
        ssl_certfile=tls.certificate_file or None,
        ssl_keyfile=tls.key_file or None,
        ssl_ca_certs=tls.client_authority_file or None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if tls.client_authority_file else ssl.CERT_NONE,
    )
