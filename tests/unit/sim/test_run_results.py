"""A simulated run's records, scores and traces agree with each other."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from small_clusters import MODEL, PATIENT, chunked, one_turn, small_sessions, small_spec

from readahead.core.cluster import Role
from readahead.core.latency.iteration import IterationWork, iteration_s
from readahead.core.reading.score import Ruler, score
from readahead.ruler.gather import gather
from readahead.ruler.scoring import score_run
from readahead.sim.asked import EndedRequest
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.links import LINKS, Link
from readahead.sim.results import RecordWriter, timelines
from readahead.sim.run import RunOptions, simulate, zero_load_ttft_s
from readahead.sim.trace_export import ChromeTrace
from readahead.workload.session import Segment, Turn
from readahead.workload.slo import SloClass

WORKER = WorkerSpec(latency=MODEL, context_tokens_max=4096, batch_tokens_max=1024)


def spec(**changes: object) -> ClusterSpec:
    return replace(ClusterSpec(policy=chunked, decode_worker=WORKER, core=PATIENT), **changes)  # type: ignore[arg-type]


def test_a_lone_request_takes_what_its_iterations_take() -> None:
    found = simulate(spec(), [one_turn(0, 1.0, 100, 3)])
    assert found.run is not None
    prompt = IterationWork(tokens=100, requests=1, past_tokens=0, prefill_pairs=5050)
    at_s = 1.0 + iteration_s(prompt, model=MODEL)
    expected = [at_s]
    for past in (100, 101):
        work = IterationWork(tokens=1, requests=1, past_tokens=past, prefill_pairs=0)
        expected.append(expected[-1] + iteration_s(work, model=MODEL))
    assert found.run.times_s.tolist() == pytest.approx(expected)


def test_a_handover_adds_a_transfer_and_an_iteration() -> None:
    link = Link(name="slow", bytes_per_s=1e9, latency_s=0.01)
    apart = spec(prefill=1, link=link)
    found = simulate(apart, [one_turn(0, 1.0, 1000, 2)])
    assert found.run is not None
    ttft_s = found.run.times_s[0] - 1.0
    assert ttft_s == pytest.approx(zero_load_ttft_s(apart, 1000))
    assert ttft_s > 1000 * apart.kv_token_bytes / 1e9
    assert found.transfers == 1
    assert found.moved_bytes == 1000 * apart.kv_token_bytes


def test_true_times_may_be_others_than_the_scheduler_believes() -> None:
    slow = spec(decode_worker=replace(WORKER, true_scale=2.0))
    runs = [simulate(each, [one_turn(0, 0.0, 100, 50)]).run for each in (spec(), slow)]
    assert runs[0] is not None
    assert runs[1] is not None
    assert runs[1].times_s == pytest.approx(2 * runs[0].times_s)


def test_noise_keeps_the_mean_and_follows_the_seed() -> None:
    noisy = spec(decode_worker=replace(WORKER, noise_sigma=0.3))
    sessions = [one_turn(n, 40.0 * n, 100, 1000) for n in range(10)]
    quiet = simulate(spec(), sessions).score
    runs = [simulate(noisy, sessions, RunOptions(seed=seed)).score for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert quiet.tpot_s is not None
    assert runs[0].tpot_s is not None
    assert runs[0].tpot_s.mean == pytest.approx(quiet.tpot_s.mean, rel=0.02)


def test_a_promise_counts_from_the_prompts_own_time() -> None:
    tight = SloClass(name="tight", ttft_slowdown=1.0, tpot_s=10.0)
    session = one_turn(0, 0.0, 500, 5)
    turn = Turn(segments=(Segment("a", 500),), output_tokens=5, slo=tight)
    alone = [replace(session, turns=(turn,))]
    assert simulate(spec(), alone).score.slo_attainment == 1.0
    crowd = [*alone, replace(alone[0], session_id="other")]
    assert simulate(spec(), crowd).score.slo_attainment == 0.0


def test_records_are_those_of_readahead_load_and_say_what_they_are(tmp_path: Path) -> None:
    draw = random.Random(5)
    cluster, sessions = small_spec(draw), list(small_sessions(draw, 30))
    path = tmp_path / "run.jsonl"
    kept: list[EndedRequest] = []
    with path.open("w", encoding="utf-8") as file:
        writer = RecordWriter(file)

        def record(request: EndedRequest) -> None:
            kept.append(request)
            writer.add(request)

        found = simulate(cluster, sessions, RunOptions(record=record))
    assert all(json.loads(line)["simulated"] is True for line in path.read_text().splitlines())
    scored = gather(path)
    assert scored.problems.examples == []
    again = score_run(scored.runs[0], Ruler()).score
    assert again.tokens == found.score.tokens
    assert again.smooth_goodput_tok_s == pytest.approx(found.score.smooth_goodput_tok_s, rel=1e-4)
    plain = score(timelines(kept), Ruler())
    assert plain.smooth_goodput_tok_s == pytest.approx(found.score.smooth_goodput_tok_s)


def test_a_reduced_run_has_the_same_score() -> None:
    draw = random.Random(8)
    cluster = replace(small_spec(draw), decode=3)
    sessions = list(small_sessions(draw, 300))
    whole = simulate(cluster, sessions).score
    found = simulate(cluster, sessions, RunOptions(keeps_tokens=False))
    assert found.run is None
    reduced = found.score
    for name in ("requests", "tokens", "outcomes", "duration_s"):
        assert getattr(reduced, name) == pytest.approx(getattr(whole, name)), name
    for name in ("smooth_goodput_tok_s", "slo_attainment", "goodput_tok_s", "throughput_tok_s"):
        assert getattr(reduced, name) == pytest.approx(getattr(whole, name)), name
    for name in ("user_idle_s", "ttft_s", "tpot_s", "e2e_s", "andes_qoe", "fluidity_index"):
        for part in ("count", "mean", "p50", "p90", "p99"):
            wanted = getattr(getattr(whole, name), part)
            assert getattr(getattr(reduced, name), part) == pytest.approx(wanted), (name, part)
    assert reduced.tbt_s is not None
    assert whole.tbt_s is not None
    assert reduced.tbt_s.mean == pytest.approx(whole.tbt_s.mean)
    assert reduced.tbt_s.p50 == pytest.approx(whole.tbt_s.p50, rel=0.02)
    assert reduced.tbt_s.p99 == pytest.approx(whole.tbt_s.p99, rel=0.02)


def test_the_trace_shows_each_engine_and_each_request() -> None:
    trace = ChromeTrace()
    link = LINKS["pcie4"]
    sessions = [one_turn(n, 0.1 * n, 200, 20) for n in range(5)]
    found = simulate(spec(prefill=1, link=link), sessions, RunOptions(trace=trace))
    file = io.StringIO()
    trace.write(file)
    content = json.loads(file.getvalue())
    assert content["otherData"] == {"simulated": True}
    events = content["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"prefill-00", "decode-00", "decode-00 KV"} <= names
    assert sum(event["name"] == "KV from prefill-00" for event in events) == found.transfers == 5
    stretches = [e for e in events if e["ph"] == "X" and "iterations" in e["args"]]
    assert len(stretches) == sum(worker.stretches for worker in found.workers)
    busy_s = sum(event["dur"] for event in stretches) / 1e6
    whole_s = sum(worker.utilisation for worker in found.workers) * found.duration_s
    assert busy_s == pytest.approx(whole_s, rel=1e-6)
    assert len({event["args"].get("request_id") for event in events} - {None}) == 5


def test_without_prefill_workers_nothing_moves() -> None:
    found = simulate(spec(decode=2), [one_turn(n, 0.0, 300, 10) for n in range(6)])
    assert found.transfers == 0
    assert {worker.role for worker in found.workers} == {Role.DECODE}
    assert [worker.legs for worker in found.workers] == [3, 3]


def test_a_run_that_is_broken_off_says_how_many_were_under_way() -> None:
    sessions = [one_turn(n, float(n), 100, 1000) for n in range(3)]
    found = simulate(spec(), sessions, RunOptions(until_s=2.5))
    assert found.unfinished == 3
    assert found.score.requests == 0
