"""Time and memory of planning a million requests from a trace.

    python benchmarks/bench_plan.py
    python benchmarks/bench_plan.py --scenario chatbot

Aim, for the first: at most 10 s and 500 MB. Writes a
trace of the compact form into a temporary folder, plans it in a process of its own and walks all
sessions once, and prints that process's seconds (from its start, imports included) and peak
memory. A scenario draws a reader per session, which the bare trace does not.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REQUESTS = 1_000_000
RATE_REQ_S = 50.0
SECONDS_MAX = 10.0
MB_MAX = 500.0

PLAN = """
import sys
from pathlib import Path
from readahead.workload.plan import plan
from readahead.workload.spec import read_workload_spec

workload = plan(read_workload_spec(Path(sys.argv[1])))
sessions = prompt_tokens = output_tokens = 0
for session in workload:
    sessions += 1
    prompt_tokens += session.prompt_tokens(0)
    output_tokens += session.turns[0].output_tokens
print(f"{sessions:,} sessions, {prompt_tokens:,} + {output_tokens:,} tokens,"
      f" {workload.duration_s:,.0f} s, {workload.mean_rate_req_s:.4g} req/s")
"""


def write_trace(path: Path, requests: int) -> None:
    """Poisson arrivals and lognormal lengths."""
    rng = np.random.default_rng(0)
    arrivals_s = np.cumsum(rng.exponential(1 / RATE_REQ_S, requests)).tolist()
    prompts = (1 + rng.lognormal(6.5, 1.0, requests)).astype(np.int64).tolist()
    outputs = (1 + rng.lognormal(5.0, 0.8, requests)).astype(np.int64).tolist()
    with path.open("w", encoding="utf-8") as file:
        file.write("arrival_s,input_tokens,output_tokens\n")
        for at_s, prompt, output in zip(arrivals_s, prompts, outputs, strict=True):
            file.write(f"{at_s:.6f},{prompt},{output}\n")


def main() -> None:
    """Prints two lines; fails where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--scenario", default="trace")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_trace(Path(folder) / "trace.csv", arguments.requests)
        spec = Path(folder) / "workload.toml"
        spec.write_text(
            'arrivals = {kind = "trace", path = "trace.csv", rate_req_s = 20}\n'
            f'mix = [{{scenario = "{arguments.scenario}", trace_lengths = true}}]\n',
            encoding="utf-8",
        )
        start_s = time.perf_counter()
        command = [sys.executable, "-c", PLAN, str(spec)]
        subprocess.run(command, check=True, env=dict(os.environ))
        seconds = time.perf_counter() - start_s
    # The only child so far: its peak is the largest of all children.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    mb = usage.ru_maxrss * 1024 / 1e6
    cpu_s = usage.ru_utime + usage.ru_stime
    print(
        f"{arguments.requests:,} requests planned: {seconds:.1f} s ({cpu_s:.1f} s of CPU),"
        f" peak {mb:.0f} MB"
    )
    if arguments.scenario == "trace" and (seconds > SECONDS_MAX or mb > MB_MAX):
        sys.exit(f"aim missed: {SECONDS_MAX:g} s, {MB_MAX:g} MB")


if __name__ == "__main__":
    main()
