"""One worker's engine in virtual time: the real batch planner, under times of its own.

An event is not an iteration but a stretch of them: as long as the plan holds and nobody comes,
ends or leaves, one appointment stands for all. Whatever touches the engine meanwhile cuts the
stretch at the end of the iteration in progress, as a real engine would take notice of it.
"""

from __future__ import annotations

from collections.abc import Callable

from readahead.core.messages import Event, PrefillFinished, TokensMade
from readahead.core.planning.batch import Batch
from readahead.core.planning.policy import Plan
from readahead.core.planning.sequence import Sequence
from readahead.core.request import Leg
from readahead.sim.engine_handovers import Handovers
from readahead.sim.engine_host import HostCopies, host_memory
from readahead.sim.engine_leg import (
    EngineLeg,
    Key,
    finished,
    holds,
    made_by,
    makes_tokens,
    read_on,
    refused,
)
from readahead.sim.engine_parts import EngineCounts, EngineParts
from readahead.sim.engine_reports import Reports, Watcher
from readahead.sim.engine_speculation import Speculation
from readahead.sim.kernel import Appointment, Kernel
from readahead.sim.links import Network
from readahead.sim.prefix_cache import PrefixCache
from readahead.sim.stretch import Stretch


class Engine:
    """One incarnation of one worker."""

    def __init__(
        self, parts: EngineParts, *, kernel: Kernel, network: Network, watcher: Watcher
    ) -> None:
        self.description = parts.description
        self.counts = EngineCounts()
        self.batch = Batch(
            limits=parts.limits, policy=parts.policy, host=host_memory(parts, network)
        )
        self.copies = (
            HostCopies(self.batch, parts, kernel, network, changed=self._interrupt)
            if parts.host_blocks
            else None
        )
        self.handovers = Handovers(
            parts.description, kernel=kernel, network=network, give=self._give
        )
        self.is_alive = True
        self._parts = parts
        self._kernel = kernel
        self._watcher = watcher
        self._legs: dict[Sequence, EngineLeg] = {}
        self._keys: dict[Key, EngineLeg] = {}
        self._open: tuple[Plan, Stretch, Appointment] | None = None
        self._leaving: list[EngineLeg] = []
        self._giving: list[EngineLeg] = []
        self._is_awake = False
        self._is_computing = False
        self._reports = Reports(parts.description, self.batch, watcher)
        self._speculation = (
            Speculation(self.batch, parts, self.counts) if parts.draft_tokens_max else None
        )
        self._cache = PrefixCache(parts.limits.block_tokens) if parts.has_prefix_cache else None

    # What the router asks for

    def submit(self, leg: EngineLeg) -> None:
        """Takes a leg, or refuses one that can never fit."""
        sequence, about = leg.sequence, self.description
        if sequence.prompt_tokens >= about.context_tokens_max:
            self._watcher.report(refused(leg, about))
            return
        room = about.context_tokens_max - sequence.prompt_tokens
        leg.output_tokens = min(leg.output_tokens, sequence.output_tokens_max, room)
        self._legs[sequence] = leg
        self._keys[leg.key] = leg
        self.counts.legs += 1
        self._interrupt()
        if self._cache is not None and not sequence.is_pulled:
            self._cache.shrink(blocks_max=self._blocks_free())
            sequence.cached_tokens = self._cache.match(leg.prefix, most=sequence.prompt_tokens - 1)
            self.counts.prefix_tokens_hit += sequence.cached_tokens
        self.batch.add(sequence)

    def cancel(self, key: Key) -> None:
        """Ends a leg, if it is here; in an iteration's midst, with that iteration."""
        leg = self._keys.get(key)
        if leg is None or leg.is_leaving:
            return
        if self._open is not None and holds(self._open[0], leg.sequence):
            self._break_off(leg)
            del self._keys[key]
            leg.is_leaving = True
            self._leaving.append(leg)
        else:
            self._drop(leg)
        self._interrupt()

    def renew(self, key: Key) -> None:
        """Extends the lease of a handover, if it is here."""
        self.handovers.renew(key)

    def release(self, key: Key) -> None:
        """Frees a handover, if it is here."""
        self.handovers.release(key)

    def kill(self) -> None:
        """Loses everything. Tokens made so far have reached their users."""
        if self._open is not None:
            plan, stretch, appointment = self._open
            self._kernel.cancel(appointment)
            made = [
                made_by(self._legs[sequence], tokens)
                for sequence, _ in plan.entries
                if (tokens := self._break_off(self._legs[sequence]))
            ]
            self._open = None
            self._reports.step(made)
            self.counts.busy_s += self._kernel.now_s - stretch.start_s
        self.is_alive = False
        self._turn()
        for leg in self._legs.values():
            self.handovers.stop_pull(leg)
        self.handovers.release_all()
        if self.copies is not None:
            self.copies.stop_all()
        self._legs.clear()
        self._keys.clear()

    # Legs that move between engines

    def find(self, key: Key) -> EngineLeg | None:
        """The leg, if it is here and stays."""
        return self._keys.get(key)

    def give_away(self, leg: EngineLeg, taker: Callable[[], None]) -> None:
        """Stops a leg after the iteration in progress and calls `taker`; it then is gone here.
        If it ends before, nothing is called."""
        leg.taker = taker
        if self._open is not None and holds(self._open[0], leg.sequence):
            self._giving.append(leg)
            self._interrupt()
        else:
            self._drop(leg)
            taker()
            self._interrupt()

    def reserve(self, leg: EngineLeg, *, tokens: int) -> bool:
        """Keeps a seat and blocks for a leg that comes with its KV; False: there is no room."""
        batch, sequence = self.batch, leg.sequence
        seats = len(batch.running) + len(batch.pulling)
        blocks = batch.limits.blocks_for(tokens)
        if seats >= batch.limits.requests_max or not batch.take(blocks):
            return False
        sequence.blocks = blocks
        batch.pulling.append(sequence)
        self._legs[sequence] = leg
        self._keys[leg.key] = leg
        return True

    def adopt(self, leg: EngineLeg, *, generated: int, reads_until: float) -> None:
        """A leg for which a place was kept goes on here."""
        sequence = leg.sequence
        self.batch.pulled(sequence, has_kv=True)
        sequence.generated = generated
        sequence.computed = sequence.prompt_tokens + generated - 1
        sequence.reads_until = reads_until
        self.counts.adopted += 1
        self._interrupt()

    def slow_by(self, factor: float) -> None:
        """After the iteration in progress, all take so many times as long as undisturbed ones."""
        self._parts.times.slow_by(factor)
        if self._open is not None:
            self._interrupt()

    # What others see

    @property
    def is_idle(self) -> bool:
        """Nothing is here, and no iteration runs."""
        return self._open is None and not self._legs

    def part_in_progress(self, key: Key) -> tuple[Stretch, int] | None:
        """The running stretch, and how many of its tokens this leg has by now."""
        leg = self._keys.get(key)
        if leg is None or self._open is None or leg.leg is Leg.PREFILL:
            return None
        plan, stretch, _ = self._open
        if not makes_tokens(plan, leg.sequence):
            return None
        done = stretch.done_by(self._kernel.now_s)
        if not done:
            return None
        tokens = self._tokens_each(leg.sequence)
        return (stretch, done) if tokens == 1 else (stretch.burst(tokens), tokens)

    def check(self) -> None:
        """Asserts that each block and each leg is accounted for."""
        self.batch.check(held_blocks=self.handovers.blocks)
        placed = {*self.batch.running, *self.batch.waiting, *self.batch.pulling}
        if self.batch.host is not None:
            placed.update(self.batch.host.parked)
        assert placed == set(self._legs), (len(placed), len(self._legs))
        for leg in self._legs.values():
            assert leg.is_leaving or leg.sequence.generated <= leg.output_tokens, leg

    # Iterations

    def _interrupt(self) -> None:
        """Something has changed: plan again, after the iteration in progress if there is one."""
        if not self.is_alive:
            return
        if self._open is not None:
            plan, stretch, appointment = self._open
            if stretch.cut(self._kernel.now_s):
                self._kernel.cancel(appointment)
                self._open = (plan, stretch, self._kernel.at(stretch.end_s, self._end))
        elif not self._is_awake:
            self._is_awake = True
            self._kernel.at(self._kernel.now_s, self._wake)

    def _wake(self) -> None:
        self._is_awake = False
        if self.is_alive:
            self._begin()
            self._turn()

    def _turn(self) -> None:
        """Tells when it begins to compute or stops; not between two stretches."""
        if self._is_computing != (self._open is not None):
            self._is_computing = self._open is not None
            self._watcher.turned(self, is_computing=self._is_computing)

    def _begin(self) -> None:
        if self._open is not None:
            return
        plan = self.batch.plan(self._kernel.now_s)
        for sequence in plan.pulls:
            self.handovers.pull(self._legs[sequence], landed=self._pulled)
        if self.copies is not None:
            self.copies.carry_out(plan)
        if not plan.entries:
            return
        if self._speculation is not None:
            plan = self._speculation.join(plan, self._legs)
        iterations, start_s = self._iterations(plan), self._kernel.now_s
        times, most_s = self._parts.times, self._parts.stretch_s_max
        iterations = times.grow_up(plan, iterations)
        if iterations > 1 and plan.work.prefill_pairs:
            stretch = times.chunks(plan, start_s=start_s, iterations=iterations, most_s=most_s)
        else:
            stretch = times.stretch(
                plan.work, start_s=start_s, iterations=iterations, most_s=most_s
            )
        self._open = (plan, stretch, self._kernel.at(stretch.end_s, self._end))

    def _iterations(self, plan: Plan) -> int:
        """How long the plan holds in truth: until the first answer ends. A first token stands
        alone, so that all learn of it at once."""
        most = plan.repeats_max
        if most == 1:
            return 1
        legs = self._legs
        for sequence, tokens in plan.entries:
            if tokens > 1:
                continue  # a prompt that goes on makes nothing
            generated = sequence.generated
            left = legs[sequence].output_tokens - generated
            if left < most:
                most = left
            if not generated:
                return 1
        return most

    def _end(self) -> None:
        assert self._open is not None
        plan, stretch, _ = self._open
        iterations = stretch.iterations
        self._open = None
        self._is_awake = True  # it plans below, whatever happens meanwhile
        sequences = self.batch.commit(plan, iterations=iterations)
        bursts = {} if self._speculation is None else self._speculation.settle()
        counts = self.counts
        counts.busy_s += stretch.end_s - stretch.start_s
        counts.iterations += iterations
        counts.stretches += 1
        counts.tokens_computed += plan.work.tokens * iterations
        made: list[TokensMade] = []
        over: list[EngineLeg] = []
        for sequence in sequences:
            leg = self._legs[sequence]
            if leg.is_leaving:
                continue
            if leg.leg is not Leg.PREFILL:
                tokens = bursts.get(sequence, iterations)
                own = stretch if tokens == iterations else stretch.burst(tokens)
                leg.stretches.append(own)
                read_on(sequence, own)
                made.append(made_by(leg, tokens))
                counts.tokens_made += tokens
            if leg.leg is Leg.PREFILL or sequence.generated >= leg.output_tokens:
                over.append(leg)
        ends = [self._finish(leg) for leg in over]
        given = [leg for leg in self._giving if leg.taker and leg.sequence in self._legs]
        self._giving.clear()
        for leg in given:
            self._drop(leg)
        for leg in self._leaving:
            self._drop(leg)
        self._leaving.clear()
        self._watcher.iterated(self, plan, stretch)
        self._reports.step(made)
        for event in ends:
            self._watcher.report(event)
        for leg in given:
            if leg.taker is not None:
                leg.taker()
        self._is_awake = False
        if self.is_alive:
            self._begin()
            self._turn()

    def _finish(self, leg: EngineLeg) -> Event:
        request_id, attempt = leg.key
        worker_id = self.description.worker_id
        if self._cache is not None:
            answer = (leg.answer_key, leg.sequence.generated)
            is_whole = leg.leg is not Leg.PREFILL and leg.answer_key
            self._cache.insert((*leg.prefix, answer) if is_whole else leg.prefix)
        if leg.leg is Leg.PREFILL:
            self._keep(leg)
            return PrefillFinished(request_id=request_id, attempt=attempt, worker_id=worker_id)
        self._drop(leg)
        return finished(leg, worker_id)

    def _tokens_each(self, sequence: Sequence) -> int:
        """That an iteration under way makes of one that makes some."""
        return 1 if self._speculation is None else self._speculation.made(sequence)

    def _break_off(self, leg: EngineLeg) -> int:
        """A leg leaves in the midst of a stretch. Keeps the tokens that it has by now."""
        part = self.part_in_progress(leg.key)
        if part is None or leg.is_leaving:
            return 0
        leg.stretches.append(part[0].head(part[1]))
        self.counts.tokens_made += part[1]
        return part[1]

    # Memory

    def _keep(self, leg: EngineLeg) -> None:
        self.handovers.keep(leg.key, blocks=self.batch.end_keeping_kv(leg.sequence))
        self._forget(leg)

    def _drop(self, leg: EngineLeg) -> None:
        self.handovers.stop_pull(leg)
        if self.copies is not None:
            self.copies.stop(leg.sequence)
        self.batch.end(leg.sequence)
        self._forget(leg)

    def _forget(self, leg: EngineLeg) -> None:
        del self._legs[leg.sequence]
        self._keys.pop(leg.key, None)
        if self._speculation is not None:
            self._speculation.forget(leg.sequence)

    def _blocks_free(self) -> int:
        """Now, in the iteration in progress, behind which a cut stretch has no others."""
        if self._open is None:
            return self.batch.blocks_free
        plan, stretch, _ = self._open
        return self.batch.blocks_free_after(plan, iterations=stretch.iterations)

    def _give(self, blocks: int) -> None:
        self.batch.give(blocks)
        if self.batch.waiting:
            self._interrupt()

    def _pulled(self, leg: EngineLeg, has_kv: bool) -> None:
        self.counts.pulls += 1
        self.counts.pulls_failed += not has_kv
        self.batch.pulled(leg.sequence, has_kv=has_kv)
        self._interrupt()
