"""The server of bench_load.py: cheap, so that it keeps up, and it keeps the time of each frame.

    python benchmarks/load_server.py [--tokens-per-s 5000] [--burst-ms 0.2] [--tokens-per-frame 1]

Prints the ports of its HTTP and its gRPC door, and runs until it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httptools
import uvloop

from readahead.runtime.clock import monotonic_s
from readahead.v1 import inference_service_pb2 as pb

FRAME = (
    b'data: {"id":"cmpl-0","object":"text_completion","created":1,"model":"bench","choices":'
    b'[{"index":0,"text":"%b","logprobs":null,"finish_reason":null,"stop_reason":null}],'
    b'"usage":{"prompt_tokens":8,"completion_tokens":%d,"total_tokens":%d}}\n\n'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What all streams get together."""

    tokens_per_s: float
    burst_s: float
    """Between two steps; at each, frames are sent that are due."""
    tokens_per_frame: int


class Pump:
    """Sends tokens to all open streams in turn, at the rate of them all together."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
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
        frames_per_s = self.flow.tokens_per_s / self.flow.tokens_per_frame
        while True:
            await asyncio.sleep(self.flow.burst_s)
            now_s = monotonic_s()
            owed, last_s = owed + (now_s - last_s) * frames_per_s, now_s
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
        tokens = index * self._pump.flow.tokens_per_frame
        frame = FRAME % (b" word" * self._pump.flow.tokens_per_frame, tokens, tokens + 8)
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
        tokens = self._pump.flow.tokens_per_frame
        yield pb.GenerateResponse(started=pb.Started(request_id=request.request_id))
        self._pump.open(request.request_id, queue.put_nowait)
        try:
            while True:
                index = await queue.get()
                delta = pb.Delta(text=" word" * tokens, token_ids=[index] * tokens)
                yield pb.GenerateResponse(delta=delta)
        finally:
            self._pump.close(request.request_id)


async def serve(flow: Flow) -> None:
    """The server; prints its ports and runs until it is killed."""
    loop = asyncio.get_running_loop()
    pump = Pump(flow)
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


def main() -> None:
    """Serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens-per-s", type=float, default=5000.0)
    parser.add_argument("--burst-ms", type=float, default=0.2)
    parser.add_argument("--tokens-per-frame", type=int, default=1)
    arguments = parser.parse_args()
    flow = Flow(
        tokens_per_s=arguments.tokens_per_s,
        burst_s=arguments.burst_ms / 1e3,
        tokens_per_frame=arguments.tokens_per_frame,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(flow))


if __name__ == "__main__":
    main()
