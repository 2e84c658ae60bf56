"""Writes the table of values in the chart's README from the comments in values.yaml.

python tools/helm_readme.py            write it
python tools/helm_readme.py --check    exit 1 iff it is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent.parent / "deploy" / "helm" / "readahead"
VALUES = CHART / "values.yaml"
README = CHART / "README.md"
BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"


def table() -> str:
    """One row for each value, with its default and the comment above it."""
    text = VALUES.read_text(encoding="utf-8")
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, line in _leaves(root, ""):
        comment = _comment(text.splitlines(), line)
        if default or comment:
            rows.append(f"| `{path}` | {default} | {comment} |")
    return "\n".join(rows) + "\n"


def _leaves(section: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, str, int]]:
    """Dotted path, default and line of every value; a section with a comment has a row too."""
    for key, value in section.value:
        path = f"{prefix}{key.value}"
        line = key.start_mark.line
        if isinstance(value, yaml.MappingNode) and value.value:
            yield path, "", line
            yield from _leaves(value, f"{path}.")
        else:
            yield path, f"`{_flow(value)}`", line


def _flow(node: yaml.Node) -> str:
    text = yaml.serialize(node, Dumper=yaml.SafeDumper) if isinstance(node, yaml.ScalarNode) else ""
    if isinstance(node, yaml.ScalarNode):
        return '""' if not node.value else text.removesuffix("...\n").strip()
    value = yaml.safe_load(yaml.serialize(node, Dumper=yaml.SafeDumper))
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).strip()


def _comment(lines: list[str], line: int) -> str:
    """The comment right above a line, as one sentence after another."""
    found: list[str] = []
    while line and lines[line - 1].lstrip().startswith("# "):
        line -= 1
        found.insert(0, lines[line].lstrip().removeprefix("# "))
    return " ".join(found).replace("|", r"\|")


def rendered() -> str:
    """The README as it should be on disk."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """Writes the README, or checks it."""
    text = rendered()
    if "--check" in arguments:
        return int(README.read_text(encoding="utf-8") != text)
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
