"""As measure.py, but time is the model's: the same on every machine, whatever else it does.

Run: python experiments/parking/modelled.py [--seeds 3] [--rows modelled.csv]
vLLM's engine core runs here and is stepped by hand: its scheduler, its KV cache, our plug-in, the
copies and the tokens are real. Only the clock is not: each iteration takes what the profile
`tiny-cpu` says, and each block that is copied takes its bytes over the link.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from measure import (
    ARMS,
    BLOCK_BYTES,
    PACE_TOK_S,
    START_S,
    Reader,
    Row,
    blocks_of,
    readers_of,
    row_of,
)

from readahead.core.latency.iteration import iteration_s
from readahead.core.latency.profile_text import profile
from readahead.core.reading.clock import ReadingClock
from readahead.services.engine.vllm_scheduler_sequences import leg_facts

PROFILE = "tiny-cpu"
LINK_BYTES_PER_S = 2e9
"""What the policy believes by default; a copy inside this machine's memory is faster."""
IDLE_STEP_S = 1e-3
"""vLLM's sleep where nothing was computed."""


class Stepped:
    """An engine core on a clock of its own."""

    def __init__(self, kv_bytes: int) -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from readahead.services.engine.vllm_environment import prepare_environment

        prepare_environment()
        from readahead.cli.up import tiny_model
        from readahead.core.cluster import Role
        from readahead.services.config import EngineConfig, KvConfig
        from readahead.services.engine import vllm_parking, vllm_scheduler
        from readahead.services.engine.vllm_setup import vllm_config

        model = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
        config = EngineConfig(
            model_path=model,
            kv_bytes=kv_bytes,
            latency_profile=PROFILE,
            requests_max=64,
        )
        settings = vllm_config(config, KvConfig(backend="grpc"), Role.DECODE)
        from vllm.v1.engine.llm_engine import LLMEngine

        self.now = 1000.0
        for module in (vllm_scheduler, vllm_parking):
            vars(module)["monotonic_s"] = lambda: self.now
        self.llm: Any = LLMEngine.from_vllm_config(settings)
        self.scheduler: Any = self.llm.engine_core.engine_core.scheduler
        self.preemptions = self.copied_blocks = 0
        self._model = profile(PROFILE).latency
        self._step_s = 0.0
        schedule, self._schedule = self._timed, self.scheduler.schedule
        self.scheduler.schedule = schedule

    def _timed(self, *args: Any, **kwargs: Any) -> Any:
        from readahead.services.engine.vllm_profiler import work_of

        output = self._schedule(*args, **kwargs)
        orders = output.kv_connector_metadata
        copied = sum(len(each.block_ids) for each in (*orders.saves, *orders.loads))
        self.copied_blocks += copied
        self.preemptions += len(output.preempted_req_ids or ())
        computed_s = IDLE_STEP_S
        if output.total_num_scheduled_tokens:
            computed_s = iteration_s(work_of(self.scheduler, output), model=self._model)
        self._step_s = computed_s + copied * BLOCK_BYTES / LINK_BYTES_PER_S
        return output

    def step(self) -> Mapping[str, int]:
        """One iteration. Returns how many tokens each request got at its end."""
        self._step_s = IDLE_STEP_S
        outputs = self.llm.step()
        self.now += self._step_s
        return {each.request_id: len(each.outputs[0].token_ids) for each in outputs}


def run_arm(engine: Stepped, arm: str, seed: int) -> Row:
    """All readers under one policy."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine.scheduler.select(*ARMS[arm])
    engine.preemptions, parks = 0, engine.scheduler.count.parks
    began, clocks, first_s = engine.now, {}, {}
    pending = [(began + reader.after_s, n, reader) for n, reader in enumerate(readers_of(seed))]
    left: dict[str, int] = {}

    def arrive(at: float, number: int, reader: Reader) -> None:
        name = f"{seed}-{list(ARMS).index(arm)}-{number}"
        clocks[name] = ReadingClock(pace_tok_s=PACE_TOK_S, commit_s=at, offset_s=START_S)
        left[name] = reader.answer_tokens
        params = SamplingParams(
            temperature=0.0,
            max_tokens=reader.answer_tokens,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
            extra_args={"readahead": leg_facts(pace_tok_s=PACE_TOK_S, arrived_at=at, slot=None)},
        )
        engine.llm.add_request(name, {"prompt_token_ids": list(reader.prompt)}, params)

    while pending or left:
        if not left:
            engine.now = max(engine.now, pending[0][0])
        while pending and pending[0][0] <= engine.now:
            arrive(*pending.pop(0))
        for name, tokens in engine.step().items():
            if tokens and name not in first_s:
                first_s[name] = engine.now - clocks[name].deadline_s + START_S + 1 / PACE_TOK_S
            clocks[name].deliver(tokens, now=engine.now)
            left[name] -= tokens
            if not left[name]:
                del left[name]
    return row_of(
        seed,
        arm,
        idles=[clock.idle_s(clock.deadline_s) for clock in clocks.values()],
        firsts=list(first_s.values()),
        makespan_s=engine.now - began,
        preemptions=engine.preemptions,
        parks=engine.scheduler.count.parks - parks,
    )


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes all rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> None:
    """Reads the command line, and measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=Path, default=Path("modelled.csv"))
    given = parser.parse_args()
    blocks = max(blocks_of(readers_of(seed)) for seed in range(given.seeds)) // 3
    engine = Stepped((blocks + 1) * BLOCK_BYTES)
    rows = []
    for seed in range(given.seeds):
        for arm in ARMS:
            rows.append(run_arm(engine, arm, seed))
            print(rows[-1], flush=True)  # noqa: T201
            write(given.rows, rows)


if __name__ == "__main__":
    main()
