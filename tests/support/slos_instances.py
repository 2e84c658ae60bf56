"""Random rounds of admission, and the best accepted set by trying all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from readahead.core.latency.iteration import LatencyModel, LatencyPlane
from readahead.core.planning.slos.prefill_budget import PrefillBudget
from readahead.core.planning.slos.tiers import Drafts, Load, Plan, Prompt
from readahead.core.request import RequestId

LINEAR = LatencyModel(
    name="one plane", planes=(LatencyPlane(token_s=7e-5, base_s=0.0248, draft_step_s=1.2e-6),)
)
ROOFLINE = LatencyModel(
    name="two planes, attention, host",
    planes=(
        LatencyPlane(token_s=5.75e-5, past_token_s=8.2e-8, prefill_pair_s=2.2e-9, base_s=3.8e-3),
        LatencyPlane(
            request_s=2e-5,
            past_token_s=8.2e-8,
            prefill_pair_s=2.2e-9,
            draft_step_s=1e-3,
            base_s=1.13e-2,
        ),
    ),
    mixing=1.3,
    host_base_s=1e-3,
    host_request_s=1e-5,
)
TIERS = ((0.1,), (0.05, 0.1), (0.05, 0.1, 0.2), (0.03, 0.05, 0.13))


@dataclass(frozen=True, slots=True)
class Round:
    """One question."""

    new: tuple[Prompt, ...]
    load: Load
    model: LatencyModel
    drafts: Drafts | None

    def budget(self) -> PrefillBudget:
        return PrefillBudget(
            self.model,
            self.load.tiers,
            context_tokens=self.load.context_tokens,
            drafts=self.drafts,
        )


def drawn_round(draw: random.Random, *, new_max: int = 8, drafts_share: float = 0.25) -> Round:
    """Prompts of some hundreds of tokens that are due within two seconds, and short memory."""
    model, tiers = draw.choice([LINEAR, ROOFLINE]), draw.choice(TIERS)
    busy = draw.choice([0, 5, 40])
    new = tuple(
        drawn_prompt(draw, f"n{index}", tiers, value=draw.choice([1.0, 1.0, 2.0, 3.5]))
        for index in range(draw.randint(1, new_max))
    )
    kept = tuple(
        drawn_prompt(draw, f"r{index}", tiers, value=0.0)
        for index in range(draw.choice([0, 0, 1, 2]))
    )
    wanted = sum(each.blocks for each in (*new, *kept))
    load = Load(
        tiers=tiers,
        decoding=tuple(draw.randint(0, busy) for _ in tiers),
        prompts=kept,
        blocks_free=draw.choice([wanted, int(wanted * draw.uniform(0.2, 1.0))]),
        context_tokens=draw.choice([0, 600, 2000]),
    )
    drafts = Drafts(acceptance=0.6) if draw.uniform(0, 1) < drafts_share else None
    return Round(new, load, model, drafts)


def drawn_prompt(
    draw: random.Random, name: str, tiers: tuple[float, ...], *, value: float
) -> Prompt:
    tokens = draw.randint(1, draw.choice([200, 1500, 6000]))
    due_s = draw.uniform(-0.05, 2.0)
    return Prompt(
        request_id=RequestId(name),
        due_s=draw.choice([due_s, round(due_s, 1)]),
        prompt_tokens=tokens,
        before_tokens=draw.choice([0, 0, 500]),
        blocks=draw.randint(1, 400),
        tier=draw.randrange(len(tiers)),
        value=value,
    )


def most_value(asked: Round, plan: Plan, *, blocks_free: int | None = None) -> float | None:
    """Greatest value of all subsets that keep what runs, every way to cut time into intervals
    tried; None where even what runs cannot be kept. What runs is due as the plan says."""
    load, budget = asked.load, asked.budget()
    again = {each.request_id: each.due_s for each in plan.kept}
    kept = [replace(each, due_s=again.get(each.request_id, each.due_s)) for each in load.prompts]
    if blocks_free is None:
        blocks_free = load.blocks_free - sum(each.blocks for each in kept)
    running = {each.request_id for each in kept}
    order = sorted(
        [*kept, *asked.new], key=lambda e: (e.due_s, e.request_id not in running, e.request_id)
    )
    return _tried(order, running, budget, blocks_free, load.decoding)


def _tried(
    order: Sequence[Prompt],
    running: set[RequestId],
    budget: PrefillBudget,
    blocks_free: int,
    decoding: tuple[int, ...],
) -> float | None:
    def best(
        index: int, counts: tuple[int, ...], blocks: int, spare: float, end_s: float
    ) -> float | None:
        if index == len(order):
            return 0.0
        prompt = order[index]
        values = []
        if prompt.request_id not in running:
            values.append(best(index + 1, counts, blocks, spare, end_s))
            blocks -= prompt.blocks
        more = list(counts)
        more[prompt.tier] += 1
        after = tuple(more)
        if blocks >= 0 or prompt.request_id in running:
            line, value = budget.line(counts), 0.0
            if prompt.request_id not in running:
                value = prompt.value
            for until_s in {end_s, prompt.due_s}:
                gain = line.tokens_per_s * (until_s - end_s) - line.cut_tokens
                left = spare - budget.demand_tokens(prompt)
                if until_s > end_s and gain > 0:
                    left += gain
                elif until_s != end_s:
                    continue
                if left >= 0 and budget.line(after).tokens_per_s >= 0:
                    rest = best(index + 1, after, blocks, left, until_s)
                    values.append(None if rest is None else value + rest)
        return max((each for each in values if each is not None), default=None)

    if any(decoding) and budget.line(decoding).tokens_per_s < 0:
        return None
    return best(0, decoding, blocks_free, 0.0, 0.0)
