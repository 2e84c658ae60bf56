"""Names of spans and of their attributes."""

from __future__ import annotations

from typing import Final

SERVICE_ROUTER: Final = "readahead-router"
SERVICE_PREFILL: Final = "readahead-prefill"
SERVICE_DECODE: Final = "readahead-decode"

# Spans of a router; all but the first are children of the first.
SPAN_GENERATE: Final = "generate"
"""One request, from its arrival to its last byte; child of the caller's span."""
SPAN_ADMIT: Final = "admit"
"""Checks, tokenising, the decision to take it."""
SPAN_QUEUE: Final = "queue"
"""Waiting in the router for a worker."""
SPAN_PREFILL: Final = "prefill"
"""The prefill leg, as the router sees it."""
SPAN_HANDOVER: Final = "handover"
"""From the prefill leg's end to the decode leg's submission."""
SPAN_DECODE: Final = "decode"
"""The decode leg, or the whole request on one worker."""

# Spans of a worker; children of the router's span of the same leg.
SPAN_WORKER_PREFILL: Final = "worker.prefill"
SPAN_WORKER_DECODE: Final = "worker.decode"

# OpenTelemetry's semantic conventions for generative AI.
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"

# Ours.
REQUEST_ID: Final = "readahead.request_id"
ATTEMPT: Final = "readahead.attempt"
WORKER_ID: Final = "readahead.worker_id"
IDLE_S: Final = "readahead.idle_s"
"""Seconds that the reader waited for text in all."""
UNREAD_TOKENS: Final = "readahead.unread_tokens"
"""Delivered, and not read by the end of the request."""
STALLS: Final = "readahead.stalls"
"""How often the reader ran out of text; not every one need have its events."""
PACE_TOK_S: Final = "readahead.pace_tok_s"
PACE_SOURCE: Final = "readahead.pace_source"
"""Where the pace comes from: explicit, learnt, preset, default."""
ERROR_REASON: Final = "readahead.error_reason"
"""A member of `readahead.core.errors.Reason`."""

# Events of a router's `generate`.
EVENT_WENT_IDLE: Final = "went_idle"
"""The reader has read all that was delivered, and waits."""
EVENT_RESUMED: Final = "resumed"
"""He got text again; `readahead.idle_s` is how long he waited this time."""

# Events of a router's `decode`.
EVENT_MOVE: Final = "move"
"""A move to another worker has come so far, or was called off."""
MOVE_STAGE: Final = "readahead.move_stage"
"""A member of `readahead.router.moves.MoveStage`, or "called_off"."""
MOVE_TARGET: Final = "readahead.move_target"
