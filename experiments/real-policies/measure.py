"""Offers the same requests to one real engine under each policy, again and again.

Run: python experiments/real-policies/measure.py OUT [ROUNDS]
Starts `readahead up` with vLLM and the tiny model for each policy of each round, the policies in
another order each round, and keeps under OUT/<policy>@<round> what experiments/sim-vs-real keeps.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "sim-vs-real"))
import run_real  # noqa: E402

POLICIES = ("vllm", "sarathi", "readahead")
WORKLOADS = ("code-bursts", "summaries-busy", "mixed-busy")
CALIBRATIONS = ("calibration", "calibration-long")
"""Run under vLLM's order in each round, for the simulator."""
ROUNDS = 3


def main(out: Path, rounds: int) -> None:
    """Every round has each policy once."""
    os.environ["READAHEAD_WORKER__ENGINE__LATENCY_PROFILE"] = "tiny-cpu"
    run_real.WORKLOADS = (HERE / "workloads", *run_real.WORKLOADS)
    for each in range(rounds):
        turn = each % len(POLICIES)
        for policy in (*POLICIES[turn:], *POLICIES[:turn]):
            workloads = [*(CALIBRATIONS if policy == "vllm" else ()), *WORKLOADS]
            run_real.main(out, f"{policy}@{each}", workloads)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS)
