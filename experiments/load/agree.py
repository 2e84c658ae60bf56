"""Whether `readahead load` and `vllm bench serve` say the same of one server.

Run: python experiments/load/agree.py [--pairs 5] [--pairs-max 15] [--noise 0.025] [--json FILE]
Starts vLLM's own OpenAI server from this environment with a tiny model made on the spot, and lets
both tools offer it the same prompts, output lengths and concurrency or gaps, in turns
(A B, B A, A B …). A load gets more pairs until each of its metrics is known well enough, whatever
the ratios are. Prints, for each load and metric, the median over each tool's blocks, the median of
the pairs' ratios, and how far off that may be by noise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan, sqrt
from pathlib import Path
from statistics import median, quantiles

from readahead.cli.up.tiny_model import TinyModel, make

sys.path.insert(0, str(Path(__file__).parent))
from agree_tools import OURS, THEIRS, TOOLS, Bench, Load, Numbers, vllm_bench, vllm_server

METRICS = ("ttft_s", "tpot_s", "throughput_tok_s")
SPREAD = "lognormal:median=96,sigma=0.4,max=192"
"""Users who run in step, with answers of one length, queue as their first millisecond fell."""
LOADS = (
    Load(name="one user at a time", prompt_tokens=512, output_lengths="96", requests=12, users=1),
    Load(name="four users", prompt_tokens=1024, output_lengths=SPREAD, requests=32, users=4),
    Load(name="even gaps", prompt_tokens=512, output_lengths="96", requests=16, rate_req_s=2.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One metric of one load over all blocks."""

    load: str
    metric: str
    ours: float
    theirs: float
    ratio: float
    """Ours over theirs: the median over the pairs, whose blocks are neighbours in time."""
    noise: float
    """Half the middle range of those ratios over the root of their number: how far from the truth
    their median may well be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How many pairs a load gets."""

    pairs_min: int
    pairs_max: int
    noise_max: float
    """More pairs until no metric's noise is above this."""
    is_together: bool


def measure(bench: Bench, load: Load, effort: Effort) -> dict[str, list[Numbers]]:
    """All blocks of a load; those of a pair have the same prompts, and the order turns."""
    found: dict[str, list[Numbers]] = {tool: [] for tool in TOOLS}
    for tool in TOOLS:  # not counted: a server and its caches warm up
        bench.block(tool, load, seed=0)
    for pair in range(effort.pairs_max):
        if pair >= effort.pairs_min and _is_known(load, found, effort.noise_max):
            break
        if effort.is_together:
            for tool, numbers in bench.together(load, seed=1 + pair).items():
                found[tool].append(numbers)
            continue
        for tool in TOOLS if pair % 2 == 0 else reversed(TOOLS):
            found[tool].append(bench.block(tool, load, seed=1 + pair))
    return found


def _is_known(load: Load, found: Mapping[str, Sequence[Numbers]], noise_max: float) -> bool:
    """Looks at the noise alone: a stop that looked at the ratios would choose among them."""
    return all(row.noise <= noise_max for row in agreements(load, found))


def agreements(load: Load, found: Mapping[str, Sequence[Numbers]]) -> Iterator[Agreement]:
    """Each metric of the blocks of a load."""
    for metric in METRICS:
        ours, theirs = ([getattr(one, metric) for one in found[tool]] for tool in TOOLS)
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (nan, nan, nan)
        yield Agreement(
            load=load.name,
            metric=metric,
            ours=median(ours),
            theirs=median(theirs),
            ratio=median(ratios),
            noise=(high - low) / 2 / sqrt(len(ratios)),
        )


def line_of(row: Agreement) -> str:
    """A line of the table."""
    values = f"{row.ours:18.5g}{row.theirs:18.5g}{row.ratio:8.3f}{row.noise:8.1%}"
    return f"{row.load:20}{row.metric:18}{values}"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="blocks of each tool, at least")
    parser.add_argument("--pairs-max", type=int, default=15, help="and at most")
    parser.add_argument("--noise", type=float, default=0.025, help="above this, more pairs")
    parser.add_argument("--loads", default="", help="names of loads, separated by commas")
    parser.add_argument(
        "--together", action="store_true", help="both at once, for a machine that others use"
    )
    parser.add_argument("--json", type=Path, help="writes blocks and ratios there")
    given = parser.parse_args()
    effort = Effort(
        pairs_min=given.pairs,
        pairs_max=max(given.pairs, given.pairs_max),
        noise_max=given.noise,
        is_together=given.together,
    )
    wanted = given.loads.split(",") if given.loads else [load.name for load in LOADS]
    rows: list[Agreement] = []
    sys.stdout.write(f"{'load':20}{'metric':18}{OURS:>18}{THEIRS:>18}{'ratio':>8}{'noise':>8}\n")
    blocks: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="readahead-agree-") as name:
        folder = Path(name)
        model = folder / "tiny"
        make(TinyModel(), model)
        with vllm_server(model, folder) as url, vllm_bench(folder) as process:
            bench = Bench(url=url, model=model, folder=folder, vllm_bench=process)
            for load in (one for one in LOADS if one.name in wanted):
                found = measure(bench, load, effort)
                blocks[load.name] = {tool: [asdict(one) for one in found[tool]] for tool in TOOLS}
                rows += (new := list(agreements(load, found)))
                for row in new:
                    sys.stdout.write(line_of(row) + "\n")
                    sys.stdout.flush()
    if given.json is not None:
        ratios = [asdict(row) for row in rows]
        given.json.write_text(json.dumps({"ratios": ratios, "blocks": blocks}, indent=1) + "\n")


if __name__ == "__main__":
    main()
