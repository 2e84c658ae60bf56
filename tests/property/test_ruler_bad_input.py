"""Whatever is in a file, it is scored or refused with a reason: nothing else comes out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from readahead.core.reading.score import Ruler
from readahead.ruler.assess import Assessment, assess
from readahead.ruler.formats.detect import Format
from readahead.ruler.json_report import objects

SAMPLES = Path(__file__).parents[1] / "data" / "score"
CSV = "request_id,arrival_s,token_time_s\n" + "".join(f"r{i % 5},1,{2 + i}\n" for i in range(40))
TEXTS = {
    **{
        form: (SAMPLES / name).read_text(encoding="utf-8")[:20_000]
        for form, name in (
            (Format.INTERCHANGE, "load.jsonl"),
            (Format.VLLM_BENCH, "vllm-bench.json"),
            (Format.AIPERF, "aiperf.jsonl"),
            (Format.GUIDELLM, "guidellm.json"),
        )
    },
    Format.CSV: CSV,
    Format.GENAI_PERF: json.dumps(
        {
            "experiments": [
                {
                    "experiment": {"mode": "request_rate", "value": 2},
                    "requests": [
                        {
                            "timestamp": 10**18 + i,
                            "response_timestamps": [10**18 + i + 5, 10**18 + i + 9],
                            "response_outputs": [{"response": "a"}, {"response": "b"}],
                        }
                        for i in range(5)
                    ],
                }
            ]
        }
    ),
}
SPLINTERS = [
    "", "null", "-1", "1e999", "1" * 400, '"x"', "[]", "{}", "[[", "}", "]", ",", "\n", "\x00",
    "NaN", "true", '{"request_id":', "é", "\ufeff", "0", "1e300", '"finished"', "[null]", "[{}]",
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("error")


def check(path: Path, form: Format | None = None) -> None:
    """Scores it; what comes out is numbers, or a reason."""
    found = assess(path, Assessment(ruler=Ruler(), form=form))
    assert bool(found.error) != bool(found.runs)
    for fields in objects(found):
        text = json.dumps(fields, allow_nan=False)
        assert text
    for run in found.runs:
        score = run.score
        assert score.requests == sum(score.outcomes.values()) > 0
        assert score.tokens == int(run.run.tokens.sum())
        assert score.user_idle_s is not None
        assert 0 <= score.user_idle_s.mean < math.inf


@pytest.mark.parametrize("form", Format)
@given(data=st.data())
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_logs_are_scored_or_refused(
    tmp_path: Path, form: Format, data: st.DataObject
) -> None:
    text = TEXTS[form]
    for _ in range(data.draw(st.integers(1, 4), label="wounds")):
        start = data.draw(st.integers(0, len(text)), label="start")
        size = data.draw(st.sampled_from([0, 1, 3, 20, 500]), label="size")
        splinter = data.draw(st.sampled_from(SPLINTERS), label="splinter")
        text = text[:start] + splinter + text[start + size :]
    path = tmp_path / "log"
    path.write_text(text, encoding="utf-8")
    check(path)
    check(path, form)


@given(content=st.binary(max_size=200))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_scored_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    check(path)
    for form in Format:
        check(path, form)
