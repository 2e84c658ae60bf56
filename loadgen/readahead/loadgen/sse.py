"""Server-sent events, taken apart as the bytes come, wherever they are cut.

Ref: WHATWG HTML, "Server-sent events", section "Interpreting an event stream".
"""

from __future__ import annotations

EVENT_BYTES_MAX = 1 << 20
"""No frame of a token stream comes near; what does is not such a stream."""


class SseError(ValueError):
    """What came is no event stream, or not one that is fit to be read."""


class SseSplitter:
    """Feeds on bytes, gives the data of complete events."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._is_after_cr = False
        self._is_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """The data of each event that this chunk completes; events without data are dropped.

        Raises:
            SseError: an event is too large, or is no UTF-8.
        """
        if self._is_after_cr and chunk:
            # CR LF is one line end, also where the cut is between the two.
            chunk = chunk.removeprefix(b"\n")
            self._is_after_cr = False
        self._line += chunk
        if not (b"\n" in chunk or b"\r" in chunk):
            self._check_size()
            return []
        self._is_after_cr = self._line.endswith(b"\r")
        lines = bytes(self._line).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._line = bytearray(lines.pop())
        events = []
        for line in lines:
            event = self._take(line)
            if event is not None:
                events.append(event)
        self._check_size()
        return events

    def _take(self, line: bytes) -> str | None:
        if self._is_start:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._is_start = False
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                self._data_bytes += len(value)
            return None
        if not self._data:
            return None
        data, self._data, self._data_bytes = b"\n".join(self._data), [], 0
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise SseError("an event is not UTF-8") from error

    def _check_size(self) -> None:
        if len(self._line) + self._data_bytes > EVENT_BYTES_MAX:
            raise SseError(f"an event is larger than {EVENT_BYTES_MAX} bytes")
