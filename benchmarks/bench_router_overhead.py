"""What the router adds: time to first token, CPU per token, tokens per second at saturation.

    python benchmarks/bench_router_overhead.py

One emulated worker (no model runs) and one router, each a process of its own, on loopback. The
same 64 streams go to the worker directly, through the gRPC door and through the HTTP door, in
alternating blocks of one run, so that a noisy machine disturbs all three alike. The client
shares the cores with both. Aims: at most 3 ms added at p50, at most 25 us of router CPU a token.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiohttp
import grpc.aio
import psutil

from readahead.cli.up.tiny_model import TinyModel, make
from readahead.client import AsyncClient, Delta
from readahead.v1 import sampling_pb2, worker_service_pb2_grpc
from readahead.v1 import worker_service_pb2 as worker_pb

STREAMS = 64
OUTPUT_TOKENS = 64
PROMPT = list(range(100, 116))
BLOCKS = 4
REQUESTS_PER_BLOCK = 3 * STREAMS
SATURATION_STREAMS = 256
READY_S_MAX = 60.0

Send = Callable[[int, int, "Samples"], Awaitable[None]]


@dataclass(slots=True)
class Samples:
    """What one path's requests showed."""

    ttft_s: list[float] = field(default_factory=list)
    tokens: int = 0
    frames: int = 0
    wall_s: float = 0.0
    router_cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Addresses of one worker and one router, and the router's process."""

    worker: str
    grpc: str
    http: str
    router: psutil.Process


class Direct:
    """Plays a router: one Steps stream, one Submit per request."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stub: worker_service_pb2_grpc.WorkerServiceAsyncStub = (
            worker_service_pb2_grpc.WorkerServiceStub(self._channel)  # type: ignore[assignment]  # one class serves both
        )
        self._waiting: dict[str, asyncio.Queue[worker_pb.LegDelta]] = {}

    async def read(self) -> None:
        call = self._stub.Steps(worker_pb.StepsRequest(router_id="bench"))
        async for response in call:
            for delta in response.deltas:
                if queue := self._waiting.get(delta.request_id):
                    queue.put_nowait(delta)

    async def send(self, n: int, tokens: int, samples: Samples) -> None:
        request_id = f"direct-{n}"
        queue = self._waiting[request_id] = asyncio.Queue()
        started = time.perf_counter()
        await self._stub.Submit(
            worker_pb.SubmitRequest(
                request_id=request_id,
                attempt=1,
                leg=worker_pb.LEG_WHOLE,
                prompt_token_ids=PROMPT,
                sampling=sampling_pb2.SamplingParams(max_tokens=tokens, ignore_eos=True),
                router_id="bench",
            )
        )
        is_first = True
        while True:
            delta = await queue.get()
            samples.frames += 1
            samples.tokens += len(delta.token_ids)
            if is_first and delta.token_ids:
                samples.ttft_s.append(time.perf_counter() - started)
                is_first = False
            if delta.HasField("end"):
                del self._waiting[request_id]
                return

    async def close(self) -> None:
        await self._channel.close()


async def send_grpc(client: AsyncClient, tokens: int, samples: Samples) -> None:
    started = time.perf_counter()
    is_first = True
    async with client.generate(token_ids=PROMPT, max_tokens=tokens, ignore_eos=True) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                samples.frames += 1
                samples.tokens += len(event.token_ids)
                if is_first:
                    samples.ttft_s.append(time.perf_counter() - started)
                    is_first = False


async def send_http(
    session: aiohttp.ClientSession, url: str, tokens: int, samples: Samples
) -> None:
    body = {"prompt": PROMPT, "max_tokens": tokens, "stream": True, "ignore_eos": True}
    started = time.perf_counter()
    is_first = True
    async with session.post(url, json=body | {"model": "tiny"}) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            samples.frames += 1
            if is_first and json.loads(line[6:])["choices"][0]["text"]:
                samples.ttft_s.append(time.perf_counter() - started)
                is_first = False
    samples.tokens += tokens


async def block(
    send: Send, router: psutil.Process, samples: Samples, *, streams: int, requests: int
) -> None:
    """Keeps `streams` requests running until `requests` have been sent."""
    numbers = iter(range(requests))
    random = Random(0)

    async def loop() -> None:
        await asyncio.sleep(random.uniform(0, 0.2))  # not all in one iteration
        for _ in numbers:
            await send(next(NUMBERS), OUTPUT_TOKENS, samples)

    before = router.cpu_times()
    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(loop())
    samples.wall_s += time.perf_counter() - started
    after = router.cpu_times()
    samples.router_cpu_s += after.user + after.system - before.user - before.system


NUMBERS = iter(range(10**9))


async def measure(cluster: Cluster, *, streams: int, blocks: int) -> dict[str, Samples]:
    """Runs the three paths in alternating blocks."""
    async with AsyncExitStack() as stack:
        direct = Direct(cluster.worker)
        stack.push_async_callback(direct.close)
        reader = asyncio.ensure_future(direct.read())
        stack.callback(reader.cancel)
        client = await stack.enter_async_context(AsyncClient(cluster.grpc))
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        url = f"http://{cluster.http}/v1/completions"
        paths: dict[str, Send] = {
            "worker directly": direct.send,
            "router, gRPC": lambda _, tokens, samples: send_grpc(client, tokens, samples),
            "router, HTTP": lambda _, tokens, samples: send_http(session, url, tokens, samples),
        }
        results = {name: Samples() for name in paths}
        for send in paths.values():
            await block(send, cluster.router, Samples(), streams=8, requests=16)
        for _ in range(blocks):
            for name, send in paths.items():
                await block(
                    send,
                    cluster.router,
                    results[name],
                    streams=streams,
                    requests=REQUESTS_PER_BLOCK,
                )
        return results


@asynccontextmanager
async def cluster(folder: Path, *, time_scale: float) -> AsyncIterator[Cluster]:
    """One emulated decode worker and one router."""
    model = folder / "tiny"
    if not model.exists():
        make(TinyModel(), model)
    worker_port, http_port, grpc_port = free_ports(3)
    worker = start(
        folder / "worker.log",
        "worker",
        "--role",
        "decode",
        "--set",
        f"port={worker_port}",
        "--set",
        "engine.kind=emulated",
        "--set",
        f"engine.model_path={model}",
        "--set",
        "engine.model_name=tiny",
        "--set",
        f"engine.requests_max={SATURATION_STREAMS}",
        "--set",
        f"engine.emulated_time_scale={time_scale}",
    )
    router = start(
        folder / "router.log",
        "router",
        "--set",
        f"model.path={model}",
        "--set",
        "model.name=tiny",
        "--set",
        f"doors.http_port={http_port}",
        "--set",
        f"doors.grpc_port={grpc_port}",
        "--set",
        f"membership.workers=127.0.0.1:{worker_port}",
    )
    try:
        await wait_ready(f"http://127.0.0.1:{http_port}/health", folder)
        yield Cluster(
            worker=f"127.0.0.1:{worker_port}",
            grpc=f"127.0.0.1:{grpc_port}",
            http=f"127.0.0.1:{http_port}",
            router=psutil.Process(router.pid),
        )
    finally:
        for process in (router, worker):
            process.terminate()
        for process in (router, worker):
            process.wait(timeout=30)


def start(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "readahead.cli.main", *arguments],
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def free_ports(count: int) -> list[int]:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def wait_ready(url: str, folder: Path) -> None:
    async with aiohttp.ClientSession() as session:
        deadline = time.perf_counter() + READY_S_MAX
        while time.perf_counter() < deadline:
            with suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise TimeoutError(f"not ready; see the logs in {folder}")


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report_overhead(results: dict[str, Samples]) -> None:
    direct = results["worker directly"]
    print(f"{STREAMS} streams of {OUTPUT_TOKENS} tokens, emulated engine (no model runs)")
    print(
        f"{'path':<18}{'requests':>9}{'TTFT p50':>10}{'p99 ms':>9}{'added p50':>11}{'p99 ms':>9}",
        end="",
    )
    print(f"{'tokens/s':>10}{'CPU us/token':>14}")
    for name, samples in results.items():
        p50, p99 = (1e3 * percentile(samples.ttft_s, share) for share in (0.5, 0.99))
        base50, base99 = (1e3 * percentile(direct.ttft_s, share) for share in (0.5, 0.99))
        added = (
            f"{p50 - base50:>11.2f}{p99 - base99:>9.2f}" if samples is not direct else f"{'':>20}"
        )
        cpu = (
            f"{1e6 * samples.router_cpu_s / samples.tokens:>14.1f}" if samples is not direct else ""
        )
        rate = samples.tokens / samples.wall_s
        print(f"{name:<18}{len(samples.ttft_s):>9}{p50:>10.2f}{p99:>9.2f}{added}{rate:>10.0f}{cpu}")


def report_saturation(results: dict[str, Samples]) -> None:
    print(f"\n{SATURATION_STREAMS} streams, engine as fast as its process can go")
    print(f"{'path':<18}{'tokens/s':>10}{'tokens/frame':>14}{'CPU us/token':>14}")
    for name, samples in results.items():
        cpu = f"{1e6 * samples.router_cpu_s / samples.tokens:>14.1f}" if "router" in name else ""
        rate, merged = samples.tokens / samples.wall_s, samples.tokens / samples.frames
        print(f"{name:<18}{rate:>10.0f}{merged:>14.1f}{cpu}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with cluster(folder, time_scale=1.0) as running:
            report_overhead(await measure(running, streams=STREAMS, blocks=BLOCKS))
        async with cluster(folder, time_scale=1e-3) as running:
            report_saturation(await measure(running, streams=SATURATION_STREAMS, blocks=2))


if __name__ == "__main__":
    asyncio.run(main())
