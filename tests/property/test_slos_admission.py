"""The admission of SLOs-Serve accepts the best set there is, and its plans keep every promise."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from slos_instances import LINEAR, Round, drawn_round, most_value

from readahead.core.planning.slos.admission import admit
from readahead.core.planning.slos.check import broken_promises
from readahead.core.planning.slos.prefill_budget import PrefillBudget
from readahead.core.planning.slos.tiers import Load, Plan, Prompt
from readahead.core.request import RequestId

ROUNDS = 2_100
NO_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class Answered:
    """A round and its plan."""

    asked: Round
    plan: Plan

    def broken(self) -> list[str]:
        asked = self.asked
        return broken_promises(
            self.plan, asked.new, asked.load, model=asked.model, drafts=asked.drafts
        )


def answered(asked: Round, *, steps_max: int = NO_LIMIT) -> Answered:
    return Answered(asked, admit(asked.new, asked.load, asked.budget(), steps_max=steps_max))


@pytest.fixture(scope="module")
def rounds() -> list[Answered]:
    return [answered(drawn_round(random.Random(f"slos/{seed}"))) for seed in range(ROUNDS)]


@pytest.fixture(scope="module")
def planned(rounds: list[Answered]) -> list[Answered]:
    return [each for each in rounds if not each.plan.is_overloaded]


def test_no_subset_is_worth_more(planned: list[Answered]) -> None:
    """Brute force over all subsets and all intervals finds the same value, short memory or not."""
    declined = memory_binds = 0
    for each in planned:
        assert each.plan.value == most_value(each.asked, each.plan)
        declined += len(each.plan.accepted) < len(each.asked.new)
        with_memory = most_value(each.asked, each.plan, blocks_free=NO_LIMIT)
        memory_binds += with_memory is not None and with_memory > each.plan.value
    assert len(planned) >= 2_000
    assert memory_binds >= 0.3 * ROUNDS
    assert declined >= 0.5 * ROUNDS
    assert sum(bool(each.plan.accepted) for each in planned) >= 0.5 * ROUNDS
    assert sum(len(each.plan.segments) > 1 for each in planned) >= 0.3 * ROUNDS
    assert sum(any(s.draft_tokens for s in each.plan.segments) for each in planned) >= 0.1 * ROUNDS


def test_every_plan_can_be_carried_out(rounds: list[Answered]) -> None:
    """The checker follows each batch, decode and prompt and finds nobody late."""
    assert [each for each in rounds if each.broken()] == []


def test_of_those_due_together_the_first_ready_goes_first() -> None:
    """Two are due at one time and promised in different intervals."""
    each = answered(drawn_round(random.Random("late/14069"), drafts_share=0.7))
    promises = (*each.plan.accepted, *each.plan.kept)
    assert len({p.due_s for p in promises}) < len({(p.due_s, p.ready_s) for p in promises})
    assert each.broken() == []


def test_what_runs_is_kept(planned: list[Answered]) -> None:
    """Everybody who ran is, at the time asked unless nobody could; then declining does not help."""
    later = 0
    for each in planned:
        load = each.asked.load
        assert {p.request_id for p in each.plan.kept} == {p.request_id for p in load.prompts}
        asked_s = {prompt.request_id: prompt.due_s for prompt in load.prompts}
        if any(kept.due_s > asked_s[kept.request_id] for kept in each.plan.kept):
            later += 1
            alone = replace(each.asked, new=())
            as_asked = replace(each.plan, kept=())
            assert most_value(alone, as_asked) is None
    assert later >= 0.03 * ROUNDS


def test_an_overloaded_engine_accepts_nobody(rounds: list[Answered]) -> None:
    """Only then is anything said to be overloaded, and then nobody comes on top."""
    overloaded = [each for each in rounds if each.plan.is_overloaded]
    assert overloaded
    for each in overloaded:
        assert each.plan.accepted == ()
        assert most_value(replace(each.asked, new=()), each.plan) is None


def test_more_memory_never_lowers_the_value(planned: list[Answered]) -> None:
    for each in planned[::3]:
        more = replace(each.asked.load, blocks_free=each.asked.load.blocks_free + 100)
        assert answered(replace(each.asked, load=more)).plan.value >= each.plan.value


@pytest.mark.parametrize("later_s", [0.01, 0.1, 0.7])
def test_later_due_times_never_lower_the_value(planned: list[Answered], later_s: float) -> None:
    """Of one request or of all of them, past others' or not; without drafts, whose best lengths
    depend on the counts."""
    raised = 0
    for index, each in enumerate(planned):
        if each.asked.drafts is not None or index % 3:
            continue
        new = list(each.asked.new)
        one = index % len(new)
        moved = [replace(p, due_s=p.due_s + later_s * (p is new[one])) for p in new]
        all_moved = [replace(p, due_s=p.due_s + later_s) for p in new]
        for some in (moved, all_moved):
            value = answered(replace(each.asked, new=tuple(some))).plan.value
            assert value >= each.plan.value
            raised += value > each.plan.value
    assert raised > 0


def test_the_greedy_rule_keeps_its_promises_too(planned: list[Answered]) -> None:
    """Beyond its limit the search says so, and the plan is as sound, if not always as good."""
    worse = 0
    for each in planned:
        greedy = answered(each.asked, steps_max=0)
        assert greedy.broken() == []
        assert greedy.plan.value <= each.plan.value
        is_all = len(greedy.plan.accepted) == len(each.asked.new)
        assert greedy.plan.is_greedy is not is_all or each.plan.value == greedy.plan.value
        worse += greedy.plan.value < each.plan.value
    assert 0 < worse < 0.2 * ROUNDS


def test_the_order_of_asking_does_not_matter(planned: list[Answered]) -> None:
    for each in planned[::5]:
        again = answered(replace(each.asked, new=each.asked.new[::-1]))
        assert again.plan == each.plan


def test_a_running_prompt_that_is_late_does_not_decline_others() -> None:
    """It is promised again, behind those that run and can be in time, and what is left is left."""
    late, early = prompt("late", due_s=0.01, tokens=3000), prompt("early", due_s=0.2, tokens=200)
    asked = Round((prompt("new", due_s=1.0, tokens=500),), load(late, early), LINEAR, None)
    sound = answered(asked)
    assert [each.request_id for each in sound.plan.accepted] == ["new"]
    assert [(each.request_id, each.due_s > 0.2) for each in sound.plan.kept] == [
        ("early", False),
        ("late", True),
    ]
    assert sound.broken() == []


def test_those_who_decode_too_fast_for_the_engine_overload_it() -> None:
    asked = Round((prompt("new", due_s=1, tokens=5),), load(decoding=(900,)), LINEAR, None)
    assert answered(asked).plan == Plan(
        accepted=(), kept=(), segments=(), rest=None, value=0, is_overloaded=True
    )


def test_one_more_than_the_pace_bears_is_declined() -> None:
    """However much time there is for its prompt."""
    new = prompt("new", due_s=1000, tokens=1)
    slow = replace(load(), tiers=(0.1,))
    budget = Round((), slow, LINEAR, None).budget()
    most = max(count for count in range(2000) if budget.line((count,)).tokens_per_s >= 0)
    assert budget.line((most,)).tokens(new.due_s) > budget.demand_tokens(new)
    fits, full = (
        answered(Round((new,), replace(slow, decoding=(count,)), LINEAR, None))
        for count in (most - 1, most)
    )
    assert [each.request_id for each in fits.plan.accepted] == ["new"]
    assert full.plan.accepted == ()
    assert fits.broken() == full.broken() == []


def test_nobody_asks_and_nobody_runs() -> None:
    plan = answered(Round((), load(decoding=(0,)), LINEAR, None)).plan
    assert plan == Plan(accepted=(), kept=(), segments=(), rest=None, value=0)


def prompt(name: str, *, due_s: float, tokens: int) -> Prompt:
    return Prompt(
        request_id=RequestId(name), due_s=due_s, prompt_tokens=tokens, blocks=tokens // 16, tier=0
    )


def load(*prompts: Prompt, decoding: tuple[int, ...] = (10,)) -> Load:
    return Load(
        tiers=(0.05,), decoding=decoding, prompts=prompts, blocks_free=1000, context_tokens=0
    )


BREAKS = {
    "a prompt more": lambda plan: replace(
        plan, segments=tuple(replace(s, end_s=s.start_s + 1e-3) for s in plan.segments)
    ),
    "another value": lambda plan: replace(plan, value=plan.value + 1),
    "ready too late": lambda plan: replace(
        plan, accepted=tuple(replace(p, ready_s=p.due_s + 0.1) for p in plan.accepted)
    ),
    "another due time": lambda plan: replace(
        plan, accepted=tuple(replace(p, due_s=p.due_s + 0.1) for p in plan.accepted)
    ),
    "one batch for all": lambda plan: replace(
        plan, segments=tuple(replace(s, batches=1) for s in plan.segments)
    ),
    "many small batches": lambda plan: replace(
        plan, segments=tuple(replace(s, batches=s.batches * 4) for s in plan.segments)
    ),
    "fewer decodes": lambda plan: replace(
        plan, segments=tuple(replace(s, counts=(0,)) for s in plan.segments)
    ),
    "a segment less": lambda plan: replace(plan, segments=plan.segments[1:]),
    "no rest": lambda plan: replace(plan, rest=None),
    "a slow rest": lambda plan: replace(
        plan, rest=replace(plan.rest, end_s=plan.rest.end_s + 0.01)
    ),
    "one twice": lambda plan: replace(plan, accepted=plan.accepted * 2),
    "one forgotten": lambda plan: replace(plan, kept=()),
    "earlier than asked": lambda plan: replace(
        plan, kept=tuple(replace(p, due_s=p.due_s - 0.01) for p in plan.kept)
    ),
    "accepted in overload": lambda plan: replace(plan, is_overloaded=True),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_checker_finds_what_is_broken(name: str) -> None:
    """A sound plan that is damaged in one place is found out."""
    asked = Round(
        (prompt("a", due_s=0.3, tokens=900), prompt("b", due_s=0.8, tokens=2500)),
        load(prompt("r", due_s=0.1, tokens=200)),
        LINEAR,
        None,
    )
    sound = answered(asked)
    assert sound.broken() == []
    assert len(sound.plan.accepted) == 2
    assert Answered(asked, BREAKS[name](sound.plan)).broken() != []


def test_the_checker_counts_blocks() -> None:
    asked = Round((prompt("a", due_s=0.3, tokens=900),), load(), LINEAR, None)
    sound = answered(asked)
    short = replace(asked, load=replace(asked.load, blocks_free=50))
    assert Answered(short, sound.plan).broken() == ["56 blocks are promised, more than are free"]


def test_a_budget_needs_a_model_in_which_work_takes_time() -> None:
    free = replace(LINEAR, planes=(replace(LINEAR.planes[0], token_s=0.0),))
    with pytest.raises(ValueError, match="must charge for tokens"):
        PrefillBudget(free, (0.05,), context_tokens=0)
    with pytest.raises(ValueError, match="empty batch"):
        PrefillBudget(LINEAR, (0.01, 0.02), context_tokens=0)
