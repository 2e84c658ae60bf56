"""The side of the gRPC transport that has the KV: sends blocks of the host store."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.config import TlsConfig
from readahead.runtime.rpc.errors import abort_in_thread
from readahead.services.kv.grpc_endpoints import threaded_server
from readahead.services.kv.grpc_sender import Parts, StreamServer
from readahead.services.kv.grpc_wire import (
    CHUNK_BYTES,
    SERVICE,
    Fingerprint,
    encode_chunk,
)
from readahead.services.kv.host_store import HostStore
from readahead.v1 import kv_pb2

COPY_WAIT_S = 2.0
"""A copy is made by the step after the one that ended its request; one step rarely takes longer."""


class KvSource:
    """Serves one rank's host store, on two ports: all methods, and `Pull` alone, which is fast."""

    def __init__(self, store: HostStore, fingerprint: Fingerprint, *, engine_id: str) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._engine_id = engine_id
        self._server: grpc.Server | None = None
        self._streams = StreamServer(self._answer)

    def start(
        self, *, host: str, port: int, tls: TlsConfig, stream_port: int = 0
    ) -> tuple[int, int]:
        """Listens; returns both ports.

        Raises:
            OSError: an address cannot be had, or a PEM file not read.
        """
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Pull": stream(self._pull, kv_pb2.PullRequest.FromString, None),
            "Renew": unary(
                self._renew,
                kv_pb2.RenewRequest.FromString,
                kv_pb2.RenewResponse.SerializeToString,
            ),
            "Release": unary(
                self._release,
                kv_pb2.ReleaseRequest.FromString,
                kv_pb2.ReleaseResponse.SerializeToString,
            ),
        }
        handlers = grpc.method_handlers_generic_handler(SERVICE, methods)
        self._server, bound = threaded_server(handlers, host=host, port=port, tls=tls)
        return bound, self._streams.start(host=host, port=stream_port, tls=tls)

    def stop(self) -> None:
        """Cuts off what is being sent. Idempotent."""
        self._streams.stop()
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def _pull(self, request: kv_pb2.PullRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            for message in self._messages(request):
                yield b"".join(message)
        except ReadaheadError as error:
            abort_in_thread(context, error)

    def _answer(self, request: bytes) -> Generator[Parts, None, None]:
        try:
            asked = kv_pb2.PullRequest.FromString(request)
        except DecodeError as error:
            raise ValueError(f"no PullRequest: {error}") from error
        yield from self._messages(asked)

    def _messages(self, request: kv_pb2.PullRequest) -> Generator[Parts, None, None]:
        """The answer to a pull, each message valid until the next one is made.

        Raises:
            ReadaheadError: it is refused.
        """
        self._fingerprint.check(Fingerprint.of(request.fingerprint))
        self._check_engine(request.engine_id)
        with self._store.reading(request.key, wait_s=COPY_WAIT_S) as slots:
            for each in request.wanted:
                if not 0 < each.count <= len(slots) - each.first:
                    raise ReadaheadError(
                        Reason.INVALID_REQUEST,
                        f"The copy has {len(slots)} blocks.",
                        parameter="wanted",
                    )
                yield from self._chunks(slots[each.first : each.first + each.count], each.first)

    def _chunks(self, slots: Sequence[int], first: int) -> Iterator[Parts]:
        """Messages with these rows, the first of which is the copy's block `first`."""
        size = self._store.block_bytes
        if size > CHUNK_BYTES:
            for block, slot in enumerate(slots, start=first):
                (row,) = self._store.views([slot])
                for offset in range(0, size, CHUNK_BYTES):
                    yield encode_chunk(block, offset, [row[offset : offset + CHUNK_BYTES]])
            return
        blocks = CHUNK_BYTES // size
        for begin in range(0, len(slots), blocks):
            chosen = self._store.views(slots[begin : begin + blocks])
            yield encode_chunk(first + begin, 0, chosen)

    def _renew(
        self, request: kv_pb2.RenewRequest, context: grpc.ServicerContext
    ) -> kv_pb2.RenewResponse:
        keys = list(request.keys)
        if request.engine_id == self._engine_id:
            keys = self._store.renew(keys)
        return kv_pb2.RenewResponse(unknown_keys=keys)

    def _release(
        self, request: kv_pb2.ReleaseRequest, context: grpc.ServicerContext
    ) -> kv_pb2.ReleaseResponse:
        if request.engine_id == self._engine_id:
            self._store.drop(request.keys)
        return kv_pb2.ReleaseResponse()

    def _check_engine(self, engine_id: str) -> None:
        if engine_id != self._engine_id:
            raise ReadaheadError(
                Reason.KV_EXPIRED, "The engine that made the KV copy has been restarted."
            )
