"""Text as a reader takes it: token by token, at his pace; the same under both kinds of client."""

from __future__ import annotations

from collections import deque

from readahead.client.reading import ReadingBuffer

REPORT_EVERY_S = 1.0
"""Between two reading reports: a few tokens, far less than a router plans ahead."""
REPORT_EVERY_S_MIN = 0.05
"""More often, reports would cost a router more than the text does."""


class PacedText:
    """What has come of an answer, and when the reader wants each token of it.

    He takes the i-th token at s_i = max(its arrival, s_(i-1) + 1/pace). These are points in time,
    not sleeps, so that one who wakes late is not slower for it.
    """

    def __init__(
        self, pace_tok_s: float, *, asked_at_s: float, report_every_s: float | None
    ) -> None:
        if report_every_s is not None and not report_every_s >= REPORT_EVERY_S_MIN:
            raise ValueError(f"report_every_s must be at least {REPORT_EVERY_S_MIN}")
        self.buffer = ReadingBuffer(pace_tok_s, asked_at_s=asked_at_s)
        self.tokens_read = 0
        """That he has come to, the one he reads included."""
        self._token_s = 1 / pace_tok_s
        self._free_at_s = asked_at_s + self._token_s
        self._pieces: deque[tuple[str, int, float]] = deque()
        self._report_every_s = report_every_s
        self._report_at_s = asked_at_s
        self._tokens_reported = 0

    def arrive(self, text: str, tokens: int, *, now: float) -> None:
        """A frame has come. Its text is shared out evenly among its tokens."""
        self.buffer.deliver(tokens, now=now)
        if tokens == 0:
            self._pieces.append((text, 0, now))
        for index in range(tokens):
            start, end = (len(text) * at // tokens for at in (index, index + 1))
            self._pieces.append((text[start:end], 1, now))

    @property
    def wanted_at_s(self) -> float | None:
        """When the reader takes the next piece; None where there is none."""
        return max(self._pieces[0][2], self._free_at_s) if self._pieces else None

    @property
    def free_at_s(self) -> float:
        """When he has read all that he has taken."""
        return self._free_at_s

    def take(self) -> str:
        """The next piece."""
        text, tokens, arrived_at_s = self._pieces.popleft()
        self.tokens_read += tokens
        if tokens:
            self._free_at_s = max(arrived_at_s, self._free_at_s) + self._token_s
        return text

    def report(self, now: float) -> int | None:
        """The progress to report by now; None while there is none, or it is too soon."""
        if self._report_every_s is None or now < self._report_at_s:
            return None
        return self._progress(now + self._report_every_s)

    def last_report(self) -> int | None:
        """The progress that no report has told of yet."""
        return None if self._report_every_s is None else self._progress(float("inf"))

    def _progress(self, next_at_s: float) -> int | None:
        if self.tokens_read == self._tokens_reported:
            return None
        self._report_at_s = next_at_s
        self._tokens_reported = self.tokens_read
        return self.tokens_read
