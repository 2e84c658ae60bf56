"""What the simulated parking experiment runs: one GPU with little KV memory, and who comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from readahead.core.config import AdmissionConfig, CoreConfig
from readahead.core.planning.policy import Plan
from readahead.sim.asked import EndedRequest
from readahead.sim.cluster import ClusterSpec
from readahead.sim.engine import Engine
from readahead.sim.experiments.experiment import Cell, Scope, Value
from readahead.sim.experiments.ranking_fleet import scored
from readahead.sim.experiments.windows import Window
from readahead.sim.results import Gathered
from readahead.sim.run import promise
from readahead.sim.settings import ClusterSettings
from readahead.sim.stretch import Stretch
from readahead.sim.world import World
from readahead.workload.plan import plan
from readahead.workload.spec import workload_spec

PROFILE = "llama-3.1-8b-a100-80g"
KV_BLOCKS = 29_205
"""Of that profile: 467 thousand tokens, 61 GB."""
SHARES: Mapping[str, float] = {"half": 1 / 2, "third": 1 / 3}
"""Of them."""
HOST_BYTES = 200 * 10**9
"""Of the host, for one GPU: more than `park_share` lets anybody take."""
PATIENT = AdmissionConfig(queue_requests_max=1_000_000, wait_s_max=3600.0)
"""Nobody is rejected, so that all arms serve the same requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """How the GPU is scheduled."""

    policy: str = "readahead"
    knobs: Mapping[str, int | float] = field(default_factory=dict)

    @property
    def parks(self) -> bool:
        """Whether it may."""
        return bool(self.knobs.get("park"))


VLLM, OFF, SOLVENT, UNGUARDED = "vllm-chunked", "no parking", "solvent parking", "unguarded parking"
ARMS: Mapping[str, Arm] = {
    VLLM: Arm(policy="vllm-chunked"),
    OFF: Arm(),
    SOLVENT: Arm(knobs={"park": True}),
    UNGUARDED: Arm(knobs={"park": True, "park_load": 1000.0}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Who comes, and how much memory there is for them."""

    words: str
    lengths: str
    rate_req_s: float
    share: str
    window: Window
    cv: float = 1.0
    """Of the gaps between arrivals."""
    pace_tok_s: float = 5.0
    """Of the median reader."""


LONG = Window(start_s=120.0, last_s=300.0, end_s=360.0)
SHORT = Window(start_s=30.0, last_s=100.0, end_s=120.0)


def _reasoning(share: str, rate_req_s: float, pace_tok_s: float = 5.0) -> Case:
    reads = "" if pace_tok_s == 5 else f" read at {pace_tok_s:g} tok/s"
    return Case(
        words=f"reasoning{reads}, {rate_req_s:g}/s, a {share} of the memory",
        lengths="deepseek-r1",
        rate_req_s=rate_req_s,
        share=share,
        window=LONG if pace_tok_s == 5 else SHORT,
        cv=2.0,
        pace_tok_s=pace_tok_s,
    )


def _chat(share: str, rate_req_s: float) -> Case:
    return Case(
        words=f"chat, {rate_req_s:g}/s, a {share} of the memory",
        lengths="azure2023-conv",
        rate_req_s=rate_req_s,
        share=share,
        window=SHORT,
    )


SHORT_OF_MEMORY: Mapping[str, Case] = {
    "reasoning-half": _reasoning("half", 1.6),
    "reasoning-third": _reasoning("third", 1.3),
}
"""There is time for all who read."""
SHORT_OF_TIME: Mapping[str, Case] = {
    "chat-third": _chat("third", 9.0),
    "fast-third": _reasoning("third", 2.0, pace_tok_s=20.0),
}
"""There is not."""
CASES: Mapping[str, Case] = {**SHORT_OF_MEMORY, **SHORT_OF_TIME}

SEEDS = {Scope.FULL: range(1, 11), Scope.QUICK: range(2), Scope.TINY: range(2)}
"""What is reported has others than those on which the test was looked at: 0."""
SHRUNK = {Scope.FULL: 1.0, Scope.QUICK: 0.4, Scope.TINY: 0.05}
"""Of each window."""


def cells(scope: Scope) -> list[Cell]:
    """Each arm in each case, from the same arrivals."""
    chosen = {
        Scope.FULL: list(CASES),
        Scope.QUICK: ["reasoning-third", "fast-third"],
        Scope.TINY: ["reasoning-third", "fast-third"],
    }[scope]
    return [
        Cell(parameters={"case": case, "arm": arm, "scope": scope.value}, seed=seed)
        for case in chosen
        for arm in ARMS
        for seed in SEEDS[scope]
    ]


def numbers(cell: Cell) -> dict[str, Value]:
    """Runs a cell to its very end, and scores those who came in the window."""
    case, share = CASES[cell.text("case")], SHRUNK[Scope(cell.text("scope"))]
    window = Window(
        start_s=share * case.window.start_s,
        last_s=share * case.window.last_s,
        end_s=share * case.window.end_s,
    )
    return lived(spec(case, ARMS[cell.text("arm")]), case, window, cell.seed)


def spec(case: Case, arm: Arm) -> ClusterSpec:
    """The GPU."""
    return ClusterSettings(
        profile=PROFILE,
        kv_blocks=round(KV_BLOCKS * SHARES[case.share]),
        requests_max=1024,
        policy=arm.policy,
        knobs=dict(arm.knobs),
        host_bytes=HOST_BYTES if arm.parks else 0,
        output_tokens_max=8192,
        core=CoreConfig(admission=PATIENT),
    ).spec()


def lived(cluster: ClusterSpec, case: Case, window: Window, seed: int) -> dict[str, Value]:
    """What came of it."""
    readers = {"preset": "default", "pace_median_tok_s": case.pace_tok_s}
    part = {
        "scenario": "chatbot",
        "parameters": {"lengths": case.lengths, "readers": readers},
    }
    arrivals = {"kind": "gamma", "rate_req_s": case.rate_req_s, "cv": case.cv}
    workload = plan(
        workload_spec(
            {
                "mix": [part],
                "arrivals": arrivals,
                "seed": seed,
                "limits": {"duration_s": window.end_s},
            }
        )
    )
    sink = _Sink(cluster)
    world = World(cluster, workload, sink=sink, seed=seed)
    world.run()
    (engine,) = world.engines.values()
    host = engine.batch.host
    found: dict[str, Value] = {**scored(sink.gathered.run(), cluster, window)}
    found["preemptions"] = engine.batch.preemptions
    found["recomputed_tokens"] = engine.batch.recomputed_tokens
    found["parks"] = 0 if host is None else host.parks
    found["copied_gb"] = 0.0 if engine.copies is None else engine.copies.bytes / 1e9
    found["host_gb"] = 0.0 if host is None else host.used_most * host.block_bytes / 1e9
    return found


class _Sink:
    def __init__(self, cluster: ClusterSpec) -> None:
        self._cluster = cluster
        self.gathered = Gathered()

    def ended(self, request: EndedRequest) -> None:
        self.gathered.add(request, promise(self._cluster, request))

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        """Of no interest."""
