"""Real servers and channels on loopback: errors, health, reflection, limits, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]
    reflection_pb2,
    reflection_pb2_grpc,
)
from structlog.testing import capture_logs

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.config import TlsConfig
from readahead.runtime.rpc.channel import channel
from readahead.runtime.rpc.errors import error_from_rpc, grpc_status
from readahead.runtime.rpc.server import HealthBoard, bind, grpc_server
from readahead.v1 import inference_service_pb2 as pb
from readahead.v1 import inference_service_pb2_grpc as pb_grpc

SERVICE = "readahead.v1.InferenceService"
MESSAGE_BYTES_MAX = 64 << 10
LIMIT_S = 10.0

if TYPE_CHECKING:  # neither exists at run time
    Context = grpc.aio.ServicerContext[Any, Any]
    Stub = pb_grpc.InferenceServiceAsyncStub


class FakeInference(pb_grpc.InferenceServiceServicer):
    """Does what the test says; Explain, ReportReading and ListModels are left unimplemented."""

    def __init__(self) -> None:
        self.on_call: Callable[[], Awaitable[None]] = _nothing
        self.frames = 0
        self.is_ended = asyncio.Event()

    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:
        await self.on_call()
        return pb.CancelResponse()

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        try:
            for index in range(self.frames):
                yield pb.GenerateResponse(delta=pb.Delta(text=str(index)))
            await self.on_call()
        finally:
            self.is_ended.set()


async def _nothing() -> None:
    return None


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        raise error

    return call


@asynccontextmanager
async def serving(
    servicer: FakeInference, board: HealthBoard | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc_server(
        services=[SERVICE], message_bytes_max=MESSAGE_BYTES_MAX, health_board=board
    )
    pb_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    port = bind(server, host="127.0.0.1", port=0, tls=TlsConfig())
    await server.start()
    try:
        async with channel(f"127.0.0.1:{port}", message_bytes_max=MESSAGE_BYTES_MAX) as dialled:
            yield dialled
    finally:
        await server.stop(grace=None)


@pytest.fixture
def servicer() -> FakeInference:
    return FakeInference()  # type: ignore[abstract]  # in the generated types only


@pytest.fixture
async def dialled(servicer: FakeInference) -> AsyncIterator[grpc.aio.Channel]:
    async with serving(servicer) as open_channel:
        yield open_channel


@pytest.fixture
def stub(dialled: grpc.aio.Channel) -> Stub:
    return stub_on(dialled)


def stub_on(dialled: grpc.aio.Channel) -> Stub:
    # The generated types know the kind of channel only by the name of the stub.
    return cast("Stub", pb_grpc.InferenceServiceStub(dialled))


async def unary_error(stub: Stub) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Cancel(pb.CancelRequest(), timeout=LIMIT_S)
    return caught.value


async def stream_error(
    stub: Stub,
) -> tuple[list[str], grpc.aio.AioRpcError]:
    texts: list[str] = []
    stream = stub.Generate(pb.GenerateRequest(), timeout=LIMIT_S)

    async def read() -> None:
        while (frame := await stream.read()) is not grpc.aio.EOF:
            texts.append(cast(pb.GenerateResponse, frame).delta.text)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read()
    return texts, caught.value


def same(left: ReadaheadError, right: ReadaheadError) -> bool:
    fields = ("reason", "message", "parameter", "retry_after_s", "metadata")
    return all(getattr(left, name) == getattr(right, name) for name in fields)


@pytest.mark.parametrize("reason", Reason)
async def test_every_reason_crosses_unary_and_stream(
    reason: Reason, servicer: FakeInference, stub: Stub
) -> None:
    """Reason, message, parameter, delay and metadata arrive as they were raised."""
    sent = ReadaheadError(
        reason,
        "a sentence with ünïcode, 100 % of it",
        parameter="sampling.max_tokens",
        retry_after_s=1.25,
        metadata={"queue_requests_max": "1024", "scope": "POOL"},
    )
    servicer.on_call, servicer.frames = raising(sent), 2

    error = await unary_error(stub)
    assert error.code() == grpc_status(reason)
    assert same(error_from_rpc(error), sent)

    texts, error = await stream_error(stub)
    assert texts == ["0", "1"]
    assert error.code() == grpc_status(reason)
    assert same(error_from_rpc(error), sent)


async def test_a_bare_error_crosses_without_additions(servicer: FakeInference, stub: Stub) -> None:
    """What was not set is not set at the other end."""
    sent = ReadaheadError(Reason.NO_WORKER, "nobody here")
    servicer.on_call = raising(sent)
    assert same(error_from_rpc(await unary_error(stub)), sent)


async def test_an_error_too_large_for_the_trailers_is_cut_and_keeps_its_reason(
    servicer: FakeInference, stub: Stub
) -> None:
    """However long the text, the caller learns the reason."""
    sent = ReadaheadError(
        Reason.INVALID_REQUEST,
        "ü" * 100_000,
        parameter="p" * 100_000,
        metadata={f"{index}{'k' * 1000}": "ü" * 1000 for index in range(100)},
    )
    servicer.on_call = raising(sent)
    received = error_from_rpc(await unary_error(stub))
    assert received.reason == Reason.INVALID_REQUEST
    assert received.message.startswith("üüü")
    assert received.metadata


async def test_an_error_inside_a_task_group_is_the_error(
    servicer: FakeInference, stub: Stub
) -> None:
    """Handlers may raise from a TaskGroup."""
    sent = ReadaheadError(Reason.OVERLOADED, "full", retry_after_s=2.0)

    async def call() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(3600))
            raise sent

    servicer.on_call = call
    assert same(error_from_rpc(await unary_error(stub)), sent)
    servicer.is_ended.clear()
    assert same(error_from_rpc((await stream_error(stub))[1]), sent)


async def test_an_unexpected_exception_is_a_bug_logged_and_not_shown(
    servicer: FakeInference, stub: Stub
) -> None:
    """The caller learns that it is our fault; the text of the exception stays here."""
    servicer.on_call, servicer.frames = raising(ValueError("secret")), 1
    with capture_logs() as logs:
        unary = await unary_error(stub)
        texts, stream = await stream_error(stub)
    assert texts == ["0"]
    for error in (unary, stream):
        assert error.code() == grpc.StatusCode.INTERNAL
        assert error_from_rpc(error).reason == Reason.BUG
        assert "secret" not in str(error.details())
    assert [line["event"] for line in logs] == ["handler_failed", "handler_failed"]
    assert all(isinstance(line["exc_info"], ValueError) for line in logs)


async def test_an_rpc_that_is_not_implemented_is_unsupported(
    stub: Stub,
) -> None:
    """A method that a servicer leaves out is no bug."""
    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListModels(pb.ListModelsRequest(), timeout=LIMIT_S)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert error_from_rpc(caught.value).reason == Reason.UNSUPPORTED
    assert logs == []


async def test_a_caller_that_leaves_ends_the_handler(servicer: FakeInference, stub: Stub) -> None:
    """Cancelling the stream runs the handler's cleanup, and is no error to log."""
    forever = asyncio.Event()

    async def call() -> None:
        await forever.wait()

    servicer.on_call, servicer.frames = call, 1
    with capture_logs() as logs:
        stream = stub.Generate(pb.GenerateRequest())
        await stream.read()
        stream.cancel()
        async with asyncio.timeout(LIMIT_S):
            await servicer.is_ended.wait()
    assert logs == []


async def test_a_deadline_ends_the_handler(servicer: FakeInference, stub: Stub) -> None:
    """The caller's deadline holds on the server too."""
    forever = asyncio.Event()

    async def call() -> None:
        await forever.wait()

    servicer.on_call = call
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(pb.GenerateRequest(), timeout=0.05).read()
    assert error_from_rpc(caught.value).reason == Reason.DEADLINE_EXCEEDED
    async with asyncio.timeout(LIMIT_S):
        await servicer.is_ended.wait()


async def test_a_message_above_the_limit_is_refused(
    stub: Stub,
) -> None:
    """The limit holds; a message just below it passes."""
    await stub.Cancel(pb.CancelRequest(request_id="x" * (MESSAGE_BYTES_MAX - 16)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Cancel(pb.CancelRequest(request_id="x" * (MESSAGE_BYTES_MAX + 1)))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_peer_that_is_not_there_is_lost() -> None:
    """Nobody at the address is WORKER_LOST, promptly."""
    server = grpc_server(services=[], message_bytes_max=1024)
    port = bind(server, host="127.0.0.1", port=0, tls=TlsConfig())
    await server.stop(grace=None)
    async with channel(f"127.0.0.1:{port}", message_bytes_max=1024) as dialled:
        error = await unary_error(stub_on(dialled))
    assert error_from_rpc(error).reason == Reason.WORKER_LOST


async def test_two_servers_cannot_share_a_port() -> None:
    """The second one is told, instead of getting every other connection."""
    first = grpc_server(services=[], message_bytes_max=1024)
    second = grpc_server(services=[], message_bytes_max=1024)
    port = bind(first, host="127.0.0.1", port=0, tls=TlsConfig())
    await first.start()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
        bind(second, host="127.0.0.1", port=port, tls=TlsConfig())
    await first.stop(grace=None)
    await second.stop(grace=None)


async def test_health_follows_the_board(servicer: FakeInference) -> None:
    """Not serving at first; then what was set, for the server and each service; watchers hear."""
    board = HealthBoard([SERVICE])
    async with serving(servicer, board) as dialled:
        health = health_pb2_grpc.HealthStub(dialled)

        async def status(service: str) -> str:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

        assert [await status(name) for name in ("", SERVICE)] == ["NOT_SERVING"] * 2
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        seen = [(await watch.read()).status]
        board.set_serving(True)
        seen.append((await watch.read()).status)
        assert [await status(name) for name in ("", SERVICE)] == ["SERVING"] * 2
        board.set_serving(False)
        seen.append((await watch.read()).status)
        assert [await status(name) for name in ("", SERVICE)] == ["NOT_SERVING"] * 2
        assert [health_pb2.HealthCheckResponse.ServingStatus.Name(value) for value in seen] == [
            "NOT_SERVING",
            "SERVING",
            "NOT_SERVING",
        ]
        watch.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status("readahead.v1.NoService")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(dialled: grpc.aio.Channel) -> None:
    """Tools such as grpcurl find what is served, and its messages."""
    stub = reflection_pb2_grpc.ServerReflectionStub(dialled)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = [service.name for service in answers[0].list_services_response.service]
    assert set(names) == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert answers[1].file_descriptor_response.file_descriptor_proto
