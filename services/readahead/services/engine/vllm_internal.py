"""What a declaration of something that we rely on in vLLM says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Feature(StrEnum):
    """What stops working without it. The value is how it is called in the documentation."""

    ENGINE = "engine"
    CPU_START = "start on a CPU"
    SCHEDULER = "scheduler plug-in"
    ITERATION_LOG = "iteration log"
    NIXL = "handover over NIXL"
    GRPC = "handover over gRPC"
    FALLBACK = "fall-back to gRPC"
    PARKING = "parking"
    MIGRATION = "live migration"
    SPECULATION = "speculation"
    TESTS = "tests and benchmarks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Internal:
    """Names of one owner that are used for one purpose."""

    feature: Feature
    owner: str
    """A module, or "module:Class"."""
    names: tuple[str, ...] = ()
    """A submodule; an attribute of a module, of a class or of its objects; or "function(a, b)"
    with the parameters that must be there by these names and in this order, while none of the
    others need be given."""
    wording: tuple[str, ...] = ()
    """Code that must be in the owner's source, as `ast.unparse` writes it: a meaning rather than
    a name."""
    where: tuple[str, ...]
    """Our files that use it, under services/readahead/services; for tests, folders of the
    repository."""
    use: str
    """What for."""
    since: str = ""
    """The version that needs it first, where older ones do without."""
    recheck: str = ""
    """What the check cannot see, to be read at an upgrade."""
