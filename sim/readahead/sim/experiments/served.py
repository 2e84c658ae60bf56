"""One server under one load, as the single-GPU experiments have it: a cell to a scored window."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from readahead.core.config import AdmissionConfig, CoreConfig
from readahead.core.planning.policy import Plan
from readahead.core.reading.benefit import DEFAULT_PACE_TOK_S
from readahead.core.reading.timeline import Outcome
from readahead.ruler.run import Floats, Run
from readahead.sim.asked import AskedRequest, EndedRequest
from readahead.sim.cluster import ClusterSpec
from readahead.sim.engine import Engine
from readahead.sim.experiments.windows import Window
from readahead.sim.results import Gathered
from readahead.sim.run import WorkerSummary, worker_summaries, zero_load_ttft_s
from readahead.sim.settings import ClusterSettings
from readahead.sim.stretch import Stretch
from readahead.sim.world import World
from readahead.workload.plan import Workload, plan
from readahead.workload.spec import workload_spec

PROFILES = {"8B": "llama-3.1-8b-a100-80g", "14B": "qwen2.5-14b-a100-80g"}
"""The paper's models on its GPU."""

LONG_PROMPT = "lognormal:median=20000,sigma=0.35,max=32000"
LONG_OUTPUT = "lognormal:median=150,sigma=0.7,max=1000"
LENGTHS: Mapping[str, object] = {
    "ShareGPT": "sharegpt",
    "long": {"prompt": LONG_PROMPT, "output": LONG_OUTPUT},
}
"""LooGLE's own lengths are not among the fitted ones; its documents have some 20,000 words of text,
so that `long` is an assumption of that size."""

AZURE = "Azure conv"
AZURE_FILE = Path("traces") / "azure2023_conv.csv.gz"
AZURE_SLICE_STEP_S = 480.0
"""Between the beginnings of the slices of two seeds; they overlap at high rates."""
AZURE_RATE_REQ_S = 5.53

PATIENT = CoreConfig(admission=AdmissionConfig(queue_requests_max=1_000_000, wait_s_max=3600.0))
"""Nobody is rejected: the engine's queue is as long as it gets, as in the paper's server."""

PATIENCE_S, PATIENCE_SLOWDOWN = 1.0, 3.0
"""What a first token may take: this, or that many times what the prompt takes on an idle server."""


AFTERWARDS_S = 60.0
"""A run goes on so long after its window, so that no stretch of iterations that began within it is
still under way: the longest is an answer of 1,000 tokens alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """All requests of a run, those that its end cut off too, and what the server did."""

    run: Run
    workers: tuple[WorkerSummary, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server and who comes to it."""

    model: str
    """A key of PROFILES."""
    data: str
    """A key of LENGTHS, or AZURE."""
    policy: str
    rate_req_s: float
    window: Window
    seed: int
    pace_tok_s: float = DEFAULT_PACE_TOK_S
    """Of everybody, and known to the server."""
    knobs: Mapping[str, int | float] = field(default_factory=dict)
    readers: Mapping[str, object] = field(default_factory=dict)
    """What else they do."""
    true_scale: float = 1.0
    noise_sigma: float = 0.0

    def spec(self) -> ClusterSpec:
        """The server."""
        settings = ClusterSettings(
            profile=PROFILES[self.model],
            policy=self.policy,
            knobs=dict(self.knobs),
            core=PATIENT,
            true_scale=self.true_scale,
            noise_sigma=self.noise_sigma,
        )
        return settings.spec()

    def workload(self) -> Workload:
        """Who comes, until the window's end."""
        readers = {
            "preset": "default",
            "pace_median_tok_s": self.pace_tok_s,
            "pace_sigma": 0.0,
            **self.readers,
        }
        limits = {"duration_s": self.window.end_s}
        if self.data == AZURE:
            part = {"scenario": "trace", "parameters": {"readers": readers}}
            arrivals: dict[str, object] = self._slice()
        else:
            parameters = {"lengths": LENGTHS[self.data], "readers": readers}
            part = {"scenario": "chatbot", "parameters": parameters}
            arrivals = {"kind": "poisson", "rate_req_s": self.rate_req_s}
        return plan(
            workload_spec(
                {"mix": [part], "arrivals": arrivals, "seed": self.seed, "limits": limits}
            )
        )

    def _slice(self) -> dict[str, object]:
        path = azure_path()
        if path is None:
            raise FileNotFoundError(f"{AZURE_FILE} is not there: set READAHEAD_DATA")
        start_s = AZURE_SLICE_STEP_S * self.seed
        length_s = self.window.end_s * self.rate_req_s / AZURE_RATE_REQ_S
        return {
            "kind": "trace",
            "path": path,
            "start_s": start_s,
            "end_s": start_s + length_s,
            "rate_req_s": self.rate_req_s,
        }

    def lived(self) -> Lived:
        """The run, until all that matters to its window has happened."""
        world = World(self.spec(), self.workload(), sink=(sink := _Sink()), seed=self.seed)
        world.run(self.window.end_s + AFTERWARDS_S)
        for asked in world.asked.values():
            sink.gathered.add(_under_way(asked, world.kernel.now_s), None)
        return Lived(run=sink.gathered.run(), workers=worker_summaries(world))

    def patience_s(self, run: Run) -> Floats:
        """What the first token of each request of a run may take."""
        spec = self.spec()
        alone_s = [zero_load_ttft_s(spec, int(tokens)) for tokens in run.prompt_tokens]
        return np.maximum(PATIENCE_S, PATIENCE_SLOWDOWN * np.array(alone_s))


class _Sink:
    """Keeps all requests, and no iterations."""

    def __init__(self) -> None:
        self.gathered = Gathered()

    def ended(self, request: EndedRequest) -> None:
        self.gathered.add(request, None)

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        pass


def _under_way(asked: AskedRequest, now_s: float) -> EndedRequest:
    """One that the end of the run cut off."""
    return EndedRequest(
        request_id=asked.request_id,
        session_id=asked.session.session_id,
        scenario=asked.session.scenario,
        tenant=asked.session.tenant,
        turn=asked.index,
        arrival_s=asked.arrival_s,
        ended_s=now_s,
        token_times_s=asked.token_times_s(),
        prompt_tokens=asked.prompt_tokens,
        pace_tok_s=asked.pace_tok_s,
        outcome=Outcome.CANCELLED,
        error=None,
        attempts=asked.attempt,
        slo=None,
        thinking_tokens=0,
    )


def azure_path() -> Path | None:
    """The trace of conversations, where the data folder is. None: it is not there."""
    given = os.environ.get("READAHEAD_DATA")
    folder = Path(given) if given else Path.cwd().resolve().parent / "shared" / "data"
    path = folder / AZURE_FILE
    return path if path.exists() else None
