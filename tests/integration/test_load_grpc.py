"""Load over gRPC, and the command line, against a scripted server on loopback."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from fake_inference import Fail, FakeInference, delta, finished, free_port, serving, started
from typer.testing import CliRunner

from readahead.cli.load import load

QUICK = ["--rate", "20", "--requests", "5", "--output-tokens", "3"]


def invoke(*arguments: str) -> Any:
    """Runs `load` as the command line does."""
    app = typer.Typer()
    app.command()(load)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "150"})


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_over_grpc(tmp_path: Path) -> None:
    """Frames tell their tokens, so nothing is estimated; the server's count of the prompt wins."""
    service = FakeInference([started(), delta("a"), delta("bc", 1, 2), finished(3)])
    path = tmp_path / "run.jsonl"
    with serving(service) as address:
        done = invoke("--target", f"grpc://{address}", *QUICK, "--pace", "5", "--jsonl", str(path))
    assert done.exit_code in {0, 3}, done.output
    assert "finished 5" in done.stdout
    for record in records_of(path):
        assert record["outcome"] == "finished"
        assert (record["prompt_tokens"], record["output_tokens"]) == (3, 3)
        assert (record["token_counts"], record["pace_tok_s"]) == ([1, 2], 5.0)
        assert len(record["token_times_s"]) == 3
    request = service.requests[0]
    assert len(request.prompt.split()) == 128
    assert (request.sampling.max_tokens, request.sampling.ignore_eos) == (3, True)
    assert request.reading.pace_tok_s == 5.0


def test_refusals_and_failures_are_told_apart(tmp_path: Path) -> None:
    """An overload before any work is a rejection; nothing is sent twice."""
    service = FakeInference(
        [Fail(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after_s=0)],
        [Fail(code=grpc.StatusCode.UNAVAILABLE, reason="NO_WORKER")],
        [started(), delta("a"), Fail(code=grpc.StatusCode.ABORTED, reason="STREAM_BROKEN")],
        [started(), delta("a"), finished(1)],
    )
    path = tmp_path / "run.jsonl"
    with serving(service) as address:
        done = invoke("--target", f"grpc://{address}", *QUICK, "--jsonl", str(path))
    assert done.exit_code in {0, 3}, done.output
    outcomes = sorted(record["outcome"] for record in records_of(path))
    assert outcomes == ["failed", "finished", "finished", "rejected", "rejected"]
    assert len(service.requests) == 5


def test_the_same_seed_sends_the_same(tmp_path: Path) -> None:
    """Prompts and lengths follow from the seed alone."""
    sent = []
    for seed in ("7", "7", "8"):
        service = FakeInference()
        with serving(service) as address:
            invoke(
                *("--target", f"grpc://{address}", *QUICK, "--seed", seed),
                *("--prompt-tokens", "lognormal:median=20,sigma=1,max=50"),
            )
        sent.append(sorted(request.prompt for request in service.requests))
    assert sent[0] == sent[1] != sent[2]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rate", "0"], "--rate must be positive"),
        (["--rate", "nan"], "--rate must be positive"),
        (["--duration-s", "-1"], "--duration-s must be positive"),
        (["--timeout-s", "inf"], "--timeout-s must be positive"),
        (["--pace", "0"], "--pace must be positive"),
        (["--requests", "0"], "--requests"),
        (["--concurrency-max", "0"], "--concurrency-max"),
        (["--prompt-tokens", "long"], "is no length"),
        (["--target", "127.0.0.1:50051"], "a target is"),
        (["--target", "grpc://nowhere"], "host:port"),
        (["--target", "http://"], "a target is"),
        (["--endpoint", "embeddings"], "embeddings"),
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], complaint: str) -> None:
    """And the message names the option."""
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert complaint in done.output.replace("\n", " ")


def test_a_target_that_cannot_be_reached_is_status_1() -> None:
    """A clear error at once."""
    done = invoke("--target", f"grpc://127.0.0.1:{free_port()}", *QUICK)
    assert done.exit_code == 1
    assert "error: grpc://127.0.0.1" in done.output


def test_a_model_that_is_not_served_is_status_1() -> None:
    """The error lists what is."""
    with serving(FakeInference()) as address:
        done = invoke("--target", f"grpc://{address}", *QUICK, "--model", "other")
    assert done.exit_code == 1
    assert "no model 'other' is served, but fake" in done.output


def test_a_model_path_without_a_tokenizer_is_status_1(tmp_path: Path) -> None:
    """Nothing is sent."""
    service = FakeInference()
    with serving(service) as address:
        done = invoke("--target", f"grpc://{address}", *QUICK, "--model-path", str(tmp_path))
    assert done.exit_code == 1
    assert "tokenizer.json" in done.output.replace("\n", "")
    assert service.requests == []


def test_no_event_loop_is_left_behind() -> None:
    """The command owns its loop."""
    with serving(FakeInference()) as address:
        invoke("--target", f"grpc://{address}", "--requests", "1", "--rate", "50")
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
