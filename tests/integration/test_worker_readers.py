"""What a worker's engine hears of a request's reader, from the router."""

from __future__ import annotations

import math

import pytest
from cluster_in_process import cluster, generate_request
from fake_engine import FakeEngine, silent
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import RequestId
from readahead.runtime.clock import monotonic_s
from readahead.services.worker import wire
from readahead.v1 import inference_service_pb2 as pb
from readahead.v1 import worker_service_pb2


async def test_engine_hears_of_the_reader() -> None:
    """Pace and arrival with the leg; what he has read once he says so, the latest word alone."""
    engine = FakeEngine(silent, model="toy")
    async with cluster({"d0": (Role.DECODE, engine)}) as running:
        before = monotonic_s()
        request = generate_request([1] * 8, request_id="r")
        request.reading.pace_tok_s = 2.5
        call = running.stub.Generate(request)
        await wait_until(lambda: bool(engine.requests))
        [leg] = engine.requests
        assert leg.pace_tok_s == 2.5
        assert leg.arrived_at is not None
        assert before - 1e-3 <= leg.arrived_at <= monotonic_s()
        engine.step(tokens=5)
        await call.read()
        for read in (1, 2, 4):
            await running.stub.ReportReading(
                pb.ReportReadingRequest(request_id="r", tokens_read=read)
            )
        await wait_until(
            lambda: bool(engine.reader_updates) and engine.reader_updates[-1].tokens_read == 4
        )
        last = engine.reader_updates[-1]
        assert (last.key, last.pace_tok_s) == ((RequestId("r"), 1), 2.5)
        assert before < last.at <= monotonic_s()
        engine.finish(leg.key)


def test_leg_of_an_older_router_says_nothing_of_its_reader() -> None:
    """Nothing is made up for it."""
    message = worker_service_pb2.SubmitRequest(
        request_id="r", attempt=1, leg=worker_service_pb2.LEG_WHOLE, prompt_token_ids=[1]
    )
    message.sampling.max_tokens = 1
    leg = wire.leg_request(message, now=5.0)
    assert (leg.pace_tok_s, leg.arrived_at) == (None, None)


@pytest.mark.parametrize("pace_tok_s", [0.0, -1.0, math.nan, math.inf])
def test_pace_that_nobody_reads_at_is_refused(pace_tok_s: float) -> None:
    """With a leg, and with news."""
    news = worker_service_pb2.ReaderNews(request_id="r", attempt=1, pace_tok_s=pace_tok_s)
    with pytest.raises(ReadaheadError) as caught:
        wire.reader_updates([news], now=0.0)
    assert caught.value.reason is Reason.INVALID_REQUEST
    message = worker_service_pb2.SubmitRequest(
        request_id="r",
        attempt=1,
        leg=worker_service_pb2.LEG_WHOLE,
        prompt_token_ids=[1],
        pace_tok_s=pace_tok_s,
    )
    message.sampling.max_tokens = 1
    with pytest.raises(ReadaheadError) as caught:
        wire.leg_request(message, now=0.0)
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_news_of_too_many_readers_is_refused() -> None:
    """The limit is in the proto's words."""
    news = worker_service_pb2.ReaderNews(request_id="r", attempt=1)
    with pytest.raises(ReadaheadError, match="4096"):
        wire.reader_updates([news] * 4097, now=0.0)


def test_age_becomes_a_time_on_this_machine() -> None:
    """Clocks differ between machines; ages do not."""
    news = worker_service_pb2.ReaderNews(
        request_id="r", attempt=1, tokens_read=3, age_ns=2_000_000_000
    )
    [update] = wire.reader_updates([news], now=10.0)
    assert (update.at, update.tokens_read, update.pace_tok_s) == (8.0, 3, None)
