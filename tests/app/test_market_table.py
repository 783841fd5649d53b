"""The table of the market through the end of a minute, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from watched_bots import SETTINGS, run_watched

from perpwatch.app import api_market
from perpwatch.app.api_market import MarketTable
from perpwatch.app.bot import Bot
from perpwatch.app.health import Monitor
from perpwatch.app.slices import at_once
from perpwatch.model import MINUTE_MS


def test_no_figure_vanishes_while_a_minute_that_ended_is_not_decided() -> None:
    seen = []

    async def look(monitor: Monitor) -> None:
        bot = monitor.metrics.bot
        table = MarketTable(bot)
        await asyncio.sleep(240)
        for _ in range(150):
            table.update()
            seen.append((bot.engine.now_ms % MINUTE_MS, dict(table.rows)))
            await asyncio.sleep(1)

    run_watched(7.0, contracts=15, visitor=look)
    assert min(second for second, _ in seen) < 2_000  # minutes ended meanwhile
    for _, rows in seen:
        assert len(rows) == 15
        for row in rows.values():
            assert None not in (row.move_1, row.move_5, row.activity, row.anomaly), row
            assert row.age_s is not None
    # Within a few seconds what is usual is not much of what it was, and the busiest contract never stands still.
    busiest = [rows["BTC_USDT"].activity for _, rows in seen]
    assert min(activity for activity in busiest if activity is not None) > 0.05


def test_after_a_pause_no_row_waits_for_what_is_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_market, "RENEWED_PER_TICK", 3)
    known = []

    async def look(monitor: Monitor) -> None:
        table = MarketTable(monitor.metrics.bot)
        await asyncio.sleep(240)
        for ticks in (1, 4):
            at_once(table.updating(ticks))
            known.append(sum(row.activity is not None for row in table.rows.values()))

    run_watched(5.0, contracts=15, visitor=look)
    assert known == [3, 15]


def changes_of_open_interest(meanwhile: Callable[[Bot, int], None]) -> list[list[float | None]]:
    """As a table tells them that was looked at each second, and one that nobody looked at until the end."""
    seen: list[list[float | None]] = []

    async def look(monitor: Monitor) -> None:
        bot = monitor.metrics.bot
        looked_at, left = MarketTable(bot), MarketTable(bot)
        for second in range(400):
            meanwhile(bot, second)
            looked_at.update()
            left.remember()
            await asyncio.sleep(1)
        looked_at.update()
        left.update()
        seen.extend([row.open_interest_change for row in table.rows.values()] for table in (looked_at, left))

    run_watched(8.0, contracts=15, visitor=look)
    return seen


def test_the_change_of_open_interest_is_known_although_nobody_looked() -> None:
    looked_at, left = changes_of_open_interest(lambda bot, second: None)
    assert looked_at == left
    assert sum(bool(change) for change in looked_at) > 10


def test_a_contract_that_comes_back_is_not_compared_with_what_it_was_before_although_nobody_looked() -> None:
    everything: list[str] = []

    def leave_and_come_back(bot: Bot, second: int) -> None:
        if second == 200:
            everything[:] = bot.watched
            bot.watch(everything[::2])
        elif second == 300:
            bot.watch(everything)

    looked_at, left = changes_of_open_interest(leave_and_come_back)
    assert len(looked_at) == 15
    assert looked_at == left


def test_by_rest_a_minute_that_was_not_read_yet_is_not_taken_for_one_without_trades() -> None:
    seen = []

    async def look(monitor: Monitor) -> None:
        table = MarketTable(monitor.metrics.bot)
        await asyncio.sleep(240)
        for _ in range(130):
            table.update()
            seen.append(table.rows["BTC_USDT"])
            await asyncio.sleep(1)

    run_watched(7.0, contracts=15, settings=SETTINGS | {"mode": "rest"}, visitor=look)
    assert not any(row.is_live for row in seen)
    assert min(row.activity or 0.0 for row in seen) > 0.05
    assert max(row.age_s or 0 for row in seen) >= 10
    assert {row.move_1 is None for row in seen} == {True, False}  # unknown until the minute before is read
