"""What each policy was worth to readers on a real engine, and what the simulator says of it.

Run: python experiments/real-policies/report.py OUT
where OUT holds what measure.py wrote. Writes measured.csv and prints the tables of README.md.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "sim-vs-real")]
from measure import CALIBRATIONS, POLICIES, WORKLOADS  # noqa: E402
from predict import Lived, calibrated, lived, predicted  # noqa: E402
from run_real import CONFIGURATIONS  # noqa: E402

from readahead.sim.experiments.intervals import Mean  # noqa: E402
from readahead.sim.experiments.intervals import mean as interval  # noqa: E402

ALPHA, PACE_TOK_S, IDLE_S_MAX = 2.5, 5.0, 1.0
ZERO_LOAD_S, ZERO_LOAD_TOKEN_S = 0.02, 1e-4
"""TTFT of the idle system, of which promises are multiples; set before the runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """One run. Shares of requests, tokens/s, seconds."""

    policy: str
    round: int
    workload: str
    source: str
    """real or simulated"""
    requests: int
    kept: float
    """Promises of the scenarios."""
    read: float
    """Who never waited longer than IDLE_S_MAX in all, at PACE_TOK_S."""
    smooth_goodput_tok_s: float
    ttft_p50_s: float
    ttft_p99_s: float


def worth(about: Mapping[str, object], found: Sequence[Lived], slos: Sequence[Slo]) -> Worth:
    """Scores one run."""
    idle_s = [idle(one) for one in found]
    tokens = sum(one.output_tokens for one in found)
    span_s = max(one.ended_s for one in found) - min(one.arrival_s for one in found)
    firsts_s = sorted(one.ttft_s for one in found)
    return Worth(
        **about,  # type: ignore[arg-type]
        requests=len(found),
        kept=mean(is_kept(one, slo) for one, slo in zip(found, slos, strict=True)),
        read=mean(each <= IDLE_S_MAX for each in idle_s),
        smooth_goodput_tok_s=(tokens - ALPHA * PACE_TOK_S * sum(idle_s)) / span_s,
        ttft_p50_s=firsts_s[len(firsts_s) // 2],
        ttft_p99_s=firsts_s[int(0.99 * (len(firsts_s) - 1))],
    )


def idle(one: Lived) -> float:
    """How long its reader waited in all, from when he asked."""
    return max(
        (at_s - one.arrival_s - (n + 1) / PACE_TOK_S for n, at_s in enumerate(one.times_s)),
        default=0.0,
    )


Slo = tuple[float, float]
"""Slow-down to the first token, seconds per token."""


def is_kept(one: Lived, slo: Slo) -> bool:
    """Whether the first token came in time, and the others did in the mean."""
    zero_s = ZERO_LOAD_S + ZERO_LOAD_TOKEN_S * one.prompt_tokens
    slowdown, token_s = slo
    return one.ttft_s <= slowdown * zero_s and not one.tpot_s > token_s


def slos_of(records: Path) -> dict[tuple[str, int], Slo]:
    """What each request was promised."""
    found = {}
    for line in records.read_text().splitlines():
        fields = json.loads(line)
        slo = fields["slo_class"]
        found[fields["session_id"], fields["turn"]] = (slo["ttft_slowdown"], slo["tpot_s"])
    return found


def rows(out: Path) -> Iterator[Worth]:
    """Each run, and what the simulator says of it from the same round's calibrations."""
    rounds = sorted(int(one.name.partition("@")[2]) for one in out.glob("vllm@*"))
    for each in rounds:
        known = calibrated(out, [f"vllm@{each}/{name}" for name in CALIBRATIONS])
        for policy in POLICIES:
            for workload in WORKLOADS:
                records = out / f"{policy}@{each}" / f"{workload}.jsonl"
                real = lived(records)
                told = predicted(CONFIGURATIONS[policy], records, known)
                slos = slos_of(records)
                order = [slos[key] for key in real]
                about = {"policy": policy, "round": each, "workload": workload}
                yield worth({**about, "source": "real"}, list(real.values()), order)
                guess = [told[key] for key in real]
                yield worth({**about, "source": "simulated"}, guess, order)


def text(found: Sequence[Worth], name: str, scale: float = 1.0) -> str:
    """Mean and interval over rounds."""
    return of(found, name).text(3, scale=scale)


def of(found: Sequence[Worth], name: str) -> Mean:
    """The mean of a column."""
    return interval(getattr(one, name) for one in found)


def table(found: Sequence[Worth]) -> Iterator[str]:
    """One line per workload and policy."""
    yield (
        "| workload | policy | promises kept, % | simulated | idle ≤ 1 s, % | simulated "
        "| smooth goodput, tok/s | simulated | TTFT p50, ms | simulated |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    columns = (("kept", 100.0), ("read", 100.0), ("smooth_goodput_tok_s", 1.0), ("ttft_p50_s", 1e3))
    for workload in WORKLOADS:
        for policy in POLICIES:
            cells = [workload, f"`{policy}`"]
            for name, scale in columns:
                for source in ("real", "simulated"):
                    mine = [
                        one
                        for one in found
                        if (one.workload, one.policy, one.source) == (workload, policy, source)
                    ]
                    cells.append(text(mine, name, scale))
            yield f"| {' | '.join(cells)} |"


def differences(found: Sequence[Worth]) -> Iterator[str]:
    """`readahead` less each other, round by round: the same arrivals."""
    yield "| workload | less | promises kept, points | smooth goodput, tok/s |"
    yield "|---|---|---|---|"
    real = {(one.workload, one.policy, one.round): one for one in found if one.source == "real"}
    for workload in WORKLOADS:
        for other in POLICIES[:-1]:
            cells = [workload, f"`{other}`"]
            for name, scale in (("kept", 100.0), ("smooth_goodput_tok_s", 1.0)):
                gaps = [
                    getattr(one, name) - getattr(real[workload, other, each], name)
                    for (work, policy, each), one in real.items()
                    if work == workload and policy == POLICIES[-1]
                ]
                cells.append(interval(gaps).text(3, scale=scale))
            yield f"| {' | '.join(cells)} |"


def main(out: Path) -> None:
    """Writes the rows, prints the tables."""
    found = list(rows(out))
    with (HERE / "measured.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(found[0])), lineterminator="\n")
        writer.writeheader()
        for one in found:
            row = asdict(one).items()
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row})
    for line in (*table(found), "", *differences(found)):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
