"""Who waits for what: one line per kind of leg, oldest first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from readahead.core.live_request import LiveRequest
from readahead.core.request import Leg, RequestId


class Lines:
    """Requests that wait for a worker. A request stands in at most one line."""

    def __init__(self) -> None:
        self._lines: dict[Leg, OrderedDict[RequestId, LiveRequest]] = {
            leg: OrderedDict() for leg in Leg
        }

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    @property
    def prompts(self) -> int:
        """Requests that wait to be started."""
        return len(self._lines[Leg.PREFILL]) + len(self._lines[Leg.WHOLE])

    def join(self, request: LiveRequest, leg: Leg, *, is_first: bool = False) -> None:
        """Puts a request at the end of a line, or at its head."""
        line = self._lines[leg]
        assert request.request_id not in line, request.request_id
        line[request.request_id] = request
        if is_first:
            line.move_to_end(request.request_id, last=False)

    def leave(self, request: LiveRequest) -> None:
        """Takes a request out of whatever line it stands in; no error if in none."""
        for line in self._lines.values():
            line.pop(request.request_id, None)

    def head(self, legs: Iterable[Leg]) -> LiveRequest | None:
        """The oldest request at the head of any of these lines."""
        heads = [next(iter(self._lines[leg].values())) for leg in legs if self._lines[leg]]
        return min(heads, key=lambda request: request.arrived_at, default=None)
