"""Predicts real runs with the simulator, and says how far it is off.

Run: python experiments/sim-vs-real/predict.py OUT [CALIBRATION...]
where OUT holds what run_real.py wrote, and a CALIBRATION is a run of it, as 1p1d/calibration.
Iteration times and the cost of a request come from those runs alone. Writes compared.csv and
predicted.png beside itself, and prints the table and how configurations rank.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from readahead.core.cluster import Role
from readahead.core.planning.policies.registry import make_policy
from readahead.sim.asked import EndedRequest
from readahead.sim.calibration.contention import YOUNG_TOKENS, Log, Shared, fit_shared, read_log
from readahead.sim.calibration.fit import FitSettings
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.links import Link
from readahead.sim.run import RunOptions, simulate
from readahead.workload.plan import plan
from readahead.workload.spec import workload_spec

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from ranks import draw, ranks  # noqa: E402
from run_real import CONFIGURATIONS, REMOTE_FROM, Configuration  # noqa: E402

CALIBRATIONS = ("1p1d/calibration",)
KV_TOKENS = 16_384
"""64 MiB at 4,096 bytes a token."""
KV_TOKEN_BYTES = 4096
BLOCK_TOKENS = 16
CONTEXT_TOKENS = 4096
LOOPBACK_BYTES_PER_S = 1e9
"""Of shared memory; a prompt's KV is some MB at most, so that nothing hangs on it."""
ALONE_MIN = 5
"""Requests that tell what one takes beside its iterations."""
Key = tuple[str, int]
"""Session and turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """What one request's user saw, seconds."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    tpot_s: float
    """nan for a single token."""
    ended_s: float
    times_s: Sequence[float]
    """Of all its tokens."""


Lives = Mapping[Key, Lived]
"""Of one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """All that the simulator is told of the machine."""

    shared: Mapping[Role, Shared]
    """Iteration times by role; of those that computed."""
    request_s: Mapping[bool, float]
    """Tokeniser, router, wire: what a request takes beside its iterations, by whether its KV is
    handed over from another worker."""


def run_of(out: Path, name: str) -> Mapping[str, float]:
    """When a run, such as 1p1d/chat, was, and who used the processors; the last of that name."""
    configuration, _, workload = name.partition("/")
    found = [
        told
        for line in (out / configuration / "runs.jsonl").read_text().splitlines()
        if (told := json.loads(line))["workload"] == workload
    ]
    if not found:
        raise ValueError(f"{out}: no run {name}")
    return dict(found[-1])


def iterations(out: Path, name: str) -> Mapping[Role, list[Log]]:
    """Those of a run, one log per worker that computed."""
    told = run_of(out, name)
    found: dict[Role, list[Log]] = {Role.PREFILL: [], Role.DECODE: []}
    with TemporaryDirectory() as folder:
        for log in sorted((out / name.partition("/")[0]).glob("*.iterations.jsonl")):
            lines = [
                line
                for line in log.read_text().splitlines()
                if told["began_s"] <= json.loads(line)["began_s"] <= told["ended_s"]
            ]
            if lines:
                (Path(folder) / log.name).write_text("\n".join(lines) + "\n")
        cuts = sorted(Path(folder).iterdir())
        for cut in cuts:
            role = Role(cut.name.partition("-")[0])
            found[role].append(read_log(cut, [other for other in cuts if other != cut]))
    return found


def lived(path: Path) -> dict[Key, Lived]:
    """Finished requests of `readahead load`, or of the simulator: the same format."""
    found = {}
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        if fields["outcome"] == "finished":
            found[fields["session_id"], fields["turn"]] = lived_of(
                fields["arrival_s"],
                fields["prompt_tokens"],
                fields["token_times_s"],
                fields["ended_s"],
            )
    return found


def lived_of(
    arrival_s: float, prompt_tokens: int, times_s: Sequence[float], ended_s: float
) -> Lived:
    """TTFT from the intended send; TPOT from the first token to the last.

    Who got no token waits forever.
    """
    gaps = len(times_s) - 1
    return Lived(
        arrival_s=arrival_s,
        prompt_tokens=prompt_tokens,
        output_tokens=len(times_s),
        ttft_s=times_s[0] - arrival_s if times_s else math.inf,
        tpot_s=(times_s[-1] - times_s[0]) / gaps if gaps > 0 else math.nan,
        ended_s=ended_s,
        times_s=times_s,
    )


def spec(configuration: Configuration, known: Calibrated) -> ClusterSpec:
    """The configuration as the simulator takes it."""

    def worker(shared: Shared) -> WorkerSpec:
        return WorkerSpec(
            latency=shared.model,
            contention=shared.contention,
            young_tokens=YOUNG_TOKENS,
            young_s=shared.young_s,
            kv_blocks=KV_TOKENS // BLOCK_TOKENS,
            block_tokens=BLOCK_TOKENS,
            requests_max=configuration.requests_max,
            batch_tokens_max=configuration.batch_tokens_max,
            context_tokens_max=CONTEXT_TOKENS,
            has_prefix_cache=True,
        )

    # vLLM's own order of today is the chunked one.
    policy = "vllm-chunked" if configuration.policy == "vllm" else configuration.policy
    decode = known.shared[Role.DECODE]
    return ClusterSpec(
        policy=lambda _: make_policy(policy, configuration.knobs),
        prefill_worker=worker(known.shared.get(Role.PREFILL, decode)),
        decode_worker=worker(decode),
        prefill=0 if configuration.is_colocated else configuration.prefill,
        decode=configuration.decode,
        link=Link(name="loopback", bytes_per_s=LOOPBACK_BYTES_PER_S, latency_s=0.0),
        kv_token_bytes=KV_TOKEN_BYTES,
        tells_true_length=True,
    )


def predicted(configuration: Configuration, records: Path, known: Calibrated) -> dict[Key, Lived]:
    """What the simulator says of the requests that a real run was asked: their arrivals and
    lengths, read from its records as a trace."""
    real = sorted((one.arrival_s, key) for key, one in lived(records).items())
    lines = {
        (fields["session_id"], fields["turn"]): line
        for line in records.read_text().splitlines()
        if (fields := json.loads(line))["outcome"] == "finished"
    }
    found: list[tuple[float, str, Lived]] = []

    def take(request: EndedRequest) -> None:
        times_s, ended_s = request.token_times_s, request.ended_s
        one = lived_of(request.arrival_s, request.prompt_tokens, times_s, ended_s)
        more_s = known.request_s[is_handed_over(configuration, one)]
        later_s = [at_s + more_s for at_s in times_s]
        one = replace(one, ttft_s=one.ttft_s + more_s, times_s=later_s)
        found.append((request.arrival_s, request.session_id, one))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "asked.jsonl"
        path.write_text("".join(lines[key] + "\n" for _, key in real))
        trace = {"kind": "trace", "path": str(path), "format": "load"}
        sessions = plan(workload_spec({"mix": [{"scenario": "trace"}], "arrivals": trace}))
        simulate(spec(configuration, known), sessions, RunOptions(record=take))
    found.sort(key=lambda row: row[:2])
    if len(found) != len(real):
        raise ValueError(f"{records}: {len(real)} requests, {len(found)} simulated")
    for (_, key), (_, _, one) in zip(real, found, strict=True):
        assert one.prompt_tokens == json.loads(lines[key])["prompt_tokens"], key
    return {key: one for (_, key), (_, _, one) in zip(real, found, strict=True)}


def calibrated(out: Path, names: Sequence[str]) -> Calibrated:
    """Iteration times of either role from their logs; the rest from requests that were alone."""
    settings = FitSettings(planes=4, has_curves=False, robust=0.5)
    logs: dict[Role, list[Log]] = {}
    for name in names:
        for role, found in iterations(out, name).items():
            if found:
                logs.setdefault(role, []).extend(found)
    shared = {
        role: fit_shared(each, name=f"tiny, {role}", settings=settings)
        for role, each in logs.items()
    }
    bare = Calibrated(shared=shared, request_s={True: 0.0, False: 0.0})
    extra_s: dict[bool, list[float]] = {True: [], False: []}
    for name in names:
        configuration = configuration_of(name)
        for one, alone_s in alone(out, name, bare):
            extra_s[is_handed_over(configuration, one)].append(one.ttft_s - alone_s)
    every_s = [*extra_s[True], *extra_s[False]]
    found_s = {
        kind: median(each if len(each) >= ALONE_MIN else every_s or [0.0])
        for kind, each in extra_s.items()
    }
    return replace(bare, request_s=found_s)


def configuration_of(name: str) -> Configuration:
    """Of a run, such as 1p1d/chat."""
    return CONFIGURATIONS[name.partition("/")[0].partition("@")[0]]


def is_handed_over(configuration: Configuration, one: Lived) -> bool:
    """Whether another worker computes its prompt; a short one is not worth it to the router."""
    return not configuration.is_colocated and one.prompt_tokens >= REMOTE_FROM


def at_speed_of(out: Path, name: str, known: Calibrated) -> Calibrated:
    """The same with one number for each role from the predicted run's own log: how many times
    longer its iterations took in all than was said. Hindsight: it says what of an error was the
    machine's speed.
    """
    shared, ratios = dict(known.shared), []
    for role, logs in iterations(out, name).items():
        if not logs or role not in shared:
            continue
        one = shared[role]
        said_s = sum(float(one.predict_s(log).sum()) for log in logs)
        ratios.append(sum(float(log.points.seconds.sum()) for log in logs) / said_s)
        scaled = replace(one.model, time_scale=one.model.time_scale * ratios[-1])
        shared[role] = replace(one, model=scaled, young_s=one.young_s * ratios[-1])
    ratio = math.fsum(ratios) / len(ratios)
    request_s = {kind: each_s * ratio for kind, each_s in known.request_s.items()}
    return Calibrated(shared=shared, request_s=request_s)


def alone(out: Path, name: str, bare: Calibrated) -> Iterator[tuple[Lived, float]]:
    """Requests of a calibration run that had the cluster to themselves; their simulated TTFT."""
    configuration, _, workload = name.partition("/")
    records = out / configuration / f"{workload}.jsonl"
    told = predicted(CONFIGURATIONS[configuration.partition("@")[0]], records, bare)
    real = lived(records)
    others = list(real.values())
    for key, one in real.items():
        end_s = one.arrival_s + one.ttft_s
        is_alone = all(
            other is one or other.ended_s <= one.arrival_s or other.arrival_s >= end_s
            for other in others
        )
        if is_alone and key in told:
            yield one, told[key].ttft_s


def errors(real: Mapping[Key, Lived], guess: Mapping[Key, Lived]) -> dict[str, float]:
    """Medians of what was and what was said, and of the relative error per request."""
    keys = sorted(real.keys() & guess.keys())
    if not keys:
        raise ValueError("no request is in both")
    found: dict[str, float] = {"requests": len(keys)}
    for field in ("ttft_s", "tpot_s"):
        pairs = [(getattr(real[key], field), getattr(guess[key], field)) for key in keys]
        pairs = [(was, said) for was, said in pairs if was > 0 and said == said]
        found[f"{field}_real"] = median(was for was, _ in pairs)
        found[f"{field}_simulated"] = median(said for _, said in pairs)
        found[f"{field}_error"] = median(abs(said / was - 1) for was, said in pairs)
        medians = found[f"{field}_simulated"] / found[f"{field}_real"] - 1
        found[f"{field}_of_medians"] = medians
    return found


def compared(
    out: Path, known: Calibrated, points: list[tuple[str, Lived, Lived]]
) -> Iterator[dict[str, Any]]:
    """Each real run that is not a calibration against the simulator, and against its repeats.

    Each request, real and simulated, is added to `points`.
    """
    for folder in sorted(out.iterdir()):
        if not (folder / "runs.jsonl").is_file():
            continue
        configuration = CONFIGURATIONS[folder.name.partition("@")[0]]
        first: dict[str, dict[Key, Lived]] = {}
        pairs: dict[str, list[tuple[Lives, Lives]]] = {}
        for line in (folder / "runs.jsonl").read_text().splitlines():
            told = json.loads(line)
            workload = str(told["workload"]).partition("@")[0]
            records = folder / f"{told['workload']}.jsonl"
            if workload.startswith("calibration") or told["exit"] not in (0, 3):
                continue
            real = lived(records)
            if not real:
                continue
            row = {"configuration": folder.name, "workload": told["workload"], "against": "model"}
            others = {"others": told.get("processors_others", math.nan)}
            guess = predicted(configuration, records, known)
            points += [(f"{folder.name} {workload}", real[key], guess[key]) for key in guess]
            pairs.setdefault(workload, []).append((real, guess))
            yield row | others | errors(real, guess)
            then = at_speed_of(out, f"{folder.name}/{told['workload']}", known)
            guess = predicted(configuration, records, then)
            yield row | {"against": "speed known"} | others | errors(real, guess)
            if workload in first:
                yield row | {"against": "an earlier run"} | others | errors(real, first[workload])
            first.setdefault(workload, real)
        for workload, each in pairs.items():
            if len(each) > 2:
                row = {"configuration": folder.name, "workload": workload, "others": math.nan}
                both = (typical([pair[side] for pair in each]) for side in (0, 1))
                yield row | {"against": f"medians of {len(each)}"} | errors(*both)


def typical(runs: Sequence[Lives]) -> dict[Key, Lived]:
    """Each request's median TTFT and TPOT over runs of the same workload."""
    found = {}
    for key in set.intersection(*(set(run) for run in runs)):
        every = [run[key] for run in runs]
        found[key] = replace(
            every[0],
            ttft_s=median(one.ttft_s for one in every),
            tpot_s=median(one.tpot_s for one in every),
        )
    return found


def main(out: Path, names: Sequence[str]) -> None:
    """Calibrates, compares, writes and prints."""
    known = calibrated(out, names)
    whole_s, handed_s = (known.request_s[kind] * 1e3 for kind in (False, True))
    sys.stdout.write(
        f"a request takes {whole_s:.1f} ms beside its iterations, {handed_s:.1f} if handed over\n"
    )
    for role, shared in known.shared.items():
        sys.stdout.write(
            f"{role}: {shared.contention:.0%} longer while another engine computes, "
            f"{shared.young_s * 1e3:.2f} ms for each young request\n"
        )
    points: list[tuple[str, Lived, Lived]] = []
    rows = list(compared(out, known, points))
    with (HERE / "compared.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )
    for row in rows:
        sys.stdout.write(
            f"{row['configuration']:12} {row['workload']:12} {row['against']:15}"
            f" others {row['others']:.2f}  TTFT {row['ttft_s_real'] * 1e3:7.1f} ms"
            f" said {row['ttft_s_simulated'] * 1e3:7.1f} off {row['ttft_s_error']:6.1%}"
            f"  TPOT {row['tpot_s_real'] * 1e3:6.2f} ms said {row['tpot_s_simulated'] * 1e3:6.2f}"
            f" off {row['tpot_s_error']:6.1%}\n"
        )
    for line in ranks(rows):
        sys.stdout.write(line + "\n")
    draw(points, HERE / "predicted.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or CALIBRATIONS)
