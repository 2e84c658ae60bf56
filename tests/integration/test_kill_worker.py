"""A decode worker is killed outright while streams run: real processes, real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cli_cluster import CliCluster, cli_cluster
from vllm_process import wait_until
from worker_inspection import wait_all_free

from readahead.client import (
    AsyncClient,
    AsyncStream,
    BrokenStreamError,
    Delta,
    Explanation,
    Finished,
    ReadaheadClientError,
    RetryPolicy,
)

VICTIM, SURVIVOR = "decode-1", "decode-0"
STREAMS = 12
LATE_STREAMS = 6
MAX_TOKENS = 400
"""Some seconds of the emulated device: more than it takes to look at where each stream is."""
PROMPT = tuple(range(100, 164))
"""Long enough for a handover."""


@pytest.fixture
def cluster(tiny_model: Path, tmp_path: Path) -> Iterator[CliCluster]:
    """One prefill and two decode workers; a worker that is cut off is soon given up."""
    settings = {"worker_silence_s_max": "0.5", "membership.poll_s": "0.1"}
    with cli_cluster(tiny_model, tmp_path, decode=2, router=settings) as running:
        yield running


@dataclass(slots=True)
class Reader:
    """One stream's caller, who does not try again."""

    stream: AsyncStream
    is_started: bool = False
    token_ids: list[int] = field(default_factory=list)
    finished: Finished | None = None
    error: ReadaheadClientError | None = None
    worker: str = ""
    """Where it was when the victim was killed."""

    async def read(self) -> None:
        try:
            async for event in self.stream:
                self.is_started = True
                if isinstance(event, Delta):
                    self.token_ids += event.token_ids
                elif isinstance(event, Finished):
                    self.finished = event
        except ReadaheadClientError as error:
            self.error = error


def _decode_worker(explanation: Explanation) -> str:
    """Where it was last placed for decoding; empty before."""
    placed = [each.worker_id for each in explanation.decisions if each.kind == "decode"]
    return placed[-1] if placed else ""


class Readers:
    """Streams through one connection, read at the same time."""

    def __init__(self, client: AsyncClient, tasks: asyncio.TaskGroup) -> None:
        self._client = client
        self._tasks = tasks

    def start(self, count: int, *, name: str) -> list[Reader]:
        """Opens so many streams, with ids from `name`."""
        readers = []
        for index in range(count):
            stream = self._client.generate(
                token_ids=(*PROMPT, index),
                request_id=f"{name}-{index}",
                max_tokens=MAX_TOKENS,
                ignore_eos=True,
            )
            readers.append(Reader(stream))
            self._tasks.create_task(readers[-1].read())
        return readers

    async def locate(self, readers: Sequence[Reader]) -> bool:
        """Notes where each is decoded; true iff all are."""
        for reader in readers:
            if reader.is_started:  # before it, the router need not know of it
                explanation = await self._client.explain(reader.stream.request_id)
                reader.worker = _decode_worker(explanation)
        return all(reader.worker for reader in readers)


async def _has_text(readers: Sequence[Reader]) -> bool:
    return all(reader.token_ids for reader in readers)


async def test_killed_decode_worker_breaks_only_what_it_had_begun_to_say(
    cluster: CliCluster,
) -> None:
    """Others finish, those without text move over unnoticed, and the cluster goes on serving.

    The victim is frozen first, so that some streams are surely placed there and have no text.
    """
    async with AsyncClient(cluster.grpc, retry=RetryPolicy(retries_max=0)) as client:
        async with asyncio.TaskGroup() as tasks:
            readers = Readers(client, tasks)
            early = readers.start(STREAMS, name="early")
            await wait_until(lambda: _has_text(early), limit_s=30)
            cluster.freeze(VICTIM)
            late = readers.start(LATE_STREAMS, name="late")
            await wait_until(lambda: readers.locate(late), limit_s=30)
            await readers.locate(early)
            cluster.kill(VICTIM)

        broken = [reader for reader in early if reader.worker == VICTIM]
        assert 0 < len(broken) < STREAMS
        for reader in early:
            if reader in broken:
                assert isinstance(reader.error, BrokenStreamError), reader
                assert reader.error.reason == "STREAM_BROKEN"
                delivered = int(reader.error.metadata["tokens_delivered"])
                assert delivered == len(reader.token_ids) > 0
            else:
                assert reader.worker == SURVIVOR
        moved = [reader for reader in late if reader.worker == VICTIM]
        assert 0 < len(moved) < LATE_STREAMS
        for reader in moved:
            explanation = await client.explain(reader.stream.request_id)
            assert "retry" in [decision.kind for decision in explanation.decisions]
            assert _decode_worker(explanation) == SURVIVOR
        for reader in (*early, *late):
            if reader not in broken:
                assert reader.error is None
                assert reader.finished is not None
                assert reader.finished.usage.output_tokens == len(reader.token_ids) == MAX_TOKENS

        after = await client.generate(token_ids=PROMPT, max_tokens=8, ignore_eos=True).collect()
        assert len(after.token_ids) == 8
        wait_all_free(cluster.living(), 5)

        cluster.start_worker(VICTIM, "decode")
        cluster.wait_joined("decode", 2)
        assert VICTIM in await _used_by(client, requests=4)


async def _used_by(client: AsyncClient, *, requests: int) -> set[str]:
    """Decode workers that serve some requests sent at once."""
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(client.generate(token_ids=PROMPT, max_tokens=8).collect())
            for _ in range(requests)
        ]
    return {_decode_worker(await client.explain(each.result().request_id)) for each in asked}
