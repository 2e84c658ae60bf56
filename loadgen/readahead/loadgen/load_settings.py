"""What a run of load is told, and what it says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from rich.console import Console

from readahead.core.reading.score import Ruler
from readahead.loadgen.assertions import Assertion
from readahead.loadgen.load_offer import OfferSpec
from readahead.loadgen.senders import SendOptions
from readahead.loadgen.session_run import RunLimits
from readahead.ruler.promises import ZeroLoadTtft


class ExitStatus(IntEnum):
    """What a run says to the shell. 2 is wrong usage."""

    OK = 0
    FAILED = 1
    """The target cannot be used, or no request finished."""
    INVALID = 3
    """The run measured something other than it was told to."""
    RECORDS_LOST = 4
    """The disk did not take all of the records, or not the report."""
    ASSERTION_FAILED = 5
    """The run is valid and did not come up to an assertion."""
    TARGET_LOST = 6
    """Requests failed, and at the end of the run the target could not be reached any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where results go besides the terminal."""

    html_path: Path | None = None
    junit_path: Path | None = None
    assertions: tuple[Assertion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """All of a run's settings."""

    target: str
    """http://…, https://… or grpc://host:port."""
    is_chat: bool
    workload: OfferSpec
    options: SendOptions
    limits: RunLimits
    model_path: Path | None
    """Folder with the tokenizer; None: prompts are words."""
    records_path: Path | None
    description: Mapping[str, object]
    """The settings as given, for the records' description."""
    ca_path: Path | None = None
    """PEM file of the authority that signed the target's certificate; None: the system's."""
    rates_req_s: tuple[float, ...] = ()
    """Of a sweep; empty: one run."""
    zero_load_ttft: ZeroLoadTtft | None = None
    """None: measured before the run, where the workload promises anything."""
    tells_slo: bool = False
    """Requests say what the workload promises, so that the target can plan by it."""
    ruler: Ruler = field(default_factory=Ruler)
    outputs: Outputs = field(default_factory=Outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Screens:
    """Where people read."""

    out: Console
    """The report."""
    err: Console
    """Progress and errors."""

    def error(self, message: str) -> None:
        """Shows what went wrong."""
        self.err.print(f"error: {message}", style="bold red", markup=False, highlight=False)

    def note(self, message: str) -> None:
        """Shows what is going on."""
        self.err.print(message, style="dim", markup=False, highlight=False)
