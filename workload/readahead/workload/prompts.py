"""Prompts for the segments of a turn: as many tokens as planned, equal text for equal keys.

What a segment says depends on nothing but the workload's seed, its key and its length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from readahead.workload.session import Segment

if TYPE_CHECKING:
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

TABLE_WORDS = 256
"""A byte chooses a word: that is what makes this fast."""
CORRECTIONS_MAX = 64
"""How often words are added or taken where the tokenizer joins them; it takes two or three."""
FINE_TOKENS = 4
"""So few missing tokens are sought one by one."""
FILLING = (" z", " q", " x", " j", "z", "q", "x", "j", "k", "v", "w", "y")
"""Letters that seldom grow together with what stands before them."""


class Prompts(Protocol):
    """Turns planned segments into what is sent."""

    def segment(self, segment: Segment) -> str | Sequence[int]:
        """One stretch, alone."""
        ...

    def prompt(self, segments: Sequence[Segment]) -> str | Sequence[int]:
        """A whole prompt."""
        ...


class WordPrompts:
    """Plain words, for a server whose tokenizer is not known; the length is about one word a
    token, and what it really was is for the server to say."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._table = _table(WORDS)

    def segment(self, segment: Segment) -> str:
        """That many words, each after a space."""
        return _words(self._table, self._seed, segment)

    def prompt(self, segments: Sequence[Segment]) -> str:
        """The segments, one after the other."""
        return "".join(map(self.segment, segments))


class TokenIdPrompts:
    """Token ids, exactly as many as planned."""

    def __init__(self, vocabulary: Sequence[int], *, seed: int) -> None:
        if not vocabulary:
            raise ValueError("the vocabulary is empty")
        self._seed = seed
        self._vocabulary = np.asarray(vocabulary, dtype=np.int64)

    def segment(self, segment: Segment) -> list[int]:
        """That many ids."""
        drawn = np.frombuffer(_stream(self._seed, segment, 4 * segment.tokens), dtype="<u4")
        indices = (drawn.astype(np.uint64) * np.uint64(len(self._vocabulary))) >> np.uint64(32)
        ids: list[int] = self._vocabulary[indices.astype(np.int64)].tolist()
        return ids

    def prompt(self, segments: Sequence[Segment]) -> list[int]:
        """The segments, one after the other."""
        return [token for segment in segments for token in self.segment(segment)]


class TextPrompts:
    """Text that a given tokenizer turns into exactly as many tokens as planned.

    Words are such as are one token each. Where the tokenizer splits at spaces, as nearly all do,
    counts then add up, over segments too, and nothing is encoded after the start. Where it joins
    words, or adds to the first, each text is counted and corrected at its end; see `adds_up`.

    For a chat the server's template adds its own tokens. Each word is one token without its space
    too, if the tokenizer has enough such, because templates may trim.
    """

    def __init__(self, tokenizer: Tokenizer, *, seed: int) -> None:
        self._tokenizer = tokenizer
        self._seed = seed
        words = self._one_token_words()
        self._table = _table(words)
        self._starts_with_space = True
        self.adds_up = self._is_additive()
        """Whether a prompt's length is the sum of its segments' by construction. Otherwise the end
        of a prompt's last segment may differ, by a few words, from that of the segment alone."""
        if not self.adds_up:
            self._starts_with_space = False
            self.adds_up = self._is_additive()
        self._corrected = lru_cache(maxsize=4096)(self._correct)

    def count(self, text: str) -> int:
        """Tokens of a text, without those that the tokenizer adds around it."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def segment(self, segment: Segment) -> str:
        """One stretch, with a space before it, which a prompt that begins with it may lose."""
        if self.adds_up:
            return _words(self._table, self._seed, segment)
        return self._corrected(segment)

    def prompt(self, segments: Sequence[Segment]) -> str:
        """The segments, one after the other."""
        text = self._started("".join(map(self.segment, segments)))
        if self.adds_up:
            return text
        return self._with_count(text, sum(segment.tokens for segment in segments))

    def _one_token_words(self) -> tuple[str, ...]:
        """At most 256, common English first, then whole words of the vocabulary by their id."""
        by_id = sorted(self._tokenizer.get_vocab(with_added_tokens=False).items(), key=_by_id)
        candidates = list(dict.fromkeys((*WORDS, *_plain_words(token for token, _ in by_id))))
        spaced_counts = self._counts(f" {word}" for word in candidates)
        bare_counts = self._counts(candidates)
        spaced = [word for word, count in zip(candidates, spaced_counts, strict=True) if count == 1]
        bare = [word for word, count in zip(candidates, bare_counts, strict=True) if count == 1]
        both = sorted(set(spaced) & set(bare), key=candidates.index)
        enough = next((words for words in (both, spaced, bare) if len(words) >= 16), WORDS)
        return tuple(enough[:TABLE_WORDS])

    def _counts(self, texts: Iterable[str]) -> list[int]:
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(one.ids) for one in encoded]

    def _is_additive(self) -> bool:
        """Every two words of the table meet the count, and so do halves put together."""
        probes = [Segment(f"probe-{index}", 512) for index in range(16)]
        texts = [_words(self._table, self._seed, probe) for probe in probes]
        pairs = zip(texts[0].split(), texts[1].split(), strict=True)
        texts += [f" {first} {second}" for first, second in pairs]
        texts += self._table
        texts += [first + second for first, second in zip(texts[:8], texts[8:16], strict=True)]
        counts = self._counts(map(self._started, texts))
        return counts == [len(text.split(" ")) - 1 for text in texts]

    def _started(self, text: str) -> str:
        return text if self._starts_with_space else text.removeprefix(" ")

    def _correct(self, segment: Segment) -> str:
        text = self._started(_words(self._table, self._seed, segment))
        return f" {self._with_count(text, segment.tokens).removeprefix(' ')}"

    def _with_count(self, text: str, tokens: int) -> str:
        """The text with its end changed until it has so many tokens.

        Where no ending gives that count, the nearest found below it.
        """
        fresh = iter(_words(self._table, self._seed, Segment(text[-64:], 4 * tokens)).split())
        for _ in range(CORRECTIONS_MAX):
            missing = tokens - self.count(text)
            if 0 <= missing <= FINE_TOKENS:
                break
            if missing < 0:
                kept = text.split(" ")
                text = " ".join(kept[: max(0, len(kept) - max(1, -missing // 2))])
            else:
                added = [word for word, _ in zip(fresh, range(missing), strict=False)]
                text = self._started(" ".join((text, *added)))
        return self._filled(text, tokens)

    def _filled(self, text: str, tokens: int) -> str:
        """Adds the few tokens that are missing, by trying one word or letter after the other."""
        count = self.count(text)
        for piece in (*FILLING, *self._table) * FINE_TOKENS:
            if count == tokens:
                break
            longer = text + piece
            if count < (found := self.count(longer)) <= tokens:
                text, count = longer, found
        return text


def load_tokenizer(model_path: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face model folder.

    Raises:
        OSError: there is none.
        ValueError: it cannot be read.
    """
    from tokenizers import Tokenizer

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


def _by_id(item: tuple[str, int]) -> int:
    return item[1]


def _plain_words(tokens: Iterable[str]) -> Iterable[str]:
    """Lower-case words among a vocabulary's tokens that begin one: Ġ and ▁ stand for a space."""
    for token in tokens:
        word = token[1:]
        is_start = token[:1] in {"Ġ", "▁"}
        is_plain = word.isascii() and word.isalpha() and word.islower()
        if is_start and is_plain and 2 <= len(word) <= 12:
            yield word


def _table(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(f" {words[index % len(words)]}" for index in range(TABLE_WORDS))


def _stream(seed: int, segment: Segment, size: int) -> bytes:
    """The segment's own random bytes."""
    name = f"{seed}/{segment.tokens}/{segment.key}"
    return hashlib.shake_128(name.encode("utf-8")).digest(size)


def _words(table: Sequence[str], seed: int, segment: Segment) -> str:
    return "".join(map(table.__getitem__, _stream(seed, segment, segment.tokens)))
