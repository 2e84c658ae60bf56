"""What the experiment on elastic roles runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from readahead.core.cluster import Role
from readahead.core.config import CoreConfig, MigrationConfig, PlacementConfig
from readahead.core.latency.profile_text import profile
from readahead.sim.cluster import ClusterSpec
from readahead.sim.experiments.capacity_cells import (
    FRESH_S,
    MACHINES,
    OUTPUT_TOKENS_MAX,
    PATIENT,
    window,
)
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.capacity_sessions import guess_req_s, kept_share, recorded
from readahead.sim.experiments.capacity_world import PromisingWorld, Scores
from readahead.sim.experiments.experiment import Cell, Scope, Value
from readahead.sim.settings import ClusterSettings

MACHINE = "8B-A100"
POLICY = "readahead"
"""Of every engine, whatever its role: what is compared is who computes which prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How the workers share the work."""

    prefill: int = 0
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    credits: int = 256
    """Prompts that a prefill worker holds; as many as it has seats, so that none waits in the
    router, where the oldest goes first. With 4, the usual, engines have no sacrifice sets to choose
    from, and in bursts of code far fewer are in time."""

    @property
    def family(self) -> str:
        """What it is an instance of."""
        if not self.prefill:
            return COLOCATED if self.placement.roles == "static" else PLACED
        return STATIC if self.placement.roles == "static" else ELASTIC


COLOCATED, PLACED = "colocated", "colocated, placed by predicted time"
STATIC, ELASTIC = "static pools", "elastic roles"
FAMILIES = (COLOCATED, PLACED, STATIC, ELASTIC)
_ELASTIC = PlacementConfig(roles="elastic")
_TAKES_ONLY = PlacementConfig(roles="elastic", keep_queue_s=0.0)
SHAPES: Mapping[str, Shape] = {
    COLOCATED: Shape(),
    PLACED: Shape(placement=_ELASTIC),
    "1P3D": Shape(prefill=1),
    "2P2D": Shape(prefill=2),
    "3P1D": Shape(prefill=3),
    "1P3D, elastic": Shape(prefill=1, placement=_ELASTIC),
    "2P2D, elastic": Shape(prefill=2, placement=_ELASTIC),
    "1P3D, elastic, keeps nothing": Shape(prefill=1, placement=_TAKES_ONLY),
}

LOADS: Mapping[tuple[str, Kind], Sequence[float]] = {
    ("chat", Kind.READING): (0.8, 1.2, 1.5, 1.65, 1.8),
    ("chat", Kind.STAGED): (0.7, 0.9, 1.15, 1.3, 1.45),
    ("code", Kind.READING): (0.3, 0.6, 0.8, 1.0, 1.2),
    ("code", Kind.STAGED): (0.2, 0.3, 0.45, 0.6, 0.75),
    ("mixed", Kind.READING): (0.5, 1.0, 1.25, 1.4, 1.6),
    ("mixed", Kind.STAGED): (0.4, 0.6, 0.8, 1.0, 1.2),
}
"""Shares of the first guess of what the cluster carries: what static pools carry, and what
colocated workers do."""
TUNING_SEED = 101
"""On which the ratio of the pools is chosen; not reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a scope runs."""

    scenarios: Sequence[str]
    kinds: Sequence[Kind]
    seeds: Sequence[int]
    share: float
    """Of the capacity experiment's windows."""
    shapes: Sequence[str] = tuple(SHAPES)
    places: Sequence[int] = range(5)
    """Of the loads that are run."""


SIZES = {
    Scope.FULL: Size(
        scenarios=("chat", "code", "mixed"),
        kinds=tuple(Kind),
        seeds=range(5),
        share=0.4,
        places=(0, 2, 3, 4),
    ),
    Scope.QUICK: Size(
        scenarios=("chat", "code"),
        kinds=(Kind.READING,),
        seeds=range(3),
        share=0.2,
        shapes=(COLOCATED, PLACED, "2P2D", "3P1D", "1P3D, elastic", "2P2D, elastic"),
        places=(0, 2, 4),
    ),
    Scope.TINY: Size(
        scenarios=("code",),
        kinds=(Kind.READING,),
        seeds=range(2),
        share=0.04,
        shapes=(COLOCATED, "1P3D", "1P3D, elastic"),
        places=(0, 4),
    ),
}


def cells(scope: Scope) -> list[Cell]:
    """All shapes from the same arrivals."""
    size = SIZES[scope]
    return [
        Cell(
            parameters={
                "scenario": scenario,
                "kind": kind.value,
                "shape": shape,
                "load": load,
                "scope": scope.value,
            },
            seed=seed,
        )
        for scenario in size.scenarios
        for kind in size.kinds
        for shape in size.shapes
        for load in [LOADS[scenario, kind][place] for place in size.places]
        for seed in (*size.seeds, TUNING_SEED)
    ]


def cluster(shape: Shape) -> ClusterSpec:
    """Four GPUs under a shape. Nobody is rejected."""
    machine = MACHINES[MACHINE]
    found = profile(machine.profile)
    settings = ClusterSettings(
        profile=machine.profile,
        prefill=shape.prefill,
        decode=machine.workers - shape.prefill,
        link="nvlink",
        policy=POLICY,
        prefill_credits=shape.credits,
        output_tokens_max=min(OUTPUT_TOKENS_MAX, found.context_tokens_max),
        stretch_s_max=FRESH_S,
    )
    spec = settings.spec()
    link = MigrationConfig(
        kv_token_bytes=spec.kv_token_bytes,
        link_bytes_per_s=spec.link.bytes_per_s,
        link_latency_s=spec.link.latency_s,
    )
    core = CoreConfig(admission=PATIENT, placement=shape.placement, migration=link)
    return replace(spec, core=core)


def rate_req_s(scenario: str, load: float) -> float:
    """What the cluster is asked."""
    return load * guess_req_s(MACHINE, scenario)


def run(cell: Cell) -> dict[str, Value]:
    """One run to its very end: what those who came in the window got, and who computed what."""
    scenario, size = cell.text("scenario"), SIZES[Scope(cell.text("scope"))]
    scored = window(scenario, size.share)
    rate = rate_req_s(scenario, cell.number("load"))
    sessions = recorded(MACHINE, scenario, cell.seed).until(
        scored.end_s, rate_req_s=rate, kept_share=kept_share(MACHINE, scenario)
    )
    scores = Scores(cluster(SHAPES[COLOCATED]), sessions, scored)
    world = PromisingWorld(
        cluster(SHAPES[cell.text("shape")]),
        sessions,
        scores=scores,
        told=Kind(cell.text("kind")),
        seed=cell.seed,
    )
    world.run()
    found = scores.numbers(world.kernel.now_s, scored.last_s - scored.start_s)
    prompts = {
        role: sum(
            engine.counts.legs - engine.counts.pulls
            for worker_id, engine in world.engines.items()
            if world.roles[worker_id] is role
        )
        for role in Role
    }
    pulls = sum(engine.counts.pulls for engine in world.engines.values())
    all_prompts = max(1, sum(prompts.values()))
    return {
        "rate_req_s": rate,
        **found,
        "taken_share": prompts[Role.DECODE] / all_prompts,
        "kept_share": (prompts[Role.PREFILL] - pulls) / all_prompts,
    }
