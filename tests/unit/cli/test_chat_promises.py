"""What `readahead chat` asks to be promised, and what it shows of it."""

from __future__ import annotations

import pytest

from readahead.cli.chat import Conversation
from readahead.cli.chat_screen import promise_line
from readahead.client import Finished, FinishReason, FirstToken, SloState, Usage


def ended(slo: SloState | None, verdict: str) -> Finished:
    return Finished(
        reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=1, output_tokens=1),
        first_token=FirstToken(),
        slo=slo,
        verdict=verdict,
    )


KEPT = SloState(name="chatbot", ttft_s=0.25, is_kept=True, late_s=0.0)
LATE = SloState(name="explicit", ttft_s=2.0, is_kept=False, late_s=1.26)


@pytest.mark.parametrize(
    ("slo", "verdict", "line"),
    [
        (None, "", ""),
        (None, "best-effort", "best-effort"),
        (KEPT, "accepted", "chatbot: first token within 0.25 s, kept · accepted"),
        (LATE, "", "explicit: first token within 2 s, late by 1.3 s"),
    ],
)
def test_the_promise_in_a_line(slo: SloState | None, verdict: str, line: str) -> None:
    """Nothing where nothing was promised or decided."""
    assert promise_line(ended(slo, verdict)) == line


@pytest.mark.parametrize("name", ["", "coder"])
def test_a_class_is_asked_for_where_one_is_named(name: str) -> None:
    """With every answer."""
    talk = Conversation(model="", pace_tok_s=5.0, max_tokens=None, temperature=None, slo=name)
    assert talk.options().get("slo", "") == name
