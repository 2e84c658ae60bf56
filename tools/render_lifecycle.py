"""Writes the diagram in docs/explanation/request-lifecycle.md from the transition table.

python tools/render_lifecycle.py            write it
python tools/render_lifecycle.py --check    exit 1 iff it is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from readahead.core.request import TRANSITIONS, Stage

TARGET = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "request-lifecycle.md"
BEGIN, END = "<!-- diagram: begin -->\n", "<!-- diagram: end -->\n"


def diagram() -> str:
    """The table as a Mermaid state diagram, in the order of the stages."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", f"    [*] --> {Stage.QUEUED}"]
    for stage in Stage:
        targets = TRANSITIONS[stage]
        lines += [f"    {stage} --> {target}" for target in Stage if target in targets]
    lines += [f"    {stage} --> [*]" for stage in Stage if stage.is_final]
    return "\n".join([*lines, "```"]) + "\n"


def rendered() -> str:
    """The page as it should be on disk."""
    text = TARGET.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{TARGET.name} has lost its marks"
    assert end, f"{TARGET.name} has lost its marks"
    return f"{before}{BEGIN}\n{diagram()}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Writes the page, or checks it."""
    text = rendered()
    if "--check" in arguments:
        return int(TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
