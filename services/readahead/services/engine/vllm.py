"""The engine that is vLLM: one `AsyncLLM`, whose engine core is a process of its own."""

# ruff: noqa: E402  # the environment comes before the imports that read it

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from readahead.services.engine.vllm_environment import (
    prepare_environment,
    side_channel,
    start_method_kept,
    variable_set,
)

prepare_environment()

from vllm import __version__ as vllm_version
from vllm.inputs.engine import tokens_input
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from readahead.core.cluster import Role, WorkerLoad
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.promise import Verdict
from readahead.core.request import Leg, RequestId
from readahead.runtime.clock import monotonic_s
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine import vllm_handover, vllm_moved, vllm_request
from readahead.services.engine.engine import (
    EngineDescription,
    EngineState,
    LegKey,
    LegOffer,
    LegOutput,
    LegRequest,
    ReaderUpdate,
)
from readahead.services.engine.vllm_internals import check_internals
from readahead.services.engine.vllm_scheduler_belief import zero_load_of
from readahead.services.engine.vllm_scheduler_sequences import leg_facts
from readahead.services.engine.vllm_setup import (
    LoadLogger,
    keeps_copies,
    model_name,
    usable_blocks,
    vllm_config,
)
from readahead.services.engine.vllm_slack import BOARD_VARIABLE, ReaderNews, SlackBoard, Slot

_CLEANUP_S_MAX = 5.0
"""Longest wait for the core to take a release; a core that is stuck longer is killed anyway."""
_SETTLE_LOOKS_MAX = 8
"""Looks at a leg that has stopped, a step apart. With asynchronous scheduling its last tokens come
a step or two later."""


def engine_request_id(key: LegKey) -> str:
    """The id a leg has in the engine."""
    request_id, attempt = key
    return f"{request_id}.{attempt}"


def leg_key(engine_id: str) -> LegKey:
    """The inverse of `engine_request_id`."""
    request_id, attempt = engine_id.rsplit(".", 1)
    return RequestId(request_id), int(attempt)


class VllmEngine:
    """Implements `Engine`. Made by `start`; belongs to the event loop it was started in."""

    def __init__(
        self, llm: AsyncLLM, load: LoadLogger, description: EngineDescription, board: SlackBoard
    ) -> None:
        self._llm: AsyncLLM | None = llm
        """None once closed; dropped then, since vLLM's own destructor fails at a process's end."""
        self._load = load
        self._description = description
        self._board = board
        self._slots: dict[LegKey, Slot] = {}
        self._running: dict[LegKey, LegRequest] = {}
        self._offered: set[LegKey] = set()
        self._vocabulary_tokens: int = llm.model_config.get_vocab_size()

    @classmethod
    async def start(cls, config: EngineConfig, kv: KvConfig, role: Role) -> VllmEngine:
        """Starts the engine core and returns when it can serve.

        Holds the event loop meanwhile: nothing else runs in a worker before its engine does.
        The core is forked iff VLLM_WORKER_MULTIPROC_METHOD says so, else spawned (on a GPU, what
        vLLM chooses).

        Raises:
            RuntimeError: the engine does not start, or this is not the vLLM that is relied on.
        """
        check_internals()
        loads: list[LoadLogger] = []

        def load_logger(settings: Any, engine_index: int) -> LoadLogger:
            loads.append(LoadLogger(settings, engine_index))
            return loads[-1]

        board = SlackBoard(config.requests_max)
        try:
            with (
                side_channel(kv.side_channel_host, kv.side_channel_port),
                variable_set(BOARD_VARIABLE, board.path),
                start_method_kept(),
            ):
                settings = vllm_config(config, kv, role)
                llm = AsyncLLM.from_vllm_config(settings, stat_loggers=[load_logger])
            # Asked by the first leg else, which would wait for ever if the core died meanwhile.
            await llm.get_supported_tasks()
        except BaseException:
            board.close()
            raise
        description = EngineDescription(
            engine="vllm",
            engine_version=vllm_version,
            model=model_name(config),
            context_tokens_max=llm.model_config.max_model_len,
            block_tokens=settings.cache_config.block_size,
            kv_blocks=usable_blocks(settings),
            requests_max=settings.scheduler_config.max_num_seqs,
            handover_lease_s=float(kv.lease_s) if role is Role.PREFILL else 0.0,
            moves_legs=keeps_copies(settings),
            kv_transport="" if kv.backend == "auto" else kv.backend,
            zero_load=zero_load_of(
                config.latency_profile,
                context_tokens_max=llm.model_config.max_model_len,
                batch_tokens_max=config.batch_tokens_max,
                delivery_lag_s=config.delivery_lag_s,
            ),
        )
        return cls(llm, loads[0], description, board)

    @property
    def description(self) -> EngineDescription:
        """What this engine is."""
        return self._description

    async def run(self, request: LegRequest) -> AsyncIterator[LegOutput]:
        """Runs a leg; see `Engine.run`."""
        vllm_request.check_prompt(
            request, self._description, vocabulary_tokens=self._vocabulary_tokens
        )
        llm, slot = self._live(), self._board.open_slot()
        facts = leg_facts(
            pace_tok_s=request.pace_tok_s,
            arrived_at=monotonic_s() if request.arrived_at is None else request.arrived_at,
            slot=slot,
            promise=request.promise,
            verdict=request.verdict,
        )
        is_first, is_ended = True, False
        token_ids = [*request.prompt_token_ids, *request.output_token_ids]
        text: asyncio.Task[vllm_moved.MovedText] | None = None
        try:
            params = vllm_request.sampling_params(request, self._description, facts=facts)
            self._running[request.key] = request
            if slot is not None:
                self._slots[request.key] = slot
            outputs = llm.generate(
                tokens_input(token_ids),
                params,
                engine_request_id(request.key),
            )
            if request.output_token_ids:  # runs once the core has the leg
                text = asyncio.create_task(vllm_moved.moved_text(llm.tokenizer, request))
            async with aclosing(outputs):
                async for output in outputs:
                    news = vllm_request.leg_output(request.leg, output, is_first=is_first)
                    is_first = is_first and not output.outputs[0].token_ids
                    if text is not None:
                        stopped = output.outputs[0].finish_reason == "stop"
                        news = (await text).told(news, ends_on_token=stopped)
                    is_ended = news.end is not None
                    yield news
                    if is_ended and not output.finished:
                        break  # by a stop string that vLLM does not know of
        except vllm_request.ENGINE_ERRORS as error:
            raise vllm_request.translated(error, is_engine_dead=llm.errored) from error
        finally:
            if text is not None:
                text.cancel()
            if slot is not None:
                self._slots.pop(request.key, None)
                self._board.close_slot(slot)
            self._running.pop(request.key, None)
            is_offered = request.key in self._offered
            self._offered.discard(request.key)
            if is_offered or (request.leg is Leg.PREFILL and not is_ended):
                # The prompt may have been done before the abort reached the core; its KV would
                # then wait for a pull that never comes.
                # So would that of a leg that stopped for a move: who moves has pulled it by now.
                await self._release_quietly(request.key)

    def load(self) -> WorkerLoad:
        """The load as of the last step."""
        return self._load.load

    def update_readers(self, updates: Iterable[ReaderUpdate]) -> None:
        """Writes to the memory that the engine core looks at; no system call."""
        for update in updates:
            slot = self._slots.get(update.key)
            if slot is not None:
                read = update.tokens_read
                news = ReaderNews(
                    slot=slot,
                    pace_tok_s=update.pace_tok_s or 0.0,
                    tokens_read=-1 if read is None else read,
                    at_s=update.at,
                )
                self._board.write(news)

    def take_verdicts(self) -> Sequence[tuple[LegKey, Verdict]]:
        """What the core has decided about legs since the last call."""
        return self._board.verdicts(self._slots)

    async def select_policy(self, name: str, knobs: Mapping[str, float]) -> None:
        """Takes effect between two iterations of the core."""
        problem = await self._call("readahead_policy", name, dict(knobs))
        if problem:
            raise ReadaheadError(Reason.INVALID_REQUEST, problem, parameter="policy")

    async def inspect(self) -> EngineState:
        """Reads the core's own books."""
        state = await self._call("readahead_inspect")
        return EngineState(
            load=WorkerLoad(
                running=state["running"],
                waiting=state["waiting"],
                kv_blocks_free=state["kv_blocks_free"],
            ),
            handovers_held=state["handovers_held"],
            transfers_total=state["transfers_total"],
            transfer_bytes_total=state["transfer_bytes_total"],
            plan=self._board.report(),
        )

    async def renew_handovers(self, keys: Iterable[LegKey]) -> Sequence[LegKey]:
        """Extends leases to two thirds of their full length from now; returns unknown keys."""
        unknown = await self._call("readahead_renew", [engine_request_id(key) for key in keys])
        return [leg_key(each) for each in unknown]

    async def release_handovers(self, keys: Iterable[LegKey]) -> None:
        """Frees KV that nobody will pull, at the core's next step."""
        await self._call("readahead_release", [engine_request_id(key) for key in keys])

    async def offer_leg(self, key: LegKey) -> LegOffer:
        """Parks a leg, and has its copy in host memory wait for another engine."""
        request = self._running.get(key)
        if request is None:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "The leg does not run here.")
        if not self._description.moves_legs:
            raise ReadaheadError(Reason.UNSUPPORTED, "Moving a leg needs the gRPC KV connector.")
        vllm_moved.check_movable(request)
        engine_id = engine_request_id(key)
        self._offered.add(key)
        parked, params, legs = await self._call_in_order(
            ("readahead_park", [engine_id]),
            ("readahead_offer", engine_id),
            ("readahead_parked",),
        )
        if refusal := parked[engine_id]:
            self._offered.discard(key)
            raise ReadaheadError(Reason(refusal), "The engine does not let the leg stop.")
        if not params:
            raise ReadaheadError(Reason.ENGINE_FAILED, "The engine has not kept the leg's KV.")
        tokens = await self._settled_tokens(engine_id, legs)
        # Drafts that came to nothing have left KV behind the last token but one that is not its.
        params["remote_num_tokens"] = min(params["remote_num_tokens"], tokens - 1)
        return LegOffer(
            handover=vllm_handover.encode(params),
            output_tokens=tokens - len(request.prompt_token_ids),
        )

    async def resume_leg(self, key: LegKey) -> None:
        """Takes a parked leg back; its copy is loaded as soon as there are blocks for it."""
        if key in self._offered:
            self._offered.discard(key)
            await self._call("readahead_resume", [engine_request_id(key)])

    async def is_healthy(self) -> bool:
        """Iff the engine core lives and its output is read."""
        return self._llm is not None and not self._llm.errored

    async def close(self) -> None:
        """Stops the engine core. Legs that still run end with ENGINE_FAILED. Idempotent."""
        if self._llm is None:
            return
        # The core does not end by itself while it holds handovers.
        try:
            async with asyncio.timeout(_CLEANUP_S_MAX):
                await self._call("readahead_release_all")
        except (TimeoutError, ReadaheadError):
            pass  # shutdown kills what does not answer
        llm, self._llm = self._live(), None
        # vLLM's reader of outputs would report the core's end as a crash.
        if llm.output_handler is not None:
            llm.output_handler.cancel()
        llm.output_processor.propagate_error(EngineDeadError())
        await asyncio.to_thread(llm.shutdown)
        # vLLM leaves its ZeroMQ context, two threads and their files, to the garbage collector.
        # The one that owns them is ended, not its asyncio shadow `engine_core.ctx`: after a
        # shadow's end the owner would end the freed context once more when it is collected.
        await asyncio.to_thread(llm.engine_core.resources.ctx.destroy, 0)
        self._board.close()

    async def _settled_tokens(self, engine_id: str, legs: Mapping[str, Any]) -> int:
        """Prompt and output of a parked leg, once no token is under way.

        Args:
            engine_id: the leg's.
            legs: what is parked, as of its park.
        """
        for _ in range(_SETTLE_LOOKS_MAX):
            if (leg := legs.get(engine_id)) is None:
                raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "The leg has just ended.")
            if not leg["in_flight_tokens"]:
                return int(leg["tokens"])
            legs = await self._call("readahead_parked")
        raise ReadaheadError(Reason.ENGINE_FAILED, "The leg's last tokens did not come.")

    def _live(self) -> AsyncLLM:
        if self._llm is None:
            raise ReadaheadError(Reason.ENGINE_FAILED, "The engine is closed.")
        return self._llm

    async def _release_quietly(self, key: LegKey) -> None:
        try:
            async with asyncio.timeout(_CLEANUP_S_MAX):
                await self.release_handovers([key])
        except (TimeoutError, ReadaheadError):
            pass  # the lease frees it, or the engine is dead and holds nothing

    async def _call_in_order(self, *calls: tuple[Any, ...]) -> list[Any]:
        """Utility calls that are sent at once and run one after the other."""
        failure: BaseException | None = None
        running: list[asyncio.Task[Any]] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self._call(*each)) for each in calls]
        except* ReadaheadError as errors:
            failure = errors.exceptions[0]
        if failure is not None:
            raise failure
        return [each.result() for each in running]

    async def _call(self, method: str, *args: Any) -> Any:
        """Runs a utility call in the engine core, between two steps."""
        try:
            return await self._live().engine_core.call_utility_async(method, *args)
        except EngineDeadError as error:
            raise ReadaheadError(Reason.ENGINE_FAILED, "The engine is dead.") from error
