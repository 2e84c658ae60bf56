"""Prompts of a given length. Random, so that no two share a prefix by accident."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

_TEXT = (
    "the of and to in is that it was for on are as with his they at be this from have or by one "
    "had not but what all were when we there can an your which their said if do will each about "
    "how up out them then she many some so these would other into has more her two like him see "
    "time could no make than first been its who now people my made over did down only way find "
    "use may water long little very after words called just where most know get through back "
    "much before go good new write our used me man too any day same right look think also around"
)
WORDS = tuple(_TEXT.split())
"""Common English words: one token each, or nearly, with most tokenizers."""


class Prompts(Protocol):
    """Makes prompts."""

    def make(self, tokens: int, rng: random.Random) -> str | Sequence[int]:
        """A prompt of this length."""
        ...


class WordPrompts:
    """Plain words, for a server whose tokenizer is not known; its length is about one word a
    token, and what it really was is for the server to say."""

    def make(self, tokens: int, rng: random.Random) -> str:
        """That many words."""
        return " ".join(rng.choices(WORDS, k=tokens))


class TokenIdPrompts:
    """Token ids, exactly as many as asked for."""

    def __init__(self, vocabulary: Sequence[int]) -> None:
        self._vocabulary = vocabulary

    def make(self, tokens: int, rng: random.Random) -> Sequence[int]:
        """That many ids."""
        return rng.choices(self._vocabulary, k=tokens)


class TextPrompts:
    """Text that a given tokenizer turns into exactly as many tokens as asked for.

    For a chat the server's template adds its own tokens to that.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._is_one_token = [word for word in WORDS if self._count(f" {word}") == 1] or ["a"]

    def make(self, tokens: int, rng: random.Random) -> str:
        """Words, then as many of the shortest pieces as are missing.

        A word costs a known, fixed number of tokens where the tokenizer splits at spaces, as
        byte-level ones do; the count is checked and corrected for those that do not.
        """
        words: list[str] = rng.choices(self._is_one_token, k=tokens)
        count = self._count(_join(words))
        for _ in range(tokens):
            if count == tokens or (count > tokens and len(words) == 1):
                break
            if count > tokens:
                del words[-max(1, (count - tokens) // 2) :]
            else:
                words.extend(rng.choices(self._is_one_token, k=tokens - count))
            words = words or [self._is_one_token[0]]
            count = self._count(_join(words))
        return _join(words)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _join(words: Sequence[str]) -> str:
    return "".join(f" {word}" for word in words)


def load_tokenizer(model_path: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face model folder.

    Raises:
        OSError: there is none.
        ValueError: it cannot be read.
    """
    file = model_path / "tokenizer.json"
    text = file.read_text(encoding="utf-8")
    content = json.loads(text)  # the library's own error for what is not JSON has no type
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(f"{file} is not a tokenizer")
    return Tokenizer.from_str(text)


def plain_token_ids(tokenizer: Tokenizer) -> list[int]:
    """All ids but the special ones, ascending."""
    special = {
        token_id
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
        if token.special
    }
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return sorted(set(vocabulary.values()) - special)
