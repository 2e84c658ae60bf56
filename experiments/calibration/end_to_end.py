"""Predicts whole measured batches and iterations with the shipped profiles.

Run: python experiments/calibration/end_to_end.py DATA
where DATA holds e2e/argonne_a100_h100_gh200.csv.gz, e2e/dynamo_h200_llama3.1-8b-fp8_*.csv,
perf/splitwise_perf_model.csv.gz and composed/composed_h100_llama3-70b-tp4_aic.csv.gz.
Writes end_to_end.csv and predicted.png beside itself.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import matplotlib as mpl
import numpy as np

from readahead.core.latency.budget import NO_WORK
from readahead.core.latency.iteration import IterationWork, iteration_s
from readahead.core.latency.profile import Profile
from readahead.core.latency.profile_text import profile
from readahead.core.latency.stretch import stretch_s
from readahead.sim.calibration.fit import FitSettings, fit_model
from readahead.sim.calibration.points import read_composed

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
CHUNK_TOKENS = 8192
"""Prompt tokens per iteration, where the source does not say."""
Row = tuple[str, str, float, float]
"""Set, case, measured and predicted seconds."""


def batch_s(on: Profile, *, batch: int, length: int) -> float:
    """A static batch: `batch` prompts of `length`, and as many tokens of each."""
    prompts_at_once = max(1, CHUNK_TOKENS // length)
    total_s, left = 0.0, batch
    while left:
        now = min(left, prompts_at_once)
        work = NO_WORK
        for _ in range(now):
            work = work.with_chunk(length)
        total_s += iteration_s(work, model=on.latency)
        left -= now
    work = IterationWork(tokens=batch, requests=batch, past_tokens=batch * length, prefill_pairs=0)
    return total_s + stretch_s(work, length - 1, model=on.latency)


def argonne(data: Path) -> Iterator[Row]:
    """Llama-3-8B under vLLM, those batches whose KV fits at once."""
    profiles = {
        "Nvidia A100 GPU": profile("llama-3.1-8b-a100-40g"),
        "Nvidia H100 GPU": profile("llama-3.1-8b-h100"),
    }
    with gzip.open(data / "e2e" / "argonne_a100_h100_gh200.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            on = profiles.get(row["hardware"])
            named = row["framework"] == "vLLM" and row["model"].endswith("Meta-Llama-3-8B")
            if on is None or not named or row["n_gpus"] != "1":
                continue
            length, batch = int(row["in_out_len"]), int(row["batch_size"])
            if 2 * length * batch > on.kv_capacity_tokens:
                continue
            case = f"{length}+{length} x {batch}"
            predicted_s = batch_s(on, batch=batch, length=length)
            yield f"Argonne {on.device}", case, float(row["latency_s"]), predicted_s


def dynamo(data: Path) -> Iterator[Row]:
    """Llama-3.1-8B in FP8 on H200 with the bf16 profile of H100: nothing nearer ships."""
    on = profile("llama-3.1-8b-h100")
    folder = data / "e2e"
    with (folder / "dynamo_h200_llama3.1-8b-fp8_prefill.csv").open() as file:
        for row in csv.DictReader(file):
            tokens = int(row["prefill_isl"])
            took_s = iteration_s(NO_WORK.with_chunk(tokens), model=on.latency)
            yield "Dynamo H200 FP8 prefill", str(tokens), float(row["prefill_ttft"]) / 1e3, took_s
    with (folder / "dynamo_h200_llama3.1-8b-fp8_decode.csv").open() as file:
        for row in csv.DictReader(file):
            past = float(row["x_kv_usage"]) * 945_029
            context = float(row["y_context_length"])
            batch = max(1, round(past / context))
            work = IterationWork(
                tokens=batch, requests=batch, past_tokens=round(past), prefill_pairs=0
            )
            case = f"{batch} x {context:.0f}"
            predicted_s = iteration_s(work, model=on.latency)
            yield "Dynamo H200 FP8 decode", case, float(row["z_itl"]) / 1e3, predicted_s


def splitwise(data: Path) -> Iterator[Row]:
    """Llama-2-70B on four H100 under vLLM of 2023, with Llama-3-70B's kernels, no all-reduce."""
    points = read_composed(data / "composed" / "composed_h100_llama3-70b-tp4_aic.csv.gz")
    model = fit_model(points, name="70b", settings=FitSettings())
    times: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    with gzip.open(data / "perf" / "splitwise_perf_model.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            device = (row["model"], row["hardware"], row["tensor_parallel"])
            if device == ("llama2-70b", "h100-80gb", "4") and int(row["batch_size"]) < 64:
                times[int(row["prompt_size"]), int(row["batch_size"])].append(
                    (float(row["prompt_time"]) / 1e3, float(row["token_time"]) / 1e3)
                )
    for (length, batch), measured in sorted(times.items()):
        prompt_s, token_s = (median(column) for column in zip(*measured, strict=True))
        prompts = NO_WORK
        for _ in range(batch):
            prompts = prompts.with_chunk(length)
        decode = IterationWork(
            tokens=batch, requests=batch, past_tokens=batch * length, prefill_pairs=0
        )
        case = f"{batch} x {length}"
        yield "Splitwise H100 prompts", case, prompt_s, iteration_s(prompts, model=model)
        yield "Splitwise H100 tokens", case, token_s, iteration_s(decode, model=model)


def main(data: Path) -> None:
    """Predicts, prints the errors, writes the table and the figure."""
    rows = [*argonne(data), *splitwise(data), *dynamo(data)]
    with (HERE / "end_to_end.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["set", "case", "measured_s", "predicted_s", "error"])
        for name, case, actual, guess in rows:
            writer.writerow(
                [name, case, f"{actual:.5g}", f"{guess:.5g}", f"{guess / actual - 1:.3f}"]
            )
    figure, axes = plt.subplots(figsize=(5.5, 4.5))
    for name in dict.fromkeys(row[0] for row in rows):
        pairs = np.array([row[2:] for row in rows if row[0] == name], dtype=float)
        errors = pairs[:, 1] / pairs[:, 0] - 1
        sys.stdout.write(
            f"{name:26}{len(pairs):4d}  MAPE {np.abs(errors).mean():6.1%}"
            f"  mean {errors.mean():+6.1%}  worst {errors[np.abs(errors).argmax()]:+6.1%}\n"
        )
        axes.loglog(*pairs.T, "o", ms=4, label=name)
    ends = [min(row[2] for row in rows), max(row[2] for row in rows)]
    axes.loglog(ends, ends, "k-", lw=0.8)
    axes.set(xlabel="measured, s", ylabel="predicted, s")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE / "predicted.png", dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
