"""Batch policies by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from readahead.core.planning.knobs import knobs_of, settled
from readahead.core.planning.policies.andes import Andes
from readahead.core.planning.policies.readahead import Readahead
from readahead.core.planning.policies.sarathi import Sarathi
from readahead.core.planning.policies.slack import Slack
from readahead.core.planning.policies.slos_serve import SlosServe
from readahead.core.planning.policies.tokenflow import TokenFlow
from readahead.core.planning.policies.vllm import Vllm
from readahead.core.planning.policies.vllm_chunked import VllmChunked
from readahead.core.planning.policy import BatchPolicy

PolicyType = (
    type[Vllm]
    | type[VllmChunked]
    | type[Sarathi]
    | type[Andes]
    | type[TokenFlow]
    | type[SlosServe]
    | type[Slack]
    | type[Readahead]
)

POLICIES: Final[Mapping[str, PolicyType]] = MappingProxyType(
    {
        Vllm.name: Vllm,
        VllmChunked.name: VllmChunked,
        Sarathi.name: Sarathi,
        Andes.name: Andes,
        TokenFlow.name: TokenFlow,
        SlosServe.name: SlosServe,
        Slack.name: Slack,
        Readahead.name: Readahead,
    }
)
"""One object serves one engine: some remember what they decided."""


def policy_type(name: str) -> PolicyType:
    """The policy of this name.

    Raises:
        ValueError: there is none; says which there are.
    """
    if name not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, is {name!r}")
    return POLICIES[name]


def make_policy(name: str, knobs: Mapping[str, float] = MappingProxyType({})) -> BatchPolicy:
    """A new policy for one engine, with some knobs turned.

    Raises:
        ValueError: no policy has this name, it has no such knob, or the value is out of range.
    """
    chosen = policy_type(name)
    known = {each.name: each for each in knobs_of(chosen)}
    for each in knobs:
        if each not in known:
            raise ValueError(f"{each} is no knob of {name}, which has {', '.join(known)}")
    turned = {each: settled(known[each], value) for each, value in knobs.items()}
    return chosen(**turned)  # type: ignore[arg-type]
