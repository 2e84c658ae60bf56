"""Texts from files that people have: what was asked, and how long the answer was.

The files are read lazily, and are never part of the project.
"""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class ContentError(ValueError):
    """An entry is not what its format says; names the file and the entry."""


class Asker(StrEnum):
    """Who speaks to the model."""

    USER = "user"
    TOOL = "tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and its reference answer."""

    text: str
    answer: str
    asker: Asker = Asker.USER

    @property
    def answer_characters(self) -> int:
        """Length of the reference answer."""
        return len(self.answer)

    def answer_tokens(self, tokenizer: Tokenizer) -> int:
        """The same in tokens, without those that a tokenizer adds around a text."""
        return len(tokenizer.encode(self.answer, add_special_tokens=False).ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One entry of a file."""

    entry: int
    """Its number in the file, from 1."""
    exchanges: tuple[Exchange, ...]
    system: str = ""


Entry = Mapping[str, object]


def read_contents(path: Path, content_format: str) -> Iterator[Content]:
    """The entries of a file, one after the other; a name ending in .gz is unpacked.

    Raises:
        ContentError: an entry is malformed.
        OSError: the file cannot be read.
        ValueError: no such format; the message lists those there are.
    """
    if content_format not in FORMATS:
        raise ValueError(
            f"no content format is called {content_format!r}; known: {', '.join(FORMATS)}"
        )
    entries, convert = FORMATS[content_format]
    for number, raw in entries(path):
        try:
            if not isinstance(raw, dict):
                raise ValueError(f"expected an object, got {_shown(raw)}")
            content = convert(number, raw)
        except ValueError as error:
            raise ContentError(f"{path}: entry {number}: {error}") from error
        if content.exchanges:
            yield content


def _read(path: Path) -> str:
    data = path.read_bytes()
    try:
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise ContentError(f"{path}: not UTF-8 text, or damaged: {error}") from error


def _json_lines(path: Path) -> Iterator[tuple[int, object]]:
    """One JSON value a line; empty lines count, and are passed over."""
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ContentError(f"{path}: entry {number}: not JSON: {error}") from error


def _json_array(path: Path) -> Iterator[tuple[int, object]]:
    """The values of one JSON array, decoded one by one: such files are large."""
    text, decoder = _read(path), json.JSONDecoder()
    at = _next(text, 0)
    if text[at : at + 1] != "[":
        raise ContentError(f"{path}: expected a JSON array, got {_shown(text[at : at + 20])}")
    number, at = 0, _next(text, at + 1)
    while text[at : at + 1] != "]":
        number += 1
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise ContentError(f"{path}: entry {number}: not JSON: {error}") from error
        yield number, value
        at = _next(text, at)
        if text[at : at + 1] == ",":
            at = _next(text, at + 1)
        elif text[at : at + 1] != "]":
            raise ContentError(f"{path}: entry {number}: expected , or ] after it")


def _next(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "function": "tool",
    "tool": "tool",
    "observation": "tool",
}
"""Names for who speaks, in the files that go round."""


def _conversation(number: int, raw: Entry) -> Content:
    """ShareGPT and ToolBench: `conversations`, a list of `from` and `value`.

    Turns that nobody answers are left out, and so is an answer that nobody asked for: shards of
    ShareGPT begin in the middle.
    """
    turns = raw.get("conversations")
    if not isinstance(turns, list):
        raise ValueError(f"conversations must be a list, is {_shown(turns)}")
    system, asked, asker = "", "", Asker.USER
    exchanges: list[Exchange] = []
    for place, turn in enumerate(turns, start=1):
        role, value = _turn(turn, place)
        match role:
            case "system":
                system = f"{system}\n{value}" if system else value
            case "assistant":
                if asked:
                    exchanges.append(Exchange(text=asked, answer=value, asker=asker))
                asked = ""
            case _:
                asked = f"{asked}\n{value}" if asked else value
                asker = Asker(role)
    return Content(entry=number, system=system, exchanges=tuple(exchanges))


def _turn(turn: object, place: int) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise ValueError(f"turn {place} must be an object, is {_shown(turn)}")
    speaker, value = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if not isinstance(speaker, str) or speaker not in _ROLES:
        raise ValueError(
            f"turn {place}: from must be one of {', '.join(_ROLES)}, is {_shown(speaker)}"
        )
    if not isinstance(value, str):
        raise ValueError(f"turn {place}: value must be a text, is {_shown(value)}")
    return _ROLES[speaker], value


def _loogle(number: int, raw: Entry) -> Content:
    """LooGLE: one long `input` (or `context`) with questions on it, or to be summarised.

    `qa_pairs` is a list, or a list written as a text; "none" for the entries to be summarised,
    whose summary is `output`. The long text comes before each question.
    """
    text = _text(raw, "input", "context")
    pairs = raw.get("qa_pairs", "none")
    if isinstance(pairs, str) and pairs.strip().lower() != "none":
        pairs = _literal(pairs)
    if isinstance(pairs, list):
        exchanges = []
        for place, pair in enumerate(pairs, start=1):
            if not isinstance(pair, dict):
                raise ValueError(f"question {place} must be an object, is {_shown(pair)}")
            question, answer = _text(pair, "Q", "question"), _text(pair, "A", "answer")
            exchanges.append(Exchange(text=f"{text}\n\n{question}", answer=answer))
        return Content(entry=number, exchanges=tuple(exchanges))
    if "question" in raw:
        one = Exchange(text=f"{text}\n\n{_text(raw, 'question')}", answer=_text(raw, "answer"))
        return Content(entry=number, exchanges=(one,))
    return Content(entry=number, exchanges=(Exchange(text=text, answer=_text(raw, "output")),))


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"qa_pairs is not a list of questions: {error}") from error


def _humaneval(number: int, raw: Entry) -> Content:
    """HumanEval: `prompt`, to be completed as `canonical_solution`."""
    one = Exchange(text=_text(raw, "prompt"), answer=_text(raw, "canonical_solution"))
    return Content(entry=number, exchanges=(one,))


def _arxiv(number: int, raw: Entry) -> Content:
    """arXiv summarization: `article` and `abstract`, or both as lists of sentences."""
    article, abstract = (
        _text(raw, "article", "article_text"),
        _text(raw, "abstract", "abstract_text"),
    )
    abstract = abstract.replace("<S>", "").replace("</S>", "").strip()
    return Content(entry=number, exchanges=(Exchange(text=article, answer=abstract),))


def _text(raw: Entry, *names: str) -> str:
    """The first of these fields that is there, as a text."""
    for name in names:
        value = raw.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            return "\n".join(value)
        if name in raw:
            raise ValueError(f"{name} must be a text, is {_shown(value)}")
    raise ValueError(f"{' or '.join(names)} is missing; fields: {', '.join(sorted(raw)) or 'none'}")


def _shown(value: object) -> str:
    """The beginning of a value, for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


Entries = Callable[[Path], Iterator[tuple[int, object]]]

FORMATS: Mapping[str, tuple[Entries, Callable[[int, Entry], Content]]] = {
    "sharegpt": (_json_array, _conversation),
    "loogle": (_json_lines, _loogle),
    "humaneval": (_json_lines, _humaneval),
    "arxiv-summarization": (_json_lines, _arxiv),
    "toolbench": (_json_array, _conversation),
}
"""How each is split into entries, and what an entry becomes."""
