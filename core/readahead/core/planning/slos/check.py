"""Whether a plan keeps its promises, found by carrying it out batch by batch.

It shares no code with what makes plans: batches take the time that the latency model says, each
decode and each prompt is followed on its own, and prompts get what is left of each batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from readahead.core.latency.budget import tokens_within
from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s
from readahead.core.planning.slos.tiers import Drafts, Load, Plan, Promise, Prompt, Segment
from readahead.core.request import RequestId

_LATE_S = 1e-7
"""By which a time may differ from another one, seconds: they are sums of many."""


@dataclass(slots=True)
class _Prompt:
    asked: Prompt
    promise: Promise
    done_tokens: int = 0

    @property
    def left(self) -> int:
        return self.asked.prompt_tokens - self.done_tokens


@dataclass(slots=True)
class _Run:
    """What has happened until `now_s`."""

    load: Load
    model: LatencyModel
    drafts: Drafts | None
    prompts: list[_Prompt]
    wrong: list[str] = field(default_factory=list)
    due_s: list[list[float]] = field(default_factory=list)
    """By tier: when the next token of each request is due."""
    now_s: float = 0.0
    joined: int = 0

    def join(self) -> None:
        """Those whose prompts are promised by now decode."""
        for prompt in self.prompts:
            if prompt.promise.ready_s > self.now_s + _LATE_S or prompt.done_tokens < 0:
                continue
            if prompt.left > 0:
                self.wrong.append(f"{prompt.asked.request_id} misses {prompt.left} prompt tokens")
            self.due_s[prompt.asked.tier].append(self.now_s + self.load.tiers[prompt.asked.tier])
            prompt.done_tokens = -1  # it is no prompt any more

    def carry_out(self, segment: Segment) -> None:
        """All of its batches."""
        counts = tuple(len(each) for each in self.due_s)
        if counts != segment.counts:
            self.wrong.append(f"{segment.counts} decode by the plan, {counts} in fact")
        if abs(segment.start_s - self.now_s) > _LATE_S:
            self.wrong.append(f"a segment starts at {segment.start_s}, not at {self.now_s}")
        length_s = (segment.end_s - segment.start_s) / segment.batches
        served = [0] * len(counts)
        for batch in range(1, segment.batches + 1):
            self.now_s = segment.start_s + batch * length_s
            if segment.draft_tokens is None:
                quotas = [
                    self._quota(tier, batch, segment.batches, length_s) - served[tier]
                    for tier in range(len(counts))
                ]
                served = [sum(pair) for pair in zip(served, quotas, strict=True)]
                self._decode(quotas)
                self._compute(sum(quotas), sum(quotas), 0, length_s)
            else:
                self._verify(segment.draft_tokens, length_s)

    def _quota(self, tier: int, batch: int, batches: int, length_s: float) -> int:
        """Tokens of a tier until the end of this batch, spread evenly."""
        every = max(1, math.floor(self.load.tiers[tier] / length_s + _LATE_S))
        tokens = len(self.due_s[tier]) * math.ceil(batches / every)
        return -(-batch * tokens // batches)

    def _decode(self, quotas: list[int]) -> None:
        for tier, (due_s, quota) in enumerate(zip(self.due_s, quotas, strict=True)):
            due_s.sort()
            if quota > len(due_s):
                self.wrong.append(f"tier {tier} has {quota} tokens and {len(due_s)} requests")
            if due_s and due_s[0] < self.now_s - _LATE_S:
                self.wrong.append(f"tier {tier} is {self.now_s - due_s[0]:g} s late")
            tpot_s = self.load.tiers[tier]
            due_s[:quota] = [each + tpot_s for each in due_s[:quota]]

    def _verify(self, draft_tokens: tuple[int, ...], length_s: float) -> None:
        """Expected tokens keep the pace from batch to batch; single ones come in lumps."""
        assert self.drafts is not None
        requests = tokens = longest = 0
        for tier, count in enumerate(len(each) for each in self.due_s):
            if not count:
                continue
            draft, acceptance = draft_tokens[tier], self.drafts.acceptance
            sure = 1 - acceptance
            expected = draft if sure == 0 else (1 - acceptance**draft) / sure
            if length_s > self.load.tiers[tier] * expected + _LATE_S:
                self.wrong.append(f"tier {tier} gets {expected:g} tokens in {length_s:g} s")
            self.due_s[tier] = [self.now_s + self.load.tiers[tier]] * count
            requests, tokens = requests + count, tokens + count * draft
            longest = max(longest, draft)
        self._compute(requests, tokens, max(0, longest - 1), length_s)

    def _compute(self, requests: int, tokens: int, steps: int, length_s: float) -> None:
        """A batch with these decodes and as much of the prompts, first due first, as fits."""
        work = IterationWork(
            tokens=tokens,
            requests=requests,
            past_tokens=requests * self.load.context_tokens,
            prefill_pairs=0,
            draft_steps=steps,
        )
        if iteration_s(work, model=self.model) > length_s + _LATE_S:
            self.wrong.append(f"{requests} decodes do not fit a batch of {length_s:g} s")
        for prompt in self.prompts:
            if prompt.left <= 0 or prompt.done_tokens < 0:
                continue
            before = prompt.asked.before_tokens + prompt.done_tokens
            fits = tokens_within(length_s, model=self.model, work=work, before_tokens=before)
            chunk = min(prompt.left, fits)
            work = work.with_chunk(chunk, before_tokens=before)
            prompt.done_tokens += chunk
            if prompt.left > 0:
                return


def broken_promises(
    plan: Plan,
    new: Sequence[Prompt],
    load: Load,
    *,
    model: LatencyModel,
    drafts: Drafts | None = None,
) -> list[str]:
    """What is wrong with a plan, one sentence each; [] where nothing is.

    Looked at: who is promised what, memory, each prompt's due time, each token's due time (with
    drafts: the expected pace of each batch), each batch's time; and that what is repeated for
    ever after the last segment can be.
    """
    asked = {each.request_id: each for each in new}
    running = {each.request_id: each for each in load.prompts}
    wrong = _misnamed(plan, load, asked, running)
    if plan.is_overloaded or wrong:
        return wrong
    known = asked | running
    prompts = [_Prompt(known[each.request_id], each) for each in (*plan.accepted, *plan.kept)]
    prompts.sort(key=lambda each: (each.promise.due_s, each.promise.ready_s))
    run = _Run(load, model, drafts, prompts, wrong)
    run.due_s = [[tpot_s] * count for tpot_s, count in zip(load.tiers, load.decoding, strict=True)]
    for segment in plan.segments:
        run.join()
        run.carry_out(segment)
    run.join()
    wrong += [f"{p.asked.request_id} never starts" for p in prompts if p.done_tokens >= 0]
    if plan.rest is not None:
        run.carry_out(plan.rest)
        for tier, due_s in enumerate(run.due_s):
            if due_s and min(due_s) < run.now_s + load.tiers[tier] - _LATE_S:
                wrong.append(f"tier {tier} falls behind after the last segment")
    elif any(run.due_s):
        wrong.append("nothing is planned for those who decode")
    return wrong


def _misnamed(
    plan: Plan, load: Load, asked: dict[RequestId, Prompt], running: dict[RequestId, Prompt]
) -> list[str]:
    accepted = [each.request_id for each in plan.accepted]
    if plan.is_overloaded:
        return ["an overloaded engine accepts"] if accepted else []
    wrong = []
    if len(set(accepted)) < len(accepted) or not set(accepted) <= asked.keys():
        wrong.append(f"accepted are {accepted}, which not all asked, or twice")
        return wrong
    if sorted(each.request_id for each in plan.kept) != sorted(running):
        wrong.append("not all that ran are kept")
        return wrong
    if abs(plan.value - sum(asked[each].value for each in accepted)) > _LATE_S:
        wrong.append(f"the value is not {plan.value}")
    blocks = sum(asked[each].blocks for each in accepted)
    if blocks > max(0, load.blocks_free - sum(each.blocks for each in load.prompts)):
        wrong.append(f"{blocks} blocks are promised, more than are free")
    for promise in (*plan.accepted, *plan.kept):
        request_id, due_s = promise.request_id, promise.due_s
        if request_id in asked and due_s != asked[request_id].due_s:
            wrong.append(f"{request_id} is promised another time")
        if request_id in running and due_s < running[request_id].due_s:
            wrong.append(f"{request_id} is promised an earlier time")
        if promise.ready_s > due_s + _LATE_S:
            wrong.append(f"{request_id} is ready after it is due")
    return wrong


@dataclass(slots=True)
class _Token:
    """The next token of one who decodes."""

    due_s: float
    tier: int


def late_in_order(accepted: Sequence[Prompt], load: Load, *, model: LatencyModel) -> list[str]:
    """Who is late if these are served first due first, one sentence each; [] for nobody.

    Each batch lasts until the first token in it is due, holds all that could not wait for the end
    of another one of the shortest tier, and as much of the prompts as fits. It needs no plan, so
    that it also tells of a set that was chosen in another way than by PB*.
    """
    shortest_s, now_s, wrong = load.tiers[0], 0.0, list[str]()
    tokens = [
        _Token(load.tiers[tier], tier)
        for tier, count in enumerate(load.decoding)
        for _ in range(count)
    ]
    waiting = [
        _Prompt(each, Promise(request_id=each.request_id, due_s=each.due_s, ready_s=each.due_s))
        for each in sorted((*load.prompts, *accepted), key=lambda each: each.due_s)
    ]
    while waiting:
        end_s = min([each.due_s for each in tokens], default=waiting[0].asked.due_s)
        served = [each for each in tokens if each.due_s < end_s + shortest_s - _LATE_S]
        work = IterationWork(
            tokens=len(served),
            requests=len(served),
            past_tokens=len(served) * load.context_tokens,
            prefill_pairs=0,
        )
        if now_s + iteration_s(work, model=model) > end_s + _LATE_S:
            return [*wrong, f"{len(served)} decodes do not fit until {end_s:g} s"]
        work, done = _filled(work, waiting, end_s - now_s, model)
        if not work.tokens:
            return [*wrong, f"{waiting[0].asked.request_id} does not fit until {end_s:g} s"]
        now_s += iteration_s(work, model=model)
        for each in served:
            each.due_s += load.tiers[each.tier]
        for prompt in done:
            waiting.remove(prompt)
            due_s, tier = prompt.asked.due_s, prompt.asked.tier
            if now_s > due_s + _LATE_S:
                wrong.append(f"{prompt.asked.request_id} is {now_s - due_s:g} s late")
            tokens.append(_Token(max(due_s, now_s) + load.tiers[tier], tier))
    return wrong


def _filled(
    work: IterationWork, waiting: Sequence[_Prompt], length_s: float, model: LatencyModel
) -> tuple[IterationWork, list[_Prompt]]:
    """A batch with as much of the prompts as fits, in order; and those that end in it."""
    done = []
    for prompt in waiting:
        before = prompt.asked.before_tokens + prompt.done_tokens
        fits = tokens_within(length_s, model=model, work=work, before_tokens=before)
        chunk = min(prompt.left, fits)
        work = work.with_chunk(chunk, before_tokens=before)
        prompt.done_tokens += chunk
        if prompt.left > 0:
            break
        done.append(prompt)
    return work, done
