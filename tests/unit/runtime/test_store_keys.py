"""What is written about Redis is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from readahead.runtime.store import keys, redis

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "redis.md"
SCRIPTS = Path(redis.__file__).parent / "lua"


def _first_column(title: str) -> list[str]:
    """The code in the first column of the section's first table."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(
        r"^\| `([^`]+)` \|", section.split("\n\nA record is JSON", 1)[0], re.MULTILINE
    )


def test_the_page_lists_every_key() -> None:
    """Keys of the code and of the page are the same, in the same order."""
    names = [
        value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)
    ]
    assert list(keys.ALL) == names
    assert list(keys.ALL) == _first_column("Keys")


def test_the_page_lists_every_script() -> None:
    """Scripts in the folder and on the page are the same."""
    assert sorted(path.name for path in SCRIPTS.iterdir()) == sorted(_first_column("Scripts"))


def test_every_script_that_adds_sets_a_ttl() -> None:
    """No script leaves a key without an end."""
    for path in SCRIPTS.glob("*.lua"):
        text = path.read_text(encoding="utf-8")
        if "'ZADD'" in text or "'HSET'" in text:
            assert "'PEXPIRE'" in text, path.name
