"""One router's output stream: a message per engine step, with the news of all its legs.

All legs that an engine step feeds wake in the same pass of the event loop. The first one to put
its news asks for a flush in the next pass, by when all have, so that one message tells it all.
While the router does not read, news is merged by leg: what waits is bounded by one answer per leg,
whatever the router does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from readahead.core.cluster import WorkerLoad
from readahead.core.promise import Verdict
from readahead.services.engine.engine import LegEnd, LegKey, LegOutput
from readahead.services.worker import metrics, wire
from readahead.v1 import worker_service_pb2

HEARTBEAT_S = 1.0
"""Longest silence of a stream; keeps the router's picture of the load fresh."""

MESSAGE_TOKENS_MAX = 16384
"""Most tokens in a message, unless one leg has more: some 200 KB of ids and text, far below the
message limit. What is above it comes in the next message."""


@dataclass(slots=True)
class _News:
    """A leg's merged news."""

    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    end: LegEnd | None = None
    wait_s: float | None = None
    first_token_s: float | None = None
    verdict: Verdict | None = None

    def add(self, output: LegOutput) -> None:
        self.token_ids.extend(output.token_ids)
        self.texts.append(output.text)
        self.end = output.end or self.end
        self.verdict = output.verdict or self.verdict
        if output.wait_s is not None:
            self.wait_s, self.first_token_s = output.wait_s, output.first_token_s

    def output(self) -> LegOutput:
        return LegOutput(
            token_ids=self.token_ids,
            text="".join(self.texts),
            end=self.end,
            wait_s=self.wait_s,
            first_token_s=self.first_token_s,
            verdict=self.verdict,
        )


class StepStream:
    """The news of one router's legs, on their way out. Used from one event loop."""

    def __init__(self, router_id: str, *, load: Callable[[], WorkerLoad]) -> None:
        self.router_id = router_id
        self._load = load
        self._staged: list[tuple[LegKey, LegOutput]] = []
        self._ready: dict[LegKey, _News] = {}
        self._wake = asyncio.Event()
        self._is_closed = False

    def put(self, key: LegKey, output: LegOutput) -> None:
        """Adds news of a leg; dropped once the stream is closed."""
        if self._is_closed:
            return
        if not self._staged:
            asyncio.get_running_loop().call_soon(self._flush)
        self._staged.append((key, output))

    def close(self) -> None:
        """Ends the stream once what is there is sent."""
        self._flush()
        self._is_closed = True
        self._wake.set()

    async def messages(self) -> AsyncIterator[worker_service_pb2.StepsResponse]:
        """What goes over the wire. The first message comes at once: the stream is registered."""
        sequence = 0
        yield wire.steps_response(sequence, (), load=self._load())
        while True:
            if not self._ready:
                if self._is_closed:
                    return
                await self._wait()
            sequence += 1
            metrics.STEP_MESSAGES.inc()
            yield wire.steps_response(sequence, self._take(), load=self._load())

    async def _wait(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._wake.wait()
        except TimeoutError:
            return

    def _flush(self) -> None:
        staged, self._staged = self._staged, []
        tokens = 0
        for key, output in staged:
            tokens += len(output.token_ids)
            news = self._ready.get(key)
            if news is None:
                news = self._ready[key] = _News()
            news.add(output)
        if staged:
            metrics.OUTPUT_TOKENS.inc(tokens)
            self._wake.set()

    def _take(self) -> list[tuple[LegKey, LegOutput]]:
        """Takes one message's worth, the longest waiting first."""
        taken: list[tuple[LegKey, LegOutput]] = []
        tokens = 0
        for key, news in self._ready.items():
            tokens += len(news.token_ids)
            if taken and tokens > MESSAGE_TOKENS_MAX:
                break
            taken.append((key, news.output()))
        for key, _ in taken:
            del self._ready[key]
        return taken
