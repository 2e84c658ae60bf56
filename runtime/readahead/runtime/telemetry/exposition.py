"""Prometheus metrics over HTTP, for processes that have no HTTP door of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from readahead.runtime.config import TelemetryConfig

REQUEST_S_MAX = 10.0
"""A scraper that takes longer is cut off."""

_server: _Server | None = None


def render() -> tuple[bytes, str]:
    """All metrics of this process, and their content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


def start(
    telemetry: TelemetryConfig, *, is_healthy: Callable[[], bool] = lambda: True
) -> int | None:
    """Serves /metrics and /health from a thread; returns the port, None iff none is set.

    Args:
        telemetry: where to listen.
        is_healthy: called in that thread; /health answers 200 iff it returns True, else 503.

    Raises:
        OSError: the address cannot be had.
    """
    global _server
    if telemetry.metrics_port == 0:
        return None
    stop()
    handler = type("Handler", (_Handler,), {"is_healthy": staticmethod(is_healthy)})
    server = _Server((telemetry.metrics_host, telemetry.metrics_port), handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    _server = server
    return server.server_port


def stop() -> None:
    """Closes the port."""
    global _server
    server, _server = _server, None
    if server is not None:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """One thread per scrape; none keeps the process alive."""

    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    """Two pages, read only."""

    timeout = REQUEST_S_MAX
    is_healthy: Callable[[], bool]

    def do_GET(self) -> None:
        """Answers."""
        match self.path.partition("?")[0]:
            case "/metrics":
                body, content_type = render()
                self._answer(200, body, content_type)
            case "/health":
                is_healthy = self.is_healthy()
                body = b"ok\n" if is_healthy else b"not serving\n"
                self._answer(200 if is_healthy else 503, body, "text/plain; charset=utf-8")
            case _:
                self._answer(404, b"/metrics and /health\n", "text/plain; charset=utf-8")

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth a line."""

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
