"""Time of one admission round of SLOs-Serve, by load.

    python benchmarks/bench_slos_admission.py

Aim: median below 2 ms and p99 below 10 ms at 100 running and 20 new requests of 3 tiers. One
thread's processor time, so that other processes do not count; the budget's lines are made anew in
each round. An 8B model on an A100-80G; tiers of 50, 100 and 200 ms; prompts of 50 to 500, 1,500
or 4,000 tokens, one of the three in a round, due within 0.1 to 2 s, so that few, half or nearly all
can be accepted; memory for 30 to 100 % of what is asked. Two of those that run have a prompt that
is not computed. Values are all 1, or drawn from 1 to 4. `greedy` is the share of rounds in which
the search met its limit. Each plan is carried out by the checker, outside the time measured.
"""

from __future__ import annotations

import random
import statistics
import time

from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G
from readahead.core.planning.slos.admission import admit
from readahead.core.planning.slos.check import broken_promises
from readahead.core.planning.slos.prefill_budget import PrefillBudget
from readahead.core.planning.slos.tiers import Drafts, Load, Plan, Prompt
from readahead.core.request import RequestId

MODEL = LLAMA_3_1_8B_A100_80G
TIERS = (0.05, 0.1, 0.2)
SIZES = ((100, 5), (100, 10), (100, 20), (100, 40), (20, 20), (300, 20), (500, 20))
ROUNDS = 400
BLOCK_TOKENS = 16
CONTEXT_TOKENS = 1024
PROMPTS_RUNNING = 2
LONGEST_TOKENS = (500, 1500, 4000)


def prompt(draw: random.Random, name: str, longest_tokens: int, value_max: float) -> Prompt:
    tokens = draw.randint(50, longest_tokens)
    return Prompt(
        request_id=RequestId(name),
        due_s=draw.uniform(0.1, 2),
        prompt_tokens=tokens,
        blocks=(tokens + draw.randint(10, 600)) // BLOCK_TOKENS,
        tier=draw.randrange(len(TIERS)),
        value=draw.uniform(1, value_max),
    )


def asked(
    draw: random.Random, running: int, new: int, value_max: float
) -> tuple[list[Prompt], Load]:
    """One round."""
    longest = draw.choice(LONGEST_TOKENS)
    prompts = [prompt(draw, f"n{index}", longest, value_max) for index in range(new)]
    blocks = sum(each.blocks for each in prompts)
    tiers = [draw.randrange(len(TIERS)) for _ in range(running - PROMPTS_RUNNING)]
    return prompts, Load(
        tiers=TIERS,
        decoding=tuple(tiers.count(tier) for tier in range(len(TIERS))),
        prompts=tuple(
            prompt(draw, f"r{index}", longest, value_max) for index in range(PROMPTS_RUNNING)
        ),
        blocks_free=int(blocks * draw.uniform(0.3, 1)) + PROMPTS_RUNNING * 300,
        context_tokens=CONTEXT_TOKENS,
    )


def measured(
    running: int, new: int, drafts: Drafts | None, value_max: float
) -> tuple[list[float], list[Plan]]:
    """Processor seconds and plan of each round; every plan is checked."""
    draw = random.Random(f"slos/{running}/{new}")
    took_s, plans = [], []
    for _ in range(ROUNDS):
        prompts, load = asked(draw, running, new, value_max)
        started = time.thread_time()
        budget = PrefillBudget(MODEL, TIERS, context_tokens=CONTEXT_TOKENS, drafts=drafts)
        plan = admit(prompts, load, budget)
        took_s.append(time.thread_time() - started)
        if wrong := broken_promises(plan, prompts, load, model=MODEL, drafts=drafts):
            raise AssertionError(wrong[0])
        plans.append(plan)
    return took_s, plans


def main() -> None:
    """Prints a table."""
    print(
        f"{'running':>8}{'new':>5}{'values':>8}{'drafts':>8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}"
        f"{'accepted':>10}{'greedy':>8}{'overload':>10}"
    )
    for value_max, drafts in ((1, None), (4, None), (1, Drafts(acceptance=0.6))):
        for running, new in SIZES:
            took_s, plans = measured(running, new, drafts, value_max)
            p99_s = statistics.quantiles(took_s, n=100)[98]
            accepted = statistics.fmean(len(plan.accepted) for plan in plans)
            greedy = statistics.fmean(plan.is_greedy for plan in plans)
            overloaded = statistics.fmean(plan.is_overloaded for plan in plans)
            print(
                f"{running:>8}{new:>5}{f'1-{value_max}' if value_max > 1 else '1':>8}"
                f"{'yes' if drafts else 'no':>8}"
                f"{statistics.median(took_s) * 1e3:>9.2f}{p99_s * 1e3:>9.2f}"
                f"{max(took_s) * 1e3:>9.2f}{accepted:>10.1f}{greedy:>8.1%}{overloaded:>10.1%}"
            )


if __name__ == "__main__":
    main()
