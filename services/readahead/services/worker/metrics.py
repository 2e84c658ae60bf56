"""A worker's metrics. Labels come from closed sets."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from readahead.core.cluster import WorkerLoad
from readahead.services.engine.engine import EngineState, PlanReport

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""1-2-5 steps from one decode iteration of a fast engine to the longest tolerable first word; the
reader's own threshold is 1 s."""

LEGS = Counter("readahead_worker_legs_total", "Legs that ended", ["leg", "outcome"])
"""outcome: a finish reason, or a reason of the closed set in lower case."""
REFUSALS = Counter("readahead_worker_refusals_total", "Legs that were not taken", ["reason"])
VERDICTS = Counter(
    "readahead_worker_verdicts_total",
    "What the planner has decided about requests: accepted, or best-effort, which may change",
    ["verdict"],
)
PROMPT_TOKENS = Counter("readahead_worker_prompt_tokens_total", "Prompt tokens of legs taken")
OUTPUT_TOKENS = Counter("readahead_worker_output_tokens_total", "Tokens sent to routers")
WAIT_SECONDS = Histogram(
    "readahead_worker_wait_seconds",
    "From submission to the engine's first scheduling; for decode the KV pull is included",
    ["leg"],
    buckets=_SECONDS,
)
FIRST_TOKEN_SECONDS = Histogram(
    "readahead_worker_first_token_seconds",
    "From the engine's first scheduling to the first token",
    ["leg"],
    buckets=_SECONDS,
)
STOPS = Counter(
    "readahead_worker_stops_total",
    "Legs asked to stop for a move to another worker: stopped, or why not",
    ["outcome"],
)
"""outcome: stopped, or a reason of the closed set in lower case."""
ARRIVALS = Counter("readahead_worker_arrivals_total", "Legs that came from another worker")
STEP_MESSAGES = Counter("readahead_worker_step_messages_total", "Messages on Steps streams")
RUNNING = Gauge("readahead_worker_requests_running", "Requests in the running batch")
WAITING = Gauge("readahead_worker_requests_waiting", "Requests that wait in the engine")
KV_BLOCKS_FREE = Gauge("readahead_worker_kv_blocks_free", "KV blocks free for new requests")
KV_TRANSPORT = Gauge(
    "readahead_worker_kv_transport",
    "1 for what carries KV caches: nixl, grpc, none, unknown",
    ["transport"],
)
HANDOVERS_HELD = Gauge("readahead_worker_handovers_held", "KV caches that wait to be pulled")
TRANSFERS = Gauge("readahead_worker_kv_transfers", "KV transfers pulled since the start")
TRANSFER_BYTES = Gauge("readahead_worker_kv_transfer_bytes", "Bytes those moved")
ITERATIONS = Gauge(
    "readahead_worker_iterations",
    "Engine iterations since the start, by who decided them; failure, overrun and empty_plan: the "
    "engine's own schedule, in place of a plan",
    ["by"],
)
PLANNER_SECONDS = Gauge("readahead_worker_planner_seconds", "Seconds spent planning so far")
BATCH_TOKENS = Gauge("readahead_worker_batch_tokens", "Tokens of the last iteration")
HELD_REQUESTS = Gauge(
    "readahead_worker_held_requests", "Running requests that sat out, summed over iterations"
)
PREEMPTIONS = Gauge("readahead_worker_plan_preemptions", "Requests that plans took the KV of")
PARKS = Gauge("readahead_worker_plan_parks", "Requests that plans have parked since the start")
RESUMES = Gauge("readahead_worker_plan_resumes", "Requests that came back from such parks")
PARKED = Gauge(
    "readahead_worker_requests_parked",
    "Requests that are parked: by plans, or on their way to another worker",
)
POLICY = Gauge("readahead_worker_policy", "1 for the policy that decides iterations", ["policy"])
DRAINING = Gauge("readahead_worker_draining", "1 iff no new legs are taken")
STORE_REACHABLE = Gauge("readahead_worker_store_reachable", "1 iff the last renewal was answered")


def observe_load(load: WorkerLoad) -> None:
    """Sets the gauges of the engine's load."""
    RUNNING.set(load.running)
    WAITING.set(load.waiting)
    KV_BLOCKS_FREE.set(load.kv_blocks_free)


def observe_state(state: EngineState) -> None:
    """Sets the gauges of what the engine holds."""
    observe_load(state.load)
    HANDOVERS_HELD.set(state.handovers_held)
    TRANSFERS.set(state.transfers_total)
    TRANSFER_BYTES.set(state.transfer_bytes_total)
    if state.plan is not None:
        _observe_plan(state.plan)


def _observe_plan(plan: PlanReport) -> None:
    decided = {
        "plan": plan.planned,
        "kept_plan": plan.kept,
        "failure": plan.failures,
        "overrun": plan.overruns,
        "empty_plan": plan.yielded,
    }
    # The report's fields may be of two neighbouring iterations.
    decided["stock"] = max(0, plan.iterations - sum(decided.values()))
    for by, iterations in decided.items():
        ITERATIONS.labels(by).set(iterations)
    PLANNER_SECONDS.set(plan.planner_s)
    BATCH_TOKENS.set(plan.last_batch_tokens)
    HELD_REQUESTS.set(plan.held_requests)
    PREEMPTIONS.set(plan.preemptions)
    PARKS.set(plan.parks)
    RESUMES.set(plan.resumes)
    PARKED.set(plan.parked)
    POLICY.clear()
    POLICY.labels(plan.policy).set(1)
