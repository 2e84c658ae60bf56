"""The generator's own HTTP connections, byte by byte, and TLS on either door."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from fake_inference import FakeInference, FakeOpenAi, HttpReply, serving, sse
from pem_authority import Authority

from readahead.loadgen.http_exchange import (
    ConnectionLostError,
    Connections,
    NotHttpError,
)
from readahead.loadgen.http_sender import HttpSender
from readahead.loadgen.load_target import sender_for
from readahead.loadgen.senders import TargetError

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def answering(*pieces: bytes, closes: bool = False) -> AsyncIterator[Connections]:
    """Connections to a server that answers each request with these bytes."""

    running: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            running.discard(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    connections = Connections("127.0.0.1", server.sockets[0].getsockname()[1], tls=None)
    try:
        yield connections
    finally:
        connections.close()
        server.close()
        while running:  # noqa: ASYNC110 - each pass lets the handlers go on
            await asyncio.sleep(0)


async def body_of(connections: Connections) -> tuple[int, bytes]:
    """Status and body of one answer, however it comes."""
    pieces: list[bytes] = []

    def take(piece: bytes, _: float) -> bool:
        pieces.append(piece)
        return False

    async with asyncio.timeout(5):
        status, refusal = await connections.exchange(REQUEST, take)
    return status, b"".join(pieces) or refusal


@pytest.mark.parametrize(
    ("answer", "closes", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", False, (200, b"hello")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", False, (200, b"")),
        (
            CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            False,
            (200, b"hello"),
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", True, (200, b"hello")),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            False,
            (200, b"hi"),
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, (204, b"")),
        (b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy", False, (503, b"busy")),
    ],
)
@pytest.mark.parametrize("cut", [1, 7, 10_000])
async def test_an_answer_wherever_it_is_cut(
    answer: bytes, closes: bool, expected: tuple[int, bytes], cut: int
) -> None:
    """Each kind of body, twice, on one connection where it can be kept."""
    pieces = [answer[at : at + cut] for at in range(0, len(answer), cut)]
    async with answering(*pieces, closes=closes) as connections:
        assert await body_of(connections) == expected
        assert await body_of(connections) == expected


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\ncontent-len", ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n", ConnectionLostError),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", NotHttpError),
    ],
)
async def test_an_answer_that_is_none(answer: bytes, error: type[Exception]) -> None:
    """Broken off, or no HTTP: an error at once, never a wait."""
    async with answering(answer, closes=True) as connections:
        with pytest.raises(error):
            await body_of(connections)


async def test_frames_of_one_read_share_its_stamp() -> None:
    """The time is that of the bytes, not of their parsing."""
    body = sse("a", "b", "c")
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    stamps: list[float] = []

    def take(_: bytes, stamp_s: float) -> bool:
        stamps.append(stamp_s)
        return True

    async with answering(answer) as connections:
        before_s = asyncio.get_running_loop().time()
        await connections.exchange(REQUEST, take)
        after_s = asyncio.get_running_loop().time()
    assert len(set(stamps)) == 1
    assert before_s <= stamps[0] <= after_s


async def test_an_error_of_the_taker_is_the_callers() -> None:
    """And the connection is given up."""

    def take(_: bytes, __: float) -> bool:
        raise KeyError("choices")

    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as connections:
        with pytest.raises(KeyError, match="choices"):
            await connections.exchange(REQUEST, take)
        assert await body_of(connections) == (200, b"hi")


@asynccontextmanager
async def https(authority: Authority) -> AsyncIterator[str]:
    """An OpenAI server with a certificate of this authority."""
    fake = FakeOpenAi(lambda _path, _body: HttpReply())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server"))
    server = await asyncio.start_server(fake.handle, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in fake.writers:
            writer.transport.abort()
        while fake.writers:  # noqa: ASYNC110 - each pass lets the handlers go on
            await asyncio.sleep(0)


async def test_https_trusts_the_given_authority_only(tmp_path: Path) -> None:
    """A stranger's certificate, and a file that is no certificate, are told plainly."""
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nothing")
    async with https(ours) as url:
        async with HttpSender(url, is_chat=True, ca_file=Path(ours.file)) as sender:
            assert await sender.models() == ["fake"]
        for ca_file, complaint in (
            (Path(other.file), "certificate"),
            (nonsense, "the authority's file"),
            (tmp_path / "none.pem", "the authority's file"),
            (None, "certificate"),
        ):
            async with HttpSender(url, is_chat=True, ca_file=ca_file) as sender:
                with pytest.raises(TargetError, match=complaint):
                    await sender.models()


def server_credentials(authority: Authority) -> grpc.ServerCredentials:
    certificate, key = authority.issue("server")
    return grpc.ssl_server_credentials([(Path(key).read_bytes(), Path(certificate).read_bytes())])


async def test_grpcs_trusts_the_given_authority(tmp_path: Path) -> None:
    """As over HTTP."""
    authority = Authority(tmp_path, "ours")
    credentials = server_credentials(authority)
    with serving(FakeInference(), credentials=credentials) as address:
        sender = sender_for(f"grpcs://{address}", is_chat=True, ca_path=Path(authority.file))
        async with sender:
            assert await sender.models() == ["fake"]
