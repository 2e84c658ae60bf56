"""Each format that is read, from genuine logs of the tools that write it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from readahead.core.reading.curves import EndToEnd, TtftTbt
from readahead.core.reading.timeline import Outcome, Timeline
from readahead.ruler.formats.detect import Format, detect
from readahead.ruler.formats.record import spread
from readahead.ruler.gather import gather
from readahead.ruler.problems import FormatError

SAMPLES = Path(__file__).parents[2] / "data" / "score"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and returns its path."""

    def to(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return to


def timelines(path: Path) -> list[Timeline]:
    """All requests of the file's only run."""
    (run,) = gather(path).runs
    return list(run.timelines())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("load.jsonl", Format.INTERCHANGE),
        ("vllm-bench.json", Format.VLLM_BENCH),
        ("aiperf.jsonl", Format.AIPERF),
        ("guidellm.json", Format.GUIDELLM),
    ],
)
def test_genuine_log_is_recognised_and_read_whole(name: str, expected: Format) -> None:
    scored = gather(SAMPLES / name)
    assert scored.format is expected is detect(SAMPLES / name)
    assert scored.problems.total == 0
    for run in scored.runs:
        for timeline in run.timelines():
            assert timeline.token_times_s == sorted(timeline.token_times_s)
            assert all(t >= timeline.arrival_s for t in timeline.token_times_s)


def test_load_records_have_their_own_numbers() -> None:
    first = json.loads((SAMPLES / "load.jsonl").read_text(encoding="utf-8").splitlines()[0])
    timeline = timelines(SAMPLES / "load.jsonl")[0]
    assert timeline.request_id == first["request_id"]
    assert timeline.token_times_s == first["token_times_s"]
    assert timeline.ended_s == first["ended_s"]
    assert timeline.prompt_tokens == first["prompt_tokens"]


def test_vllm_bench_times_are_those_of_its_own_metrics() -> None:
    document = json.loads((SAMPLES / "vllm-bench.json").read_text(encoding="utf-8"))
    (run,) = gather(SAMPLES / "vllm-bench.json").runs
    assert run.rate_req_s == 16.0
    for i, timeline in enumerate(run.timelines()):
        assert timeline.tokens == document["output_lens"][i]
        ttft_s = timeline.token_times_s[0] - timeline.arrival_s
        assert ttft_s == pytest.approx(document["ttfts"][i] + document["queue_times"][i])
        last_s = document["start_times"][i] + document["ttfts"][i] + sum(document["itls"][i])
        assert timeline.token_times_s[-1] == pytest.approx(last_s)


def test_vllm_bench_tells_failed_and_refused_requests_apart(write: Write) -> None:
    document = {
        "endpoint_type": "openai", "num_prompts": 3, "request_rate": "inf",
        "start_times": [10.0, 11.0, 12.0], "ttfts": [0.5, 0.0, 0.25],
        "itls": [[0.1, 0.1], [], [0.1]], "output_lens": [3, 0, 0], "input_lens": [5, 5, 5],
        "errors": ["", "Service Unavailable", "Traceback: broken"],
        "queue_times": [4.0, 0.0, 0.0], "latencies": [0.7, 0.0, 0.0],
    }  # fmt: skip
    path = write("bench.json", json.dumps(document))
    finished, rejected, failed = timelines(path)
    assert finished.outcome is Outcome.FINISHED
    assert finished.arrival_s == 10.0, "in a closed loop a request comes when there is room"
    assert rejected.outcome is Outcome.REJECTED
    assert rejected.tokens == 0
    assert failed.outcome is Outcome.FAILED
    assert failed.token_times_s == pytest.approx([12.25, 12.35])


def test_vllm_bench_appended_results_are_runs_of_their_own(write: Write) -> None:
    text = (SAMPLES / "vllm-bench.json").read_text(encoding="utf-8")
    runs = gather(write("two.json", text + text)).runs
    assert [run.label for run in runs] == ["", "2"]
    assert runs[0].requests == runs[1].requests


def test_vllm_bench_without_details_says_what_to_do(write: Write) -> None:
    path = write("bench.json", '{"endpoint_type": "openai", "num_prompts": 3, "completed": 3}')
    with pytest.raises(FormatError, match="--save-detailed"):
        gather(path)


def test_aiperf_counts_what_the_server_counted() -> None:
    lines = (SAMPLES / "aiperf.jsonl").read_text(encoding="utf-8").splitlines()
    for line, timeline in zip(lines, timelines(SAMPLES / "aiperf.jsonl"), strict=True):
        fields = json.loads(line)
        metrics, metadata = fields["metrics"], fields["metadata"]
        assert timeline.tokens == metrics["usage_completion_tokens"]["value"]
        late_s = (metadata["request_start_ns"] - metadata["credit_issued_ns"]) / 1e9
        ttft_s = timeline.token_times_s[0] - timeline.arrival_s - late_s
        assert ttft_s == pytest.approx(metrics["time_to_first_token"]["value"] / 1e3, abs=1e-6)


def test_aiperf_leaves_its_warm_up_out(write: Write) -> None:
    lines = (SAMPLES / "aiperf.jsonl").read_text(encoding="utf-8").splitlines()
    warm_up = lines[0].replace('"benchmark_phase": "profiling"', '"benchmark_phase": "warmup"')
    assert warm_up != lines[0]
    path = write("profile_export.jsonl", "\n".join([warm_up, *lines[1:]]))
    assert len(timelines(path)) == len(lines) - 1


def test_guidellm_benchmarks_are_runs_and_say_what_they_lack() -> None:
    first, second = gather(SAMPLES / "guidellm.json").runs
    assert (first.rate_req_s, second.rate_req_s) == (4.0, 12.0)
    assert "lower bound" in first.notes[0]
    failed = [t for t in first.timelines() if t.outcome is Outcome.FAILED]
    assert [t.tokens for t in failed] == [0]


def test_guidellm_targets_of_no_clock_are_not_believed() -> None:
    second = gather(SAMPLES / "guidellm.json").runs[1]
    assert all(t.token_times_s[0] - t.arrival_s < 5 for t in second.timelines() if t.tokens)


def test_genai_perf_counts_responses_with_text(write: Write) -> None:
    chunk = 'data: {"choices":[{"index":0,"text":" river"}]}\n\n'
    document = {
        "service_kind": "openai", "endpoint": "v1/completions",
        "experiments": [{
            "experiment": {"mode": "request_rate", "value": 2.5},
            "requests": [
                {
                    "timestamp": 1_795_253_322_000_000_000,
                    "response_timestamps": [
                        1_795_253_322_250_000_000, 1_795_253_322_300_000_000,
                        1_795_253_322_300_000_100,
                    ],
                    "response_outputs": [
                        {"response": chunk}, {"response": chunk}, {"response": "data: [DONE]"},
                    ],
                },
            ],
        }],
    }  # fmt: skip
    path = write("profile_export.json", json.dumps(document))
    (run,) = gather(path).runs
    assert run.rate_req_s == 2.5
    timeline = run.timeline(0)
    waits_s = [t - timeline.arrival_s for t in timeline.token_times_s]
    assert waits_s == pytest.approx([0.25, 0.3])


CSV_PER_TOKEN = """\
request_id,arrival_s,token_time_s,outcome
a,0.5,1.0,
b,0.6,1.1,cancelled
a,0.5,1.2,
c,0.7,,rejected
"""
CSV_PER_REQUEST = """\
request_id,arrival_s,token_times_s,outcome
a,0.5,1.0 1.2,
b,0.6,1.1,cancelled
c,0.7,,rejected
"""


@pytest.mark.parametrize("text", [CSV_PER_TOKEN, CSV_PER_REQUEST, "\ufeff" + CSV_PER_REQUEST])
def test_csv_has_a_row_per_token_or_per_request(write: Write, text: str) -> None:
    a, b, c = timelines(write("log.csv", text))
    assert a.token_times_s == [1.0, 1.2]
    assert (b.outcome, b.token_times_s) == (Outcome.CANCELLED, [1.1])
    assert (c.outcome, c.tokens) == (Outcome.REJECTED, 0)


def test_interchange_carries_promises_paces_and_making(write: Write) -> None:
    a = {
        "request_id": "a", "arrival_s": 0, "token_times_s": [1, 2], "slo": {"e2e_s": 3},
        "pace_tok_s": 6, "made_times_s": [0.5, 0.6],
    }  # fmt: skip
    b = {"request_id": "b", "arrival_s": 0, "token_times_s": [1], "slo": {"ttft_s": 1, "tbt_s": 2}}
    first, second = timelines(write("x.jsonl", f"{json.dumps(a)}\n{json.dumps(b)}\n"))
    assert first.slo == EndToEnd(e2e_s=3)
    assert first.pace_tok_s == 6
    assert first.made_times_s == [0.5, 0.6]
    assert second.slo == TtftTbt(ttft_s=1, tbt_s=2)


@pytest.mark.parametrize(
    ("frames", "tokens", "times", "is_estimated"),
    [
        ([1.0, 2.0], 2, [1.0, 2.0], False),
        ([1.0, 2.0], 0, [1.0, 2.0], False),
        ([1.0, 2.0], 4, [1.0, 1.0, 2.0, 2.0], True),
        ([1.0, 2.0, 3.0], 2, [1.0, 2.0], True),
        ([], 3, [], False),
    ],
)
def test_tokens_are_spread_over_frames(
    frames: list[float], tokens: int, times: list[float], is_estimated: bool
) -> None:
    assert spread(frames, tokens) == (times, is_estimated)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("hello", "not recognised"),
        ('{"a": 1}', "not recognised"),
        ('{"schema_version": "1", "aiperf_version": "0.13"}', "profile_export.jsonl"),
        ("request_id,time\n", "column arrival_s, token_time_s or token_times_s is missing"),
    ],
)
def test_unknown_files_are_refused_with_a_reason(write: Write, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        gather(write("log", text))
