"""A round of admission: the engine in the terms of Algorithm 1, and its verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from readahead.core.latency.iteration import LatencyModel
from readahead.core.planning.policy import EngineView
from readahead.core.planning.sequence import Sequence
from readahead.core.planning.slos.admission import admit
from readahead.core.planning.slos.prefill_budget import PrefillBudget
from readahead.core.planning.slos.standing import Groups, Ledger, Standing
from readahead.core.planning.slos.tiers import Counts, Load, Plan, Prompt
from readahead.core.promise import Verdict
from readahead.core.request import RequestId

TIERS_S = (0.00625, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
"""Times per token to which those of requests are rounded down; the source's table has some of
them. Only tiers in use are planned with."""
CONTEXT_STEP_TOKENS = 256
"""Mean contexts are rounded up to so many tokens, so that budgets need not be made anew."""
BUDGETS_MAX = 64
"""Budgets that are kept."""


def tier_s(token_s: float) -> float:
    """The longest of TIERS_S that is no longer than this; the shortest where none is."""
    return max((tier for tier in TIERS_S if tier <= token_s * (1 + 1e-9)), default=TIERS_S[0])


@dataclass(slots=True, kw_only=True)
class RoundCounts:
    """What rounds were like, all together."""

    rounds: int = 0
    greedy: int = 0
    """The search met its limit, and the greedy rule decided."""
    overloaded: int = 0
    """Those who run could not keep their pace, so that nobody was accepted."""
    accepted: int = 0
    declined: int = 0
    promoted: int = 0
    """Accepted after they had been declined."""


@dataclass(slots=True, kw_only=True)
class Rounds:
    """Asks for verdicts and notes them."""

    margin_s: float
    """By which due times and times per token are tightened."""
    promotes: bool
    slack_tiers: bool
    reserves_whole: bool
    least_tokens: int
    """That the aged one gets in any batch."""
    asked_max: int
    steps_max: int
    counts: RoundCounts = field(default_factory=RoundCounts)
    growth_blocks: int = 0
    """That accepted ones who run are expected to take still, as of the last round."""
    _model: LatencyModel | None = None
    _budgets: dict[tuple[tuple[float, ...], int], PrefillBudget | None] = field(
        default_factory=dict
    )

    def decide(
        self, view: EngineView, ledger: Ledger, groups: Groups, aged: Sequence | None, now: float
    ) -> None:
        """Gives everybody new a verdict, and perhaps some declined ones a better one."""
        asked = self._asked(ledger, groups, now)
        blocks_free = self._blocks_free(view, ledger, groups, aged)
        if asked or groups.prompts:
            everybody = [*groups.decoding, *(each.sequence for each in groups.prompts)]
            tiers = self._tiers(everybody, asked)
            context_tokens = _context_tokens(everybody or [each.sequence for each in asked])
            budget = self._budget(view, tiers, context_tokens)
            if budget is not None:
                least = next(i for i, tier in enumerate(budget.tiers) if tier > budget.base_s)
                load = Load(
                    tiers=budget.tiers,
                    decoding=self._beside(
                        aged, self._decoding(groups.decoding, tiers, least, now), budget, least
                    ),
                    prompts=tuple(
                        replace(each, tier=max(each.tier, least))
                        for each in self._prompts(view, ledger, groups.prompts, tiers, now)
                    ),
                    blocks_free=blocks_free,
                    context_tokens=context_tokens,
                )
                new = self._prompts(view, ledger, asked, tiers, now)
                plan = admit(new, load, budget, steps_max=self.steps_max)
                self._note(plan, asked, groups, _seats(view, groups, aged), now)
        for standing in groups.new:
            if standing.verdict is Verdict.NEW:
                standing.verdict = Verdict.BEST_EFFORT
                self.counts.declined += 1

    def _asked(self, ledger: Ledger, groups: Groups, now: float) -> list[Standing]:
        """Whom to ask for, first due first: who is new or was declined, and is in time by now."""
        asked = list(groups.new)
        if self.promotes:
            spare = (*groups.spare_decoding, *groups.spare_prompts)
            asked += [ledger.standing(sequence) for sequence in spare]
        found = []
        for standing in asked:
            if standing.is_missed:
                continue
            standing.due_at = ledger.due_at(standing.sequence) - self.margin_s
            if standing.due_at > now:
                found.append(standing)
        found.sort(key=lambda each: each.due_at)
        return found[: self.asked_max]

    def _blocks_free(
        self, view: EngineView, ledger: Ledger, groups: Groups, aged: Sequence | None
    ) -> int:
        """Blocks that nobody who is accepted has or is expected to take."""
        limits = view.limits
        spare = (*groups.spare_decoding, *groups.spare_prompts)
        evictable = sum([each.blocks for each in spare if each is not aged])
        pulled = sum([limits.blocks_for(each.known + 1) for each in groups.pulls])
        growing = [*groups.decoding] if aged is None else [*groups.decoding, aged]
        growth = 0
        for sequence in growing:
            tokens = ledger.reserved(sequence, is_whole=self.reserves_whole)
            growth += max(0, limits.blocks_for(tokens) - sequence.blocks)
        self.growth_blocks = growth + pulled
        return max(0, view.blocks_free + evictable - self.growth_blocks)

    def _tiers(self, everybody: list[Sequence], asked: list[Standing]) -> tuple[float, ...]:
        """Those in use, ascending; with `slack_tiers` one more, for who is far ahead."""
        paces = {each.pace_tok_s for each in everybody}
        paces.update(each.pace_tok_s for each in asked)
        found = {tier_s(1 / pace) for pace in paces}
        if self.slack_tiers:
            found.add(2 * max(found))
        return tuple(sorted(found))

    def _budget(
        self, view: EngineView, tiers: tuple[float, ...], context_tokens: int
    ) -> PrefillBudget | None:
        """What fits beside such tiers; None where not even an empty batch keeps their pace."""
        model = view.limits.latency
        assert model is not None
        if model is not self._model or len(self._budgets) > BUDGETS_MAX:
            self._model, self._budgets = model, {}
        key = (tiers, context_tokens)
        if key not in self._budgets:
            tightened = tuple(tier - min(self.margin_s, tier / 8) for tier in tiers)
            self._budgets[key] = made(model, tightened, context_tokens)
        return self._budgets[key]

    def _decoding(
        self, decoding: list[Sequence], tiers: tuple[float, ...], least: int, now: float
    ) -> tuple[int, ...]:
        """How many decode in each tier.

        Who decodes faster than the engine ever can counts for the fastest pace that it has, which
        is the tier `least`: his promise cannot be kept, which is no reason to decline everybody.
        """
        counts = [0] * len(tiers)
        own = {tier: index for index, tier in enumerate(tiers)}
        for sequence in decoding:
            index = own[tier_s(1 / sequence.pace_tok_s)]
            if self.slack_tiers:
                slack_s = sequence.due_at - now
                while index + 1 < len(tiers) and tiers[index + 1] <= slack_s:
                    index += 1
            counts[max(index, least)] += 1
        return tuple(counts)

    def _beside(
        self, aged: Sequence | None, decoding: Counts, budget: PrefillBudget, least: int
    ) -> Counts:
        """With the aged one, whose tokens in each batch count as so many decodes; but nobody is
        declined because of him alone."""
        if aged is None:
            return decoding
        first = next((i for i, count in enumerate(decoding) if count), least)
        tokens = min(self.least_tokens, aged.missing)
        more = (*decoding[:first], decoding[first] + tokens, *decoding[first + 1 :])
        return more if budget.line(more).tokens_per_s > 0 else decoding

    def _prompts(
        self,
        view: EngineView,
        ledger: Ledger,
        standings: Iterable[Standing],
        tiers: tuple[float, ...],
        now: float,
    ) -> tuple[Prompt, ...]:
        found = []
        for standing in standings:
            sequence = standing.sequence
            tokens = ledger.reserved(sequence, is_whole=self.reserves_whole)
            held = sequence.blocks if standing.verdict is Verdict.ACCEPTED else 0
            found.append(
                Prompt(
                    request_id=_name(standing),
                    due_s=standing.due_at - now,
                    prompt_tokens=sequence.missing,
                    before_tokens=sequence.known - sequence.missing,
                    blocks=max(0, view.limits.blocks_for(tokens) - held),
                    tier=tiers.index(tier_s(1 / sequence.pace_tok_s)),
                )
            )
        return tuple(found)

    def _note(
        self, plan: Plan, asked: list[Standing], groups: Groups, seats: int, now: float
    ) -> None:
        """Verdicts. Where there are fewer seats than accepted ones, those due first have them."""
        counts = self.counts
        counts.rounds += 1
        counts.greedy += plan.is_greedy
        counts.overloaded += plan.is_overloaded
        by_name = {_name(each): each for each in (*asked, *groups.prompts)}
        for promise in plan.accepted[: max(0, seats)]:
            standing = by_name[promise.request_id]
            counts.accepted += 1
            if standing.verdict is Verdict.BEST_EFFORT:
                counts.promoted += 1
            standing.verdict = Verdict.ACCEPTED
        for promise in plan.kept:
            by_name[promise.request_id].due_at = now + promise.due_s


def made(
    model: LatencyModel, tiers: tuple[float, ...], context_tokens: int
) -> PrefillBudget | None:
    """The budget; None where no tier is as long as an empty batch."""
    try:
        return PrefillBudget(model, tiers, context_tokens=context_tokens)
    except ValueError:
        return None


def _name(standing: Standing) -> RequestId:
    """Who it is in a plan: one request may be here twice, while its first attempt leaves."""
    return RequestId(f"{standing.sequence.request_id}/{standing.sequence.attempt}")


def _context_tokens(sequences: list[Sequence]) -> int:
    mean = sum([each.known for each in sequences]) / len(sequences)
    return (int(mean) // CONTEXT_STEP_TOKENS + 1) * CONTEXT_STEP_TOKENS


def _seats(view: EngineView, groups: Groups, aged: Sequence | None) -> int:
    """Requests that could be let in if all best-effort ones but the aged one gave way."""
    taken = len(groups.decoding) + len(groups.prompts) + len(groups.pulls) + view.pulling
    return view.limits.requests_max - taken - (aged is not None)
