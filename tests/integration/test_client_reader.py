"""The paced readers of both clients against a scripted server on loopback."""

from __future__ import annotations

import threading

import grpc
import pytest
from fake_inference import (
    LIMIT_S,
    Fail,
    FakeInference,
    Gate,
    Step,
    answer,
    delta,
    finished,
    serving,
    started,
)

from readahead.client import AsyncClient, BrokenStreamError, Client
from readahead.client.clock import monotonic_s

PACE_TOK_S = 200.0
STALL_S = 0.2


def stalling() -> tuple[FakeInference, Gate]:
    """Four tokens, a wait, two tokens."""
    gate = Gate()
    script: list[Step] = [started(), delta("abcd", 1, 2, 3, 4), gate, delta("ef", 5, 6)]
    return FakeInference([*script, finished(6)]), gate


def open_later(gate: Gate) -> threading.Timer:
    """Opens it when the reader will have waited for a while."""
    assert gate.reached.wait(LIMIT_S)
    timer = threading.Timer(4 / PACE_TOK_S + STALL_S, gate.event.set)
    timer.start()
    return timer


async def test_a_stall_is_logged_and_progress_reported() -> None:
    """Once for the first token and once in the middle; the last report is of all tokens."""
    service, gate = stalling()
    with serving(service) as address:
        async with AsyncClient(address) as client:
            began_s = monotonic_s()
            stream = client.generate("hi")
            async with stream.read_at(PACE_TOK_S, report_every_s=0.05) as reader:
                pieces = [await anext(reader)]
                timer = open_later(gate)
                pieces += [piece async for piece in reader]
            took_s = monotonic_s() - began_s
            timer.join()
    assert pieces == list("abcdef")
    assert reader.idle_s == pytest.approx(sum(stall.duration_s for stall in reader.stalls))
    assert STALL_S * 0.9 <= reader.stalls[-1].duration_s <= reader.idle_s
    # What he did not wait, he read.
    assert took_s == pytest.approx(reader.idle_s + 6 / PACE_TOK_S, abs=0.1)
    assert service.readings[-1] == (stream.request_id, 6)
    assert len(service.readings) <= 2 + took_s / 0.05


def test_blocking_reader() -> None:
    """The same, with threads of its own, which end with it."""
    service, gate = stalling()
    threads = set(threading.enumerate())
    with serving(service) as address, Client(address) as client:
        stream = client.generate("hi")
        with stream.read_at(PACE_TOK_S, report_every_s=0.05) as reader:
            pieces = [next(reader)]
            timer = open_later(gate)
            pieces += reader
        timer.join()
        left = {t.name for t in threading.enumerate() if t not in threads}
    assert pieces == list("abcdef")
    assert reader.idle_s == pytest.approx(sum(stall.duration_s for stall in reader.stalls))
    assert reader.stalls[-1].duration_s >= STALL_S * 0.9
    assert (reader.tokens_read, reader.unread_tokens, reader.slack_s) == (6, 0, 0.0)
    assert reader.finished is not None
    assert service.readings[-1] == (stream.request_id, 6)
    assert not {name for name in left if name.startswith("readahead-")}


async def test_a_reader_who_leaves_ends_the_request() -> None:
    """The block's end cancels it at the server, for both clients."""
    service = FakeInference(
        [started(), delta("ab", 1, 2), Gate()], [started(), delta("ab", 1, 2), Gate()]
    )
    with serving(service) as address:
        async with (
            AsyncClient(address) as client,
            client.generate("hi").read_at(PACE_TOK_S) as reader,
        ):
            assert await anext(reader) == "a"
        assert service.ended.get(timeout=LIMIT_S)
        with (
            Client(address) as blocking,
            blocking.generate("hi").read_at(PACE_TOK_S) as blocking_reader,
        ):
            assert next(blocking_reader) == "a"
        assert service.ended.get(timeout=LIMIT_S)


async def test_an_error_comes_after_the_text_before_it() -> None:
    """And as itself, in no group."""
    broken = Fail(code=grpc.StatusCode.ABORTED, reason="STREAM_BROKEN", message="gone")
    service = FakeInference([started(), delta("ab", 1, 2), broken])

    async def read(client: AsyncClient, pieces: list[str]) -> None:
        async with client.generate("hi").read_at(PACE_TOK_S) as reader:
            pieces.extend([await anext(reader), await anext(reader)])
            await anext(reader)

    def read_blocking(client: Client, pieces: list[str]) -> None:
        with client.generate("hi").read_at(PACE_TOK_S) as reader:
            pieces.extend([next(reader), next(reader)])
            next(reader)

    pieces: list[str] = []
    with serving(service) as address:
        async with AsyncClient(address) as client:
            with pytest.raises(BrokenStreamError):
                await read(client, pieces)
        with Client(address) as blocking, pytest.raises(BrokenStreamError):
            read_blocking(blocking, pieces)
    assert pieces == ["a", "b", "a", "b"]


def test_a_report_that_fails_ends_the_reports_alone() -> None:
    """An old router that knows no reports serves a paced reader all the same."""
    service = FakeInference(answer(*"abcdefghijklmnopqrst"))
    service.unary_failures = [
        Fail(code=grpc.StatusCode.UNIMPLEMENTED, reason="UNSUPPORTED") for _ in range(9)
    ]
    with (
        serving(service) as address,
        Client(address) as client,
        client.generate("hi").read_at(100.0, report_every_s=0.05) as reader,
    ):
        assert "".join(reader) == "abcdefghijklmnopqrst"
    assert service.unary_calls == 1
