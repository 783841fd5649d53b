"""The scorecard as people and machines read it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence

import msgspec

from perpwatch.alert.outcomes import Outcome, Score, scorecard

logger = logging.getLogger(__name__)

#: Spans that are shown side by side.
DAYS = (7, 30)


def scorecard_of(bodies: Iterable[bytes], now_ms: int, days: Sequence[int] = DAYS) -> list[Score]:
    """The scorecard from outcomes as the store has them, which is as JSON; what cannot be read is left out."""
    outcomes = []
    for body in bodies:
        try:
            outcomes.append(msgspec.json.decode(body, type=Outcome))
        except msgspec.DecodeError as error:
            logger.warning("an outcome cannot be read and is left out: %s", error)
    return scorecard(outcomes, now_ms, days)


def scorecard_text(rows: Sequence[Score]) -> str:
    """One line per rule and span of days."""
    head = f"{'rule':<20} {'days':>5} {'alerts':>7} {'judged':>7} {'went on':>8} {'at random':>10} {'lift (95 %)':>18}"
    head += f" {'5 min':>8} {'60 min':>8}"
    lines = [head, "-" * len(head)]
    for row in rows:
        forward = {minutes: mean for minutes, mean, _ in row.forward}
        lines.append(
            f"{row.rule:<20} {row.days:>5} {row.alerts:>7} {row.judged:>7} {_share(row.hit_rate):>8} "
            f"{_share(row.random_hit_rate):>10} {lift_text(row):>18} {_return(forward[5]):>8} {_return(forward[60]):>8}"
        )
    return "\n".join(lines)


def lift_text(score: Score | None) -> str:
    """Lift with its interval, or a dash."""
    if score is None or score.lift is None:
        return "-"
    if score.lift_low is None or score.lift_high is None:
        return f"{score.lift:.2f}"
    return f"{score.lift:.2f} ({score.lift_low:.2f}-{score.lift_high:.2f})"


def hit_rate_text(score: Score | None) -> str:
    """Share of alerts after which the price went on, or a dash."""
    return "-" if score is None else _share(score.hit_rate)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _return(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{fraction:+.2%}"
