"""A cluster as a file or a command line names it."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from readahead.core.config import Checked, CoreConfig, require
from readahead.core.latency.iteration import LatencyModel
from readahead.core.latency.profile import Profile
from readahead.core.latency.profile_text import profile
from readahead.core.planning.knobs import knobs_of
from readahead.core.planning.policies.registry import make_policy, policy_type
from readahead.core.planning.policies.slos_serve import SlosServe
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.drafts import Predictability
from readahead.sim.links import LINKS, Link
from readahead.workload.spec_problems import first_problem

DEFAULT_PROFILE = "llama-3.1-8b-h100"


class SettingsError(ValueError):
    """A cluster cannot be made of this; the message names the file and the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings(Checked):
    """All that `readahead simulate` lets one choose of a cluster."""

    profile: str = DEFAULT_PROFILE
    """Model and device of the engines."""
    prefill: int = 0
    """Prefill workers; none: every worker does both."""
    decode: int = 1
    """Decode workers."""
    link: str = "nvlink-h100"
    """Between workers: a name, or one of the profile's own."""
    policy: str = "vllm-chunked"
    """Of every engine."""
    knobs: dict[str, int | float] = field(default_factory=dict)
    """Of the policy."""
    requests_max: int = 256
    batch_tokens_max: int = 8192
    kv_blocks: int | None = None
    """Of each worker; not said: what the profile's device has."""
    prefill_credits: int = 4
    output_tokens_max: int = 2048
    """What every request says is the most it wants."""
    tells_true_length: bool = False
    """Each request says its true length instead, as a load generator does. Only to compare."""
    tells_slo: bool | None = None
    """Engines go by what scenarios promise, not by readers' paces; not said: under `slos-serve`,
    whose promises those are."""
    has_prefix_cache: bool = False
    host_bytes: int = 0
    """Host memory of each worker for the KV of those who are parked; 0: nobody can be."""
    host_link: str = "pcie"
    """Between device and host memory: a name, as of `link`. A policy that parks is told its speed,
    unless a knob says another."""
    draft_tokens_max: int = 0
    """Longest draft that engines verify in one iteration; 0: no speculation."""
    draft_step_s: float = 0.0
    """What each step of drafting takes on top of what the profile says, as of a small model beside
    the large one; drafts that are looked up in the text take nothing."""
    acceptance: float = 0.6
    """Probability that a drafted token is right if all before it are, the mean of all answers."""
    acceptance_spread: float = 0.15
    """Its standard deviation from answer to answer."""
    true_scale: float = 1.0
    """True iteration times over those that schedulers believe."""
    noise_sigma: float = 0.0
    """Of the logarithm of each true iteration time."""
    stretch_s_max: float | None = None
    """How old the router's knowledge of an engine can become; not said: until something changes."""
    core: CoreConfig = field(default_factory=CoreConfig)
    """The router's settings, as in its own file."""

    def __post_init__(self) -> None:
        require("prefill", self.prefill, least=0, most=1024)
        require("decode", self.decode, least=1, most=1024)

    def spec(self) -> ClusterSpec:
        """What the simulator takes.

        Raises:
            ValueError: no such profile, link, policy or knob, or a number out of range.
        """
        found = profile(self.profile)
        kv_blocks = self.kv_blocks or found.kv_blocks
        host_blocks = self.host_bytes // (found.block_tokens * found.kv_token_bytes)
        host_link = link_named(self.host_link, found) if host_blocks else LINKS["pcie4"]
        knobs = self._knobs(host_blocks, host_link)
        make_policy(self.policy, knobs)
        worker = WorkerSpec(
            latency=_with_draft_step(found.latency, self.draft_step_s),
            kv_blocks=kv_blocks,
            block_tokens=found.block_tokens,
            requests_max=self.requests_max,
            batch_tokens_max=self.batch_tokens_max,
            context_tokens_max=min(found.context_tokens_max, kv_blocks * found.block_tokens),
            prefill_credits=self.prefill_credits,
            true_scale=self.true_scale,
            noise_sigma=self.noise_sigma,
            has_prefix_cache=self.has_prefix_cache,
            draft_tokens_max=self.draft_tokens_max,
            host_blocks=host_blocks,
            host_link=host_link,
        )
        return ClusterSpec(
            policy=lambda _: make_policy(self.policy, knobs),
            decode_worker=worker,
            prefill=self.prefill,
            decode=self.decode,
            link=link_named(self.link, found),
            kv_token_bytes=found.kv_token_bytes,
            predictability=Predictability(mean=self.acceptance, spread=self.acceptance_spread),
            core=self.core,
            output_tokens_max=self.output_tokens_max,
            tells_true_length=self.tells_true_length,
            tells_slo=self.policy == SlosServe.name if self.tells_slo is None else self.tells_slo,
            stretch_s_max=float("inf") if self.stretch_s_max is None else self.stretch_s_max,
        )

    def _knobs(self, host_blocks: int, host_link: Link) -> dict[str, int | float]:
        """Those that were chosen, and what copies to host memory take."""
        if not host_blocks:
            if self.knobs.get("park"):
                raise ValueError("park needs host_bytes, at least those of one KV block")
            return self.knobs
        known = {each.name for each in knobs_of(policy_type(self.policy))}
        told = {"copy_gb_s": host_link.bytes_per_s / 1e9} if "copy_gb_s" in known else {}
        return {**told, **self.knobs}


def _with_draft_step(model: LatencyModel, draft_step_s: float) -> LatencyModel:
    require("draft_step_s", draft_step_s, least=0)
    if not draft_step_s:
        return model
    planes = tuple(
        dataclasses.replace(each, draft_step_s=each.draft_step_s + draft_step_s)
        for each in model.planes
    )
    return dataclasses.replace(model, planes=planes)


def link_named(name: str, found: Profile) -> Link:
    """One of the profile's links, or of those everyone has.

    Raises:
        ValueError: there is none of this name; says which there are.
    """
    own = {link.name: link for link in found.links}
    if name in own:
        link = own[name]
        return Link(name=name, bytes_per_s=link.bytes_per_s, latency_s=link.latency_s)
    if name in LINKS:
        return LINKS[name]
    known = ", ".join([*own, *(each for each in LINKS if each not in own)])
    raise ValueError(f"link must be one of {known}, is {name!r}")


def load_settings(path: Path | None, overrides: Mapping[str, object]) -> ClusterSettings:
    """The settings of a TOML file, if there is one, with some replaced.

    Raises:
        SettingsError: the file cannot be read, or a setting is unknown or not what it should be.
    """
    given: dict[str, Any] = {}
    name = "the command line" if path is None else str(path)
    if path is not None:
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{path}: {error}") from error
    known = {one.name for one in dataclasses.fields(ClusterSettings)}
    assert overrides.keys() <= known, overrides
    try:
        return TypeAdapter(ClusterSettings).validate_python({**given, **overrides})
    except ValidationError as error:
        raise SettingsError(f"{name}: {first_problem(error)}") from error
