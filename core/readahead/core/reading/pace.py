"""How fast people read: presets, and who has the last word.

Pace comes from, in order: what the client says, what acknowledgements show, the preset of the
scenario, the default of the population.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

PACE_TOK_S_MIN: Final = 0.5
"""Slowest pace that is learnt. A word in three seconds is somebody who looks elsewhere."""

PACE_TOK_S_MAX: Final = 50.0
"""Fastest pace that is learnt: ten times the usual is skipping, and an engine's pace for one user.
What a client says itself is not held to these bounds."""


class Scenario(StrEnum):
    """What an answer, or a stage of one, is for."""

    CHAT = "chat"
    DEFAULT = "default"
    SUMMARY = "summary"
    """A long text that is studied."""
    THINKING = "thinking"
    """Reasoning that is not shown."""
    TOOL = "tool"
    """A call that a program reads."""


PRESETS_TOK_S: Final[Mapping[Scenario, float | None]] = MappingProxyType(
    {
        Scenario.CHAT: 6.0,
        Scenario.DEFAULT: 5.0,
        Scenario.SUMMARY: 3.0,
        Scenario.THINKING: None,
        Scenario.TOOL: None,
    }
)
"""None: nobody reads it, so that its curve comes from its SLO.

Ref: [SmoothGoodput] experiments, for 5 tokens/s; the others lie within the range that they sweep.
"""


class PaceSource(StrEnum):
    """Who said how fast he reads."""

    EXPLICIT = "explicit"
    """The client, with this request."""
    LEARNT = "learnt"
    """The user's own reading so far."""
    PRESET = "preset"
    """The scenario."""
    DEFAULT = "default"
    """The population."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceChoice:
    """The pace of one request, and who said so."""

    pace_tok_s: float | None
    """To schedule by. None: nobody reads it."""
    source: PaceSource


def choose_pace(
    *,
    explicit_tok_s: float | None = None,
    learnt_tok_s: float | None = None,
    scenario: Scenario | None = None,
    default_tok_s: float = 5.0,
) -> PaceChoice:
    """The first of those that have something to say.

    A scenario without a reader goes before all of them: a pace says how fast somebody reads the
    answer, and nobody reads this.
    """
    if scenario is not None and PRESETS_TOK_S[scenario] is None:
        return PaceChoice(pace_tok_s=None, source=PaceSource.PRESET)
    if explicit_tok_s is not None:
        return PaceChoice(pace_tok_s=explicit_tok_s, source=PaceSource.EXPLICIT)
    if learnt_tok_s is not None:
        return PaceChoice(pace_tok_s=learnt_tok_s, source=PaceSource.LEARNT)
    if scenario is not None:
        return PaceChoice(pace_tok_s=PRESETS_TOK_S[scenario], source=PaceSource.PRESET)
    return PaceChoice(pace_tok_s=default_tok_s, source=PaceSource.DEFAULT)
