"""Readers' waiting as `readahead load` measures it, against the router's own clocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from load_cluster_run import run_load
from up_process import UpProcess

from readahead.client import AsyncClient, ReadingState

pytestmark = pytest.mark.quiet

APART_S_MAX = 0.020
REQUESTS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Fared:
    """One reader, by the load generator's record and by the router."""

    record: dict[str, Any]
    told: ReadingState

    @property
    def idle_s(self) -> float:
        return float(self.record["reader_idle_s"])

    @property
    def apart_s(self) -> float:
        return abs(self.idle_s - self.told.idle_s)


async def _told(cluster: UpProcess, records: list[dict[str, Any]]) -> list[Fared]:
    """The router's side of each."""
    fared = []
    async with AsyncClient(cluster.grpc) as client:
        for record in records:
            reading = (await client.explain(record["request_id"])).reading
            assert reading is not None, record["request_id"]
            fared.append(Fared(record=record, told=reading))
    return fared


def _check(fared: list[Fared]) -> None:
    """They agree at the median, and there was something to agree on."""
    shown = [f"{1e3 * one.idle_s:.0f}/{1e3 * one.told.idle_s:.0f}" for one in fared]
    apart_s = sorted(one.apart_s for one in fared)
    print(f"idle, load/router, ms: {' '.join(shown)}")
    print(f"apart, ms: p50 {1e3 * median(apart_s):.2f}, max {1e3 * apart_s[-1]:.2f}")
    assert median(apart_s) <= APART_S_MAX
    for one in fared:
        assert one.record["outcome"] == "finished"
        assert one.told.pace_source == "explicit"
        assert one.told.pace_tok_s == pytest.approx(one.record["pace_tok_s"])


@pytest.mark.parametrize("door", ["http", "grpc"])
async def test_readers_faster_than_the_engine(
    cluster: UpProcess, tmp_path: Path, door: str
) -> None:
    """They stall again and again, several at once; both sides count the same seconds."""
    address = cluster.http if door == "http" else cluster.grpc
    ran = run_load(
        f"{door}://{address}",
        tmp_path / "run.jsonl",
        *("--closed-loop", "6", "--requests", f"{REQUESTS}", "--pace", "400"),
        *("--prompt-tokens", "lognormal:median=80,sigma=1,max=600", "--output-tokens", "120"),
    )
    fared = await _told(cluster, ran.records)
    assert len(fared) == REQUESTS
    _check(fared)
    assert median(one.idle_s for one in fared) >= 0.1
    assert min(one.record["reader_stalls"] for one in fared) >= 2


BURSTS = """
seed = 2
limits = {sessions = 24}
arrivals = "bursts:rate=2,mean_batch=3"

[[mix]]
scenario = "summarization"

[mix.parameters]
lengths = {prompt = "400", output = "60"}
readers = {pace_median_tok_s = 40, pace_sigma = 0.3}
"""


@pytest.mark.slow
@pytest.mark.parametrize("door", ["http", "grpc"])
async def test_readers_who_come_in_crowds(cluster: UpProcess, tmp_path: Path, door: str) -> None:
    """Long prompts in bursts make people wait for their first words, and at times within."""
    path = tmp_path / "bursts.toml"
    path.write_text(BURSTS, encoding="utf-8")
    address = cluster.http if door == "http" else cluster.grpc
    ran = run_load(f"{door}://{address}", tmp_path / "run.jsonl", "--workload", str(path))
    fared = await _told(cluster, ran.records)
    assert len(fared) == REQUESTS
    _check(fared)
    assert median(one.idle_s for one in fared) >= 0.05
