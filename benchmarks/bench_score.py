"""Time and memory of `readahead score` on a file of 10 million token times.

    python benchmarks/bench_score.py

Aim: at most 30 s and 1 GiB. Writes a file of the interchange format (about 115 MB) into a
temporary folder, scores it in a process of its own, and prints its seconds and peak memory.
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

TOKENS = 10_000_000
MEAN_TOKENS = 200
RATE_REQ_S = 50.0
SECONDS_MAX = 30.0
GIB_MAX = 1.0


def write_log(path: Path, tokens: int) -> int:
    """Writes requests until they have this many tokens together; returns how many."""
    rng = np.random.default_rng(0)
    requests = written = 0
    arrival_s = 0.0
    with path.open("w", encoding="utf-8") as file:
        while written < tokens:
            arrival_s += float(rng.exponential(1 / RATE_REQ_S))
            size = min(tokens - written, 1 + int(rng.geometric(1 / MEAN_TOKENS)))
            gaps_s = rng.exponential(0.05, size) + 3.0 * (rng.random(size) < 0.003)
            gaps_s[0] += 0.3
            times = ",".join(map("{:.6f}".format, (arrival_s + gaps_s.cumsum()).tolist()))
            file.write(
                f'{{"request_id":"r{requests}","arrival_s":{arrival_s:.6f},'
                f'"token_times_s":[{times}],"prompt_tokens":128}}\n'
            )
            requests, written = requests + 1, written + size
    return requests


def main() -> None:
    """Prints one line; fails where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--html", action="store_true", help="Draw the page too.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "run.jsonl"
        requests = write_log(log, arguments.tokens)
        command = [sys.executable, "-m", "readahead.cli.main", "score", str(log), "--json"]
        command += ["--slo", "ttft=1,tbt=0.5"]
        if arguments.html:
            command += ["--html", str(Path(folder) / "page.html")]
        start_s = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
        seconds = time.perf_counter() - start_s
        size_bytes = log.stat().st_size
    # The only child so far: its peak is the largest of all children.
    gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20)
    print(
        f"{arguments.tokens:,} token times of {requests:,} requests, {size_bytes / 1e6:.0f} MB:"
        f" {seconds:.1f} s, peak {gib:.2f} GiB"
    )
    if seconds > SECONDS_MAX or gib > GIB_MAX:
        sys.exit(f"aim missed: {SECONDS_MAX:g} s, {GIB_MAX:g} GiB")


if __name__ == "__main__":
    main()
