"""One HTTP connection: uvicorn's, with limits on clients that send or take nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from readahead.router.checks import new_request_id
from readahead.router.http.presence import ABORT_KEY

HEAD_BYTES_MAX = 64 << 10
"""Most bytes of a request's line and headers; nginx takes 32 KiB, Node.js 16."""


class Connection(HttpToolsProtocol):
    """Closes a connection whose request's head does not come, or whose answer is not taken."""

    def __init__(self, config: Config, server_state: ServerState, *, stall_s_max: float) -> None:
        super().__init__(config=config, server_state=server_state, app_state={})
        self._stall_s_max = stall_s_max
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Arms the limits."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Disarms them."""
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head are bounded; bodies are, by the application."""
        if self._head_timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response(f"The request's head is larger than {HEAD_BYTES_MAX} bytes.")

    def on_message_begin(self) -> None:
        """A request starts: its scope gets the way to close the connection at once."""
        super().on_message_begin()
        self.scope[ABORT_KEY] = self.transport.abort  # type: ignore[literal-required]
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is here; from now on the application has its own limits."""
        self._head_is_here()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed as HTTP gets an error object too."""
        error: dict[str, Any] = {
            "message": msg,
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_request",
        }
        body = json.dumps({"error": error}).encode()
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            b"x-should-retry: false\r\nconnection: close\r\n"
            b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (new_request_id().encode(), len(body), body)
        )
        self.transport.close()

    def _await_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(self._stall_s_max, self.transport.abort)

    def _head_is_here(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
