"""An engine's KV cache as numbered blocks of bytes.

vLLM has a tensor per layer; a block's bytes here are those of all its layers, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from readahead.services.kv.memory import runs_of


class BlockMemory:
    """Copies blocks between the KV cache and the rows of a host tensor."""

    def __init__(self, kv_caches: Mapping[str, torch.Tensor], *, blocks: int) -> None:
        """Args:
            kv_caches: a tensor per layer; its blocks come first, or second after keys and values.
            blocks: how many there are.

        Raises:
            ValueError: a layer's blocks are not contiguous bytes.
        """
        parts: list[torch.Tensor] = []
        shapes: list[str] = []
        for layer, tensor in kv_caches.items():
            if tensor.shape[0] == blocks:
                split = [tensor]
            elif tensor.dim() > 1 and tensor.shape[1] == blocks:
                split = list(tensor.unbind(0))
            else:
                raise ValueError(f"layer {layer}: no {blocks} blocks in shape {list(tensor.shape)}")
            for part in split:
                if not part.is_contiguous():
                    raise ValueError(f"layer {layer}: its blocks are not contiguous")
                parts.append(part)
                shapes.append("x".join(map(str, part.shape[1:])))
        if not parts:
            raise ValueError("the KV cache has no layers")
        self._blocks = blocks
        self._words, self._word_bytes = _as_words(parts, blocks)
        self._ends = _ends([each.shape[1] for each in self._words])
        self.block_bytes = self._ends[-1] * self._word_bytes
        self.dtype = ",".join(sorted({str(each.dtype).removeprefix("torch.") for each in parts}))
        runs = dict.fromkeys(shapes)
        self.layout = ";".join(f"{shapes.count(shape)}*{shape}" for shape in runs)

    def gather(self, ids: Sequence[int], rows: torch.Tensor, slots: Sequence[int]) -> None:
        """Copies cache blocks into host rows; done when it returns.

        On a GPU it runs on the current stream, so after whatever computed the blocks.
        """
        chosen, runs = self._index(ids), runs_of(slots)
        target = rows.view(self._words[0].dtype)
        for words, begin, end in zip(self._words, (0, *self._ends), self._ends, strict=False):
            for first, last in runs:
                out = target[slots[first] : slots[first] + last - first, begin:end]
                if words.device.type == "cpu":  # one copy
                    torch.index_select(words, 0, chosen[first:last], out=out)
                else:
                    out.copy_(words.index_select(0, chosen[first:last]))

    def scatter(self, ids: Sequence[int], rows: torch.Tensor, slots: Sequence[int]) -> None:
        """Copies host rows into cache blocks; done when it returns."""
        chosen, runs = self._index(ids), runs_of(slots)
        source = rows.view(self._words[0].dtype)
        for words, begin, end in zip(self._words, (0, *self._ends), self._ends, strict=False):
            for first, last in runs:
                piece = source[slots[first] : slots[first] + last - first, begin:end]
                if words.device.type == "cpu":  # numpy copies whole rows, torch word by word
                    words.numpy()[chosen[first:last].numpy()] = piece.numpy()
                else:
                    words.index_copy_(0, chosen[first:last], piece.to(words.device))
        if self._words[0].device.type == "cuda":
            torch.cuda.current_stream(self._words[0].device).synchronize()

    def _index(self, ids: Sequence[int]) -> torch.Tensor:
        if not ids or min(ids) < 0 or max(ids) >= self._blocks:
            raise ValueError(f"blocks must be within 0..{self._blocks - 1}")
        return torch.tensor(ids, dtype=torch.int64, device=self._words[0].device)


def _as_words(parts: Sequence[torch.Tensor], blocks: int) -> tuple[list[torch.Tensor], int]:
    """The parts as (blocks, words), in the widest words that fit: those copy fastest."""
    raw = [part.view(torch.uint8).view(blocks, -1) for part in parts]
    if all(each.shape[1] % 8 == 0 for each in raw):
        return [each.view(torch.int64) for each in raw], 8
    return raw, 1


def _ends(sizes: Sequence[int]) -> tuple[int, ...]:
    ends, end = [], 0
    for size in sizes:
        end += size
        ends.append(end)
    return tuple(ends)
