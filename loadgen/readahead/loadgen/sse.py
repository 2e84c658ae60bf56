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
        if (
            chunk.endswith(b"\n\n")
            and chunk.startswith(b"data:")
            and not (self._line or self._data or b"\r" in chunk)
        ):
            return self._whole_events(chunk)
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

    def _whole_events(self, chunk: bytes) -> list[str]:
        """The usual case: nothing is cut, and each event is one line of data."""
        self._is_start = self._is_after_cr = False
        if len(chunk) > EVENT_BYTES_MAX:
            raise SseError(f"an event is larger than {EVENT_BYTES_MAX} bytes")
        try:
            events = chunk[:-2].decode().split("\n\n")
        except UnicodeDecodeError as error:
            raise SseError("an event is not UTF-8") from error
        found: list[str] = []
        for event in events:
            if event.startswith("data:") and "\n" not in event:
                found.append(event[6:] if event.startswith("data: ") else event[5:])
            else:
                for line in event.split("\n"):
                    self._take(line.encode())
                data = self._take(b"")
                if data is not None:
                    found.append(data)
        return found

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
