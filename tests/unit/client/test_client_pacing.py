"""Text at a reader's pace: every token once, none before he wants it, waits counted once."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Sequence

import grpc.aio
import pytest
from fake_inference import delta, finished, started
from hypothesis import given
from hypothesis import strategies as st

from readahead.client import BrokenStreamError, RetryPolicy, UnavailableError
from readahead.client.answer import Answer
from readahead.client.async_paced_reader import AsyncPacedReader
from readahead.client.async_stream import AsyncStream
from readahead.client.options import generate_request
from readahead.client.pacing import REPORT_EVERY_S_MIN, PacedText
from readahead.client.retry import Attempts
from readahead.v1 import inference_service_pb2 as pb

Frame = tuple[float, pb.GenerateResponse | None]
"""None: the stream ends."""


class VirtualTime:
    """A clock that jumps to the next moment at which somebody wants to go on."""

    def __init__(self) -> None:
        self.now = 100.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    async def pass_until_done(self, task: asyncio.Task[None]) -> None:
        """Lets the tasks run, and where all wait lets time pass."""
        while not task.done():
            for _ in range(20):
                await asyncio.sleep(0)
            if self._sleepers:
                at, _, future = heapq.heappop(self._sleepers)
                self.now = max(self.now, at)
                if not future.done():
                    future.set_result(None)


class TimedCall:
    """A Generate RPC whose frames come at given times after the start."""

    def __init__(self, time: VirtualTime, frames: Sequence[Frame]) -> None:
        self._time = time
        self._frames = [(time.now + at, frame) for at, frame in frames]

    async def read(self) -> object:
        if not self._frames:
            return grpc.aio.EOF
        at, frame = self._frames.pop(0)
        await self._time.sleep(at - self._time.now)
        return grpc.aio.EOF if frame is None else frame

    def cancel(self) -> bool:
        return True


class Reading:
    """One answer read to its end in virtual time."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.time = VirtualTime()
        self.pieces: list[tuple[float, str]] = []
        """With the time since the start."""
        self.reports: list[tuple[float, int]] = []
        self.reports_tried = 0
        self.report_error: Exception | None = None
        self.reader: AsyncPacedReader | None = None
        attempts = Attempts(RetryPolicy(), rng=random.Random(0), timeout_s=None, now=0.0)
        self._stream = AsyncStream(
            Answer(generate_request("hi", {}), attempts),
            lambda request, timeout_s: TimedCall(self.time, frames),
            report_reading=self._report,
        )

    async def run(self, pace_tok_s: float, *, report_every_s: float | None = None) -> None:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._read(pace_tok_s, report_every_s))
            await self.time.pass_until_done(task)

    async def _read(self, pace_tok_s: float, report_every_s: float | None) -> None:
        start = self.time.now
        reader = self._stream.read_at(
            pace_tok_s,
            report_every_s=report_every_s,
            clock=self.time.clock,
            sleep=self.time.sleep,
        )
        async with reader:
            self.reader = reader
            async for piece in reader:
                self.pieces.append((self.time.now - start, piece))

    async def _report(self, request_id: str, tokens_read: int) -> None:
        self.reports_tried += 1
        if self.report_error is not None:
            raise self.report_error
        self.reports.append((self.time.now, tokens_read))


async def test_a_reader_gets_each_token_when_he_wants_it_or_when_it_comes() -> None:
    """Two tokens a second: one early, one late, then three in one frame."""
    reading = Reading(
        [
            (0.0, started()),
            (0.1, delta("a")),
            (1.7, delta("b")),
            (1.8, delta("xyz", 1, 2, 3)),
            (1.8, finished(5)),
        ]
    )
    await reading.run(2.0)
    times = [at for at, _ in reading.pieces]
    assert times == pytest.approx([0.5, 1.7, 2.2, 2.7, 3.2])
    assert [piece for _, piece in reading.pieces] == ["a", "b", "x", "y", "z"]
    assert reading.reader is not None
    assert [stall.duration_s for stall in reading.reader.stalls] == pytest.approx([0.7])
    assert reading.reader.idle_s == pytest.approx(0.7)
    assert reading.reader.finished is not None
    assert (reading.reader.tokens_read, reading.reader.unread_tokens) == (5, 0)


async def test_progress_is_reported_at_a_bounded_rate_and_at_the_end() -> None:
    """Eight tokens a second for four seconds, a report a second, and the last word at the end."""
    frames = [(0.0, started()), (0.0, delta("a" * 31, *range(31))), (0.0, finished(31))]
    reading = Reading(frames)
    await reading.run(8.0, report_every_s=1.0)
    assert reading.reports == [(100.125, 1), (101.125, 9), (102.125, 17), (103.125, 25), (104, 31)]


async def test_a_report_that_fails_is_the_last() -> None:
    """It is a hint: the answer goes on without."""
    frames = [(0.0, started()), (0.0, delta("a" * 30, *range(30))), (0.0, finished(30))]
    reading = Reading(frames)
    reading.report_error = UnavailableError("UNREACHABLE", "gone")
    await reading.run(10.0, report_every_s=0.5)
    assert len(reading.pieces) == 30
    assert reading.reports_tried == 1


async def test_an_answer_that_breaks_off_is_read_first() -> None:
    """Then the error is raised, and the wait for what never came is in the log."""
    reading = Reading([(0.0, started()), (0.0, delta("ab", 1, 2)), (4.0, None)])
    with pytest.raises(ExceptionGroup) as failure:
        await reading.run(2.0)
    assert failure.group_contains(BrokenStreamError)
    assert [piece for _, piece in reading.pieces] == ["a", "b"]
    assert reading.reader is not None
    assert [stall.duration_s for stall in reading.reader.stalls] == pytest.approx([2.5])


FRAMES = st.lists(
    st.tuples(st.floats(0, 2), st.integers(0, 5), st.text("ab", max_size=9)), max_size=20
)


@given(FRAMES, st.floats(0.5, 50))
def test_no_word_is_lost_and_the_waits_sum_to_the_lateness(
    frames: list[tuple[float, int, str]], pace_tok_s: float
) -> None:
    """All stalls together are the largest amount by which any token came after its due time."""
    text = PacedText(pace_tok_s, asked_at_s=0.0, report_every_s=None)
    now, tokens_before, late_s, pieces = 0.0, 0, 0.0, []
    for gap_s, tokens, words in frames:
        now += gap_s
        if tokens:
            late_s = max(late_s, now - (tokens_before + 1) / pace_tok_s)
            tokens_before += tokens
        text.arrive(words, tokens, now=now)
    taken_at = 0.0
    while (wanted_at_s := text.wanted_at_s) is not None:
        assert wanted_at_s >= taken_at
        taken_at = wanted_at_s
        pieces.append(text.take())
    assert "".join(pieces) == "".join(words for _, _, words in frames)
    assert text.tokens_read == tokens_before
    text.buffer.end(is_complete=True, now=now)
    assert text.buffer.idle_s(now) == pytest.approx(late_s, abs=1e-9)


def test_reports_have_a_smallest_distance() -> None:
    """More of them would cost a router more than the text."""
    with pytest.raises(ValueError, match="report_every_s"):
        PacedText(5.0, asked_at_s=0.0, report_every_s=REPORT_EVERY_S_MIN / 2)
