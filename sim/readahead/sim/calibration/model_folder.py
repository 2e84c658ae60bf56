"""The shape of a model, from the folder that holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from readahead.sim.calibration.profiles import Architecture

_VALUE_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
_BIASED_QKV: Final = {"qwen2"}
"""Types whose query, key and value have biases that config.json does not speak of."""


def read_architecture(folder: Path, *, name: str = "") -> Architecture:
    """A decoder of Llama's or OPT's make, from its Hugging Face config.json.

    Its parameters are counted from the shape, and what they weigh follows from `dtype`.

    Raises:
        OSError: there is no config.json.
        ValueError: it lacks a field, or a field is not what it should be; names file and field.
    """
    path = folder / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: expected an object")
    config = _Config(fields, str(path))
    heads = config.count("num_attention_heads")
    return Architecture(
        name=name or folder.resolve().name,
        layers=config.count("num_hidden_layers"),
        hidden=config.count("hidden_size"),
        heads=heads,
        kv_heads=config.count("num_key_value_heads", default=heads),
        ffn=config.count("intermediate_size", "ffn_dim"),
        vocabulary=config.count("vocab_size"),
        weights=_parameters(config),
        context_tokens_max=config.count("max_position_embeddings"),
        head_dim=config.count("head_dim", default=0) or None,
        value_bytes=config.value_bytes(),
    )


class _Config:
    """A config.json, and where it is."""

    def __init__(self, fields: Mapping[str, object], where: str) -> None:
        self.fields, self.where = fields, where

    def count(self, *names: str, default: int | None = None) -> int:
        """The first of these fields that is there, a whole number of at least 1."""
        for name in names:
            value = self.fields.get(name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{self.where}: {name} must be a whole number >= 1, is {value!r}")
            return value
        if default is None:
            raise ValueError(f"{self.where}: no field {' or '.join(names)}")
        return default

    def value_bytes(self) -> int:
        """Of a number, by `dtype`; 16 bits where it is not said."""
        kind = self.fields.get("dtype") or self.fields.get("torch_dtype") or "bfloat16"
        if kind not in _VALUE_BYTES:
            raise ValueError(
                f"{self.where}: dtype must be one of {', '.join(_VALUE_BYTES)}, is {kind!r}"
            )
        return _VALUE_BYTES[str(kind)]


def _parameters(config: _Config) -> int:
    """Of all matrices, norms and biases."""
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    size = config.count("head_dim", default=hidden // heads)
    queries, keys = heads * size, config.count("num_key_value_heads", default=heads) * size
    vocabulary = config.count("vocab_size") * hidden
    layers = config.count("num_hidden_layers")
    attention = hidden * (2 * queries + 2 * keys)
    if "ffn_dim" in config.fields:  # OPT: two matrices, biases everywhere, learnt positions
        ffn = config.count("ffn_dim")
        layer = attention + queries + 2 * keys + hidden + 2 * hidden * ffn + ffn + hidden
        positions = (config.count("max_position_embeddings") + 2) * hidden
        return vocabulary + positions + layers * (layer + 4 * hidden) + 2 * hidden
    ffn = config.count("intermediate_size")
    layer = attention + 3 * hidden * ffn + 2 * hidden
    if config.fields.get("model_type") in _BIASED_QKV:
        layer += queries + 2 * keys
    ends = vocabulary if config.fields.get("tie_word_embeddings") else 2 * vocabulary
    return ends + layers * layer + hidden
