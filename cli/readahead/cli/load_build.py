"""From the flags of `readahead load` to its settings; what is wrong is a usage error."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import typer

from readahead.cli.load_options import (
    Endpoint,
    TargetArguments,
    WorkloadArguments,
    check_numbers,
)
from readahead.cli.score import parse_slo
from readahead.core.reading.score import Ruler
from readahead.loadgen.load_offer import OfferSpec, at_rate, with_seed
from readahead.loadgen.load_plain import PlainSpec
from readahead.loadgen.load_settings import LoadSettings, Outputs
from readahead.loadgen.load_target import check_target
from readahead.loadgen.senders import SendOptions
from readahead.loadgen.session_run import RunLimits
from readahead.ruler.promises import parse_zero_load_ttft
from readahead.workload.arrivals import ClosedLoop, PoissonArrivals
from readahead.workload.arrivals_kinds import Generated, parse_arrivals
from readahead.workload.arrivals_trace import TraceArrivals
from readahead.workload.lengths import parse_lengths
from readahead.workload.spec import Limits, Part, read_workload_spec
from readahead.workload.spec import WorkloadSpec as SessionSpec
from readahead.workload.traces.formats import TraceFormat, read_trace

__all__ = ["load_settings", "parse_slo"]

DEFAULT_REQUESTS = 100
DEFAULT_RATE_REQ_S = 1.0
DEFAULT_PROMPT_TOKENS, DEFAULT_OUTPUT_TOKENS = "128", "64"


def load_settings(
    target: str,
    what: WorkloadArguments,
    how: TargetArguments,
    *,
    records_path: Path | None = None,
    rates_req_s: tuple[float, ...] = (),
    outputs: Outputs,
) -> LoadSettings:
    """The settings.

    Raises:
        typer.BadParameter: a flag has a value that cannot be, or two do not go together.
    """
    names = ("rate", "duration_s", "time_scale", "length_scale")
    numbers = {name: getattr(what, name) for name in names}
    check_numbers(positive={**numbers, "timeout_s": how.timeout_s, "pace": how.pace})
    try:
        check_target(target)
        workload = workload_of(what)
        for rate in rates_req_s:
            at_rate(workload, rate)
        zero_load = parse_zero_load_ttft(how.zero_load_ttft) if how.zero_load_ttft else None
        ruler = Ruler(slo=parse_slo(how.slo))
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    return LoadSettings(
        target=target,
        is_chat=how.endpoint is Endpoint.CHAT,
        workload=workload,
        options=SendOptions(
            model=how.model,
            timeout_s=how.timeout_s,
            pace_tok_s=how.pace,
            ignore_eos=how.ignore_eos,
        ),
        limits=RunLimits(requests_max=how.concurrency_max),
        model_path=how.model_path,
        records_path=records_path,
        description=_description(target, what, how, workload, rates_req_s),
        ca_path=how.ca,
        rates_req_s=rates_req_s,
        zero_load_ttft=zero_load,
        tells_slo=how.tell_slo,
        ruler=ruler,
        outputs=outputs,
    )


def workload_of(what: WorkloadArguments) -> OfferSpec:
    """The workload that the flags name.

    Raises:
        ValueError: they do not go together, or a value cannot be; the message says which.
    """
    _check_together(what)
    if what.workload is not None:
        return _overridden(read_workload_spec(what.workload), what)
    arrivals = _arrivals(what)
    limits = Limits(sessions=_requests(what), duration_s=what.duration_s)
    if what.scenario:
        parameters: dict[str, object] = {}
        if what.length_scale is not None:
            parameters["length_scale"] = what.length_scale
        part = Part(
            scenario=what.scenario,
            parameters=parameters,
            trace_lengths=isinstance(arrivals, TraceArrivals),
        )
        return SessionSpec(
            mix=(part,),
            arrivals=arrivals or PoissonArrivals(rate_req_s=_rate_req_s(what)),
            seed=what.seed or 0,
            limits=limits,
        )
    if isinstance(arrivals, TraceArrivals):
        own = {} if what.length_scale is None else {"length_scale": what.length_scale}
        part = Part(scenario="trace", parameters=dict(own))
        return SessionSpec(mix=(part,), arrivals=arrivals, seed=what.seed or 0, limits=limits)
    return PlainSpec(
        seed=what.seed or 0,
        arrivals=arrivals or PoissonArrivals(rate_req_s=_rate_req_s(what)),
        requests=limits.sessions,
        duration_s=what.duration_s,
        prompt_lengths=parse_lengths(what.prompt_tokens or DEFAULT_PROMPT_TOKENS),
        output_lengths=parse_lengths(what.output_tokens or DEFAULT_OUTPUT_TOKENS),
    )


def _check_together(what: WorkloadArguments) -> None:
    """Raises ValueError for flags of which one would silently do nothing."""
    sources = {
        "--arrivals": what.arrivals,
        "--trace": what.trace,
        "--closed-loop": what.closed_loop,
    }
    given = [name for name, value in sources.items() if value not in (None, "")]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} do not go together")
    if what.workload is not None and (given or what.scenario):
        both = [*given, *(["--scenario"] if what.scenario else [])]
        raise ValueError(f"--workload says that already: not with {' and '.join(both)}")
    if what.trace is None and (what.trace_format or what.time_scale):
        raise ValueError("--format and --time-scale are of --trace, which is not given")
    if what.time_scale is not None and what.rate is not None:
        raise ValueError("--rate and --time-scale both say how fast the trace is replayed")
    own_lengths = what.scenario or what.workload is not None or what.trace is not None
    if own_lengths and (what.prompt_tokens or what.output_tokens):
        raise ValueError(
            "--prompt-tokens and --output-tokens do not go with --workload, --scenario or --trace,"
            " which have lengths of their own"
        )
    if what.length_scale is not None and not (what.scenario or what.trace is not None):
        raise ValueError("--length-scale is of --scenario or --trace")


def _overridden(spec: SessionSpec, what: WorkloadArguments) -> OfferSpec:
    limits = spec.limits
    if what.requests is not None:
        limits = dataclasses.replace(limits, sessions=what.requests)
    if what.duration_s is not None:
        limits = dataclasses.replace(limits, duration_s=what.duration_s)
    changed: OfferSpec = dataclasses.replace(spec, limits=limits)
    if what.seed is not None:
        changed = with_seed(changed, what.seed)
    return changed if what.rate is None else at_rate(changed, what.rate)


def _arrivals(what: WorkloadArguments) -> Generated | TraceArrivals | ClosedLoop | None:
    """None: Poisson at --rate."""
    if what.closed_loop is not None:
        return ClosedLoop(concurrency=what.closed_loop)
    if what.trace is not None:
        return _trace(what, what.trace)
    if not what.arrivals:
        return None
    text = what.arrivals
    if what.rate is not None and "rate=" not in text:
        text += f"{',' if ':' in text else ':'}rate={what.rate}"
    elif what.rate is not None:
        raise ValueError(f"--rate and --arrivals {what.arrivals} both say the rate")
    return parse_arrivals(text)


def _trace(what: WorkloadArguments, path: Path) -> TraceArrivals:
    known = [one.value for one in TraceFormat]
    if what.trace_format and what.trace_format not in known:
        raise ValueError(f"--format must be one of {', '.join(known)}, got {what.trace_format!r}")
    trace_format = TraceFormat(what.trace_format) if what.trace_format else None
    rate = what.rate
    if what.time_scale is not None:
        rows = read_trace(path, trace_format).arrival_s
        if not len(rows) or not rows[-1] > 0:
            raise ValueError(f"{path}: all rows arrive at once, there is no time to scale")
        rate = what.time_scale * len(rows) / float(rows[-1])
    return TraceArrivals(path=path, format=trace_format, rate_req_s=rate)


def _requests(what: WorkloadArguments) -> int | None:
    is_open = what.requests is None and what.duration_s is None and what.trace is None
    return DEFAULT_REQUESTS if is_open or _is_unbounded(what) else what.requests


def _is_unbounded(what: WorkloadArguments) -> bool:
    """A closed loop ends after sessions, also where it is told a time."""
    return what.closed_loop is not None and what.requests is None


def _rate_req_s(what: WorkloadArguments) -> float:
    return DEFAULT_RATE_REQ_S if what.rate is None else what.rate


def _description(
    target: str,
    what: WorkloadArguments,
    how: TargetArguments,
    workload: OfferSpec,
    rates_req_s: tuple[float, ...],
) -> dict[str, object]:
    """The settings for the records' description, in JSON's types and with their units."""
    given: dict[str, object] = {
        "target": target,
        "endpoint": how.endpoint.value,
        "seed": workload.seed,
        "rate_req_s": _stated_rate_req_s(workload),
        "requests": _limit(workload),
        "duration_s": what.duration_s,
        "prompt_tokens": what.prompt_tokens or DEFAULT_PROMPT_TOKENS,
        "output_tokens": what.output_tokens or DEFAULT_OUTPUT_TOKENS,
        "tokenizer": str(how.model_path) if how.model_path else None,
        "pace_tok_s": how.pace,
        "timeout_s": how.timeout_s,
        "concurrency_max": how.concurrency_max,
        "ignore_eos": how.ignore_eos,
        "tells_slo": how.tell_slo,
        "workload_summary": summary_of(what, workload, rates_req_s),
    }
    if isinstance(workload, SessionSpec):
        del given["prompt_tokens"], given["output_tokens"]
        given |= {
            "workload": str(what.workload) if what.workload else None,
            "scenario": what.scenario or None,
            "length_scale": what.length_scale,
            "trace": str(what.trace) if what.trace else None,
            "time_scale": what.time_scale,
        }
    given["arrivals"] = what.arrivals or str(getattr(workload.arrivals, "kind", "of each part"))
    given["closed_loop_users"] = what.closed_loop
    return given


def summary_of(
    what: WorkloadArguments, workload: OfferSpec, rates_req_s: tuple[float, ...] = ()
) -> str:
    """The workload in a line; `rates_req_s` are a sweep's."""
    rate = _stated_rate_req_s(workload)
    at = "" if rate is None else f", {rate:g} req/s"
    if rates_req_s:
        at = f", {min(rates_req_s):g} to {max(rates_req_s):g} req/s"
    if isinstance(workload.arrivals, ClosedLoop):
        kind = f"closed loop of {workload.arrivals.concurrency} users (not an open load)"
    else:
        kind = what.arrivals.partition(":")[0] or str(getattr(workload.arrivals, "kind", "own"))
    if isinstance(workload, SessionSpec):
        parts = ", ".join(dict.fromkeys(part.scenario for part in workload.mix))
        scale = f", lengths x{what.length_scale:g}" if what.length_scale else ""
        return f"{parts}{scale}, {kind} arrivals{at}"
    prompt = what.prompt_tokens or DEFAULT_PROMPT_TOKENS
    output = what.output_tokens or DEFAULT_OUTPUT_TOKENS
    return f"{prompt} in, {output} out, {kind} arrivals{at}"


def _stated_rate_req_s(workload: OfferSpec) -> float | None:
    return getattr(workload.arrivals, "rate_req_s", None)


def _limit(workload: OfferSpec) -> int | None:
    if isinstance(workload, SessionSpec):
        return workload.limits.sessions
    return workload.requests
