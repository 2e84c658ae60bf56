"""Each metric against an example worked by hand."""

from __future__ import annotations

import importlib
from pathlib import Path
from random import Random

import pytest

from readahead.core.reading.benefit import Form, Shape, abandon_threshold_tok_s, benefit, penalty
from readahead.core.reading.curves import Origin, ReadingCurve, TtftTbt
from readahead.core.reading.metrics import registry
from readahead.core.reading.metrics.andes_qoe import andes_qoe
from readahead.core.reading.metrics.capacity import capacity
from readahead.core.reading.metrics.effective_throughput_tok_s import effective_tokens
from readahead.core.reading.metrics.fluidity_index import fluidity_index
from readahead.core.reading.metrics.tbt_s import tbt_s
from readahead.core.reading.metrics.tpot_s import tpot_s
from readahead.core.reading.metrics.ttft_s import ttft_s
from readahead.core.reading.percentiles import percentile, summary
from readahead.core.reading.score import Ruler, Score, score
from readahead.core.reading.timeline import Outcome, Timeline


def _timeline(*times_s: float, arrival_s: float = 0.0) -> Timeline:
    return Timeline(request_id="r", arrival_s=arrival_s, token_times_s=times_s)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Form.F0, 0.5),
        (Form.F1, 10.0),
        (Form.F2, 2.0),
        (Form.F3, 10.0),
        (Form.F4, 50 * (1 - 2.718281828459045**-0.2)),
        (Form.F5, 5.0),
    ],
)
def test_forms_by_hand(form: Form, expected: float) -> None:
    """Two seconds idle at 5 tokens/s, in an answer of 20 tokens."""
    assert penalty(form, 2.0, tokens=20, pace_tok_s=5) == pytest.approx(expected)
    worth = benefit(form, 2.0, tokens=20, pace_tok_s=5, alpha=2.5)
    assert worth == pytest.approx(20 - 2.5 * expected)


def test_bounded_forms_stay_bounded() -> None:
    """However long the wait; an unanswered request included."""
    assert penalty(Form.F0, 1000, tokens=20, pace_tok_s=5) == 1
    assert penalty(Form.F0, 1000, tokens=0, pace_tok_s=5) == 1
    assert penalty(Form.F3, 1000, tokens=20, pace_tok_s=5) == 20
    assert penalty(Form.F4, 1e6, tokens=20, pace_tok_s=5) == pytest.approx(50)
    assert penalty(Form.F5, 1.0, tokens=20, pace_tok_s=5) == 0


def test_thresholds_of_the_defaults() -> None:
    """3.57 tokens/s under F1, 1.67 under F2; nothing below which to stop if waits are free."""
    assert abandon_threshold_tok_s(Form.F1) == pytest.approx(3.5714, abs=1e-4)
    assert abandon_threshold_tok_s(Form.F2) == pytest.approx(1.6667, abs=1e-4)
    assert abandon_threshold_tok_s(Form.F5) == abandon_threshold_tok_s(Form.F1)
    assert abandon_threshold_tok_s(Form.F1, alpha=0) == 0
    assert abandon_threshold_tok_s(Form.F3) == abandon_threshold_tok_s(Form.F1)
    assert abandon_threshold_tok_s(Form.F3, alpha=1) == 0
    assert [abandon_threshold_tok_s(form) for form in (Form.F0, Form.F4)] == [None, None]


@pytest.mark.parametrize("wrong", [{"tau_s": 0}, {"cap_tokens": -1}, {"tolerance_s": -1}])
def test_shapes_are_checked(wrong: dict[str, float]) -> None:
    """With the field's name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Shape(**wrong)


@pytest.mark.parametrize("wrong", [{"alpha": -1}, {"pace_tok_s": 0}, {"alpha": float("nan")}])
def test_rulers_are_checked(wrong: dict[str, float]) -> None:
    """With the field's name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Ruler(alpha=wrong.get("alpha", 1.0), pace_tok_s=wrong.get("pace_tok_s", 5.0))


def test_latencies_by_hand() -> None:
    """And where they are undefined."""
    one = _timeline(10.5, 10.5, 12.0, arrival_s=10.0)
    assert ttft_s(one) == 0.5
    assert tbt_s(one) == [0.0, 1.5]
    assert tpot_s(one) == 0.75
    assert ttft_s(_timeline()) is None
    assert tpot_s(_timeline(1.0)) is None
    assert tbt_s(_timeline(1.0)) == []


def test_andes_qoe_by_hand() -> None:
    """Speed 1, target 1 s: due at 2, 3, 4; a stall of 2 s before token 2 delays two tokens."""
    assert andes_qoe(_timeline(2, 3, 4), ttft_s=1, speed_tok_s=1) == 1
    stalled = _timeline(2, 5, 5)
    # Lags 0, 2, 2; the last token is read at 6, which is 4, 3 and 2 s after the due times.
    assert andes_qoe(stalled, ttft_s=1, speed_tok_s=1) == pytest.approx(1 - 4 / 9)
    assert andes_qoe(_timeline(9.0), ttft_s=1, speed_tok_s=1) == 0
    assert andes_qoe(_timeline()) == 0


def test_fluidity_by_hand() -> None:
    """Bounds 1 s and 0.5 s: slack carries over, a long wait misses several deadlines."""
    assert fluidity_index(_timeline(0.1, 1.5, 2.0), ttft_s=1, tbt_s=0.5) == 1
    # Due at 1.0 and 1.5; 1.25 s late is three deadlines, and the next is due at 3.25.
    late = _timeline(1.0, 2.75, 3.25)
    assert fluidity_index(late, ttft_s=1, tbt_s=0.5) == pytest.approx(2 / 5)
    assert fluidity_index(_timeline()) == 0


def test_effective_tokens_by_hand() -> None:
    """Twenty tokens at once: weight 1 up to 2 unread, a half at 3, 0 from 4 on."""
    at_once = _timeline(*[0.0] * 20)
    curve = ReadingCurve(pace_tok_s=5, origin=Origin.FIRST_TOKEN)
    assert effective_tokens(at_once, curve) == pytest.approx(3.5)
    paced = _timeline(*(i / 5 for i in range(20)))
    assert effective_tokens(paced, curve) == pytest.approx(20)
    assert effective_tokens(_timeline(), curve) == 0


def test_capacity_is_where_the_sweep_starts_to_fail() -> None:
    """A rate that passes beyond one that fails is luck."""
    assert capacity([(1, 1.0), (4, 0.95), (2, 0.98), (8, 0.5)]) == 4
    assert capacity([(1, 1.0), (2, 0.8), (4, 0.95)]) == 1
    assert capacity([(1, 0.5), (2, 0.95)]) is None
    assert capacity([(1, 1.0)]) is None
    assert capacity([(1, 0.95), (2, 0.95)], attainment_min=0.99) is None


def test_percentiles_interpolate_linearly() -> None:
    """As numpy does unless told otherwise."""
    assert percentile([1.0, 2.0, 4.0, 8.0], 0.5) == 3.0
    assert percentile([1.0, 2.0, 4.0, 8.0], 0.9) == pytest.approx(6.8)
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0], 0.0) == 1.0
    assert percentile([1.0, 2.0], 1.0) == 2.0
    assert summary([]) is None
    numpy = pytest.importorskip("numpy")
    random = Random("percentiles")
    for count in range(1, 40):
        values = sorted(random.random() for _ in range(count))
        for share in (0.01, 0.5, 0.9, 0.99):
            assert percentile(values, share) == pytest.approx(numpy.quantile(values, share))


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], -0.1), ([1.0], 1.1)])
def test_percentiles_of_nothing_are_refused(values: list[float], share: float) -> None:
    """So that no zero is taken for a result."""
    with pytest.raises(ValueError, match=r"share|values"):
        percentile(values, share)


def _three() -> list[Timeline]:
    """One in time, one with a first token 2 s late, one cut off after one token."""
    return [
        Timeline(request_id="a", arrival_s=0.0, token_times_s=[0.2, 0.4, 0.6, 0.8]),
        Timeline(request_id="b", arrival_s=1.0, token_times_s=[3.2, 3.4]),
        Timeline(
            request_id="c",
            arrival_s=2.0,
            token_times_s=[2.1],
            outcome=Outcome.CANCELLED,
            ended_s=4.0,
        ),
    ]


def test_score_by_hand() -> None:
    """Pace 5, F2, alpha 1, over 4 seconds."""
    result = score(_three(), Ruler(form=Form.F2, alpha=1.0))
    assert (result.requests, result.tokens, result.duration_s) == (3, 7, 4.0)
    assert result.outcomes == {Outcome.FINISHED: 2, Outcome.CANCELLED: 1}
    assert result.smooth_goodput_tok_s == pytest.approx((4 + (2 - 2) + 1) / 4)
    assert result.smooth_goodput_censored_tok_s == pytest.approx((4 + 0 + 1 - 1.6) / 4)
    assert result.slo_attainment == pytest.approx(1 / 3)
    assert result.goodput_req_s == pytest.approx(1 / 4)
    assert result.goodput_tok_s == pytest.approx(1.0)
    assert result.throughput_tok_s == pytest.approx(7 / 4)
    assert result.user_idle_s is not None
    assert result.user_idle_s.mean == pytest.approx(2 / 3)
    assert result.ttft_s is not None
    assert result.ttft_s.count == 3
    assert result.ttft_s.p50 == pytest.approx(0.2)


def test_what_a_request_says_of_itself_comes_first() -> None:
    """Its pace before the ruler's, its SLO before the ruler's."""
    slow = Timeline(request_id="a", arrival_s=0.0, token_times_s=[1.0, 2.0], pace_tok_s=1.0)
    assert score([slow], Ruler()).slo_attainment == 1
    assert score([slow], Ruler(slo=TtftTbt(ttft_s=0.5, tbt_s=1))).slo_attainment == 0
    promised = Timeline(
        request_id="a",
        arrival_s=0.0,
        token_times_s=[1.0, 2.0],
        slo=TtftTbt(ttft_s=1, tbt_s=1),
    )
    assert score([promised], Ruler(slo=TtftTbt(ttft_s=0.5, tbt_s=1))).slo_attainment == 1


def test_each_metric_has_its_file() -> None:
    """A metric is named after its module, is listed, says all about itself, and is scored."""
    listed = [metric.name for metric in registry.METRICS]
    folder = Path(str(registry.__file__)).parent
    assert sorted(listed) == sorted({p.stem for p in folder.glob("*.py")} - {"metric", "registry"})
    for metric in registry.METRICS:
        module = importlib.import_module(f"readahead.core.reading.metrics.{metric.name}")
        assert module.METRIC is metric
        assert all([metric.unit, metric.formula, metric.source, metric.undefined])
    assert set(listed) - set(Score.__dataclass_fields__) == {"capacity"}
