"""Load over HTTP against a scripted OpenAI server on loopback."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_inference import FakeOpenAi, HttpReply, free_port, serving_http, sse
from rich.console import Console

from readahead.loadgen.load import ExitStatus, LoadSettings, Screens, load
from readahead.loadgen.load_plain import PlainSpec
from readahead.loadgen.senders import SendOptions
from readahead.loadgen.session_run import RunLimits
from readahead.workload.arrivals import PoissonArrivals
from readahead.workload.lengths import FixedLength


def settings_for(target: str, *, records: Path | None = None, **workload: Any) -> LoadSettings:
    """Ten requests at a rate so low that a loaded machine still sends them in time."""
    spec = PlainSpec(
        seed=1,
        arrivals=PoissonArrivals(rate_req_s=workload.get("rate_req_s", 20.0)),
        requests=workload.get("requests", 10),
        duration_s=None,
        prompt_lengths=FixedLength(tokens=5),
        output_lengths=FixedLength(tokens=4),
    )
    return LoadSettings(
        target=target,
        is_chat=False,
        workload=spec,
        options=SendOptions(model="", timeout_s=10.0, pace_tok_s=None, ignore_eos=True),
        limits=RunLimits(requests_max=100),
        model_path=None,
        records_path=records,
        description={"seed": 1},
    )


class Seen:
    """What people saw."""

    def __init__(self) -> None:
        self._out, self._err = io.StringIO(), io.StringIO()
        self.screens = Screens(
            out=Console(file=self._out, width=120), err=Console(file=self._err, width=120)
        )

    @property
    def out(self) -> str:
        return self._out.getvalue()

    @property
    def err(self) -> str:
        return self._err.getvalue()


def completion(text: str) -> str:
    return json.dumps({"choices": [{"index": 0, "text": text, "finish_reason": None}]})


def usage(prompt_tokens: int, completion_tokens: int) -> str:
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return json.dumps({"choices": [], "usage": counts})


WHOLE = HttpReply(
    pieces=[*(sse(completion(text)) for text in "abcd"), sse(usage(9, 4)), sse("[DONE]")]
)

OURS = HttpReply(
    pieces=[b'{"data":[{"id":"fake","readahead":{"engine":"emulated"}}]}'],
    content_type="application/json",
)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_measured(status: ExitStatus) -> bool:
    """A machine that is busy with other tests may send late: that is reported, not failed."""
    return status in {ExitStatus.OK, ExitStatus.INVALID}


async def test_a_run_is_measured_and_recorded(tmp_path: Path) -> None:
    """Each request has one record with one time per token, in order, after it was sent."""
    path, seen = tmp_path / "run.jsonl", Seen()
    fake = FakeOpenAi(lambda _path, _body: WHOLE)
    with serving_http(fake) as url:
        assert is_measured(await load(settings_for(url, records=path), seen.screens))
    records = read(path)
    assert len({record["request_id"] for record in records}) == 10
    for record in records:
        assert record["outcome"] == "finished"
        assert (record["prompt_tokens"], record["output_tokens"]) == (9, 4)
        assert len(record["token_times_s"]) == 4
        times_s = [record["arrival_s"], record["sent_s"], *record["token_times_s"]]
        assert times_s == sorted(times_s)
        assert record["token_times_s"][-1] <= record["ended_s"]
        assert "token_counts" not in record
    assert "finished 10" in seen.out
    assert "TTFT from intended send" in seen.out


async def test_the_requests_are_openais(tmp_path: Path) -> None:
    """Stream with usage, the model that is served, the length asked for; to a router of ours the
    reader's pace and name too."""
    fake = FakeOpenAi(lambda _path, _body: WHOLE)
    foreign, fake.models_reply = fake.models_reply, OURS
    with serving_http(fake) as url:
        settings = settings_for(url, requests=1)
        options = replace(settings.options, pace_tok_s=5.0)
        await load(replace(settings, options=options, is_chat=True), Seen().screens)
        fake.models_reply = foreign
        await load(settings, Seen().screens)
    (chat_path, chat_body), (text_path, text_body) = fake.posts
    chat, text = json.loads(chat_body), json.loads(text_body)
    assert (chat_path, text_path) == ("/v1/chat/completions", "/v1/completions")
    assert chat["messages"][0]["role"] == "user"
    assert len(chat["messages"][0]["content"].split()) == 5
    assert chat["readahead"] == {"pace_tok_s": 5.0}
    assert text == {
        "model": "fake",
        "prompt": chat["messages"][0]["content"],
        "max_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "ignore_eos": True,
    }


async def test_the_description_says_what_was_run(tmp_path: Path) -> None:
    """FILE.meta.json has the seed, the model, the version and the results."""
    path = tmp_path / "run.jsonl"
    with serving_http(FakeOpenAi(lambda _path, _body: WHOLE)) as url:
        status = await load(settings_for(url, records=path), Seen().screens)
    meta = json.loads((tmp_path / "run.jsonl.meta.json").read_text())
    assert meta["kind"] == "readahead-load"
    assert meta["settings"] == {"seed": 1, "model": "fake"}
    assert meta["is_complete"]
    assert meta["is_valid"] == (status is ExitStatus.OK)
    assert meta["results"]["outcomes"] == {"finished": 10}
    assert meta["results"]["output_tokens"] == 40


async def test_chat_deltas_of_several_tokens_are_spread(tmp_path: Path) -> None:
    """Two frames for six tokens: the counts add up, and are called estimates."""
    path, seen = tmp_path / "run.jsonl", Seen()

    def chunk(text: str) -> str:
        return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})

    reply = HttpReply(
        pieces=[sse(chunk("")), sse(chunk("abcdef")), sse(chunk("ghi")), sse(usage(7, 6), "[DONE]")]
    )
    with serving_http(FakeOpenAi(lambda _path, _body: reply)) as url:
        settings = replace(settings_for(url, records=path, requests=1), is_chat=True)
        assert is_measured(await load(settings, seen.screens))
    (record,) = read(path)
    assert record["token_counts"] == [4, 2]
    assert record["token_counts_estimated"] is True
    assert len(set(record["token_times_s"])) <= 2  # frames of one read have its time
    assert "estimates" in seen.out


@pytest.mark.parametrize(
    ("reply", "outcome", "error"),
    [
        (HttpReply(status=429, pieces=[b'{"error":{"message":"busy"}}']), "rejected", "busy"),
        (HttpReply(status=503, pieces=[b"no"]), "rejected", "HTTP 503: no"),
        (HttpReply(status=500, pieces=[b"oops"]), "failed", "HTTP 500: oops"),
        (HttpReply(pieces=[sse(completion("a"))]), "failed", "before [DONE]"),
        (HttpReply(pieces=[sse(completion("a"))], is_truncated=True), "failed", "CONNECTION"),
        (HttpReply(pieces=[sse("nonsense")]), "failed", "PROTOCOL"),
        (HttpReply(pieces=[sse('{"no":"choices"}')]), "failed", "PROTOCOL"),
        (
            HttpReply(pieces=[sse(completion("a"), '{"error":{"message":"engine died"}}')]),
            "failed",
            "STREAM: engine died",
        ),
    ],
)
async def test_bad_ends_are_results(
    tmp_path: Path, reply: HttpReply, outcome: str, error: str
) -> None:
    """Each is in the records with its cause; a run in which nothing finished fails."""
    path = tmp_path / "run.jsonl"
    with serving_http(FakeOpenAi(lambda _path, _body: reply)) as url:
        status = await load(settings_for(url, records=path, requests=1), Seen().screens)
    (record,) = read(path)
    assert record["outcome"] == outcome
    assert error in record["error"]
    assert status in {ExitStatus.FAILED, ExitStatus.INVALID}


async def test_a_request_without_end_times_out(tmp_path: Path) -> None:
    """And its connection is closed, so that the server can stop working on it."""
    path = tmp_path / "run.jsonl"
    fake = FakeOpenAi(lambda _path, _body: HttpReply(pieces=[sse(completion("a"))], holds=True))
    with serving_http(fake) as url:
        settings = settings_for(url, records=path, requests=1)
        options = replace(settings.options, timeout_s=0.2)
        await load(replace(settings, options=options), Seen().screens)
        assert fake.gone.wait(10)
    (record,) = read(path)
    assert record["outcome"] == "failed"
    assert "TIMEOUT" in record["error"]
    assert len(record["token_times_s"]) == 1


async def test_more_than_the_bound_is_dropped_and_said(tmp_path: Path) -> None:
    """A generator that cannot keep up says so instead of slowing down in silence."""
    path, seen = tmp_path / "run.jsonl", Seen()
    fake = FakeOpenAi(lambda _path, _body: HttpReply(pieces=[sse(completion("a"))], holds=True))
    with serving_http(fake) as url:
        settings = settings_for(url, records=path, requests=8, rate_req_s=200.0)
        settings = replace(
            settings,
            limits=RunLimits(requests_max=3),
            options=replace(settings.options, timeout_s=1.0),
        )
        assert await load(settings, seen.screens) is ExitStatus.INVALID
    assert len(read(path)) == 3
    assert "5 requests were dropped" in seen.out
    assert json.loads((tmp_path / "run.jsonl.meta.json").read_text())["results"]["dropped"] == 5


async def test_ctrl_c_ends_the_run_in_order(tmp_path: Path) -> None:
    """What runs is cancelled and recorded as that; the report comes all the same."""
    path, seen = tmp_path / "run.jsonl", Seen()

    def reply(_path: str, _body: bytes) -> HttpReply:
        signal.raise_signal(signal.SIGINT)
        return HttpReply(pieces=[sse(completion("a"))], holds=True)

    with serving_http(FakeOpenAi(reply)) as url:
        settings = settings_for(url, records=path, requests=1000, rate_req_s=1.0)
        assert await load(settings, seen.screens) is ExitStatus.INVALID
    assert [record["outcome"] for record in read(path)] == ["cancelled"]
    assert "interrupted" in seen.out


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_target_that_cannot_be_reached(is_silent: bool) -> None:
    """A clear error at once, and nothing is sent."""
    seen = Seen()
    target = f"http://127.0.0.1:{free_port()}" if not is_silent else "http://no.such.host.invalid"
    assert await load(settings_for(target), seen.screens) is ExitStatus.FAILED
    assert "cannot be reached" in seen.err


@pytest.mark.parametrize(
    ("pieces", "status", "complaint"),
    [
        ([b'{"data":[]}'], 200, "does not say what it serves"),
        ([b'{"data":[{"id":"a"},{"id":"b"}]}'], 200, "serves a, b: choose with --model"),
        ([b"<html>"], 200, "is not OpenAI's"),
        ([b'{"error":{"message":"no worker"}}'], 503, "answers 503: no worker"),
    ],
)
async def test_a_target_that_serves_nothing_useful(
    pieces: Sequence[bytes], status: int, complaint: str
) -> None:
    """The error says what is missing."""
    fake, seen = FakeOpenAi(lambda _path, _body: WHOLE), Seen()
    fake.models_reply = HttpReply(status=status, pieces=pieces, content_type="application/json")
    with serving_http(fake) as url:
        assert await load(settings_for(url), seen.screens) is ExitStatus.FAILED
    assert complaint in seen.err
    assert fake.posts == []


async def test_records_that_cannot_be_written(tmp_path: Path) -> None:
    """Before the run: nothing is sent. During it: the run ends, and the status says so."""
    fake, seen = FakeOpenAi(lambda _path, _body: WHOLE), Seen()
    with serving_http(fake) as url:
        missing = settings_for(url, records=tmp_path / "no" / "run.jsonl")
        assert await load(missing, seen.screens) is ExitStatus.RECORDS_LOST
        assert fake.posts == []
        assert "No such file" in seen.err
        (tmp_path / "full.jsonl").symlink_to("/dev/full")
        full = settings_for(url, records=tmp_path / "full.jsonl")
        assert await load(full, seen.screens) is ExitStatus.RECORDS_LOST
    assert len(fake.posts) == 10
    assert "10 records are lost" in seen.err
    assert "finished 10" in seen.out
