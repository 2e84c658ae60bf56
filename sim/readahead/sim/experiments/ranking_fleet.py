"""Several workers under one load: a scored window, and what the router and engines did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from readahead.core.config import AdmissionConfig, CoreConfig, MigrationConfig
from readahead.core.messages import WorkerDrained
from readahead.core.planning.policy import Plan
from readahead.core.reading.benefit import DEFAULT_ALPHA, DEFAULT_SHAPE, Form
from readahead.core.reading.curves import EPSILON_S
from readahead.core.reading.score import Ruler
from readahead.core.request import WorkerId
from readahead.ruler.columns import columns, gaps_s, penalties
from readahead.ruler.run import Floats, Run
from readahead.sim.asked import EndedRequest
from readahead.sim.cluster import ClusterSpec
from readahead.sim.engine import Engine
from readahead.sim.experiments.experiment import Value
from readahead.sim.experiments.windows import Window, gained
from readahead.sim.results import Gathered
from readahead.sim.run import promise, zero_load_ttft_s
from readahead.sim.settings import ClusterSettings
from readahead.sim.stretch import Stretch
from readahead.sim.world import World
from readahead.workload.plan import plan
from readahead.workload.session import Session
from readahead.workload.spec import workload_spec

PATIENT = AdmissionConfig(queue_requests_max=1_000_000, wait_s_max=3600.0)
"""Nobody is rejected, so that all policies serve the same requests."""

FRESH_S = 0.25
"""How old the router's knowledge of a worker gets; as often it looks who should move."""

PATIENCE_S, PATIENCE_SLOWDOWN = 1.0, 3.0
"""What a first token may take: this, or that many times what the prompt takes on an idle
cluster."""

LOOK_S = 0.5
"""How often it is looked whether a worker that drains is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A worker that is to be emptied."""

    worker: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A cluster and who comes to it."""

    settings: ClusterSettings
    workload: Mapping[str, object]
    """`mix` and `arrivals` of a workload file; they end with the window."""
    window: Window
    seed: int
    migration: Mapping[str, float | str] = field(default_factory=dict)
    """Of MigrationConfig; what it must know of the link is put in from the cluster."""
    slow: Mapping[str, float] = field(default_factory=dict)
    """True iteration times of single workers over those that schedulers believe."""
    drain: Drain | None = None

    def spec(self) -> ClusterSpec:
        """The cluster."""
        spec = self.settings.spec()
        knobs: dict[str, object] = {
            "kv_token_bytes": spec.kv_token_bytes,
            "link_bytes_per_s": spec.link.bytes_per_s,
            "link_latency_s": spec.link.latency_s,
            **self.migration,
        }
        migration = MigrationConfig(**knobs)  # type: ignore[arg-type]
        core = CoreConfig(admission=PATIENT, migration=migration)
        return replace(spec, core=core, stretch_s_max=FRESH_S)

    def numbers(self) -> dict[str, Value]:
        """Runs it to its very end, and scores the window."""
        spec = self.spec()
        tree = {**self.workload, "seed": self.seed, "limits": {"duration_s": self.window.end_s}}
        sink = _Sink(spec)
        world = FleetWorld(
            spec, plan(workload_spec(tree)), sink=sink, seed=self.seed, slow=self.slow
        )
        emptying = None if self.drain is None else _Emptying(world, self.drain)
        world.run()
        run = sink.gathered.run()
        found: dict[str, Value] = {**scored(run, spec, self.window)}
        engines = [*world.engines.values(), *world.lost]
        found["preemptions"] = sum(engine.batch.preemptions for engine in engines)
        found["moves"] = world.moves.begun
        found["moves_failed"] = world.moves.failed
        if emptying is not None:
            found["emptied_s"] = emptying.took_s
        return found


def scored(run: Run, spec: ClusterSpec, window: Window) -> dict[str, float | None]:
    """What those who came in the window got, whenever it came, per second of the window.

    All policies are asked for the same tokens, so that smooth goodput differs by what people
    waited alone. What the window itself gained stands beside it: there, tokens that a policy
    makes later are missing.
    """
    chosen = (run.arrivals_s >= window.start_s) & (run.arrivals_s < window.last_s)
    each = columns(run, Ruler(), observed_until_s=run.observed().end_s)
    span_s = window.last_s - window.start_s
    found: dict[str, float | None] = {}
    for form in (Form.F1, Form.F2):
        for kind, idle_s in (("literal", each.idle_s), ("censored", each.idle_censored_s)):
            lost = penalties(
                form,
                idle_s,
                tokens=each.read_tokens.astype(np.float64),
                paces_tok_s=each.paces_tok_s,
                shape=DEFAULT_SHAPE,
            )
            worth = each.read_tokens - DEFAULT_ALPHA * lost
            total = float(worth.sum(where=chosen & each.has_reader))
            found[f"{form.value.lower()}_{kind}"] = total / span_s
    gains = gained(run, window)
    found["throughput_tok_s"] = gains["throughput_tok_s"]
    found["f1_window"] = gains["throughput_tok_s"] - DEFAULT_ALPHA * gains["f1_censored"]
    alone_s = np.array([zero_load_ttft_s(spec, int(tokens)) for tokens in run.prompt_tokens])
    patience_s = np.maximum(PATIENCE_S, PATIENCE_SLOWDOWN * alone_s)
    waited_s = each.idle_censored_s[chosen & each.has_reader]
    reads = (each.idle_censored_s <= patience_s + EPSILON_S)[chosen]
    found |= {
        "requests": int(chosen.sum()),
        "idle_mean_s": _mean(waited_s),
        "idle_p99_s": _p99(waited_s),
        "ttft_p99_s": _p99(each.ttft_s[chosen]),
        "tbt_p99_s": _p99(gaps_s(run.where(chosen))),
        "attained_reading": _mean(reads.astype(np.float64)),
        "attained_slo": _mean(each.attained[chosen].astype(np.float64)),
    }
    return found


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _p99(values: Floats) -> float | None:
    kept = values[~np.isnan(values)]
    return float(np.percentile(kept, 99)) if len(kept) else None


class FleetWorld(World):
    """A world in which single workers are slower than their schedulers believe."""

    def __init__(
        self,
        spec: ClusterSpec,
        sessions: Iterable[Session],
        *,
        sink: _Sink,
        seed: int,
        slow: Mapping[str, float],
    ) -> None:
        self._slow = slow
        super().__init__(spec, sessions, sink=sink, seed=seed)
        unknown = slow.keys() - self.roles.keys()
        if unknown:
            raise ValueError(f"there is no worker {min(unknown)} to be slow")

    def _join(self, worker_id: WorkerId) -> None:
        usual = self._spec
        scale = self._slow.get(worker_id)
        if scale is not None:
            self._spec = replace(
                usual,
                decode_worker=replace(usual.decode_worker, true_scale=scale),
                prefill_worker=replace(
                    usual.prefill_worker or usual.decode_worker, true_scale=scale
                ),
            )
        super()._join(worker_id)
        self._spec = usual


class _Sink:
    def __init__(self, spec: ClusterSpec) -> None:
        self._spec = spec
        self.gathered = Gathered()

    def ended(self, request: EndedRequest) -> None:
        self.gathered.add(request, promise(self._spec, request))

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        """Of no interest."""


class _Emptying:
    """Has a worker drained, and finds when it has nothing left."""

    def __init__(self, world: World, drain: Drain) -> None:
        self._world, self._drain = world, drain
        self.took_s: float | None = None
        world.kernel.at(drain.at_s, self._begin)

    def _begin(self) -> None:
        engine = self._world.engines[WorkerId(self._drain.worker)]
        about = engine.description
        self._world.report(WorkerDrained(worker_id=about.worker_id, incarnation=about.incarnation))
        self._look(engine)

    def _look(self, engine: Engine) -> None:
        now_s = self._world.kernel.now_s
        if engine.is_idle:
            self.took_s = now_s - self._drain.at_s
        else:
            self._world.kernel.at(now_s + LOOK_S, partial(self._look, engine))
