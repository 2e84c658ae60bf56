"""Speed of the simulator on two public traces.

    READAHEAD_DATA=…/data python benchmarks/bench_simulate.py

Aim, as many simulated requests per second on one core as Dynamo's replay in Rust: 2,030 on the
Azure 2023 conversation trace with 4 workers, 1,800 on the Mooncake conversation trace with 8
prefill and 8 decode workers. Llama-3.1-8B on H100; every token has its time, and at the end the
run is scored. Prints requests per second, events and peak memory of a process of its own. With
`--times 10` the trace comes ten times in a row, reduced: what memory does in a longer run.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from readahead.core.config import AdmissionConfig, CoreConfig
from readahead.sim.run import RunOptions, simulate
from readahead.sim.settings import DEFAULT_PROFILE, ClusterSettings
from readahead.workload.reader import Reader
from readahead.workload.session import Segment, Session, Turn


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    file: str
    prefill: int
    decode: int
    bar_req_s: float


CASES = (
    Case(name="azure-conv", file="azure2023_conv.csv.gz", prefill=0, decode=4, bar_req_s=2030),
    Case(
        name="mooncake-conv",
        file="mooncake_conversation_compact.csv.gz",
        prefill=8,
        decode=8,
        bar_req_s=1800,
    ),
)


def data_folder() -> Path:
    """Where the traces are."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    return Path(os.environ.get("READAHEAD_DATA", beside)) / "traces"


def sessions(path: Path, times: int = 1) -> Iterator[Session]:
    """One request per row; the whole trace so many times in a row."""
    begins_s = last_s = 0.0
    for round_ in range(times):
        for session in rows(path, round_):
            last_s = begins_s + session.arrival_s
            yield replace(session, arrival_s=last_s) if begins_s else session
        begins_s = last_s


def rows(path: Path, round_: int) -> Iterator[Session]:
    """One request per row."""
    reader = Reader(pace_tok_s=5.0)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            turn = Turn(
                segments=(Segment(f"r{round_}/{number}", int(row["input_tokens"])),),
                output_tokens=max(1, int(row["output_tokens"])),
            )
            yield Session(
                session_id=f"r{round_}/{number}",
                arrival_s=float(row["arrival_s"]),
                scenario="trace",
                tenant="trace",
                user=f"u{number}",
                reader=reader,
                turns=(turn,),
            )


def measure(case: Case, policy: str, model: str, keeps_tokens: bool, times: int) -> None:
    """Prints one line."""
    patient = AdmissionConfig(queue_requests_max=1_000_000, wait_s_max=3600.0)
    settings = ClusterSettings(
        profile=model,
        policy=policy,
        prefill=case.prefill,
        decode=case.decode,
        core=CoreConfig(admission=patient),
    )
    path = data_folder() / case.file
    planned = list(sessions(path)) if times == 1 else sessions(path, times)
    started, cpu = time.perf_counter(), time.process_time()
    found = simulate(settings.spec(), planned, RunOptions(keeps_tokens=keeps_tokens))
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    count = found.score.requests
    stretches = sum(worker.stretches for worker in found.workers)
    iterations = sum(worker.iterations for worker in found.workers)
    rates = {"CPU second": count / cpu_s, "second": count / took_s}
    shown = ", ".join(
        f"{rate:,.0f} req per {name} ({'met' if rate >= case.bar_req_s else 'MISSED'})"
        for name, rate in rates.items()
    )
    smooth = found.score.smooth_goodput_tok_s or 0.0
    print(
        f"{case.name:14} {policy:12} {'tokens kept' if keeps_tokens else 'reduced':11} "
        f"{shown}, bar {case.bar_req_s:,.0f}; {count:,} requests, "
        f"{cpu_s:5.2f} s of CPU, {took_s:5.2f} s of wall time  "
        f"{found.actions:,} actions, {found.core_events:,} core events, {stretches:,} stretches "
        f"for {iterations:,} iterations, {found.score.tokens:,} tokens "
        f"({found.score.tokens / took_s:,.0f}/s)  peak {rss_mib:.0f} MiB  "
        f"virtual {found.duration_s:,.0f} s, smooth goodput {smooth:,.0f} tok/s"
    )


def main() -> None:
    """Runs each case in a process of its own, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", action="append", help="Default: vllm-chunked.")
    parser.add_argument("--profile", default=DEFAULT_PROFILE)
    parser.add_argument("--case", choices=[case.name for case in CASES])
    parser.add_argument("--times", type=int, default=1, help="The trace so often in a row.")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, one core")
    context = multiprocessing.get_context("spawn")
    for case in CASES:
        if arguments.case in (None, case.name):
            for policy in arguments.policy or ["vllm-chunked"]:
                for keeps_tokens in (True, False) if arguments.times == 1 else (False,):
                    process = context.Process(
                        target=measure,
                        args=(case, policy, arguments.profile, keeps_tokens, arguments.times),
                    )
                    process.start()
                    process.join()


if __name__ == "__main__":
    main()
