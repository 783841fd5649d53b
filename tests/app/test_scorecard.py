"""The scorecard as people read it."""

from __future__ import annotations

from perpwatch.alert.outcomes import Excursion, Outcome
from perpwatch.app.scorecard import outcome_body, scorecard_of, scorecard_text
from perpwatch.model import MINUTE_MS, Direction

START_MS = 1_617_580_800_000


def outcome(number: int, hit: bool) -> Outcome:
    def after(good: bool) -> tuple[Excursion, ...]:
        return tuple(Excursion(minutes, 0.01, 0.05 if good else 0.0, -0.02) for minutes in (5, 15, 60, 240))

    time_ms = START_MS + number * 60 * MINUTE_MS
    return Outcome(
        str(number), "default", "ABC_USDT", time_ms, Direction.UP, 1.0, 0.001, after(hit), (after(number < 5),)
    )


def test_stored_outcomes_become_lines_and_damaged_ones_are_left_out() -> None:
    bodies = [outcome_body(outcome(number, number % 2 == 0)) for number in range(20)]
    rows = scorecard_of([*bodies, b"damaged"], START_MS + 20 * 60 * MINUTE_MS)
    assert [(row.days, row.alerts, row.hits, row.lift) for row in rows] == [(7, 20, 10, 2.0), (30, 20, 10, 2.0)]
    lines = scorecard_text(rows).splitlines()
    assert len(lines) == 4
    assert "50%" in lines[2]
    assert "25%" in lines[2]
    assert "+1.00%" in lines[2]


def test_a_rule_without_judged_alerts_is_shown_with_dashes() -> None:
    rows = scorecard_of([outcome_body(outcome(0, True))], START_MS + 60 * 24 * 60 * MINUTE_MS)
    assert scorecard_text(rows).splitlines()[2].split() == ["default", "7", "0", "0", "-", "-", "-", "-", "-"]
