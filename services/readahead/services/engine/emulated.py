"""A stand-in for vLLM: real queues, KV accounting and transfers, modelled iteration times.

For scale tests of the router; labelled "emulated" wherever it appears. It ignores how tokens are
to be sampled, never makes an end-of-sequence token, and honours lengths and stop strings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from collections.abc import Sequence as Ids
from typing import Self

import structlog

from readahead.core.cluster import Role, WorkerLoad
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.latency.iteration import iteration_s
from readahead.core.planning.batch import Batch
from readahead.core.planning.policies.vllm_chunked import VllmChunked
from readahead.core.planning.policy import EngineLimits
from readahead.core.planning.sequence import Sequence
from readahead.core.promise import Verdict
from readahead.core.request import FinishReason, Leg
from readahead.runtime.clock import monotonic_s
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine.emulated_leg import (
    EmulatedLeg,
    failed,
    sequence_of,
    stop_matcher_of,
)
from readahead.services.engine.emulated_link import (
    BLOCK_WIRE_BYTES,
    Handover,
    Handovers,
    pull,
    serve_pull,
)
from readahead.services.engine.emulated_profile import EmulatedProfile
from readahead.services.engine.emulated_text import checksum
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
from readahead.services.engine.vllm_scheduler_names import STOCK, make_engine_policy

LATE_S_MAX = 0.25
"""An engine later than this drops the time it lost: a machine that stalled does not make it catch
up in a burst."""

_log = structlog.get_logger()


class EmulatedEngine:
    """Implements Engine. One task runs the iterations; a task for each KV pull."""

    def __init__(self, profile: EmulatedProfile, *, role: Role, kv: KvConfig | None = None) -> None:
        self._profile = profile
        self._kv = kv or KvConfig()
        self._role = role
        self._batch = Batch(
            limits=EngineLimits(
                kv_blocks=profile.kv_blocks,
                block_tokens=profile.block_tokens,
                requests_max=profile.requests_max,
                batch_tokens_max=profile.batch_tokens_max,
                latency=profile.latency,
            ),
            policy=VllmChunked(batch_tokens=profile.batch_tokens_max),
        )
        self._zero_load = profile.zero_load()
        self._handovers = Handovers(
            lease_s=float(self._kv.lease_s), now=monotonic_s, give=self._give
        )
        self._legs: dict[Sequence, EmulatedLeg] = {}
        self._verdicts: list[tuple[LegKey, Verdict]] = []
        self._news = asyncio.Event()
        self._source = ""
        self._transfers = 0
        self._transfer_bytes = 0
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, config: EngineConfig, kv: KvConfig, role: Role) -> Self:
        """Makes one and runs it."""
        engine = cls(EmulatedProfile.load(config), role=role, kv=kv)
        if config.policy != STOCK:
            await engine.select_policy(config.policy, config.policy_knobs)
        await engine.open()
        return engine

    async def open(self) -> None:
        """Runs the engine until `close`."""
        server = await asyncio.start_server(
            self._serve_pull, self._kv.side_channel_host, self._kv.side_channel_port
        )
        port = server.sockets[0].getsockname()[1]
        self._source = f"{self._kv.side_channel_host}:{port}"
        # Owned here and awaited by close(): the engine outlives its starter's scope, so no
        # TaskGroup can hold it.
        self._task = asyncio.get_running_loop().create_task(self._main(server))
        self._task.add_done_callback(self._fail_all)

    @property
    def description(self) -> EngineDescription:
        return EngineDescription(
            engine="emulated",
            engine_version=self._profile.latency.name,
            model=self._profile.model,
            context_tokens_max=self._profile.context_tokens_max,
            block_tokens=self._profile.block_tokens,
            kv_blocks=self._profile.kv_blocks,
            requests_max=self._profile.requests_max,
            handover_lease_s=float(self._kv.lease_s) if self._role is Role.PREFILL else 0.0,
            moves_legs=True,
            zero_load=self._zero_load,
        )

    async def run(self, request: LegRequest) -> AsyncIterator[LegOutput]:
        leg = self._admit(request)
        is_over = False
        try:
            while not is_over:
                output = await leg.news()
                is_over = output.end is not None
                yield output
        finally:
            is_unheard = leg.end is not None and leg.end.handover and not is_over
            if is_unheard or leg.is_offered:
                self._handovers.release([request.key])  # nobody will pull it any more
            self._legs.pop(leg.sequence, None)
            self._batch.end(leg.sequence)
            self._news.set()

    def load(self) -> WorkerLoad:
        return WorkerLoad(
            running=len(self._batch.running),
            waiting=len(self._batch.waiting) + len(self._batch.pulling),
            kv_blocks_free=self._batch.blocks_free,
        )

    def update_readers(self, updates: Iterable[ReaderUpdate]) -> None:
        legs = {leg.request.key: leg for leg in self._legs.values()}
        for update in updates:
            leg = legs.get(update.key)
            if leg is not None and leg.promise is None and update.pace_tok_s is not None:
                leg.sequence.pace_tok_s = update.pace_tok_s

    def take_verdicts(self) -> Ids[tuple[LegKey, Verdict]]:
        taken, self._verdicts = self._verdicts, []
        return taken

    async def select_policy(self, name: str, knobs: Mapping[str, float]) -> None:
        try:
            self._batch.policy = make_engine_policy(name, knobs) or VllmChunked()
        except ValueError as error:
            raise ReadaheadError(Reason.INVALID_REQUEST, str(error), parameter="policy") from error

    async def inspect(self) -> EngineState:
        return EngineState(
            load=self.load(),
            handovers_held=len(self._handovers),
            transfers_total=self._transfers,
            transfer_bytes_total=self._transfer_bytes,
        )

    async def renew_handovers(self, keys: Iterable[LegKey]) -> Ids[LegKey]:
        return self._handovers.renew(keys)

    async def release_handovers(self, keys: Iterable[LegKey]) -> None:
        self._handovers.release(keys)

    async def offer_leg(self, key: LegKey) -> LegOffer:
        leg = self._leg(key)
        if leg is None or leg.end is not None or leg.sequence not in self._batch.running:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "the leg does not generate here")
        if not leg.output_tokens or leg.request.leg is Leg.PREFILL:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "the leg has made no token yet")
        sequence = leg.sequence
        blocks, sequence.blocks = sequence.blocks, 0  # kept, where `end` would free them
        self._batch.end(sequence)
        handover = self._keep(leg, tokens=sequence.known, blocks=blocks)
        leg.is_offered = True
        return LegOffer(handover=handover, output_tokens=leg.output_tokens)

    async def resume_leg(self, key: LegKey) -> None:
        leg = self._leg(key)
        if leg is None or not leg.is_offered:
            return
        del self._legs[leg.sequence]
        blocks = self._handovers.take_back(key)
        made = leg.output_tokens
        sequence = sequence_of(
            leg.request,
            made=made,
            output_tokens_max=leg.made_before + leg.sequence.output_tokens_max,
            is_pulled=False,
            now=monotonic_s(),
        )
        leg.go_on_as(sequence)
        leg.made_before, leg.is_offered = made, False
        self._legs[leg.sequence] = leg
        if blocks:
            leg.sequence.blocks, leg.sequence.computed = blocks, leg.sequence.known - 1
            self._batch.running.append(leg.sequence)
        else:  # another engine has pulled it, and was lost: it is computed again
            self._batch.add(leg.sequence)
        self._news.set()

    async def is_healthy(self) -> bool:
        return self._task is not None and not self._task.done()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def check(self) -> None:
        """Asserts that every KV block is accounted for."""
        self._batch.check(held_blocks=self._handovers.blocks)

    def _leg(self, key: LegKey) -> EmulatedLeg | None:
        return next((leg for leg in self._legs.values() if leg.request.key == key), None)

    def _admit(self, request: LegRequest) -> EmulatedLeg:
        self._check(request)
        room = self._profile.context_tokens_max - len(request.prompt_token_ids)
        made = len(request.output_token_ids)
        state, now = checksum(request.prompt_token_ids), monotonic_s()
        state = checksum(request.output_token_ids, before=state)
        leg = EmulatedLeg(
            request=request,
            sequence=sequence_of(
                request,
                made=made,
                output_tokens_max=min(request.sampling.max_tokens, room),
                is_pulled=request.leg is Leg.DECODE,
                now=now,
            ),
            state=state,
            stop=stop_matcher_of(request),
            submitted_at=now,
            handover=_handover(request, checksum_so_far=state),
            made_before=made,
        )
        self._legs[leg.sequence] = leg
        self._batch.add(leg.sequence)
        self._news.set()
        return leg

    def _check(self, request: LegRequest) -> None:
        prompt_tokens = len(request.prompt_token_ids)
        if self._task is None or self._task.done():
            raise ReadaheadError(Reason.ENGINE_FAILED, "the engine has stopped")
        if prompt_tokens == 0:
            raise ReadaheadError(Reason.INVALID_REQUEST, "the prompt is empty", parameter="prompt")
        room = self._profile.context_tokens_max - prompt_tokens
        if room < 1:
            raise ReadaheadError(
                Reason.CONTEXT_TOO_LONG,
                f"the prompt has {prompt_tokens} tokens, which leaves no room for output in a "
                f"context of {self._profile.context_tokens_max}",
                parameter="prompt",
            )
        if len(request.output_token_ids) >= min(request.sampling.max_tokens, room):
            raise ReadaheadError(
                Reason.INVALID_REQUEST, "its output is whole", parameter="output_token_ids"
            )
        if request.leg is Leg.PREFILL and self._role is not Role.PREFILL:
            raise ReadaheadError(Reason.UNSUPPORTED, "a decode worker makes no handovers")

    async def _main(self, server: asyncio.Server) -> None:
        try:
            async with asyncio.TaskGroup() as pulls:
                await self._iterate(pulls)
        finally:
            server.close()

    async def _iterate(self, pulls: asyncio.TaskGroup) -> None:
        deadline = monotonic_s()
        while True:
            self._handovers.expire()
            plan = self._batch.plan(monotonic_s())
            self._note_verdicts()
            for sequence in plan.pulls:
                pulls.create_task(self._pull(self._legs[sequence]))
            if not plan.entries:
                await self._wait_news()
                deadline = monotonic_s()
                continue
            now = monotonic_s()
            for sequence, _ in plan.entries:
                leg = self._legs[sequence]
                if leg.scheduled_at is None:
                    leg.scheduled_at = now
            # Each end is counted from the last one's, so that late wake-ups do not add up.
            took_s = iteration_s(plan.work, model=self._profile.latency)
            deadline = max(deadline, now - LATE_S_MAX) + took_s
            await asyncio.sleep(max(0.0, deadline - now))
            for sequence in self._batch.commit(plan):
                self._deliver(self._legs[sequence])

    def _note_verdicts(self) -> None:
        for leg in self._legs.values():
            if leg.verdict is not leg.sequence.verdict:
                leg.verdict = leg.sequence.verdict
                self._verdicts.append((leg.request.key, leg.verdict))

    async def _wait_news(self) -> None:
        """Waits until something may have changed, the end of a lease included."""
        self._news.clear()
        expires_at = self._handovers.next_expiry()
        delay_s = None if expires_at is None else max(0.0, expires_at - monotonic_s())
        try:
            async with asyncio.timeout(delay_s):
                await self._news.wait()
        except TimeoutError:
            return

    def _deliver(self, leg: EmulatedLeg) -> None:
        if leg.sequence.generated == 1:
            leg.time_first_token(monotonic_s())
        if leg.request.leg is Leg.PREFILL:
            blocks = self._batch.end_keeping_kv(leg.sequence)
            handover = self._keep(leg, tokens=leg.sequence.prompt_tokens, blocks=blocks)
            leg.say_end(LegEnd(finish_reason=FinishReason.LENGTH, handover=handover))
            return
        leg.say_token(vocabulary_tokens=self._profile.vocabulary_tokens, now=monotonic_s())
        if leg.end is not None:
            self._batch.end(leg.sequence)

    def _keep(self, leg: EmulatedLeg, *, tokens: int, blocks: int) -> bytes:
        """Holds a leg's KV for another worker; returns what that one needs."""
        request_id, attempt = leg.request.key
        handover = Handover(
            request_id=request_id,
            attempt=attempt,
            source=self._source,
            prompt_tokens=tokens,
            prompt_checksum=leg.state,
            wire_bytes=blocks * BLOCK_WIRE_BYTES,
        )
        self._handovers.keep(handover, blocks=blocks)
        return handover.encode()

    async def _pull(self, leg: EmulatedLeg) -> None:
        """Gets a prompt's KV; where that fails, the prompt is computed here instead."""
        assert leg.handover is not None
        lands_at = monotonic_s() + self._profile.transfer_s(leg.handover.prompt_tokens)
        has_kv = True
        try:
            await pull(leg.handover)
            self._transfers += 1
            self._transfer_bytes += leg.handover.wire_bytes
            await asyncio.sleep(max(0.0, lands_at - monotonic_s()))
        except ReadaheadError as error:
            has_kv = False
            _log.warning("kv_pull_failed", request_id=leg.request.key[0], cause=error.message)
        if not leg.sequence.is_ended:
            self._batch.pulled(leg.sequence, has_kv=has_kv)
            self._news.set()

    async def _serve_pull(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_pull(reader, writer, handovers=self._handovers)

    def _give(self, blocks: int) -> None:
        self._batch.give(blocks)
        self._news.set()

    def _fail_all(self, task: asyncio.Task[None]) -> None:
        """Ends every leg when the engine has ended."""
        cause = "the engine was closed"
        if not task.cancelled() and (error := task.exception()) is not None:
            cause = f"the engine failed: {error}"
            _log.error("engine_failed", engine="emulated", exc_info=error)
        for leg in self._legs.values():
            leg.say_end(failed(cause))


def _handover(request: LegRequest, *, checksum_so_far: int) -> Handover | None:
    """What a decode leg is to pull.

    Raises:
        ReadaheadError: INVALID_REQUEST; it cannot be read, or belongs to another prompt.
    """
    if request.leg is not Leg.DECODE:
        return None
    handover = Handover.decode(request.handover)
    if handover.prompt_checksum != checksum_so_far:
        raise ReadaheadError(
            Reason.INVALID_REQUEST, "the handover is that of another prompt", parameter="handover"
        )
    return handover
