"""SLOs through both doors to emulated engines that plan by them, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from cluster_in_process import (
    Cluster,
    cluster,
    collect,
    generate_request,
    router_config,
    toy_engine,
    toy_output,
)
from fake_engine import FakeEngine, echo, silent
from worker_server import wait_until

from readahead.client import AsyncClient, InvalidRequestError, OverloadedError, RetryPolicy, Slo
from readahead.core.cluster import Role
from readahead.core.config import AdmissionConfig
from readahead.core.promise import PromisedStage, Verdict
from readahead.core.slo import SloClass, SloConfig
from readahead.router.config import DoorsConfig, RouterConfig
from readahead.services.engine.emulated import EmulatedEngine
from readahead.services.engine.engine import Engine, LegKey, LegOutput, LegRequest

SHORT, LONG = [1] * 8, [1] * 64
EASY = Slo(ttft_s=60.0, tpot_s=0.4)
HOPELESS = Slo(ttft_s=1e-6, tpot_s=0.4)
"""Late before an engine hears of it."""
MINE = SloClass(name="mine", ttft_s=30.0, tpot_s=0.4, think_tpot_s=0.2)


def config(**admission: int) -> RouterConfig:
    """With a class of its own."""
    doors = DoorsConfig(http_port=0, grpc_port=0, slo=SloConfig(classes=(MINE,)))
    return router_config(doors=doors, admission=AdmissionConfig(**admission))


async def planner(role: Role) -> EmulatedEngine:
    """An engine that admits."""
    engine = toy_engine(role)
    await engine.select_policy("slos-serve", {})
    return engine


@asynccontextmanager
async def served(
    engines: Mapping[str, tuple[Role, Engine]] | None = None, **admission: int
) -> AsyncIterator[tuple[Cluster, AsyncClient]]:
    """A cluster and the SDK; one decode worker that admits, unless told otherwise."""
    engines = engines or {"d0": (Role.DECODE, await planner(Role.DECODE))}
    async with cluster(engines, config=config(**admission)) as running:
        retry = RetryPolicy(retries_max=0)
        async with AsyncClient(running.router.grpc_address, retry=retry) as client:
            yield running, client


async def post(
    running: Cluster, slo: Any, *, is_stream: bool = False
) -> tuple[int, Mapping[str, str], Any]:
    """Asks over HTTP: status, headers, and the JSON of the answer, or of its last frame."""
    body: dict[str, Any] = {
        "prompt": SHORT,
        "max_tokens": 8,
        "temperature": 0,
        "readahead": {} if slo is None else {"slo": slo},
    }
    if is_stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    url = f"http://{running.router.http_address}/v1/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        if not is_stream:
            return answer.status, answer.headers, await answer.json()
        frames = (await answer.text()).split("\n\n")
        return answer.status, answer.headers, frames


async def test_verdict_and_promise_are_told_to_grpc() -> None:
    """In the last message, in the trailers and by Explain; the text is the same for all."""
    async with served() as (running, client):
        for slo, verdict, is_kept in ((EASY, "accepted", True), (HOPELESS, "best-effort", False)):
            answer = await client.generate(token_ids=SHORT, max_tokens=8, slo=slo).collect()
            assert list(answer.token_ids) == toy_output(SHORT, 8)[0]
            assert answer.verdict == verdict
            assert answer.slo is not None
            assert (answer.slo.name, answer.slo.is_kept) == ("explicit", is_kept)
            assert answer.slo.ttft_s == pytest.approx(slo.ttft_s or 0, abs=1e-9)
            assert (answer.slo.late_s > 0) is not is_kept
            told = await client.explain(answer.request_id)
            assert (told.verdict, told.slo) == (verdict, answer.slo)
            [decision] = [each for each in told.decisions if each.kind == "verdict"]
            assert decision.worker_id == "d0"
            assert decision.slack_s is not None
            assert (decision.slack_s > 0) is is_kept
        request = generate_request(SHORT, request_id="r")
        request.slo.class_name = "mine"
        call = running.stub.Generate(request)
        await collect(call)
        trailers = {str(key): str(value) for key, value in await call.trailing_metadata() or ()}
        assert trailers["readahead-verdict"] == "accepted"
        assert (trailers["readahead-slo"], trailers["readahead-slo-kept"]) == ("mine", "true")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_verdict_and_promise_are_told_to_http(is_stream: bool) -> None:
    """In a header, and beside the usage."""
    async with served() as (running, _):
        for slo, verdict in (("mine", "accepted"), ({"ttft_s": 1e-6, "tpot_s": 1}, "best-effort")):
            status, headers, answer = await post(running, slo, is_stream=is_stream)
            assert status == 200
            assert headers["x-readahead-verdict"] == verdict
            if is_stream:
                assert f'"verdict":"{verdict}"' in answer[-3]
                continue
            assert answer["readahead"]["verdict"] == verdict
            state = answer["readahead"]["slo"]
            is_class = slo == "mine"
            assert state["class"] == ("mine" if is_class else "explicit")
            assert state["is_kept"] is is_class
            assert state["ttft_s"] == (30.0 if is_class else 1e-6)


async def test_nobody_is_told_a_verdict_where_all_are_admitted_alike() -> None:
    """But what became of his promise."""
    async with served({"d0": (Role.DECODE, toy_engine(Role.DECODE))}) as (running, client):
        answer = await client.generate(token_ids=SHORT, max_tokens=8, slo="chatbot").collect()
        assert answer.verdict == ""
        assert answer.slo is not None
        assert answer.slo.name == "chatbot"
        status, headers, _ = await post(running, None)
        assert status == 200
        assert "x-readahead-verdict" not in headers


async def test_the_engine_gets_the_stages() -> None:
    """A class by the idle engine's time, with the end of the thinking as the caller has it."""
    engine = FakeEngine(silent, model="toy")
    async with served({"d0": (Role.DECODE, engine)}) as (_, client):
        slo = Slo(class_name="mine", think_until="!", thinking_tokens=40)
        stream = client.generate(token_ids=SHORT, max_tokens=8, slo=slo)
        await wait_until(lambda: bool(engine.requests))
        thinking = PromisedStage(token_s=0.2, tokens=40, until_token_id=ord("!"))
        promise = engine.requests[0].promise
        assert promise is not None
        assert promise.first_token_s == pytest.approx(30.0)
        assert promise.stages == (thinking, PromisedStage(token_s=0.4))
        stream.cancel()


async def test_a_slow_down_is_of_the_idle_engines_time() -> None:
    """Which the emulated engine says of itself, so a faster one promises more."""
    bounds = []
    for time_scale in (0.05, 0.1):
        engine = toy_engine(Role.DECODE, time_scale=time_scale)
        async with served({"d0": (Role.DECODE, engine)}) as (_, client):
            answer = await client.generate(token_ids=SHORT, max_tokens=2, slo="coder").collect()
            assert answer.slo is not None
            assert engine.description.zero_load is not None
            alone_s = engine.description.zero_load.at(len(SHORT))
            assert answer.slo.ttft_s == pytest.approx(5 * alone_s)
            bounds.append(answer.slo.ttft_s)
    assert bounds[1] == pytest.approx(2 * bounds[0])


async def test_one_who_was_declined_stays_so_over_a_handover() -> None:
    """The decode worker does not take him for one who was accepted at the other."""
    engines = {
        "p0": (Role.PREFILL, await planner(Role.PREFILL)),
        "d0": (Role.DECODE, await planner(Role.DECODE)),
    }
    async with served(engines) as (_, client):
        for slo, verdict in ((HOPELESS, "best-effort"), (EASY, "accepted")):
            answer = await client.generate(token_ids=LONG, max_tokens=8, slo=slo).collect()
            assert answer.verdict == verdict
            told = await client.explain(answer.request_id)
            by = [each.worker_id for each in told.decisions if each.kind == "verdict"]
            assert by == ["p0"]
            legs = [each.worker_id for each in told.decisions if each.kind in ("prefill", "decode")]
            assert legs == ["p0", "d0"]


BAD: list[tuple[Any, str, str | None]] = [
    ("choco", "readahead.slo", "slo"),
    ({"class": 5}, "readahead.slo.class", None),
    ({"tpot": 0.1}, "readahead.slo.tpot", None),
    ({"class": "mine", "ttft_s": 0}, "readahead.slo.ttft_s", "slo.ttft_s"),
    ({"class": "mine", "tpot_s": -1}, "readahead.slo.tpot_s", "slo.tpot_s"),
    (
        {"class": "mine", "ttft_s": 1, "ttft_slowdown": 2},
        "readahead.slo.ttft_slowdown",
        "slo.ttft_slowdown",
    ),
    ({"class": "mine", "think_until": "two"}, "readahead.slo.think_until", "slo.think_until"),
    ({"ttft_s": 1.0}, "readahead.slo", "slo"),
    ({}, "readahead.slo", "slo"),
    (7, "readahead.slo", None),
]


async def test_a_bad_slo_is_told_by_its_field() -> None:
    """INVALID_REQUEST through both doors, before an engine hears of it."""
    async with served() as (running, client):
        for slo, http_field, grpc_field in BAD:
            status, _, answer = await post(running, slo)
            assert status == 400, (slo, answer)
            error = answer["error"]
            assert (error["code"], error["param"]) == ("invalid_request", http_field)
            if grpc_field is None:
                continue
            named = {"class_name": slo} if isinstance(slo, str) else dict(slo)
            named["class_name"] = named.pop("class", named.get("class_name", ""))
            with pytest.raises(InvalidRequestError) as caught:
                await client.generate(token_ids=SHORT, slo=Slo(**named)).collect()
            assert caught.value.parameter == grpc_field
        assert await running.states()


class Strict(FakeEngine):
    """Accepts and serves whoever has a second; declines the others, who then wait."""

    def __init__(self) -> None:
        super().__init__(lambda leg: echo(leg) if self._has_time(leg) else [], model="toy")
        self._judged: set[LegKey] = set()

    def _has_time(self, leg: LegRequest) -> bool:
        return leg.promise is not None and leg.promise.first_token_s > 1

    def take_verdicts(self) -> list[tuple[LegKey, Verdict]]:
        new = [leg.request for key, leg in self.legs.items() if key not in self._judged]
        self._judged.update(each.key for each in new)
        verdicts = {True: Verdict.ACCEPTED, False: Verdict.BEST_EFFORT}
        return [(each.key, verdicts[self._has_time(each)]) for each in new]


async def test_a_full_best_effort_queue_says_when_to_come_back() -> None:
    """Over both doors; whoever is accepted is served all the same."""
    engine = Strict()
    async with served({"d0": (Role.DECODE, engine)}, best_effort_requests_max=1) as (
        running,
        client,
    ):
        waiting = client.generate(token_ids=SHORT, max_tokens=8, slo=HOPELESS)
        await wait_until(lambda: bool(engine.requests))
        session = running.router.driver.sessions[engine.requests[0].key[0]]
        await wait_until(lambda: session.verdict is Verdict.BEST_EFFORT)
        with pytest.raises(OverloadedError) as caught:
            await client.generate(token_ids=SHORT, max_tokens=8, slo=HOPELESS).collect()
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 0
        assert "best_effort_requests_max = 1" in caught.value.message
        status, headers, refusal = await post(running, {"ttft_s": 1e-6, "tpot_s": 0.4})
        assert (status, refusal["error"]["code"]) == (429, "overloaded")
        assert int(headers["retry-after"]) >= 1
        assert int(headers["retry-after-ms"]) > 0
        assert headers["x-should-retry"] == "true"
        answer = await client.generate(token_ids=SHORT, max_tokens=8, slo=EASY).collect()
        assert answer.verdict == "accepted"
        assert session.end is None
        waiting.cancel()
        await wait_until(lambda: not engine.legs)


async def test_a_full_queue_of_the_router_says_it_too() -> None:
    """Nobody has decided about that one."""
    engine = FakeEngine(silent, model="toy", requests_max=1)
    async with served({"d0": (Role.DECODE, engine)}, queue_requests_max=1) as (running, client):
        first = client.generate(token_ids=SHORT, slo=EASY)
        await wait_until(lambda: bool(engine.requests))
        second = client.generate(token_ids=SHORT, slo=EASY)
        await wait_until(lambda: len(running.router.driver.sessions) == 2)
        with pytest.raises(OverloadedError) as caught:
            await client.generate(token_ids=SHORT, slo=EASY).collect()
        assert caught.value.retry_after_s is not None
        status, headers, _ = await post(running, "mine")
        assert status == 429
        assert int(headers["retry-after"]) >= 1
        first.cancel()
        second.cancel()


async def test_a_verdict_is_told_while_its_request_waits() -> None:
    """Without a token to come with; and the router is told once."""
    engine = FakeEngine(silent, model="toy")
    async with served({"d0": (Role.DECODE, engine)}) as (running, client):
        stream = client.generate(token_ids=SHORT, max_tokens=8, slo=EASY)
        await wait_until(lambda: bool(engine.requests))
        [leg] = engine.requests
        engine.verdicts.append((leg.key, Verdict.BEST_EFFORT))
        session = running.router.driver.sessions[leg.key[0]]
        await wait_until(lambda: session.verdict is Verdict.BEST_EFFORT)
        engine.emit(leg.key, LegOutput(token_ids=[7], text=" x"))
        engine.verdicts.append((leg.key, Verdict.ACCEPTED))
        engine.finish(leg.key)
        assert (await stream.collect()).verdict == "accepted"
        told = await client.explain(leg.key[0])
        assert [each.reason for each in told.decisions if each.kind == "verdict"] == [
            "best-effort: declined",
            "accepted: its promise is kept",
        ]
