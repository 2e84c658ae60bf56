"""A router and its workers in the test's own event loop, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import grpc
from fake_engine import FakeEngine, Script, echo
from worker_server import running_worker, wait_until

from readahead.core.cluster import Role
from readahead.core.config import AdmissionConfig, CoreConfig, PlacementConfig
from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G
from readahead.core.request import Leg, RequestId, Stage
from readahead.router.app import Router, running
from readahead.router.config import DoorsConfig, RouterConfig
from readahead.router.prompts import Prompts
from readahead.runtime.config import MembershipConfig
from readahead.runtime.rpc.channel import channel
from readahead.runtime.store.store import Store, WorkerRecord
from readahead.services.config import KvConfig
from readahead.services.engine.emulated import EmulatedEngine
from readahead.services.engine.emulated_profile import EmulatedProfile
from readahead.services.engine.emulated_text import checksum, next_token, token_text
from readahead.services.engine.engine import Engine, EngineState, LegOutput, LegRequest
from readahead.services.worker.server import Worker
from readahead.v1 import inference_service_pb2, inference_service_pb2_grpc, sampling_pb2

if TYPE_CHECKING:
    from readahead.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

MODEL = "toy"
VOCABULARY_TOKENS = 1000
CONTEXT_TOKENS = 4096
MESSAGE_BYTES_MAX = 8 << 20


class LetterTokenizer:
    """A token per character; a chat is its contents, one after another."""

    chat_template: str | Mapping[str, str] | None = "contents"
    model_max_length = CONTEXT_TOKENS

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Any:
        del add_special_tokens, verbose
        return _Encoded([ord(letter) % VOCABULARY_TOKENS for letter in text])

    def __len__(self) -> int:
        return VOCABULARY_TOKENS

    def get_vocab(self) -> Mapping[str, int]:
        return {chr(index): index for index in range(VOCABULARY_TOKENS)}

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
    ) -> str:
        del tokenize, add_generation_prompt
        return "".join(message["content"] for message in conversation)


@dataclass(frozen=True, slots=True)
class _Encoded:
    input_ids: list[int]


def toy_prompts() -> Prompts:
    """Prompts without a model's folder."""
    return Prompts(
        LetterTokenizer(),
        name=MODEL,
        context_tokens_max=CONTEXT_TOKENS,
        vocabulary_tokens=VOCABULARY_TOKENS,
    )


def toy_engine(
    role: Role,
    *,
    kv_blocks: int = 1024,
    requests_max: int = 64,
    lease_s: int = 30,
    time_scale: float = 0.05,
) -> EmulatedEngine:
    """An emulated engine with a small memory; `await engine.open()` starts it."""
    profile = EmulatedProfile(
        model=MODEL,
        latency=replace(LLAMA_3_1_8B_A100_80G, time_scale=time_scale),
        vocabulary_tokens=VOCABULARY_TOKENS,
        context_tokens_max=CONTEXT_TOKENS,
        kv_blocks=kv_blocks,
        requests_max=requests_max,
    )
    return EmulatedEngine(profile, role=role, kv=KvConfig(lease_s=lease_s))


def toy_output(prompt_token_ids: Sequence[int], count: int) -> tuple[list[int], str]:
    """The tokens that every emulated engine makes of a prompt, and their text."""
    state = checksum(prompt_token_ids)
    token_ids = []
    for _ in range(count):
        token_ids.append(next_token(state, vocabulary_tokens=VOCABULARY_TOKENS))
        state = checksum(token_ids[-1:], before=state)
    return token_ids, "".join(map(token_text, token_ids))


def router_config(
    *,
    workers: Sequence[str] = (),
    admission: AdmissionConfig | None = None,
    doors: DoorsConfig | None = None,
    remote_prefill_tokens_min: int = 32,
    worker_silence_s_max: float = 3.0,
    core: CoreConfig | None = None,
) -> RouterConfig:
    """Settings of a router on free ports that polls fast."""
    return RouterConfig(
        doors=doors or DoorsConfig(http_port=0, grpc_port=0),
        core=core
        or CoreConfig(
            admission=admission or AdmissionConfig(),
            placement=PlacementConfig(remote_prefill_tokens_min=remote_prefill_tokens_min),
        ),
        membership=MembershipConfig(workers=tuple(workers), lease_s=1.0, poll_s=0.05),
        worker_silence_s_max=worker_silence_s_max,
    )


@dataclass(slots=True)
class ClusterWorker:
    """A worker of the cluster, which a test can stop and start again."""

    engine: Engine
    worker: Worker
    stack: AsyncExitStack
    is_running: bool = True

    @property
    def address(self) -> str:
        return self.worker.identity.address

    async def stop(self) -> None:
        """Ends it; its streams break."""
        if self.is_running:
            self.is_running = False
            await self.stack.aclose()


@dataclass(slots=True)
class Cluster:
    """A router, its workers by id, and a stub for the router's gRPC door."""

    router: Router
    stub: InferenceServiceAsyncStub
    workers: dict[str, ClusterWorker] = field(default_factory=dict)

    def engine(self, worker_id: str) -> Engine:
        """The engine of a worker."""
        return self.workers[worker_id].engine

    async def states(self) -> dict[str, EngineState]:
        """What each running engine holds."""
        return {
            name: await each.engine.inspect()
            for name, each in self.workers.items()
            if each.is_running
        }

    async def wait_free(self, limit_s: float = 10.0) -> None:
        """Waits until no engine runs anything or holds a handover, and no request is alive."""
        async with asyncio.timeout(limit_s):
            while not await self._is_free():  # noqa: ASYNC110 - engines do not tell
                await asyncio.sleep(0.01)

    async def _is_free(self) -> bool:
        states = (await self.states()).values()
        busy = any(s.load.running or s.load.waiting or s.handovers_held for s in states)
        return not busy and not self.router.driver.sessions


@asynccontextmanager
async def cluster(
    engines: Mapping[str, tuple[Role, Engine]],
    *,
    config: RouterConfig | None = None,
    store: Store | None = None,
    is_awaited: bool = True,
) -> AsyncIterator[Cluster]:
    """Runs a router over workers named as the keys of `engines`.

    Args:
        engines: by worker id; emulated ones are opened and closed here.
        config: the router's; its `membership.workers` is filled in unless there is a store.
        store: where the workers are registered, for good, by the test.
        is_awaited: return only once every worker has joined.
    """
    config = config or router_config()
    async with AsyncExitStack() as stack:
        workers = {}
        for name, (role, engine) in engines.items():
            workers[name] = await start_worker(engine, role=role, worker_id=name)
            stack.push_async_callback(workers[name].stop)
        if store is None:
            addresses = tuple(each.address for each in workers.values())
            membership = replace(config.membership, workers=addresses)
            config = replace(config, membership=membership)
        router = await stack.enter_async_context(
            running(config, prompts=toy_prompts(), store=store)
        )
        stub = await stack.enter_async_context(inference_stub(router.grpc_address))
        running_cluster = Cluster(router=router, stub=stub, workers=workers)
        if is_awaited:
            await wait_joined(router, len(workers))
        yield running_cluster


async def start_worker(
    engine: Engine, *, role: Role, worker_id: str, port: int = 0
) -> ClusterWorker:
    """Starts a worker; a second one with the same id is a new incarnation."""
    stack = AsyncExitStack()
    if isinstance(engine, EmulatedEngine):
        await engine.open()
        stack.push_async_callback(engine.close)
    worker = await stack.enter_async_context(
        running_worker(engine, role=role, worker_id=worker_id, port=port)
    )
    return ClusterWorker(engine=engine, worker=worker, stack=stack)


async def wait_joined(router: Router, count: int, *, limit_s: float = 10.0) -> None:
    """Waits until so many workers can be used."""
    async with asyncio.timeout(limit_s):
        while len(router.driver.links) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def inference_stub(address: str) -> AsyncIterator[InferenceServiceAsyncStub]:
    """A client of a router's gRPC door."""
    async with channel(address, message_bytes_max=MESSAGE_BYTES_MAX) as open_channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(open_channel)
        yield cast("InferenceServiceAsyncStub", stub)  # typed for synchronous channels only


def record_of(each: ClusterWorker) -> WorkerRecord:
    """What the worker would register."""
    identity = each.worker.identity
    return WorkerRecord(
        worker_id=identity.worker_id,
        incarnation=identity.incarnation,
        role=identity.role,
        address=identity.address,
    )


def generate_request(
    prompt: Sequence[int],
    *,
    request_id: str = "",
    max_tokens: int | None = 8,
    model: str = "",
) -> inference_service_pb2.GenerateRequest:
    """A request for text after a tokenised prompt."""
    return inference_service_pb2.GenerateRequest(
        request_id=request_id,
        model=model,
        token_ids=inference_service_pb2.TokenIds(ids=prompt),
        sampling=sampling_pb2.SamplingParams(max_tokens=max_tokens, temperature=0),
    )


@dataclass(slots=True)
class Answer:
    """All that came of one Generate call."""

    started: inference_service_pb2.Started | None = None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finished: list[inference_service_pb2.Finished] = field(default_factory=list)
    error: grpc.aio.AioRpcError | None = None


async def collect(call: Any, answer: Answer | None = None) -> Answer:
    """Reads a Generate call to its end."""
    answer = answer or Answer()
    try:
        async for message in call:
            assert not answer.finished, "something came after the last message"
            match message.WhichOneof("event"):
                case "started":
                    assert answer.started is None
                    answer.started = message.started
                case "delta":
                    answer.token_ids.extend(message.delta.token_ids)
                    answer.text += message.delta.text
                case "finished":
                    answer.finished.append(message.finished)
    except grpc.aio.AioRpcError as error:
        answer.error = error
    return answer


def leg_keys(engine: Any, leg: Leg | None = None) -> list[tuple[RequestId, int]]:
    """Keys of a fake engine's live legs, of one kind or of all."""
    return [key for key, live in engine.legs.items() if leg in (None, live.request.leg)]


def pulling(source: FakeEngine, script: Script = echo) -> Script:
    """A decode worker's script: takes the KV from the source, then goes on as `script` says."""

    def pull(request: LegRequest) -> Sequence[LegOutput]:
        if request.leg is Leg.DECODE:
            request_id, _, attempt = request.handover.decode().removeprefix("fake:").rpartition(".")
            source.handovers.discard((RequestId(request_id), int(attempt)))
        return script(request)

    return pull


async def wait_stage(running: Cluster, request_id: str, stage: Stage) -> None:
    """Waits until a request is where the test wants it."""

    def is_there() -> bool:
        explanation = running.router.sessions.explain(RequestId(request_id))
        return explanation is not None and explanation.stage is stage

    await wait_until(is_there)
