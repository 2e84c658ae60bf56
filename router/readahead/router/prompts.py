"""Text into token ids: the model's tokenizer and chat template."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self, cast

from readahead.core.errors import ReadaheadError, Reason
from readahead.router.checks import invalid
from readahead.router.config import ModelConfig

INLINE_CHARS_MAX = 1024
"""Encoded on the event loop: about 0.2 ms, no dearer than the way to a thread under load."""
ENCODE_THREADS = 2
"""The tokenizer leaves the interpreter lock, so a long prompt does not hold up the loop; a second
thread lets a short one pass it."""
ENCODINGS_MAX = 512
"""Most prompts that wait for a thread; the next one is refused as OVERLOADED."""

_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "tekken*", "spiece*", "*.tiktoken")
_STATED_STRETCHED = frozenset(
    {
        "default",
        "llama3",
        "longrope",
        "su",
        "mrope",
        "yarn",
        "deepseek_yarn",
        "deepseek_llama_scaling",
    }
)
"""Rotary scalings whose configuration gives the stretched length; others give the original."""
_CONTEXT_TOKENS_UNKNOWN = 2**31 - 1
_MODEL_MAX_LENGTH_UNKNOWN = 10**9
"""Tokenizers without a length of their own give 10^30."""


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    chat_template: str | Mapping[str, str] | None
    model_max_length: int

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> Any: ...

    def __len__(self) -> int: ...

    def get_vocab(self) -> Mapping[str, int]: ...

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
    ) -> str: ...


class Prompts:
    """Encodes prompts of one model, in threads where that takes more than a millisecond."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        name: str,
        context_tokens_max: int,
        vocabulary_tokens: int,
        think_end: str = "",
    ) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._context_tokens_max = context_tokens_max
        self._vocabulary_tokens = vocabulary_tokens
        token_chars_max = max((len(token) for token in tokenizer.get_vocab()), default=1)
        self._text_chars_max = context_tokens_max * token_chars_max
        self._think_end = think_end
        self._threads = ThreadPoolExecutor(ENCODE_THREADS, thread_name_prefix="encode")
        self._encodings = 0

    @classmethod
    def load(cls, config: ModelConfig) -> Self:
        """Reads a model's folder. Blocks for about a second, most of it imports.

        Raises:
            ValueError: the folder has no usable model configuration or tokenizer; says which.
        """
        folder = Path(config.path)
        settings = _model_settings(folder)
        tokenizer = _tokenizer(folder)
        return cls(
            tokenizer,
            name=config.name or folder.resolve().name,
            context_tokens_max=_context_tokens_max(settings, tokenizer.model_max_length),
            vocabulary_tokens=_vocabulary_tokens(settings, tokenizer),
            think_end=config.think_end,
        )

    @property
    def name(self) -> str:
        """The name that callers use."""
        return self._name

    @property
    def context_tokens_max(self) -> int:
        """Prompt and output together, as the model's folder says; a worker may hold less."""
        return self._context_tokens_max

    @property
    def vocabulary_tokens(self) -> int:
        """Token ids are below this."""
        return self._vocabulary_tokens

    @cached_property
    def think_end_token_id(self) -> int | None:
        """With this token the model's thinking ends; None: it has none."""
        return self.token_id(self._think_end)

    def token_id(self, text: str) -> int | None:
        """The one token that a text is; None: it is none, or several."""
        if not 0 < len(text) <= INLINE_CHARS_MAX:
            return None
        found = self._token_ids(text, add_special_tokens=False)
        return found[0] if len(found) == 1 else None

    async def encode(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the special tokens that the tokenizer puts around it.

        Raises:
            ReadaheadError: CONTEXT_TOO_LONG, OVERLOADED.
        """
        return await self._run(
            lambda: self._token_ids(text, add_special_tokens=True),
            chars=len(text),
            parameter="prompt",
        )

    async def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a conversation, up to where the assistant's next turn starts.

        The template writes its own special tokens, so none are added.

        Raises:
            ReadaheadError: UNSUPPORTED (no chat template), INVALID_REQUEST (the template refuses
                the messages), CONTEXT_TOO_LONG, OVERLOADED.
        """
        if not self._tokenizer.chat_template:
            raise ReadaheadError(
                Reason.UNSUPPORTED,
                f"The model {self._name} has no chat template; use completions.",
                parameter="messages",
            )
        return await self._run(
            lambda: self._token_ids(self._render(messages), add_special_tokens=False),
            chars=sum(len(message.get("content") or "") for message in messages),
            parameter="messages",
        )

    def close(self) -> None:
        """Lets the threads go. Encodings under way are finished first."""
        self._threads.shutdown(wait=False)

    async def _run(self, work: Callable[[], list[int]], *, chars: int, parameter: str) -> list[int]:
        if chars > self._text_chars_max:
            raise ReadaheadError(
                Reason.CONTEXT_TOO_LONG,
                f"The prompt has {chars} characters, more than fit into the model's context of "
                f"{self._context_tokens_max} tokens.",
                parameter=parameter,
                metadata={"context_tokens_max": str(self._context_tokens_max)},
            )
        if chars <= INLINE_CHARS_MAX:
            return work()
        if self._encodings >= ENCODINGS_MAX:
            raise ReadaheadError(
                Reason.OVERLOADED,
                "Too many prompts wait to be tokenised.",
                retry_after_s=1.0,
                metadata={"encodings_max": str(ENCODINGS_MAX)},
            )
        self._encodings += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._encodings -= 1

    def _token_ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        encoded = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        return cast("list[int]", encoded.input_ids)  # untyped library

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise invalid(
                f"The model's chat template does not take these messages: {error}",
                parameter="messages",
            ) from error


def _model_settings(folder: Path) -> Mapping[str, Any]:
    file = folder / "config.json"
    try:
        settings = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"model.path: {folder} has no config.json") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"model.path: {file} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"model.path: {file} does not hold a JSON object")
    nested = settings.get("text_config")  # of models that also take images
    return {**settings, **nested} if isinstance(nested, dict) else settings


def _tokenizer(folder: Path) -> Tokenizer:
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
        raise ValueError(f"model.path: {folder} has no tokenizer")
    logging.getLogger("transformers").addFilter(_is_not_about_torch)
    from transformers import AutoTokenizer

    try:
        return cast("Tokenizer", AutoTokenizer.from_pretrained(folder, local_files_only=True))
    except (OSError, ValueError, ImportError, KeyError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"model.path: the tokenizer in {folder} fails: {first_line}") from error


def _is_not_about_torch(record: logging.LogRecord) -> bool:
    """A router runs no models, so that PyTorch is missing is not worth a warning."""
    return "PyTorch was not found" not in record.getMessage()


def _vocabulary_tokens(settings: Mapping[str, Any], tokenizer: Tokenizer) -> int:
    """Rows of the embedding; a tokenizer may know fewer ids, or some that have no row."""
    rows = settings.get("vocab_size")
    return rows if isinstance(rows, int) and rows > 0 else len(tokenizer)


def _context_tokens_max(settings: Mapping[str, Any], tokenizer_length: int) -> int:
    lengths = list(_whole_numbers(settings.get(key) for key in _CONTEXT_KEYS))
    if lengths:
        return int(min(lengths) * _rope_factor(settings))
    if tokenizer_length < _MODEL_MAX_LENGTH_UNKNOWN:
        return tokenizer_length
    return _CONTEXT_TOKENS_UNKNOWN


def _rope_factor(settings: Mapping[str, Any]) -> float:
    """How far rotary scaling stretches the stated length, by vLLM's rule."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling")
    if not isinstance(rope, dict):
        return 1.0
    factor = rope.get("factor")
    kind = rope.get("rope_type") or rope.get("type")
    if kind is None or kind in _STATED_STRETCHED:
        return 1.0
    return float(factor) if isinstance(factor, (int, float)) and factor > 1 else 1.0


def _whole_numbers(values: Iterable[object]) -> Iterable[int]:
    return (value for value in values if isinstance(value, int) and value > 0)
