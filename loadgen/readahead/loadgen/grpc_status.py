"""How a call over gRPC ended: what HTTP/2 says of it, under the codes that gRPC has for that."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

import grpc

from readahead.loadgen.grpc_hpack import Header

_STATUS_BY_NUMBER: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_STATUS_BY_HTTP: Mapping[bytes, grpc.StatusCode] = {
    b"400": grpc.StatusCode.INTERNAL,
    b"401": grpc.StatusCode.UNAUTHENTICATED,
    b"403": grpc.StatusCode.PERMISSION_DENIED,
    b"404": grpc.StatusCode.UNIMPLEMENTED,
    b"429": grpc.StatusCode.UNAVAILABLE,
    b"502": grpc.StatusCode.UNAVAILABLE,
    b"503": grpc.StatusCode.UNAVAILABLE,
    b"504": grpc.StatusCode.UNAVAILABLE,
}
"""Of an answer without a status of gRPC's, as a proxy makes it: gRPC's http-grpc-status-mapping."""

_STATUS_BY_RESET: Mapping[int, grpc.StatusCode] = {
    0x7: grpc.StatusCode.UNAVAILABLE,  # REFUSED_STREAM
    0x8: grpc.StatusCode.CANCELLED,
    0xB: grpc.StatusCode.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: grpc.StatusCode.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}
"""Of a RST_STREAM, by its code, as gRPC's protocol for HTTP/2 has it; all others are INTERNAL."""

Metadata = tuple[tuple[str, str | bytes], ...]


class CallFailedError(Exception):
    """A call ended with another status than OK. Its methods are those of gRPC's own errors."""

    def __init__(
        self, code: grpc.StatusCode, details: str, *, trailing_metadata: Metadata = ()
    ) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code = code
        self._details = details
        self._trailing_metadata = trailing_metadata

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._code

    def details(self) -> str:
        """What the server says of it."""
        return self._details

    def trailing_metadata(self) -> Metadata:
        """What came after the answer."""
        return self._trailing_metadata


def failure_of_trailers(headers: Sequence[Header]) -> CallFailedError | None:
    """What the last headers of a call say; None: it ended well."""
    values = dict(headers)
    number = values.get(b"grpc-status")
    if number is None:
        http_status = values.get(b":status", b"200")
        code = _STATUS_BY_HTTP.get(http_status, grpc.StatusCode.UNKNOWN)
        return CallFailedError(code, f"the answer has no grpc-status; HTTP {http_status.decode()}")
    code = _STATUS_BY_NUMBER.get(_integer(number), grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.OK:
        return None
    details = unquote_to_bytes(values.get(b"grpc-message", b"")).decode(errors="replace")
    return CallFailedError(code, details, trailing_metadata=_metadata(headers))


def failure_of_reset(reset_code: int) -> CallFailedError:
    """What a RST_STREAM says."""
    code = _STATUS_BY_RESET.get(reset_code, grpc.StatusCode.INTERNAL)
    return CallFailedError(code, f"the server reset the stream with code {reset_code}")


def _integer(text: bytes) -> int:
    return int(text) if text.isdigit() else -1


def _metadata(headers: Sequence[Header]) -> Metadata:
    found: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name.endswith(b"-bin"):
            try:  # padding may be left out
                found.append((name.decode(), base64.b64decode(value + b"=" * (-len(value) % 4))))
            except binascii.Error:
                continue  # as an unreadable text: the status still speaks
        elif not name.startswith((b":", b"grpc-")):
            found.append((name.decode(errors="replace"), value.decode(errors="replace")))
    return tuple(found)
