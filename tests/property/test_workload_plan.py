"""Laws of a planned workload: it follows from its seed, and each session from its number."""

from __future__ import annotations

import copy
import itertools
import math
import random
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.workload.arrivals import PoissonArrivals
from readahead.workload.plan import plan
from readahead.workload.session import Session
from readahead.workload.sessions_file import read_sessions, session_lines
from readahead.workload.spec import WorkloadSpec, workload_spec
from readahead.workload.streams import Stream

SEEDS = st.integers(0, 2**64)


def _tree(seed: int = 0, sessions: int = 40) -> dict[str, object]:
    """Two tenants on one process, a third with its own."""
    return {
        "seed": seed,
        "limits": {"sessions": sessions},
        "arrivals": "gamma:rate=4,cv=2",
        "mix": [
            {"scenario": "chatbot", "share": 2, "users": 5},
            {"scenario": "tool-calling", "tenant": "b"},
            {"scenario": "coder", "tenant": "c", "arrivals": "poisson:rate=1"},
        ],
    }


def _spec(seed: int = 0, sessions: int = 40) -> WorkloadSpec:
    return workload_spec(_tree(seed, sessions))


@given(SEEDS)
@settings(deadline=None, max_examples=15)
def test_a_workload_follows_from_its_seed(seed: int) -> None:
    """Same seed, same bytes; other seed, others. In order of arrival, ids unique."""
    workload = plan(_spec(seed))
    lines = list(session_lines(workload))
    assert lines == list(session_lines(plan(_spec(seed))))
    assert lines == list(session_lines(workload))
    assert lines != list(session_lines(plan(_spec(seed + 1))))
    times_s = [session.arrival_s for session in workload]
    assert times_s == sorted(times_s) == workload.arrivals_s.tolist()
    assert len(workload) == len({session.session_id for session in workload}) == 40


@given(SEEDS, st.lists(st.integers(0, 39), min_size=1, max_size=10))
@settings(deadline=None, max_examples=15)
def test_a_session_needs_none_of_the_others(seed: int, numbers: list[int]) -> None:
    """Made alone and in any order it is the same, and so it is in a longer workload."""
    workload = plan(_spec(seed))
    every = list(workload)
    assert [workload.session(number) for number in numbers] == [every[n] for n in numbers]
    assert list(itertools.islice(plan(_spec(seed, 60)), 40)) == every


@given(SEEDS)
@settings(deadline=None, max_examples=10)
def test_what_is_changed_changes_nothing_else(seed: int) -> None:
    """Other lengths leave arrivals, parts, users and readers; other arrivals leave all but
    times; a further part with its own arrivals leaves the sessions of the others."""

    def shown(session: Session) -> tuple[object, ...]:
        return session.session_id, session.tenant, session.user, session.reader

    before = list(plan(_spec(seed)))
    tree = _tree(seed)
    mix = copy.deepcopy(tree["mix"])
    assert isinstance(mix, list)
    mix[0]["parameters"] = {"lengths": {"prompt": 10, "output": 10}}
    shorter = list(plan(workload_spec({**tree, "mix": mix})))
    assert [s.arrival_s for s in shorter] == [s.arrival_s for s in before]
    assert [shown(s) for s in shorter] == [shown(s) for s in before]
    assert shorter != before

    slower = {s.session_id: s for s in plan(workload_spec({**tree, "arrivals": "poisson:rate=3"}))}
    kept = [session for session in before if session.session_id in slower]
    assert kept
    assert [s.turns for s in kept] == [slower[s.session_id].turns for s in kept]

    mix = [*_list(tree["mix"]), {"scenario": "coder", "tenant": "d", "arrivals": "poisson:rate=2"}]
    wider = [s for s in plan(workload_spec({**tree, "mix": mix})) if s.tenant != "d"]
    assert wider == before[: len(wider)]


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


@given(SEEDS)
@settings(deadline=None, max_examples=10)
def test_shares_and_users_are_kept(seed: int) -> None:
    """Within six standard deviations; every user comes."""
    tree = {
        "seed": seed,
        "limits": {"sessions": 2000},
        "arrivals": "poisson:rate=4",
        "mix": [
            {"scenario": "coder", "share": 3, "users": 4, "tenant": "a"},
            {"scenario": "coder", "share": 1, "tenant": "b"},
        ],
    }
    sessions = list(plan(workload_spec(tree)))
    first = sum(session.tenant == "a" for session in sessions)
    assert abs(first - 1500) < 6 * math.sqrt(2000 * 0.75 * 0.25)
    users = {session.user for session in sessions if session.tenant == "a"}
    assert users == {f"a/{user}" for user in range(4)}
    assert len({session.user for session in sessions if session.tenant == "b"}) == 2000 - first


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_common_arrivals_are_those_of_a_plain_process(seed: int) -> None:
    """The stream is named after its purpose and the seed alone."""
    tree = {
        "seed": seed,
        "limits": {"sessions": 50},
        "arrivals": "poisson:rate=4",
        "mix": [{"scenario": "coder"}],
    }
    times_s = PoissonArrivals(rate_req_s=4).times_s(random.Random(f"{seed}/arrivals"))
    assert plan(workload_spec(tree)).arrivals_s.tolist() == list(itertools.islice(times_s, 50))


@given(SEEDS, st.integers(0, 2**40))
@settings(deadline=None, max_examples=30)
def test_streams_are_even_and_apart(seed: int, index: int) -> None:
    """Neighbouring indices, other seeds and other purposes have nothing in common."""
    streams = [Stream(seed, "a"), Stream(seed, "b"), Stream(seed + 1, "a")]
    columns = [[stream.restart(index + k).random() for k in range(1000)] for stream in streams]
    columns.append([streams[0].random() for _ in range(1000)])
    for column in columns:
        assert abs(np.mean(column) - 0.5) < 6 * math.sqrt(1 / 12 / 1000)
        assert abs(np.var(column) - 1 / 12) < 6 * math.sqrt(1 / 180 / 1000)
    for one, other in itertools.combinations(columns, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 6 / math.sqrt(1000)
    again = Stream(seed, "a")
    again.restart(index + 5).gauss(0, 1)
    assert again.restart(index).random() == columns[0][0]
    assert 0 <= again.getrandbits(100) < 2**100
    assert {again.randrange(3) for _ in range(200)} == {0, 1, 2}


def test_a_plan_written_is_the_plan_read(tmp_path: Path) -> None:
    """Each session comes back as it was."""
    path = tmp_path / "plan.jsonl"
    workload = plan(_spec(7))
    path.write_text("".join(session_lines(workload)), encoding="utf-8")
    assert list(read_sessions(path)) == list(workload)
