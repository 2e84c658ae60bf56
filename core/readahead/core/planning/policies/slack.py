"""Slack batching: an iteration as long as the readers' unread text allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from readahead.core.planning.knobs import knob, switch
from readahead.core.planning.policies.readahead import Readahead


@dataclass(slots=True, kw_only=True)
class Slack(Readahead):
    """Everybody decodes, prompts in the order of due times fill the least slack.

    The yardstick for what `readahead` adds: the same code, its mechanisms switched off.
    """

    name: ClassVar[str] = "slack"
    sacrifice: bool = switch(False, meaning="Re-planned sacrifice set; off: order of due times.")
    align: bool = switch(
        False, meaning="Iterations end while their prompts are in time; off: filled."
    )
    sit_out: bool = switch(
        False, meaning="Rich readers sit out while a prompt is computed, if that pays."
    )
    cap_tokens: int = knob(
        8192,
        least=0,
        most=16384,
        meaning="Prompt tokens in an iteration; 0: as many as more would hardly be faster.",
    )
