"""Checks that a vLLM has everything inside that we rely on, and says what a version lacks.

`python -m readahead.services.engine.vllm_internals [FOLDER]` prints a line for each feature, for
the vLLM that is installed or for the package `vllm` in a folder, such as an unpacked wheel. The
exit code is 1 where something is missing.

What we rely on is declared in the modules `vllm_internals_*`. An engine checks it
at each start; docs/reference/vllm-versions.md shows it, and which versions have it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from readahead.services.engine.vllm_internal import Feature, Internal
from readahead.services.engine.vllm_internals_drafts import SPECULATION_INTERNALS
from readahead.services.engine.vllm_internals_engine import ENGINE_INTERNALS
from readahead.services.engine.vllm_internals_fallback import FALLBACK_INTERNALS
from readahead.services.engine.vllm_internals_grpc import GRPC_INTERNALS
from readahead.services.engine.vllm_internals_moved import MIGRATION_INTERNALS
from readahead.services.engine.vllm_internals_nixl import NIXL_INTERNALS
from readahead.services.engine.vllm_internals_parking import PARKING_INTERNALS
from readahead.services.engine.vllm_internals_scheduler import SCHEDULER_INTERNALS
from readahead.services.engine.vllm_internals_setup import SETUP_INTERNALS
from readahead.services.engine.vllm_internals_tests import TEST_INTERNALS
from readahead.services.engine.vllm_sources import UNKNOWN, VllmSources, installed_folder

PINNED_VERSION = "0.32.0"

INTERNALS: tuple[Internal, ...] = (
    *ENGINE_INTERNALS,
    *SETUP_INTERNALS,
    *SCHEDULER_INTERNALS,
    *NIXL_INTERNALS,
    *GRPC_INTERNALS,
    *FALLBACK_INTERNALS,
    *PARKING_INTERNALS,
    *MIGRATION_INTERNALS,
    *SPECULATION_INTERNALS,
    *TEST_INTERNALS,
)

PRODUCTION = tuple(feature for feature in Feature if feature is not Feature.TESTS)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a vLLM does not have as it is declared."""

    internal: Internal
    what: str
    """The name, with its owner's; or what else it should be."""


def check_internals(features: Iterable[Feature] = PRODUCTION) -> None:
    """Checks the vLLM that is installed; once for each process and those forked from it.

    Raises:
        RuntimeError: it lacks something that these features need; names it, and the version to
            install.
    """
    if complaint := complaint_about(installed_folder(), tuple(features)):
        raise RuntimeError(complaint)


@cache
def complaint_about(folder: Path | None, features: tuple[Feature, ...] = PRODUCTION) -> str:
    """What `check_internals` would say of a folder; empty where all is there."""
    if folder is None:
        return f"vLLM is not installed. Install vLLM {PINNED_VERSION}."
    sources = VllmSources(folder)
    missing = sorted({problem.what for problem in problems(sources, features=features)})
    if not missing:
        return ""
    return (
        f"vLLM {sources.version} lacks {', '.join(missing)}, which Readahead relies on. "
        f"Install vLLM {PINNED_VERSION}."
    )


def problems(
    sources: VllmSources,
    *,
    features: Iterable[Feature] = tuple(Feature),
    internals: Iterable[Internal] | None = None,
) -> Iterator[Problem]:
    """What these sources lack of what the features need, in the order of the declarations."""
    wanted, version = set(features), _ordered(sources.version)
    for internal in INTERNALS if internals is None else internals:
        if internal.feature in wanted and version >= _ordered(internal.since):
            for what in _problems_of(sources, internal):
                yield Problem(internal, what)


def _ordered(version: str) -> tuple[int, ...]:
    """For comparison; a version that is not known is taken for a new one."""
    if version == UNKNOWN:
        return (sys.maxsize,)
    return tuple(map(int, re.findall(r"\d+", version)))[:3]


def short(owner: str) -> str:
    """An owner as people call it: the class, or the module without vLLM's name."""
    module, _, name = owner.partition(":")
    return name or module


def split(name: str) -> tuple[str, list[str] | None]:
    """A declared name, and the parameters it is declared with; None where it is no function."""
    plain, bracket, rest = name.partition("(")
    if not bracket:
        return plain, None
    return plain, re.findall(r"\w+", rest)


def _problems_of(sources: VllmSources, internal: Internal) -> Iterator[str]:
    owner = internal.owner
    if not sources.exists(owner):
        yield owner.replace(":", ".")
        return
    for name in internal.names:
        plain, parameters = split(name)
        if not sources.has(owner, plain):
            yield f"{short(owner)}.{plain}"
        elif parameters is not None and not _fits(sources.parameters(owner, plain), parameters):
            yield f"{short(owner)}.{name}"
    text = sources.text(owner) if internal.wording else ""
    yield from (f"{short(owner)}: {each}" for each in internal.wording if each not in text)


def _fits(found: Sequence[tuple[str, bool]] | None, declared: Sequence[str]) -> bool:
    """Whether a function can be called, or overridden, with just the declared parameters."""
    if found is None:
        return False
    order = [name for name, _ in found]
    needed = {name for name, is_needed in found if is_needed}
    return [name for name in order if name in declared] == list(declared) and needed <= {*declared}


def main(arguments: Sequence[str]) -> int:
    """Prints what the installed vLLM, or that in a folder, has and lacks."""
    folder = Path(arguments[0]) if arguments else installed_folder()
    if folder is None or not (folder / "__init__.py").is_file():
        print(f"error: there is no vLLM in {folder or 'this environment'}", file=sys.stderr)  # noqa: T201
        return 2
    sources = VllmSources(folder)
    found = list(problems(sources))
    lines = [f"vLLM {sources.version}; pinned is {PINNED_VERSION}"]
    for feature in Feature:
        declared = [each for each in INTERNALS if each.feature is feature]
        count = sum(len(each.names) + len(each.wording) for each in declared)
        lacks = [problem.what for problem in found if problem.internal.feature is feature]
        verdict = f"lacks {len(lacks)}" if lacks else "all there"
        lines.append(f"{feature:22} {count:4} internals  {verdict}")
        lines.extend(f"{'':28}{what}" for what in lacks)
    sys.stdout.write("\n".join(lines) + "\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
