"""What the bursts experiment runs: spikes on a steady load, and slices of a recorded trace."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from readahead.sim.experiments.bursts_world import Spike, Watched
from readahead.sim.experiments.capacity_cells import MACHINES, Arm, cluster
from readahead.sim.experiments.capacity_promises import PACE_TOK_S, Kind
from readahead.sim.experiments.capacity_sessions import (
    CONTEXT_TOKENS_MAX,
    guess_req_s,
    recorded,
)
from readahead.sim.experiments.experiment import Cell, Row, Scope
from readahead.sim.experiments.served import azure_path
from readahead.sim.experiments.windows import Window
from readahead.workload.arrivals import BurstArrivals, PoissonArrivals
from readahead.workload.plan import plan
from readahead.workload.reader import Reader
from readahead.workload.session import Session
from readahead.workload.spec import workload_spec

MACHINE = "8B-A100"
"""Its context takes the trace's longest prompts."""
TRACE = "azure2023_code.csv.gz"
TRACE_RATE_REQ_S = 2.57
"""Mean of the whole trace."""

POLICIES: Mapping[str, Arm] = {
    "vllm": Arm(policy="vllm", knobs={"batch_tokens": 2048}),
    "sarathi": Arm(policy="sarathi", knobs={"chunk_tokens": 512}),
    "slos-serve": Arm(policy="slos-serve"),
    "readahead": Arm(policy="readahead"),
}
BLIND = ("vllm", "sarathi")
"""They look at no promise: one run serves for both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Who comes. Rates are shares of the first guess of the cluster's capacity."""

    words: str
    scenario: str
    base: float
    """Of the steady load, or of a slice's mean."""
    spike: float = 0.0
    """On top of it, while the spike lasts."""
    mean_batch: float = 1.0
    """Sessions that come at once in the spike."""
    is_traced: bool = False


LOADS: Mapping[str, Load] = {
    "code-spike": Load(words="code, a spike", scenario="code", base=0.4, spike=1.6, mean_batch=5.0),
    "chat-spike": Load(words="chat, a spike", scenario="chat", base=0.5, spike=1.5, mean_batch=5.0),
    "azure-code": Load(
        words="slices of Azure's code trace", scenario="code", base=0.35, is_traced=True
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a scope runs, and when the spike is."""

    loads: Sequence[str]
    seeds: Sequence[int]
    window: Window
    spike_s: tuple[float, float]
    """Begin and end of the synthetic spike."""
    busiest_s: float
    """Length of a slice's spike: its busiest stretch of this length."""


SIZES = {
    Scope.FULL: Size(
        loads=tuple(LOADS),
        seeds=range(5),
        window=Window(start_s=20.0, last_s=170.0, end_s=200.0),
        spike_s=(60.0, 80.0),
        busiest_s=10.0,
    ),
    Scope.QUICK: Size(
        loads=tuple(LOADS),
        seeds=range(2),
        window=Window(start_s=10.0, last_s=70.0, end_s=80.0),
        spike_s=(30.0, 40.0),
        busiest_s=10.0,
    ),
    Scope.TINY: Size(
        loads=("code-spike",),
        seeds=range(2),
        window=Window(start_s=1.0, last_s=10.0, end_s=11.0),
        spike_s=(4.0, 6.0),
        busiest_s=2.0,
    ),
}


def cells(scope: Scope) -> list[Cell]:
    """Each policy under each load and promise. Without the trace its slices are left out."""
    size = SIZES[scope]
    return [
        Cell(
            parameters={
                "load": load, "policy": policy, "told": told.value, "scope": scope.value
            },
            seed=seed,
        )
        for load in size.loads
        if not LOADS[load].is_traced or code_trace() is not None
        for policy in POLICIES
        for told in ((Kind.READING,) if policy in BLIND else tuple(Kind))
        for seed in size.seeds
    ]  # fmt: skip


def run_cell(cell: Cell) -> list[Row]:
    """A run, judged by the promise that the policy was told; a blind one's by both."""
    size, load = SIZES[Scope(cell.text("scope"))], LOADS[cell.text("load")]
    policy, told = cell.text("policy"), Kind(cell.text("told"))
    sessions = list(traced(load, cell.seed, size) if load.is_traced else spiked(load, cell, size))
    spike = busiest(sessions, size) if load.is_traced else Spike(*size.spike_s)
    watched = Watched(
        spec=cluster(MACHINES[MACHINE], POLICIES[policy]),
        whole=cluster(MACHINES[MACHINE], Arm(policy="vllm")),
        window=size.window,
        spike=spike,
        told=told,
        seed=cell.seed,
    )
    judged = tuple(Kind) if policy in BLIND else (told,)
    return [cell.row(**found) for found in watched.run(sessions, judged)]


def spiked(load: Load, cell: Cell, size: Size) -> Iterator[Session]:
    """Poisson arrivals, and in the spike batches of a compound Poisson process on top."""
    guess = guess_req_s(MACHINE, load.scenario)
    begin_s, end_s = size.spike_s
    rng = random.Random(f"{cell.seed}/spikes")
    steady = PoissonArrivals(rate_req_s=load.base * guess).times_s(rng)
    extra = BurstArrivals(rate_req_s=load.spike * guess, mean_batch=load.mean_batch).times_s(rng)
    times_s = list(takewhile(lambda at_s: at_s < size.window.end_s, steady))
    times_s += [begin_s + at_s for at_s in takewhile(lambda at_s: at_s < end_s - begin_s, extra)]
    chosen = recorded(MACHINE, load.scenario, cell.seed).first(len(times_s))
    for session, at_s in zip(chosen, sorted(times_s), strict=True):
        yield replace(session, arrival_s=at_s)


def traced(load: Load, seed: int, size: Size) -> Iterator[Session]:
    """A slice of the trace with its own lengths, in time that runs faster or slower by as much as
    gives the whole trace the rate that is wanted.

    Raises:
        FileNotFoundError: the trace is not there.
    """
    path = code_trace()
    if path is None:
        raise FileNotFoundError(f"{TRACE} is not there: set READAHEAD_DATA")
    scale = TRACE_RATE_REQ_S / (load.base * guess_req_s(MACHINE, load.scenario))
    length_s = size.window.end_s / scale
    tree: dict[str, object] = {
        "mix": [{"scenario": "coder", "parameters": {"large": MACHINES[MACHINE].is_large}}],
        "arrivals": {
            "kind": "trace",
            "path": path,
            "start_s": seed * length_s,
            "end_s": (seed + 1) * length_s,
        },
        "seed": seed,
    }
    most = min(CONTEXT_TOKENS_MAX, MACHINES[MACHINE].found.context_tokens_max)
    for session in plan(workload_spec(tree)):
        if session.prompt_tokens(0) + session.turns[0].output_tokens <= most:
            yield replace(
                session,
                arrival_s=scale * session.arrival_s,
                reader=Reader(pace_tok_s=PACE_TOK_S),
            )


def busiest(sessions: Sequence[Session], size: Size) -> Spike:
    """The stretch of the scored window in which most prompt tokens come, some time from its
    ends."""
    length_s = size.busiest_s
    first_s, last_s = size.window.start_s + length_s, size.window.last_s - 3 * length_s
    places = [first_s + n for n in range(max(1, int(last_s - first_s)))]

    def asked(begin_s: float) -> int:
        return sum(
            one.prompt_tokens(0)
            for one in sessions
            if begin_s <= one.arrival_s < begin_s + length_s
        )

    begin_s = max(places, key=asked)
    return Spike(begin_s, begin_s + length_s)


def code_trace() -> Path | None:
    """Azure's code trace, which lies beside that of conversations. None: it is not there."""
    beside = azure_path()
    path = None if beside is None else beside.with_name(TRACE)
    return path if path is not None and path.exists() else None
