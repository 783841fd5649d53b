"""What a watch tells, what it does not tell again, what came of it, and rules that change meanwhile."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from virtual_watch import SEED, Live, watch

from perpwatch import sim
from perpwatch.alert.outcomes import HORIZONS
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.bot import Bot
from perpwatch.app.scorecard_cli import stored_scorecard
from perpwatch.model import MINUTE_MS
from perpwatch.store import Database, Reader

HOUR_MS = 60 * MINUTE_MS


def told(live: Live) -> list[Alert]:
    """Every single alert, those that a market alert is made of included, once."""
    singles: dict[str, Alert] = {}
    for alert in live.found.alerts:
        for one in alert.alerts if isinstance(alert, MarketAlert) else (alert,):
            singles.setdefault(one.key, one)
    return list(singles.values())


def test_a_watch_that_was_killed_tells_nothing_again(tmp_path: Path) -> None:
    path, exchange = tmp_path / "perpwatch.db", sim.build(SEED, 30, pumps_per_hour=60, quiet_share=0.0)
    before = watch(exchange, 8, {}, path)
    after = watch(exchange, 8, {}, path, start_ms=exchange.now_ms)
    assert len(told(before)) >= 3
    assert len(told(after)) >= 1
    assert {one.key for one in told(before)}.isdisjoint(one.key for one in told(after))
    highest = {one.symbol: one for one in told(before)}
    again = [one for one in told(after) if one.symbol in highest]
    for one in again:
        first = highest[one.symbol]
        assert one.time_ms - first.time_ms >= HOUR_MS or one.ratio >= 2.0 * first.ratio
        assert one.time_ms - first.time_ms >= HOUR_MS or one.escalation > first.escalation
    silent = {one.signal.symbol for one in after.found.suppressed if "told" in one.text}
    assert silent & highest.keys(), "some symbol was to be told again, had the first watch been forgotten"


def test_what_came_of_alerts_is_found_out_over_a_restart_and_makes_a_scorecard(tmp_path: Path) -> None:
    path, exchange = tmp_path / "perpwatch.db", sim.build(SEED, 12, pumps_per_hour=60, quiet_share=0.0)
    before = watch(exchange, 8, {}, path)
    assert before.found.outcomes == []
    settings = {"rest": {"history_minutes": 600}}
    after = watch(exchange, 12, settings, path, start_ms=exchange.now_ms + (HORIZONS[-1] - 10) * MINUTE_MS)
    followed = {one.key for one in told(before) if one.signal.direction != "flat"}
    known = {one.key: one for one in after.found.outcomes}
    assert followed
    assert followed <= known.keys()
    for key in followed:
        assert [one.minutes for one in known[key].after] == list(HORIZONS)
    database = Database.open(str(path))
    card = stored_scorecard(Reader(database), exchange.now_ms)
    database.close()
    (week, month) = [row for row in card.rows if row.rule == "default"]
    assert (week.days, month.days) == (7, 30)
    assert week.alerts == len([one for one in known.values() if one.rule == "default"])
    assert week.judged == week.alerts


def test_a_file_of_rules_takes_force_while_the_watch_runs_and_a_wrong_one_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[rules.mine]\ndetector = "rarity"\n')
    seen: list[tuple[str, ...]] = []

    async def edit(bot: Bot) -> None:
        def see() -> None:
            seen.append(tuple(rule.name for rule in bot.analysis.rules.rules))

        await asyncio.sleep(60.0)
        warm = bot.analysis.rules.state()
        see()
        for text in (
            '[rules.mine]\ndetector = "rarity"\nmove = 6.0\n\n[rules.more]\ndetector = "breakout"\n',
            '[rules.mine]\ndetector = "rarty"\n',
            '[rules.more]\ndetector = "breakout"\n',
        ):
            file.write_text(text)
            await asyncio.sleep(5.0)
            see()
            if len(seen) == 2:
                assert len(bot.analysis.rules.state()) > 0.9 * len(warm)  # what was learned is kept

    caplog.set_level(logging.INFO)
    watch(sim.build(SEED, 10), 2, {"detection": {"rules": [str(file)]}}, beside=edit)
    assert seen == [("mine",), ("mine", "more"), ("mine", "more"), ("more",)]
    assert "+ rule more: breakout" in caplog.text
    assert "move" in caplog.text
    assert "the rules stay as they were" in caplog.text
    assert "did you mean rarity?" in caplog.text
    assert "- rule mine" in caplog.text
