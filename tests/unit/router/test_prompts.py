"""Text into token ids."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_sessions import FakeTokenizer

from readahead.core.errors import ReadaheadError, Reason
from readahead.router import prompts as module
from readahead.router.config import ModelConfig
from readahead.router.prompts import INLINE_CHARS_MAX, Prompts

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}"
    "{% endif %}<s>{{ m.role }}:{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def make_folder(folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, **config: Any) -> Path:
    """A byte-level tokenizer of 258 tokens that puts <s> in front of plain text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {char: index + 2 for index, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    if chat_template is not None:
        about["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "config.json").write_text(
        json.dumps(
            {"model_type": "llama", "vocab_size": 300, "max_position_embeddings": 2048} | config
        )
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "bytes")


@pytest.fixture(scope="module")
def prompts(folder: Path) -> Prompts:
    return Prompts.load(ModelConfig(path=str(folder)))


def test_prompts_facts(prompts: Prompts, folder: Path) -> None:
    """Name, context and vocabulary come from the folder; a name that is set wins."""
    assert prompts.name == "bytes"
    assert prompts.context_tokens_max == 2048
    assert prompts.vocabulary_tokens == 300  # rows of the embedding, not tokens of the tokenizer
    assert Prompts.load(ModelConfig(path=str(folder), name="other")).name == "other"


async def test_plain_text_gets_special_tokens(prompts: Prompts) -> None:
    """Completions start with the tokenizer's own start token."""
    token_ids = await prompts.encode("ab")
    assert token_ids[0] == 0
    assert len(token_ids) == 3


async def test_chat_gets_those_of_its_template_only(prompts: Prompts) -> None:
    """The template writes the start token; a second one is not put in front of it."""
    token_ids = await prompts.encode_chat([{"role": "user", "content": "ab"}])
    assert token_ids.count(0) == 2
    assert token_ids[0] == 0
    assert token_ids[1] != 0
    assert token_ids.count(1) == 1


async def test_long_text_is_encoded_beside_the_loop(prompts: Prompts) -> None:
    """Many long prompts at once come out as one at a time does."""
    texts = [chr(ord("a") + index) * (INLINE_CHARS_MAX + index) for index in range(20)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(prompts.encode(text[:2000])) for text in texts]
    alone = [await prompts.encode(text[:2000]) for text in texts]
    assert [task.result() for task in tasks] == alone


async def test_text_that_cannot_fit_is_not_encoded(prompts: Prompts) -> None:
    """More characters than the longest tokens could hold are refused at once."""
    with pytest.raises(ReadaheadError) as caught:
        await prompts.encode("x" * (2048 * 4 + 1))
    assert caught.value.reason is Reason.CONTEXT_TOO_LONG
    assert caught.value.metadata == {"context_tokens_max": "2048"}


async def test_template_refuses(prompts: Prompts) -> None:
    """What the template raises is the caller's to know."""
    with pytest.raises(ReadaheadError, match="no tools here") as caught:
        await prompts.encode_chat([{"role": "tool", "content": "x"}])
    assert (caught.value.reason, caught.value.parameter) == (Reason.INVALID_REQUEST, "messages")


async def test_no_template(tmp_path: Path) -> None:
    """Chat is unsupported without a template."""
    prompts = Prompts.load(ModelConfig(path=str(make_folder(tmp_path, chat_template=None))))
    with pytest.raises(ReadaheadError) as caught:
        await prompts.encode_chat([{"role": "user", "content": "x"}])
    assert caught.value.reason is Reason.UNSUPPORTED


class SlowTokenizer(FakeTokenizer):
    """Encodes when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may_encode = threading.Event()
        self.threads: set[str] = set()

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Any:
        self.may_encode.wait(10)
        self.threads.add(threading.current_thread().name)
        return super().__call__(text, add_special_tokens=add_special_tokens, verbose=verbose)


async def test_waiting_prompts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than fits is OVERLOADED; the loop is free meanwhile; those in wait are encoded."""
    monkeypatch.setattr(module, "ENCODINGS_MAX", 3)
    tokenizer = SlowTokenizer()
    prompts = Prompts(tokenizer, name="m", context_tokens_max=9999, vocabulary_tokens=256)
    text = "x" * (INLINE_CHARS_MAX + 1)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(prompts.encode(text)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ReadaheadError) as caught:
            await prompts.encode(text)
        tokenizer.may_encode.set()
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s == 1.0
    assert all(len(task.result()) == len(text) + 1 for task in tasks)
    assert threading.current_thread().name not in tokenizer.threads
    assert await prompts.encode(text)  # there is room again
    prompts.close()


def test_folder_is_missing(tmp_path: Path) -> None:
    """Each lack is named."""
    with pytest.raises(ValueError, match=r"has no config\.json"):
        Prompts.load(ModelConfig(path=str(tmp_path / "nowhere")))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        Prompts.load(ModelConfig(path=str(tmp_path)))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="does not hold a JSON object"):
        Prompts.load(ModelConfig(path=str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="has no tokenizer"):
        Prompts.load(ModelConfig(path=str(tmp_path)))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"the tokenizer in .* fails"):
        Prompts.load(ModelConfig(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("config", "context_tokens_max"),
    [
        ({}, 2048),
        ({"n_positions": 1024}, 1024),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 8192),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 2048),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, 2048),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 2048),
        ({"text_config": {"max_position_embeddings": 64}}, 64),
        ({"max_position_embeddings": None}, 2**31 - 1),
    ],
)
def test_context_length(config: dict[str, Any], context_tokens_max: int) -> None:
    """The context is what vLLM would make of the same configuration."""
    settings = {"max_position_embeddings": 2048} | config
    nested = settings.get("text_config") or {}
    assert module._context_tokens_max(settings | nested, 10**30) == context_tokens_max


def test_router_needs_no_torch(folder: Path) -> None:
    """The router's image has no torch: prompts must load, encode and stay quiet without it."""
    script = f"""
import asyncio, importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda n, p=None: None if n.split(".")[0] == "torch" else find_spec(n, p)
sys.modules["torch"] = None
from readahead.router.config import ModelConfig
from readahead.router.prompts import Prompts
assert "transformers" not in sys.modules, "imported before it is needed"
prompts = Prompts.load(ModelConfig(path={str(folder)!r}))
print(len(asyncio.run(prompts.encode("ab"))))
assert sys.modules["torch"] is None
assert "vllm" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
