"""Header compression of HTTP/2 (RFC 7541), as much as a client of gRPC needs.

Encoding uses no table and no Huffman code, so that it has no state: a request has few headers.
Decoding knows all of it, as servers and proxies choose what they send.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

Header = tuple[bytes, bytes]

TABLE_BYTES_MAX = 4096
"""Of the decoder's dynamic table: the default, which we do not change (RFC 7540, 6.5.2)."""
ENTRY_BYTES = 32
"""What an entry counts beyond its text (RFC 7541, 4.1)."""
INTEGER_BITS_MAX = 28
"""A longer integer is no length of a header and no index."""

_STATIC_TEXT = """\
:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate"""
STATIC: tuple[Header, ...] = tuple(
    (name, value)
    for name, _, value in (line.partition(b" ") for line in _STATIC_TEXT.encode().split(b"\n"))
)
"""Appendix A; its indices begin at 1."""

# fmt: off
CODE_BITS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
)
# fmt: on
"""Length of each symbol's Huffman code (Appendix B). The code is canonical: within a length, codes
count up in the order of symbols, so that the lengths say all. The last symbol ends a text."""
END_SYMBOL = 256


def huffman_codes() -> dict[tuple[int, int], int]:
    """Symbols by length and value of their code."""
    codes: dict[tuple[int, int], int] = {}
    code, bits_before = -1, 0
    for bits, symbol in sorted((bits, symbol) for symbol, bits in enumerate(CODE_BITS)):
        code = (code + 1) << (bits - bits_before)
        codes[bits, code] = symbol
        bits_before = bits
    return codes


_SYMBOLS = huffman_codes()


class HeaderError(ValueError):
    """A header block that cannot be decoded; no later one can be either."""


def encoded(headers: Iterable[Header]) -> bytes:
    """Headers as literals that go into no table."""
    block = bytearray()
    for name, value in headers:
        block.append(0)
        block += _encoded_text(name) + _encoded_text(value)
    return bytes(block)


def _encoded_text(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    head, rest = bytearray((127,)), length - 127
    while rest > 127:
        head.append(rest & 127 | 128)
        rest >>= 7
    head.append(rest)
    return bytes(head) + text


class Decoder:
    """Decodes the header blocks of one connection, in the order in which they came."""

    def __init__(self) -> None:
        self._recent: deque[Header] = deque()
        self._bytes = 0
        self._bytes_max = TABLE_BYTES_MAX

    def decode(self, block: bytes) -> list[Header]:
        """The headers of a block, in order.

        Raises:
            HeaderError: it is not as it should be.
        """
        headers: list[Header] = []
        at = 0
        try:
            while at < len(block):
                first = block[at]
                if first & 0x80:
                    index, at = _integer(block, at, 7)
                    headers.append(self._entry(index))
                elif first & 0xE0 == 0x20:
                    size, at = _integer(block, at, 5)
                    self._resize(size)
                else:
                    is_kept = bool(first & 0x40)
                    header, at = self._literal(block, at, 6 if is_kept else 4)
                    headers.append(header)
                    if is_kept:
                        self._keep(header)
        except IndexError as error:
            raise HeaderError("a header block ends too early") from error
        return headers

    def _literal(self, block: bytes, at: int, bits: int) -> tuple[Header, int]:
        index, at = _integer(block, at, bits)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _text(block, at)
        value, at = _text(block, at)
        return (name, value), at

    def _entry(self, index: int) -> Header:
        if 0 < index <= len(STATIC):
            return STATIC[index - 1]
        if 0 < index - len(STATIC) <= len(self._recent):
            return self._recent[index - len(STATIC) - 1]
        raise HeaderError(f"a header block names entry {index}, which there is not")

    def _resize(self, size: int) -> None:
        if size > TABLE_BYTES_MAX:
            raise HeaderError(f"a header table of {size} bytes was not agreed on")
        self._bytes_max = size
        self._shrink()

    def _keep(self, header: Header) -> None:
        self._recent.appendleft(header)
        self._bytes += _entry_bytes(header)
        self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._bytes_max:
            self._bytes -= _entry_bytes(self._recent.pop())


def _entry_bytes(header: Header) -> int:
    return len(header[0]) + len(header[1]) + ENTRY_BYTES


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """An integer that begins in the low bits of a byte (5.1), and where it ends."""
    full = (1 << bits) - 1
    value = block[at] & full
    at += 1
    if value < full:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return value, at
        if shift >= INTEGER_BITS_MAX:
            raise HeaderError("a header block has too long an integer")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    is_huffman = bool(block[at] & 0x80)
    length, at = _integer(block, at, 7)
    text = block[at : at + length]
    if len(text) < length:
        raise HeaderError("a header block ends within a text")
    return (_plain(text) if is_huffman else text), at + length


def _plain(text: bytes) -> bytes:
    """A Huffman-coded text, decoded (5.2)."""
    plain = bytearray()
    code, bits = 0, 0
    for byte in text:
        for shift in range(7, -1, -1):
            code, bits = code << 1 | (byte >> shift & 1), bits + 1
            symbol = _SYMBOLS.get((bits, code))
            if symbol is not None:
                if symbol == END_SYMBOL:
                    raise HeaderError("a header's text holds the end symbol")
                plain.append(symbol)
                code, bits = 0, 0
    if bits > 7 or code != (1 << bits) - 1:
        raise HeaderError("a header's text ends within a symbol")
    return bytes(plain)
