"""What the capacity experiment runs: clusters, scenarios and windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from readahead.core.config import AdmissionConfig, CoreConfig, MigrationConfig
from readahead.core.latency.profile import Profile
from readahead.core.latency.profile_text import profile
from readahead.sim.cluster import ClusterSpec
from readahead.sim.experiments.experiment import Scope
from readahead.sim.experiments.windows import Window
from readahead.sim.settings import ClusterSettings

PATIENT = AdmissionConfig(queue_requests_max=1_000_000, wait_s_max=3600.0)
FRESH_S = 0.25
"""How old the router's knowledge of a worker gets."""
OUTPUT_TOKENS_MAX = 8192
"""What every request says is the most it wants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """GPUs, and the model that they serve."""

    words: str
    profile: str
    workers: int
    is_large: bool
    """Whether the SLOs are those of large models."""
    scenarios: Sequence[str] = ()
    """Those it is run on; none: all."""

    @property
    def found(self) -> Profile:
        """Its profile."""
        return profile(self.profile)


MACHINES: Mapping[str, Machine] = {
    "13B-A100": Machine(
        words="OPT-13B, 4 A100-40G", profile="opt-13b-a100-40g", workers=2, is_large=True
    ),
    "13B-H100": Machine(words="OPT-13B, 4 H100", profile="opt-13b-h100", workers=4, is_large=True),
    "8B-A100": Machine(
        words="Llama-3.1-8B, 4 A100-80G",
        profile="llama-3.1-8b-a100-80g",
        workers=4,
        is_large=False,
    ),
    "7B-A100": Machine(
        words="OPT-6.7B, 4 A100-40G", profile="opt-6.7b-a100-40g", workers=4, is_large=False
    ),
    "7B-1-A100": Machine(
        words="OPT-6.7B, 1 A100-40G",
        profile="opt-6.7b-a100-40g",
        workers=1,
        is_large=False,
        scenarios=("tools",),
    ),
    "30B-A100": Machine(
        words="OPT-30B, 4 A100-40G", profile="opt-30b-a100-40g", workers=1, is_large=True
    ),
}
"""OPT-13B takes two A100s a copy, OPT-30B four."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What users do."""

    words: str
    scenario: str
    arrivals: str
    """At one session a second; stretched in time for other rates."""
    window: Window
    parts: Mapping[str, float] = field(default_factory=dict)
    """Of `mixed`; none: its own."""


def _window(warm_s: float, scored_s: float, cool_s: float) -> Window:
    return Window(start_s=warm_s, last_s=warm_s + scored_s, end_s=warm_s + scored_s + cool_s)


BURSTS = "markov:rates=4/0,dwells=3/9"
"""A quarter of the time at four times the rate: 12 sessions a burst, as many as Azure's code trace
of 2023 has between gaps of 0.3 s. Its CV is 3.6."""
SCENARIOS: Mapping[str, Scenario] = {
    "chat": Scenario(
        words="chat",
        scenario="chatbot",
        arrivals="poisson:rate=1",
        window=_window(60.0, 120.0, 45.0),
    ),
    "code": Scenario(
        words="code in bursts",
        scenario="coder",
        arrivals=BURSTS,
        window=_window(20.0, 200.0, 20.0),
    ),
    "summary": Scenario(
        words="summarization",
        scenario="summarization",
        arrivals="poisson:rate=1",
        window=_window(60.0, 120.0, 45.0),
    ),
    "mixed": Scenario(
        words="mixed",
        scenario="mixed",
        arrivals="gamma:rate=1,cv=2",
        window=_window(60.0, 150.0, 45.0),
    ),
    "tools": Scenario(
        words="tool calling",
        scenario="tool-calling",
        arrivals=BURSTS,
        window=_window(30.0, 150.0, 30.0),
    ),
    "reasoning": Scenario(
        words="reasoning",
        scenario="reasoning",
        arrivals="poisson:rate=1",
        window=_window(150.0, 250.0, 100.0),
    ),
    "mixed-thinking": Scenario(
        words="mixed with reasoning",
        scenario="mixed",
        arrivals="gamma:rate=1,cv=2",
        window=_window(100.0, 200.0, 80.0),
        parts={"chatbot": 0.5, "coder": 0.35, "reasoning": 0.15},
    ),
}
"""The paper's six, and the mix whose targets come from a prototype. Warm-up and cool-down are about
as long as the median answer is read, the scored part some three times."""
SIX = tuple(SCENARIOS)[:6]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A policy with certain knobs."""

    policy: str
    knobs: Mapping[str, int | float] = field(default_factory=dict)
    prefill: int = 0
    migration: Mapping[str, float | str] = field(default_factory=dict)
    knows_lengths: bool = False
    """Whether each request says how long its answer will be."""


def cluster(machine: Machine, arm: Arm) -> ClusterSpec:
    """The cluster under one arm. Nobody is rejected."""
    settings = ClusterSettings(
        profile=machine.profile,
        prefill=arm.prefill,
        decode=machine.workers - arm.prefill,
        link="nvlink",
        policy=arm.policy,
        knobs=dict(arm.knobs),
        output_tokens_max=min(OUTPUT_TOKENS_MAX, machine.found.context_tokens_max),
        tells_true_length=arm.knows_lengths,
        stretch_s_max=FRESH_S,
    )
    spec = settings.spec()
    knobs: dict[str, object] = {
        "kv_token_bytes": spec.kv_token_bytes,
        "link_bytes_per_s": spec.link.bytes_per_s,
        "link_latency_s": spec.link.latency_s,
        **arm.migration,
    }
    migration = MigrationConfig(**knobs)  # type: ignore[arg-type]
    return replace(spec, core=CoreConfig(admission=PATIENT, migration=migration))


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a scope runs."""

    machines: Sequence[str]
    scenarios: Sequence[str]
    seeds: Sequence[int]
    share: float
    """Of the windows."""
    step: float
    """Between neighbouring rates."""
    shares_min: Sequence[float]
    """Attainment that is asked for."""


SIZES = {
    Scope.FULL: Size(
        machines=tuple(MACHINES),
        scenarios=tuple(SCENARIOS),
        seeds=range(5),
        share=1.0,
        step=1.08,
        shares_min=(0.90, 0.99),
    ),
    Scope.QUICK: Size(
        machines=("13B-A100",),
        scenarios=("chat", "code"),
        seeds=range(2),
        share=0.3,
        step=1.15,
        shares_min=(0.90,),
    ),
    Scope.TINY: Size(
        machines=("13B-A100",),
        scenarios=("code",),
        seeds=range(2),
        share=0.04,
        step=1.3,
        shares_min=(0.90,),
    ),
}
TUNING_SEED = 101
"""On which knobs are chosen; not reported."""
TUNING_SHARE = 0.6
"""Of a window, for that."""


def window(scenario: str, share: float) -> Window:
    """A part of a scenario's window."""
    whole = SCENARIOS[scenario].window
    return Window(
        start_s=share * whole.start_s, last_s=share * whole.last_s, end_s=share * whole.end_s
    )
