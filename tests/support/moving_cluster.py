"""A router in the test's own loop over emulated workers in processes of their own, which it kills
at named stages of moves; and the laws that every stream obeys."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_in_process import Answer, collect, generate_request, inference_stub
from restless import RESTLESS, set_restless
from up_process import WorkerAddress
from waiting import unused_ports, wait_until_async
from worker_inspection import inspect

from readahead.core.messages import MigrateLeg
from readahead.core.request import WorkerId
from readahead.router.app import Router, running
from readahead.router.config import DoorsConfig, ModelConfig, RouterConfig
from readahead.router.moves import MoveStage
from readahead.router.prompts import Prompts
from readahead.runtime.config import MembershipConfig
from readahead.runtime.rpc.errors import error_from_rpc
from readahead.services.engine.emulated_text import checksum, next_token, token_text

if TYPE_CHECKING:
    from readahead.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

DECODERS = ("decode-0", "decode-1", "decode-2")
VOCABULARY_TOKENS = 2048
READY_S_MAX = 60.0
LEASE_S = 6
FREE_S_MAX = 35.0
"""Until everything of a broken move must be free; in truth it takes a moment."""
VICTIMS = ("source", "target", "both", "reader")


def said_of(prompt: Iterable[int], tokens: int) -> tuple[list[int], str]:
    """What an emulated engine of this model says after a prompt."""
    state, token_ids = checksum(list(prompt)), []
    for _ in range(tokens):
        token_ids.append(next_token(state, vocabulary_tokens=VOCABULARY_TOKENS))
        state = checksum(token_ids[-1:], before=state)
    return token_ids, "".join(map(token_text, token_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Who is lost when a stage of some move is reached."""

    stage: MoveStage
    victim: str
    """One of VICTIMS."""
    moves_before: int
    """How often the stage is reached without harm."""

    @classmethod
    def drawn(cls, draw: random.Random) -> Fault:
        return cls(
            stage=draw.choice(list(MoveStage)),
            victim=draw.choice(VICTIMS),
            moves_before=draw.randrange(6),
        )

    def may_break(self) -> bool:
        """Whether the request on that move may come to a bad end."""
        match self.victim:
            case "source":
                # From the text alone the target goes on, once it has surely got all of it.
                return self.stage not in (MoveStage.SUBMITTED, MoveStage.COMMITTED)
            case "target":
                return self.stage is MoveStage.COMMITTED
            case _:
                return True


@dataclass(slots=True)
class MovingCluster:
    """One prefill worker, three decode workers, and a router that sends readers about."""

    router: Router
    stub: InferenceServiceAsyncStub
    model: Path
    folder: Path
    workers: dict[str, WorkerAddress]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    struck: list[MigrateLeg] = field(default_factory=list)
    """Moves in which somebody was lost, in this run."""

    def start(self, name: str) -> None:
        """Returns at once."""
        worker = self.workers[name]
        settings = {
            "worker_id": name,
            "engine.kind": "emulated",
            "engine.model_name": "tiny",
            "engine.emulated_time_scale": "0.2",
            "kv.lease_s": str(LEASE_S),
        }
        overrides = [w for key, value in settings.items() for w in ("--set", f"{key}={value}")]
        command = ["worker", "--role", worker.role, "--model", str(self.model)]
        command += ["--port", worker.grpc.rpartition(":")[2], *overrides]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "readahead.cli.main", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            )

    def kill(self, name: str) -> None:
        """As the out-of-memory killer does it; it does not even say goodbye."""
        self.processes[name].kill()
        self.processes[name].wait()

    def is_alive(self, name: str) -> bool:
        return self.processes[name].poll() is None

    async def restart_lost(self) -> None:
        """Returns once every worker can be used."""
        links = self.router.driver.links
        for name in self.workers:
            if name not in self.processes or not self.is_alive(name):
                await wait_until_async(partial(self._is_gone, WorkerId(name)), READY_S_MAX)
                self.start(name)
        await wait_until_async(lambda: len(links) == len(self.workers), READY_S_MAX, what="joined")

    def _is_gone(self, worker_id: WorkerId) -> bool:
        return worker_id not in self.router.driver.links

    def strike(self, fault: Fault | None) -> None:
        """Has somebody be lost at the next move that comes so far."""
        left = 0 if fault is None else fault.moves_before
        self.struck.clear()

        def on_stage(stage: MoveStage, command: MigrateLeg) -> None:
            nonlocal left
            if fault is None or stage is not fault.stage or self.struck:
                return
            if left:
                left -= 1
                return
            self.struck.append(command)
            if fault.victim == "reader":
                self.router.sessions.cancel(command.request_id)
            if fault.victim in ("source", "both"):
                self.kill(command.source)
            if fault.victim in ("target", "both"):
                self.kill(command.target)

        self.router.driver.moves.on_stage = on_stage

    async def run(self, seed: int, *, requests: int = 6, is_faulty: bool = True) -> None:
        """Streams that are moved about, with one fault; and what must be true of them."""
        draw = random.Random(seed)
        fault = Fault.drawn(draw) if is_faulty else None
        set_restless(self.router.driver.state, random.Random(seed), chance=0.1)
        self.strike(fault)
        asked = {}
        async with asyncio.TaskGroup() as streams:
            for index in range(requests):
                name = f"r{seed}-{index}"
                prompt = [draw.randrange(VOCABULARY_TOKENS) for _ in range(draw.randrange(4, 400))]
                tokens = draw.randrange(40, 160)
                call = self.stub.Generate(
                    generate_request(prompt, request_id=name, max_tokens=tokens)
                )
                asked[name] = prompt, tokens, streams.create_task(collect(call))
        for name, (prompt, tokens, answer) in asked.items():
            self.judge(name, prompt, tokens, answer.result(), fault)
        await self.wait_free()

    def judge(
        self, name: str, prompt: list[int], tokens: int, answer: Answer, fault: Fault | None
    ) -> None:
        """Nothing lost, nothing twice, nothing out of order; and an end that has its reason."""
        token_ids, text = said_of(prompt, tokens)
        told = f"{name} {fault} {self.struck}"
        if answer.error is None:
            assert answer.token_ids == token_ids, told
            assert answer.text == text, told
            (finished,) = answer.finished
            assert finished.output_tokens == tokens, told
            assert finished.prompt_tokens == len(prompt), told
            return
        assert fault is not None, f"{told}: {answer.error}"
        assert self.struck, f"{told}: {answer.error}"
        assert answer.token_ids == token_ids[: len(answer.token_ids)], told
        assert text.startswith(answer.text), told
        reason = error_from_rpc(answer.error).reason
        if name == self.struck[0].request_id:
            assert fault.may_break(), f"{told}: {reason}"
        else:  # it was on a worker that was lost for another's sake
            assert fault.victim != "reader", f"{told}: {reason}"

    async def wait_free(self) -> None:
        """Returns once no worker that lives holds anything."""
        living = [each for name, each in self.workers.items() if self.is_alive(name)]
        async with asyncio.timeout(FREE_S_MAX):
            while True:
                held = await asyncio.to_thread(inspect, living)
                if not self.router.driver.sessions and all(e.is_nothing for e in held.values()):
                    break
                await asyncio.sleep(0.02)
        self.router.driver.state.check()
        assert not self.router.driver.moves

    def stop(self) -> None:
        """Ends every process."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


@asynccontextmanager
async def moving_cluster(model: Path, folder: Path) -> AsyncIterator[MovingCluster]:
    """All of its workers have joined. Nothing of it lives at the exit."""
    names = ("prefill-0", *DECODERS)
    workers = {
        name: WorkerAddress(
            name=name, role=name.partition("-")[0], grpc=f"127.0.0.1:{port}", metrics=""
        )
        for name, port in zip(names, unused_ports(len(names)), strict=True)
    }
    named = ModelConfig(path=str(model), name="tiny")
    config = RouterConfig(
        model=named,
        doors=DoorsConfig(http_port=-1, grpc_port=0),
        core=RESTLESS,
        membership=MembershipConfig(
            workers=tuple(each.grpc for each in workers.values()), poll_s=0.05
        ),
        worker_silence_s_max=1.0,
    )
    prompts = await asyncio.to_thread(Prompts.load, named)
    async with (
        running(config, prompts=prompts) as router,
        inference_stub(router.grpc_address) as stub,
    ):
        cluster = MovingCluster(router, stub, model, folder, workers)
        try:
            await cluster.restart_lost()
            yield cluster
        finally:
            cluster.stop()
