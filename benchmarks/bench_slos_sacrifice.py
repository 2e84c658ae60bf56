"""The sacrifice set of `readahead` beside the admission of `slos-serve`, on the same rounds.

    python benchmarks/bench_slos_sacrifice.py

Rounds as in `bench_slos_admission.py` at 100 running requests of 3 tiers. `admission` is the
greatest value that PB* can vouch for. The sacrifice set knows due times, lengths, values, memory,
and by how much each answer slows prompts down; time is fluid to it, and it leaves one batch's worth
before each due time, where PB* loses one in each interval. So it may come to more: each of its sets
is carried out batch by batch, and who would be late is not counted (`broken`). `less`: rounds in
which it is worth less than the admission's. Processor time of one thread, the budget's lines
included in both; the admission's search has no limit here.
"""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass

from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G
from readahead.core.planning.sacrifice import Job, sacrifice_set
from readahead.core.planning.slos.admission import admit
from readahead.core.planning.slos.chain import joined
from readahead.core.planning.slos.check import late_in_order
from readahead.core.planning.slos.prefill_budget import PrefillBudget
from readahead.core.planning.slos.tiers import Load, Prompt
from readahead.core.request import RequestId

MODEL = LLAMA_3_1_8B_A100_80G
TIERS = (0.05, 0.1, 0.2)
RUNNING = 100
BLOCK_TOKENS = 16
CONTEXT_TOKENS = 1024
LONGEST_TOKENS = (500, 1500, 4000)
ROUNDS = 1000
NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class Both:
    """One round, decided twice."""

    admission: float
    """Value."""
    sacrifice: float
    admission_s: float
    sacrifice_s: float
    is_broken: bool
    """The sacrifice set could not be carried out."""


def prompts(draw: random.Random, count: int, value_max: float) -> list[Prompt]:
    """Who asks in one round: long ones and short ones, but few, half or nearly all fit."""
    longest = draw.choice(LONGEST_TOKENS)
    found = []
    for index in range(count):
        tokens = draw.randint(50, longest)
        found.append(
            Prompt(
                request_id=RequestId(f"n{index}"),
                due_s=draw.uniform(0.1, 2),
                prompt_tokens=tokens,
                blocks=(tokens + draw.randint(10, 600)) // BLOCK_TOKENS,
                tier=draw.randrange(len(TIERS)),
                value=draw.uniform(1, value_max),
            )
        )
    return found


def decided(draw: random.Random, new: int, *, memory_binds: bool, value_max: float) -> Both:
    """One round by both."""
    asked = prompts(draw, new, value_max)
    tiers = [draw.randrange(len(TIERS)) for _ in range(RUNNING)]
    blocks = sum(each.blocks for each in asked)
    load = Load(
        tiers=TIERS,
        decoding=tuple(tiers.count(tier) for tier in range(len(TIERS))),
        blocks_free=int(blocks * draw.uniform(0.3, 1)) if memory_binds else NO_LIMIT,
        context_tokens=CONTEXT_TOKENS,
    )
    started = time.thread_time()
    plan = admit(asked, load, _budget(), steps_max=NO_LIMIT)
    admission_s = time.thread_time() - started
    budget = _budget()
    started = time.thread_time()
    kept = sacrifice_set(
        jobs(asked, load, budget), blocks_free=load.blocks_free, cut_s=cut_s(asked, load, budget)
    ).kept
    sacrifice_s = time.thread_time() - started
    chosen = [asked[index] for index in kept]
    late = late_in_order(chosen, load, model=MODEL)
    value = 0.0 if late else sum(each.value for each in chosen)
    return Both(plan.value, value, admission_s, sacrifice_s, bool(late))


def _budget() -> PrefillBudget:
    return PrefillBudget(MODEL, TIERS, context_tokens=CONTEXT_TOKENS)


def jobs(asked: list[Prompt], load: Load, budget: PrefillBudget) -> list[Job]:
    """The prompts as the sacrifice set sees them, beside those who decode now."""
    rate = budget.line(load.decoding).tokens_per_s
    drags = [
        max(0.0, 1 - budget.line(joined(load.decoding, tier)).tokens_per_s / rate)
        for tier in range(len(load.tiers))
    ]
    return [
        Job(
            each.due_s, budget.demand_tokens(each) / rate, each.value, each.blocks, drags[each.tier]
        )
        for each in asked
    ]


def cut_s(asked: list[Prompt], load: Load, budget: PrefillBudget) -> float:
    """A batch's worth once everybody decodes."""
    new = [each.tier for each in asked]
    everybody = tuple(count + new.count(tier) for tier, count in enumerate(load.decoding))
    return budget.line(everybody).cut_tokens / budget.line(load.decoding).tokens_per_s


def main() -> None:
    """Prints a table."""
    print(
        f"{'new':>4}{'memory':>8}{'values':>8}{'value':>8}{'worst':>8}{'less':>8}{'broken':>8}"
        f"{'time, ms':>18}{'time ratio':>12}"
    )
    for new in (8, 20):
        for memory_binds in (False, True):
            for value_max in (1.0, 4.0):
                draw = random.Random(f"sacrifice/{new}/{memory_binds}/{value_max}")
                rounds = [
                    decided(draw, new, memory_binds=memory_binds, value_max=value_max)
                    for _ in range(ROUNDS)
                ]
                counted = [each for each in rounds if each.admission > 0]
                shares = [each.sacrifice / each.admission for each in counted]
                total = sum(each.sacrifice for each in counted) / sum(
                    each.admission for each in counted
                )
                took = [
                    statistics.fmean(getattr(each, name) for each in rounds) * 1e3
                    for name in ("admission_s", "sacrifice_s")
                ]
                print(
                    f"{new:>4}{'short' if memory_binds else 'ample':>8}"
                    f"{'1' if value_max == 1 else f'1-{value_max:g}':>8}{total:>8.3f}"
                    f"{min(shares):>8.2f}{statistics.fmean(s < 1 - 1e-9 for s in shares):>8.1%}"
                    f"{statistics.fmean(each.is_broken for each in rounds):>8.1%}"
                    f"{took[0]:>10.2f}{took[1]:>8.3f}{took[0] / took[1]:>12.0f}"
                )


if __name__ == "__main__":
    main()
