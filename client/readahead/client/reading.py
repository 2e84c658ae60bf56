"""How far a user who reads at a steady pace has come."""

from __future__ import annotations


class ReadingBuffer:
    """Tokens delivered and tokens read. The reader starts with the first token, reads at his
    pace, waits when nothing is left and goes on where he stopped. Times are the caller's, in
    seconds on one clock, and never go back."""

    def __init__(self, pace_tok_s: float) -> None:
        if not 0 < pace_tok_s < float("inf"):
            raise ValueError(f"pace_tok_s must be positive and finite, got {pace_tok_s}")
        self.pace_tok_s = pace_tok_s
        self.tokens_delivered = 0
        self._tokens_read = 0.0
        self._read_at_s = 0.0

    def deliver(self, tokens: int, *, now: float) -> None:
        """More has come."""
        self._tokens_read = self.tokens_read(now)
        self._read_at_s = now
        self.tokens_delivered += tokens

    def tokens_read(self, now: float) -> float:
        """Read so far, a token in reading by its share."""
        read_since = (now - self._read_at_s) * self.pace_tok_s
        return min(float(self.tokens_delivered), self._tokens_read + read_since)

    def slack_s(self, now: float) -> float:
        """Seconds until nothing is left to read."""
        return (self.tokens_delivered - self.tokens_read(now)) / self.pace_tok_s
