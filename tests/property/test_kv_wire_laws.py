"""Laws of the KV transport's chunks: hand-written, they are protobuf's."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.services.kv.grpc_wire import decode_chunk, encode_chunk, ranges
from readahead.v1 import kv_pb2

DATA = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4)
BLOCK = st.integers(0, 2**32 - 1)
OFFSET = st.integers(0, 2**64 - 1)


@given(BLOCK, OFFSET, DATA)
def test_protobuf_reads_what_we_write(block: int, offset: int, parts: list[bytes]) -> None:
    """Every field."""
    message = b"".join(encode_chunk(block, offset, [memoryview(part) for part in parts]))
    read = kv_pb2.PullResponse.FromString(message)
    data = b"".join(parts)
    assert (read.first_block, read.offset_bytes, read.data) == (block, offset, data)
    assert read.checksum == zlib.crc32(data)


@given(BLOCK, OFFSET, st.binary(min_size=1, max_size=300), st.binary(max_size=20))
def test_we_read_what_protobuf_writes(block: int, offset: int, data: bytes, extra: bytes) -> None:
    """Fields that we do not know, as of a later version, are passed over."""
    message = kv_pb2.PullResponse(
        first_block=block, offset_bytes=offset, checksum=zlib.crc32(data), data=data
    ).SerializeToString()
    unknown = b"\x7a" + bytes([len(extra)]) + extra + b"\x75abcd" + b"\x71abcdefgh" + b"\x78\x05"
    for whole in (message, unknown + message, message + unknown):
        chunk = decode_chunk(whole)
        assert (chunk.first_block, chunk.offset_bytes, bytes(chunk.data)) == (block, offset, data)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_damage_is_seen(data: bytes, draw: st.DataObject) -> None:
    """A changed bit in the data or the checksum, and a message that was cut short."""
    message = b"".join(encode_chunk(3, 0, [memoryview(data)]))
    begin = message.index(b"\x1d") + 1
    at = draw.draw(st.integers(begin, len(message) - 1))
    length = slice(begin + 4, len(message) - len(data))
    if not length.start <= at < length.stop:
        bit = 1 << draw.draw(st.integers(0, 7))
        with pytest.raises(ValueError, match="checksum"):
            decode_chunk(message[:at] + bytes([message[at] ^ bit]) + message[at + 1 :])
    with pytest.raises(ValueError, match=r"cut short|checksum|varint"):
        decode_chunk(message[:at])


@given(st.binary(max_size=64))
def test_anything_else_is_an_error_of_ours(message: bytes) -> None:
    """Never another exception."""
    try:
        decode_chunk(message)
    except ValueError:
        return


@given(st.sets(st.integers(0, 60)))
def test_ranges_are_the_blocks(blocks: set[int]) -> None:
    """In order, as few as can be."""
    runs = ranges(sorted(blocks))
    listed = [run.first + each for run in runs for each in range(run.count)]
    assert listed == sorted(blocks)
    starts = {block for block in blocks if block - 1 not in blocks}
    assert len(runs) == len(starts)
