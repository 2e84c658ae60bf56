"""What scenarios promise, as load tells it to a router, and what is kept of the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from cluster_in_process import cluster
from fake_engine import FakeEngine
from fake_inference import (
    FakeInference,
    FakeOpenAi,
    HttpReply,
    answer,
    serving,
    serving_http,
)
from typer.testing import CliRunner

from readahead.cli.load import load
from readahead.core.cluster import Role
from readahead.core.promise import PromisedStage, Verdict
from readahead.loadgen.live import LiveCounts
from readahead.loadgen.load_slo import promised
from readahead.loadgen.load_target import sender_for
from readahead.loadgen.records import Outcome
from readahead.loadgen.request import Part, Promised, Request
from readahead.loadgen.senders import SendOptions
from readahead.loadgen.timeline import Timeline
from readahead.ruler.promises import ZeroLoadTtft
from readahead.services.engine.engine import LegKey
from readahead.workload.reader import Reader
from readahead.workload.session import Segment, Session, Turn
from readahead.workload.slo import SloClass

IDLE = ZeroLoadTtft(base_s=0.5, per_token_s=0.01, origin="given")
THINKS = SloClass(name="thinks", ttft_slowdown=3.0, tpot_s=0.1, think_tpot_s=0.05)
FLAGS = ["--requests", "4", "--rate", "20", "--length-scale", "0.01"]


def invoke(*arguments: str) -> Any:
    """Runs `load` as the command line does."""
    app = typer.Typer()
    app.command()(load)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "150"})


def session(slo: SloClass | None, *, thinking_tokens: int) -> Session:
    segment = Segment("k", 200)
    turn = Turn(segments=(segment,), output_tokens=70, thinking_tokens=thinking_tokens, slo=slo)
    return Session(
        session_id="s",
        arrival_s=0.0,
        scenario="x",
        tenant="t",
        user="u",
        reader=Reader(pace_tok_s=5.0),
        turns=(turn,),
    )


def test_a_turn_is_promised_what_it_is_scored_by() -> None:
    """A multiple of the idle system's time, and stages where it thinks."""
    whole = promised(session(THINKS, thinking_tokens=40), 0, IDLE)
    assert whole == Promised(ttft_s=7.5, tpot_s=0.1, think_tpot_s=0.05, thinking_tokens=40)
    assert promised(session(THINKS, thinking_tokens=0), 0, IDLE) == Promised(ttft_s=7.5, tpot_s=0.1)
    assert promised(session(None, thinking_tokens=40), 0, IDLE) is None


def test_requests_of_a_scenario_say_what_it_promises(tmp_path: Path) -> None:
    """Where they are told to; the planner's verdict is in the records."""
    script = answer("a", "b")
    script[-1].finished.verdict = "best-effort"  # type: ignore[union-attr]  # it is a frame
    path = tmp_path / "run.jsonl"
    for flag, is_told in (([], False), (["--tell-slo"], True)):
        service = FakeInference(script)
        with serving(service) as address:
            done = invoke(
                *("--target", f"grpc://{address}", "--scenario", "reasoning", *FLAGS, *flag),
                *("--zero-load-ttft", "0.5+0.01*tokens", "--jsonl", str(path)),
            )
        assert done.exit_code in {0, 3}, done.output
        requests = [each for each in service.requests if each.HasField("sampling")]
        assert requests
        for request in requests:
            assert request.HasField("slo") is is_told
            if is_told:
                assert request.slo.ttft_s > 3 * 0.5
                assert (request.slo.tpot_s, request.slo.think_tpot_s) == (0.1, 0.05)
                assert 0 < request.slo.thinking_tokens <= request.sampling.max_tokens
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert {record["verdict"] for record in records} == {"best-effort"}


def test_whoever_is_no_router_of_ours_is_not_told() -> None:
    """Nor is anything told where nothing is promised; the run does not begin."""
    with serving_http(FakeOpenAi(lambda _path, _body: HttpReply())) as url:
        done = invoke(
            *("--target", url, "--scenario", "chatbot", *FLAGS, "--tell-slo"),
            *("--zero-load-ttft", "0.5"),
        )
    assert done.exit_code == 1
    assert "no Readahead router" in done.output
    with serving(FakeInference()) as address:
        done = invoke("--target", f"grpc://{address}", "--requests", "4", "--tell-slo")
    assert done.exit_code == 1
    assert "promises nothing" in done.output


class Judging(FakeEngine):
    """Accepts everybody."""

    def take_verdicts(self) -> list[tuple[LegKey, Verdict]]:
        new, self.verdicts = [(key, Verdict.ACCEPTED) for key in self.legs], []
        return new


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_an_engine_gets_what_is_told_through_either_door(scheme: str) -> None:
    """Bound by bound; and what it decides comes back."""
    engine = Judging(model="toy")
    async with cluster({"d0": (Role.DECODE, engine)}) as running:
        router = running.router
        address = router.http_address if scheme == "http" else router.grpc_address
        async with sender_for(f"{scheme}://{address}", is_chat=False) as sender:
            await sender.models()
            result = await sender.send(
                Request(
                    request_id="r",
                    parts=(Part(role="user", content=[1, 2, 3]),),
                    output_tokens=4,
                    slo=Promised(ttft_s=7.5, tpot_s=0.1, think_tpot_s=0.05, thinking_tokens=40),
                ),
                SendOptions(model="toy", timeout_s=10.0, ignore_eos=True),
                Timeline(arrival_s=0.0, counts=LiveCounts()),
            )
    assert (result.outcome, result.verdict) == (Outcome.FINISHED, "accepted")
    [leg] = engine.requests
    thinking = PromisedStage(token_s=0.05, tokens=40)
    assert leg.promise is not None
    assert leg.promise.first_token_s == pytest.approx(7.5)
    assert leg.promise.stages == (thinking, PromisedStage(token_s=0.1))
