"""Servers that follow a script: an InferenceService, and an HTTP server that speaks OpenAI's SSE.

Both run on a thread of their own, so that blocking and asyncio clients are tested alike.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import (  # type: ignore[import-untyped]
    code_pb2,
    error_details_pb2,
    status_pb2,
)

from readahead.v1 import inference_service_pb2 as pb
from readahead.v1 import inference_service_pb2_grpc as pb_grpc
from readahead.v1 import sampling_pb2

LIMIT_S = 10.0
"""Longest wait of a test for something that must happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """Ends the call with an error."""

    code: grpc.StatusCode
    message: str = "scripted"
    reason: str = ""
    """Empty: a bare status, as a transport or a proxy makes it."""
    retry_after_s: float | None = None
    parameter: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    raw_details: bytes | None = None

    def trailer(self) -> tuple[tuple[str, bytes], ...]:
        """The `grpc-status-details-bin` of it."""
        if self.raw_details is not None:
            return (("grpc-status-details-bin", self.raw_details),)
        if not self.reason:
            return ()
        info = error_details_pb2.ErrorInfo(
            reason=self.reason, domain="readahead", metadata=dict(self.metadata)
        )
        details: list[Any] = [info]
        if self.retry_after_s is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(round(self.retry_after_s * 1e9))
            details.append(retry)
        if self.parameter is not None:
            fields = error_details_pb2.BadRequest()
            fields.field_violations.add(field=self.parameter, description=self.message)
            details.append(fields)
        status = status_pb2.Status(code=code_pb2.UNKNOWN, message=self.message)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


@dataclass(slots=True)
class Gate:
    """The script waits here until the test opens it, or the client is gone."""

    event: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)


Step = pb.GenerateResponse | Fail | Gate
Script = Sequence[Step]


def started(request_id: str = "", *, prompt_tokens: int = 3) -> pb.GenerateResponse:
    """The first frame. An empty id becomes the request's own."""
    return pb.GenerateResponse(
        started=pb.Started(request_id=request_id, model="fake", prompt_tokens=prompt_tokens)
    )


def delta(text: str, *token_ids: int) -> pb.GenerateResponse:
    """A frame of text; one token unless told otherwise."""
    return pb.GenerateResponse(delta=pb.Delta(text=text, token_ids=token_ids or (7,)))


def finished(
    output_tokens: int,
    *,
    reason: sampling_pb2.FinishReason.ValueType = sampling_pb2.FINISH_REASON_LENGTH,
    prompt_tokens: int = 3,
) -> pb.GenerateResponse:
    """The last frame."""
    end = pb.Finished(reason=reason, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    end.first_token.queue.FromMilliseconds(2)
    end.first_token.total.FromMilliseconds(12)
    return pb.GenerateResponse(finished=end)


def answer(*texts: str) -> list[Step]:
    """A whole answer, one token a text."""
    return [started(), *(delta(text) for text in texts), finished(len(texts))]


class FakeInference(pb_grpc.InferenceServiceServicer):
    """Follows one script per Generate, in order; the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts) or [answer("a", "b")]
        self._lock = threading.Lock()
        self.make_script: Callable[[pb.GenerateRequest], Script] | None = None
        """Where set, makes the script from the request."""
        self.requests: list[pb.GenerateRequest] = []
        self.metadata: list[Mapping[str, str | bytes]] = []
        self.time_left_s: list[float | None] = []
        self.ended: queue.Queue[str] = queue.Queue()
        """Ids of Generate calls that ended early because the client was gone."""
        self.readings: list[tuple[str, int]] = []
        self.cancels: list[str] = []
        self.models: list[str] = ["fake"]
        self.unary_failures: list[Fail] = []
        """Taken by the next calls that are not Generate."""
        self.unary_calls = 0

    def Generate(
        self, request: pb.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateResponse]:
        """Follows the next script."""
        with self._lock:
            index = len(self.requests)
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            self.time_left_s.append(context.time_remaining())
            script = self._scripts[min(index, len(self._scripts) - 1)]
        if self.make_script is not None:
            script = self.make_script(request)
        gone = threading.Event()
        gates = [step for step in script if isinstance(step, Gate)]

        is_complete = threading.Event()

        def when_over() -> None:
            gone.set()
            if not is_complete.is_set():
                self.ended.put(request.request_id)
            for gate in gates:
                gate.event.set()

        context.add_callback(when_over)
        for step in script:
            match step:
                case Gate():
                    step.reached.set()
                    step.event.wait(LIMIT_S)
                    if gone.is_set():
                        return
                case Fail():
                    is_complete.set()
                    _fail(context, step)
                case _:
                    if step.HasField("started") and not step.started.request_id:
                        step = pb.GenerateResponse.FromString(step.SerializeToString())
                        step.started.request_id = request.request_id
                    yield step
        is_complete.set()

    def Cancel(self, request: pb.CancelRequest, context: grpc.ServicerContext) -> pb.CancelResponse:
        """Remembers it."""
        self._unary(context)
        self.cancels.append(request.request_id)
        return pb.CancelResponse()

    def ReportReading(
        self, request: pb.ReportReadingRequest, context: grpc.ServicerContext
    ) -> pb.ReportReadingResponse:
        """Remembers it."""
        self._unary(context)
        self.readings.append((request.request_id, request.tokens_read))
        return pb.ReportReadingResponse()

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """Lists `models`."""
        self._unary(context)
        return pb.ListModelsResponse(
            models=[
                pb.Model(name=name, context_tokens_max=2048, engine="emulated")
                for name in self.models
            ]
        )

    def Explain(
        self, request: pb.ExplainRequest, context: grpc.ServicerContext
    ) -> pb.ExplainResponse:
        """One decision."""
        self._unary(context)
        response = pb.ExplainResponse(
            request_id=request.request_id, stage="decoding", tokens_delivered=5
        )
        record = response.decisions.add(
            kind="decode", worker_id="d0", reason="least loaded", costs={"d0": 0.5, "d1": 2.0}
        )
        record.at.FromMilliseconds(1500)
        return response

    def _unary(self, context: grpc.ServicerContext) -> None:
        self.unary_calls += 1
        if self.unary_failures:
            _fail(context, self.unary_failures.pop(0))


def _fail(context: grpc.ServicerContext, failure: Fail) -> None:
    context.set_trailing_metadata(failure.trailer())
    context.abort(failure.code, failure.message)


@contextmanager
def serving(
    service: FakeInference,
    *,
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
    threads_max: int = 32,
) -> Iterator[str]:
    """Serves on loopback; gives host:port."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=threads_max))
    pb_grpc.add_InferenceServiceServicer_to_server(service, server)
    port = (
        server.add_insecure_port(address)
        if credentials is None
        else server.add_secure_port(address, credentials)
    )
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=0).wait()


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """One answer of the HTTP server, in pieces that are flushed one by one."""

    status: int = 200
    pieces: Sequence[bytes] = ()
    content_type: str = "text/event-stream"
    holds: bool = False
    """After the pieces the connection stays open until the client closes it."""
    is_truncated: bool = False
    """The connection is closed without the end mark of its transfer coding."""


class FakeOpenAi:
    """Answers GETs with a model list and POSTs by `reply`, which is given the path and the body."""

    def __init__(self, reply: Callable[[str, bytes], HttpReply]) -> None:
        self._reply = reply
        self.models_reply = HttpReply(
            pieces=[b'{"object":"list","data":[{"id":"fake","object":"model"}]}'],
            content_type="application/json",
        )
        self.posts: list[tuple[str, bytes]] = []
        self.gone = threading.Event()
        """A held client has closed its connection."""
        self.writers: set[asyncio.StreamWriter] = set()
        """Of the open connections."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        self.writers.add(writer)
        try:
            while head := await _read_head(reader):
                request_line, *header_lines = head.decode().split("\r\n")
                method, path, _ = request_line.split(" ")
                headers = dict(line.lower().split(": ", 1) for line in header_lines if line)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                reply = self.models_reply
                if method == "POST":
                    self.posts.append((path, body))
                    reply = self._reply(path, body)
                if not await self._write(reader, writer, reply):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()
            self.writers.discard(writer)

    async def _write(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: HttpReply
    ) -> bool:
        writer.write(
            f"HTTP/1.1 {reply.status} Scripted\r\ncontent-type: {reply.content_type}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        for piece in reply.pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)
        if reply.holds:
            await reader.read()
            self.gone.set()
            return False
        if reply.is_truncated:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


@contextmanager
def serving_http(fake: FakeOpenAi) -> Iterator[str]:
    """Serves on loopback, on a thread of its own; gives the base URL."""
    ready: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = queue.Queue()

    async def serve() -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(fake.handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        ready.put((asyncio.get_running_loop(), stop, port))
        await stop.wait()
        server.close()
        for writer in fake.writers:
            writer.transport.abort()
        while fake.writers:  # noqa: ASYNC110 - each pass lets the handlers go on
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    loop, stop, port = ready.get(timeout=LIMIT_S)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(LIMIT_S)


def sse(*datas: str) -> bytes:
    """Server-sent events with these data."""
    return b"".join(b"data: %b\n\n" % data.encode() for data in datas)
