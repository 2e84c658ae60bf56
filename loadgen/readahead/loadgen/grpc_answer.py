"""What comes of one request over gRPC: marks of its tokens, and how it ended."""

from __future__ import annotations

from readahead.client import (
    Delta,
    Finished,
    FinishReason,
    OverloadedError,
    ReadaheadClientError,
    UnavailableError,
)
from readahead.client.errors import DeadlineError
from readahead.client.events import Event
from readahead.loadgen.records import Outcome
from readahead.loadgen.senders import Cause, Result
from readahead.loadgen.timeline import Timeline


class GrpcAnswer:
    """An answer as its events come."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._result: Result | None = None

    def take(self, event: Event, stamp_s: float) -> bool:
        """Takes an event that was received at `stamp_s`; true: it was the last."""
        match event:
            case Delta():
                self._timeline.mark(
                    stamp_s,
                    tokens=len(event.token_ids),
                    text=event.text,
                    token_ids=event.token_ids,
                )
            case Finished():
                self._result = _finished(event)
            case _:
                self._timeline.prompt_tokens = event.prompt_tokens
        return self._result is not None

    def result(self) -> Result:
        """How it ended, once the call is over."""
        return self._result or self.unreadable("the answer had no end")

    def unreadable(self, why: str) -> Result:
        """It ended with something that no server may send."""
        return Result(
            outcome=Outcome.FAILED,
            prompt_tokens=self._timeline.prompt_tokens,
            cause=Cause.PROTOCOL,
            error=f"PROTOCOL: {why}",
        )


def _finished(event: Finished) -> Result:
    is_cancelled = event.reason is FinishReason.CANCELLED
    return Result(
        outcome=Outcome.FAILED if is_cancelled else Outcome.FINISHED,
        prompt_tokens=event.usage.prompt_tokens,
        output_tokens=event.usage.output_tokens,
        verdict=event.verdict,
        cause=Cause.SERVER if is_cancelled else None,
        error="CANCELLED: ended by somebody else" if is_cancelled else None,
    )


def failed(error: ReadaheadClientError, timeline: Timeline) -> Result:
    """What an error of the SDK's means for the request."""
    is_rejected = isinstance(error, OverloadedError) or error.reason == "NO_WORKER"
    cause = Cause.SERVER
    if isinstance(error, DeadlineError):
        cause = Cause.TIMEOUT
    elif isinstance(error, UnavailableError) and not is_rejected:
        cause = Cause.CONNECTION
    return Result(
        outcome=Outcome.REJECTED if is_rejected else Outcome.FAILED,
        prompt_tokens=timeline.prompt_tokens,
        cause=cause,
        error=f"{error.reason}: {error.message}",
    )
