"""Pseudo text: a deterministic language model of no intelligence.

The next token is a function of all tokens before it, so the same prompt gives the same output on
any route, and a prompt with part of its output appended continues where that output stopped.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from functools import lru_cache

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
_SYLLABLES = tuple(consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS)
_SPREAD = 2654435761
"""Knuth's multiplicative constant: spreads the checksum's low bits over the vocabulary."""


def checksum(token_ids: Sequence[int], *, before: int = 0) -> int:
    """CRC-32 of tokens that follow tokens whose checksum is `before`."""
    return zlib.crc32(array("I", token_ids).tobytes(), before)


def next_token(state: int, *, vocabulary_tokens: int) -> int:
    """The token after a text with this checksum."""
    return ((state * _SPREAD & 0xFFFFFFFF) * vocabulary_tokens) >> 32


@lru_cache(maxsize=1 << 16)
def token_text(token_id: int) -> str:
    """A token's text: a space and a word of two or three syllables."""
    first, second = token_id % 70, token_id // 70 % 70
    third = token_id // 4900
    tail = _SYLLABLES[third % 70] if third else ""
    return f" {_SYLLABLES[first]}{_SYLLABLES[second]}{tail}"


class StopMatcher:
    """Finds the first stop string in a growing text, and holds back what might become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self._held_max = max((len(string) for string in stop), default=1) - 1

    def push(self, text: str) -> tuple[str, bool]:
        """Adds text. Returns what can be delivered, and whether a stop string was found.

        A stop string and what follows it are never delivered.
        """
        if not self._stop:
            return text, False
        text = self._held + text
        found = [index for string in self._stop if (index := text.find(string)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        cut = max(0, len(text) - self._held_max)
        self._held = text[cut:]
        return text[:cut], False

    def flush(self) -> str:
        """The text held back, once nothing follows."""
        held, self._held = self._held, ""
        return held
