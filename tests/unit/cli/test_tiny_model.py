"""The tiny model is the same everywhere, and fit to be served."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from readahead.cli.up.tiny_model import (
    SPECIAL_TOKENS,
    VERSION,
    TinyModel,
    cache_folder,
    ensure,
    make,
)


def _digests(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
    }


def test_same_seed_gives_same_bytes_in_another_process(tiny_model: Path, tmp_path: Path) -> None:
    """Nothing of the process, its hash seed included, enters the files."""
    again = tmp_path / "again"
    command = [sys.executable, "-m", "readahead.cli.up.tiny_model", str(again)]
    subprocess.run(command, check=True, capture_output=True)
    assert _digests(again) == _digests(tiny_model)


def test_another_seed_gives_another_model(tiny_model: Path, tmp_path: Path) -> None:
    """The seed reaches the weights, and only them."""
    make(TinyModel(seed=1), tmp_path / "other")
    ours, theirs = _digests(tiny_model), _digests(tmp_path / "other")
    assert {name for name in ours if ours[name] != theirs[name]} == {"model.safetensors"}


def test_tokenizer_round_trips_any_text(tiny_model: Path) -> None:
    """Byte level: no text is unknown to it."""
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    for text in ("The river begins", "naïve 北京 🙂\n\ttabs", "<x> & </x>"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    for token_id, token in enumerate(SPECIAL_TOKENS):
        assert tokenizer.token_to_id(token) == token_id
    assert tokenizer.get_vocab_size() == TinyModel().vocabulary_tokens


def test_weights_have_the_shapes_the_config_says(tiny_model: Path) -> None:
    """Every tensor is where its header says; the file has no other bytes."""
    config = json.loads((tiny_model / "config.json").read_text())
    raw = (tiny_model / "model.safetensors").read_bytes()
    header_bytes = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + header_bytes])
    header.pop("__metadata__")
    shape = [config["vocab_size"], config["hidden_size"]]
    assert header["model.embed_tokens.weight"]["shape"] == shape
    assert header["lm_head.weight"]["shape"] == shape
    ends = sorted(entry["data_offsets"][1] for entry in header.values())
    assert 8 + header_bytes + ends[-1] == len(raw)
    assert {entry["dtype"] for entry in header.values()} == {"F32"}


def test_bfloat16_halves_the_file(tiny_model: Path, tmp_path: Path) -> None:
    """Same numbers, rounded."""
    make(TinyModel(dtype="bfloat16"), tmp_path / "half")
    whole = (tiny_model / "model.safetensors").stat().st_size
    half = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert abs(half - whole / 2) < 8192


def test_cache_is_made_once_and_complete(tmp_path: Path) -> None:
    """A second call changes nothing; no draft is left."""
    environ = {"READAHEAD_CACHE": str(tmp_path)}
    folder = ensure(TinyModel(), environ)
    made_at = (folder / "config.json").stat().st_mtime_ns
    assert ensure(TinyModel(), environ) == folder
    assert (folder / "config.json").stat().st_mtime_ns == made_at
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]
    assert f"v{VERSION}" in folder.name


def test_an_incomplete_folder_is_made_again(tmp_path: Path) -> None:
    """What an older version or a person left there does not count as the model."""
    environ = {"READAHEAD_CACHE": str(tmp_path)}
    folder = tmp_path / "models" / TinyModel().folder_name
    folder.mkdir(parents=True)
    (folder / "stray").touch()
    assert ensure(TinyModel(), environ) == folder
    assert not (folder / "stray").exists()
    assert (folder / "model.safetensors").is_file()


def test_cache_folder_precedence(tmp_path: Path) -> None:
    """READAHEAD_CACHE over XDG_CACHE_HOME over the home folder."""
    assert cache_folder({"READAHEAD_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_folder({"XDG_CACHE_HOME": "/b"}) == Path("/b/readahead")
    assert cache_folder({}) == Path.home() / ".cache" / "readahead"


def test_unknown_dtype_is_refused() -> None:
    """The message names what is allowed."""
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        TinyModel(dtype="int8")
