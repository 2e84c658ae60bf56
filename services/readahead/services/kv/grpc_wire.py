"""What the gRPC transport of KV caches puts on the wire, and how it compares engines.

A chunk is a `PullResponse`, written and read by hand: protobuf's own code would copy the data twice
more on each side. The tests hold both to the same bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from readahead.core.errors import ReadaheadError, Reason
from readahead.v1 import kv_pb2

PROTOCOL = 1
"""Goes up when the meaning of a message or the encoding of a block changes."""
CHUNK_BYTES = 2 << 20
"""Data in a message. Smaller and larger ones gained nothing."""
MESSAGE_BYTES_MAX = CHUNK_BYTES + 4096
SERVICE = "readahead.v1.KvService"
PULL = f"/{SERVICE}/Pull"

_LENGTH_DELIMITED, _FIXED32, _FIXED64, _VARINT = 2, 5, 1, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What must be equal for two engines to read each other's blocks; see kv.proto."""

    engine_version: str
    model: str
    block_tokens: int
    block_bytes: int
    dtype: str
    layout: str
    ranks: int
    rank: int
    protocol: int = PROTOCOL

    def message(self) -> kv_pb2.KvFingerprint:
        """For the wire."""
        return kv_pb2.KvFingerprint(**asdict(self))

    @classmethod
    def of(cls, message: kv_pb2.KvFingerprint) -> Fingerprint:
        """From the wire."""
        return cls(**{field.name: getattr(message, field.name) for field in fields(cls)})

    def check(self, theirs: Fingerprint) -> None:
        """Refuses an engine whose blocks are not ours.

        Raises:
            ReadaheadError: MODEL_NOT_FOUND or UNSUPPORTED; says what differs.
        """
        for field in sorted(fields(self), key=lambda each: each.name != "protocol"):
            here, there = getattr(self, field.name), getattr(theirs, field.name)
            if here != there:
                reason = Reason.MODEL_NOT_FOUND if field.name == "model" else Reason.UNSUPPORTED
                raise ReadaheadError(
                    reason,
                    f"The KV caches do not fit: {field.name} is {here!r} here and {there!r} there.",
                    parameter=field.name,
                )


def checksum(parts: Iterable[memoryview]) -> int:
    """CRC-32 of the parts, one after the other."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def encode_chunk(
    first_block: int, offset_bytes: int, parts: Sequence[memoryview]
) -> list[bytes | memoryview]:
    """A `PullResponse`, in pieces that are not copied."""
    size = sum(map(len, parts))
    header = b"".join((
        b"\x08", _varint(first_block), b"\x10", _varint(offset_bytes),
        b"\x1d", struct.pack("<I", checksum(parts)), b"\x22", _varint(size),
    ))  # fmt: skip
    return [header, *parts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A `PullResponse` that was read; its data is that of the message, not a copy."""

    first_block: int
    offset_bytes: int
    data: memoryview


def decode_chunk(message: bytes | memoryview) -> Chunk:
    """Reads a `PullResponse` and checks its data.

    Raises:
        ValueError: it is none, or its checksum is wrong.
    """
    view = memoryview(message)
    numbers = {1: 0, 2: 0}
    expected, data, at = 0, memoryview(b""), 0
    while at < len(view):
        tag, at = _read_varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _read_varint(view, at)
            numbers[number] = value
            continue
        if kind == _LENGTH_DELIMITED:
            size, at = _read_varint(view, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(view):
            raise ValueError("cut short")
        if (number, kind) == (4, _LENGTH_DELIMITED):
            data = view[at : at + size]
        elif (number, kind) == (3, _FIXED32):
            (expected,) = struct.unpack_from("<I", view, at)
        at += size
    if not len(data) or checksum([data]) != expected:
        raise ValueError("checksum mismatch")
    return Chunk(first_block=numbers[1], offset_bytes=numbers[2], data=data)


def ranges(blocks: Iterable[int]) -> list[kv_pb2.BlockRange]:
    """Ascending block indices as runs."""
    runs: list[kv_pb2.BlockRange] = []
    for block in blocks:
        if runs and runs[-1].first + runs[-1].count == block:
            runs[-1].count += 1
        else:
            runs.append(kv_pb2.BlockRange(first=block, count=1))
    return runs


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 64:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("bad varint")
