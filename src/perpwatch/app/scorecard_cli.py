"""``perpwatch scorecard``: what came of the alerts, rule by rule."""

from __future__ import annotations

import enum
import time
from typing import Annotated

import msgspec
import typer

from perpwatch.alert.outcomes import DAY_MS, HORIZONS, Score
from perpwatch.app.config import file_in_use, load_config
from perpwatch.app.printing import ConfigOption, console, print_json
from perpwatch.app.scorecard import DAYS, scorecard_of, scorecard_text
from perpwatch.model import MINUTE_MS
from perpwatch.store import Reader, open_reader


class ScorecardFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


class Scorecard(msgspec.Struct, frozen=True):
    """The scorecard as ``--format json`` prints it."""

    rows: list[Score]  # one per rule and span of days
    waiting: int  # alerts whose last horizon is not over yet


def stored_scorecard(reader: Reader, now_ms: int, days: tuple[int, ...] = DAYS) -> Scorecard:
    """The scorecard of what the store has.

    Raises:
        StoreError: it cannot be read.
    """
    outcomes = reader.outcomes(now_ms - max(days) * DAY_MS)
    known = {outcome.alert_key for outcome in outcomes}
    # A market alert names no symbol; what came of it is followed symbol by symbol.
    recent = reader.alerts(now_ms - HORIZONS[-1] * MINUTE_MS, limit=1_000_000)
    waiting = sum(bool(alert.symbol) and alert.key not in known for alert in recent)
    return Scorecard(scorecard_of((outcome.body for outcome in outcomes), now_ms, days), waiting)


def scorecard(
    days: Annotated[list[int] | None, typer.Option(min=1, max=3_650, help="Over so many days; 7 and 30.")] = None,
    config: ConfigOption = None,
    format: Annotated[ScorecardFormat, typer.Option("--format", help="What to print.")] = ScorecardFormat.TEXT,
) -> None:
    """Say what came of the alerts that a watch gave: per rule, how often the price went on, and against chance.

    An alert is judged when its last horizon, four hours, is over. Lift is how many times as often the price went on
    within an hour as after random moments of the same symbol and volatility; 1 is no better than chance.
    """
    with open_reader(load_config(config).store.address(file_in_use(config))) as reader:
        found = stored_scorecard(reader, int(time.time() * 1_000), tuple(dict.fromkeys(days or DAYS)))
    if format is ScorecardFormat.JSON:
        print_json(found)
        return
    if found.rows:
        print(scorecard_text(found.rows))
    else:
        console.print("nothing has come of an alert yet: each is judged four hours after it was given", soft_wrap=True)
    if found.waiting:
        console.print(f"still being followed: {found.waiting} of the alerts of the last four hours")
