"""How much of what no policy can exceed do policies reach? All of it is simulated.

Run: python experiments/clairvoyant-bound/measure.py [--seeds 3] [--cells 40]
Prints the tables of the README beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from readahead.core.reading.score import Ruler
from readahead.sim.bound.fraction import Bounds, Fraction, bounds, fraction
from readahead.sim.bound.grid import graded_grid
from readahead.sim.bound.known import KnownRequest, known_requests
from readahead.sim.cluster import ClusterSpec
from readahead.sim.experiments.intervals import mean
from readahead.sim.experiments.served import LENGTHS, PATIENT
from readahead.sim.run import RunOptions, simulate
from readahead.sim.settings import ClusterSettings
from readahead.workload.plan import plan
from readahead.workload.session import Session
from readahead.workload.spec import workload_spec

PROFILE = "llama-3.1-8b-a100-80g"
POLICIES = ("vllm-chunked", "sarathi", "slack", "readahead")
READERS = {"preset": "default", "pace_median_tok_s": 5.0, "pace_sigma": 0.0}
RULER = Ruler()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Poisson arrivals at one rate."""

    words: str
    lengths: str
    """A key of LENGTHS."""
    rate_req_s: float
    duration_s: float


LOADS = (
    Load(words="long prompts, moderate", lengths="long", rate_req_s=0.15, duration_s=120.0),
    Load(words="long prompts, overload", lengths="long", rate_req_s=0.6, duration_s=120.0),
    Load(words="chat, moderate", lengths="ShareGPT", rate_req_s=14.0, duration_s=20.0),
    Load(words="chat, overload", lengths="ShareGPT", rate_req_s=30.0, duration_s=20.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One load and one seed."""

    load: Load
    most: Bounds
    wanted_tokens: int
    """Of all answers together."""
    reached: dict[str, Fraction]


def server(policy: str) -> ClusterSpec:
    """One GPU that rejects nobody."""
    return ClusterSettings(profile=PROFILE, policy=policy, core=PATIENT).spec()


def sessions_of(load: Load, *, seed: int) -> list[Session]:
    """Chats of one turn, as they come."""
    parameters = {"lengths": LENGTHS[load.lengths], "readers": READERS}
    settings = {
        "mix": [{"scenario": "chatbot", "parameters": parameters}],
        "arrivals": {"kind": "poisson", "rate_req_s": load.rate_req_s},
        "seed": seed,
        "limits": {"duration_s": load.duration_s},
    }
    return list(plan(workload_spec(settings)))


def most_of(known: Sequence[KnownRequest], *, cells: int) -> Bounds:
    """What no policy exceeds."""
    grid = graded_grid(known, RULER, cells=cells)
    return bounds(server(POLICIES[0]), known, RULER, grid=grid)


def run_cell(load: Load, *, seed: int, cells: int) -> Cell:
    """All policies beside the bound."""
    sessions = sessions_of(load, seed=seed)
    known = known_requests(server(POLICIES[0]), sessions)
    most = most_of(known, cells=cells)
    scores = {
        policy: simulate(server(policy), sessions, RunOptions(ruler=RULER)).score
        for policy in POLICIES
    }
    return Cell(
        load=load,
        most=most,
        wanted_tokens=sum(one.output_tokens for one in known),
        reached={policy: fraction(score, most) for policy, score in scores.items()},
    )


def table(found: Sequence[Cell]) -> str:
    """The fractions, means over seeds with their 95 % intervals."""
    lines = [
        "| load | policy | smooth goodput, % of the bound | attainment, % of the bound |",
        "| --- | --- | --- | --- |",
    ]
    for load in LOADS:
        for policy in POLICIES:
            reached = [cell.reached[policy] for cell in found if cell.load == load]
            benefit = mean(each.benefit for each in reached if each.benefit is not None)
            attained = mean(each.attainment for each in reached if each.attainment is not None)
            lines.append(
                f"| {load.words}, {load.rate_req_s:g}/s | {policy} | {benefit.text(scale=100)}"
                f" | {attained.text(scale=100)} |"
            )
    lines += [
        "",
        "| load | bound on the benefit, % of all tokens | bound on attainment, % of requests |",
        "| --- | --- | --- |",
    ]
    for load in LOADS:
        cells = [cell for cell in found if cell.load == load]
        benefit = mean(cell.most.benefit_tokens / cell.wanted_tokens for cell in cells)
        attained = mean(cell.most.attained / cell.most.requests for cell in cells)
        lines.append(
            f"| {load.words}, {load.rate_req_s:g}/s | {benefit.text(scale=100)}"
            f" | {attained.text(scale=100)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Reads the command line and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cells", type=int, default=40)
    given = parser.parse_args()
    found = [
        run_cell(load, seed=seed, cells=given.cells)
        for load in LOADS
        for seed in range(given.seeds)
    ]
    print(table(found))  # noqa: T201


if __name__ == "__main__":
    main()
