"""The one log line that every request leaves."""

from __future__ import annotations

import structlog

from readahead.core.errors import ReadaheadError
from readahead.router.metrics import outcome_of
from readahead.router.session import LiveSession
from readahead.router.sessions import Finish

log = structlog.get_logger()


def log_end(session: LiveSession, end: Finish | ReadaheadError) -> None:
    """Writes `request_finished`: ids, sizes, placement, attempts, durations, outcome."""
    split = session.first_token_split()
    reader = session.reader
    ended_at = session.ended_at
    assert ended_at is not None
    log.info(
        "request_finished",
        request_id=session.request_id,
        outcome=outcome_of(end),
        message="" if isinstance(end, Finish) else end.message,
        door=session.call.door,
        model=session.call.model,
        prompt_tokens=session.prompt_tokens,
        output_tokens=session.output_tokens,
        attempts=session.attempts,
        workers=session.workers,
        moves=session.moves,
        frames=session.frames,
        total_s=_rounded(ended_at - session.arrived_at),
        ttft_s=_rounded(split.total_s),
        queue_s=_rounded(split.queue_s),
        prefill_s=_rounded(split.prefill_s),
        transfer_s=_rounded(split.transfer_s),
        first_decode_s=_rounded(split.first_decode_s),
        pace_tok_s=_rounded(reader.clock.pace_tok_s),
        pace_source=reader.pace_source.value,
        idle_s=_rounded(reader.idle_s(ended_at)),
        stalls=reader.stalls,
        unread_tokens=reader.clock.unread_tokens(ended_at),
        slo=None if reader.promise is None else reader.promise.name,
        is_slo_kept=None if reader.promise is None else reader.promise.clock.is_kept,
        verdict=session.verdict.told,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
