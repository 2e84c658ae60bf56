"""Writes the pins of the container images: what some extras need, out of requirements/cpu.txt.

    python tools/image_requirements.py            write them
    python tools/image_requirements.py --check    exit 1 iff one is out of date

Reads the metadata of the installed packages, so it needs the development environment and no
network.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements" / "cpu.txt"

IMAGES: Mapping[str, tuple[str, ...]] = {
    "router.txt": ("router", "otel"),
    "worker-gpu.txt": ("runtime", "otel"),
}
"""Extras that each image holds; the GPU image has vLLM from its base."""


def rendered(extras: tuple[str, ...]) -> str:
    """One image's requirement file."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    wanted += [Requirement(f"readahead[{','.join(extras)}]")]
    needed = _closure(wanted, project["optional-dependencies"])
    pins = [
        line
        for line in PINS.read_text(encoding="utf-8").splitlines()
        if "==" in line and canonicalize_name(line.partition("==")[0]) in needed
    ]
    missing = needed - {canonicalize_name(pin.partition("==")[0]) for pin in pins}
    assert not missing, f"{PINS.name} has no pin of {', '.join(sorted(missing))}"
    header = f"# Exact versions for --no-deps: {', '.join(extras)}, by tools/image_requirements.py"
    return "\n".join([header, *pins]) + "\n"


def _closure(wanted: list[Requirement], extras: Mapping[str, list[str]]) -> set[str]:
    """Names of all packages behind some requirements."""
    needed: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        for extra in ["", *sorted(requirement.extras)]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "readahead":
                wanted += [Requirement(text) for text in extras.get(extra, ())]
            else:
                needed.add(name)
                wanted += _requires(name, extra)
    return needed


def _requires(name: str, extra: str) -> Iterator[Requirement]:
    """What an installed package asks for on this platform, for one of its extras."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def main(arguments: list[str]) -> int:
    """Writes the files, or checks them."""
    stale = False
    for name, extras in IMAGES.items():
        target = ROOT / "requirements" / name
        text = rendered(extras)
        if "--check" in arguments:
            stale |= not target.exists() or target.read_text(encoding="utf-8") != text
        else:
            target.write_text(text, encoding="utf-8")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
