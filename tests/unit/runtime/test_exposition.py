"""/metrics and /health of a process without an HTTP door."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, Counter
from redis_process import free_port

from readahead.runtime.config import TelemetryConfig
from readahead.runtime.telemetry import exposition


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    yield
    exposition.stop()


@pytest.fixture
def counter() -> Iterator[Counter]:
    made = Counter("readahead_test_requests", "Requests of a test.")
    yield made
    REGISTRY.unregister(made)


def get(port: int, path: str) -> tuple[int, str, str]:
    # No proxy of the environment between a test and its own process.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def start(**settings: object) -> int:
    port = exposition.start(TelemetryConfig(metrics_port=free_port()), **settings)  # type: ignore[arg-type]
    assert port is not None
    return port


def test_metrics_are_what_render_says(counter: Counter) -> None:
    """In Prometheus's text format, as of now."""
    port = start()
    counter.inc(3)
    status, content_type, body = get(port, "/metrics")
    assert status == 200
    assert content_type == exposition.render()[1]
    assert "readahead_test_requests_total 3.0" in body
    assert "readahead_test_requests_total 3.0" in exposition.render()[0].decode()


def test_health_asks_each_time() -> None:
    """200 while it says True, else 503."""
    answers = iter([False, True, False])
    port = start(is_healthy=lambda: next(answers))
    assert [get(port, "/health")[0] for _ in range(3)] == [503, 200, 503]


def test_other_pages_are_not_there() -> None:
    """404, with a hint."""
    status, _, body = get(start(), "/nowhere?x=1")
    assert (status, body) == (404, "/metrics and /health\n")


def test_port_0_means_nowhere() -> None:
    """Off unless asked for."""
    assert exposition.start(TelemetryConfig()) is None


def test_a_port_in_use_is_told() -> None:
    """Two processes cannot share one."""
    port = start()
    with pytest.raises(OSError, match="in use"):
        exposition._Server(("127.0.0.1", port), exposition._Handler)


def test_stopping_frees_the_port() -> None:
    """It can be had again at once."""
    port = start()
    exposition.stop()
    assert exposition.start(TelemetryConfig(metrics_port=port)) == port
