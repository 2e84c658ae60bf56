"""What every kind of test may use, and which tests may run at the same time."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from lanes import place_of, turn

from readahead.cli.up.tiny_model import TinyModel, make


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; within a kind, whatever order there is."""
    items.sort(key=place_of)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Waits for its turn, before its time-out begins to count."""
    with turn(item):
        return (yield)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model, float32, made once per run of the tests."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make(TinyModel(), folder)
    return folder
