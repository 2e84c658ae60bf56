"""Contents: what is read of each format, and what is said of malformed entries."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from readahead.workload.contents import (
    FORMATS,
    Asker,
    Content,
    ContentError,
    Exchange,
    read_contents,
)
from readahead.workload.prompts import load_tokenizer

TALK = [
    {
        "id": "a_0",
        "conversations": [
            {"from": "gpt", "value": "Left over from a talk that was cut in two."},
            {"from": "human", "value": "How deep is the lake?"},
            {"from": "gpt", "value": "Forty metres."},
            {"from": "human", "value": "And the river?"},
            {"from": "gpt", "value": "Three, in spring."},
            {"from": "human", "value": "Thanks."},
        ],
    },
    {"id": "b_0", "conversations": []},
    {
        "id": "c_0",
        "conversations": [
            {"from": "system", "value": "Answer in verse."},
            {"from": "user", "value": "Good morning."},
            {"from": "assistant", "value": "The sun is up, the coffee warm."},
        ],
    },
]


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _lines(path: Path, *entries: object) -> Path:
    return _write(path, "".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.mark.parametrize("name", ["talk.json", "talk.json.gz"])
@pytest.mark.parametrize("indent", [None, 2])
def test_sharegpt(tmp_path: Path, name: str, indent: int | None) -> None:
    """Questions with their answers; what nobody asked or answered is left out."""
    file = tmp_path / name
    data = json.dumps(TALK, indent=indent).encode()
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert list(read_contents(file, "sharegpt")) == [
        Content(
            entry=1,
            exchanges=(
                Exchange(text="How deep is the lake?", answer="Forty metres."),
                Exchange(text="And the river?", answer="Three, in spring."),
            ),
        ),
        Content(
            entry=3,
            system="Answer in verse.",
            exchanges=(Exchange(text="Good morning.", answer="The sun is up, the coffee warm."),),
        ),
    ]


def test_toolbench(tmp_path: Path) -> None:
    """Results of tools are asked with, too."""
    entry = {
        "id": "x",
        "conversations": [
            {"from": "system", "value": "You may call weather()."},
            {"from": "user", "value": "Rain today?"},
            {"from": "assistant", "value": "Action: weather()"},
            {"from": "function", "value": '{"rain": true}'},
            {"from": "assistant", "value": "Yes, take a coat."},
        ],
    }
    (content,) = read_contents(_write(tmp_path / "t.json", json.dumps([entry])), "toolbench")
    assert content.system == "You may call weather()."
    assert [one.asker for one in content.exchanges] == [Asker.USER, Asker.TOOL]
    assert content.exchanges[1].answer == "Yes, take a coat."


def test_loogle(tmp_path: Path) -> None:
    """Questions as a list or as its text, one question, or a summary."""
    pairs = [{"Q": "Who rowed?", "A": "Ada", "S": ["line 3"]}, {"Q": "When?", "A": "At dawn"}]
    file = _lines(
        tmp_path / "l.jsonl",
        {"input": "A long tale.", "qa_pairs": pairs, "output": "none"},
        {"input": "A long tale.", "qa_pairs": repr(pairs), "output": "none"},
        {"input": "A paper.", "qa_pairs": "none", "output": "Its abstract."},
        {"context": "A tale.", "question": "Why?", "answer": "Wind."},
    )
    first, second, third, fourth = read_contents(file, "loogle")
    assert first.exchanges == second.exchanges
    assert first.exchanges[0] == Exchange(text="A long tale.\n\nWho rowed?", answer="Ada")
    assert third.exchanges == (Exchange(text="A paper.", answer="Its abstract."),)
    assert fourth.exchanges == (Exchange(text="A tale.\n\nWhy?", answer="Wind."),)


def test_humaneval(tmp_path: Path) -> None:
    """The function's head is asked with, its body is the answer."""
    entry = {
        "task_id": "Own/0",
        "prompt": "def double(x):\n",
        "canonical_solution": "    return 2 * x\n",
        "entry_point": "double",
    }
    (content,) = read_contents(_lines(tmp_path / "h.jsonl", entry), "humaneval")
    assert content.exchanges == (Exchange(text="def double(x):\n", answer="    return 2 * x\n"),)
    assert content.exchanges[0].answer_characters == 17


def test_arxiv(tmp_path: Path) -> None:
    """Both ways in which the set goes round; empty lines are passed over, and counted."""
    file = _write(
        tmp_path / "a.jsonl",
        json.dumps({"article": "We count sheep.", "abstract": "Sheep were counted."})
        + "\n\n"
        + json.dumps({"article_text": ["We.", "Count."], "abstract_text": ["<S> Done . </S>"]})
        + "\n",
    )
    first, second = read_contents(file, "arxiv-summarization")
    assert first.exchanges == (Exchange(text="We count sheep.", answer="Sheep were counted."),)
    assert second == Content(entry=3, exchanges=(Exchange(text="We.\nCount.", answer="Done ."),))


def test_answers_are_counted_with_a_tokenizer(tiny_model: Path) -> None:
    """Without the tokens that it adds around a text."""
    tokenizer = load_tokenizer(tiny_model)
    exchange = Exchange(text="x", answer="and so it was")
    assert exchange.answer_tokens(tokenizer) == len(tokenizer.encode(exchange.answer).ids)


@pytest.mark.parametrize(
    ("content_format", "text", "complaint"),
    [
        ("sharegpt", "{}", "expected a JSON array"),
        ("sharegpt", "", "expected a JSON array"),
        ("sharegpt", '[{"conversations": []}, {]', "entry 2: not JSON"),
        ("sharegpt", '[{"conversations": []} {}]', "entry 1: expected , or ] after it"),
        ("sharegpt", '[{"conversations": []}', "entry 1: expected , or ] after it"),
        ("sharegpt", "[7]", "entry 1: expected an object, got 7"),
        ("sharegpt", '[{"items": []}]', "entry 1: conversations must be a list, is None"),
        ("sharegpt", '[{"conversations": ["x"]}]', "entry 1: turn 1 must be an object"),
        (
            "sharegpt",
            '[{"conversations": [{"from": "poet", "value": "x"}]}]',
            "entry 1: turn 1: from must be one of human, .*, is 'poet'",
        ),
        (
            "toolbench",
            '[{"conversations": [{"from": "user", "value": 3}]}]',
            "entry 1: turn 1: value must be a text, is 3",
        ),
        (
            "humaneval",
            '{"prompt": "x"}\n',
            "entry 1: canonical_solution is missing; fields: prompt",
        ),
        ("humaneval", "\n{}\n", "entry 2: prompt is missing; fields: none"),
        ("humaneval", "{", "entry 1: not JSON"),
        ("arxiv-summarization", '{"article": 5}', "entry 1: article must be a text, is 5"),
        ("loogle", '{"input": "x", "qa_pairs": "[("}', "entry 1: qa_pairs is not a list"),
        ("loogle", '{"input": "x", "qa_pairs": ["y"]}', "entry 1: question 1 must be an object"),
        ("loogle", '{"input": "x"}', "entry 1: output is missing; fields: input"),
    ],
)
def test_a_malformed_entry_is_named(
    tmp_path: Path, content_format: str, text: str, complaint: str
) -> None:
    """With its file, its number and what was expected."""
    file = _write(tmp_path / "broken.data", text)
    with pytest.raises(ContentError, match=f"broken.data: {complaint}"):
        list(read_contents(file, content_format))


def test_entries_before_a_malformed_one_are_given(tmp_path: Path) -> None:
    """Files are read lazily."""
    entries = read_contents(_write(tmp_path / "f.json", json.dumps([TALK[0], 3])), "sharegpt")
    assert next(entries).entry == 1
    with pytest.raises(ContentError, match="entry 2"):
        next(entries)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Neither half a .gz nor Latin-1 passes for a text."""
    half = tmp_path / "half.json.gz"
    half.write_bytes(gzip.compress(json.dumps(TALK).encode())[:-20])
    latin = tmp_path / "latin.json"
    latin.write_bytes('["é"]'.encode("latin-1"))
    for file in (half, latin):
        with pytest.raises(ContentError, match=f"{file.name}: not UTF-8 text, or damaged"):
            list(read_contents(file, "sharegpt"))


def test_an_unknown_format_is_refused_with_the_known(tmp_path: Path) -> None:
    """Before the file is opened."""
    with pytest.raises(ValueError, match=f"called 'csv'; known: {', '.join(FORMATS)}"):
        list(read_contents(tmp_path / "none", "csv"))
