"""As few prompts as possible are late."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.planning.sacrifice import Job, moore_hodgson

JOBS = st.lists(
    st.builds(
        Job,
        due_s=st.integers(-3, 20).map(float),
        length_s=st.integers(1, 8).map(float),
    ),
    max_size=8,
)


def is_in_time(jobs: list[Job]) -> bool:
    end_s = 0.0
    for job in sorted(jobs, key=lambda job: job.due_s):
        end_s += job.length_s
        if end_s > job.due_s:
            return False
    return True


@given(JOBS)
@settings(max_examples=400, deadline=None)
def test_no_subset_that_is_in_time_is_larger(jobs: list[Job]) -> None:
    """The kept jobs are in time, and brute force over all subsets finds no more of them."""
    verdict = moore_hodgson(jobs)
    most = max(
        size
        for size in range(len(jobs) + 1)
        if any(is_in_time(list(some)) for some in combinations(jobs, size))
    )
    assert len(verdict.kept) == most
    assert is_in_time([jobs[i] for i in verdict.kept])


@given(JOBS)
@settings(max_examples=200, deadline=None)
def test_each_job_has_one_verdict_and_its_place(jobs: list[Job]) -> None:
    """Kept ones go by due time, sacrificed ones by length, and nobody is lost."""
    verdict = moore_hodgson(jobs)
    assert sorted(verdict.kept + verdict.sacrificed) == list(range(len(jobs)))
    due = [jobs[i].due_s for i in verdict.kept]
    lengths = [jobs[i].length_s for i in verdict.sacrificed]
    assert (due, lengths) == (sorted(due), sorted(lengths))
    assert verdict == moore_hodgson(jobs)
