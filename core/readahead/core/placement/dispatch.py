"""Which waiting request goes next, and where."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.cluster import Role
from readahead.core.lines import Lines
from readahead.core.live_request import LiveRequest
from readahead.core.placement.elastic import choose, placed
from readahead.core.placement.least_loaded import Placement, place
from readahead.core.placement.roles import ElasticRoles
from readahead.core.pools import Pools
from readahead.core.request import Leg, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """A leg to submit now."""

    request: LiveRequest
    leg: Leg
    placement: Placement
    tokens: int
    """Most KV that the leg can come to occupy there."""


def next_dispatch(
    lines: Lines, pools: Pools, *, now: float, roles: ElasticRoles | None = None
) -> Dispatch | None:
    """Returns the oldest request that some worker has room for, or None.

    Handovers and short prompts share the decode workers in order of arrival, so that neither
    starves the other. Without a prefill worker every prompt is computed where it is decoded;
    without a decode worker none is started, since its KV would only wait.

    With elastic roles a prompt goes wherever its first token is likely to come first.
    """
    if not len(lines):
        return None
    for_decode = [Leg.DECODE, Leg.WHOLE]
    if roles is None and not pools.has(Role.PREFILL):
        for_decode.append(Leg.PREFILL)
    if request := lines.head(for_decode):
        leg = Leg.DECODE if request.stage is Stage.HANDOVER else Leg.WHOLE
        if found := _dispatch(request, leg, pools, now):
            return found
    request = lines.head([Leg.PREFILL])
    if request is None or not pools.has(Role.DECODE):
        return None
    if roles is not None:
        return _soonest(request, roles, now)
    return _dispatch(request, Leg.PREFILL, pools, now)


def _soonest(request: LiveRequest, roles: ElasticRoles, now: float) -> Dispatch | None:
    sites = roles.sites(request, now)
    site = choose(sites)
    if site is None:
        return None
    is_handed_over = site.leg is Leg.PREFILL
    return Dispatch(
        request=request,
        leg=site.leg,
        placement=placed(site, sites),
        tokens=request.prompt_tokens if is_handed_over else request.tokens_max,
    )


def _dispatch(request: LiveRequest, leg: Leg, pools: Pools, now: float) -> Dispatch | None:
    role = Role.PREFILL if leg is Leg.PREFILL else Role.DECODE
    tokens = request.prompt_tokens if leg is Leg.PREFILL else request.tokens_max
    candidates = pools.with_room(role, tokens, now=now)
    if not candidates:
        return None
    placement = place(request.view(), candidates)
    return Dispatch(request=request, leg=leg, placement=placement, tokens=tokens)
