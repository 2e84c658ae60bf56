"""Renders docs/reference/profiles.md from the profiles that ship.

python tools/render_profiles.py            writes it
python tools/render_profiles.py --check    fails iff it would change
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from readahead.core.latency.budget import NO_WORK
from readahead.core.latency.iteration import IterationWork, iteration_s
from readahead.core.latency.profile import Profile
from readahead.core.latency.profile_text import profiles

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/profiles.md"

HEAD = """\
# Profiles

<!-- Made by tools/render_profiles.py from core/readahead/core/latency/profiles/. -->

A model on a device, for `readahead simulate --profile NAME`: iteration times, memory and links.
What the times are made of: [how long an iteration takes](../explanation/iteration-time.md).
How they were made and how well they do: [the experiment](../../experiments/calibration/README.md).
`readahead calibrate` makes more.

## Sizes and times

Milliseconds of one iteration by the model, host's part included: a prompt of 1,024 tokens alone,
and a batch of 1 and of 32 that decodes with 1,024 past tokens each.

| profile | KV tokens | weights | prompt of 1,024 | decode, 1 | decode, 32 |
|---|---|---|---|---|---|
"""

FITS = """
## Fits

On points held out of the fit. *Carried over* and *published* are nobody's measurement here.

| profile | prefill R² / MAPE | decode R² / MAPE | mixed R² / MAPE |
|---|---|---|---|
"""

ORIGINS = """
## Origins
"""


def page() -> str:
    """The whole page."""
    every = list(profiles().values())
    rows = [_sizes(one) for one in every]
    fits = [_fits(one) for one in every]
    return HEAD + "\n".join(rows) + "\n" + FITS + "\n".join(fits) + "\n" + ORIGINS + _origins(every)


def _decode(batch: int) -> IterationWork:
    return IterationWork(tokens=batch, requests=batch, past_tokens=1024 * batch, prefill_pairs=0)


def _sizes(one: Profile) -> str:
    works = (NO_WORK.with_chunk(1024), _decode(1), _decode(32))
    times = [f"{iteration_s(work, model=one.latency) * 1e3:.1f}" for work in works]
    return (
        " | ".join(
            [
                f"| `{one.name}`",
                f"{one.kv_capacity_tokens:,}",
                f"{one.weights_bytes / 1e9:.1f} GB" if one.weights_bytes >= 1e8 else "small",
                *times,
            ]
        )
        + " |"
    )


def _fits(one: Profile) -> str:
    if one.fit is None:
        how = "carried over" if one.derived else "published"
        return f"| `{one.name}` | {how} | {how} | {how} |"
    by_kind = {kind.kind: kind for kind in one.fit.kinds}
    cells = [
        f"{by_kind[kind].r2:.4f} / {by_kind[kind].mape:.1%}" if kind in by_kind else "none"
        for kind in ("prefill", "decode", "mixed")
    ]
    return f"| `{one.name}` | " + " | ".join(cells) + " |"


def _origins(every: Iterable[Profile]) -> str:
    return "".join(f"\n**`{one.name}`**: {one.origin}. Host: {one.host_origin}.\n" for one in every)


def main() -> int:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    made = page()
    if parser.parse_args().check:
        return 0 if PAGE.read_text(encoding="utf-8") == made else 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
