"""What the load generator itself costs, and how true its time stamps are.

    python benchmarks/bench_load.py [--door grpc] [--streams 100 2000] [--tokens-per-frame 5]

A cheap server in a process of its own sends 5,000 tokens/s over so many streams, and keeps the
time at which it sent each frame. Printed: processor time of the generator per received token and
frame (aim: at most 40 us per token), how much later than sent a frame was stamped (aim: 0.5 ms),
and how late sends are while all streams run. `--burst-ms 20` sends as an engine does, to every
stream at once at each step. `--door aiohttp` puts aiohttp's client where ours is, and
`--door grpc-sdk` the SDK's.

The server's time of sending is taken before its system call, so that the difference holds the way
through the kernel of the loopback too. Both processes read the same monotonic clock. On a machine
that others use, both are late for other reasons than the generator: before each measurement a
control reads the same bytes from the same server, stamps them, and does nothing else: a connection
per stream over HTTP, one for all over gRPC. What the generator adds is the difference, and the aim
for stamps holds for that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import uvloop

from readahead.loadgen import grpc_frames as h2
from readahead.loadgen.grpc_hpack import encoded
from readahead.loadgen.grpc_sender import GENERATE, GrpcSender
from readahead.loadgen.http_sender import HttpSender
from readahead.loadgen.request import Request
from readahead.loadgen.senders import Result, Sender, SendOptions
from readahead.loadgen.session_run import Hooks, RunLimits, SessionRun
from readahead.loadgen.sse_answer import SseAnswer
from readahead.loadgen.timeline import Timeline
from readahead.runtime.clock import monotonic_s
from readahead.v1 import inference_service_pb2 as pb
from readahead.workload.reader import Reader
from readahead.workload.session import Segment, Session, Turn

TOKENS_PER_S = 5000.0
RAMP_SESSIONS_PER_S = 400.0
SETTLE_S = 2.0
STEADY_S = 6.0
CONTROL_S = 4.0
LATE_SESSIONS_PER_S = 20.0
LATE_SESSIONS = 100
CPU_US_MAX = 40.0
STAMP_ERROR_S_MAX = 0.5e-3
LATENESS_SHARE_MAX = 0.01
OUTPUT_TOKENS = 1_000_000
DELTA_TAG = pb.GenerateResponse.DELTA_FIELD_NUMBER << 3 | 2
"""With which a message begins that holds tokens."""
SERVER = Path(__file__).with_name("load_server.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a window of a run took."""

    begin_s: float
    end_s: float
    """On the machine's monotonic clock."""
    cpu_s: float
    tokens: int

    @property
    def us_per_token(self) -> float:
        """Processor time, user and system."""
        return self.cpu_s / max(1, self.tokens) * 1e6


class Bare(asyncio.Protocol):
    """The control: one stream whose bytes are stamped."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.stamps_s = array("d")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        head = f"POST /v1/completions HTTP/1.1\r\nhost: bench\r\nx-request-id: {self._name}\r\n\r\n"
        cast(asyncio.Transport, transport).write(head.encode())

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        stamp_s = monotonic_s()
        for _ in range(data.count(b"data: ")):
            self.stamps_s.append(stamp_s)


class BareGrpc(asyncio.Protocol):
    """The control over gRPC: streams of one connection whose messages are stamped."""

    def __init__(self, port: int) -> None:
        self._head = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", GENERATE.encode()),
            (b":authority", b"127.0.0.1:%d" % port),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        ]
        self._frames = h2.FrameReader()
        self._streams: dict[int, tuple[Bare, h2.MessageReader]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        settings = h2.settings({h2.INITIAL_WINDOW_SIZE: h2.WINDOW_BYTES_MAX})
        window = h2.window_update(0, h2.WINDOW_BYTES_MAX - h2.WINDOW_BYTES_DEFAULT)
        self._transport.write(h2.PREFACE + settings + window)

    def open(self, name: str, bare: Bare) -> None:
        """Begins a stream."""
        number = 2 * len(self._streams) + 1
        self._streams[number] = (bare, h2.MessageReader(1 << 20))
        request = h2.message(pb.GenerateRequest(request_id=name).SerializeToString())
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, number, encoded(self._head))
        self._transport.write(head + h2.frame(h2.DATA, h2.END_STREAM, number, request))

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        stamp_s = monotonic_s()
        for frame in self._frames.feed(data):
            if frame.kind == h2.DATA:
                bare, messages = self._streams[frame.stream_id]
                for message in messages.feed(frame.payload):
                    if message[0] == DELTA_TAG:
                        bare.stamps_s.append(stamp_s)
            elif frame.kind in {h2.SETTINGS, h2.PING} and not frame.flags & h2.ACK:
                payload = frame.payload if frame.kind == h2.PING else b""
                self._transport.write(h2.frame(frame.kind, h2.ACK, 0, payload))


class AiohttpSender(HttpSender):
    """Ours with aiohttp's client in place of our connections."""

    async def __aenter__(self) -> AiohttpSender:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, request: Request, options: SendOptions, timeline: Timeline) -> Result:
        """The same request, read as it comes."""
        answer, url = SseAnswer(timeline), f"{self._base}{self._call}"
        headers = {"x-request-id": request.request_id}
        body = self._body(request, options)
        async with self._session.post(url, json=body, headers=headers) as response:
            async for piece in response.content.iter_any():
                if answer.feed(piece, monotonic_s()):
                    break
        return answer.result()


class SdkSender(GrpcSender):
    """Ours with the SDK in place of our connections."""

    def __init__(self, target: str, *, is_chat: bool) -> None:
        super().__init__(target, is_chat=is_chat)
        self._channel = None


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


async def measure(sender: Sender, streams: int) -> tuple[SessionRun, Cost]:
    """Runs; returns the run, and what its steady part took."""
    stop = asyncio.Event()
    run = SessionRun(
        sender,
        SendOptions(model="bench", timeout_s=600, ignore_eos=False),
        RunLimits(requests_max=10 * streams + LATE_SESSIONS),
        texts=lambda segment: "word " * segment.tokens,
        run_id="bench",
        hooks=Hooks(stop=stop),
    )
    sessions = sessions_for(streams)
    async with sender, asyncio.TaskGroup() as group:
        await sender.models()
        group.create_task(run.offer(sessions))
        await asyncio.sleep(streams / RAMP_SESSIONS_PER_S + SETTLE_S)
        begin_s, before_s, tokens = monotonic_s(), cpu_s(), run.counts.tokens
        await asyncio.sleep(STEADY_S - 0.5)
        cost = Cost(
            begin_s=begin_s,
            end_s=monotonic_s(),
            cpu_s=cpu_s() - before_s,
            tokens=run.counts.tokens - tokens,
        )
        await asyncio.sleep(max(0.0, sessions[-1].arrival_s - run.now_s()) + 0.5)
        stop.set()
    return run, cost


async def control(
    port: int, streams: int, tokens_per_frame: int, *, is_grpc: bool
) -> tuple[dict[str, Bare], Cost]:
    """Reads as many streams, and does nothing with them."""
    loop = asyncio.get_running_loop()
    bare = {f"control-{index}": Bare(f"control-{index}") for index in range(streams)}
    transports: list[asyncio.Transport] = []
    over_grpc = BareGrpc(port)
    if is_grpc:
        made = await loop.create_connection(lambda: over_grpc, "127.0.0.1", port)
        transports.append(made[0])
    for index, (name, one) in enumerate(bare.items()):
        if is_grpc:
            over_grpc.open(name, one)
        else:
            made = await loop.create_connection(lambda one=one: one, "127.0.0.1", port)  # type: ignore[misc]
            transports.append(made[0])
        if index % 8 == 0:
            await asyncio.sleep(8 / RAMP_SESSIONS_PER_S)
    await asyncio.sleep(0.5)
    begin_s, before_s = monotonic_s(), cpu_s()
    frames = sum(len(one.stamps_s) for one in bare.values())
    await asyncio.sleep(CONTROL_S)
    frames = sum(len(one.stamps_s) for one in bare.values()) - frames
    cost = Cost(
        begin_s=begin_s,
        end_s=monotonic_s(),
        cpu_s=cpu_s() - before_s,
        tokens=frames * tokens_per_frame,
    )
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0.5)
    return bare, cost


def cpu_s() -> float:
    """Processor seconds that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def quantile(ascending: Sequence[float], share: float) -> float:
    """By nearest rank."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def one(arguments: argparse.Namespace, streams: int) -> bool:
    """One measurement with a server of its own; whether it came up to the aims."""
    frame = arguments.tokens_per_frame
    command = [sys.executable, str(SERVER), "--burst-ms", str(arguments.burst_ms)]
    command += ["--tokens-per-frame", str(frame), "--tokens-per-s", str(TOKENS_PER_S)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        http_port, grpc_port = map(int, server.stdout.readline().split())
        factory = uvloop.new_event_loop if arguments.loop == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            is_grpc = arguments.door.startswith("grpc")
            port = grpc_port if is_grpc else http_port
            bare, bare_cost = runner.run(control(port, streams, frame, is_grpc=is_grpc))
            run, cost = runner.run(_measured(arguments.door, port, streams))
            sent_s = runner.run(times(http_port))
    finally:
        server.kill()
        server.wait()
    stamps_s = {
        record.request_id: [at_s + run.start_s for at_s in record.frame_times_s]
        for record in run.records
    }
    ours_s = errors_s(stamps_s, sent_s, cost)
    controls_s = errors_s({name: one.stamps_s for name, one in bare.items()}, sent_s, bare_cost)
    print(f"{streams} streams, {arguments.door} on {arguments.loop}, {frame} tokens per frame:")
    _print_line("control", bare_cost, controls_s, frame)
    _print_line("ours", cost, ours_s, frame)
    added_s = [quantile(ours_s, share) - quantile(controls_s, share) for share in (0.5, 0.99)]
    late_s = sorted(
        r.sent_s - r.arrival_s for r in run.records if r.arrival_s + run.start_s > cost.end_s
    )
    late_p99_s, limit_s = quantile(late_s, 0.99), LATENESS_SHARE_MAX / LATE_SESSIONS_PER_S
    print(
        f"  added to the control: {cost.us_per_token - bare_cost.us_per_token:.1f} us per token,"
        f" p50 {1e3 * added_s[0]:.3f} ms, p99 {1e3 * added_s[1]:.3f} ms (aim"
        f" {1e3 * STAMP_ERROR_S_MAX:g}); sends late by p50 {1e3 * quantile(late_s, 0.5):.3f} ms,"
        f" p99 {1e3 * late_p99_s:.3f} ms (limit at {LATE_SESSIONS_PER_S:.0f}/s {1e3 * limit_s:g})",
        flush=True,
    )
    is_cheap = cost.us_per_token <= CPU_US_MAX
    return is_cheap and added_s[1] <= STAMP_ERROR_S_MAX and late_p99_s <= limit_s


def _print_line(name: str, cost: Cost, late_s: Sequence[float], frame: int) -> None:
    print(
        f"  {name:<8} {cost.tokens / (cost.end_s - cost.begin_s):5.0f} tokens/s, processor"
        f" {cost.us_per_token:5.1f} us per token, {cost.us_per_token * frame:5.1f} per frame;"
        f" stamped p50 {1e3 * quantile(late_s, 0.5):.3f} ms, p99 {1e3 * quantile(late_s, 0.99):.3f}"
        f", p99.9 {1e3 * quantile(late_s, 0.999):.3f} after sending"
    )


async def _measured(door: str, port: int, streams: int) -> tuple[SessionRun, Cost]:
    kinds: dict[str, Callable[[], Sender]] = {
        "grpc": lambda: GrpcSender(f"grpc://127.0.0.1:{port}", is_chat=False),
        "grpc-sdk": lambda: SdkSender(f"grpc://127.0.0.1:{port}", is_chat=False),
        "http": lambda: HttpSender(f"http://127.0.0.1:{port}", is_chat=False),
        "aiohttp": lambda: AiohttpSender(f"http://127.0.0.1:{port}", is_chat=False),
    }
    return await measure(kinds[door](), streams)


async def times(port: int) -> dict[str, list[float]]:
    """When the server sent what."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /times HTTP/1.1\r\nhost: bench\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()
    found: dict[str, list[float]] = json.loads(body)
    return found


def errors_s(stamps_s: dict[str, Any], sent_s: dict[str, list[float]], window: Cost) -> list[float]:
    """How much later than sent frames were stamped, within the window; ascending."""
    found = [
        at_s - made_s
        for name, stamps in stamps_s.items()
        for at_s, made_s in zip(stamps, sent_s.get(name, ()), strict=False)
        if window.begin_s <= at_s <= window.end_s
    ]
    return sorted(found)


def main() -> None:
    """Prints three lines for each number of streams; fails where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--door", choices=["http", "grpc", "aiohttp", "grpc-sdk"], default="http")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    parser.add_argument("--burst-ms", type=float, default=0.2)
    parser.add_argument("--tokens-per-frame", type=int, default=1)
    arguments = parser.parse_args()
    results = [one(arguments, streams) for streams in arguments.streams]
    if not all(results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
