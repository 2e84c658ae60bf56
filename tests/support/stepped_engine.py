"""A real vLLM engine with our scheduler, stepped by hand in a process of its own.

What runs there are functions of `scheduler_scenarios`, which take the engine first. In a process
of its own since vLLM freezes its view of the environment where an engine core lives.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

from drafting_engine import ADAPTIVE, drafting_arguments, force_async

P = ParamSpec("P")
R = TypeVar("R")

LIMIT_S = 150.0
SCHEDULER = "readahead.services.engine.vllm_scheduler.ReadaheadScheduler"
KV_BYTES = 24 << 20
"""48 blocks of 128 tokens in float32."""
HOST_BYTES = 64 << 20
PARKING = {"readahead_scheduler": {"latency_profile": "tiny-cpu", "planner_budget_s": 10.0}}
"""Nobody is parked by a plan that cannot tell what it costs; and no plan is late by chance."""


class SteppedEngine:
    """An engine core in this process: `step` is one iteration."""

    def __init__(self, *, is_async: bool, parks: bool, drafts: str | None = None) -> None:
        from readahead.services.engine.vllm_environment import prepare_environment

        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        prepare_environment()
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        from readahead.cli.up import tiny_model
        from readahead.services.engine.vllm_setup import preload_model

        model = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
        preload_model(model)
        if is_async:
            force_async()
        arguments: dict[str, Any] = {"scheduler_cls": SCHEDULER, "enable_prefix_caching": False}
        additional = PARKING if parks else {}
        if drafts is not None:
            arguments = drafting_arguments(drafts)
            additional = additional | ADAPTIVE
        config = EngineArgs(
            model=model,
            dtype="float32",
            enforce_eager=True,
            kv_cache_memory_bytes=KV_BYTES,
            distributed_executor_backend="uni",
            max_num_batched_tokens=2048,
            max_num_seqs=64,
            kv_transfer_config=_kv_transfer_config() if parks else None,
            additional_config=additional,
            **arguments,
        ).create_engine_config()
        self.llm: Any = LLMEngine.from_vllm_config(config)
        self.scheduler: Any = self.llm.engine_core.engine_core.scheduler
        self.answers: dict[str, list[int]] = {}
        self.handovers: dict[str, dict[str, Any]] = {}
        """What another engine needs to go on, by the prefill leg that has ended."""
        self.first_at: dict[str, int] = {}
        """Iteration that brought a request's first token."""
        self.iterations = 0
        self._seen: dict[str, list[int]] = {}

    def add(
        self,
        name: str,
        prompt: list[int],
        *,
        tokens: int,
        facts: dict[str, Any] | None = None,
        transfer: dict[str, Any] | None = None,
    ) -> None:
        """Submits a greedy request; it ends after so many tokens.

        Args:
            transfer: vLLM's parameters for a KV cache that another engine has, or is to have.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        extra: dict[str, Any] = {}
        if facts:
            extra["readahead"] = facts
        if transfer:
            extra["kv_transfer_params"] = dict(transfer)
        params = SamplingParams(
            temperature=0.0,
            max_tokens=tokens,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
            extra_args=extra or None,
        )
        self._seen[name] = []
        self.llm.add_request(name, {"prompt_token_ids": prompt}, params)

    def abort(self, name: str) -> None:
        """Ends a request."""
        self.llm.abort_request([name])
        self._seen.pop(name, None)

    def step(self) -> None:
        """One iteration."""
        self.iterations += 1
        for output in self.llm.step():
            name = output.request_id
            self.first_at.setdefault(name, self.iterations)
            self._seen[name].extend(output.outputs[0].token_ids)
            if output.finished:
                self.answers[name] = self._seen.pop(name)
                if output.kv_transfer_params:
                    self.handovers[name] = output.kv_transfer_params

    @property
    def is_busy(self) -> bool:
        """Whether a request is unfinished."""
        return bool(self.llm.has_unfinished_requests())

    def finish(self, *, steps_max: int = 5000) -> None:
        """Steps until all have ended."""
        for _ in range(steps_max):
            if not self.is_busy:
                return
            self.step()
        raise AssertionError(f"not over after {steps_max} iterations")

    def take(self) -> dict[str, list[int]]:
        """Answers since the last call."""
        answers, self.answers = self.answers, {}
        return answers

    def left(self) -> tuple[int, int, int]:
        """Sequences that are still known, requests in the queues, blocks that are not free."""
        scheduler = self.scheduler
        for _ in range(3):  # the engine hears of ends a step later
            self.llm.engine_core.engine_core.step_fn()
        pool = scheduler.kv_cache_manager.block_pool
        queued = len(scheduler.running) + len(scheduler.waiting) + len(scheduler.kv_holding_waiting)
        return (
            len(scheduler._sequences),
            queued,
            int(scheduler.cache_config.num_gpu_blocks) - 1 - pool.get_num_free_blocks(),
        )


def _kv_transfer_config() -> Any:
    """Of the connector that keeps what is parked."""
    from readahead.core.cluster import Role
    from readahead.services.config import KvConfig
    from readahead.services.engine.vllm_setup import _kv_transfer_config

    return _kv_transfer_config(KvConfig(backend="grpc", host_bytes=HOST_BYTES), Role.DECODE)


def prompts_of(count: int, *, seed: int, most: int) -> list[list[int]]:
    """Prompts of random length that share no block."""
    rng = random.Random(seed)
    return [
        [rng.randrange(5, 2000) for _ in range(rng.randrange(3, most + 1))] for _ in range(count)
    ]


class RemoteEngine:
    """The engine in its process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def do(
        self,
        scenario: Callable[Concatenate[SteppedEngine, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Runs a scenario there and returns what it returns."""
        self._connection.send((scenario, args, kwargs))
        assert self._connection.poll(LIMIT_S), f"no answer within {LIMIT_S:g} s"
        is_well, result = self._connection.recv()
        assert is_well, result
        answer: R = result
        return answer


@contextmanager
def stepped_engine(*, is_async: bool, parks: bool = False) -> Iterator[RemoteEngine]:
    """Starts one, with host memory to park in or without, and ends it."""
    with stepped_engines(1, is_async=is_async, parks=parks) as [engine]:
        yield engine


@contextmanager
def stepped_engines(
    count: int, *, is_async: bool, parks: bool = False, drafts: str | None = None
) -> Iterator[list[RemoteEngine]]:
    """Starts some, at once, and ends them.

    Args:
        count: how many.
        is_async: asynchronous scheduling is forced on.
        parks: each has host memory to park in, and to hand over.
        drafts: a folder of a model that drafts; empty: they draft by n-grams; None: not at all.
    """
    arguments = {"is_async": is_async, "parks": parks, "drafts": drafts}
    with ExitStack() as stack:
        connections = [stack.enter_context(_process(arguments)) for _ in range(count)]
        for connection in connections:
            assert connection.poll(LIMIT_S), f"no engine within {LIMIT_S:g} s"
            assert connection.recv() == "ready"
        yield [RemoteEngine(connection) for connection in connections]


@contextmanager
def _process(arguments: dict[str, Any]) -> Iterator[Connection]:
    """Returns before the engine can be used."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(connection: Connection, arguments: dict[str, Any]) -> None:
    import traceback

    engine = SteppedEngine(**arguments)
    connection.send("ready")
    while True:
        try:
            scenario, args, kwargs = connection.recv()
        except EOFError:
            os._exit(0)  # vLLM's own way out takes seconds
        try:
            connection.send((True, scenario(engine, *args, **kwargs)))
        except Exception:
            connection.send((False, traceback.format_exc()))
