"""What a workload file says: from it and its seed every session follows, to the byte."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from readahead.core.config import Checked, require
from readahead.workload.arrivals import ClosedLoop, require_positive
from readahead.workload.arrivals_kinds import AnyArrivals, OpenArrivals
from readahead.workload.arrivals_trace import TraceArrivals
from readahead.workload.scenarios_registry import SCENARIOS, make_scenario
from readahead.workload.spec_problems import WorkloadError, problems
from readahead.workload.trace_sessions import TRACE, make_trace_scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Checked):
    """Where the workload ends: at whichever comes first."""

    sessions: int | None = None
    """Most sessions. A session is one request or more."""
    duration_s: float | None = None
    """Nobody arrives later than this."""

    def __post_init__(self) -> None:
        if self.sessions is not None:
            require("limits.sessions", self.sessions, least=1)
        if self.duration_s is not None:
            require_positive("limits.duration_s", self.duration_s, "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Checked):
    """One kind of use within the mix."""

    scenario: str
    """`chatbot` and so on, or `trace`: nothing but the rows of the part's trace."""
    share: float = 1.0
    """Of the common arrivals, in proportion to the other parts' shares."""
    arrivals: OpenArrivals | None = None
    """Its own; None: its share of the common ones."""
    tenant: str = "default"
    users: int | None = None
    """Each session belongs to one of so many users, by chance; None: everybody comes once."""
    trace_lengths: bool = False
    """The first turn has the lengths of the trace's row, the rest is the scenario's."""
    parameters: dict[str, object] = field(default_factory=dict)
    """What is otherwise than the scenario has it: lengths, readers, scale."""

    def __post_init__(self) -> None:
        if self.scenario not in (TRACE, *SCENARIOS):
            raise ValueError(
                f"scenario must be one of {', '.join((TRACE, *SCENARIOS))}, got {self.scenario!r}"
            )
        require_positive("share", self.share, "parts of the whole")
        if self.users is not None:
            require("users", self.users, least=1)
        if not self.tenant:
            raise ValueError("tenant must not be empty")
        if self.scenario == TRACE:
            make_trace_scenario(self.parameters)
        else:
            make_scenario(self.scenario, self.parameters)

    @property
    def needs_trace(self) -> bool:
        """Whether its sessions have rows of a trace in them."""
        return self.trace_lengths or self.scenario == TRACE


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec(Checked):
    """A whole workload."""

    mix: tuple[Part, ...]
    """The kinds of use."""
    arrivals: AnyArrivals | None = None
    """Of all parts that have none of their own."""
    seed: int = 0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.mix:
            raise ValueError("mix must have at least one part")
        shared = [part for part in self.mix if part.arrivals is None]
        if shared and self.arrivals is None:
            raise ValueError("arrivals must be set, as a part of the mix has none of its own")
        if not shared and self.arrivals is not None:
            raise ValueError("arrivals must not be set, as each part of the mix has its own")
        if isinstance(self.arrivals, ClosedLoop):
            if len(shared) < len(self.mix):
                raise ValueError("mix: with a closed loop no part may have arrivals of its own")
            if self.limits.sessions is None:
                raise ValueError("limits.sessions must be set, as a closed loop has no times")
        for index, part in enumerate(self.mix):
            own = part.arrivals or self.arrivals
            if part.needs_trace and not isinstance(own, TraceArrivals):
                raise ValueError(f"mix[{index}] takes lengths of a trace, so arrivals must be one")
        if self.limits == Limits() and any(one.is_endless for one in self._processes()):
            raise ValueError(
                "limits.sessions or limits.duration_s must be set: arrivals are endless"
            )

    def _processes(self) -> list[AnyArrivals]:
        every = [self.arrivals, *(part.arrivals for part in self.mix)]
        return [one for one in every if one is not None]

    @property
    def is_closed_loop(self) -> bool:
        """Whether users wait for their answers before they come again; a result must say so."""
        return isinstance(self.arrivals, ClosedLoop)


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[WorkloadSpec]:
    return TypeAdapter(WorkloadSpec)


def workload_spec(tree: object) -> WorkloadSpec:
    """A spec from the keys and values of a file.

    Raises:
        WorkloadError: a key is unknown or missing, or a value is not of its type or range.
    """
    try:
        return _adapter().validate_python(tree)
    except ValidationError as error:
        raise WorkloadError("\n".join(problems(error))) from error


def read_workload_spec(path: Path) -> WorkloadSpec:
    """A spec from a TOML file; paths in it are relative to its folder.

    Raises:
        WorkloadError: the file cannot be read, or says something that cannot be.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise WorkloadError(f"{path}: is not TOML: {error}") from error
    try:
        spec = workload_spec(tree)
    except WorkloadError as error:
        said = "\n".join(f"{path}: {line}" for line in str(error).splitlines())
        raise WorkloadError(said) from error
    return _resolved(spec, path.parent)


def _resolved(spec: WorkloadSpec, folder: Path) -> WorkloadSpec:
    """With traces' relative paths taken from a folder."""
    mix = tuple(
        dataclasses.replace(part, arrivals=_beside(part.arrivals, folder))
        if isinstance(part.arrivals, TraceArrivals)
        else part
        for part in spec.mix
    )
    if isinstance(spec.arrivals, TraceArrivals):
        return dataclasses.replace(spec, mix=mix, arrivals=_beside(spec.arrivals, folder))
    return dataclasses.replace(spec, mix=mix)


def _beside(arrivals: TraceArrivals, folder: Path) -> TraceArrivals:
    return dataclasses.replace(arrivals, path=folder / arrivals.path)
