"""What the load generator itself costs, and how true its time stamps are.

    python benchmarks/bench_load.py [--door grpc] [--loop uvloop] [--streams 100 2000]

A cheap server in a process of its own sends 5,000 tokens/s over so many streams, as frames of one
token, and keeps the time at which it sent each. Printed: processor time of the generator per
received token (aim: at most 40 us), how much later than sent a token was stamped (aim: 0.5 ms),
and how late sends are while all streams run. `--burst-ms 20` sends as an engine does, a token to
every stream at once at each step.

The server's time of sending is taken before its system call, so that the difference holds the way
through the kernel of the loopback too. Both processes read the same monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc.aio
import httptools
import uvloop

from readahead.loadgen.grpc_sender import GrpcSender
from readahead.loadgen.http_sender import HttpSender
from readahead.loadgen.senders import Sender, SendOptions
from readahead.loadgen.session_run import RunLimits, SessionRun
from readahead.runtime.clock import monotonic_s
from readahead.v1 import inference_service_pb2 as pb
from readahead.workload.reader import Reader
from readahead.workload.session import Segment, Session, Turn

TOKENS_PER_S = 5000.0
RAMP_SESSIONS_PER_S = 400.0
SETTLE_S = 2.0
STEADY_S = 6.0
LATE_SESSIONS_PER_S = 20.0
LATE_SESSIONS = 100
CPU_US_MAX = 40.0
STAMP_ERROR_S_MAX = 0.5e-3
LATENESS_SHARE_MAX = 0.01
OUTPUT_TOKENS = 1_000_000
FRAME = (
    b'data: {"id":"cmpl-0","object":"text_completion","created":1,"model":"bench","choices":'
    b'[{"index":0,"text":" word","logprobs":null,"finish_reason":null,"stop_reason":null}],'
    b'"usage":{"prompt_tokens":8,"completion_tokens":%d,"total_tokens":%d}}\n\n'
)


class Pump:
    """Sends tokens to all open streams in turn, at the rate of them all together."""

    def __init__(self, *, burst_s: float) -> None:
        self._burst_s = burst_s
        self.streams: dict[str, Callable[[int], None]] = {}
        self.sent_s: dict[str, array[float]] = {}
        self._turn: deque[str] = deque()

    def open(self, request_id: str, write: Callable[[int], None]) -> None:
        """A stream begins."""
        self.streams[request_id] = write
        self.sent_s[request_id] = array("d")
        self._turn.append(request_id)

    def close(self, request_id: str) -> None:
        """Its client is gone."""
        self.streams.pop(request_id, None)

    async def run(self) -> None:
        """For ever."""
        last_s, owed = monotonic_s(), 0.0
        while True:
            await asyncio.sleep(self._burst_s)
            now_s = monotonic_s()
            owed, last_s = owed + (now_s - last_s) * TOKENS_PER_S, now_s
            while owed >= 1:
                owed -= 1
                if self._turn:
                    self._send_one()

    def _send_one(self) -> None:
        request_id = self._turn.popleft()
        write = self.streams.get(request_id)
        if write is not None:
            self._turn.append(request_id)
            sent_s = self.sent_s[request_id]
            sent_s.append(monotonic_s())
            write(len(sent_s))


class HttpDoor(asyncio.Protocol):
    """One connection to the server."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._parser = httptools.HttpRequestParser(self)
        self._request_id, self._url = "", b""

    def connection_made(self, transport: Any) -> None:
        """Of asyncio."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._pump.close(self._request_id)

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Of httptools."""
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of httptools."""
        if name.lower() == b"x-request-id":
            self._request_id = value.decode()

    def on_message_complete(self) -> None:
        """Of httptools."""
        if self._url == b"/times":
            self._answer({name: list(times) for name, times in self._pump.sent_s.items()})
        elif self._url == b"/v1/models":
            self._answer({"data": [{"id": "bench"}]})
        else:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            self._pump.open(self._request_id, self._write)

    def _write(self, index: int) -> None:
        frame = FRAME % (index, index + 8)
        self._transport.write(b"%x\r\n%b\r\n" % (len(frame), frame))

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


class GrpcDoor:
    """The same over gRPC; of the service only what the generator calls."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    async def list_models(self, request: Any, context: Any) -> pb.ListModelsResponse:
        """One model."""
        return pb.ListModelsResponse(models=[pb.Model(name="bench", engine="emulated")])

    async def generate(self, request: Any, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        """A token whenever the pump says so."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        yield pb.GenerateResponse(started=pb.Started(request_id=request.request_id))
        self._pump.open(request.request_id, queue.put_nowait)
        try:
            while True:
                index = await queue.get()
                yield pb.GenerateResponse(delta=pb.Delta(text=" word", token_ids=[index]))
        finally:
            self._pump.close(request.request_id)


async def serve(*, burst_s: float) -> None:
    """The server; prints its ports and runs until it is killed."""
    loop = asyncio.get_running_loop()
    pump = Pump(burst_s=burst_s)
    http = await loop.create_server(lambda: HttpDoor(pump), "127.0.0.1", 0, backlog=1024)
    over_grpc = grpc.aio.server()
    door = GrpcDoor(pump)
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "ListModels": grpc.unary_unary_rpc_method_handler(
            door.list_models,
            request_deserializer=pb.ListModelsRequest.FromString,
            response_serializer=pb.ListModelsResponse.SerializeToString,
        ),
        "Generate": grpc.unary_stream_rpc_method_handler(
            door.generate,
            request_deserializer=pb.GenerateRequest.FromString,
            response_serializer=pb.GenerateResponse.SerializeToString,
        ),
    }
    over_grpc.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("readahead.v1.InferenceService", methods),)
    )
    port = over_grpc.add_insecure_port("127.0.0.1:0")
    await over_grpc.start()
    print(http.sockets[0].getsockname()[1], port, flush=True)
    await pump.run()


def sessions_for(streams: int) -> list[Session]:
    """All streams at once as fast as connections can be made, and after a while a few more."""
    calm_s = streams / RAMP_SESSIONS_PER_S + SETTLE_S + STEADY_S
    arrivals = [index / RAMP_SESSIONS_PER_S for index in range(streams)]
    arrivals += [calm_s + index / LATE_SESSIONS_PER_S for index in range(LATE_SESSIONS)]
    turn = Turn(segments=(Segment("bench", 8),), output_tokens=OUTPUT_TOKENS)
    return [
        Session(
            session_id=str(index),
            arrival_s=at_s,
            scenario="bench",
            tenant="bench",
            user="bench",
            reader=Reader(pace_tok_s=5.0, patience_s=600.0),
            turns=(turn,),
        )
        for index, at_s in enumerate(arrivals)
    ]


async def measure(sender: Sender, streams: int) -> tuple[SessionRun, float, float, float]:
    """Runs; returns the run, the steady window, and processor seconds per token in it."""
    stop = asyncio.Event()
    options = SendOptions(model="bench", timeout_s=600, ignore_eos=False)
    run = SessionRun(
        sender,
        options,
        RunLimits(requests_max=10 * streams + LATE_SESSIONS),
        texts=lambda segment: "word " * segment.tokens,
        run_id="bench",
        stop=stop,
    )
    sessions = sessions_for(streams)
    async with sender, asyncio.TaskGroup() as group:
        await sender.models()
        group.create_task(run.offer(sessions))
        await asyncio.sleep(streams / RAMP_SESSIONS_PER_S + SETTLE_S)
        begin_s, before_s, tokens = run.now_s(), cpu_s(), run.counts.tokens
        await asyncio.sleep(STEADY_S - 0.5)
        end_s, used_s, tokens = run.now_s(), cpu_s() - before_s, run.counts.tokens - tokens
        await asyncio.sleep(max(0.0, sessions[-1].arrival_s - run.now_s()) + 0.5)
        stop.set()
    print(f"{streams} streams: {tokens / (end_s - begin_s):.0f} tokens/s received,", end=" ")
    return run, begin_s, end_s, used_s / max(1, tokens)


def cpu_s() -> float:
    """Processor seconds that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def quantile(ascending: Sequence[float], share: float) -> float:
    """By nearest rank."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def one(arguments: argparse.Namespace, streams: int) -> bool:
    """One measurement with a server of its own; whether it came up to the aims."""
    command = [sys.executable, __file__, "--serve", "--burst-ms", str(arguments.burst_ms)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        http_port, grpc_port = map(int, server.stdout.readline().split())
        factory = uvloop.new_event_loop if arguments.loop == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            if arguments.door == "grpc":
                make: Callable[[], Sender] = lambda: GrpcSender(  # noqa: E731
                    f"grpc://127.0.0.1:{grpc_port}", is_chat=False
                )
            else:
                make = lambda: HttpSender(f"http://127.0.0.1:{http_port}", is_chat=False)  # noqa: E731
            run, begin_s, end_s, cpu_s_per_token = runner.run(_measured(make, streams))
            sent_s = runner.run(times(http_port))
    finally:
        server.kill()
        server.wait()
    return judge(run, sent_s, (begin_s, end_s), cpu_s_per_token)


async def _measured(
    make: Callable[[], Sender], streams: int
) -> tuple[SessionRun, float, float, float]:
    return await measure(make(), streams)


async def times(port: int) -> dict[str, list[float]]:
    """When the server sent what."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /times HTTP/1.1\r\nhost: bench\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()
    found: dict[str, list[float]] = json.loads(body)
    return found


def judge(
    run: SessionRun,
    sent_s: dict[str, list[float]],
    window: tuple[float, float],
    cpu_s_per_token: float,
) -> bool:
    """Prints the figures against their aims."""
    errors_s = []
    for record in run.records:
        for at_s, made_s in zip(record.frame_times_s, sent_s[record.request_id], strict=False):
            if window[0] <= at_s <= window[1]:
                errors_s.append(at_s + run.start_s - made_s)
    errors_s.sort()
    late_s = sorted(r.sent_s - r.arrival_s for r in run.records if r.arrival_s > window[1])
    p50_ms, p99_ms = (1e3 * quantile(errors_s, share) for share in (0.5, 0.99))
    late_ms = 1e3 * quantile(late_s, 0.99)
    limit_ms = 1e3 * LATENESS_SHARE_MAX / LATE_SESSIONS_PER_S
    is_good = (
        cpu_s_per_token <= CPU_US_MAX * 1e-6
        and p99_ms <= STAMP_ERROR_S_MAX * 1e3
        and late_ms <= limit_ms
    )
    print(
        f"{cpu_s_per_token * 1e6:.1f} us of processor time per token (aim {CPU_US_MAX:.0f}), "
        f"stamped p50 {p50_ms:.3f} ms, p99 {p99_ms:.3f} ms after sending "
        f"(aim {STAMP_ERROR_S_MAX * 1e3}), "
        f"sends late by p50 {1e3 * quantile(late_s, 0.5):.3f} ms, p99 {late_ms:.3f} ms "
        f"(limit at {LATE_SESSIONS_PER_S:.0f}/s {limit_ms})"
    )
    return is_good


def main() -> None:
    """Prints a line for each number of streams; fails where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--door", choices=["http", "grpc"], default="http")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--burst-ms", type=float, default=0.2)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(burst_s=arguments.burst_ms / 1e3))
        return
    results = [one(arguments, streams) for streams in arguments.streams]
    if not all(results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
