"""Readers of the load generator at a real router and emulated engines, through either door."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from cluster_in_process import MODEL, Cluster, cluster, toy_engine

from readahead.core.cluster import Role
from readahead.core.request import RequestId
from readahead.loadgen.load_target import sender_for
from readahead.loadgen.records import Outcome, Record
from readahead.loadgen.senders import SendOptions
from readahead.loadgen.session_run import RunLimits, SessionRun
from readahead.workload.reader import Reader
from readahead.workload.session import Segment, Session, Turn

DOORS = pytest.mark.parametrize("door", ["http", "grpc"])
OUTPUT_TOKENS = 12


@pytest.fixture
async def running() -> AsyncIterator[Cluster]:
    """A router and a decode worker that is fast."""
    async with cluster({"d0": (Role.DECODE, toy_engine(Role.DECODE))}) as each:
        yield each


async def play(running: Cluster, door: str, sessions: list[Session]) -> list[Record]:
    """Offers the sessions, and returns their records by request id."""
    address = running.router.http_address if door == "http" else running.router.grpc_address
    async with sender_for(f"{door}://{address}", is_chat=True) as sender:
        await sender.models()
        assert sender.is_ours
        options = SendOptions(model=MODEL, timeout_s=20, ignore_eos=True)
        run = SessionRun(
            sender,
            options,
            RunLimits(requests_max=100),
            texts=lambda segment: "x" * segment.tokens,
            run_id="t",
        )
        await run.offer(sessions)
    return sorted(run.records, key=lambda record: record.request_id)


def session(reader: Reader, *turns: Turn, index: int = 0) -> Session:
    return Session(
        session_id=str(index),
        arrival_s=0.01 * index,
        scenario="chatbot",
        tenant="t",
        user=f"u{index}",
        reader=reader,
        turns=turns,
    )


def turn(*, carries_context: bool = False, output_tokens: int = OUTPUT_TOKENS) -> Turn:
    return Turn(
        segments=(Segment("a", 8),), output_tokens=output_tokens, carries_context=carries_context
    )


@DOORS
async def test_a_conversation_is_counted_to_the_token(running: Cluster, door: str) -> None:
    """Nothing is estimated; the second prompt holds the first one and its answer; the router has
    heard that the first answer was read to its end."""
    reader = Reader(pace_tok_s=100.0, report_every_s=0.01)
    first, second = await play(running, door, [session(reader, turn(), turn(carries_context=True))])
    for record in (first, second):
        assert record.outcome is Outcome.FINISHED
        assert not record.are_counts_estimated
        assert sum(record.token_counts) == record.output_tokens == OUTPUT_TOKENS
        assert record.reading is not None
        assert record.reading.is_pace_told
    assert first.prompt_tokens == 8
    assert second.prompt_tokens > 16
    explained = running.router.sessions.explain(RequestId(first.request_id))
    assert explained is not None
    assert explained.tokens_read == OUTPUT_TOKENS
    assert explained.reading is not None
    assert explained.reading.pace_tok_s == 100.0


@DOORS
async def test_who_leaves_frees_his_place(running: Cluster, door: str) -> None:
    """The engines stop working for him; the others read on."""
    leaver = Reader(pace_tok_s=1000.0, leaves_after_tokens=3)
    sessions = [
        session(leaver, turn(output_tokens=2000)),
        session(Reader(pace_tok_s=1000.0), turn(), index=1),
    ]
    left, stayed = await play(running, door, sessions)
    await running.wait_free()
    assert (left.outcome, left.cause) == (Outcome.CANCELLED, "read_enough")
    assert 3 <= left.output_tokens < 2000
    assert left.prompt_tokens == 8
    assert stayed.outcome is Outcome.FINISHED
