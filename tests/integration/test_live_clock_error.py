"""The router's reading clock against the reader himself, 25 ms away in each direction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from cluster_in_process import Cluster, cluster, router_config, toy_engine
from tcp_link import tcp_link

from readahead.client import AsyncClient
from readahead.client.async_paced_reader import AsyncPacedReader
from readahead.core.cluster import Role
from readahead.core.request import RequestId
from readahead.router.config import DoorsConfig
from readahead.router.session_table import SessionTable
from readahead.runtime.clock import monotonic_s

pytestmark = pytest.mark.quiet

ONE_WAY_S = 0.025
READERS = 8
TOKENS = 24
LOOK_S = 0.02

PACES = [(8.0, 8.0), (20.0, 20.0), (8.0, 6.4), (8.0, 9.6)]
"""As the router is told, and as the reader reads: a fifth beside it is a usual day."""
REPORT_EVERY_S = 0.25
"""A reader a fifth beside his pace is half a token off after this."""


class Reports:
    """Compares each report with what the clock thought until then, at its arrival."""

    def __init__(self, sessions: SessionTable) -> None:
        self.errors: list[int] = []
        self._sessions = sessions
        self._report = sessions.report_reading

    def report_reading(self, request_id: RequestId, tokens_read: int) -> bool:
        reader = self._sessions.reader(request_id)
        if reader is not None:
            estimated = reader.clock.unread_tokens(monotonic_s())
            self.errors.append(abs(estimated - (reader.clock.delivered - tokens_read)))
        return self._report(request_id, tokens_read)


def p95(values: Sequence[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1) + 0.5)]


async def read(reader: AsyncPacedReader) -> None:
    async with reader:
        async for _ in reader:
            pass


async def look(running: Cluster, readers: dict[str, AsyncPacedReader]) -> list[int]:
    """How far clock and reader are apart, at the same moments, until cancelled."""
    errors: list[int] = []
    try:
        while True:
            await asyncio.sleep(LOOK_S)
            for request_id, reader in readers.items():
                known = running.router.sessions.reader(RequestId(request_id))
                if known is not None and known.clock.delivered and reader.tokens_read < TOKENS:
                    clock_read = known.clock.read_tokens(monotonic_s())
                    errors.append(abs(clock_read - reader.tokens_read))
    except asyncio.CancelledError:
        return errors


@pytest.mark.parametrize(("told_tok_s", "true_tok_s"), PACES)
async def test_the_clock_is_within_a_token_of_the_reader(
    told_tok_s: float, true_tok_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At p95, against each report as it comes; of a reader who keeps his pace, in between too."""
    engines = {"d0": (Role.DECODE, toy_engine(Role.DECODE, time_scale=1.0))}
    config = replace(router_config(), doors=DoorsConfig(http_port=-1, grpc_port=0))
    async with (
        cluster(engines, config=config) as running,
        tcp_link(running.router.grpc_address, delay_s=ONE_WAY_S) as link,
        AsyncClient(link.address) as client,
    ):
        await client.wait_ready(10)
        reports = Reports(running.router.sessions)
        monkeypatch.setattr(running.router.sessions, "report_reading", reports.report_reading)
        readers: dict[str, AsyncPacedReader] = {}
        async with asyncio.TaskGroup() as tasks:
            looker = tasks.create_task(look(running, readers))
            async with asyncio.TaskGroup() as reading:
                for index in range(READERS):
                    stream = client.generate(
                        token_ids=[1 + index] * 8, max_tokens=TOKENS, pace_tok_s=told_tok_s
                    )
                    reader = stream.read_at(true_tok_s, report_every_s=REPORT_EVERY_S)
                    readers[stream.request_id] = reader
                    reading.create_task(read(reader))
            looker.cancel()
    errors = looker.result()
    assert len(reports.errors) >= READERS * (TOKENS / true_tok_s - 1)
    assert len(errors) >= 100
    assert p95(reports.errors) <= 1
    # Of one who does not, a report says which token he is in, not how far in it.
    assert p95(errors) <= (1 if told_tok_s == true_tok_s else 2)
