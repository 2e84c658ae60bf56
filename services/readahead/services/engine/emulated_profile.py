"""What the emulated engine pretends to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from readahead.core.config import require
from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G, Curve, LatencyModel
from readahead.core.latency.zero_load import zero_load_curve
from readahead.services.config import EngineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedProfile:
    """A model on a device behind a link."""

    model: str
    latency: LatencyModel = LLAMA_3_1_8B_A100_80G
    vocabulary_tokens: int = 128_000
    context_tokens_max: int = 8192
    block_tokens: int = 16
    """vLLM's default on CUDA."""
    kv_blocks: int = 26_000
    """About 55 GB: 80 GB x 0.9, less 16 GB of weights."""
    requests_max: int = 128
    batch_tokens_max: int = 2048
    kv_token_bytes: int = 131_072
    """Bytes that one token's KV has on the modelled link: 32 layers, 8 KV heads of 128, bf16."""
    link_bytes_per_s: float = 7.8e9
    """One NIC between A100 nodes (Vidur's send_recv, 64 MB)."""
    link_latency_s: float = 29e-6

    def __post_init__(self) -> None:
        require("vocabulary_tokens", self.vocabulary_tokens, least=1)
        require("context_tokens_max", self.context_tokens_max, least=2)
        require("block_tokens", self.block_tokens, least=1)
        require("kv_blocks", self.kv_blocks, least=1)
        require("requests_max", self.requests_max, least=1)
        require("batch_tokens_max", self.batch_tokens_max, least=1)
        if self.context_tokens_max > self.kv_blocks * self.block_tokens:
            raise ValueError("context_tokens_max must fit in kv_blocks, or a request never ends")
        require("link_bytes_per_s", self.link_bytes_per_s, least=1)
        require("link_latency_s", self.link_latency_s, least=0)

    def transfer_s(self, tokens: int) -> float:
        """Seconds that the KV of so many tokens takes on the link, alone there."""
        seconds = self.link_latency_s + tokens * self.kv_token_bytes / self.link_bytes_per_s
        return self.latency.time_scale * seconds

    def zero_load(self) -> Curve:
        """Seconds to the first token of a prompt alone, by its tokens."""
        return zero_load_curve(
            self.latency,
            context_tokens_max=self.context_tokens_max,
            batch_tokens_max=self.batch_tokens_max,
        )

    @classmethod
    def load(cls, config: EngineConfig) -> EmulatedProfile:
        """The profile for these settings.

        Vocabulary and context are the model folder's, where there is one; so is a token's size in
        `kv_bytes` of memory. Times are always those of the default device.
        """
        folder = _folder_facts(config.model_path)
        profile = cls(model=config.model_name or Path(config.model_path).name or "emulated")
        context = config.context_tokens_max or int(
            folder.get("max_position_embeddings", profile.context_tokens_max)
        )
        kv_blocks = profile.kv_blocks
        if config.kv_bytes:
            token_bytes = _kv_token_bytes(folder) or profile.kv_token_bytes
            kv_blocks = max(1, config.kv_bytes // (token_bytes * profile.block_tokens))
        return replace(
            profile,
            latency=replace(profile.latency, time_scale=config.emulated_time_scale),
            vocabulary_tokens=int(folder.get("vocab_size", profile.vocabulary_tokens)),
            context_tokens_max=min(context, kv_blocks * profile.block_tokens),
            kv_blocks=kv_blocks,
            requests_max=config.requests_max,
            batch_tokens_max=config.batch_tokens_max,
        )


def _folder_facts(model_path: str) -> Mapping[str, Any]:
    """The model's config.json, or nothing."""
    file = Path(model_path) / "config.json"
    if not model_path or not file.is_file():
        return {}
    facts: dict[str, Any] = json.loads(file.read_text())
    return facts


def _kv_token_bytes(folder: Mapping[str, Any]) -> int:
    """2 x layers x KV heads x head size x 2 bytes; 0 where the folder does not say."""
    heads = int(folder.get("num_attention_heads", 0))
    if not heads:
        return 0
    head_size = int(folder.get("head_dim") or int(folder.get("hidden_size", 0)) // heads)
    kv_heads = int(folder.get("num_key_value_heads") or heads)
    return 2 * int(folder.get("num_hidden_layers", 0)) * kv_heads * head_size * 2
