"""The SDK's reference page against the SDK."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_inference import FakeInference, answer, serving

from readahead.client import GenerateOptions, errors

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "sdk.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES = [code for code in BLOCKS if "127.0.0.1:50051" in code]


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_examples_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Word for word, but for the address."""
    with serving(FakeInference(answer("salt", " water"))) as address:
        exec(compile(code.replace("127.0.0.1:50051", address), str(PAGE), "exec"), {})
    assert "salt water" in capsys.readouterr().out


def test_all_options_and_errors_are_listed() -> None:
    """None is missing from the page."""
    options = GenerateOptions.__annotations__.keys() - {"chat", "token_ids"}
    kinds = {kind.__name__ for kind in errors.ERROR_TYPES.values()}
    assert [name for name in sorted(options | kinds) if f"`{name}`" not in TEXT] == []
