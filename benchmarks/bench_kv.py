"""KV caches over gRPC on loopback, NIXL's figure beside it, and the cost of a park.

    python benchmarks/bench_kv.py [--only transfer|park]

Aims: at least 1.2 GB/s between two processes; park and resume within 10 ms beyond the copies. The
processor time of each side is shown too, which other processes on the machine do not change. Blocks
are those of the tiny model: 256 KiB over four layers. The last part needs an engine: 20 s to start.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import grpc
import torch

from readahead.runtime.config import PeerTlsConfig, TlsConfig
from readahead.services.kv.block_memory import BlockMemory
from readahead.services.kv.grpc_endpoints import threaded_channel, threaded_server
from readahead.services.kv.grpc_source import KvSource
from readahead.services.kv.grpc_target import KvTarget, Pulling, Source
from readahead.services.kv.grpc_wire import (
    CHUNK_BYTES,
    Fingerprint,
    checksum,
    decode_chunk,
    encode_chunk,
)
from readahead.services.kv.host_store import HostStore

BLOCKS = 1000
LAYERS = 4
BLOCK_SHAPE = (2, 128, 128)
ROUNDS = 9
COPIES = {
    "source": "cache to host store; store to kernel",
    "target": "kernel to message; message to cache",
}


def memory_and_mark() -> tuple[BlockMemory, Fingerprint]:
    """A KV cache of 250 MiB, all touched."""
    caches = {
        f"layer{each}": torch.randn(BLOCKS, *BLOCK_SHAPE).bfloat16() for each in range(LAYERS)
    }
    memory = BlockMemory(caches, blocks=BLOCKS)
    mark = Fingerprint(
        engine_version="",
        model="",
        block_tokens=128,
        block_bytes=memory.block_bytes,
        dtype=memory.dtype,
        layout=memory.layout,
        ranks=1,
        rank=0,
    )
    return memory, mark


def grpc_end(pipe: Connection) -> None:
    """A source, and a server of bare bytes; answers each word with its processor time so far."""
    memory, mark = memory_and_mark()
    store = HostStore(
        block_bytes=memory.block_bytes, bytes_max=BLOCKS * memory.block_bytes, lease_s=600
    )
    store.save(
        "copy",
        BLOCKS,
        lambda slots: memory.gather(range(BLOCKS), store.rows, slots),
        is_leased=True,
    )
    source = KvSource(store, mark, engine_id="source")
    chunk = bytes(store.views([0])[0]) * (CHUNK_BYTES // memory.block_bytes)

    def send(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return itertools.repeat(chunk, BLOCKS * memory.block_bytes // CHUNK_BYTES)

    bare: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(
        send, None, None
    )
    handlers = grpc.method_handlers_generic_handler("bare", {"Send": bare})
    server, port = threaded_server(handlers, host="127.0.0.1", port=0, tls=TlsConfig())
    ports = source.start(host="127.0.0.1", port=0, tls=TlsConfig())
    pipe.send((*ports, port))
    while pipe.recv():
        pipe.send(time.process_time())
    server.stop(0).wait()
    source.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Of one transport, over the rounds."""

    gb_s: Sequence[float]
    source_ms_gb: Sequence[float] = ()
    """Processor time at the source."""
    target_ms_gb: Sequence[float] = ()

    @property
    def median_gb_s(self) -> float:
        """Of the rounds."""
        return statistics.median(self.gb_s)

    def __str__(self) -> str:
        text = f"median {self.median_gb_s:.2f} GB/s, best {max(self.gb_s):.2f} GB/s"
        if not self.source_ms_gb:
            return text
        source, target = map(statistics.median, (self.source_ms_gb, self.target_ms_gb))
        return (
            f"{text}; processor time {source:.0f} ms/GB at the source, {target:.0f} at the target"
        )


def measured(pull: Callable[[], int], source_cpu_s: Callable[[], float]) -> Rate:
    """The rate of something that moves so many bytes, after one round that does not count."""
    pull()
    rounds = []
    for _ in range(ROUNDS):
        cpu_there, cpu_here, began = source_cpu_s(), time.process_time(), time.perf_counter()
        size = pull()
        rate = size / (time.perf_counter() - began) / 1e9
        here, there = time.process_time() - cpu_here, source_cpu_s() - cpu_there
        rounds.append((rate, there / size * 1e12, here / size * 1e12))
    rates, source, target = zip(*rounds, strict=True)
    return Rate(gb_s=rates, source_ms_gb=source, target_ms_gb=target)


def bench_transfer() -> None:
    """Prints the rates of bare gRPC, of ours, and of NIXL, and where our time goes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=grpc_end, args=(there,))
    process.start()
    memory, mark = memory_and_mark()
    target = KvTarget(mark, tls=PeerTlsConfig())
    port, stream_port, bare_port = here.recv()
    slow = Source(address=f"127.0.0.1:{port}", engine_id="source", key="copy")
    fast = replace(slow, stream_address=f"127.0.0.1:{stream_port}")
    channel = threaded_channel(f"127.0.0.1:{bare_port}", tls=PeerTlsConfig())
    receive: Any = channel.unary_stream("/bare/Send", None, None)

    def sink(first: int, data: memoryview) -> None:
        blocks = len(data) // memory.block_bytes
        rows = torch.frombuffer(data, dtype=torch.uint8).view(blocks, -1)
        memory.scatter(range(first, first + blocks), rows, range(blocks))

    def pull(where: Source) -> int:
        progress, error = target.pull(where, range(BLOCKS), sink, Pulling())
        assert error is None, error
        return progress.received_bytes

    def source_cpu_s() -> float:
        here.send(True)
        return float(here.recv())

    ceiling = measured(lambda: sum(map(len, receive(b""))), source_cpu_s)
    ours = measured(lambda: pull(fast), source_cpu_s)
    library = measured(lambda: pull(slow), source_cpu_s)
    here.send(False)
    target.close()
    channel.close()
    process.join()
    nixl = bench_nixl()
    print(f"messages of {CHUNK_BYTES >> 10} KiB, {BLOCKS * memory.block_bytes >> 20} MiB in all")
    print(f"  gRPC alone, same bytes each time, none used: {ceiling}")
    print(f"  KV by gRPC's library, checked and stored: {library}")
    print(f"  KV by ours, checked and stored: {ours}")
    print(f"  NIXL over UCX, the same blocks: {nixl}")
    print(
        f"  ours is {ours.median_gb_s / ceiling.median_gb_s:.2f} of gRPC alone and "
        f"{ours.median_gb_s / nixl.median_gb_s:.2f} of NIXL"
    )
    for side, copies in COPIES.items():
        print(f"  copies at the {side}: {copies.count(';') + 1} ({copies})")
    bench_parts(memory)


def bench_parts(memory: BlockMemory) -> None:
    """Prints what our own code takes of it, per byte."""
    blocks = CHUNK_BYTES // memory.block_bytes
    rows = torch.zeros(blocks, memory.block_bytes, dtype=torch.uint8)
    ids = list(range(7, 7 + 3 * blocks, 3))
    view = memoryview(rows.numpy()).cast("B")
    message = b"".join(encode_chunk(0, 0, [view]))
    parts: dict[str, Callable[[], object]] = {
        "cache to store": lambda: memory.gather(ids, rows, range(blocks)),
        "checksum": lambda: checksum([view]),
        "decode with checksum": lambda: decode_chunk(message),
        "message to cache": lambda: memory.scatter(ids, rows, range(blocks)),
    }
    for name, part in parts.items():
        part()
        began = time.thread_time()
        for _ in range(50):
            part()
        rate = 50 * CHUNK_BYTES / (time.thread_time() - began)
        print(f"  {name}: {1e12 / rate:.0f} ms/GB")


def nixl_end(pipe: Connection) -> None:
    """Memory that another process may read."""
    agent, memory = _nixl_agent("source")
    pipe.send((agent.get_agent_metadata(), agent.get_serialized_descs(_nixl_rows(agent, memory))))
    pipe.recv()


def _nixl_agent(name: str) -> tuple[Any, torch.Tensor]:
    from nixl._api import nixl_agent, nixl_agent_config

    agent = nixl_agent(name, nixl_agent_config(backends=["UCX"]))
    memory = torch.ones(BLOCKS, 256 << 10, dtype=torch.uint8)
    agent.register_memory(memory)
    return agent, memory


def _nixl_rows(agent: Any, memory: torch.Tensor) -> Any:
    return agent.get_xfer_descs([memory[row] for row in range(len(memory))])


def bench_nixl() -> Rate:
    """NIXL's rate for the same blocks, one per descriptor; it makes no copy of ours."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=nixl_end, args=(there,))
    process.start()
    agent, memory = _nixl_agent("target")
    metadata, rows = here.recv()
    name = agent.add_remote_agent(metadata)
    rates = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        handle = agent.initialize_xfer(
            "READ", _nixl_rows(agent, memory), agent.deserialize_descs(rows), name
        )
        state = agent.transfer(handle)
        while state == "PROC":
            time.sleep(0.0002)
            state = agent.check_xfer_state(handle)
        assert state == "DONE", state
        agent.release_xfer_handle(handle)
        rates.append(memory.numel() / (time.perf_counter() - began) / 1e9)
    here.send(None)
    process.join()
    return Rate(gb_s=rates)


async def bench_park() -> None:
    """Prints what a park and a resume cost a request, beside the copies themselves."""
    from readahead.cli.up import tiny_model
    from readahead.core.cluster import Role
    from readahead.core.request import Leg, RequestId
    from readahead.services.config import EngineConfig, KvConfig
    from readahead.services.engine import vllm
    from readahead.services.engine.engine import LegRequest, Sampling

    model_path = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
    kv = KvConfig(backend="grpc")
    engine = await vllm.VllmEngine.start(EngineConfig(model_path=model_path), kv, Role.DECODE)
    parks, gaps, steps = [], [], []
    try:
        request = LegRequest(
            key=(RequestId("park"), 1),
            leg=Leg.WHOLE,
            prompt_token_ids=[5 + each % 2000 for each in range(2000)],
            sampling=Sampling(max_tokens=400, ignore_eos=True),
        )
        outputs = engine.run(request)
        delivered = len((await anext(outputs)).token_ids)
        for _ in range(30):
            for _ in range(3):
                began = time.perf_counter()
                delivered += len((await anext(outputs)).token_ids)
                steps.append(time.perf_counter() - began)
            began = time.perf_counter()
            assert await engine._call("readahead_park", ["park.1"]) == {"park.1": ""}
            parks.append(time.perf_counter() - began)
            parked = await engine._call("readahead_parked")
            while delivered < parked["park.1"]["tokens"] - len(request.prompt_token_ids):
                delivered += len((await anext(outputs)).token_ids)  # made before the park
            began = time.perf_counter()
            assert await engine._call("readahead_resume", ["park.1"]) == []
            delivered += len((await anext(outputs)).token_ids)
            gaps.append(time.perf_counter() - began)
        await outputs.aclose()  # type: ignore[attr-defined]  # an async generator
    finally:
        await engine.close()
    print(
        f"park and resume, 2,000 tokens (16 blocks, 4 MiB): command {_ms(parks)}, resume to next "
        f"token {_ms(gaps)}; a step alone {_ms(steps)}"
    )


def _ms(values: list[float]) -> str:
    return f"{statistics.median(values) * 1e3:.1f} ms (best {min(values) * 1e3:.1f})"


def main() -> None:
    """Runs the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("transfer", "park"), help="one part")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.only != "park":
        bench_transfer()
    if options.only != "transfer":
        asyncio.run(bench_park())


if __name__ == "__main__":
    main()
