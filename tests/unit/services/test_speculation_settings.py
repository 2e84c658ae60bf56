"""Speculation is switched by a worker's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from readahead.core.cluster import Role
from readahead.runtime import settings
from readahead.services.config import SpeculationConfig, WorkerConfig


def test_environment_switches_it_on(tmp_path: Path) -> None:
    """And off where nothing is said."""
    file = tmp_path / "worker.json"
    file.write_text('{"role": "decode"}', encoding="utf-8")

    def loaded(environ: dict[str, str]) -> WorkerConfig:
        return settings.load(
            WorkerConfig, file=file, environ=environ, prefix="READAHEAD_WORKER", overrides=()
        ).config

    assert loaded({}).engine.speculation == SpeculationConfig()
    assert loaded({}).role is Role.DECODE
    prefix = "READAHEAD_WORKER__ENGINE__SPECULATION__"
    found = loaded({f"{prefix}METHOD": "ngram", f"{prefix}DRAFT_TOKENS_MAX": "3"})
    assert found.engine.speculation == SpeculationConfig(method="ngram", draft_tokens_max=3)


@pytest.mark.parametrize(
    ("method", "model_path", "most", "message"),
    [
        ("eagle", "", 5, "method must be empty, ngram or draft_model, got 'eagle'"),
        ("draft_model", "", 5, "which needs it"),
        ("ngram", "/a/model", 5, "model_path is for the method draft_model"),
        ("ngram", "", 0, "draft_tokens_max"),
        ("ngram", "", 33, "draft_tokens_max"),
    ],
)
def test_what_does_not_fit_is_said(method: str, model_path: str, most: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeculationConfig(method=method, model_path=model_path, draft_tokens_max=most)
