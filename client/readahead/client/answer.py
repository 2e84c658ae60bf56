"""One answer's state, the same under the blocking and the asyncio stream."""

from __future__ import annotations

from readahead.client.errors import BrokenStreamError, ReadaheadClientError, ServerError
from readahead.client.events import (
    Completion,
    Delta,
    Event,
    Finished,
    FinishReason,
    FirstToken,
    Started,
    Usage,
    event_from_proto,
)
from readahead.client.options import new_request_id
from readahead.client.retry import Attempts
from readahead.client.status import RpcFailure, error_from_rpc
from readahead.v1 import inference_service_pb2 as pb


class Answer:
    """What has been asked, what has come, and what a failure at this point means."""

    def __init__(self, request: pb.GenerateRequest, attempts: Attempts) -> None:
        self.request = request
        self._attempts = attempts
        self._is_id_ours = not request.request_id
        if self._is_id_ours:
            request.request_id = new_request_id()
        self.request_id = request.request_id
        self.has_begun = False
        self.is_finished = False
        self.tokens_delivered = 0

    def remaining_s(self, now: float) -> float | None:
        """Seconds left of the time limit."""
        return self._attempts.remaining_s(now)

    def take(self, response: pb.GenerateResponse) -> Event | None:
        """The event in a frame. None: a kind of frame that this build does not know.

        Raises:
            ServerError: the answer ended in a way that this build does not know.
        """
        event = event_from_proto(response)
        self.has_begun = True
        match event:
            case Delta():
                self.tokens_delivered += len(event.token_ids)
            case Started():
                self.request_id = event.request_id or self.request_id
            case Finished():
                self.is_finished = True
            case None if response.HasField("finished"):
                raise ServerError(
                    "BUG", "the answer ended for no known reason", request_id=self.request_id
                )
            case None:
                pass
        return event

    def error(self, failure: RpcFailure) -> ReadaheadClientError:
        """What the failed RPC means for this answer."""
        return error_from_rpc(
            failure,
            request_id=self.request_id,
            tokens_delivered=self.tokens_delivered if self.has_begun else None,
        )

    def truncated(self) -> BrokenStreamError:
        """The stream ended as if all were well, but without its last event."""
        return BrokenStreamError(
            "STREAM_BROKEN",
            "the stream ended before the answer did",
            request_id=self.request_id,
            metadata={"tokens_delivered": str(self.tokens_delivered)},
        )

    def next_delay_s(self, error: ReadaheadClientError, *, now: float) -> float | None:
        """Seconds to wait before trying again, the request made ready for that.

        None: the error is final. Once an event has come, every error is: a second try is
        another answer, which only the caller can decide to show. A retry is a new request
        for the server, so it gets a new id unless the caller chose the id.
        """
        if self.has_begun:
            return None
        wait_s = self._attempts.next_delay_s(error, now=now)
        if wait_s is not None and self._is_id_ours:
            self.request_id = self.request.request_id = new_request_id()
        return wait_s


class Collector:
    """Joins an answer's events into a `Completion`."""

    def __init__(self) -> None:
        self._started = Started(request_id="", model="", prompt_tokens=0)
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._finished: Finished | None = None

    def add(self, event: Event) -> None:
        """Takes the next event."""
        match event:
            case Delta():
                self._texts.append(event.text)
                self._token_ids.extend(event.token_ids)
            case Started():
                self._started = event
            case Finished():
                self._finished = event

    def completion(self, request_id: str) -> Completion:
        """The answer. One without a last event was cancelled by the caller: what there is of it."""
        finished = self._finished or Finished(
            reason=FinishReason.CANCELLED,
            usage=Usage(
                prompt_tokens=self._started.prompt_tokens, output_tokens=len(self._token_ids)
            ),
            first_token=FirstToken(),
        )
        return Completion(
            request_id=request_id,
            model=self._started.model,
            text="".join(self._texts),
            token_ids=tuple(self._token_ids),
            finish_reason=finished.reason,
            usage=finished.usage,
            first_token=finished.first_token,
            reading=finished.reading,
            slo=finished.slo,
            verdict=finished.verdict,
        )
