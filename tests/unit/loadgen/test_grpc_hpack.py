"""Header compression: the RFC's own examples, and what holds for all input."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.loadgen.grpc_hpack import (
    CODE_BITS,
    END_SYMBOL,
    Decoder,
    Header,
    HeaderError,
    encoded,
    huffman_codes,
)

COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
PLACE = (b"location", b"https://www.example.com")
PRIVATE = (b"cache-control", b"private")
FIRST_DATE = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
TABLE_OF_256 = "3fe101"

PLAIN = (
    "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
    "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
    "4803333037c1c0bf",
    "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d41"
    "53444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b207665727369"
    "6f6e3d31",
)
"""RFC 7541, C.5: answers without Huffman codes."""
HUFFMAN = (
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97"
    "c8e9ae82ae43d3",
    "4883640effc1c0bf",
    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd"
    "5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
)
"""RFC 7541, C.6: the same with them."""
EXPECTED: tuple[list[Header], ...] = (
    [(b":status", b"302"), PRIVATE, FIRST_DATE, PLACE],
    [(b":status", b"307"), PRIVATE, FIRST_DATE, PLACE],
    [
        (b":status", b"200"),
        PRIVATE,
        (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
        PLACE,
        (b"content-encoding", b"gzip"),
        (b"set-cookie", COOKIE),
    ],
)

texts = st.binary(max_size=300)


def huffman_text(text: bytes) -> bytes:
    """A text of a header in Huffman's code, its length before it."""
    code_of = {symbol: code for code, symbol in huffman_codes().items()}
    bits = "".join(f"{code_of[byte][1]:0{code_of[byte][0]}b}" for byte in text)
    bits += "1" * (-len(bits) % 8)
    content = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    return bytes([0x80 | len(content)]) + content


@pytest.mark.parametrize("blocks", [PLAIN, HUFFMAN])
def test_the_examples_of_the_rfc(blocks: tuple[str, ...]) -> None:
    """Three answers in a row, with a table of 256 bytes from which entries drop out."""
    decoder = Decoder()
    decoder.decode(bytes.fromhex(TABLE_OF_256))
    for block, headers in zip(blocks, EXPECTED, strict=True):
        assert decoder.decode(bytes.fromhex(block)) == headers


@given(st.lists(st.tuples(texts, texts), max_size=8))
def test_what_is_encoded_is_decoded(headers: list[Header]) -> None:
    """Whatever the lengths."""
    assert Decoder().decode(encoded(headers)) == headers


@given(st.binary(max_size=30))
def test_each_byte_has_a_huffman_code(text: bytes) -> None:
    """Texts of any bytes come back."""
    block = b"\x00" + huffman_text(b"name") + huffman_text(text)
    assert Decoder().decode(block) == [(b"name", text)]


def test_the_huffman_code_is_complete() -> None:
    """No code is left over and none begins another: the shares of all add up to one."""
    assert len(huffman_codes()) == len(CODE_BITS) == END_SYMBOL + 1
    assert sum(Fraction(1, 2**bits) for bits in CODE_BITS) == 1


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_bad_blocks_are_refused(blocks: list[bytes]) -> None:
    """With one kind of error, whatever comes."""
    decoder = Decoder()
    try:
        for block in blocks:
            decoder.decode(block)
    except HeaderError:
        pass


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("80", "entry 0"),
        ("be", "entry 62"),
        ("3fe21f", "was not agreed on"),
        ("00046e61", "within a text"),
        ("00", "too early"),
        ("7fffffffffff01", "too long an integer"),
        ("000084ffffffff", "end symbol"),
        ("000081fe", "within a symbol"),
        ("000081ff", "within a symbol"),
    ],
)
def test_errors_say_what_is_wrong(block: str, complaint: str) -> None:
    """Each of the RFC's errors of decoding."""
    with pytest.raises(HeaderError, match=complaint):
        Decoder().decode(bytes.fromhex(block))
