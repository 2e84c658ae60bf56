"""Writes the tables of internals in docs/reference/vllm-versions.md from their declarations.

python tools/render_vllm.py            write them
python tools/render_vllm.py --check    exit 1 iff they are out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from readahead.services.engine.vllm_internal import Feature, Internal
from readahead.services.engine.vllm_internals import INTERNALS

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "vllm-versions.md"
BEGIN = "<!-- From here on: python tools/render_vllm.py -->\n"


def rendered() -> str:
    """Everything below the mark."""
    parts: list[str] = []
    for feature in Feature:
        rows = [row for each in INTERNALS if each.feature is feature for row in _row(each)]
        if rows:
            title = feature[0].upper() + feature[1:]
            parts += ["", f"### {title}", "", "| in vLLM | names | used by | for | re-check |"]
            parts += ["|---|---|---|---|---|", *rows]
    return "\n".join(parts) + "\n"


def _row(internal: Internal) -> Iterator[str]:
    module, _, name = internal.owner.partition(":")
    owner = f"`{name}` of `{module}`" if name else f"`{module}`"
    names = [f"`{each}`" for each in internal.names]
    names += [f"source: `{each}`" for each in internal.wording]
    where = [f"`{each}`" for each in internal.where]
    cells = [owner, ", ".join(names), ", ".join(where), internal.use, internal.recheck]
    if internal.since:
        cells[3] += f"; since {internal.since}"
    yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def main(arguments: list[str]) -> int:
    """Writes the page, or checks it."""
    text = TARGET.read_text(encoding="utf-8")
    kept, mark, _ = text.partition(BEGIN)
    if not mark:
        sys.exit(f"{TARGET} lacks the line {BEGIN!r}")
    page = kept + BEGIN + rendered()
    if "--check" in arguments:
        return int(text != page)
    TARGET.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
