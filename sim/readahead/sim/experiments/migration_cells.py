"""What the migration experiment runs: situations, and the rules that are compared in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from readahead.sim.experiments.experiment import Cell, Scope
from readahead.sim.experiments.ranking_fleet import Drain, Fleet
from readahead.sim.experiments.windows import Window
from readahead.sim.settings import ClusterSettings

PROFILE = "llama-3.1-8b-a100-80g"
KV_BLOCKS = 29_205
"""Of that profile; the cell with little memory has a third."""
TUNING_SEEDS = (101, 102)
"""On which the load trigger's knobs are chosen; none of them is reported."""

CHAT = ({"scenario": "chatbot", "share": 1.0},)
REASONING = ({"scenario": "reasoning", "share": 1.0},)
MIXED = (
    {"scenario": "chatbot", "share": 0.5},
    {"scenario": "coder", "share": 0.35},
    {"scenario": "reasoning", "share": 0.15},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A cluster of four, and who comes."""

    words: str
    mix: Sequence[Mapping[str, object]]
    arrivals: str
    window: Window
    pace_tok_s: float = 5.0
    prefill: int = 0
    decode: int = 4
    kv_blocks: int | None = None
    slow: Mapping[str, float] = field(default_factory=dict)
    drained: str | None = None


SHORT = Window(start_s=15.0, last_s=50.0, end_s=60.0)
LONG = Window(start_s=40.0, last_s=120.0, end_s=150.0)
SLOW = {"decode-00": 2.0}

SITUATIONS: Mapping[str, Situation] = {
    "healthy": Situation(words="healthy, chat", mix=CHAT, arrivals="poisson:rate=20", window=SHORT),
    "slow-5": Situation(
        words="one worker 2x slower, readers at 5 tok/s",
        mix=CHAT,
        arrivals="poisson:rate=20",
        window=SHORT,
        slow=SLOW,
    ),
    "slow-15": Situation(
        words="one worker 2x slower, readers at 15 tok/s",
        mix=CHAT,
        arrivals="poisson:rate=20",
        window=SHORT,
        pace_tok_s=15.0,
        slow=SLOW,
    ),
    "drain": Situation(
        words="a worker drains",
        mix=CHAT,
        arrivals="poisson:rate=20",
        window=SHORT,
        drained="decode-03",
    ),
    "bursts": Situation(
        words="bursts, mixed use", mix=MIXED, arrivals="gamma:rate=10,cv=3", window=LONG
    ),
    "kv-third": Situation(
        words="a third of the KV memory, reasoning",
        mix=REASONING,
        arrivals="gamma:rate=5,cv=2",
        window=LONG,
        kv_blocks=KV_BLOCKS // 3,
    ),
    "2P2D": Situation(
        words="2 prefill + 2 decode, mixed use",
        mix=MIXED,
        arrivals="gamma:rate=8,cv=2",
        window=LONG,
        prefill=2,
        decode=2,
    ),
    "2P2D-kv-third": Situation(
        words="2 prefill + 2 decode, a third of the KV memory, reasoning",
        mix=REASONING,
        arrivals="gamma:rate=2.5,cv=2",
        window=LONG,
        prefill=2,
        decode=2,
        kv_blocks=KV_BLOCKS // 3,
    ),
}

LOADS: Mapping[str, Mapping[str, float]] = {
    "load 512": {"load_below_tokens": 512.0, "load_gap_tokens": 64.0},
    "load 4096": {"load_below_tokens": 4096.0, "load_gap_tokens": 512.0},
    "load 32768": {"load_below_tokens": 32_768.0, "load_gap_tokens": 2048.0},
}
"""Knobs of the load trigger that are tried: from one answer's room to ever balancing."""

RULES: Mapping[str, Mapping[str, float | str]] = {
    "none": {"trigger": "none"},
    **{name: {"trigger": "load", **knobs} for name, knobs in LOADS.items()},
    "cover": {"trigger": "cover", **LOADS["load 4096"]},
    "need": {"trigger": "need"},
    "need, no cooldown": {"trigger": "need", "cooldown_s": 0.0},
    "load, no cooldown": {"trigger": "load", **LOADS["load 4096"], "cooldown_s": 0.0},
}

QUICK_WINDOW = Window(start_s=8.0, last_s=24.0, end_s=30.0)
QUICK_LONG_WINDOW = Window(start_s=25.0, last_s=60.0, end_s=75.0)
QUICK = ("healthy", "slow-15", "kv-third", "2P2D-kv-third")
TINY_WINDOW = Window(start_s=2.0, last_s=6.0, end_s=8.0)


def cells(scope: Scope) -> list[Cell]:
    """Each rule in each situation, from the same arrivals."""
    names = {Scope.FULL: tuple(SITUATIONS), Scope.QUICK: QUICK, Scope.TINY: ("slow-15",)}[scope]
    seeds = {Scope.FULL: range(5), Scope.QUICK: range(3), Scope.TINY: range(2)}[scope]
    found = []
    for name in names:
        for rule in RULES:
            tuning = TUNING_SEEDS if rule in LOADS else ()
            every = [*seeds, *(tuning if scope is Scope.FULL else tuning[:1])]
            parameters = {"situation": name, "rule": rule, "scope": scope.value}
            found += [Cell(parameters=parameters, seed=seed) for seed in every]
    return found


def fleet(cell: Cell) -> Fleet:
    """The cluster of a cell."""
    about = SITUATIONS[cell.text("situation")]
    quick = QUICK_LONG_WINDOW if about.window is LONG else QUICK_WINDOW
    short = {Scope.QUICK: quick, Scope.TINY: TINY_WINDOW}
    window = short.get(Scope(cell.text("scope")), about.window)
    readers = {"preset": "default", "pace_median_tok_s": about.pace_tok_s}
    settings = ClusterSettings(
        profile=PROFILE,
        prefill=about.prefill,
        decode=about.decode,
        kv_blocks=about.kv_blocks,
        link="infiniband",
        policy="vllm-chunked",
        output_tokens_max=8192,
    )
    drain = None
    if about.drained is not None:
        drain = Drain(worker=about.drained, at_s=(window.start_s + window.last_s) / 2)
    return Fleet(
        settings=settings,
        workload={
            "mix": [{**part, "parameters": {"readers": readers}} for part in about.mix],
            "arrivals": about.arrivals,
        },
        window=window,
        seed=cell.seed,
        migration=RULES[cell.text("rule")],
        slow=about.slow,
        drain=drain,
    )
