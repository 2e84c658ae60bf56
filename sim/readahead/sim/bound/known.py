"""What a clairvoyant knows of a workload: every arrival and every length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from readahead.core.cluster import Role
from readahead.core.reading.curves import Slo
from readahead.core.reading.timeline import Timeline
from readahead.sim.cluster import ClusterSpec
from readahead.sim.run import zero_load_ttft_s
from readahead.workload.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRequest:
    """One request, as it would be served in full."""

    request_id: str
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    """The most that it can get; 0 where every engine refuses its prompt."""
    thinking_tokens: int = 0
    pace_tok_s: float | None = None
    has_reader: bool = True
    slo: Slo | None = None

    def timeline(self, token_times_s: tuple[float, ...] = ()) -> Timeline:
        """The request as core's metrics take it, had its tokens come at these times."""
        return Timeline(
            request_id=self.request_id,
            arrival_s=self.arrival_s,
            token_times_s=token_times_s,
            prompt_tokens=self.prompt_tokens,
            pace_tok_s=self.pace_tok_s,
            slo=self.slo,
            thinking_tokens=self.thinking_tokens,
            has_reader=self.has_reader,
        )


def known_requests(spec: ClusterSpec, sessions: Iterable[Session]) -> tuple[KnownRequest, ...]:
    """The requests of these sessions, whose readers may leave earlier but never ask for more.

    Raises:
        ValueError: a session has several turns: when a later one comes depends on the policy, so
            that no bound over all policies could be told beforehand.
    """
    return tuple(_known(spec, session) for session in sessions)


def _known(spec: ClusterSpec, session: Session) -> KnownRequest:
    if len(session.turns) != 1:
        raise ValueError(f"session {session.session_id} has {len(session.turns)} turns, not 1")
    (turn,) = session.turns
    prompt_tokens = turn.own_tokens
    most = [turn.output_tokens, spec.worker(Role.DECODE).context_tokens_max - prompt_tokens]
    if not spec.tells_true_length:
        most.append(spec.output_tokens_max)
    slo: Slo | None = None
    if turn.slo is not None:
        slo = turn.slo.curve(
            zero_load_ttft_s=zero_load_ttft_s(spec, prompt_tokens),
            thinking_tokens=turn.thinking_tokens,
        )
    return KnownRequest(
        request_id=session.session_id,
        arrival_s=session.arrival_s,
        prompt_tokens=prompt_tokens,
        output_tokens=max(0, min(most)),
        thinking_tokens=turn.thinking_tokens,
        pace_tok_s=session.reader.pace_tok_s if turn.has_reader else None,
        has_reader=turn.has_reader,
        slo=slo,
    )
