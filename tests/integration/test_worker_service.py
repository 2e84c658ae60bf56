"""WorkerService over real gRPC, around an engine that the test plays."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AsyncExitStack

import grpc
import pytest
from fake_engine import FakeEngine, echo_tokens, silent
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from worker_server import StepReader, running_worker, submit_request, wait_until, worker_stub

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import RequestId
from readahead.runtime.rpc.channel import channel
from readahead.runtime.rpc.errors import error_from_rpc
from readahead.services.engine.engine import LegKey
from readahead.v1 import sampling_pb2
from readahead.v1 import worker_service_pb2 as pb

KEY: LegKey = (RequestId("a"), 1)


async def refusal(call: Awaitable[object]) -> ReadaheadError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def test_worker_describes_itself() -> None:
    """Describe tells identity, role, engine and limits."""
    engine = FakeEngine(requests_max=7)
    async with (
        running_worker(engine, role=Role.PREFILL, worker_id="p0", incarnation="i") as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        told = await stub.Describe(pb.DescribeRequest())
    assert (told.worker_id, told.incarnation, told.role) == ("p0", "i", pb.ROLE_PREFILL)
    assert (told.engine, told.requests_max, told.handover_lease_ms) == ("fake", 7, 30_000)
    assert told.draining is False


async def test_worker_streams_a_leg_in_order() -> None:
    """A leg's tokens arrive once each and in order, its end last, its timings with the first."""
    engine = FakeEngine()
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        reader = await StepReader(stub).open()
        await stub.Submit(submit_request("a", max_tokens=20))
        await reader.read_until(lambda r: r.end("a") is not None)
    assert reader.token_ids("a") == echo_tokens(engine.requests[0])
    assert reader.deltas("a")[0].timings.first_token_ns == 2_000_000
    assert [d.HasField("end") for d in reader.deltas("a")].count(True) == 1
    assert [m.sequence for m in reader.messages] == list(range(len(reader.messages)))


async def test_worker_returns_a_handover() -> None:
    """A prefill leg gives no token; its end carries the handover and its timings."""
    async with (
        running_worker(FakeEngine(), role=Role.PREFILL) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        reader = await StepReader(stub).open()
        await stub.Submit(submit_request("a", leg=pb.LEG_PREFILL))
        await reader.read_until(lambda r: r.end("a") is not None)
    (delta,) = reader.deltas("a")
    assert delta.end.handover == b"fake:a.1"
    assert not delta.token_ids
    assert delta.HasField("timings")


async def test_worker_submit_is_idempotent() -> None:
    """The same leg submitted again, while it runs or after, is not run again."""
    engine = FakeEngine(silent)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        reader = await StepReader(stub).open()
        await stub.Submit(submit_request("a"))
        await wait_until(lambda: KEY in engine.legs)
        await stub.Submit(submit_request("a"))
        engine.finish(KEY)
        await reader.read_until(lambda r: r.end("a") is not None)
        await wait_until(lambda: not worker.legs)
        await stub.Submit(submit_request("a"))
        assert len(engine.requests) == 1
        assert not worker.legs
        other = await refusal(stub.Submit(submit_request("b", leg=pb.LEG_PREFILL, max_tokens=0)))
    assert other.reason is Reason.INVALID_REQUEST


async def test_worker_cancel_frees_the_leg() -> None:
    """Cancel aborts the leg in the engine and says so on the stream; it is idempotent."""
    engine = FakeEngine(silent)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        reader = await StepReader(stub).open()
        await stub.Submit(submit_request("a"))
        await wait_until(lambda: KEY in engine.legs)
        await stub.Cancel(pb.WorkerServiceCancelRequest(request_id="a", attempt=1))
        await reader.read_until(lambda r: r.end("a") is not None)
        await wait_until(lambda: not worker.legs)
        await stub.Cancel(pb.WorkerServiceCancelRequest(request_id="a", attempt=1))
    end = reader.end("a")
    assert end is not None
    assert end.reason == sampling_pb2.FINISH_REASON_CANCELLED
    assert engine.aborted == [KEY]
    assert not engine.legs


async def test_worker_refuses_what_was_cancelled_before_it_came() -> None:
    """A Submit that its Cancel has overtaken is refused; the next attempt is not."""
    engine = FakeEngine(silent)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        await StepReader(stub).open()
        await stub.Cancel(pb.WorkerServiceCancelRequest(request_id="a", attempt=1))
        error = await refusal(stub.Submit(submit_request("a")))
        await stub.Submit(submit_request("a", attempt=2))
        await wait_until(lambda: len(engine.legs) == 1)
    assert error.reason is Reason.CANCELLED


async def test_worker_cancels_legs_of_a_router_that_vanishes() -> None:
    """A broken stream ends its own legs and no others."""
    engine = FakeEngine(silent)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        leaving = await StepReader(stub, router_id="leaving").open()
        await StepReader(stub, router_id="staying").open()
        await stub.Submit(submit_request("a", router_id="leaving"))
        await stub.Submit(submit_request("b", router_id="staying"))
        await wait_until(lambda: len(engine.legs) == 2)
        leaving.cancel()
        await wait_until(lambda: KEY not in engine.legs)
        assert list(engine.legs) == [("b", 1)]
        error = await refusal(stub.Submit(submit_request("c", router_id="leaving")))
    assert error.reason is Reason.STALE_INCARNATION


async def test_worker_replaces_a_stream() -> None:
    """A second stream of a router ends the first and its legs, and serves new legs."""
    engine = FakeEngine(silent)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        first = await StepReader(stub).open()
        await stub.Submit(submit_request("a"))
        await wait_until(lambda: KEY in engine.legs)
        second = await StepReader(stub).open()
        while await first.read() is not None:
            pass
        await wait_until(lambda: not engine.legs)
        await stub.Submit(submit_request("b"))
        await wait_until(lambda: ("b", 1) in engine.legs)
        engine.finish((RequestId("b"), 1))
        await second.read_until(lambda r: r.end("b") is not None)


async def test_worker_drains() -> None:
    """While draining, new legs are refused, health says so, and running legs end well."""
    engine = FakeEngine(silent)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
        channel(worker.identity.address, message_bytes_max=1 << 20) as health_channel,
    ):
        health = health_pb2_grpc.HealthStub(health_channel)
        request = health_pb2.HealthCheckRequest()
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        reader = await StepReader(stub).open()
        await stub.Submit(submit_request("a"))
        await wait_until(lambda: KEY in engine.legs)
        assert (await stub.Drain(pb.DrainRequest())).legs == 1
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await stub.Describe(pb.DescribeRequest())).draining
        error = await refusal(stub.Submit(submit_request("b")))
        engine.step()
        engine.finish(KEY)
        await reader.read_until(lambda r: r.end("a") is not None)
        await worker.drain(drain_s_max=5)
    assert error.reason is Reason.NO_WORKER
    assert reader.token_ids("a") == [7]


async def test_worker_cuts_off_what_does_not_end() -> None:
    """Draining has a limit; legs left then end as WORKER_LOST, on the stream too."""
    engine = FakeEngine(silent)
    async with AsyncExitStack() as stack:
        leaving = AsyncExitStack()
        worker = await leaving.enter_async_context(running_worker(engine))
        stub = await stack.enter_async_context(worker_stub(worker.identity.address))
        reader = await StepReader(stub).open()
        await stub.Submit(submit_request("a"))
        await wait_until(lambda: KEY in engine.legs)
        await worker.drain(drain_s_max=0)
        await leaving.aclose()
        await reader.read_until(lambda r: r.end("a") is not None)
    end = reader.end("a")
    assert end is not None
    assert end.error_reason == Reason.WORKER_LOST
    assert not engine.legs


async def test_worker_fails_legs_of_a_dead_engine() -> None:
    """When the engine dies every leg ends as ENGINE_FAILED and the worker says that it must end."""
    engine = FakeEngine(silent)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        reader = await StepReader(stub).open()
        for name in "abc":
            await stub.Submit(submit_request(name))
        await wait_until(lambda: len(engine.legs) == 3)
        engine.die()
        await reader.read_until(lambda r: all(r.end(name) is not None for name in "abc"))
        await wait_until(worker.ended.is_set, limit_s=0.9)
    assert worker.failure is not None
    assert worker.failure.reason is Reason.ENGINE_FAILED
    assert {end.error_reason for name in "abc" if (end := reader.end(name))} == {"ENGINE_FAILED"}


async def test_worker_refuses_with_a_reason() -> None:
    """Each leg that is not taken has a reason; none reaches the engine."""
    engine = FakeEngine(silent, requests_max=1, context_tokens_max=100, handover_lease_s=0)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        no_stream = await refusal(stub.Submit(submit_request("a")))
        await StepReader(stub).open()
        refused = {
            "empty prompt": submit_request("a", prompt_tokens=0),
            "bad id": submit_request("a/b"),
            "attempt 0": submit_request("a", attempt=0),
            "no leg": submit_request("a", leg=pb.LEG_UNSPECIFIED),
            "no handover": submit_request("a", leg=pb.LEG_DECODE),
            "useless handover": submit_request("a", handover=b"x"),
            "no output": submit_request("a", max_tokens=0),
        }
        for name, request in refused.items():
            error = await refusal(stub.Submit(request))
            assert (name, error.reason) == (name, Reason.INVALID_REQUEST)
            assert error.parameter is not None
        long = await refusal(stub.Submit(submit_request("a", prompt_tokens=100)))
        no_handovers = await refusal(stub.Submit(submit_request("a", leg=pb.LEG_PREFILL)))
        assert not engine.requests
        await stub.Submit(submit_request("a"))
        full = await refusal(stub.Submit(submit_request("b")))
    assert no_stream.reason is Reason.STALE_INCARNATION
    assert long.reason is Reason.CONTEXT_TOO_LONG
    assert no_handovers.reason is Reason.UNSUPPORTED
    assert full.reason is Reason.OVERLOADED
    assert full.retry_after_s is not None


async def test_worker_passes_handover_calls_to_the_engine() -> None:
    """Renew names what is gone, release frees, Inspect counts what is held."""
    engine = FakeEngine()
    async with (
        running_worker(engine, role=Role.PREFILL) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        reader = await StepReader(stub).open()
        await stub.Submit(submit_request("a", leg=pb.LEG_PREFILL))
        await reader.read_until(lambda r: r.end("a") is not None)
        ids = [pb.HandoverId(request_id=name, attempt=1) for name in "ab"]
        renewed = await stub.RenewHandovers(pb.RenewHandoversRequest(handovers=ids))
        held = await stub.Inspect(pb.InspectRequest())
        await stub.ReleaseHandovers(pb.ReleaseHandoversRequest(handovers=ids))
        freed = await stub.Inspect(pb.InspectRequest())
        many = [ids[0]] * 4097
        error = await refusal(stub.RenewHandovers(pb.RenewHandoversRequest(handovers=many)))
    assert [unknown.request_id for unknown in renewed.unknown] == ["b"]
    assert (held.handovers_held, freed.handovers_held) == (1, 0)
    assert error.reason is Reason.INVALID_REQUEST
