"""What the scheduler counts in the engine core."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What `PlanReport` tells, while it is counted, and the moves."""

    iterations: int = 0
    planned: int = 0
    kept: int = 0
    failures: int = 0
    overruns: int = 0
    yielded: int = 0
    held_requests: int = 0
    preemptions: int = 0
    planner_s: float = 0.0
    last_planner_s: float = 0.0
    last_batch_tokens: int = 0
    last_held: int = 0
    parks: int = 0
    """By plans."""
    parks_refused: int = 0
    resumes: int = 0
    """Of those whom plans had parked."""
    parked: int = 0
    """Now, by plans and by commands."""

    def words(self, policy_index: int) -> tuple[float, ...]:
        """In the order of PlanReport's fields."""
        return (
            policy_index,
            self.iterations,
            self.planned,
            self.kept,
            self.failures,
            self.overruns,
            self.yielded,
            self.held_requests,
            self.preemptions,
            self.planner_s,
            self.last_planner_s,
            self.last_batch_tokens,
            self.last_held,
            self.parks,
            self.resumes,
            self.parked,
        )

    def moves(self) -> dict[str, int]:
        """What plans have moved."""
        return {
            "parks": self.parks,
            "parks_refused": self.parks_refused,
            "resumes": self.resumes,
        }
