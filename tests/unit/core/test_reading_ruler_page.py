"""The numbers in docs/explanation/the-ruler.md are what the code makes of its examples."""

from __future__ import annotations

import re

import pytest
from repo_tree import ROOT

from readahead.core.reading.benefit import Form, abandon_threshold_tok_s
from readahead.core.reading.curves import ReadingCurve
from readahead.core.reading.idle import idle_s
from readahead.core.reading.metrics.tbt_s import tbt_s
from readahead.core.reading.metrics.tpot_s import tpot_s
from readahead.core.reading.score import Ruler, request_score
from readahead.core.reading.timeline import Outcome, Timeline

PAGE = ROOT / "docs" / "explanation" / "the-ruler.md"
TEXT = PAGE.read_text(encoding="utf-8")


def _timeline(times_s: list[float], **how: float) -> Timeline:
    outcome = Outcome.CANCELLED if how else Outcome.FINISHED
    ended_s = how.get("ended_s")
    return Timeline(
        request_id="r", arrival_s=0.0, token_times_s=times_s, outcome=outcome, ended_s=ended_s
    )


def _wait_s(times_s: list[float], *, pace_tok_s: float) -> float:
    return idle_s(_timeline(times_s), ReadingCurve(pace_tok_s=pace_tok_s))


def _tenths(tokens: int, *, start_s: float) -> list[float]:
    """A token each tenth of a second."""
    return [start_s + 0.1 * i for i in range(tokens)]


def _spaced(made_s: list[float], gap_s: float) -> list[float]:
    """The same tokens, each at least so long after the one before."""
    out = made_s[:1]
    for at in made_s[1:]:
        out.append(max(at, out[-1] + gap_s))
    return out


def _worth(times_s: list[float], form: Form = Form.F1) -> float:
    return request_score(_timeline(times_s), Ruler(form=form)).benefit


STALLED = _tenths(10, start_s=0.1) + _tenths(10, start_s=3.5)
HELD = _spaced(STALLED, 0.25)
EARLY_BURST = _tenths(10, start_s=0.1) + _tenths(5, start_s=2.0)
EARLY_STALL = [0.1, 0.2, *(1.2 + 0.05 * i for i in range(19))]
LATE_START = _tenths(100, start_s=2.2)
HUNG_START = [(i + 1) / 30 for i in range(30)]
HUNG = HUNG_START + _tenths(100, start_s=21.0)


def _censored() -> float:
    given_up = _timeline(HUNG_START, ended_s=21.0)
    return request_score(given_up, Ruler()).benefit_censored


def _step_under_f3() -> float:
    """What the 32nd token changes."""
    return _worth(HUNG[:31], Form.F3) - _worth(HUNG[:32], Form.F3)


LONGEST_S, HELD_LONGEST_S = max(tbt_s(_timeline(STALLED))), max(tbt_s(_timeline(HELD)))

FACTS = [
    f"by default {Ruler().pace_tok_s:g} tokens a second",
    f"token 3 is due at {ReadingCurve(pace_tok_s=5).due_times_s(_timeline([0.0] * 3))[2]:.1f} s",
    "10 tokens in the first second and then a pause of 1 s: the longest gap is "
    f"{max(tbt_s(_timeline(EARLY_BURST))):.1f} s",
    f"A reader at 4 tokens a second waits {_wait_s(EARLY_BURST, pace_tok_s=4):.1f} s",
    "when the 11th token comes",
    "2 tokens, then a pause of 1 s",
    f"{len(EARLY_STALL)} tokens with a mean gap of {tpot_s(_timeline(EARLY_STALL)):.2f} s",
    f"The same reader waits {_wait_s(EARLY_STALL, pace_tok_s=4):.2f} s",
    "10 tokens in the first second, stalls for 2.5 s, and makes 10 more",
    f"The longest gap is {LONGEST_S:.2f} s",
    f"at least 0.25 s apart, and so still has some in hand when it stalls: the longest gap is "
    f"{HELD_LONGEST_S:.2f} s",
    f"TBT has improved by {1 - HELD_LONGEST_S / LONGEST_S:.0%}".replace("%", " %"),
    f"A reader at 5 tokens a second waited {_wait_s(STALLED, pace_tok_s=5):.2f} s before, "
    f"and waits {_wait_s(HELD, pace_tok_s=5):.2f} s now",
    "An answer of 100 tokens at 10 tokens a second, whose first token comes "
    f"{_wait_s(LATE_START[:1], pace_tok_s=5):.1f} s too late",
    f"finishing is worth {_worth(LATE_START):.0f} tokens, and cutting off after the first token "
    f"is worth {_worth(LATE_START[:1]):.0f}",
    f"alpha is {Ruler().alpha:g}",
    "30 tokens come within the first second, then nothing for 20 s, then 100 more",
    f"The wait is {_wait_s(HUNG, pace_tok_s=5):.1f} s: "
    f"the request is worth {_worth(HUNG):.0f} tokens",
    f"Stopped before the stall it is worth {_worth(HUNG_START):.0f}",
    f"when the 31st token would have come, it is worth {_censored():.0f}",
    "Under F1, with alpha 2.5 and pace 5",
    f"below {abandon_threshold_tok_s(Form.F1):.2f} tokens a second; "
    f"under F2 below {abandon_threshold_tok_s(Form.F2):.2f}",
    f"At 3.5 tokens a second an answer of 100 tokens is worth "
    f"{_worth([(i + 1) / 3.5 for i in range(100)]):.1f}",
    f"at 3.6 it is worth {_worth([(i + 1) / 3.6 for i in range(100)]):.1f}",
    "at the 31st token the penalty is the whole answer",
    f"each further token loses {_step_under_f3():.1f} tokens",
]


@pytest.mark.parametrize("fact", FACTS)
def test_the_page_says_what_the_code_computes(fact: str) -> None:
    """Each fact stands on the page, with the number that the code gives."""
    assert fact in TEXT


def test_the_page_has_no_other_numbers() -> None:
    """Whatever has a digit is one of the facts, or the name of a form."""
    rest = TEXT
    for fact in sorted(FACTS, key=len, reverse=True):
        rest = rest.replace(fact, "")
    assert re.findall(r"^.*\d.*$", re.sub(r"\bF[0-5]\b|max\(0, max", "", rest), re.MULTILINE) == []


def test_the_examples_are_what_the_page_says_of_them() -> None:
    """The trick hands out nothing sooner; stopping looks best, and is not once censored."""
    assert all(held >= made for held, made in zip(HELD, STALLED, strict=True))
    assert _worth(HUNG_START) > _worth(HUNG) > _censored()
    assert _worth(HUNG_START, Form.F3) > _worth(HUNG, Form.F3)
    assert _worth([1 / 3.5]) < 0
    assert LATE_START[-1] - LATE_START[0] == pytest.approx(9.9)
