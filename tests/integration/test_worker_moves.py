"""What a worker does with legs that leave it, and with legs that are to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
from fake_engine import FakeEngine, echo, silent
from worker_server import StepReader, running_worker, submit_request, wait_until, worker_stub

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import RequestId
from readahead.runtime.rpc.errors import error_from_rpc
from readahead.services.worker import arrivals, departures
from readahead.v1 import worker_service_pb2 as pb

if TYPE_CHECKING:
    from readahead.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

KEY = (RequestId("r"), 1)


@dataclass(slots=True)
class Desk:
    """A worker, a router's stub and its stream."""

    engine: FakeEngine
    stub: WorkerServiceAsyncStub
    steps: StepReader

    async def submit(self, request_id: str = "r") -> None:
        await self.stub.Submit(submit_request(request_id, max_tokens=100))
        await wait_until(lambda: (RequestId(request_id), 1) in self.engine.legs)

    async def say(self, tokens: int) -> None:
        """The leg says so much, and the router hears it."""
        self.engine.step(tokens)
        await self.steps.read_until(lambda steps: bool(steps.token_ids("r")))

    async def stop(self, move: int = 1) -> pb.StopLegResponse:
        return await self.stub.StopLeg(pb.StopLegRequest(request_id="r", attempt=1, move=move))

    async def resume(self, move: int = 1) -> None:
        await self.stub.ResumeLeg(pb.ResumeLegRequest(request_id="r", attempt=1, move=move))

    async def reserve(self, request_id: str = "new", *, tokens: int = 16) -> None:
        message = pb.ReserveLegRequest(
            request_id=request_id, attempt=1, context_tokens=tokens, router_id="router"
        )
        await self.stub.ReserveLeg(message)


@asynccontextmanager
async def desk(engine: FakeEngine | None = None) -> AsyncIterator[Desk]:
    engine = engine or FakeEngine(silent)
    async with running_worker(engine) as worker, worker_stub(worker.identity.address) as stub:
        yield Desk(engine, stub, await StepReader(stub).open())


@asynccontextmanager
async def refused(reason: Reason) -> AsyncIterator[None]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        yield
    assert error_from_rpc(error.value).reason is reason


async def test_a_stopped_leg_has_told_all_and_is_silent_until_it_goes_on() -> None:
    """The answer names every token, those of earlier workers included."""
    async with desk() as it:
        message = submit_request("r", max_tokens=100, leg=pb.LEG_DECODE, handover=b"kv")
        message.output_token_ids.extend([1, 2])
        await it.stub.Submit(message)
        await wait_until(lambda: KEY in it.engine.legs)
        assert list(it.engine.requests[0].output_token_ids) == [1, 2]
        await it.say(3)
        stopped = await it.stop()
        assert list(stopped.output_token_ids) == [1, 2, 7, 7, 7]
        assert stopped.handover == b"fake:r.1"
        it.engine.step()
        await it.resume()
        await it.steps.read_until(lambda steps: len(steps.token_ids("r")) == 4)
        assert it.engine.resumed == [KEY]
        assert not it.engine.handovers


async def test_the_answer_waits_for_tokens_that_are_under_way() -> None:
    """An engine may know of more than it has said."""
    async with desk() as it:
        await it.submit()
        await it.say(2)
        it.engine.legs[KEY].said += 1
        stop = asyncio.create_task(it.stop())
        await wait_until(lambda: KEY in it.engine.handovers)
        it.engine.legs[KEY].said -= 1
        it.engine.legs[KEY].is_stopped = False  # the late one comes
        it.engine.step()
        assert len((await stop).output_token_ids) == 3


async def test_a_move_that_was_called_off_never_begins() -> None:
    """Whether the news of that comes before it, while it stops, or late; another move may."""
    async with desk() as it:
        await it.submit()
        await it.say(1)
        await it.resume(move=2)
        async with refused(Reason.CANCELLED):
            await it.stop(move=1)
        async with refused(Reason.CANCELLED):
            await it.stop(move=2)
        await it.stop(move=3)
        await it.resume(move=2)
        assert not it.engine.resumed, "late news of another move"
        async with refused(Reason.INVALID_REQUEST):
            await it.stop(move=4)
        await it.resume(move=3)
        assert it.engine.resumed == [KEY]


async def test_a_move_is_called_off_while_the_leg_stops() -> None:
    """It goes on, and the stop is refused."""
    async with desk() as it:
        await it.submit()
        await it.say(1)
        it.engine.legs[KEY].said += 1
        stop = asyncio.create_task(it.stop())
        await wait_until(lambda: KEY in it.engine.handovers)
        await it.resume()
        it.engine.legs[KEY].said -= 1
        it.engine.legs[KEY].is_stopped = False
        it.engine.step()
        async with refused(Reason.CANCELLED):
            await stop
        it.engine.legs[KEY].is_stopped = True
        await it.stop(move=2)


async def test_a_stop_that_is_hung_up_on_has_no_effect() -> None:
    """The router is gone, or has given up."""
    async with desk() as it:
        await it.submit()
        await it.say(1)
        it.engine.legs[KEY].said += 1
        stop = asyncio.create_task(it.stop())
        await wait_until(lambda: KEY in it.engine.handovers)
        stop.cancel()
        await wait_until(lambda: it.engine.resumed == [KEY])
        assert not it.engine.handovers


async def test_a_stopped_leg_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without a word; its move is over then."""
    monkeypatch.setattr(departures, "STOPPED_S_MAX", 0.01)
    async with desk() as it:
        await it.submit()
        await it.say(1)
        await it.stop()
        await wait_until(lambda: it.engine.resumed == [KEY])
        async with refused(Reason.CANCELLED):
            await it.stop()


async def test_cancel_of_a_stopped_leg_frees_its_kv() -> None:
    """That is how a source learns of the commit."""
    async with desk() as it:
        await it.submit()
        await it.say(1)
        await it.stop()
        await it.stub.Cancel(pb.WorkerServiceCancelRequest(request_id="r", attempt=1))
        await wait_until(lambda: not it.engine.legs and not it.engine.handovers)
        async with refused(Reason.REQUEST_NOT_FOUND):
            await it.stop(move=2)
        await it.resume()


async def test_a_leg_that_the_engine_cannot_stop_goes_on() -> None:
    """With the engine's reason."""
    async with desk() as it:
        await it.submit()
        it.engine.offer_error = ReadaheadError(Reason.UNSUPPORTED, "seeded")
        async with refused(Reason.UNSUPPORTED):
            await it.stop()
        it.engine.offer_error = None
        await it.say(1)
        await it.stop()


async def test_a_reservation_is_a_seat_until_its_leg_comes() -> None:
    """For nobody else, and not beyond its cancel."""
    async with desk(FakeEngine(silent, requests_max=2)) as it:
        await it.submit("a")
        await it.reserve("new")
        await it.reserve("new")
        async with refused(Reason.OVERLOADED):
            await it.submit("b")
        async with refused(Reason.OVERLOADED):
            await it.reserve("b")
        await it.submit("new")
        async with refused(Reason.OVERLOADED):
            await it.submit("b")
        async with refused(Reason.INVALID_REQUEST):
            await it.reserve("new")
    async with desk(FakeEngine(silent, requests_max=1)) as it:
        await it.reserve("new")
        await it.stub.Cancel(pb.WorkerServiceCancelRequest(request_id="new", attempt=1))
        await it.submit("b")
        async with refused(Reason.CANCELLED):
            await it.reserve("new")


async def test_a_reservation_counts_kv_blocks() -> None:
    """Of 16 tokens each here."""
    async with desk(FakeEngine(echo, kv_blocks=4)) as it:
        await it.reserve("a", tokens=33)
        async with refused(Reason.OVERLOADED):
            await it.reserve("b", tokens=17)
        await it.reserve("b", tokens=16)


async def test_a_reservation_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router that is lost keeps no seat."""
    monkeypatch.setattr(arrivals, "RESERVED_S_MAX", 0.0)
    async with desk(FakeEngine(silent, requests_max=1)) as it:
        await it.reserve("a")
        await it.reserve("b")
