"""Makes a tiny language model on the spot: for laptops and tests, where no model can be fetched.

It is a Llama of 4 layers with a byte-level BPE tokenizer, both made from the text beside this
file. Nothing is trained: attention and MLP weights are random, and the output layer holds which
token follows which in that text. So it babbles in familiar words, understands nothing, and each
choice among the words that may follow depends on the whole context, which is what tests of KV
caches need. It practically never ends by itself: the end token follows nothing in the text.

The same version and seed give the same bytes. `python -m readahead.cli.up.tiny_model FOLDER`
makes one anywhere.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

    Weights = Mapping[str, npt.NDArray[np.float32]]

VERSION: Final = 1
"""Part of the cache folder's name: raise it with any change to what is made."""

SPECIAL_TOKENS: Final = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>")
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ASSISTANT_ID: Final = SPECIAL_TOKENS.index("<|assistant|>")

LAYERS: Final = 4
LOGIT_SCALE: Final = 20.0
"""Sampling at temperature 1 then stays, nearly always, among tokens that may follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """What to make."""

    seed: int = 0
    dtype: str = "float32"
    """float32, in which greedy output is the same in every batch, or bfloat16."""
    vocabulary_tokens: int = 2048
    hidden: int = 256
    intermediate: int = 512
    layers: int = LAYERS
    """With one it drafts for the whole model: the same tokenizer, the same followers."""
    heads: int = 4
    kv_heads: int = 2
    context_tokens_max: int = 4096

    def __post_init__(self) -> None:
        if self.dtype not in {"float32", "bfloat16"}:
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")

    @property
    def folder_name(self) -> str:
        """Tells apart every model that differs."""
        name = f"tiny-v{VERSION}-{self.dtype}-seed{self.seed}"
        return name if self.layers == LAYERS else f"{name}-layers{self.layers}"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where Readahead keeps what it can make again."""
    if explicit := environ.get("READAHEAD_CACHE"):
        return Path(explicit)
    if xdg := environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "readahead"
    return Path.home() / ".cache" / "readahead"


def ensure(model: TinyModel, environ: Mapping[str, str]) -> Path:
    """The model's folder in the cache; makes it unless it is there."""
    folder = cache_folder(environ) / "models" / model.folder_name
    if not (folder / "config.json").is_file():
        make(model, folder)
    return folder


def make(model: TinyModel, folder: Path) -> None:
    """Writes the model; the folder appears complete or not at all.

    A folder that is already there is replaced, unless another process has just made the same.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        corpus = Path(__file__).with_name("tiny_corpus.txt").read_text(encoding="utf-8")
        tokenizer = _tokenizer(corpus, model)
        tokenizer.save(str(draft / "tokenizer.json"))
        for name, content in _settings(model).items():
            (draft / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        weights = _weights(model, tokenizer.encode(corpus).ids)
        _write_safetensors(draft / "model.safetensors", weights, dtype=model.dtype)
        draft.chmod(0o755)
        if folder.is_dir():
            shutil.rmtree(folder)
        draft.rename(folder)
    except OSError:
        # Another process won the race for the name; its bytes are the same.
        if not (folder / "config.json").is_file():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _tokenizer(corpus: str, model: TinyModel) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=model.vocabulary_tokens,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([corpus], trainer)
    return tokenizer


def _settings(model: TinyModel) -> dict[str, dict[str, object]]:
    bos_id, eos_id = 0, 1
    return {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "bos_token_id": bos_id,
            "dtype": model.dtype,
            "eos_token_id": eos_id,
            "head_dim": model.hidden // model.heads,
            "hidden_act": "silu",
            "hidden_size": model.hidden,
            "intermediate_size": model.intermediate,
            "max_position_embeddings": model.context_tokens_max,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": model.heads,
            "num_hidden_layers": model.layers,
            "num_key_value_heads": model.kv_heads,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
            "tie_word_embeddings": False,
            "vocab_size": model.vocabulary_tokens,
        },
        "generation_config.json": {"bos_token_id": bos_id, "eos_token_id": eos_id},
        "tokenizer_config.json": {
            "backend": "tokenizers",
            "bos_token": SPECIAL_TOKENS[bos_id],
            "chat_template": CHAT_TEMPLATE,
            "eos_token": SPECIAL_TOKENS[eos_id],
            "model_max_length": model.context_tokens_max,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }


def _weights(model: TinyModel, corpus_ids: list[int]) -> Weights:
    """All tensors by their Hugging Face names.

    Inputs of each matrix have unit variance (RMSNorm sees to it), so a gain of 1 means a standard
    deviation of 1/sqrt(fan-in).
    """
    import numpy as np

    rng = np.random.Generator(np.random.PCG64(model.seed))

    def random(outputs: int, inputs: int, *, gain: float = 1.0) -> npt.NDArray[np.float32]:
        drawn = rng.standard_normal((outputs, inputs), dtype=np.float32)
        return drawn * np.float32(gain / np.sqrt(inputs))

    hidden, kv = model.hidden, model.hidden // model.heads * model.kv_heads
    embedding = rng.standard_normal((model.vocabulary_tokens, hidden), dtype=np.float32)
    weights = {"model.embed_tokens.weight": embedding}
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}"
        # Sharp attention (gain above 1) and a loud output keep the context audible in each choice.
        weights |= {
            f"{prefix}.self_attn.q_proj.weight": random(hidden, hidden, gain=1.5),
            f"{prefix}.self_attn.k_proj.weight": random(kv, hidden, gain=1.5),
            f"{prefix}.self_attn.v_proj.weight": random(kv, hidden),
            f"{prefix}.self_attn.o_proj.weight": random(hidden, hidden),
            f"{prefix}.mlp.gate_proj.weight": random(model.intermediate, hidden),
            f"{prefix}.mlp.up_proj.weight": random(model.intermediate, hidden),
            f"{prefix}.mlp.down_proj.weight": random(hidden, model.intermediate, gain=0.5),
            f"{prefix}.input_layernorm.weight": np.ones(hidden, dtype=np.float32),
            f"{prefix}.post_attention_layernorm.weight": np.ones(hidden, dtype=np.float32),
        }
    weights["model.norm.weight"] = np.ones(hidden, dtype=np.float32)
    followers = _followers(corpus_ids)
    noise = random(model.vocabulary_tokens, hidden, gain=0.1)
    table = np.zeros_like(noise)
    for (before, after), score in followers.items():
        table[after] += np.float32(score / hidden) * embedding[before]
    # What follows nothing, special tokens among it, has a logit of 0: far below any word's.
    is_follower = np.any(table != 0.0, axis=1, keepdims=True)
    weights["lm_head.weight"] = np.float32(LOGIT_SCALE) * (table + noise * is_follower)
    return weights


def _followers(corpus_ids: list[int]) -> dict[tuple[int, int], float]:
    """How well a token follows another.

    Less for tokens that follow many, else the sum over all of them would drown the rest; and
    nothing follows itself, else greedy output gets stuck.
    """
    pairs = set(itertools.pairwise(corpus_ids))
    # An answer starts as the text does.
    pairs.add((ASSISTANT_ID, corpus_ids[0]))
    precursors = Counter(after for _, after in pairs)
    scores = {pair: precursors[pair[1]] ** -0.1 for pair in sorted(pairs)}
    return scores | {(token, token): -1.0 for token in sorted(precursors)}


def _write_safetensors(path: Path, weights: Weights, *, dtype: str) -> None:
    """The format is a length, a JSON header and the raw tensors, in the header's order."""
    import numpy as np

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    blobs = []
    offset = 0
    for name, tensor in sorted(weights.items()):
        if dtype == "bfloat16":
            bits = tensor.view(np.uint32)
            rounded = bits + 0x7FFF + ((bits >> 16) & 1)  # to the nearest, ties to even
            blob = (rounded >> 16).astype("<u2").tobytes()
        else:
            blob = tensor.astype("<f4").tobytes()
        header[name] = {
            "dtype": "BF16" if dtype == "bfloat16" else "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)))
        file.write(encoded)
        file.writelines(blobs)


def main(arguments: list[str]) -> int:
    """Makes the model in the folder given, or in the cache."""
    if len(arguments) > 1:
        sys.stderr.write("usage: python -m readahead.cli.up.tiny_model [FOLDER]\n")
        return 2
    if arguments:
        folder = Path(arguments[0])
        make(TinyModel(), folder)
    else:
        folder = ensure(TinyModel(), os.environ)
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
