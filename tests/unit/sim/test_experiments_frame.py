"""The frame of `readahead reproduce`: cells to rows to pages, the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from readahead.sim.experiments.experiment import (
    Cell,
    Claim,
    Figure,
    Findings,
    Row,
    Scope,
    Table,
    Verdict,
)
from readahead.sim.experiments.intervals import mean, number, numbers, paired, where
from readahead.sim.experiments.page import overall, summary_table
from readahead.sim.experiments.raw_rows import FILE, RowsError, read_rows, rounded, write_rows
from readahead.sim.experiments.registry import experiment, names
from readahead.sim.experiments.reproduce import (
    conclude_again,
    present,
    reported_from,
    reproduce,
    summarise,
)
from readahead.sim.experiments.runner import run_cells

PIXEL = b"not really a picture"


@dataclass(frozen=True)
class Dice:
    """An experiment that costs nothing; it has the name of a real one, to be found on disk."""

    name: str = "pace"
    title: str = "Dice"
    asked: str = "Does a seeded die fall the same way?"
    set_up: Sequence[str] = ("A die.",)
    profiles: Sequence[str] = ("llama-3.1-8b-a100-80g",)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        return [
            Cell(parameters={"sides": sides}, seed=seed)
            for sides in (6, 20)
            for seed in range(5 if scope is Scope.FULL else 2)
        ]

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        thrown = (cell.seed * 7 + 3) % cell.number("sides") + 1 / 3
        return [cell.row(thrown=thrown), cell.row(thrown=thrown + 1)]

    def conclude(self, rows: Sequence[Row]) -> Findings:
        found = mean(numbers(where(rows, sides=6), "thrown"))
        claim = Claim(
            finding="falls", paper="3.5 [S]", ours=found.text(), verdict=Verdict.REPRODUCED
        )
        table = Table(title="Throws", columns=("mean",), rows=((found.text(),),))
        figure = Figure(file="dice.png", caption="A die.", png=PIXEL)
        return Findings(claims=(claim,), tables=(table,), figures=(figure,))


def test_rows_come_in_the_order_of_cells_and_each_cell_is_counted() -> None:
    counted: list[int] = []
    cells = Dice().cells(Scope.QUICK)
    rows = run_cells(Dice(), cells, jobs=1, done=lambda: counted.append(1))
    assert len(counted) == len(cells) == 4
    assert [(row["sides"], row["seed"]) for row in rows] == [
        (sides, seed) for sides in (6, 20) for seed in (0, 1) for _ in range(2)
    ]


def test_no_jobs_are_refused() -> None:
    with pytest.raises(ValueError, match="jobs must be at least 1, is 0"):
        run_cells(Dice(), Dice().cells(Scope.QUICK), jobs=0, done=lambda: None)


def test_a_run_and_its_pages_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for folder in ("once", "again"):
        reproduce(Dice(), Scope.FULL, tmp_path / folder, jobs=1)
    files = sorted(path.name for path in (tmp_path / "once" / "pace").iterdir())
    assert files == ["README.md", "dice.png", FILE]
    for name in files:
        once, again = (tmp_path / folder / "pace" / name for folder in ("once", "again"))
        assert once.read_bytes() == again.read_bytes()


def test_the_page_follows_from_the_rows_on_disk_alone(tmp_path: Path) -> None:
    first = reproduce(Dice(), Scope.FULL, tmp_path, jobs=1)
    page = tmp_path / "pace" / "README.md"
    written = page.read_text(encoding="utf-8")
    page.unlink()
    again = conclude_again(Dice(), tmp_path)
    assert page.read_text(encoding="utf-8") == written
    assert again.origin == first.origin
    assert reported_from(Dice(), tmp_path).findings == first.findings


def test_a_page_says_what_it_is(tmp_path: Path) -> None:
    reproduce(Dice(), Scope.QUICK, tmp_path, jobs=1)
    page = (tmp_path / "pace" / "README.md").read_text(encoding="utf-8")
    for said in (
        "**Simulated**",
        "readahead reproduce --quick --only pace",
        "2 seeds, scope quick, commit ",
        "3.5 [S]",
        "![A die.](dice.png)",
        "llama-3.1-8b-a100-80g | decode",
    ):
        assert said in page


def test_only_some_cells_are_run_and_the_page_says_which(tmp_path: Path) -> None:
    reproduce(Dice(), Scope.QUICK, tmp_path, jobs=1, only={"sides": ["20"]})
    page = (tmp_path / "pace" / "README.md").read_text(encoding="utf-8")
    assert "readahead reproduce --quick --only pace --where sides=20" in page
    assert {row["sides"] for row in read_rows(tmp_path / "pace")[1]} == {20}


@pytest.mark.parametrize(
    ("only", "said"),
    [({"sides": ["7"]}, "no cell has sides=7; sides has 20, 6"), ({"edge": ["6"]}, "edge has -")],
)
def test_cells_that_are_not_there_are_refused(
    only: dict[str, list[str]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        reproduce(Dice(), Scope.QUICK, tmp_path, jobs=1, only=only)
    assert not list(tmp_path.iterdir())


def test_other_rows_make_another_page(tmp_path: Path) -> None:
    reproduce(Dice(), Scope.QUICK, tmp_path, jobs=1)
    before = (tmp_path / "pace" / "README.md").read_text(encoding="utf-8")
    origin, rows = read_rows(tmp_path / "pace")
    rows[0]["thrown"] = number(rows[0], "thrown") + 1
    write_rows(tmp_path / "pace", origin, rows)
    conclude_again(Dice(), tmp_path)
    assert (tmp_path / "pace" / "README.md").read_text(encoding="utf-8") != before


def test_rows_survive_the_disk(tmp_path: Path) -> None:
    origin = reproduce(Dice(), Scope.QUICK, tmp_path, jobs=1).origin
    rows = [rounded({"a": 1 / 3, "b": None, "c": "word", "d": 7, "e": True, "f": float("nan")})]
    assert rows[0]["a"] == 0.333333333
    assert rows[0]["f"] is None
    write_rows(tmp_path / "pace", origin, rows)
    assert read_rows(tmp_path / "pace") == (origin, rows)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not packed", "expected packed JSON lines"),
        (b"", ":1: expected an object with kind"),
    ],
)
def test_what_holds_no_rows_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(RowsError, match=said):
        read_rows(tmp_path)


def test_a_summary_has_a_line_for_each_finding(tmp_path: Path) -> None:
    real = experiment("pace")
    cells = real.cells(Scope.TINY)[:1]
    assert present(tmp_path) == []
    reported = reproduce(Dice(), Scope.QUICK, tmp_path, jobs=1)
    assert present(tmp_path) == ["pace"]
    table = summary_table([reported], links="experiments/")
    assert "| [pace](experiments/pace/README.md) | falls | 3.5 [S] |" in table
    assert len(cells) == 1


def test_the_page_of_all_lists_others_beside_them(tmp_path: Path) -> None:
    (tmp_path / "tea").mkdir()
    (tmp_path / "tea" / "README.md").write_text("# Tea leaves\n", encoding="utf-8")
    assert summarise(tmp_path) == []
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "- [Tea leaves](tea/README.md)" in page


def test_verdicts_add_up() -> None:
    def claim(verdict: Verdict) -> Claim:
        return Claim(finding="f", paper="p", ours="o", verdict=verdict)

    assert overall([]) is Verdict.NOT_RUN
    assert overall([claim(Verdict.NOT_RUN), claim(Verdict.NOT)]) is Verdict.NOT
    assert overall([claim(Verdict.REPRODUCED)] * 2) is Verdict.REPRODUCED
    assert overall([claim(Verdict.REPRODUCED), claim(Verdict.NOT)]) is Verdict.PARTLY


def test_an_unknown_experiment_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="known: smooth-goodput, "):
        experiment("nope")
    assert len(set(names())) == len(names())


def test_a_mean_and_its_interval_are_students() -> None:
    found = mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3.0
    assert found.half == pytest.approx(2.776445 * 1.5811388 / 5**0.5, rel=1e-6)
    assert found.text() == "3.00 ± 1.96"
    assert mean([7.0]).text() == "7.00"
    assert mean([]).text() == "-"
    assert mean([1234.4, 1234.4]).text() == "1,234 ± 0"


def test_pairs_are_compared_seed_by_seed() -> None:
    first: list[Row] = [{"seed": 0, "x": 1.0}, {"seed": 1, "x": 10.0}]
    second: list[Row] = [{"seed": 1, "x": 12.0}, {"seed": 0, "x": 3.0}]
    found = paired(first, second, lambda row: number(row, "x"))
    assert (found.value, found.half) == (2.0, 0.0)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="x must be a number, is 'word'"):
        number({"x": "word"}, "x")
    with pytest.raises(TypeError, match="sides must be a word"):
        Cell(parameters={"sides": 6}, seed=0).text("sides")
