"""What is known about the pace of many users."""

from __future__ import annotations

from collections import OrderedDict

from readahead.core.reading.pace import PaceChoice, Scenario, choose_pace
from readahead.core.reading.pace_posterior import (
    DEFAULT_POPULATION,
    PacePosterior,
    PaceSample,
    Population,
)

USERS_MAX = 100_000
"""Some 200 bytes each."""

SCHEDULING_QUANTILE = 0.8
"""Of ten users, two read faster than they are taken to. Ten seconds late for one reader costs
more than a tenth more memory for another."""

EVIDENCE_SHARE_MIN = 0.5
"""A user's own reading goes before the preset once it outweighs the population: at 5 tokens/s,
eight seconds of it."""


class UserPaces:
    """A posterior per user, for at most `users_max` of them.

    At the limit the user who has not read for longest is forgotten; he is then a new one. Users
    without a name are not learnt from.
    """

    def __init__(
        self, *, population: Population = DEFAULT_POPULATION, users_max: int = USERS_MAX
    ) -> None:
        if users_max < 1:
            raise ValueError(f"users_max must be >= 1, is {users_max}")
        self._population = population
        self._users_max = users_max
        self._posteriors: OrderedDict[str, PacePosterior] = OrderedDict()
        self._forgotten = 0

    def __len__(self) -> int:
        return len(self._posteriors)

    @property
    def forgotten(self) -> int:
        """How many users had to make room."""
        return self._forgotten

    def learn(self, user_id: str, sample: PaceSample) -> None:
        """He read this. O(1)."""
        if not user_id:
            return
        self._posteriors[user_id] = self.posterior(user_id).after(sample)
        self._posteriors.move_to_end(user_id)
        if len(self._posteriors) > self._users_max:
            self._posteriors.popitem(last=False)
            self._forgotten += 1

    def posterior(self, user_id: str) -> PacePosterior:
        """The belief about him; about a user unknown so far, the population's."""
        return self._posteriors.get(user_id) or PacePosterior(population=self._population)

    def learnt_tok_s(self, user_id: str, *, quantile: float = SCHEDULING_QUANTILE) -> float | None:
        """The pace to schedule him by. None: too little is known."""
        posterior = self.posterior(user_id)
        if posterior.evidence_share < EVIDENCE_SHARE_MIN:
            return None
        return posterior.scheduling_pace_tok_s(quantile)

    def choose(
        self,
        user_id: str,
        *,
        explicit_tok_s: float | None = None,
        scenario: Scenario | None = None,
        default_tok_s: float | None = None,
        quantile: float = SCHEDULING_QUANTILE,
    ) -> PaceChoice:
        """The pace of his next request, in the order of precedence.

        The default is the population's mean unless another is given.
        """
        return choose_pace(
            explicit_tok_s=explicit_tok_s,
            learnt_tok_s=self.learnt_tok_s(user_id, quantile=quantile),
            scenario=scenario,
            default_tok_s=self._population.mean_tok_s if default_tok_s is None else default_tok_s,
        )
