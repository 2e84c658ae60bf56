"""The shipped distributions, and the tool that makes them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import repo_tools
from repo_tree import ROOT

from readahead.workload.lengths_fitted import FITTED, fitted_from, load_fitted

FOLDER = ROOT / "workload" / "readahead" / "workload" / "fitted"


def test_every_file_has_a_name_and_every_name_a_file() -> None:
    """What is listed is what is shipped."""
    assert sorted(file.stem for file in FOLDER.iterdir()) == list(FITTED)


@pytest.mark.parametrize("name", FITTED)
def test_each_says_where_it_comes_from(name: str) -> None:
    """Origin, licence and method are there, and the fit is close to its source."""
    fitted = load_fitted(name)
    assert fitted.name == name
    assert fitted.rows > 100
    for text in (fitted.origin, fitted.licence, fitted.commit, fitted.method, fitted.tokenizer):
        assert len(text) > 2
    record = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    for goodness in record["goodness"].values():
        assert goodness["ks"] is None or goodness["ks"] < 0.01
        for statistic in ("p50", "p90", "p99"):
            source, fit = goodness["source"][statistic], goodness["fit"][statistic]
            assert fit == pytest.approx(source, rel=0.01, abs=1)
        assert goodness["fit"]["mean"] == pytest.approx(goodness["source"]["mean"], rel=0.07)


@pytest.mark.parametrize("name", FITTED)
def test_draws_have_the_mean_that_the_file_states(name: str) -> None:
    """The tables read are those that were judged."""
    record = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    drawn = load_fitted(name).draw_many(np.random.default_rng(5), 200_000)
    for field, tokens in zip(("prompt_tokens", "output_tokens"), drawn, strict=True):
        stated = record["goodness"][field]["fit"]["mean"]
        assert tokens.mean() == pytest.approx(stated, rel=0.03)


@pytest.mark.parametrize("name", FITTED)
def test_prompt_and_output_hang_together_as_in_the_rows(name: str) -> None:
    """Both correlations and the whole length, where rows are public."""
    record = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    if record["rank_correlation_basis"] != "measured":
        assert "joint" not in record
        return
    source, fit = record["joint"]["source"], record["joint"]["fit"]
    for kind in ("rank_correlation", "log_correlation"):
        assert fit[kind] == pytest.approx(source[kind], abs=0.035)
    for statistic in ("mean", "p50", "p90", "p99"):
        stated = source["total_tokens"][statistic]
        assert fit["total_tokens"][statistic] == pytest.approx(stated, rel=0.035)


def test_long_answers_have_short_prompts_in_arxiv() -> None:
    """One by one as well as many at once."""
    fitted = load_fitted("arxiv-summarization")
    rng = random.Random(9)
    one_by_one = np.log([fitted.draw(rng) for _ in range(20_000)])
    many = np.log(np.column_stack(fitted.draw_many(np.random.default_rng(9), 20_000)))
    for drawn in (one_by_one, many):
        assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(-0.48, abs=0.06)


def test_thinking_is_a_share_with_two_peaks() -> None:
    """Of DeepSeek-R1's output about 70 % is thinking, seldom near the mean."""
    share = load_fitted("deepseek-r1").thinking_share
    assert share is not None
    drawn = share.at_many(np.random.default_rng(0).random(100_000))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert drawn.mean() == pytest.approx(0.7, abs=0.03)
    low, middle, high = (np.mean((drawn >= at) & (drawn < at + 0.1)) for at in (0.33, 0.5, 0.88))
    assert low > 1.5 * middle < high


def test_arrivals_of_the_traces() -> None:
    """Chat comes nearly as Poisson, code in bursts."""
    conversation = load_fitted("azure2023-conv").arrivals
    code = load_fitted("azure2023-code").arrivals
    assert conversation is not None
    assert code is not None
    assert conversation.rate_req_s == pytest.approx(5.53, abs=0.01)
    assert conversation.gap_cv == pytest.approx(1.09, abs=0.01)
    assert conversation.dispersion_1s == pytest.approx(1.39, abs=0.01)
    assert code.dispersion_1s == pytest.approx(13.2, abs=0.1)
    assert load_fitted("sharegpt").arrivals is None


def test_unknown_names_are_refused_with_the_known() -> None:
    """And a record that lacks something names it."""
    with pytest.raises(ValueError, match=r"called 'azure'; known: arxiv-summarization, azure2023"):
        load_fitted("azure")
    with pytest.raises(ValueError, match="need 'name'"):
        fitted_from({})


def test_the_files_are_those_that_the_tool_makes() -> None:
    """Bit by bit, where the traces are at hand."""
    data = Path(os.environ.get("READAHEAD_DATA", ROOT.parent / "shared" / "data"))
    if not (data / "traces" / "azure2024_stats.json").is_file():
        pytest.skip("the traces are not there: set READAHEAD_DATA")
    made = repo_tools.load("fit_lengths").rendered(data / "traces")
    assert list(made) == list(FITTED)
    for name, text in made.items():
        assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text, name


def test_the_tool_fits_rows_of_any_trace(tmp_path: Path) -> None:
    """A small trace in, its own quantiles, correlation and arrivals out."""
    tool = repo_tools.load("fit_lengths")
    rng = np.random.default_rng(3)
    prompts = rng.integers(10, 500, 4000)
    outputs = np.where(rng.random(4000) < 0.3, 7, prompts + rng.integers(0, 50, 4000))
    arrivals_s = np.cumsum(rng.exponential(0.2, 4000))
    file = tmp_path / "azure2023_own.csv.gz"
    with gzip.open(file, "wt", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(("arrival_s", "input_tokens", "output_tokens"))
        writer.writerows(zip(arrivals_s, prompts, outputs, strict=True))
    record = {"name": "own", **tool.azure2023("own")(tmp_path)}
    fitted = fitted_from(json.loads(tool.json_text(record)))
    drawn = fitted.draw_many(np.random.default_rng(1), 100_000)
    assert drawn[0].mean() == pytest.approx(prompts.mean(), rel=0.01)
    assert np.mean(drawn[1] == 7) == pytest.approx(np.mean(outputs == 7), abs=0.01)
    found = np.corrcoef(np.log(drawn))[0, 1]
    assert found == pytest.approx(np.corrcoef(np.log(prompts), np.log(outputs))[0, 1], abs=0.03)
    assert fitted.arrivals is not None
    assert fitted.arrivals.rate_req_s == pytest.approx(5, rel=0.05)
    assert fitted.arrivals.gap_cv == pytest.approx(1, abs=0.06)
    assert fitted.arrivals.dispersion_1s == pytest.approx(1, abs=0.15)
