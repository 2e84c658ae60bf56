"""What an answer consists of, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf.duration_pb2 import Duration

from readahead.client.slo import SloState
from readahead.v1 import inference_service_pb2 as pb
from readahead.v1 import sampling_pb2


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    """End of sequence, or a stop string."""
    LENGTH = "length"
    """`max_tokens` or the model's context was reached."""
    CANCELLED = "cancelled"
    """Ended by a cancel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Sizes, tokens."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    """Where the time to the first token went, seconds; None where a part did not occur."""

    queue_s: float | None = None
    prefill_s: float | None = None
    transfer_s: float | None = None
    first_decode_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingState:
    """The answer's reader, as the router's reading clock has him."""

    pace_tok_s: float
    pace_source: str
    """"explicit" (the request said so), "learnt" (from his reports), "preset" or "default"."""
    unread_tokens: int
    """Sent to him, and he has not come to them yet."""
    slack_s: float
    """Seconds until nothing is left to read; negative while he waits."""
    idle_s: float
    """Seconds that he has waited for text in all, for the first token included."""
    stalls: int
    """How often he ran out of text, a wait for the first token included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """First event: the request is accepted."""

    request_id: str
    model: str
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """More of the answer."""

    text: str
    """To append. May be empty while a character is incomplete."""
    token_ids: tuple[int, ...]
    """The tokens behind it, one or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Last event of an answer that ended well."""

    reason: FinishReason
    usage: Usage
    first_token: FirstToken
    reading: ReadingState | None = None
    """None: the router does not say."""
    slo: SloState | None = None
    """What became of the promise; None: there was none."""
    verdict: str = ""
    """Of the worker's planner: "accepted", "best-effort" (declined, and served from what is left
    over), or empty where it admits everybody alike."""


Event = Started | Delta | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole answer."""

    request_id: str
    model: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    first_token: FirstToken
    reading: ReadingState | None = None
    """None: the router does not say."""
    slo: SloState | None = None
    """What became of the promise; None: there was none."""
    verdict: str = ""
    """Of the worker's planner: "accepted", "best-effort" (declined, and served from what is left
    over), or empty where it admits everybody alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A served model."""

    name: str
    context_tokens_max: int
    """Prompt and output together."""
    engine: str
    """"vllm" or "emulated"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision about a request."""

    at_s: float
    """Since the request's arrival."""
    kind: str
    worker_id: str
    """Empty when none was chosen."""
    reason: str
    """One sentence."""
    costs: Mapping[str, float]
    """What each candidate scored, by worker id; smaller is better."""
    slack_s: float | None = None
    """Time left then: until the first token was due, then until nothing was left to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What was decided for a request, oldest first."""

    request_id: str
    stage: str
    tokens_delivered: int
    decisions: tuple[Decision, ...]
    tokens_read: int = 0
    """As last reported."""
    reading: ReadingState | None = None
    """By now, after the answer's end too. None: the router does not say."""
    slo: SloState | None = None
    """What has become of the promise so far; None: there is none."""
    verdict: str = ""
    """As in `Finished`."""


_FINISH_REASONS = {
    sampling_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    sampling_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    sampling_pb2.FINISH_REASON_CANCELLED: FinishReason.CANCELLED,
}


def event_from_proto(response: pb.GenerateResponse) -> Event | None:
    """The event in a frame; None for a frame or an ending that this build does not know."""
    match response.WhichOneof("event"):
        case "delta":
            delta = response.delta
            return Delta(text=delta.text, token_ids=tuple(delta.token_ids))
        case "started":
            started = response.started
            return Started(
                request_id=started.request_id,
                model=started.model,
                prompt_tokens=started.prompt_tokens,
            )
        case "finished":
            return _finished(response.finished)
        case _:
            return None


def _finished(finished: pb.Finished) -> Finished | None:
    reason = _FINISH_REASONS.get(finished.reason)
    if reason is None:
        return None
    return Finished(
        reason=reason,
        usage=Usage(prompt_tokens=finished.prompt_tokens, output_tokens=finished.output_tokens),
        first_token=_first_token(finished.first_token),
        reading=_reading(finished.reading) if finished.HasField("reading") else None,
        slo=_slo(finished.slo) if finished.HasField("slo") else None,
        verdict=finished.verdict,
    )


def _first_token(split: pb.FirstTokenSplit) -> FirstToken:
    return FirstToken(
        queue_s=_seconds(split.queue) if split.HasField("queue") else None,
        prefill_s=_seconds(split.prefill) if split.HasField("prefill") else None,
        transfer_s=_seconds(split.transfer) if split.HasField("transfer") else None,
        first_decode_s=_seconds(split.first_decode) if split.HasField("first_decode") else None,
        total_s=_seconds(split.total) if split.HasField("total") else None,
    )


def _reading(state: pb.ReadingState) -> ReadingState:
    return ReadingState(
        pace_tok_s=state.pace_tok_s,
        pace_source=state.pace_source,
        unread_tokens=state.unread_tokens,
        slack_s=_seconds(state.slack),
        idle_s=_seconds(state.idle),
        stalls=state.stalls,
    )


def _slo(state: pb.SloState) -> SloState:
    return SloState(
        name=state.name,
        ttft_s=_seconds(state.ttft),
        is_kept=state.is_kept,
        late_s=_seconds(state.late),
    )


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def models_from_proto(response: pb.ListModelsResponse) -> tuple[Model, ...]:
    """The models of a ListModels answer."""
    return tuple(
        Model(
            name=model.name,
            context_tokens_max=model.context_tokens_max,
            engine=model.engine,
        )
        for model in response.models
    )


def explanation_from_proto(response: pb.ExplainResponse) -> Explanation:
    """The explanation in an Explain answer."""
    return Explanation(
        request_id=response.request_id,
        stage=response.stage,
        tokens_delivered=response.tokens_delivered,
        decisions=tuple(
            Decision(
                at_s=_seconds(record.at),
                kind=record.kind,
                worker_id=record.worker_id,
                reason=record.reason,
                costs=dict(record.costs),
                slack_s=_seconds(record.slack) if record.HasField("slack") else None,
            )
            for record in response.decisions
        ),
        tokens_read=response.tokens_read,
        reading=_reading(response.reading) if response.HasField("reading") else None,
        slo=_slo(response.slo) if response.HasField("slo") else None,
        verdict=response.verdict,
    )
