"""Makes the profiles that ship with the project again, from the public tables.

Run: python experiments/calibration/make_profiles.py DATA
where DATA holds composed/. Writes core/readahead/core/latency/profiles/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from readahead.core.latency.profile_text import to_text
from readahead.sim.calibration.fit import FitSettings
from readahead.sim.calibration.made import shipped

FOLDER = Path(__file__).parents[2] / "core" / "readahead" / "core" / "latency" / "profiles"
MIXING = 1.7
"""From LLMServingSim's mixed batches; see the README."""


def main(data: Path) -> None:
    """Fits, carries over and writes each."""
    for profile in shipped(data / "composed", settings=FitSettings(), mixing=MIXING):
        (FOLDER / f"{profile.name}.json").write_text(to_text(profile), encoding="utf-8")
        sys.stdout.write(f"{profile.name}: {len(profile.latency.planes)} planes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
