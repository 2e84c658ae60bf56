"""Scoring a window of a run: what is gained in it adds up, and its tail counts for nothing."""

from __future__ import annotations

import numpy as np
import pytest

from readahead.core.reading.timeline import Outcome
from readahead.ruler.run import OUTCOMES, Run
from readahead.sim.experiments.windows import Window, cut, gained, latencies


def run_of(
    *requests: tuple[float, list[float], Outcome], ended_s: dict[int, float] | None = None
) -> Run:
    """Requests by arrival, token times and outcome; all read 5 tokens/s."""
    ended_s = ended_s or {}
    times = [at for _, tokens, _ in requests for at in tokens]
    ends = [ended_s.get(n, (t or [a])[-1]) for n, (a, t, _) in enumerate(requests)]
    return Run(
        file="made",
        format="made",
        label="",
        rate_req_s=None,
        notes=(),
        request_ids=tuple(f"r{n}" for n in range(len(requests))),
        lines=np.arange(1, len(requests) + 1),
        arrivals_s=np.array([arrival for arrival, _, _ in requests]),
        times_s=np.array(times),
        offsets=np.concatenate([[0], np.cumsum([len(tokens) for _, tokens, _ in requests])]),
        prompt_tokens=np.full(len(requests), 10),
        outcomes=np.array([OUTCOMES.index(outcome) for *_, outcome in requests], dtype=np.int8),
        ended_s=np.array(ends),
        paces_tok_s=np.full(len(requests), 5.0),
        slos={},
        made_times_s={},
        estimated=0,
    )


EARLY = (0.0, [1.2, 1.4, 1.6, 6.6], Outcome.FINISHED)
"""1 s of waiting for the first token, 4.8 more for the last one."""
LATE = (4.0, [12.0, 12.1], Outcome.FINISHED)


def test_cutting_leaves_what_was_known_then() -> None:
    seen = cut(run_of(EARLY, LATE), 5.0)
    assert seen.tokens.tolist() == [3, 0]
    assert [OUTCOMES[place] for place in seen.outcomes] == [Outcome.CANCELLED] * 2
    assert seen.ended_s.tolist() == [5.0, 5.0]
    assert cut(run_of(EARLY, LATE), 3.0).requests == 1
    assert OUTCOMES[int(cut(run_of(EARLY), 7.0).outcomes[0])] is Outcome.FINISHED


def test_a_window_counts_what_it_added() -> None:
    found = gained(run_of(EARLY, LATE), Window(start_s=2.0, last_s=6.0, end_s=7.0))
    assert found["throughput_tok_s"] == pytest.approx(1 / 5)
    # The last token is due at 0.8 s + the 1 s waited before, and comes at 6.6 s.
    assert found["f2_literal"] == pytest.approx(4.8 / 5)
    assert found["f1_literal"] == pytest.approx(5 * 4.8 / 5)
    # Nobody has seen the other's first token: it was due at 4.2 s. At 2 s the first one had already
    # waited 0.2 s for his fourth, which the window does not count again.
    assert found["f2_censored"] == pytest.approx((4.8 + 2.8 - 0.2) / 5)


def test_neighbouring_windows_add_up() -> None:
    run = run_of(EARLY, LATE)
    whole = gained(run, Window(start_s=0.0, last_s=13.0, end_s=13.0))
    first = gained(run, Window(start_s=0.0, last_s=5.0, end_s=5.0))
    second = gained(run, Window(start_s=5.0, last_s=13.0, end_s=13.0))
    for name, value in whole.items():
        assert 13 * value == pytest.approx(5 * first[name] + 8 * second[name])


def test_all_can_be_given_one_pace() -> None:
    found = gained(
        run_of(EARLY), Window(start_s=0.0, last_s=7.0, end_s=7.0), paces_tok_s=(4.0, 5.0)
    )
    assert 7 * found["f2_literal_v5"] == pytest.approx(5.8)
    assert 7 * found["f2_literal_v4"] == pytest.approx(6.6 - 4 / 4)


def test_who_was_ended_early_is_not_served_well() -> None:
    kind = run_of((0.0, [0.1, 0.2], Outcome.FINISHED), (0.0, [0.1], Outcome.CANCELLED))
    found = latencies(
        kind, Window(start_s=0.0, last_s=5.0, end_s=10.0), patience_s=np.array([1.0, 1.0])
    )
    assert found["requests"] == 2
    assert found["attained_reading"] == found["attained_tbt"] == found["attained_tpot"] == 0.5
    assert found["goodput_reading_tok_s"] == pytest.approx(2 / 5)
    assert found["cut_off_share"] == 0.5


def test_who_still_reads_at_the_end_is_judged_by_what_he_saw() -> None:
    made = [0.1 + 0.15 * place for place in range(100)]
    found = latencies(
        run_of((0.0, made, Outcome.FINISHED)),
        Window(start_s=0.0, last_s=5.0, end_s=10.0),
        patience_s=np.array([1.0]),
    )
    assert found["attained_reading"] == 1.0
    assert found["goodput_tbt_tok_s"] == pytest.approx(67 / 5)


def test_those_who_came_before_or_at_the_end_do_not_count() -> None:
    run = run_of(
        (0.0, [1.0], Outcome.FINISHED),
        (3.0, [3.5], Outcome.FINISHED),
        (8.0, [8.1], Outcome.FINISHED),
    )
    window = Window(start_s=2.0, last_s=7.0, end_s=9.0)
    found = latencies(run, window, patience_s=np.ones(3))
    assert found["requests"] == 1
    assert found["ttft_mean_s"] == pytest.approx(0.5)


def test_a_window_must_have_a_length() -> None:
    with pytest.raises(ValueError, match="start_s < last_s <= end_s"):
        Window(start_s=5.0, last_s=5.0, end_s=6.0)
