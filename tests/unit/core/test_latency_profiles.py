"""The profiles that ship, and their text."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from readahead.core.latency.budget import NO_WORK
from readahead.core.latency.iteration import IterationWork, iteration_s
from readahead.core.latency.profile import Profile
from readahead.core.latency.profile_text import from_text, profile, profiles, to_text

LLAMA = "llama-3.1-8b"
PREFILL_MS = {
    f"{LLAMA}-a100-80g": {512: 34, 1024: 63, 2048: 123, 4096: 256, 8192: 558},
    f"{LLAMA}-h100": {512: 12, 1024: 22, 2048: 44, 4096: 89, 8192: 201},
    "opt-6.7b-a100-40g": {512: 60, 1024: 95, 2048: 166},
    "opt-13b-a100-40g": {512: 69, 1024: 106, 2048: 179},
    "opt-30b-a100-40g": {512: 86, 1024: 133, 2048: 229},
    "opt-13b-h100": {512: 49, 1024: 70, 2048: 113},
}
DECODE_MS = {
    f"{LLAMA}-a100-80g": {1: 11.4, 8: 12.0, 32: 15.0, 128: 24.2},
    f"{LLAMA}-h100": {1: 6.3, 8: 6.8, 32: 8.5, 128: 13.0},
}
PREFILLS = [(n, tokens, ms) for n, row in PREFILL_MS.items() for tokens, ms in row.items()]
DECODES = [(n, batch, ms) for n, row in DECODE_MS.items() for batch, ms in row.items()]


def device_ms(name: str, work: IterationWork) -> float:
    """What an iteration takes without the host's part, which published anchors lack."""
    model = replace(profile(name).latency, host_base_s=0.0, host_request_s=0.0)
    return iteration_s(work, model=model) * 1e3


@pytest.mark.parametrize(("name", "tokens", "expected_ms"), PREFILLS)
def test_prefill_anchors(name: str, tokens: int, expected_ms: float) -> None:
    """Published prefill times are met within 10 %."""
    assert device_ms(name, NO_WORK.with_chunk(tokens)) == pytest.approx(expected_ms, rel=0.1)


@pytest.mark.parametrize(("name", "batch", "expected_ms"), DECODES)
def test_decode_anchors(name: str, batch: int, expected_ms: float) -> None:
    """Decode times at 1,024 past tokens each are met within 10 %."""
    work = IterationWork(tokens=batch, requests=batch, past_tokens=1024 * batch, prefill_pairs=0)
    assert device_ms(name, work) == pytest.approx(expected_ms, rel=0.1)


@pytest.mark.parametrize("name", profiles())
def test_trust_is_told_in_a_line(name: str) -> None:
    """Fits with their numbers, the others with where they come from."""
    one = profile(name)
    line = one.quality_line()
    assert line.startswith(f"{name}: ")
    assert ("R²" in line) == (one.fit is not None)


@pytest.mark.parametrize("name", profiles())
def test_text_reads_back(name: str) -> None:
    """Each profile says where it comes from, and its text gives it back."""
    one = profile(name)
    assert from_text(to_text(one), where=name) == one
    assert one.origin
    assert one.host_origin
    assert one.derived == ("derived" in one.origin or "Qwen3" in one.origin)
    assert one.kv_blocks * one.block_tokens <= one.kv_capacity_tokens


def test_every_model_is_there_for_every_device() -> None:
    """Five models on three devices."""
    models = (LLAMA, "qwen2.5-14b", "opt-6.7b", "opt-13b", "opt-30b")
    devices = ("a100-80g", "a100-40g", "h100")
    assert set(profiles()) >= {f"{model}-{device}" for model in models for device in devices}


def test_the_page_on_profiles_is_current() -> None:
    """It is what its tool makes of the profiles that ship."""
    root = Path(__file__).parents[3]
    made = runpy.run_path(str(root / "tools" / "render_profiles.py"))["page"]()
    page = (root / "docs" / "reference" / "profiles.md").read_text(encoding="utf-8")
    assert page == made, "run: python tools/render_profiles.py"


def test_unknown_names_are_refused() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match="there are llama"):
        profile("gpt-9")
    with pytest.raises(ValueError, match="it has nvlink"):
        profile(f"{LLAMA}-h100").link("pigeon")


def without(field: str) -> str:
    """A profile's text that lacks a field."""
    fields = json.loads(to_text(example()))
    del fields[field]
    return json.dumps(fields)


def example() -> Profile:
    return profile(f"{LLAMA}-h100")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "x.json:1: not JSON"),
        ("[]", "x.json: a profile is a JSON object"),
        (without("latency"), "x.json: no field latency"),
        (without("origin"), "x.json: not a profile: .*origin"),
        (to_text(example()).replace('"devices": 1', '"devices": 0'), "devices must be in"),
    ],
)
def test_bad_text_is_refused(text: str, complaint: str) -> None:
    """With its name and field."""
    with pytest.raises(ValueError, match=complaint):
        from_text(text, where="x.json")
