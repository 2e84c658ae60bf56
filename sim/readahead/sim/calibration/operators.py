"""Iteration times composed from published tables of operators.

Operators of one layer are added up, times the layers, plus the head. That is the time of the
kernels, not of serving: the host's part comes on top (`LatencyModel.host_base_s`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator

from readahead.core.latency.iteration import IterationWork
from readahead.sim.calibration.points import Points, kind_of, number_of, rows_of
from readahead.sim.calibration.profiles import Architecture

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROMPTS: Final = (16, 32, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
CONTEXTS: Final = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
PAST_TOKENS_MAX: Final = 524_288
_ELEMENTWISE_PASSES: Final = 10
"""Times that a layer reads or writes its hidden state outside matrices and attention: two norms,
two residual sums, each with input and output, and rotation."""
_BANDWIDTH_SHARE: Final = 0.8


def read_llmservingsim(attention: Path, dense: Path, per_sequence: Path, *, layers: int) -> Points:
    """Iterations from LLMServingSim's tables of one device: attention, dense and per_sequence.

    One per row of the attention table, which was measured in mixed batches too.

    Raises:
        ValueError: a column is missing or a value is no number; names file, line and field.
    """
    by_tokens = _curves(dense, "tokens")
    by_sequences = _curves(per_sequence, "sequences")
    once = {"embedding", "final_layernorm"}
    twice = {"layernorm": 2}

    def device_us(tokens: int, requests: int, attention_us: float) -> float:
        layer_us = sum(
            twice.get(name, 1) * float(np.interp(tokens, *curve))
            for name, curve in by_tokens.items()
            if name not in once
        )
        head_us = sum(float(np.interp(requests, *curve)) for curve in by_sequences.values())
        ends_us = sum(float(np.interp(tokens, *by_tokens[n])) for n in once & by_tokens.keys())
        return layers * (layer_us + attention_us) + head_us + ends_us

    def rows() -> Iterator[tuple[str, IterationWork, float]]:
        names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")
        for where, row in rows_of(attention, names):
            chunk, before, count, each = (int(number_of(row, name, where)) for name in names[:4])
            work = IterationWork(
                tokens=count, requests=count, past_tokens=count * each, prefill_pairs=0
            ).with_chunk(chunk, before_tokens=before)
            took_us = device_us(work.tokens, work.requests, number_of(row, "time_us", where))
            yield kind_of(work), work, took_us / 1e6

    return Points.of(rows())


def _curves(path: Path, size: str) -> Mapping[str, tuple[list[float], list[float]]]:
    """Per layer, sizes and times; the median where a size comes twice."""
    times: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for where, row in rows_of(path, ("layer", size, "time_us")):
        times[row["layer"]][number_of(row, size, where)].append(number_of(row, "time_us", where))
    return {
        layer: (sorted(of), [median(of[value]) for value in sorted(of)])
        for layer, of in times.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTable:
    """Times of one layer's attention over (batch, tokens each, tokens before), interpolated."""

    of: LinearNDInterpolator
    varying: tuple[int, ...]
    """Which of the three sizes differ within the table."""

    @classmethod
    def read(cls, path: Path, *, heads: int, kv_heads: int) -> AttentionTable:
        """The rows of one shape.

        Raises:
            ValueError: the table has no row of that shape.
        """
        names = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "latency_ms")
        times: dict[tuple[float, ...], list[float]] = defaultdict(list)
        shapes: set[tuple[int, int]] = set()
        for where, row in rows_of(path, names):
            batch, isl, step, has, has_kv, took_ms = (number_of(row, n, where) for n in names)
            shapes.add((int(has), int(has_kv)))
            if (int(has), int(has_kv)) == (heads, kv_heads):
                times[batch, isl, step].append(took_ms)
        if not times:
            known = ", ".join(f"{h}/{k}" for h, k in sorted(shapes))
            raise ValueError(f"{path.name}: no rows of {heads}/{kv_heads} heads; it has {known}")
        sizes = np.log1p(np.array(list(times)))
        took_ms_log = np.log([median(values) for values in times.values()])
        varying = tuple(column for column in range(3) if np.ptp(sizes[:, column]) > 0)
        return cls(of=LinearNDInterpolator(sizes[:, varying], took_ms_log), varying=varying)

    def seconds(self, batch: int, tokens: int, before: int) -> float | None:
        """None outside what was measured."""
        sizes = np.log1p([[batch, tokens, before]])[:, self.varying]
        value = float(self.of(sizes)[0])
        return None if np.isnan(value) else float(np.exp(value)) / 1e3


class GemmTable:
    """Times of m x n x k products, on a grid; powers of their sizes between its points."""

    def __init__(self, path: Path) -> None:
        self._by_shape: dict[tuple[int, int], dict[float, float]] = defaultdict(dict)
        for where, row in rows_of(path, ("m", "n", "k", "latency_ms")):
            m, n, k, took_ms = (number_of(row, f, where) for f in ("m", "n", "k", "latency_ms"))
            self._by_shape[int(n), int(k)][m] = took_ms / 1e3
        if not self._by_shape:
            raise ValueError(f"{path.name}: holds no product")

    def seconds(self, m: int, n: int, k: int) -> float:
        """Of one product. The shape nearest in n and k stands for it, times the ratio of areas."""
        nearest = min(
            self._by_shape, key=lambda nk: abs(np.log(nk[0] / n)) + abs(np.log(nk[1] / k))
        )
        curve = self._by_shape[nearest]
        sizes = sorted(curve)
        logs: NDArray[np.float64] = np.log([curve[size] for size in sizes])
        took_s = float(np.exp(np.interp(np.log(m), np.log(sizes), logs)))
        beyond = max(1.0, m / sizes[-1])
        return took_s * beyond * (n * k) / (nearest[0] * nearest[1])


class VidurTable:
    """Times of one layer without its attention, by tokens: Vidur's `mlp.csv`, one GPU alone."""

    _ONCE: Final = ("emb_ms",)
    _TWICE: Final = ("add_ms",)

    def __init__(self, path: Path) -> None:
        times: dict[float, dict[str, float]] = {}
        for where, row in rows_of(path, ("num_tokens", "mlp_up_proj_ms", "attn_post_proj_ms")):
            alone = row.get("tp") or row.get("num_tensor_parallel_workers")
            if alone != "1":
                continue
            names = [name for name in row if name.endswith("_ms")]
            if all(row[name] for name in names):
                tokens = number_of(row, "num_tokens", where)
                times[tokens] = {name: number_of(row, name, where) for name in names}
        if not times:
            raise ValueError(f"{path.name}: no row of one GPU with all of its operators")
        self._sizes = sorted(times)
        self._layer_ms = [
            sum(
                value * (2 if name in self._TWICE else 1)
                for name, value in times[size].items()
                if name not in self._ONCE
            )
            for size in self._sizes
        ]
        self._once_ms = [times[size][self._ONCE[0]] for size in self._sizes]

    def seconds(self, tokens: int, *, layers: int) -> float | None:
        """Of all layers and the embedding; None beyond what was measured."""
        if not self._sizes[0] <= tokens <= self._sizes[-1]:
            return None
        layer_ms = float(np.interp(tokens, self._sizes, self._layer_ms))
        return (layers * layer_ms + float(np.interp(tokens, self._sizes, self._once_ms))) / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseTimes:
    """An iteration without its attention."""

    architecture: Architecture
    gemm: GemmTable
    memory_bytes_per_s: float
    vidur: VidurTable | None = None
    """In place of the layers' products."""

    def seconds(self, tokens: int, requests: int) -> float | None:
        """Of all layers and the head; None beyond what was measured."""
        a = self.architecture
        head_s = self.gemm.seconds(requests, a.vocabulary, a.hidden)
        if self.vidur is not None:
            layers_s = self.vidur.seconds(tokens, layers=a.layers)
            return None if layers_s is None else layers_s + head_s
        width = a.heads * a.head_size
        passes = _ELEMENTWISE_PASSES * a.hidden + 3 * a.ffn
        layer_s = (
            self.gemm.seconds(tokens, width + 2 * a.kv_heads * a.head_size, a.hidden)
            + self.gemm.seconds(tokens, a.hidden, width)
            + self.gemm.seconds(tokens, 2 * a.ffn, a.hidden)
            + self.gemm.seconds(tokens, a.hidden, a.ffn)
            + 2 * tokens * passes / (_BANDWIDTH_SHARE * self.memory_bytes_per_s)
        )
        return a.layers * layer_s + head_s


def compose_aiconfigurator(
    folder: Path,
    *,
    prefix: str,
    architecture: Architecture,
    memory_bytes_per_s: float,
    vidur_mlp: Path | None = None,
) -> Points:
    """Iterations of an architecture from aiconfigurator's tables `<prefix>_gemm_bf16.csv.gz`,
    `_context_attention` and `_generation_attention`; mixed ones add both attentions up.

    With `vidur_mlp` the layers' products are of that table of the same model and device.

    Raises:
        OSError: a table is not there.
        ValueError: a table is not of the format, or lacks the architecture's heads.
    """
    dense = DenseTimes(
        architecture=architecture,
        gemm=GemmTable(folder / f"{prefix}_gemm_bf16.csv.gz"),
        memory_bytes_per_s=memory_bytes_per_s,
        vidur=None if vidur_mlp is None else VidurTable(vidur_mlp),
    )
    heads = {"heads": architecture.heads, "kv_heads": architecture.kv_heads}
    context = AttentionTable.read(folder / f"{prefix}_context_attention.csv.gz", **heads)
    decode = AttentionTable.read(folder / f"{prefix}_generation_attention.csv.gz", **heads)

    def row(
        prompts: int, each: int, count: int, past: int
    ) -> tuple[str, IterationWork, float] | None:
        prompt_s = context.seconds(prompts, each, 0) if prompts else 0.0
        decode_s = decode.seconds(count, 1, past - 1) if count else 0.0
        dense_s = dense.seconds(prompts * each + count, prompts + count)
        if prompt_s is None or decode_s is None or dense_s is None:
            return None
        work = IterationWork(
            tokens=prompts * each + count,
            requests=prompts + count,
            past_tokens=count * past,
            prefill_pairs=prompts * each * (each + 1) // 2,
        )
        attention_s = architecture.layers * (prompt_s + decode_s)
        return kind_of(work), work, dense_s + attention_s

    tried = [row(p, n, 0, 0) for p in BATCHES for n in PROMPTS if p * n <= 8192]
    fitting = [(b, c) for b in BATCHES for c in CONTEXTS if b * c <= PAST_TOKENS_MAX]
    tried += [row(0, 0, b, c) for b, c in fitting]
    tried += [row(1, n, b, c) for n in PROMPTS[2:] for b, c in fitting]
    rows = [one for one in tried if one is not None]
    if not rows:
        raise ValueError(f"{prefix}: no iteration lies within what was measured")
    return Points.of(rows)
