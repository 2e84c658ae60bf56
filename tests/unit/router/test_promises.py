"""A promise on its way from the router to an engine: resolved, told, and the same there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_session import FakeLink, settle, toy_call, toy_description, toy_driver, toy_table

from readahead.core.cluster import Role, WorkerDescription
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.latency.iteration import Curve
from readahead.core.promise import Promise, PromiseClock, PromisedStage, Verdict
from readahead.core.request import Incarnation, Leg, RequestId, WorkerId
from readahead.core.slo import SloAsked, SloConfig
from readahead.router import wire
from readahead.router.promises import Promises
from readahead.router.relay import Relay
from readahead.services.engine.engine import EngineDescription
from readahead.services.worker import wire as worker_wire
from readahead.services.worker.identity import WorkerIdentity
from readahead.v1 import sampling_pb2
from readahead.v1 import worker_service_pb2 as pb

ASKED = SloAsked(class_name="coder")
HERE_S, THERE_S = 1e5, 3e4
"""The clocks of the router's and the worker's machine, at one moment."""


def worker(name: str, role: Role, *, second_per_token: float | None) -> WorkerDescription:
    """One that says how long a prompt takes, or does not."""
    curve = None
    if second_per_token is not None:
        curve = Curve(sizes=(1, 1000), values=(second_per_token, 1000 * second_per_token))
    return replace(toy_description(name, role), zero_load=curve)


SLOW = worker("p0", Role.PREFILL, second_per_token=0.02)
FAST = worker("p1", Role.PREFILL, second_per_token=0.01)
DECODE = worker("d0", Role.DECODE, second_per_token=0.5)
SILENT = worker("p2", Role.PREFILL, second_per_token=None)


@pytest.mark.parametrize(
    ("workers", "prompt_tokens", "alone_s"),
    [
        ([SLOW, FAST, DECODE, SILENT], 100, 100 * 0.01 + 0.5),
        ([SLOW, FAST, DECODE], 10, 10 * 0.5),
        ([DECODE], 100, 100 * 0.5),
        ([SLOW, SILENT], 100, 100 * 0.02),
    ],
    ids=["by the fastest, then one iteration", "short: at a decode worker", "alone", "no decode"],
)
def test_a_slow_down_is_of_what_workers_say(
    workers: list[WorkerDescription], prompt_tokens: int, alone_s: float
) -> None:
    """Five times for a coder."""
    promises = Promises(SloConfig(), remote_prefill_tokens_min=32)
    named = promises.make(ASKED, workers, prompt_tokens=prompt_tokens)
    assert named is not None
    assert named.name == "coder"
    assert named.promise.first_token_s == pytest.approx(5 * alone_s)


def test_settings_go_before_workers_and_silence_is_a_second() -> None:
    """A bound in seconds needs neither."""
    stated = SloConfig(zero_load_base_s=0.5, zero_load_token_s=0.01)
    for config, workers, first_s in ((stated, [FAST], 7.5), (SloConfig(), [SILENT], 1.0)):
        promises = Promises(config, remote_prefill_tokens_min=32)
        named = promises.make(ASKED, workers, prompt_tokens=100)
        assert named is not None
        assert named.promise.first_token_s == pytest.approx(first_s)
    assert Promises(stated, remote_prefill_tokens_min=32).make(None, [], prompt_tokens=1) is None


def test_an_unknown_class_is_the_callers_mistake() -> None:
    """In the field where he said it."""
    promises = Promises(SloConfig(), remote_prefill_tokens_min=32)
    with pytest.raises(ReadaheadError, match="there is no class 'choco'") as caught:
        promises.make(SloAsked(class_name="choco", parameter="readahead.slo"), [], prompt_tokens=1)
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert caught.value.parameter == "readahead.slo"


@given(
    first_s=st.floats(0.01, 100),
    rates_s=st.lists(st.floats(0.01, 5), min_size=1, max_size=3),
    made=st.integers(0, 12),
    waited_s=st.floats(0, 200),
    pace_tok_s=st.floats(1, 20),
)
def test_a_leg_is_due_at_the_worker_as_it_is_here(
    first_s: float, rates_s: list[float], made: int, waited_s: float, pace_tok_s: float
) -> None:
    """Before its first token, and after a move, whatever its reader has left."""
    stages = [PromisedStage(token_s=rate_s, tokens=5) for rate_s in rates_s]
    promise = Promise(
        first_token_s=first_s, stages=(*stages[:-1], PromisedStage(token_s=rates_s[-1]))
    )
    arrived_at = HERE_S - waited_s
    clock = PromiseClock(promise, arrived_at=arrived_at)
    for index in range(made):
        clock.deliver(1, now=arrived_at + waited_s * index / made)
    message = wire.submit_to_proto(
        RequestId("r"),
        attempt=1,
        leg=Leg.DECODE,
        prompt_token_ids=[1],
        sampling=sampling_pb2.SamplingParams(max_tokens=99),
        handover=b"kv",
    )
    message.output_token_ids.extend([1] * made)
    age_s = 1 / pace_tok_s - 3.0 if made else waited_s
    wire.name_reader(message, pace_tok_s=pace_tok_s, age_s=age_s)
    wire.name_promise(message, clock, verdict=Verdict.BEST_EFFORT, now=HERE_S)
    leg = worker_wire.leg_request(
        pb.SubmitRequest.FromString(message.SerializeToString()), now=THERE_S
    )
    assert leg.verdict is Verdict.BEST_EFFORT
    assert leg.promise is not None
    assert leg.arrived_at is not None
    there = PromiseClock(leg.promise, arrived_at=leg.arrived_at)
    for _ in range(12):
        assert there.due_s - THERE_S == pytest.approx(clock.due_s - HERE_S, abs=1e-5)
        assert there.token_s == clock.token_s
        there.deliver(1, now=THERE_S)
        clock.deliver(1, now=HERE_S)


def test_prompts_come_without_a_verdict() -> None:
    """Where the KV is not from an earlier worker, the planner begins anew; so it is without."""
    for leg in (Leg.PREFILL, Leg.WHOLE):
        message = wire.submit_to_proto(
            RequestId("r"),
            attempt=2,
            leg=leg,
            prompt_token_ids=[1],
            sampling=sampling_pb2.SamplingParams(max_tokens=9),
            handover=b"",
        )
        wire.name_promise(message, None, verdict=Verdict.BEST_EFFORT, now=0.0)
        found = worker_wire.leg_request(message, now=0.0)
        assert (found.promise, found.verdict) == (None, Verdict.NEW)


def test_a_promise_that_cannot_be_is_refused_by_the_worker() -> None:
    """As any malformed leg."""
    message = pb.SubmitRequest(request_id="r", attempt=1, leg=pb.LEG_WHOLE, prompt_token_ids=[1])
    message.sampling.max_tokens = 1
    message.promise.first_token_s = 1.0
    with pytest.raises(ReadaheadError) as caught:
        worker_wire.leg_request(message, now=0.0)
    assert (caught.value.reason, caught.value.parameter) == (Reason.INVALID_REQUEST, "promise")


async def test_a_session_is_promised_submitted_and_judged() -> None:
    """What came of it is there to be told, after its end too."""
    async with toy_driver() as driver:
        link = FakeLink()
        driver.join(link.as_link())
        table = toy_table(driver)
        call = replace(toy_call(), slo=SloAsked(ttft_s=5.0, tpot_s=2.0))
        session = await table.open(call)
        await settle()
        [message] = link.submitted
        assert message.promise.first_token_s == pytest.approx(5.0)
        assert [stage.token_s for stage in message.promise.stages] == [2.0]
        relay = Relay(driver)
        declined = pb.LegDelta(request_id="r", attempt=1, verdict=pb.VERDICT_BEST_EFFORT)
        relay.on_step(link.as_link(), pb.StepsResponse(deltas=[declined]))
        last = pb.LegDelta(request_id="r", attempt=1, token_ids=[1, 2], text="ab")
        last.end.reason = sampling_pb2.FINISH_REASON_STOP
        relay.on_step(link.as_link(), pb.StepsResponse(deltas=[last]))
        chunk = await session.next_chunk()
        assert chunk.verdict is Verdict.BEST_EFFORT
        assert chunk.finish is not None
        assert chunk.finish.verdict is Verdict.BEST_EFFORT
        explanation = table.explain(RequestId("r"))
        assert explanation is not None
        assert explanation.slo == chunk.finish.slo
        assert explanation.slo is not None
        assert (explanation.slo.name, explanation.slo.is_kept) == ("explicit", True)
        assert explanation.verdict is Verdict.BEST_EFFORT


async def test_a_verdict_alone_neither_cancels_nor_moves_a_leg() -> None:
    """Of a leg that is not the session's now, it says nothing."""
    async with toy_driver() as driver:
        link, other = FakeLink("d0"), FakeLink("d1")
        driver.join(link.as_link())
        session = await toy_table(driver).open(toy_call())
        await settle()
        early = pb.LegDelta(request_id="r", attempt=1, verdict=pb.VERDICT_BEST_EFFORT)
        Relay(driver).on_step(other.as_link(), pb.StepsResponse(deltas=[early]))
        assert other.cancelled == []
        assert session.verdict is Verdict.NEW
        assert session.worker_id == "d0"


@pytest.mark.parametrize("curve", [None, Curve(sizes=(1, 64), values=(0.01, 0.02))])
def test_a_router_hears_what_an_engine_says_of_itself(curve: Curve | None) -> None:
    """How long prompts take there alone, and what carries its KV caches."""
    engine = EngineDescription(
        engine="vllm",
        engine_version="1",
        model="m",
        context_tokens_max=64,
        block_tokens=16,
        kv_blocks=9,
        requests_max=4,
        handover_lease_s=0.0,
        kv_transport="grpc",
        zero_load=curve,
    )
    identity = WorkerIdentity(
        worker_id=WorkerId("d0"),
        incarnation=Incarnation("1"),
        role=Role.DECODE,
        address="a:1",
        prefill_credits=1,
    )
    message = worker_wire.describe_response(identity, engine, is_draining=False)
    found = wire.description_from_proto(message)
    assert (found.kv_transport, found.zero_load) == ("grpc", curve)


def test_a_curve_that_goes_back_is_a_fault_of_the_worker() -> None:
    """Its lengths must ascend."""
    message = pb.DescribeResponse(worker_id="d0", incarnation="1", role=pb.ROLE_DECODE)
    for tokens in (2, 1):
        message.zero_load_ttft.add(prompt_tokens=tokens, seconds=0.1)
    with pytest.raises(ReadaheadError) as caught:
        wire.description_from_proto(message)
    assert caught.value.reason is Reason.ENGINE_FAILED
