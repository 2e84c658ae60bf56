"""For how long a running request makes no token while it moves to another worker.

    python benchmarks/bench_migration.py [--contexts 256,1024,2048,3500] [--moves 10] [--others 0]

Two vLLM decode workers on this machine and a router over them, all of it on loopback, KV caches
over gRPC. One reader is sent from one worker to the other and back; a downtime is the gap between
two tokens of his in which a move was committed. Aims: p50 within two iterations and 10 ms; within
20 % of that at 256 tokens for any context up to 4k. Blocks are those of the tiny model: 2 KiB a
token. The engines take 20 s to start.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import warnings
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

os.environ.setdefault("OMP_NUM_THREADS", "1")

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role
from readahead.core.config import CoreConfig, MigrationConfig
from readahead.core.placement.decoder import Decoder
from readahead.core.placement.migration import MigrationPolicy
from readahead.core.placement.triggers import Move, move
from readahead.core.request import RequestId
from readahead.router import app
from readahead.router.config import DoorsConfig, ModelConfig, RouterConfig
from readahead.router.sessions import Call, Sampling
from readahead.runtime import logs
from readahead.runtime.clock import monotonic_s
from readahead.runtime.config import MembershipConfig, TelemetryConfig
from readahead.services.config import EngineConfig, KvConfig, WorkerConfig
from readahead.services.worker.server import running

TOKENS_BETWEEN = 16
"""From one move to the next."""
VOCABULARY_TOKENS = 2048


@dataclass(slots=True)
class Commanded:
    """A trigger that sends one reader away when it is told to."""

    wanted: RequestId | None = None

    def choose(self, decoders: Sequence[Decoder], *, now: float) -> list[Move]:
        """The one wanted, to the other worker."""
        del now
        for source, target in ((0, 1), (1, 0)):
            for request in list(decoders[source].readers):
                if request.request_id == self.wanted and request.is_movable:
                    self.wanted = None
                    return [move(request, decoders[source], decoders[target], "to measure it")]
        return []


@dataclass(slots=True)
class Seen:
    """What one reader got."""

    gaps_s: list[float] = field(default_factory=list)
    downtimes_s: list[float] = field(default_factory=list)


async def read(router: app.Router, trigger: Commanded, *, context: int, moves: int) -> Seen:
    """One request that is moved so many times, each time after some tokens."""
    draw = random.Random(context)
    tokens = (moves + 1) * TOKENS_BETWEEN + 8
    call = Call(
        request_id=RequestId(f"c{context}"),
        model="",
        prompt_token_ids=[draw.randrange(VOCABULARY_TOKENS) for _ in range(context)],
        sampling=Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True),
    )
    session = await router.sessions.open(call)
    seen, made, at, moved = Seen(), 0, 0.0, 0
    while True:
        chunk = await session.next_chunk()
        now = monotonic_s()
        if made:
            is_move = session.moves > moved
            (seen.downtimes_s if is_move else seen.gaps_s).append(now - at)
            moved = session.moves
        made, at = made + len(chunk.token_ids), now
        if chunk.finish is not None:
            return seen
        if made >= TOKENS_BETWEEN * (moved + 1) and trigger.wanted is None and moved < moves:
            trigger.wanted = call.request_id


async def keep_busy(router: app.Router, index: int) -> None:
    """Somebody else, for as long as the measurement lasts."""
    while True:
        call = Call(
            request_id=RequestId(f"other{index}-{monotonic_s():.6f}"),
            model="",
            prompt_token_ids=[index + 1] * 64,
            sampling=Sampling(max_tokens=256, temperature=0.0, ignore_eos=True),
        )
        session = await router.sessions.open(call)
        while (await session.next_chunk()).finish is None:
            pass


async def measure(contexts: Sequence[int], *, moves: int, others: int) -> None:
    """Starts everything, and prints a line for each context."""
    warnings.simplefilter("ignore")
    from readahead.services.engine.vllm import VllmEngine

    model = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
    engine = EngineConfig(model_path=model, model_name="tiny")
    kv = KvConfig(backend="grpc", host_bytes=64 << 20)
    async with AsyncExitStack() as stack:
        addresses = []
        for name in ("d0", "d1"):
            started = await VllmEngine.start(engine, kv, Role.DECODE)
            stack.push_async_callback(started.close)
            config = WorkerConfig(role=Role.DECODE, worker_id=name, engine=engine, kv=kv)
            worker = await stack.enter_async_context(running(started, config))
            addresses.append(worker.identity.address)
        # Any trigger but "none" has the core look; it is replaced by one that obeys.
        look = MigrationConfig(trigger="load", interval_s=0.01, cooldown_s=0.0)
        settings = RouterConfig(
            model=ModelConfig(path=model, name="tiny"),
            doors=DoorsConfig(http_port=-1, grpc_port=0, frame_gap_s_max=0.0),
            core=CoreConfig(migration=look),
            membership=MembershipConfig(workers=tuple(addresses), poll_s=0.05),
        )
        router = await stack.enter_async_context(app.running(settings))
        while len(router.driver.links) < len(addresses):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
        trigger = Commanded()
        router.driver.state._migrations._policy = MigrationPolicy(trigger)
        async with asyncio.TaskGroup() as tasks:
            busy = [tasks.create_task(keep_busy(router, index)) for index in range(others)]
            await read(router, trigger, context=64, moves=2)  # the first contact
            for context in contexts:
                show(context, await read(router, trigger, context=context, moves=moves))
            for task in busy:
                task.cancel()


def show(context: int, seen: Seen) -> None:
    """One line."""
    step_ms = statistics.median(seen.gaps_s) * 1e3
    downtimes_ms = sorted(each * 1e3 for each in seen.downtimes_s)
    p50_ms = statistics.median(downtimes_ms)
    print(
        f"context {context:5d}: {len(downtimes_ms)} moves, downtime p50 {p50_ms:6.1f} ms, "
        f"least {downtimes_ms[0]:6.1f}, most {downtimes_ms[-1]:6.1f}; "
        f"between two tokens else {step_ms:5.1f} ms; aim {2 * step_ms + 10:5.1f} ms",
        flush=True,
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", default="256,1024,2048,3500")
    parser.add_argument("--moves", type=int, default=10)
    parser.add_argument("--others", type=int, default=0, help="streams beside the one that moves")
    arguments = parser.parse_args()
    contexts = [int(each) for each in arguments.contexts.split(",")]
    logs.configure(TelemetryConfig(log_level="error"), process="bench")
    asyncio.run(measure(contexts, moves=arguments.moves, others=arguments.others))


if __name__ == "__main__":
    main()
