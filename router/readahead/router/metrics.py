"""The router's Prometheus metrics. Label values come from closed sets."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError
from readahead.core.messages import Statistics
from readahead.core.request import Stage
from readahead.router.session import LiveSession
from readahead.router.sessions import Finish

# From the cost of two hops on one machine, by steps of about 2, past the second that a reader
# accepts for the first word, up to the longest wait that admission allows by default.
_TTFT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 4, 8, 16, 32, 60)
# One decision is meant to stay below 50 µs; a millisecond of the loop delays every stream.
_HANDLE_BUCKETS = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2)
# Below a millisecond nobody notices; above an engine step (10-50 ms) tokens wait for the router.
_LAG_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
# From what an eye takes for a pause, by steps of 2, up to the longest wait that admission allows.
_IDLE_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8, 16, 32, 60)
# From an engine step, by steps of 2, up to what every reader notices.
_DOWNTIME_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
# Below zero users wait; below half a second a hiccup of an engine makes them wait.
_SLACK_BUCKETS = (-8, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 4, 8, 16, 32, 64)

SLACK_BOUNDS_S = (0.0, 0.5, 2.0, 8.0, 32.0)
"""Where one label of READERS ends and the next begins; the first are those who wait."""
SLACK_LABELS = ("idle", "0-0.5s", "0.5-2s", "2-8s", "8-32s", "32s-")

REQUESTS = Counter(
    "readahead_router_requests",
    "Requests ended, by front door and by finish reason or error reason.",
    ["door", "outcome"],
)
LIVE = Gauge(
    "readahead_router_requests_live",
    'Live requests by stage; stage="queued" is the depth of the admission queue.',
    ["stage"],
)
WORKERS = Gauge("readahead_router_workers", "Usable workers by role.", ["role"])
TTFT = Histogram(
    "readahead_router_ttft_seconds",
    "Arrival to first token, as the router saw it.",
    buckets=_TTFT_BUCKETS,
)
TTFT_PART = Histogram(
    "readahead_router_ttft_part_seconds",
    "Where the time to the first token went: queue, prefill, transfer, first_decode.",
    ["part"],
    buckets=_TTFT_BUCKETS,
)
ATTEMPTS = Counter(
    "readahead_router_retries", "Tries of a request after its first one, by front door.", ["door"]
)
TOKENS = Counter("readahead_router_output_tokens", "Output tokens relayed to sessions.")
FRAMES = Counter(
    "readahead_router_frames", "Chunks taken by front doors, one frame each.", ["door"]
)
STEPS = Counter("readahead_router_steps", "Engine steps heard of.")
MOVES = Counter(
    "readahead_router_moves",
    "Moves of running requests to another decode worker, by outcome: committed; survived: the "
    "source was lost when the target had the leg; called_off; or why it failed.",
    ["outcome"],
)
MOVE_DOWNTIME = Histogram(
    "readahead_router_move_downtime_seconds",
    "From the source's word that a leg has stopped to its first news from the target; the time in "
    "which it stops, and its KV is copied for that, is not in it.",
    buckets=_DOWNTIME_BUCKETS,
)
PROMISES = Counter(
    "readahead_router_promises",
    "Promised requests ended, by class of SLO (explicit: none), by the planner's verdict, and by "
    "outcome: kept, late, or cut_off where the answer was not completed.",
    ["slo", "verdict", "outcome"],
)
VERDICTS = Counter(
    "readahead_router_verdicts",
    "Requests ended, by the verdict of their worker's planner; none: it admits everybody alike.",
    ["verdict"],
)
STALE_DELTAS = Counter(
    "readahead_router_stale_deltas", "News of legs that are over; dropped, and cancelled."
)
HANDLE = Histogram(
    "readahead_router_handle_seconds",
    "Time of one decision (RouterState.handle), one in 16 sampled.",
    buckets=_HANDLE_BUCKETS,
)
LOOP_LAG = Histogram(
    "readahead_router_loop_lag_seconds",
    "How late the event loop wakes a task that sleeps.",
    buckets=_LAG_BUCKETS,
)

IDLE = Histogram(
    "readahead_router_idle_seconds",
    "How long a request's reader waited for text in all, the first token included; "
    'end="cut_off" where the answer was not completed.',
    ["end"],
    buckets=_IDLE_BUCKETS,
)
SLACK = Histogram(
    "readahead_router_slack_seconds",
    "Time until a live request's reader has nothing left, sampled each second; negative: he waits.",
    buckets=_SLACK_BUCKETS,
)
READERS = Gauge(
    "readahead_router_readers", "Live requests by their reader's slack, sampled.", ["slack"]
)
for _label in SLACK_LABELS:
    READERS.labels(_label)  # all of them are there from the start
READERS_IDLE = Gauge(
    "readahead_router_readers_idle", "Live requests whose reader waits for text, sampled."
)
UNREAD_TOKENS = Gauge(
    "readahead_router_unread_tokens", "Tokens delivered and not read of live requests, sampled."
)

_DOORS = frozenset({"grpc", "http"})


def outcome_of(end: Finish | ReadaheadError) -> str:
    """The label value of an ending: "stop", "length", or a reason in lower case."""
    return (end.reason if isinstance(end, Finish) else end.reason.lower()).lower()


def observe_end(session: LiveSession) -> None:
    """Counts a request that has ended."""
    end = session.end
    assert end is not None
    door = session.call.door if session.call.door in _DOORS else "other"
    REQUESTS.labels(door, outcome_of(end)).inc()
    FRAMES.labels(door).inc(session.frames)
    if session.attempts > 1:
        ATTEMPTS.labels(door).inc(session.attempts - 1)
    assert session.ended_at is not None
    is_complete = isinstance(end, Finish)
    IDLE.labels("finished" if is_complete else "cut_off").observe(
        session.reader.idle_s(session.ended_at)
    )
    VERDICTS.labels(session.verdict.told or "none").inc()
    if session.reader.promise is not None:
        state = session.reader.promise.state()
        outcome = "late" if not state.is_kept else "kept" if is_complete else "cut_off"
        PROMISES.labels(state.name, session.verdict.told or "none", outcome).inc()
    split = session.first_token_split()
    if split.total_s is None:
        return
    TTFT.observe(split.total_s)
    for part, value_s in (
        ("queue", split.queue_s),
        ("prefill", split.prefill_s),
        ("transfer", split.transfer_s),
        ("first_decode", split.first_decode_s),
    ):
        if value_s is not None:
            TTFT_PART.labels(part).observe(value_s)


def observe_statistics(statistics: Statistics) -> None:
    """Sets the gauges."""
    for stage in Stage:
        if not stage.is_final:
            LIVE.labels(stage.value).set(statistics.by_stage.get(stage, 0))
    for role in Role:
        WORKERS.labels(role.value).set(statistics.workers.get(role, 0))
