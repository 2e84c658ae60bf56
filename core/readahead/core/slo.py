"""What callers may ask to be promised: by the name of a class, or bound by bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from readahead.core.config import Checked, require
from readahead.core.promise import SECONDS_MAX, Promise, PromisedStage

EXPLICIT = "explicit"
"""Name of a promise that has no class."""
SLOWDOWN_MAX = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SloClass(Checked):
    """Bounds under a name."""

    name: str
    tpot_s: float
    """Longest time per token of the answer, seconds."""
    ttft_slowdown: float = 0.0
    """Longest time to the first token, as a multiple of that of the same prompt on an idle
    cluster. 0: `ttft_s` says it."""
    ttft_s: float = 0.0
    """The same in seconds. 0: `ttft_slowdown` says it."""
    think_tpot_s: float = 0.0
    """Longest time per token of thinking. 0: as of the answer."""

    def __post_init__(self) -> None:
        if not self.name or self.name == EXPLICIT:
            raise ValueError(f"slo.classes: a name must not be empty or {EXPLICIT!r}")
        require("slo.classes.tpot_s", self.tpot_s, least=1e-3, most=SECONDS_MAX)
        think_tpot_s = self.think_tpot_s or self.tpot_s
        require("slo.classes.think_tpot_s", think_tpot_s, least=1e-3, most=SECONDS_MAX)
        require("slo.classes.ttft_slowdown", self.ttft_slowdown, least=0, most=SLOWDOWN_MAX)
        require("slo.classes.ttft_s", self.ttft_s, least=0, most=SECONDS_MAX)
        if bool(self.ttft_slowdown) == bool(self.ttft_s):
            raise ValueError(
                f"slo.classes: {self.name} must have either ttft_slowdown or ttft_s, not both"
            )


def _paper(name: str, slowdown: float, tpot_s: float, think_s: float = 0.0) -> SloClass:
    return SloClass(name=name, ttft_slowdown=slowdown, tpot_s=tpot_s, think_tpot_s=think_s)


PAPER_CLASSES: Mapping[str, SloClass] = {
    each.name: each
    for each in (
        _paper("chatbot", 5.0, 0.1),
        _paper("chatbot-large", 5.0, 0.2),
        _paper("coder", 5.0, 0.05),
        _paper("coder-large", 5.0, 0.1),
        _paper("summarization", 3.0, 0.1),
        _paper("summarization-large", 3.0, 0.2),
        _paper("reasoning", 3.0, 0.1, think_s=0.05),
        _paper("reasoning-large", 3.0, 0.2, think_s=0.1),
        _paper("tool-loop", 3.0, 0.05),
        _paper("tool-loop-large", 3.0, 0.1),
        _paper("tool-answer", 3.0, 0.1),
        _paper("tool-answer-large", 3.0, 0.2),
        _paper("loose", 5.0, 0.05),  # of an ablation, on small models alone
    )
}
"""By name; `-large` is for models of 13 billion parameters or more.

Ref: [SLOs-Serve] scenario table, as in the author's code.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SloConfig(Checked):
    """What callers can be promised."""

    classes: tuple[SloClass, ...] = ()
    """Besides the built-in ones (chatbot, coder, summarization, reasoning, tool-loop, tool-answer,
    loose, and most of them -large); one of the same name takes its place. A list of mappings with
    `name`, `tpot_s`, `ttft_slowdown` or `ttft_s`, and perhaps `think_tpot_s`."""
    zero_load_base_s: float = 0.0
    """Time to the first token of an empty prompt on the idle cluster, of which slow-downs are
    multiples. With `zero_load_token_s` it goes before what workers say of themselves."""
    zero_load_token_s: float = 0.0
    """How much each prompt token adds to it."""
    ttft_s: float = 1.0
    """Bound of the first token for a slow-down where nobody knows the idle cluster's time: what a
    reader takes for prompt."""

    def __post_init__(self) -> None:
        require("slo.zero_load_base_s", self.zero_load_base_s, least=0, most=86_400)
        require("slo.zero_load_token_s", self.zero_load_token_s, least=0, most=60)
        require("slo.ttft_s", self.ttft_s, least=1e-3, most=86_400)
        names = [each.name for each in self.classes]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"slo.classes: {twice!r} is there twice")

    def known(self) -> Mapping[str, SloClass]:
        """All classes, by name."""
        return {**PAPER_CLASSES, **{each.name: each for each in self.classes}}

    def zero_load_ttft_s(self, prompt_tokens: int) -> float | None:
        """Of such a prompt, where the settings say it."""
        found_s = self.zero_load_base_s + self.zero_load_token_s * prompt_tokens
        return found_s or None


@dataclass(frozen=True, slots=True, kw_only=True)
class SloAsked:
    """What one caller asks for. Bounds that he gives go before those of the class."""

    class_name: str = ""
    """Empty: the bounds say it all."""
    ttft_s: float | None = None
    ttft_slowdown: float | None = None
    """Not together with `ttft_s`."""
    tpot_s: float | None = None
    think_tpot_s: float | None = None
    thinking_tokens: int | None = None
    """After so many tokens the answer begins."""
    until_token_id: int | None = None
    """With this token the thinking ends; None: the model has none."""
    parameter: str = "slo"
    """Where he said it, for errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPromise:
    """A promise, and what it is called."""

    name: str
    """The class's, or EXPLICIT."""
    promise: Promise


def promised(
    asked: SloAsked,
    classes: Mapping[str, SloClass],
    *,
    zero_load_ttft_s: float | None,
    ttft_s: float,
) -> NamedPromise:
    """What is promised to one who asks for this.

    Args:
        asked: by the caller.
        classes: that there are.
        zero_load_ttft_s: time to the first token of his prompt on an idle cluster; None: unknown.
        ttft_s: bound of the first token where a slow-down is asked for and that is unknown.

    Raises:
        ValueError: there is no such class, or not all bounds are given; says which.
    """
    found = classes.get(asked.class_name)
    if asked.class_name and found is None:
        known = ", ".join(classes)
        raise ValueError(f"there is no class {asked.class_name[:64]!r}; there are {known}")
    tpot_s = asked.tpot_s or (found.tpot_s if found else None)
    if tpot_s is None:
        raise ValueError("give a class, or tpot_s")
    return NamedPromise(
        name=asked.class_name or EXPLICIT,
        promise=Promise(
            first_token_s=_first_token_s(asked, found, zero_load_ttft_s, ttft_s),
            stages=_stages(asked, found, tpot_s),
        ),
    )


def _first_token_s(
    asked: SloAsked, found: SloClass | None, zero_load_ttft_s: float | None, ttft_s: float
) -> float:
    if asked.ttft_s is not None:
        return asked.ttft_s
    slowdown = asked.ttft_slowdown
    if slowdown is None and found is not None:
        if found.ttft_s:
            return found.ttft_s
        slowdown = found.ttft_slowdown
    if slowdown is None:
        raise ValueError("give a class, ttft_s or ttft_slowdown")
    return ttft_s if zero_load_ttft_s is None else slowdown * zero_load_ttft_s


def _stages(asked: SloAsked, found: SloClass | None, tpot_s: float) -> tuple[PromisedStage, ...]:
    """Thinking, where it has a bound of its own and something ends it; then the answer."""
    answer = PromisedStage(token_s=tpot_s)
    think_tpot_s = asked.think_tpot_s or (found.think_tpot_s if found else 0.0)
    has_end = asked.thinking_tokens is not None or asked.until_token_id is not None
    if asked.think_tpot_s and not has_end:
        raise ValueError("say when the thinking ends: thinking_tokens, or think_until")
    if not think_tpot_s or asked.thinking_tokens == 0 or not has_end:
        return (answer,)
    thinking = PromisedStage(
        token_s=think_tpot_s, tokens=asked.thinking_tokens, until_token_id=asked.until_token_id
    )
    return (thinking, answer)
