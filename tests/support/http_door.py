"""The HTTP door on a real socket, with scripted sessions behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fake_sessions import MODEL, FakeSessions, FakeTokenizer

from readahead.router.config import DoorsConfig
from readahead.router.http.application import application
from readahead.router.http.server import HttpServer
from readahead.router.prompts import Prompts

LIMIT_S = 10.0
"""Longest wait of a test for something that happens in milliseconds."""


@dataclass(kw_only=True)
class Door:
    """Where it listens and what is behind it."""

    port: int
    sessions: FakeSessions
    stop: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """For OpenAI's client."""
        return f"{self.url}/v1"


@asynccontextmanager
async def open_door(
    sessions: FakeSessions | None = None,
    *,
    doors: DoorsConfig | None = None,
    tokenizer: FakeTokenizer | None = None,
) -> AsyncIterator[Door]:
    """Serves on a free port of the loopback."""
    sessions = sessions or FakeSessions()
    prompts = Prompts(
        tokenizer or FakeTokenizer(), name=MODEL, context_tokens_max=4096, vocabulary_tokens=256
    )
    doors = doors or DoorsConfig(http_port=0)
    server = HttpServer(application(sessions, prompts, doors), doors)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        try:
            yield Door(port=server.port, sessions=sessions, stop=server.stop)
        finally:
            server.stop()
            prompts.close()


@dataclass(kw_only=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> Any:
        """OpenAI's error object."""
        return self.json()["error"]


class RawClient:
    """A connection that sends what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """Reads one answer."""
        async with asyncio.timeout(LIMIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.rstrip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            if headers.get("transfer-encoding") == "chunked":
                body = await self._chunks()
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status=int(status_line.split(" ")[1]), headers=headers, body=body)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return body

    def vanish(self) -> None:
        """Goes without a word."""
        self.writer.transport.abort()


@asynccontextmanager
async def raw_client(door: Door) -> AsyncIterator[RawClient]:
    """A connection to the door."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


def post(path: str, body: bytes | dict[str, Any], *headers: str) -> bytes:
    """A POST of JSON, as bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "host: readahead",
        *headers,
        f"content-length: {len(content)}",
    ]
    if not any(header.lower().startswith("content-type") for header in headers):
        lines.append("content-type: application/json")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def exchange(door: Door, request: bytes) -> Answer:
    """One request, one answer."""
    async with raw_client(door) as client:
        await client.send(request)
        return await client.answer()


async def get(door: Door, path: str, *, method: str = "GET") -> Answer:
    """One request without a body."""
    return await exchange(door, f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())


def check_error(
    answer: Answer, status: int, *, code: str = "invalid_request", parameter: str | None = None
) -> Any:
    """Every error has the object, an id and a word on retries."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.headers["x-should-retry"] in {"true", "false"}
    error = answer.error()
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, parameter)
    return error
