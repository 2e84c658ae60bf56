"""Workers that are killed, cut off, silent, full, draining or restarted."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import grpc
import pytest
from cluster_in_process import (
    Answer,
    Cluster,
    ClusterWorker,
    cluster,
    collect,
    generate_request,
    inference_stub,
    leg_keys,
    pulling,
    router_config,
    start_worker,
    toy_prompts,
    wait_joined,
    wait_stage,
)
from fake_engine import FakeEngine, Script, echo, silent
from tcp_link import TcpLink, tcp_link
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.errors import Reason
from readahead.core.request import Leg, RequestId, Stage
from readahead.router.app import running as running_router
from readahead.router.config import DoorsConfig
from readahead.runtime.config import MembershipConfig
from readahead.runtime.rpc.errors import error_from_rpc
from readahead.services.engine.engine import LegOutput

LONG = list(range(64))
SHORT = [1, 2, 3]
FIRST_TOKEN = LegOutput(token_ids=[5], text=" five", wait_s=0.001, first_token_s=0.001)


def fake(script: Script = echo, **limits: int) -> FakeEngine:
    """An engine that serves the cluster's model."""
    return FakeEngine(script, model="toy", **limits)


def echoed(prompt: list[int], count: int) -> list[int]:
    """What `echo` makes of a prompt."""
    return [(sum(prompt) + index) % 1000 for index in range(count)]


class Linked:
    """Fake workers behind proxies, and a router that knows only the proxies."""

    def __init__(self) -> None:
        self.links: dict[str, TcpLink] = {}
        self.workers: dict[str, ClusterWorker] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Linked:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start(
        self,
        engines: dict[str, tuple[Role, FakeEngine]],
        *,
        worker_silence_s_max: float = 3.0,
    ) -> Cluster:
        """Starts them all and waits until they have joined."""
        for name, (role, engine) in engines.items():
            self.workers[name] = await start_worker(engine, role=role, worker_id=name)
            self._stack.push_async_callback(self.workers[name].stop)
            address = self.workers[name].address
            self.links[name] = await self._stack.enter_async_context(tcp_link(address))
        addresses = [link.address for link in self.links.values()]
        config = router_config(workers=addresses, worker_silence_s_max=worker_silence_s_max)
        router = await self._stack.enter_async_context(
            running_router(config, prompts=toy_prompts())
        )
        stub = await self._stack.enter_async_context(inference_stub(router.grpc_address))
        await wait_joined(router, len(engines))
        return Cluster(router=router, stub=stub, workers=self.workers)


async def test_decode_worker_killed_before_the_first_token_is_not_noticed() -> None:
    """The request is tried again elsewhere; its answer is whole and in one piece."""
    prefill, slow, quick = fake(), fake(silent), fake(silent)
    engines = {
        "p0": (Role.PREFILL, prefill),
        "d0": (Role.DECODE, slow),
        "d1": (Role.DECODE, quick),
    }
    async with Linked() as linked:
        running = await linked.start(engines)
        call = running.stub.Generate(generate_request(LONG, request_id="r"))
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(collect(call))
            await wait_until(lambda: bool(slow.legs or quick.legs))
            victim = "d0" if slow.legs else "d1"
            slow.script = quick.script = pulling(prefill)
            linked.links[victim].cut()
        got = answer.result()
        assert got.error is None
        assert got.token_ids == echoed(LONG, 8)
        assert len(got.finished) == 1
        await wait_until(lambda: not prefill.handovers)


async def test_worker_killed_after_the_first_token_breaks_the_stream() -> None:
    """The client is told how much it has got, and that a retry would be a new request."""
    decode = fake(lambda _: [FIRST_TOKEN])
    async with Linked() as linked:
        running = await linked.start({"d0": (Role.DECODE, decode)})
        call = running.stub.Generate(generate_request(SHORT, request_id="r"))
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(collect(call))
            sessions = running.router.driver.sessions
            await wait_until(
                lambda: RequestId("r") in sessions and sessions[RequestId("r")].output_tokens == 1
            )
            linked.links["d0"].cut()
        got = answer.result()
        assert got.error is not None
        error = error_from_rpc(got.error)
        assert error.reason is Reason.STREAM_BROKEN
        assert error.metadata["tokens_delivered"] == "1"
        assert got.token_ids == [5]
        await wait_until(lambda: not decode.legs)


async def test_prefill_worker_killed_while_prefilling_is_not_noticed() -> None:
    """The prompt is computed on the other prefill worker."""
    slow, quick, decode = fake(silent), fake(silent), fake()
    engines = {
        "p0": (Role.PREFILL, slow),
        "p1": (Role.PREFILL, quick),
        "d0": (Role.DECODE, decode),
    }
    async with Linked() as linked:
        running = await linked.start(engines)
        call = running.stub.Generate(generate_request(LONG, request_id="r"))
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(collect(call))
            await wait_until(lambda: bool(slow.legs or quick.legs))
            victim, heir = ("p0", quick) if slow.legs else ("p1", slow)
            heir.script = echo
            decode.script = pulling(heir)
            linked.links[victim].cut()
        assert answer.result().token_ids == echoed(LONG, 8)
        await wait_until(lambda: not slow.legs and not quick.legs and not heir.handovers)


async def test_silent_worker_is_lost_and_found() -> None:
    """A worker that breaks nothing and says nothing is left within the limit, and taken back."""
    engine = fake()
    async with Linked() as linked:
        running = await linked.start({"d0": (Role.DECODE, engine)}, worker_silence_s_max=0.6)
        linked.links["d0"].freeze()
        await wait_until(lambda: not running.router.driver.links)
        linked.links["d0"].thaw()
        await wait_joined(running.router, 1)
        answer = await collect(running.stub.Generate(generate_request(SHORT)))
        assert answer.token_ids == echoed(SHORT, 8)


async def test_full_decode_worker_keeps_the_request_waiting_under_a_renewed_lease() -> None:
    """The prompt's KV outlives its first lease while the request waits between its legs."""
    prefill = FakeEngine(echo, model="toy", handover_lease_s=0.3)
    decode = fake(silent, requests_max=1)
    engines = {"p0": (Role.PREFILL, prefill), "d0": (Role.DECODE, decode)}
    async with cluster(engines) as running:
        blocker = running.stub.Generate(generate_request(SHORT, request_id="blocker"))
        await wait_until(lambda: bool(decode.legs))
        decode.script = pulling(prefill)
        call = running.stub.Generate(generate_request(LONG, request_id="r"))
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(collect(call))
            await wait_until(lambda: prefill.renewed.count([(RequestId("r"), 1)]) >= 4)
            blocker.cancel()
        assert answer.result().token_ids == echoed(LONG, 8)
        await wait_until(lambda: not prefill.handovers)


async def test_restarted_prefill_worker_is_a_new_incarnation() -> None:
    """What the old one had is done again by the new one, once."""
    old, new, decode = fake(silent), fake(), fake()
    decode.script = pulling(new)
    engines = {"p0": (Role.PREFILL, old), "d0": (Role.DECODE, decode)}
    async with cluster(engines) as running:
        call = running.stub.Generate(generate_request(LONG, request_id="r"))
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(collect(call))
            await wait_until(lambda: bool(old.legs))
            first = running.workers["p0"]
            port = int(first.address.rpartition(":")[2])
            await first.stop()
            second = await start_worker(new, role=Role.PREFILL, worker_id="p0", port=port)
        try:
            assert answer.result().token_ids == echoed(LONG, 8)
            assert [request.leg for request in decode.requests] in (
                [Leg.DECODE],
                [Leg.WHOLE],  # if it was decided before the new one had joined
            )
        finally:
            await second.stop()


async def test_draining_worker_ends_what_it_has_and_gets_no_more() -> None:
    """Two decode workers; the one that drains keeps its stream, new requests go to the other."""
    first, second = fake(silent), fake()
    engines = {"d0": (Role.DECODE, first), "d1": (Role.DECODE, second)}
    config = router_config(worker_silence_s_max=0.4)
    async with cluster(engines, config=config) as running:
        second.script = silent
        call = running.stub.Generate(generate_request(SHORT, request_id="r"))
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(collect(call))
            await wait_until(lambda: bool(first.legs or second.legs))
            name, drained, other = ("d0", first, second) if first.legs else ("d1", second, first)
            running.workers[name].worker.servicer.drain()
            link = next(x for x in running.router.driver.links.values() if x.worker_id == name)
            await wait_until(lambda: link.is_draining)
            other.script = drained.script = echo
            answers = [await collect(running.stub.Generate(generate_request(SHORT)))]
            answers += [await collect(running.stub.Generate(generate_request(SHORT)))]
            for key in leg_keys(drained):
                drained.emit(key, FIRST_TOKEN)
                drained.finish(key)
        assert [each.token_ids for each in answers] == [echoed(SHORT, 8)] * 2
        assert len(drained.requests) == 1
        assert answer.result().token_ids == [5]
        assert answer.result().error is None


async def test_router_that_stops_tells_its_clients_and_frees_its_workers() -> None:
    """A stream that has begun is broken, one that has not can be sent again elsewhere."""
    prefill, decode = fake(), fake(lambda _: [FIRST_TOKEN], requests_max=1)
    engines = {"p0": (Role.PREFILL, prefill), "d0": (Role.DECODE, decode)}
    async with AsyncExitStack() as stack:
        workers = {}
        for name, (role, engine) in engines.items():
            workers[name] = await start_worker(engine, role=role, worker_id=name)
            stack.push_async_callback(workers[name].stop)
        addresses = [each.address for each in workers.values()]
        answers: list[Answer] = [Answer(), Answer()]
        async with (
            asyncio.TaskGroup() as tasks,
            running_router(router_config(workers=addresses), prompts=toy_prompts()) as router,
        ):
            stub = await stack.enter_async_context(inference_stub(router.grpc_address))
            await wait_joined(router, 2)
            running = Cluster(router=router, stub=stub)
            calls = [
                stub.Generate(generate_request(SHORT, request_id="begun")),
                stub.Generate(generate_request(LONG, request_id="waits")),
            ]
            for call, answer in zip(calls, answers, strict=True):
                tasks.create_task(collect(call, answer))
            await wait_until(lambda: bool(answers[0].token_ids))
            await wait_stage(running, "waits", Stage.HANDOVER)
        reasons = [error_from_rpc(each.error).reason for each in answers if each.error is not None]
        assert reasons == [Reason.STREAM_BROKEN, Reason.NO_WORKER]
        await wait_until(lambda: not decode.legs and not prefill.handovers)


async def test_worker_of_another_model_is_not_used() -> None:
    """Its answers would be another model's."""
    engines = {"d0": (Role.DECODE, fake()), "d1": (Role.DECODE, FakeEngine(echo, model="other"))}
    async with cluster(engines, is_awaited=False) as running:
        await wait_joined(running.router, 1)
        for _ in range(4):
            answer = await collect(running.stub.Generate(generate_request(SHORT)))
            assert answer.error is None
        assert list(running.router.driver.links) == ["d0"]


async def test_without_workers_a_request_waits_and_is_then_refused() -> None:
    """NO_WORKER, retryable, once the wait that admission allows is over."""
    config = router_config()
    config = replace(
        config,
        core=replace(config.core, admission=replace(config.core.admission, wait_s_max=0.2)),
        membership=MembershipConfig(poll_s=0.05),
    )
    async with cluster({}, config=config) as running:
        answer = await collect(running.stub.Generate(generate_request(SHORT)))
    assert answer.error is not None
    assert answer.error.code() is grpc.StatusCode.UNAVAILABLE
    error = error_from_rpc(answer.error)
    assert error.reason is Reason.NO_WORKER
    assert error.retry_after_s is not None


async def test_a_port_that_is_taken_is_told_as_such() -> None:
    """Not as a group of exceptions: the command line prints it."""
    async with running_router(router_config(), prompts=toy_prompts()) as first:
        port = int(first.http_address.rpartition(":")[2])
        config = router_config(doors=DoorsConfig(http_port=port, grpc_port=0))
        with pytest.raises(OSError, match="in use"):
            async with running_router(config, prompts=toy_prompts()):
                pass
