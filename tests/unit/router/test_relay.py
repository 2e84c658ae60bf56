"""Relay: each step's news reaches its session, and nobody else's."""

from __future__ import annotations

from toy_session import FakeLink, settle, toy_call, toy_driver, toy_table

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import LegFinished, StepObserved
from readahead.core.request import RequestId
from readahead.router.outbox import LegKey
from readahead.router.relay import Relay
from readahead.router.sessions import Finish
from readahead.v1 import sampling_pb2
from readahead.v1 import worker_service_pb2 as pb


def step(*deltas: pb.LegDelta) -> pb.StepsResponse:
    """One step's message."""
    return pb.StepsResponse(deltas=deltas, load=pb.WorkerLoad(running=1, kv_blocks_free=9))


def delta(token: int, *, attempt: int = 1, request_id: str = "r") -> pb.LegDelta:
    """One token."""
    return pb.LegDelta(request_id=request_id, attempt=attempt, token_ids=[token], text=f" {token}")


def ended(reason: sampling_pb2.FinishReason.ValueType) -> pb.LegDelta:
    """A leg's last news."""
    return pb.LegDelta(request_id="r", attempt=1, end=pb.LegEnd(reason=reason))


async def test_tokens_are_told_to_the_core_before_the_end_that_came_with_them() -> None:
    """Else the core would count them to nobody."""
    async with toy_driver() as driver:
        link = FakeLink()
        driver.join(link.as_link())
        session = await toy_table(driver).open(toy_call())
        await settle()
        last = delta(7)
        last.end.reason = sampling_pb2.FINISH_REASON_STOP
        Relay(driver).on_step(link.as_link(), step(last))
        assert isinstance(session.end, Finish)
        assert session.end.output_tokens == 1
        kinds = [type(event) for _, event in driver.ring]
        assert kinds[-2:] == [StepObserved, LegFinished]
        explanation = driver.state.explain(RequestId("r"))
        assert explanation is not None
        assert explanation.tokens_delivered == 1


async def test_stale_news_is_dropped_and_its_leg_cancelled() -> None:
    """Of another attempt, another worker, or an unknown request."""
    async with toy_driver() as driver:
        link, other = FakeLink("d0"), FakeLink("d1")
        driver.join(link.as_link())
        session = await toy_table(driver).open(toy_call())
        await settle()
        relay = Relay(driver)
        relay.on_step(link.as_link(), step(delta(1, attempt=2), delta(2, request_id="x")))
        relay.on_step(other.as_link(), step(delta(3)))
        assert session.output_tokens == 0
        assert link.cancelled == [LegKey(RequestId("r"), 2), LegKey(RequestId("x"), 1)]
        assert other.cancelled == [LegKey(RequestId("r"), 1)]
        session.cancel()


async def test_a_stale_handover_is_released() -> None:
    """KV that nobody will pull is freed at once."""
    async with toy_driver() as driver:
        link = FakeLink("p0", Role.PREFILL)
        driver.join(link.as_link())
        end = pb.LegEnd(reason=sampling_pb2.FINISH_REASON_LENGTH, handover=b"kv")
        news = pb.LegDelta(request_id="gone", attempt=3, end=end)
        Relay(driver).on_step(link.as_link(), step(news))
        assert link.released == [LegKey(RequestId("gone"), 3)]
        assert not link.cancelled


async def test_prefill_hands_over_to_the_decode_leg() -> None:
    """The decode worker gets the handover verbatim; the prefill leg makes one token."""
    async with toy_driver() as driver:
        prefill, decode = FakeLink("p0", Role.PREFILL), FakeLink("d0")
        driver.join(prefill.as_link())
        driver.join(decode.as_link())
        session = await toy_table(driver).open(toy_call(prompt_tokens=100))
        await settle()
        end = pb.LegEnd(reason=sampling_pb2.FINISH_REASON_LENGTH, handover=b"kv")
        news = pb.LegDelta(request_id="r", attempt=1, end=end)
        Relay(driver).on_step(prefill.as_link(), step(news))
        await settle()
        (first,), (second,) = prefill.submitted, decode.submitted
        assert (first.leg, first.sampling.max_tokens) == (pb.LEG_PREFILL, 1)
        assert (second.leg, second.sampling.max_tokens) == (pb.LEG_DECODE, 8)
        assert second.handover == b"kv"
        session.cancel()


async def test_prefill_without_a_handover_is_a_failure_of_the_engine() -> None:
    """It is tried again, and then told."""
    async with toy_driver() as driver:
        prefill, decode = FakeLink("p0", Role.PREFILL), FakeLink("d0")
        driver.join(prefill.as_link())
        driver.join(decode.as_link())
        session = await toy_table(driver).open(toy_call(prompt_tokens=100))
        for attempt in (1, 2, 3):
            await settle()
            news = ended(sampling_pb2.FINISH_REASON_LENGTH)
            news.attempt = attempt
            Relay(driver).on_step(prefill.as_link(), step(news))
        assert isinstance(session.end, ReadaheadError)
        assert session.end.reason is Reason.ENGINE_FAILED
        assert len(prefill.submitted) == 3


async def test_a_cancel_that_the_router_did_not_ask_for_is_a_lost_leg() -> None:
    """The request goes on with the next attempt; the caller did not leave."""
    async with toy_driver() as driver:
        link = FakeLink()
        driver.join(link.as_link())
        session = await toy_table(driver).open(toy_call())
        await settle()
        news = ended(sampling_pb2.FINISH_REASON_CANCELLED)
        Relay(driver).on_step(link.as_link(), step(news))
        await settle()
        assert session.end is None
        assert [message.attempt for message in link.submitted] == [1, 2]
        session.cancel()
