"""Laws of the router's core, against a world that answers at random."""

from __future__ import annotations

from dataclasses import replace

from router_world import LAWS, World, description

from readahead.core.cluster import Role

TestWorld = World.TestCase
TestWorld.settings = LAWS


def test_descriptions_differ_by_incarnation_only() -> None:
    """The world's restarted workers are the same worker, so that fencing is what is tested."""
    first, second = description("d1", Role.DECODE, 1), description("d1", Role.DECODE, 2)
    assert replace(first, incarnation=second.incarnation) == second
