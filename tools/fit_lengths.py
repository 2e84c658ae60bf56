"""Writes the shipped length distributions from the public traces, which are not part of the tree.

python tools/fit_lengths.py --data DIR            write them
python tools/fit_lengths.py --data DIR --check    exit 1 iff one is out of date
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from readahead.workload.lengths_fitted import fitted_from

TARGET = Path(__file__).resolve().parent.parent / "workload" / "readahead" / "workload" / "fitted"

Floats = npt.NDArray[np.float64]
Record = dict[str, object]

PER_CENTS = tuple(round(index / 100, 2) for index in range(1, 100))
TAILS = (0.0001, 0.0005, 0.001, 0.002, 0.005)
LEVELS = (0.0, *TAILS, *PER_CENTS, *(round(1 - tail, 4) for tail in reversed(TAILS)), 1.0)
"""Where tables have their points: each per cent, and closer at the ends."""

FROM_ROWS = (
    "quantiles at fixed levels of the distribution function, with each whole length spread evenly"
    " over one token around it, so that rounding gives it back; prompt and output tied by the"
    " rows' shares in a grid of levels, even within a cell"
)
GRID_EDGES = (
    0.0,
    0.01,
    0.02,
    0.05,
    *(round(i / 10, 1) for i in range(1, 10)),
    0.95,
    0.98,
    0.99,
    1.0,
)
"""Closer at the ends, where the arXiv rows hang together: long outputs have short prompts."""

UNKNOWN_TOKENIZER = "of the service, not published"
UNKNOWN_CORRELATION = "not published; taken as independent"
CHECK_POINTS = 200_000
"""Evenly spaced levels at which the fit is compared with its source: no sampling, so no noise."""


class Steps(NamedTuple):
    """A distribution function through its points."""

    tokens: Floats
    share_below: Floats


def main() -> int:
    """Writes, or checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with traces/")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = []
    for name, text in rendered(arguments.data / "traces").items():
        file = TARGET / f"{name}.json"
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
        if not arguments.check:
            file.write_text(text, encoding="utf-8")
    print("out of date:" if arguments.check else "changed:", ", ".join(stale) or "none")
    return int(arguments.check and bool(stale))


def rendered(traces: Path) -> dict[str, str]:
    """Each file's content, by the distribution's name."""
    return {name: json_text({"name": name, **fit(traces)}) for name, fit in FITS.items()}


def json_text(record: Mapping[str, object]) -> str:
    """JSON with one field a line, so that a change shows as one."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def rows_of(file: Path) -> dict[str, Floats]:
    """Columns of a CSV, compressed or not."""
    data = file.read_bytes()
    text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def steps_of_rows(tokens: Floats) -> Steps:
    """Each whole length k holds its share, spread evenly over k - 1/2 to k + 1/2."""
    values, counts = np.unique(tokens, return_counts=True)
    share = np.cumsum(counts) / tokens.size
    edges = np.ravel(np.column_stack((values - 0.5, values + 0.5)))
    below = np.ravel(np.column_stack((np.concatenate(([0.0], share[:-1])), share)))
    return Steps(edges, below)


def steps_of_bins(bins: list[tuple[float, float, float]], shift: float) -> Steps:
    """Bins (low, high, share); `shift` -0.5 for whole lengths, of which high is left out."""
    edges = np.array([bins[0][0], *(high for _, high, _ in bins)]) + shift
    shares = np.array([share for *_, share in bins])
    return Steps(edges, np.concatenate(([0.0], np.cumsum(shares) / shares.sum())))


def table_of(steps: Steps, decimals: int = 2) -> Record:
    """The quantiles at LEVELS."""
    values = np.interp(LEVELS, steps.share_below, steps.tokens)
    values[0], values[-1] = steps.tokens[0], steps.tokens[-1]
    rounded = [float(round(value, decimals)) for value in values.tolist()]
    return {"quantiles": list(LEVELS), "values": rounded}


def summary(values: Floats) -> Record:
    """Mean and percentiles."""
    named = {"mean": values.mean(), **{f"p{at}": np.percentile(values, at) for at in (50, 90, 99)}}
    return {name: float(f"{value:.6g}") for name, value in named.items()}


def drawn(table: Record) -> Floats:
    """What the table gives at evenly spaced levels, as whole tokens."""
    middles = (np.arange(CHECK_POINTS) + 0.5) / CHECK_POINTS
    levels, values = (np.array(table[name], dtype=np.float64) for name in ("quantiles", "values"))
    result: Floats = np.maximum(np.rint(np.interp(middles, levels, values)), 1)
    return result


def goodness_of_rows(tokens: Floats, table: Record) -> Record:
    """Source against fit, and the largest distance of the distribution functions."""
    fit = np.sort(drawn(table))
    at = np.unique(np.concatenate((tokens, fit)))
    ours = np.searchsorted(fit, at, side="right") / fit.size
    theirs = np.searchsorted(np.sort(tokens), at, side="right") / tokens.size
    distance = float(np.abs(ours - theirs).max())
    return {"source": summary(tokens), "fit": summary(fit), "ks": round(distance, 6)}


def ranks(values: Floats) -> Floats:
    """Ranks from 0, ties at their middle."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    result: Floats = middle[inverse]
    return result


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's."""
    return round(float(np.corrcoef(ranks(first), ranks(second))[0, 1]), 4)


def grid_of(prompt: Floats, output: Floats) -> Record:
    """Shares of the rows in cells of their levels, balanced to the cells' widths."""
    order = np.random.default_rng(0).permutation(prompt.size)  # so that ties fall anyhow
    levels = [np.empty(prompt.size), np.empty(prompt.size)]
    for level, values in zip(levels, (prompt[order], output[order]), strict=True):
        level[np.argsort(values, kind="stable")] = (np.arange(values.size) + 0.5) / values.size
    edges = np.array(GRID_EDGES)
    shares, *_ = np.histogram2d(levels[0], levels[1], bins=[edges, edges])
    widths = np.diff(GRID_EDGES)
    for _ in range(200):
        shares *= (widths / shares.sum(axis=1))[:, None]
        shares *= widths / shares.sum(axis=0)
    rows = [[round(share, 9) for share in row] for row in shares.tolist()]
    return {"edges": list(GRID_EDGES), "shares": rows}


def joint_of(prompt: Floats, output: Floats, record: Record) -> Record:
    """How far the two hang together, in the source and in 200,000 draws of the fit."""
    fitted = fitted_from({"name": "", "rows": 0, "method": "", **record})
    drawn_prompt, drawn_output = fitted.draw_many(np.random.default_rng(0), CHECK_POINTS)
    result: Record = {}
    for name, first, second in (
        ("source", prompt, output),
        ("fit", drawn_prompt.astype(np.float64), drawn_output.astype(np.float64)),
    ):
        result[name] = {
            "total_tokens": summary(first + second),
            "total_tokens_max": int((first + second).max()),
            "rank_correlation": rank_correlation(first, second),
            "log_correlation": round(float(np.corrcoef(np.log(first), np.log(second))[0, 1]), 4),
        }
    return result


def from_rows(columns: dict[str, Floats], *, about: Record) -> Record:
    """A record from rows of prompt and output lengths."""
    prompt, output = columns["input_tokens"], columns["output_tokens"]
    prompt_table, output_table = (table_of(steps_of_rows(one)) for one in (prompt, output))
    record = {
        **about,
        "rows": int(prompt.size),
        "method": FROM_ROWS,
        "prompt_tokens": prompt_table,
        "output_tokens": output_table,
        "rank_correlation": rank_correlation(prompt, output),
        "rank_correlation_basis": "measured",
        "grid": grid_of(prompt, output),
    }
    goodness = {
        "prompt_tokens": goodness_of_rows(prompt, prompt_table),
        "output_tokens": goodness_of_rows(output, output_table),
    }
    return {**record, "goodness": goodness, "joint": joint_of(prompt, output, record)}


def arrival_facts(arrivals_s: Floats, note: str = "") -> Record:
    """Rate, coefficient of variation of the gaps, index of dispersion in whole seconds."""
    gaps_s = np.diff(arrivals_s)
    counts = np.bincount(np.floor(arrivals_s).astype(np.int64))[:-1]  # the last second is cut
    return {
        "rate_req_s": round(float(arrivals_s.size / (arrivals_s[-1] - arrivals_s[0])), 4),
        "gap_cv": round(float(gaps_s.std() / gaps_s.mean()), 4),
        "dispersion_1s": round(float(counts.var() / counts.mean()), 4),
        "note": note,
    }


def of_rows(file: str, *, note: str = "", **about: str) -> Callable[[Path], Record]:
    """A trace, or a set of texts, of which the rows are at hand; `about` is origin, commit,
    licence and tokenizer."""

    def fit(traces: Path) -> Record:
        columns = rows_of(traces / file)
        arrivals_s = columns.get("arrival_s")
        facts = None if arrivals_s is None else arrival_facts(arrivals_s, note)
        stated: Record = {"tokenizer": UNKNOWN_TOKENIZER, **about}
        return {**from_rows(columns, about=stated), "thinking_share": None, "arrivals": facts}

    return fit


def azure2024(service: str) -> Callable[[Path], Record]:
    """One of the services of 2024: digitised quantiles, exact statistics."""

    def fit(traces: Path) -> Record:
        exact = json.loads((traces / "azure2024_stats.json").read_text(encoding="utf-8"))[service]
        text = (traces / "azure2024_length_quantiles_digitized.csv").read_text(encoding="utf-8")
        rows = [row for row in csv.DictReader(text.splitlines()) if row["service"] == service]
        tables, goodness = {}, {}
        for field, short in (("input", "in"), ("output", "out")):
            own = [row for row in rows if row["field"] == field]
            points = sorted((float(row["quantile"]), float(row["tokens"])) for row in own)
            table = table_of(digitised(points, float(exact[f"{short}_max"])))
            ours = f"{'prompt' if field == 'input' else 'output'}_tokens"
            tables[ours] = table
            source = {name: exact[f"{short}_{name}"] for name in ("mean", "p50", "p90", "p99")}
            goodness[ours] = {"source": source, "fit": summary(drawn(table)), "ks": None}
        return {
            "origin": "Azure/AzurePublicDataset analysis/AzureLLMInferenceDataset2024.ipynb",
            "commit": "of the notebook's published outputs, 2024",
            "licence": "CC-BY 4.0",
            "tokenizer": UNKNOWN_TOKENIZER,
            "rows": exact["n"],
            "method": "quantiles digitised from the notebook's plots and pinned to its exact p50,"
            " p90, p95 and p99; outputs below p50 are interpolated there; above p99.5 an"
            " exponential tail here, to the exact maximum; the rows themselves are not at hand",
            **tables,
            "rank_correlation": 0.0,
            "rank_correlation_basis": UNKNOWN_CORRELATION,
            "goodness": goodness,
            "thinking_share": None,
            "arrivals": {
                "rate_req_s": exact["rps"],
                "gap_cv": None,
                "dispersion_1s": None,
                "note": f"mean of a week; coefficient of variation of the hourly rate"
                f" {exact['hourly_cov']}; weekday peak to trough"
                f" {exact['weekday_peak_to_trough']}",
            },
        }

    return fit


def digitised(points: list[tuple[float, float]], largest: float) -> Steps:
    """Points read off a plot, made monotone; above the last an exponential tail to the maximum.

    A straight line from p99.5 to the maximum would raise the mean of the code service by half.
    """
    levels, tokens = (np.array(column) for column in zip(*points, strict=True))
    inside = (levels > 0) & (levels < 1)
    levels, tokens = levels[inside], np.maximum.accumulate(tokens[inside])
    above, before = 1 - levels[-1], 1 - levels[-3]  # p99.5, p98.5
    growth = (tokens[-1] - tokens[-3]) / math.log(before / above)
    tail = np.array([0.002, 0.001, 0.0005, 0.0001])
    tokens = np.concatenate((tokens, tokens[-1] + growth * np.log(above / tail), [largest]))
    levels = np.concatenate((levels, 1 - tail, [1.0]))
    first = min(1.0, float(tokens[0]))
    tokens = np.concatenate(([first], np.minimum(tokens, largest)))
    return Steps(tokens, np.concatenate(([0.0], levels)))


def deepseek_r1(traces: Path) -> Record:
    """The reasoning service in ServeGen: histograms, weighted by the clients' rates."""
    text = (traces / "servegen_deepseek-r1_hist.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    rates = rows_of(traces / "servegen_deepseek-r1_rate.csv")
    bins = {
        field: [
            (float(row["lo"]), float(row["hi"]), float(row["prob"]))
            for row in rows
            if row["field"] == field
        ]
        for field in ("input_tokens", "output_tokens", "reason_ratio")
    }
    prompt = table_of(steps_of_bins(bins["input_tokens"], -0.5))
    output = table_of(steps_of_bins(bins["output_tokens"], -0.5))
    share = table_of(steps_of_bins(bins["reason_ratio"], 0.0), decimals=5)
    rate = rates["rate_rps"]
    return {
        "origin": "alibaba/ServeGen data/ (deepseek-r1 on Alibaba Cloud Model Studio)",
        "commit": "not stated with the extract",
        "licence": "Apache-2.0",
        "tokenizer": UNKNOWN_TOKENIZER,
        "rows": len(rows),
        "method": "quantiles of token histograms (rows are bins), weighted by the clients' rates,"
        " even within a bin; thinking_share from the histogram of reason_ratio, independent of"
        " the lengths",
        "prompt_tokens": prompt,
        "output_tokens": output,
        "rank_correlation": 0.0,
        "rank_correlation_basis": UNKNOWN_CORRELATION,
        "goodness": {
            "prompt_tokens": goodness_of_bins(bins["input_tokens"], prompt),
            "output_tokens": goodness_of_bins(bins["output_tokens"], output),
        },
        "thinking_share": share,
        "arrivals": {
            "rate_req_s": round(float(rate.mean()), 4),
            "gap_cv": round(float(np.average(rates["rate_weighted_cv"], weights=rate)), 4),
            "dispersion_1s": None,
            "note": "mean of a day; gap_cv is the mean of the single clients', weighted by rate",
        },
    }


def goodness_of_bins(bins: list[tuple[float, float, float]], table: Record) -> Record:
    """As `goodness_of_rows`, at the bins' edges; the source is even within a bin."""
    steps = steps_of_bins(bins, -0.5)
    source = drawn({"quantiles": steps.share_below, "values": steps.tokens})
    fit = np.sort(drawn(table))
    ours = np.searchsorted(fit, steps.tokens, side="right") / fit.size
    distance = float(np.abs(ours - steps.share_below).max())
    return {"source": summary(source), "fit": summary(fit), "ks": round(distance, 6)}


def azure2023(service: str) -> Callable[[Path], Record]:
    """One of the services of 2023."""
    return of_rows(
        f"azure2023_{service}.csv.gz",
        origin=f"Azure/AzurePublicDataset data/AzureLLMInferenceTrace_{service}.csv",
        commit="b469a11",
        licence="CC-BY 4.0",
    )


FITS: dict[str, Callable[[Path], Record]] = {
    "arxiv-summarization": of_rows(
        "arxiv_summarization_lengths_llama2.csv.gz",
        origin="microsoft/vidur data/processed_traces (arXiv summarization, <= 4,096 in all)",
        commit="7d47513",
        licence="MIT",
        tokenizer="Llama-2",
    ),
    "azure2023-code": azure2023("code"),
    "azure2023-conv": azure2023("conv"),
    "azure2024-code": azure2024("coding"),
    "azure2024-conv": azure2024("conv"),
    "deepseek-r1": deepseek_r1,
    "mooncake-conversation": of_rows(
        "mooncake_conversation_compact.csv.gz",
        origin="kvcache-ai/Mooncake FAST25-release/traces/conversation_trace.jsonl",
        commit="3b5a594",
        licence="Apache-2.0",
        note="time stamps stand in steps of about 3 s, so that gap_cv and dispersion_1s are those"
        " of the steps; spread arrivals within a step before use",
    ),
    "sharegpt": of_rows(
        "sharegpt_10k_lengths_llama2.csv.gz",
        origin="AKafakA/vidur_opt_scheduler data/trace_data/sharegpt/sharegpt_val_10k_llama2.csv",
        commit="20bdc49",
        licence="MIT repository; counts derived from ShareGPT",
        tokenizer="Llama-2",
    ),
}

if __name__ == "__main__":
    sys.exit(main())
