"""Writes docs/images/slack.svg: one reader's text and slack over time, played by core's clock.

python tools/render_slack.py            write it
python tools/render_slack.py --check    exit 1 iff it is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from readahead.core.reading.clock import ReadingClock

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "slack.svg"

PACE_TOK_S, OFFSET_S = 5.0, 1.0
SPELLS = ((0.8, 2.8, 20.0), (8.9, 10.6, 4.0), (11.4, 14.0, 12.0))
"""From and to, seconds, and tokens made per second."""
PARKED_S, COPIED_S, STILL_S = (2.8, 8.5), (10.0, 10.6), (10.6, 11.4)
"""A standstill sixteen times as long as a move's, so that it can be seen."""
END_S, STEP_S = 17.5, 0.05

LEFT, RIGHT = 70.0, 930.0
TEXT, SLACK = (330.0, 30.0), (560.0, 390.0)
"""Lowest and highest place of each panel's curves."""
TOKENS_MAX, SLACK_LEAST_S, SLACK_MAX_S = 90.0, -1.0, 7.0
INK, FAINT, DELIVERED, READ, WAIT = "#24292f", "#57606a", "#0969da", "#1a7f37", "#cf222e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is true of the reader at one time."""

    at_s: float
    delivered: int
    read: float
    slack_s: float
    idle_s: float


def moments() -> list[Moment]:
    """The reader's day, looked at just before and just after each delivery, and in between."""
    clock = ReadingClock(pace_tok_s=PACE_TOK_S, commit_s=0.0, offset_s=OFFSET_S)
    times_s = list(token_times_s())
    found = []
    for step in range(round(END_S / STEP_S) + 1):
        now = step * STEP_S
        while times_s and times_s[0] <= now:
            at_s = times_s.pop(0)
            found.append(_seen(clock, at_s))
            clock.deliver(1, now=at_s)
            found.append(_seen(clock, at_s))
        found.append(_seen(clock, now))
    return found


def token_times_s() -> Iterable[float]:
    """When he gets his tokens."""
    for begin_s, end_s, tok_s in SPELLS:
        for token in range(int((end_s - begin_s) * tok_s + 1e-9) + 1):
            yield begin_s + token / tok_s


def _seen(clock: ReadingClock, now: float) -> Moment:
    unread = max(0.0, clock.slack_s(now) * PACE_TOK_S - 1)
    return Moment(
        at_s=now,
        delivered=clock.delivered,
        read=max(0.0, clock.delivered - unread),
        slack_s=clock.slack_s(now),
        idle_s=clock.idle_s(now),
    )


def _x(at_s: float) -> float:
    return LEFT + (RIGHT - LEFT) * at_s / END_S


def _tokens_y(tokens: float) -> float:
    return TEXT[0] + (TEXT[1] - TEXT[0]) * tokens / TOKENS_MAX


def _slack_y(slack_s: float) -> float:
    share = (slack_s - SLACK_LEAST_S) / (SLACK_MAX_S - SLACK_LEAST_S)
    return SLACK[0] + (SLACK[1] - SLACK[0]) * share


def _points(seen: Iterable[Moment], height: Callable[[Moment], float]) -> str:
    """A path without the points that lie between two equal ones."""
    points = [f"{_x(each.at_s):.1f},{height(each):.1f}" for each in seen]
    kept = [p for p, before in zip(points, ["", *points], strict=False) if p != before]
    return " ".join(kept)


def _line(points: str, colour: str, *, more: str = "") -> str:
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{more}/>'


def _word(x: float, y: float, text: str, colour: str = INK, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{text}</text>'


def _band(span_s: tuple[float, float], colour: str, name: str, *, anchor: str = "middle") -> str:
    left, right = _x(span_s[0]), _x(span_s[1])
    x = {"start": left + 2, "middle": (left + right) / 2, "end": right - 2}[anchor]
    return (
        f'<rect x="{left:.1f}" y="{TEXT[1]:g}" width="{right - left:.1f}" '
        f'height="{SLACK[0] - TEXT[1]:g}" fill="{colour}"/>'
        + _word(x, TEXT[1] - 8, name, FAINT, anchor=anchor)
    )


def _axes() -> list[str]:
    parts = []
    for bottom, top in (TEXT, SLACK):
        parts.append(
            f'<path d="M{LEFT:g} {top:g} V{bottom:g} H{RIGHT:g}" fill="none" stroke="{FAINT}"/>'
        )
    for at_s in range(0, 18, 2):
        for bottom, _ in (TEXT, SLACK):
            parts.append(_word(_x(at_s), bottom + 18, f"{at_s}", FAINT, anchor="middle"))
    heights = [(_tokens_y(tokens), tokens) for tokens in range(0, 81, 20)]
    heights += [(_slack_y(slack_s), slack_s) for slack_s in range(0, 7, 2)]
    parts += [_word(LEFT - 8, y + 5, f"{value}", FAINT, anchor="end") for y, value in heights]
    parts.append(_word(LEFT + 8, TEXT[1] + 14, "tokens", FAINT))
    parts.append(_word(LEFT + 8, SLACK[1] + 14, "slack, seconds", FAINT))
    parts.append(_word(RIGHT, SLACK[0] + 36, "seconds since he asked", FAINT, anchor="end"))
    return parts


def rendered() -> str:
    """The picture."""
    seen = moments()
    dry = [each for each in seen if each.slack_s <= 0]
    zero = _slack_y(0)
    waits = f"{_x(dry[0].at_s):.1f},{zero:.1f} " + _points(dry, lambda m: _slack_y(m.slack_s))
    waits += f" {_x(dry[-1].at_s):.1f},{zero:.1f}"
    tokens = seen[-1].delivered
    last_due_s = OFFSET_S + tokens / PACE_TOK_S
    due = f"{_x(OFFSET_S):.1f},{_tokens_y(0):.1f} {_x(last_due_s):.1f},{_tokens_y(tokens):.1f}"
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 610" '
        'font-family="-apple-system, \'Segoe UI\', Helvetica, Arial, sans-serif" font-size="14">',
        "<title>Text and slack of one reader over time</title>",
        '<rect width="960" height="610" fill="#ffffff"/>',
        _band(PARKED_S, "#ddf4ff", "parked"),
        _band(COPIED_S, "#fff8c5", "moves: copy,", anchor="end"),
        _band(STILL_S, "#ffdfb6", "standstill", anchor="start"),
        *_axes(),
        _line(due, FAINT, more=' stroke-dasharray="5 5"'),
        _line(_points(seen, lambda m: _tokens_y(m.delivered)), DELIVERED),
        _line(_points(seen, lambda m: _tokens_y(m.read)), READ),
        _word(_x(3.0), _tokens_y(41) - 8, "delivered", DELIVERED),
        _word(_x(5.6), _tokens_y(17), "read", READ),
        _word(_x(14.6), _tokens_y(72), "due", FAINT, anchor="end"),
        f'<path d="M{LEFT:g} {zero:.1f} H{RIGHT:g}" stroke="{FAINT}" stroke-dasharray="2 4"/>',
        f'<polygon points="{waits}" fill="{WAIT}" stroke="none"/>',
        _line(_points(seen, lambda m: _slack_y(max(m.slack_s, SLACK_LEAST_S))), INK),
        _word(_x(11.5), _slack_y(-0.8), f"he waits, {seen[-1].idle_s:.1f} s in all", WAIT),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Writes the picture, or checks it."""
    text = rendered()
    if "--check" in arguments:
        return int(not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
