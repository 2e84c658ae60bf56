"""Sweeps over the load: the cells of a grid, their rows, and where the best load is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from readahead.sim.experiments.experiment import Cell, Row, Scope
from readahead.sim.experiments.intervals import Mean, distinct, mean, number, where
from readahead.sim.experiments.served import AZURE, Served, azure_path
from readahead.sim.experiments.windows import Window, gained, latencies

ALPHAS = (0.5, 1.0, 2.5, 5.0, 10.0)
KINDS = ("literal", "censored")

SHORT_WINDOW = Window(start_s=45.0, last_s=165.0, end_s=225.0)
LONG_WINDOW = Window(start_s=300.0, last_s=1500.0, end_s=1800.0)
"""Of the long prompts: few come."""
QUICK_SHORT_WINDOW = Window(start_s=30.0, last_s=90.0, end_s=120.0)
QUICK_LONG_WINDOW = Window(start_s=100.0, last_s=500.0, end_s=600.0)
TINY_WINDOW = Window(start_s=4.0, last_s=8.0, end_s=10.0)

RATES_REQ_S: Mapping[tuple[str, str], Sequence[float]] = {
    ("8B", "ShareGPT"): (8, 11, 12.5, 13, 13.5, 14, 15, 17, 22),
    ("14B", "ShareGPT"): (5, 7, 8, 8.5, 9, 9.5, 10, 12, 15),
    ("8B", "long"): (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.45, 0.6),
    ("14B", "long"): (0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.225, 0.3),
    ("8B", AZURE): (3, 4.5, 6, 6.5, 7, 7.5, 8, 9, 12),
    ("14B", AZURE): (1.5, 2.5, 3, 3.5, 4, 4.5, 5, 6, 8),
}
"""From well below what the server can do to about twice as much."""

QUICK = (0, 3, 4, 6, 8)
"""Places of the rates of the quick scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of a sweep a scope runs."""

    seeds: int
    pairs: Sequence[tuple[str, str]]
    places: Sequence[int]
    short: Window
    long: Window

    def window(self, data: str) -> Window:
        """For requests of this kind."""
        return self.long if data == "long" else self.short


PAIRS = tuple(RATES_REQ_S)
SIZES = {
    Scope.FULL: Size(seeds=5, pairs=PAIRS, places=range(9), short=SHORT_WINDOW, long=LONG_WINDOW),
    Scope.QUICK: Size(
        seeds=2,
        pairs=(("8B", "ShareGPT"), ("8B", "long")),
        places=QUICK,
        short=QUICK_SHORT_WINDOW,
        long=QUICK_LONG_WINDOW,
    ),
    Scope.TINY: Size(
        seeds=2, pairs=(("8B", "ShareGPT"),), places=(0, 4, 8), short=TINY_WINDOW, long=TINY_WINDOW
    ),
}


def cells(
    size: Size,
    policies: Sequence[str],
    rates: Mapping[tuple[str, str], Sequence[float]],
    *,
    places: Sequence[int] | None = None,
) -> list[Cell]:
    """One per server, data, policy, load and seed. Without the Azure trace, without its cells."""
    places = size.places if places is None else places
    pairs = [pair for pair in size.pairs if pair in rates]
    if azure_path() is None:
        pairs = [pair for pair in pairs if pair[1] != AZURE]
    return [
        Cell(
            parameters={
                "model": model,
                "data": data,
                "policy": policy,
                "rate_req_s": float(rate),
                **window_parameters(size.window(data)),
            },
            seed=seed,
        )
        for model, data in pairs
        for policy in policies
        for rate in (rates[model, data][place] for place in places)
        for seed in range(size.seeds)
    ]


def window_parameters(window: Window) -> dict[str, float]:
    """A window as a cell has it."""
    return {"start_s": window.start_s, "last_s": window.last_s, "end_s": window.end_s}


def window_of(cell: Cell) -> Window:
    """That of a cell."""
    return Window(
        start_s=cell.number("start_s"), last_s=cell.number("last_s"), end_s=cell.number("end_s")
    )


def served(cell: Cell) -> Served:
    """The server of a cell."""
    return Served(
        model=cell.text("model"),
        data=cell.text("data"),
        policy=cell.text("policy"),
        rate_req_s=cell.number("rate_req_s"),
        window=window_of(cell),
        seed=cell.seed,
    )


def run_cell(cell: Cell) -> list[Row]:
    """One run in one row."""
    server = served(cell)
    found = server.lived()
    run, window = found.run, server.window
    return [
        cell.row(
            **gained(run, window),
            **latencies(run, window, patience_s=server.patience_s(run)),
            preemptions=found.workers[0].preemptions,
        )
    ]


def smooth_goodput_tok_s(row: Row, *, form: str = "f1", kind: str, alpha: float) -> float:
    """What the window gained, under a form and a weight."""
    return number(row, "throughput_tok_s") - alpha * number(row, f"{form}_{kind}")


def smooth(form: str, kind: str, alpha: float) -> Callable[[Row], float]:
    """The same, ready to be taken of rows."""
    return lambda row: smooth_goodput_tok_s(row, form=form, kind=kind, alpha=alpha)


def column(name: str) -> Callable[[Row], float]:
    """A number of a row, ready to be taken of rows; what is undefined is nan."""
    return lambda row: float("nan") if row.get(name) is None else number(row, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A quantity over the load."""

    rates_req_s: Sequence[float]
    means: Sequence[Mean]
    peaks_req_s: Mean
    """Where each seed has its greatest value."""
    peak_values: Mean
    """That value."""

    @property
    def place(self) -> int:
        """Of the greatest mean."""
        return max(range(len(self.means)), key=lambda place: self.means[place].value)

    @property
    def peak_req_s(self) -> float:
        """The load with the greatest mean."""
        return self.rates_req_s[self.place]

    @property
    def peak(self) -> Mean:
        """The greatest mean."""
        return self.means[self.place]

    def side(self, place: int) -> float:
        """How much lower than the peak one end is, as a share of the peak."""
        return 1 - self.means[place].value / self.peak.value

    def is_interior(self, least: float = 0.05) -> bool:
        """Whether the peak is inside the sweep, with both ends at least so much lower."""
        inside = 0 < self.place < len(self.means) - 1
        return inside and self.side(0) >= least and self.side(-1) >= least


def curve(rows: Iterable[Row], of: Callable[[Row], float]) -> Curve:
    """From the rows of one server, data and policy."""
    kept = list(rows)
    rates = sorted(number(row, "rate_req_s") for row in where(kept, seed=kept[0]["seed"]))
    means = [mean(of(row) for row in where(kept, rate_req_s=rate)) for rate in rates]
    best = [
        max((of(row), number(row, "rate_req_s")) for row in where(kept, seed=seed))
        for seed in distinct(kept, "seed")
    ]
    return Curve(
        rates_req_s=rates,
        means=means,
        peaks_req_s=mean(rate for _, rate in best),
        peak_values=mean(value for value, _ in best),
    )


def capacity_req_s(rows: Sequence[Row], name: str, least: float = 0.9) -> float:
    """The load up to which the mean share stays at least this, between the loads that were run.

    0: not even the least load.
    """
    found = curve(rows, column(name))
    before = 0.0
    for place, (rate, share) in enumerate(zip(found.rates_req_s, found.means, strict=True)):
        if share.value < least:
            if not place:
                return 0.0
            last = found.means[place - 1].value
            return before + (rate - before) * (last - least) / (last - share.value)
        before = rate
    return before
