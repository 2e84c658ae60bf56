"""All experiments by name; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from readahead.sim.experiments.experiment import Experiment

MODULES = {
    "smooth-goodput": "smooth_goodput",
    "chunked-prefill": "chunked_prefill",
    "tricks": "tricks",
    "pace": "pace",
    "disaggregation": "disaggregation",
    "roles": "roles",
    "migration": "migration",
    "parking-simulated": "parking",
    "ranking": "ranking",
    "capacity": "capacity",
    "ablation": "ablation",
    "misspecified": "misspecified",
    "bursts": "bursts",
}
"""Each module here has an `EXPERIMENT`. In this order they are shown."""
TAKES_LONG = ("capacity", "ablation", "misspecified", "bursts")
"""Those that run only when they are named: capacity for hours, the others for many minutes."""


def names() -> list[str]:
    """Those there are."""
    return list(MODULES)


def usual_names() -> list[str]:
    """Those that run when none is named."""
    return [name for name in MODULES if name not in TAKES_LONG]


def experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: there is none; says which there are.
    """
    if name not in MODULES:
        raise ValueError(f"no experiment is called {name!r}; known: {', '.join(MODULES)}")
    module = import_module(f"readahead.sim.experiments.{MODULES[name]}")
    found: Experiment = module.EXPERIMENT
    return found
