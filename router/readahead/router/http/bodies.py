"""Bodies of requests: read within limits, whatever the client says of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from readahead.router.config import DoorsConfig
from readahead.router.http.errors import (
    ClientGone,
    HttpRefusal,
    error_body,
    error_headers,
)

LINGER_S_MAX = 2.0
"""How long the rest of a body that is too large is read and dropped. A connection that is closed
on unread bytes is reset, and the reset overtakes the answer."""


async def read_json(scope: Scope, receive: Receive, send: Send, *, doors: DoorsConfig) -> bytes:
    """The body of a request that must be JSON. It is not parsed.

    Raises:
        HttpRefusal: 415 (not JSON), 413 (too large), 408 (does not come).
        ClientGone: the client left before it was complete, or was told already.
    """
    headers = Headers(scope=scope)
    _check_content_type(headers)
    parts: list[bytes] = []
    size_bytes = 0
    has_more = True
    # What it says of its size is believed only where that is against it.
    if int(headers.get("content-length", "0")) > doors.body_bytes_max:
        await _refuse_large(receive, send, doors.body_bytes_max, has_more=True)
        raise ClientGone
    while has_more:
        message = await _receive(receive, stall_s_max=doors.client_stall_s_max)
        part = message.get("body", b"")
        has_more = message.get("more_body", False)
        size_bytes += len(part)
        if size_bytes > doors.body_bytes_max:
            await _refuse_large(receive, send, doors.body_bytes_max, has_more=has_more)
            raise ClientGone
        parts.append(part)
    return b"".join(parts)


def _check_content_type(headers: Headers) -> None:
    """Other types a browser sends across origins unasked: a web page could reach a local router."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        said = f"'{kind}'" if kind else "missing"
        raise HttpRefusal(415, f"Content-Type must be application/json; it is {said}.")


async def _receive(receive: Receive, *, stall_s_max: float) -> Message:
    try:
        async with asyncio.timeout(stall_s_max):
            message = await receive()
    except TimeoutError as error:
        raise HttpRefusal(
            408, f"No part of the body has come for {stall_s_max:g} seconds."
        ) from error
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


async def _refuse_large(
    receive: Receive, send: Send, body_bytes_max: int, *, has_more: bool
) -> None:
    """Answers 413 at once, then reads on for a while so that the client gets to see it."""
    error = HttpRefusal(413, f"The body is larger than {body_bytes_max} bytes.")
    body = error_body(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *error_headers(error),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S_MAX):
            while has_more:
                message = await receive()
                has_more = message.get("more_body", False)
    await send({"type": "http.response.body", "body": b"", "more_body": False})
