"""Prompts of exact lengths."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from readahead.loadgen.prompts import (
    WORDS,
    TextPrompts,
    TokenIdPrompts,
    WordPrompts,
    load_tokenizer,
    plain_token_ids,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A small byte-level BPE, trained on the spot."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    return tokenizer


@pytest.mark.parametrize("tokens", [1, 2, 17, 500])
def test_text_has_exactly_the_tokens_asked_for(tokenizer: Tokenizer, tokens: int) -> None:
    """Counted by the tokenizer itself."""
    for seed in range(5):
        text = TextPrompts(tokenizer).make(tokens, random.Random(seed))
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) == tokens


def test_ids_are_plain_ones(tokenizer: Tokenizer) -> None:
    """Special tokens would end or reshape the prompt."""
    plain = plain_token_ids(tokenizer)
    assert not {0, 1} & set(plain)
    ids = TokenIdPrompts(plain).make(300, random.Random(0))
    assert len(ids) == 300
    assert set(ids) <= set(plain)


def test_words_are_counted() -> None:
    """Without a tokenizer a token is a word."""
    assert len(WordPrompts().make(40, random.Random(0)).split(" ")) == 40


def test_a_tokenizer_is_loaded_from_a_folder(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """And what is none is refused."""
    with pytest.raises(FileNotFoundError):
        load_tokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))
    assert load_tokenizer(tmp_path).get_vocab_size() == tokenizer.get_vocab_size()
    for wrong in ("{}", "[]", "nonsense"):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=r"not a tokenizer|Expecting value"):
            load_tokenizer(tmp_path)
