"""Header blocks: what a connection needs of them, whichever library codes them."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.loadgen.grpc_hpack import Decoder, Header, HeaderError, encoded

texts = st.binary(max_size=300)


@given(st.lists(st.lists(st.tuples(texts, texts), max_size=8), max_size=3))
def test_blocks_depend_on_none_before_them(blocks: list[list[Header]]) -> None:
    """One that is made once may be sent on any connection, any number of times."""
    decoder = Decoder()
    for headers in (*blocks, *reversed(blocks)):
        assert decoder.decode(encoded(headers)) == headers
        assert Decoder().decode(encoded(headers)) == headers


@given(st.lists(st.lists(st.tuples(texts, texts), max_size=8), max_size=5))
def test_a_servers_tables_are_followed(blocks: list[list[Header]]) -> None:
    """Blocks that name what earlier ones held, with Huffman's code."""
    server, decoder = hpack.Encoder(), Decoder()
    for headers in blocks:
        assert decoder.decode(server.encode(headers)) == headers


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_bad_blocks_are_refused(blocks: list[bytes]) -> None:
    """With one kind of error, whatever comes."""
    decoder = Decoder()
    try:
        for block in blocks:
            decoder.decode(block)
    except HeaderError:
        pass


@pytest.mark.parametrize("block", ["80", "be", "3fe21f", "00046e61", "00", "000084ffffffff"])
def test_what_no_server_may_send(block: str) -> None:
    """Entries that there are not, tables not agreed on, texts that end too early or never."""
    with pytest.raises(HeaderError):
        Decoder().decode(bytes.fromhex(block))
