"""Writes the knobs in docs/reference/policies.md from the policies' declarations.

python tools/render_policies.py            write them
python tools/render_policies.py --check    exit 1 iff they are out of date
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from readahead.core.planning.knobs import Knob, knobs_of
from readahead.core.planning.policies.registry import POLICIES

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "policies.md"
TABLE = re.compile(r"^\| knob \|.*?\n(?!\|)", re.MULTILINE | re.DOTALL)

UNITS = {
    "asked_max": "requests",
    "decay": "1/s",
    "gamma": "1",
    "margin": "share",
    "mu": "times",
    "park_load": "share",
    "park_share": "times",
    "steps_max": "states",
    "stretch": "times",
    "watermark": "share",
    "working_set": "share",
}
"""Of knobs whose names do not end in their unit."""
ENDINGS = {"_gb_s": "GB/s", "_s": "s", "_tokens": "tokens", "_iterations": "iterations"}
"""The first that fits."""


def unit(knob: Knob) -> str:
    """What a knob's numbers count.

    Raises:
        ValueError: its name does not say; UNITS must.
    """
    if knob.is_switch:
        return "-"
    found = UNITS.get(knob.name)
    ends = (ENDINGS[ending] for ending in ENDINGS if knob.name.endswith(ending))
    if found is None and (found := next(ends, None)) is None:
        raise ValueError(f"{knob.name} ends in no unit: tools/render_policies.py must name it")
    return found


def table(policy: str) -> str:
    """All knobs of a policy, in order of declaration."""
    lines = ["| knob | unit | default | range | meaning |", "|---|---|---|---|---|"]
    for knob in knobs_of(POLICIES[policy]):
        default, span = f"{knob.default:.9g}", f"{knob.least:.9g} to {knob.most:.9g}"
        if knob.is_switch:
            default, span = "on" if knob.default else "off", "on, off"
        lines.append(f"| `{knob.name}` | {unit(knob)} | {default} | {span} | {knob.meaning} |")
    return "\n".join(lines) + "\n"


def rendered() -> str:
    """The page as it should be on disk."""
    text = TARGET.read_text(encoding="utf-8")
    for policy in POLICIES:
        before, title, rest = text.partition(f"\n## {policy}\n")
        section, _, after = rest.partition("\n## ")
        assert title, f"{TARGET.name} has no section {policy}"
        found = TABLE.findall(section)
        assert len(found) == 1, f"{TARGET.name} has {len(found)} tables of knobs in {policy}"
        text = f"{before}{title}{section.replace(found[0], table(policy))}\n## {after}"
    return text


def main(arguments: list[str]) -> int:
    """Writes the page, or checks it."""
    text = rendered()
    if "--check" in arguments:
        return int(TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
