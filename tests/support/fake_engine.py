"""An Engine whose every move a test decides. It passes the same contract tests as the real ones."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from readahead.core.cluster import WorkerLoad
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.promise import Verdict
from readahead.core.request import FinishReason, Leg
from readahead.services.engine.engine import (
    EngineDescription,
    EngineState,
    LegEnd,
    LegKey,
    LegOffer,
    LegOutput,
    LegRequest,
    ReaderUpdate,
)

Script = Callable[[LegRequest], Sequence[LegOutput]]


def echo_tokens(request: LegRequest) -> list[int]:
    """What `echo` makes of a request: the same tokens whatever the route."""
    first = sum(request.prompt_token_ids)
    whole = [(first + index) % 1000 for index in range(request.sampling.max_tokens)]
    return whole[len(request.output_token_ids) :]


def echo(request: LegRequest) -> list[LegOutput]:
    """Ends a prefill leg with a handover at once; gives other legs all their tokens, one by one."""
    if request.leg is Leg.PREFILL:
        handover = f"fake:{request.key[0]}.{request.key[1]}".encode()
        end = LegEnd(finish_reason=FinishReason.LENGTH, handover=handover)
        return [LegOutput(end=end, wait_s=0.001, first_token_s=0.002)]
    outputs = [LegOutput(token_ids=[t], text=f" {t}") for t in echo_tokens(request)]
    outputs[0] = LegOutput(
        token_ids=outputs[0].token_ids, text=outputs[0].text, wait_s=0.001, first_token_s=0.002
    )
    outputs[-1] = LegOutput(
        token_ids=outputs[-1].token_ids,
        text=outputs[-1].text,
        end=LegEnd(finish_reason=FinishReason.LENGTH),
        wait_s=outputs[-1].wait_s,
        first_token_s=outputs[-1].first_token_s,
    )
    return outputs


def silent(request: LegRequest) -> list[LegOutput]:
    """Gives nothing: the test emits."""
    del request
    return []


@dataclass(slots=True)
class FakeLeg:
    """A live leg: what it will say next."""

    request: LegRequest
    outputs: deque[LegOutput] = field(default_factory=deque)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    error: ReadaheadError | None = None
    said: int = 0
    """Output tokens so far, those made elsewhere included."""
    is_stopped: bool = False


class FakeEngine:
    """Runs each leg by a script, or says what the test tells it to say.

    Attributes:
        legs: those alive, by key.
        requests: every leg ever submitted, oldest first.
        aborted: keys of legs closed before their end, oldest first.
        renewed: every list of keys given to `renew_handovers`.
        reader_updates: everything given to `update_readers`, oldest first.
        policies: names given to `select_policy`, oldest first.
        verdicts: what the planner is said to have decided, until it is asked.
        released: every key given to `release_handovers`.
        handovers: keys of KV caches that wait to be pulled.
        resumed: every key of a stopped leg given to `resume_leg`, oldest first.
        offer_error: what `offer_leg` raises; None: it stops the leg.
        script: what a new leg says by itself; replace it at any time.
    """

    def __init__(
        self,
        script: Script = echo,
        *,
        requests_max: int = 128,
        context_tokens_max: int = 4096,
        kv_blocks: int = 1024,
        handover_lease_s: float = 30.0,
        model: str = "fake",
    ) -> None:
        self.script = script
        self.legs: dict[LegKey, FakeLeg] = {}
        self.requests: list[LegRequest] = []
        self.aborted: list[LegKey] = []
        self.renewed: list[list[LegKey]] = []
        self.released: list[LegKey] = []
        self.reader_updates: list[ReaderUpdate] = []
        self.policies: list[str] = []
        self.verdicts: list[tuple[LegKey, Verdict]] = []
        self.handovers: set[LegKey] = set()
        self.resumed: list[LegKey] = []
        self.offer_error: ReadaheadError | None = None
        self.closed = False
        self._dead = False
        self._transfers = 0
        self._description = EngineDescription(
            engine="fake",
            engine_version="0",
            model=model,
            context_tokens_max=context_tokens_max,
            block_tokens=16,
            kv_blocks=kv_blocks,
            requests_max=requests_max,
            handover_lease_s=handover_lease_s,
            moves_legs=True,
        )

    @property
    def description(self) -> EngineDescription:
        return self._description

    async def run(self, request: LegRequest) -> AsyncIterator[LegOutput]:
        if self._dead:
            raise ReadaheadError(Reason.ENGINE_FAILED, "the fake engine is dead")
        if len(request.prompt_token_ids) >= self._description.context_tokens_max:
            raise ReadaheadError(Reason.CONTEXT_TOO_LONG, "the prompt is too long")
        leg = FakeLeg(request, deque(self.script(request)), said=len(request.output_token_ids))
        self.requests.append(request)
        self.legs[request.key] = leg
        if request.leg is Leg.DECODE:
            self._transfers += 1
        is_over = False
        try:
            while not is_over:
                output = await self._next(leg)
                leg.said += len(output.token_ids)
                is_over = output.end is not None
                if output.end is not None and output.end.handover:
                    self.handovers.add(request.key)
                yield output
        finally:
            self.legs.pop(request.key, None)
            if leg.is_stopped:
                self.handovers.discard(request.key)
            if not is_over:
                self.aborted.append(request.key)

    async def _next(self, leg: FakeLeg) -> LegOutput:
        if leg.outputs:
            await asyncio.sleep(0)
        while (leg.is_stopped or not leg.outputs) and leg.error is None:
            leg.news.clear()
            await leg.news.wait()
        if leg.error is not None:
            raise leg.error
        return leg.outputs.popleft()

    def emit(self, key: LegKey, output: LegOutput) -> None:
        """Makes a live leg say this."""
        leg = self.legs[key]
        leg.outputs.append(output)
        leg.news.set()

    def step(self, tokens: int = 1) -> None:
        """One engine step: every live leg says `tokens` tokens in the same loop iteration."""
        for leg in self.legs.values():
            leg.outputs.append(LegOutput(token_ids=[7] * tokens, text=" x" * tokens))
            leg.news.set()

    def finish(self, key: LegKey, *, handover: bytes = b"") -> None:
        """Makes a live leg end well."""
        end = LegEnd(finish_reason=FinishReason.LENGTH, handover=handover)
        self.emit(key, LegOutput(end=end))

    def fail(self, key: LegKey, reason: Reason = Reason.ENGINE_FAILED) -> None:
        """Makes a live leg end with an error."""
        end = LegEnd(error_reason=reason, error_message="a test said so")
        self.emit(key, LegOutput(end=end))

    def die(self) -> None:
        """Fails every leg, and the engine for good."""
        self._dead = True
        for leg in self.legs.values():
            leg.error = ReadaheadError(Reason.ENGINE_FAILED, "the fake engine died")
            leg.news.set()

    def load(self) -> WorkerLoad:
        return WorkerLoad(
            running=len(self.legs),
            waiting=0,
            kv_blocks_free=self._description.kv_blocks - len(self.legs) - len(self.handovers),
        )

    def update_readers(self, updates: Iterable[ReaderUpdate]) -> None:
        self.reader_updates.extend(updates)

    def take_verdicts(self) -> Sequence[tuple[LegKey, Verdict]]:
        taken, self.verdicts = self.verdicts, []
        return taken

    async def select_policy(self, name: str, knobs: Mapping[str, float]) -> None:
        del knobs
        self.policies.append(name)

    async def inspect(self) -> EngineState:
        return EngineState(
            load=self.load(),
            handovers_held=len(self.handovers),
            transfers_total=self._transfers,
            transfer_bytes_total=self._transfers * 4096,
        )

    async def renew_handovers(self, keys: Iterable[LegKey]) -> Sequence[LegKey]:
        self.renewed.append(list(keys))
        return [key for key in self.renewed[-1] if key not in self.handovers]

    async def release_handovers(self, keys: Iterable[LegKey]) -> None:
        for key in keys:
            self.released.append(key)
            self.handovers.discard(key)

    async def offer_leg(self, key: LegKey) -> LegOffer:
        if self.offer_error is not None:
            raise self.offer_error
        leg = self.legs.get(key)
        if leg is None or not leg.said:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "it does not generate here")
        leg.is_stopped = True
        self.handovers.add(key)
        return LegOffer(handover=f"fake:{key[0]}.{key[1]}".encode(), output_tokens=leg.said)

    async def resume_leg(self, key: LegKey) -> None:
        leg = self.legs.get(key)
        if leg is not None and leg.is_stopped:
            leg.is_stopped = False
            self.handovers.discard(key)
            self.resumed.append(key)
            leg.news.set()

    async def is_healthy(self) -> bool:
        return not self._dead

    async def close(self) -> None:
        self.closed = True
        self.die()
