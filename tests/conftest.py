"""What every kind of test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from readahead.cli.up.tiny_model import TinyModel, make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model, float32, made once per run of the tests."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make(TinyModel(), folder)
    return folder
