"""What a run looks like while it runs: a panel on a terminal, a line elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.records import Outcome, Record
from readahead.loadgen.statistics import LATENESS_SHARE_MAX, quantile

LATENESS_WINDOW = 500
"""Sends that the shown lateness is of: the latest that have ended."""
WIDE_CHARACTERS = 110
"""From here on the entries stand in three columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHead:
    """What is known before the run."""

    title: str
    """What runs against what."""
    requests: int
    rate_req_s: float | None
    """Asked for; None: there is no such rate, as in a closed loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """A run at one moment."""

    now_s: float
    sent: int
    running: int
    dropped: int
    outcomes: dict[Outcome, int]
    tokens: int
    offered_req_s: float
    """Sent or dropped so far, over the time."""
    achieved_req_s: float
    """Finished."""
    idle_users: int
    unread_tokens: int
    """Of answers that still run."""
    smooth_goodput_tok_s: float
    ttft_s: tuple[float, float] | None
    """p50 and p99 of the latest."""
    lateness_s: float | None
    """p99 of the latest sends."""


def live_state(counts: LiveCounts, now_s: float, records: Sequence[Record] = ()) -> LiveState:
    """A run as it stands; `records` are those of the requests that are over."""
    time_s = max(now_s, 1e-9)
    latest = records[-LATENESS_WINDOW:]
    late_s = sorted(
        record.sent_s - record.arrival_s
        for record in latest
        if record.visit is None or record.visit.turn == 0
    )
    ttft_s = sorted(counts.ttft_s)
    return LiveState(
        now_s=now_s,
        sent=counts.sent,
        running=counts.running,
        dropped=counts.dropped,
        outcomes=dict(counts.outcomes),
        tokens=counts.tokens,
        offered_req_s=(counts.sent + counts.dropped) / time_s,
        achieved_req_s=counts.outcomes[Outcome.FINISHED] / time_s,
        idle_users=counts.idle_readers(now_s),
        unread_tokens=sum(reader.unread_tokens(now_s) for reader, _ in counts.readers.values()),
        smooth_goodput_tok_s=counts.smooth_goodput_tok_s(now_s),
        ttft_s=(quantile(ttft_s, 0.5), quantile(ttft_s, 0.99)) if ttft_s else None,
        lateness_s=quantile(late_s, 0.99) if late_s else None,
    )


def live_panel(head: LiveHead, state: LiveState, *, width: int) -> RenderableType:
    """The panel, in a terminal of this many columns."""
    done = sum(state.outcomes.values()) + state.dropped
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    bar.add_row(
        ProgressBar(total=max(1, head.requests), completed=min(done, head.requests)),
        Text(f"{done:,}/{head.requests:,} · {state.now_s:.0f} s"),
    )
    columns = 3 if width >= WIDE_CHARACTERS else 2
    grid = Table.grid(padding=(0, 2), expand=True)
    for _ in range(columns):
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    cells = [_cell(name, value, style) for name, value, style in _entries(head, state)]
    for start in range(0, len(cells), columns):
        grid.add_row(*cells[start : start + columns])
    return Panel(
        Group(bar, Text(), grid), title=f" {head.title} ", title_align="left", padding=(0, 1)
    )


def live_line(head: LiveHead, state: LiveState) -> Text:
    """The same in one line, for a log."""
    parts = [
        f"{state.now_s:6.1f} s",
        f"sent {state.sent}/{head.requests}",
        f"running {state.running}",
        *(
            f"{outcome.value} {state.outcomes.get(outcome, 0)}"
            for outcome in Outcome
            if state.outcomes.get(outcome) or outcome is Outcome.FINISHED
        ),
        *([f"dropped {state.dropped}"] if state.dropped else []),
        f"{state.tokens / max(state.now_s, 1e-9):,.0f} tok/s",
        f"idle {state.idle_users}",
        f"unread {state.unread_tokens}",
        f"smooth goodput {state.smooth_goodput_tok_s:,.0f} tok/s",
    ]
    if state.ttft_s is not None:
        p50, p99 = (milliseconds(one) for one in state.ttft_s)
        parts.append(f"TTFT p50 {p50} p99 {p99} ms")
    if state.lateness_s is not None:
        parts.append(f"late p99 {milliseconds(state.lateness_s)} ms")
    return Text(" · ".join(parts), no_wrap=True, overflow="ignore")


def milliseconds(seconds: float) -> str:
    """Four significant digits below a second; microseconds do not matter above."""
    value = seconds * 1e3
    return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _entries(head: LiveHead, state: LiveState) -> list[tuple[str, str, str]]:
    asked = "" if head.rate_req_s is None else f" of {head.rate_req_s:.4g}"
    ttft = "-"
    if state.ttft_s is not None:
        ttft = f"{milliseconds(state.ttft_s[0])} · {milliseconds(state.ttft_s[1])} ms"
    bad = sum(count for outcome, count in state.outcomes.items() if outcome is not Outcome.FINISHED)
    limit_s = LATENESS_SHARE_MAX / head.rate_req_s if head.rate_req_s else None
    is_late = limit_s is not None and (state.lateness_s or 0.0) > limit_s
    late = "-" if state.lateness_s is None else f"{milliseconds(state.lateness_s)} ms"
    return [
        ("smooth goodput", f"{state.smooth_goodput_tok_s:,.1f} tok/s", "bold green"),
        ("users idle now", f"{state.idle_users:,}", "bold red" if state.idle_users else ""),
        ("unread", f"{state.unread_tokens:,} tokens", ""),
        ("offered", f"{state.offered_req_s:.2f}{asked} req/s", ""),
        ("achieved", f"{state.achieved_req_s:.2f} req/s", ""),
        ("running", f"{state.running:,}", ""),
        ("TTFT p50 p99", ttft, ""),
        ("lateness p99", late, "bold red" if is_late else ""),
        ("not finished", f"{bad:,} · dropped {state.dropped:,}",
         "bold red" if state.dropped else "yellow" if bad else ""),
    ]  # fmt: skip


def _cell(name: str, value: str, style: str) -> Text:
    text = Text(f"{name:<15}", style="dim")
    text.append(value, style=style or "not dim")
    return text
