"""The side of the gRPC transport that wants the KV: pulls blocks, and asks again for what a broken
stream did not bring."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import grpc

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.clock import monotonic_s
from readahead.runtime.config import PeerTlsConfig
from readahead.runtime.rpc.errors import error_from_rpc
from readahead.services.kv.grpc_endpoints import threaded_channel
from readahead.services.kv.grpc_reader import MessageStream
from readahead.services.kv.grpc_wire import (
    MESSAGE_BYTES_MAX,
    PULL,
    SERVICE,
    Fingerprint,
    decode_chunk,
    ranges,
)
from readahead.services.kv.memory import Buffers
from readahead.v1 import kv_pb2

TRIES = 4
"""Streams opened for one pull. A peer that fails more often is taken for lost."""
RETRY_S = 0.05
"""Pause before a further try, longer each time."""
_STREAM_S_BASE, _STREAM_BYTES_PER_S = 10.0, 20e6
"""A stream that is slower than this in all has stalled."""
_UNARY_S = 5.0
AVOID_S = 60.0
"""A source whose fast port cannot be reached is asked through gRPC's library for so long."""

_TRANSIENT = frozenset(
    {Reason.WORKER_LOST, Reason.STREAM_BROKEN, Reason.OVERLOADED, Reason.DEADLINE_EXCEEDED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a copy is."""

    address: str
    engine_id: str
    key: str
    stream_address: str = ""
    """Where it is sent without gRPC's library; "": nowhere."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """What one pull has brought, for as long as it lasts."""

    missing: list[int]
    """Indices in the copy, ascending."""
    received_bytes: int = 0
    retries: int = 0
    bad_chunks: int = 0
    _part: bytearray = field(default_factory=bytearray)

    def take(self, message: bytes | memoryview, block_bytes: int, sink: Sink) -> None:
        """Gives whole blocks to the sink.

        Raises:
            ValueError: the chunk is damaged, or not one that was asked for next.
        """
        chunk = decode_chunk(message)
        if not self.missing or chunk.first_block != self.missing[0]:
            raise ValueError(f"block {chunk.first_block} comes out of order")
        self.received_bytes += len(chunk.data)
        if chunk.offset_bytes or len(chunk.data) < block_bytes:
            if chunk.offset_bytes != len(self._part):
                raise ValueError(f"a part of block {chunk.first_block} is missing")
            self._part += chunk.data
            if len(self._part) > block_bytes:
                raise ValueError(f"block {chunk.first_block} is too long")
            if len(self._part) == block_bytes:
                sink(chunk.first_block, memoryview(self._part))
                self.missing.pop(0)
                self._part = bytearray()
            return
        blocks, rest = divmod(len(chunk.data), block_bytes)
        came = list(range(chunk.first_block, chunk.first_block + blocks))
        if rest or self._part or self.missing[:blocks] != came:
            raise ValueError(f"not whole blocks from {chunk.first_block}")
        sink(chunk.first_block, chunk.data)
        del self.missing[:blocks]

    def restart(self) -> None:
        """Counts another try."""
        self.retries += 1
        self.forget_part()

    def forget_part(self) -> None:
        """Of the block that a broken stream left."""
        self._part = bytearray()


Sink = Callable[[int, memoryview], None]
"""Takes whole blocks: the index in the copy of the first, and their bytes."""


class Pulling:
    """One pull, which any thread can cancel."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._call: Any = None

    def cancel(self) -> None:
        """Ends it soon, with CANCELLED."""
        self.cancelled.set()
        if self._call is not None:
            self._call.cancel()

    def attach(self, call: Any) -> None:
        """Names the call to cancel."""
        self._call = call
        if self.cancelled.is_set():
            call.cancel()


class KvTarget:
    """Calls peers; one channel each. Any thread may use it."""

    def __init__(self, fingerprint: Fingerprint, *, tls: PeerTlsConfig) -> None:
        self._fingerprint = fingerprint
        self._tls = tls
        self._channels: dict[str, grpc.Channel] = {}
        self._buffers = Buffers(MESSAGE_BYTES_MAX)
        self._avoid_until_s: dict[str, float] = {}
        """By stream address."""
        self._lock = threading.Lock()

    def pull(
        self, source: Source, wanted: Sequence[int], sink: Sink, pulling: Pulling
    ) -> tuple[Progress, ReadaheadError | None]:
        """Pulls blocks of a copy. What came is in the sink even where it fails.

        Returns:
            What came, and why the rest did not: KV_EXPIRED, MODEL_NOT_FOUND, UNSUPPORTED and
            INVALID_REQUEST are the source's answer; WORKER_LOST, STREAM_BROKEN, OVERLOADED and
            DEADLINE_EXCEEDED come after several tries; or CANCELLED.
        """
        progress = Progress(missing=list(wanted))
        error = self._read(source, progress, sink, pulling)
        if error is None and progress.missing and not pulling.cancelled.is_set():
            progress.forget_part()
            error = self._try(source, progress, sink, pulling)  # it says why
        while True:
            if pulling.cancelled.is_set():
                return progress, ReadaheadError(Reason.CANCELLED, "The pull was cancelled.")
            if error is None or error.reason not in _TRANSIENT or progress.retries + 1 >= TRIES:
                return progress, error
            progress.restart()
            pulling.cancelled.wait(RETRY_S * progress.retries)
            error = self._try(source, progress, sink, pulling)

    def renew(self, address: str, engine_id: str, keys: Iterable[str]) -> None:
        """Extends leases of copies that are to be pulled. A peer that does not answer is let be."""
        request = kv_pb2.RenewRequest(engine_id=engine_id, keys=keys)
        self._quietly(address, "Renew", request)

    def release(self, address: str, engine_id: str, keys: Iterable[str]) -> None:
        """Has the source free copies; where it does not answer the lease frees them."""
        request = kv_pb2.ReleaseRequest(engine_id=engine_id, keys=keys)
        self._quietly(address, "Release", request)

    def close(self) -> None:
        """Ends all calls."""
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def _read(
        self, source: Source, progress: Progress, sink: Sink, pulling: Pulling
    ) -> ReadaheadError | None:
        """The first try, without gRPC's library, as far as it goes; a refusal is not told."""
        address = source.stream_address
        if not address or monotonic_s() < self._avoid_until_s.get(address, 0.0):
            return None
        try:
            stream = MessageStream(
                address,
                tls=self._tls,
                request=self._request(source, progress).SerializeToString(),
                timeout_s=self._timeout_s(progress),
                buffers=self._buffers,
            )
        except (OSError, ValueError):  # ValueError: that is no address
            self._avoid(address)
            return None
        pulling.attach(stream)
        try:
            return self._use(stream, progress, sink)
        except OSError as error:
            return ReadaheadError(Reason.STREAM_BROKEN, f"{address}: {error}")
        finally:
            stream.close()

    def _try(
        self, source: Source, progress: Progress, sink: Sink, pulling: Pulling
    ) -> ReadaheadError | None:
        try:
            open_stream: Any = self._channel(source.address).unary_stream(
                PULL, kv_pb2.PullRequest.SerializeToString, None
            )
            call = open_stream(self._request(source, progress), timeout=self._timeout_s(progress))
            pulling.attach(call)
            error = self._use(call, progress, sink)
        except grpc.RpcError as failure:
            return error_from_rpc(cast(grpc.aio.AioRpcError, failure))
        if error is None and progress.missing:
            return ReadaheadError(Reason.STREAM_BROKEN, "The stream ended before its end.")
        return error

    def _use(self, call: Any, progress: Progress, sink: Sink) -> ReadaheadError | None:
        try:
            for message in call:
                progress.take(message, self._fingerprint.block_bytes, sink)
        except ValueError as error:
            call.cancel()
            progress.bad_chunks += 1
            return ReadaheadError(Reason.STREAM_BROKEN, f"A chunk was damaged: {error}.")
        return None

    def _avoid(self, address: str) -> None:
        now = monotonic_s()
        others = {each: until for each, until in self._avoid_until_s.items() if until > now}
        self._avoid_until_s = others | {address: now + AVOID_S}

    def _request(self, source: Source, progress: Progress) -> kv_pb2.PullRequest:
        return kv_pb2.PullRequest(
            fingerprint=self._fingerprint.message(),
            engine_id=source.engine_id,
            key=source.key,
            wanted=ranges(progress.missing),
        )

    def _timeout_s(self, progress: Progress) -> float:
        left_bytes = len(progress.missing) * self._fingerprint.block_bytes
        return _STREAM_S_BASE + left_bytes / _STREAM_BYTES_PER_S

    def _quietly(self, address: str, method: str, request: Any) -> None:
        call: Any = self._channel(address).unary_unary(
            f"/{SERVICE}/{method}", type(request).SerializeToString, None
        )
        try:
            call(request, timeout=_UNARY_S)
        except grpc.RpcError:
            return  # said in the docstrings: nothing depends on it

    def _channel(self, address: str) -> grpc.Channel:
        with self._lock:
            if (channel := self._channels.get(address)) is None:
                channel = self._channels[address] = threaded_channel(address, tls=self._tls)
            return channel
