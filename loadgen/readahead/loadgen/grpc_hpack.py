"""Header blocks of HTTP/2 (RFC 7541), by way of `hpack`."""

from __future__ import annotations

from collections.abc import Iterable

import hpack

Header = tuple[bytes, bytes]


class HeaderError(ValueError):
    """A header block that cannot be decoded; no later one can be either."""


def encoded(headers: Iterable[Header]) -> bytes:
    """Headers that go into no table, so that the block is the same on every connection."""
    kept_apart = [hpack.NeverIndexedHeaderTuple(name, value) for name, value in headers]
    return hpack.Encoder().encode(kept_apart, huffman=False)


class Decoder:
    """Decodes the header blocks of one connection, in the order in which they came."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()

    def decode(self, block: bytes) -> list[Header]:
        """The headers of a block, in order.

        Raises:
            HeaderError: it is not as it should be, or holds more than 64 KiB.
        """
        try:
            return [(name, value) for name, value in self._decoder.decode(block, raw=True)]
        except hpack.HPACKError as error:
            raise HeaderError(f"a header block cannot be decoded: {error}") from error
