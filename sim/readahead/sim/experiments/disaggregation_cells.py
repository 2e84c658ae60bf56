"""What the disaggregation experiment runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from readahead.sim.experiments.experiment import Cell, Scope
from readahead.sim.experiments.ranking_fleet import Fleet
from readahead.sim.experiments.windows import Window
from readahead.sim.settings import ClusterSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A model on a device, and how much more it is asked than the first one."""

    profile: str
    load: float
    uses: Sequence[str] = ("chat", "code", "long")
    kv_blocks: int | None = None
    """None: as many as it has."""


MACHINES: Mapping[str, Machine] = {
    "8B, A100": Machine(profile="llama-3.1-8b-a100-80g", load=1.0),
    "8B, H100": Machine(profile="llama-3.1-8b-h100", load=2.2),
    "14B, A100": Machine(profile="qwen2.5-14b-a100-80g", load=0.5),
    "14B, H100": Machine(profile="qwen2.5-14b-h100", load=1.1),
    "8B, A100, a third of the KV memory": Machine(
        profile="llama-3.1-8b-a100-80g",
        load=1.0,
        uses=("reasoning",),
        kv_blocks=29_205 // 3,
    ),
}
"""The last is there for preemptions, which the others never have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What users do; `rates` are those of the first machine."""

    words: str
    part: Mapping[str, object]
    arrivals: str
    rates: Sequence[float]
    """Calm, and near what a cluster can do."""
    requests: int
    """About so many come before the window's end."""


LONG_PROMPTS = {
    "prompt": "lognormal:median=8000,sigma=0.5,max=24000",
    "output": "lognormal:median=200,sigma=0.6,max=1000",
}
USES: Mapping[str, Use] = {
    "chat": Use(
        words="chat",
        part={"scenario": "chatbot"},
        arrivals="poisson:rate={rate:g}",
        rates=(12.0, 24.0),
        requests=1500,
    ),
    "code": Use(
        words="code in bursts",
        part={"scenario": "coder"},
        arrivals="bursts:rate={rate:g},mean_batch=5",
        rates=(3.0, 6.0),
        requests=700,
    ),
    "long": Use(
        words="long prompts",
        part={"scenario": "summarization", "parameters": {"lengths": LONG_PROMPTS}},
        arrivals="poisson:rate={rate:g}",
        rates=(1.0, 2.5),
        requests=300,
    ),
    "reasoning": Use(
        words="reasoning",
        part={"scenario": "chatbot", "parameters": {"lengths": "deepseek-r1"}},
        arrivals="gamma:rate={rate:g},cv=2",
        rates=(2.5, 5.0),
        requests=900,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How four workers share the work."""

    policy: str
    prefill: int = 0
    knobs: Mapping[str, int | float] = field(default_factory=dict)
    link: str = "nvlink"

    @property
    def is_split(self) -> bool:
        """Whether prompts are computed apart."""
        return self.prefill > 0


SHAPES: Mapping[str, Shape] = {
    "colocated, vllm-chunked": Shape(policy="vllm-chunked"),
    "colocated, sarathi 512": Shape(policy="sarathi", knobs={"chunk_tokens": 512}),
    "1P3D": Shape(policy="vllm", prefill=1),
    "2P2D": Shape(policy="vllm", prefill=2),
    "3P1D": Shape(policy="vllm", prefill=3),
}
LINKED: Mapping[str, Shape] = {
    f"2P2D, {link}": Shape(policy="vllm", prefill=2, link=link)
    for link in ("infiniband", "ethernet")
}
"""Run on the first machine alone."""

TUNING_SEEDS = (101,)
"""On which the ratio of the pools, and the colocated policy, are chosen."""


def cells(scope: Scope) -> list[Cell]:
    """All shapes from the same arrivals."""
    seeds = {Scope.FULL: range(5), Scope.QUICK: range(2), Scope.TINY: range(2)}[scope]
    machines = list(MACHINES)[: {Scope.FULL: 5, Scope.QUICK: 1, Scope.TINY: 1}[scope]]
    uses_max = 1 if scope is Scope.TINY else len(USES)
    levels = ("calm", "near") if scope is Scope.FULL else ("near",)
    found = []
    for machine in machines:
        for use in MACHINES[machine].uses[:uses_max]:
            for level in levels:
                is_first = machine == next(iter(MACHINES)) and level == "near"
                shapes = {**SHAPES, **(LINKED if is_first and scope is Scope.FULL else {})}
                for shape in shapes:
                    if level == "calm" and machine != next(iter(MACHINES)):
                        continue
                    parameters = {
                        "machine": machine,
                        "use": use,
                        "level": level,
                        "shape": shape,
                        "scope": scope.value,
                    }
                    every = [*seeds, *TUNING_SEEDS]
                    found += [Cell(parameters=parameters, seed=seed) for seed in every]
    return found


SHARES = {Scope.FULL: 1.0, Scope.QUICK: 0.35, Scope.TINY: 0.04}
"""Of a run's length."""
WHOLE_S_MIN = 60.0
"""So that the window begins when the first answers have ended."""


def rate_req_s(machine: str, use: str, level: str) -> float:
    """What such a cluster is asked."""
    return USES[use].rates[0 if level == "calm" else 1] * MACHINES[machine].load


def fleet(cell: Cell) -> Fleet:
    """The cluster of a cell."""
    use, machine = USES[cell.text("use")], cell.text("machine")
    shape = {**SHAPES, **LINKED}[cell.text("shape")]
    rate = rate_req_s(machine, cell.text("use"), cell.text("level"))
    whole_s = SHARES[Scope(cell.text("scope"))] * max(WHOLE_S_MIN, use.requests / rate)
    return Fleet(
        settings=ClusterSettings(
            profile=MACHINES[machine].profile,
            prefill=shape.prefill,
            decode=4 - shape.prefill,
            kv_blocks=MACHINES[machine].kv_blocks,
            link=shape.link,
            policy=shape.policy,
            knobs=dict(shape.knobs),
            output_tokens_max=2048,
        ),
        workload={"mix": [use.part], "arrivals": use.arrivals.format(rate=rate)},
        window=Window(start_s=0.25 * whole_s, last_s=0.85 * whole_s, end_s=whole_s),
        seed=cell.seed,
    )
