"""One real cluster for all end-to-end tests: vLLM engines, KV caches over NIXL, Redis."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from otlp_receiver import OtlpReceiver, otlp_receiver
from up_process import UpProcess, up_process

MAKES_EVERY_MARK = (pytest.mark.engine, pytest.mark.timeout(300))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the cluster starts engines, and may be the first to wait for them."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            for mark in MAKES_EVERY_MARK:
                item.add_marker(mark)


@pytest.fixture(scope="session")
def traces() -> Iterator[OtlpReceiver]:
    """Receives the spans of every process of the cluster."""
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, traces: OtlpReceiver) -> Iterator[UpProcess]:
    """A ready `readahead up`: one prefill and two decode workers on vLLM, the tiny model.

    Tests share it: they use request ids of their own, leave nothing running, and kill nothing.
    """
    folder = tmp_path_factory.mktemp("cluster")
    with up_process(folder, "--otlp", traces.endpoint) as up:
        yield up.wait_ready()
        up.signal(signal.SIGINT)
        code = up.wait()
        assert code == 0, f"{up.output}\n{up.logs()}"
        assert up.left() == []
