"""What the ranking runs: policies with their knobs, and workloads at three loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from readahead.sim.experiments.experiment import Cell, Row, Scope, Value
from readahead.sim.experiments.intervals import mean, numbers
from readahead.sim.experiments.ranking_fleet import Fleet
from readahead.sim.experiments.served import AZURE_RATE_REQ_S, azure_path
from readahead.sim.experiments.windows import Window
from readahead.sim.settings import ClusterSettings

PROFILE = "llama-3.1-8b-a100-80g"
TUNING_SEEDS = (101,)
"""On which knobs are chosen, near capacity; not reported."""
REPORTED = "reported"
TUNED = "tuned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A policy with certain knobs, on four GPUs."""

    policy: str
    knobs: Mapping[str, int | float] = field(default_factory=dict)
    prefill: int = 0
    migration: Mapping[str, float | str] = field(default_factory=dict)


def _arms(policy: str, knob: str, values: Sequence[float]) -> dict[str, Arm]:
    return {f"{knob} {value:g}": Arm(policy=policy, knobs={knob: value}) for value in values}


def _loads() -> dict[str, Arm]:
    found = {}
    for below, gap in ((512.0, 64.0), (4096.0, 512.0), (32_768.0, 2048.0)):
        migration: dict[str, float | str] = {
            "trigger": "load",
            "load_below_tokens": below,
            "load_gap_tokens": gap,
        }
        found[f"load_below_tokens {below:g}"] = Arm(policy="vllm-chunked", migration=migration)
    return found


RIVALS: Mapping[str, Mapping[str, Arm]] = {
    "vllm": _arms("vllm", "batch_tokens", (8192, 2048)),
    "vllm-chunked": _arms("vllm-chunked", "batch_tokens", (512, 2048, 8192)),
    "sarathi": _arms("sarathi", "chunk_tokens", (256, 512, 1024, 2048)),
    "distserve": {
        f"{prefill}P{4 - prefill}D": Arm(policy="vllm", prefill=prefill) for prefill in (1, 2, 3)
    },
    "andes": _arms("andes", "batch_tokens", (1024, 2048)),
    "tokenflow": _arms("tokenflow", "batch_tokens", (1024, 2048)),
    "llumnix": _loads(),
    "slack": _arms("slack", "cap_tokens", (1024, 8192)),
    "readahead": _arms("readahead", "rich_s", (1, 2, 4)),
}
"""Each with all the knobs that are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What users do, at three rates."""

    words: str
    mix: Sequence[Mapping[str, object]]
    arrivals: str
    rates_req_s: Sequence[float]
    window: Window


LEVELS = ("calm", "near capacity", "overload")
AZURE = "azure"
LOADS: Mapping[str, Load] = {
    "chat": Load(
        words="chat",
        mix=({"scenario": "chatbot"},),
        arrivals="poisson:rate={rate:g}",
        rates_req_s=(15.0, 26.0, 36.0),
        window=Window(start_s=15.0, last_s=60.0, end_s=75.0),
    ),
    "code": Load(
        words="code in bursts",
        mix=({"scenario": "coder"},),
        arrivals="bursts:rate={rate:g},mean_batch=8",
        rates_req_s=(3.0, 6.0, 10.0),
        window=Window(start_s=20.0, last_s=110.0, end_s=130.0),
    ),
    "mixed": Load(
        words="chat, code, reasoning mixed",
        mix=(
            {"scenario": "chatbot", "share": 0.5},
            {"scenario": "coder", "share": 0.35},
            {"scenario": "reasoning", "share": 0.15},
        ),
        arrivals="gamma:rate={rate:g},cv=2",
        rates_req_s=(5.0, 11.0, 18.0),
        window=Window(start_s=40.0, last_s=130.0, end_s=170.0),
    ),
    AZURE: Load(
        words="slices of the Azure 2023 conversation trace",
        mix=({"scenario": "trace", "parameters": {"readers": {"preset": "default"}}},),
        arrivals="",
        rates_req_s=(26.0,),
        window=Window(start_s=15.0, last_s=60.0, end_s=75.0),
    ),
}
SHARES = {Scope.FULL: 1.0, Scope.QUICK: 0.3, Scope.TINY: 0.06}
"""Of a workload's window."""
TUNING_SHARE = 0.6
"""Of that, for the search."""


def cells(scope: Scope) -> list[Cell]:
    """The search for knobs, then each rival at its best on the reported seeds."""
    loads = {Scope.FULL: tuple(LOADS), Scope.QUICK: ("chat", "code"), Scope.TINY: ("code",)}[scope]
    seeds = {Scope.FULL: range(5), Scope.QUICK: range(2), Scope.TINY: range(2)}[scope]
    searched, reported = [], []
    for load in loads:
        if load == AZURE and azure_path() is None:
            continue
        is_traced = len(LOADS[load].rates_req_s) == 1
        levels = LEVELS if scope is Scope.FULL and not is_traced else LEVELS[1:2]
        for rival, arms in RIVALS.items():
            about: dict[str, Value] = {"load": load, "rival": rival, "scope": scope.value}
            if not is_traced:
                found = {**about, "level": LEVELS[1], "part": TUNED}
                searched += [
                    Cell(parameters={**found, "arm": arm}, seed=seed)
                    for arm in arms
                    for seed in TUNING_SEEDS
                ]
            reported += [
                Cell(parameters={**about, "level": level, "part": REPORTED}, seed=seed)
                for level in levels
                for seed in seeds
            ]
    return searched + reported


def run_cell(cell: Cell) -> Row:
    """One run."""
    load, rival = cell.text("load"), cell.text("rival")
    scope = Scope(cell.text("scope"))
    if cell.text("part") == TUNED:
        return cell.row(f1_literal=tuned_tok_s(rival, load, cell.text("arm"), scope))
    arm = best_arm(rival, "chat" if load == AZURE else load, scope)
    found = _fleet(RIVALS[rival][arm], load, cell.text("level"), SHARES[scope], seed=cell.seed)
    return cell.row(arm=arm, **found.numbers())


def best_arm(rival: str, load: str, scope: Scope) -> str:
    """The knobs of greatest smooth goodput on the tuning seeds; of equals the first."""
    arms = RIVALS[rival]
    return max(arms, key=lambda arm: tuned_tok_s(rival, load, arm, scope))


@cache
def tuned_tok_s(rival: str, load: str, arm: str, scope: Scope) -> float:
    """Smooth goodput (F1, literal) near capacity, on the tuning seeds."""
    share = SHARES[scope] * TUNING_SHARE
    found = [
        _fleet(RIVALS[rival][arm], load, LEVELS[1], share, seed=seed).numbers()
        for seed in TUNING_SEEDS
    ]
    return mean(numbers(found, "f1_literal")).value


def _fleet(arm: Arm, name: str, level: str, share: float, *, seed: int) -> Fleet:
    load = LOADS[name]
    rate = load.rates_req_s[0 if len(load.rates_req_s) == 1 else LEVELS.index(level)]
    window = Window(
        start_s=share * load.window.start_s,
        last_s=share * load.window.last_s,
        end_s=share * load.window.end_s,
    )
    arrivals: object = load.arrivals.format(rate=rate)
    if name == AZURE:
        arrivals = _slice(seed, rate, window)
    return Fleet(
        settings=ClusterSettings(
            profile=PROFILE,
            prefill=arm.prefill,
            decode=4 - arm.prefill,
            link="nvlink",
            policy=arm.policy,
            knobs=dict(arm.knobs),
            output_tokens_max=8192,
        ),
        workload={"mix": list(load.mix), "arrivals": arrivals},
        window=window,
        seed=seed,
        migration=arm.migration,
    )


def _slice(seed: int, rate_req_s: float, window: Window) -> dict[str, object]:
    """Each seed has a slice of its own, stretched in time."""
    length_s = window.end_s * rate_req_s / AZURE_RATE_REQ_S
    start_s = 480.0 * seed
    return {
        "kind": "trace",
        "path": azure_path(),
        "start_s": start_s,
        "end_s": start_s + length_s,
        "rate_req_s": rate_req_s,
    }
