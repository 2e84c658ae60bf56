"""One run of each scenario against the real cluster: what was planned is what was done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from load_cluster_run import readahead, run_load
from load_cluster_scenarios import (
    PARAMETERS,
    REPORT_EVERY_S,
    SmallScenario,
    by_turn,
    check_all_was_sent,
    check_readers,
    check_turns_follow,
    small_scenario,
)
from up_process import UpProcess

from readahead.client import AsyncClient

SCENARIOS = pytest.mark.parametrize("name", PARAMETERS)


@SCENARIOS
async def test_a_scenario_over_grpc(
    cluster: UpProcess, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    """Prompts are token ids, so all lengths are known to the token."""
    scenario = small_scenario(name, tmp_path)
    await _run(cluster, scenario, f"grpc://{cluster.grpc}", "--model-path", str(tiny_model))


@pytest.mark.slow
@SCENARIOS
async def test_a_scenario_over_http(cluster: UpProcess, tmp_path: Path, name: str) -> None:
    """As a chat, through OpenAI's door."""
    scenario = small_scenario(name, tmp_path)
    await _run(cluster, scenario, f"http://{cluster.http}", "--endpoint", "chat")


async def _run(cluster: UpProcess, scenario: SmallScenario, target: str, *flags: str) -> None:
    jsonl = scenario.path.with_suffix(".jsonl")
    ran = run_load(target, jsonl, "--workload", str(scenario.path), *flags)
    found = by_turn(ran.records)
    check_all_was_sent(scenario, found, are_exact=target.startswith("grpc://"))
    check_turns_follow(scenario, found)
    reports = check_readers(scenario, found)

    assert ran.meta["engine"] == "vllm"
    assert ran.meta["zero_load_ttft"]["base_s"] + ran.meta["zero_load_ttft"]["per_token_s"] > 0
    assert ran.meta["results"]["outcomes"] == {"finished": len(found)}
    assert f"finished {len(found)}" in ran.report

    # Somebody whose answer took ten reporting periods and more has reported, and was heard.
    took_long = [
        record["request_id"]
        for record in found.values()
        if record["ended_s"] - record["arrival_s"] > 10 * REPORT_EVERY_S
        and record.get("reader_tokens", 0) > 5
    ]
    assert (reports > 0) or not took_long
    async with AsyncClient(cluster.grpc) as client:
        heard = [(await client.explain(request_id)).tokens_read for request_id in took_long]
    assert not took_long or max(heard) > 0, found

    scored = readahead("score", "--json", jsonl.name, cwd=jsonl.parent)
    assert scored.returncode == 0, scored.stderr
    score = json.loads(scored.stdout)
    assert score["outcomes"]["finished"] == len(found)
    assert score["tokens"] == sum(record["output_tokens"] for record in found.values())
