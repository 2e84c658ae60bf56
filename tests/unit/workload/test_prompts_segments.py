"""Prompts have as many tokens as planned, and equal segments equal text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from readahead.workload.prompts import (
    WORDS,
    TextPrompts,
    TokenIdPrompts,
    WordPrompts,
    load_tokenizer,
    plain_token_ids,
)
from readahead.workload.session import Segment

CORPUS = [" ".join(WORDS[start : start + 12]) for start in range(0, len(WORDS), 5)] * 3
KINDS = ["byte level", "word start", "word start always", "sentencepiece", "no split"]


def _trained(kind: str) -> Tokenizer:
    """A small BPE tokenizer that treats spaces as one of those in use does."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    alphabet: list[str] = []
    match kind:
        case "byte level":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
        case "word start":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        case "word start always":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        case "sentencepiece":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>"],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if kind != "sentencepiece":
        return tokenizer
    written = json.loads(tokenizer.to_str())  # such files have a normaliser, and split nowhere
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepended = [{"type": "Prepend", "prepend": "▁"}, spaces]
    written |= {
        "normalizer": {"type": "Sequence", "normalizers": prepended},
        "pre_tokenizer": None,
    }
    return Tokenizer.from_str(json.dumps(written))


@pytest.fixture(scope="module", params=KINDS)
def prompts(request: pytest.FixtureRequest) -> TextPrompts:
    """For each kind of tokenizer."""
    return TextPrompts(_trained(request.param), seed=11)


@pytest.mark.parametrize(
    "lengths", [(1,), (2,), (7,), (500,), (3, 1), (1, 1, 1), (40, 200, 3), (2000, 1, 60)]
)
def test_prompts_have_exactly_the_planned_tokens(
    prompts: TextPrompts, lengths: tuple[int, ...]
) -> None:
    """Whole prompts, of one segment or of many."""
    segments = [Segment(f"s/{index}", tokens) for index, tokens in enumerate(lengths)]
    assert prompts.count(prompts.prompt(segments)) == sum(lengths)


def test_equal_segments_have_equal_text(prompts: TextPrompts) -> None:
    """So that prompts which begin with the same ones share a prefix, and only those."""
    shared = Segment("acme/system", 50)
    first = prompts.prompt([shared, Segment("a/0", 30)])
    second = prompts.prompt([shared, Segment("b/0", 80)])
    beginning = prompts.prompt([shared])
    common = min(len(beginning), len(first), len(second))
    words = len(beginning[:common].split()) - 4
    assert first.split()[:words] == second.split()[:words]
    assert first.split()[-20:] != second.split()[-20:]
    other = prompts.prompt([Segment("other/system", 50), Segment("a/0", 30)])
    assert other.split()[:8] != first.split()[:8]


def test_where_words_are_tokens_nothing_is_encoded_again() -> None:
    """Then segments add up exactly; a tokenizer without spaces is known for what it is."""
    adds_up = {kind: TextPrompts(_trained(kind), seed=1).adds_up for kind in KINDS}
    assert adds_up == {
        "byte level": True,
        "word start": True,
        "word start always": True,
        "sentencepiece": True,
        "no split": False,
    }


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_segments_add_up_to_the_prompt(
    byte_level: Tokenizer, lengths: list[int], seed: int
) -> None:
    """Text and count of a prompt are those of its segments, one after the other."""
    prompts = TextPrompts(byte_level, seed=seed)
    segments = [Segment(f"{index}", tokens) for index, tokens in enumerate(lengths)]
    texts = [prompts.segment(segment) for segment in segments]
    assert prompts.prompt(segments) == "".join(texts)
    assert [prompts.count(text) for text in texts] == lengths
    assert prompts.count("".join(texts)) == sum(lengths)
    assert prompts.count("".join(texts).strip()) == sum(lengths)  # as a chat template may


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    """The commonest kind."""
    return _trained("byte level")


def test_the_toy_models_tokenizer_adds_up(tiny_model: Path) -> None:
    """The model on which everything is tried out."""
    prompts = TextPrompts(load_tokenizer(tiny_model), seed=0)
    assert prompts.adds_up
    assert prompts.count(prompts.prompt([Segment("a", 3000), Segment("b", 17)])) == 3017


def test_token_ids_are_exact_and_plain(tiny_model: Path) -> None:
    """No special ones; equal segments equal ids; the whole vocabulary is used."""
    vocabulary = plain_token_ids(load_tokenizer(tiny_model))
    prompts = TokenIdPrompts(vocabulary, seed=5)
    ids = prompts.prompt([Segment("a", 100), Segment("b", 60_000)])
    assert len(ids) == 60_100
    assert set(ids) == set(vocabulary)
    assert min(vocabulary) == 5  # after the special ones
    assert ids[:100] == prompts.segment(Segment("a", 100))
    assert ids[:100] != TokenIdPrompts(vocabulary, seed=6).segment(Segment("a", 100))
    with pytest.raises(ValueError, match="vocabulary is empty"):
        TokenIdPrompts([], seed=0)


def test_words_are_for_servers_whose_tokenizer_is_unknown() -> None:
    """As many words as tokens were planned."""
    prompts = WordPrompts(seed=2)
    text = prompts.prompt([Segment("a", 10), Segment("b", 5)])
    assert len(text.split()) == 15
    assert set(text.split()) <= set(WORDS)
    assert text == WordPrompts(seed=2).prompt([Segment("a", 10), Segment("b", 5)])
    assert text != WordPrompts(seed=3).prompt([Segment("a", 10), Segment("b", 5)])


def test_text_does_not_change_between_versions() -> None:
    """A workload file is to mean the same next year."""
    assert WordPrompts(seed=1).segment(Segment("s0/0", 6)) == " look that their my these made"
    assert TokenIdPrompts(range(1000), seed=1).segment(Segment("s0/0", 4)) == [925, 399, 625, 179]


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    """By file."""
    with pytest.raises(OSError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(tmp_path)
