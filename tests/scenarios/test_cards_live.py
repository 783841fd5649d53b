"""What a watch tells becomes cards that show what it saw."""

from __future__ import annotations

import asyncio
from pathlib import Path

from virtual_watch import SEED, watch

from perpwatch import sim
from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.policy import Alert
from perpwatch.alert.texts import EN
from perpwatch.app.bot import Bot
from perpwatch.app.card_maker import CardMaker, chart_of, joined, view_of, window_of
from perpwatch.store import Database, Reader


def notice_of(alert: Alert) -> Notice:
    return Notice(
        key=alert.key,
        thread=alert.key,
        kind=NoticeKind.ALERT,
        time_ms=alert.time_ms,
        level=alert.signal.level,
        rule=alert.rule,
        symbol=alert.symbol,
        alert=alert,
    )


def test_the_card_of_an_alert_shows_the_running_minute_that_made_it(tmp_path: Path) -> None:
    path, shown = tmp_path / "perpwatch.db", list[tuple[Alert, str, str]]()

    async def look(bot: Bot) -> None:
        seen: set[str] = set()
        reader = Reader(database)
        view = view_of(bot, reader)
        maker = CardMaker(view, is_inline=True)
        for _ in range(4_000):
            await asyncio.sleep(0.1)
            for alert in bot.alerts:
                if not isinstance(alert, Alert) or alert.key in seen:
                    continue
                seen.add(alert.key)
                notice = notice_of(alert)
                card = await maker.make([notice])
                timeframe, start_ms, end_ms = window_of(notice)
                past = view.past(alert.symbol, timeframe, start_ms - 86_400_000, end_ms)
                chart = chart_of(notice, joined(past, view.minutes(alert.symbol), timeframe), EN)
                assert chart is not None
                (bar,) = (bar for bar in chart.bars if bar.open_time_ms == alert.signal.open_time_ms)
                turnover = next(one.value for one in alert.signal.reasons if one.name == "turnover")
                # By the time of the card the candle may have grown.
                assert bar.turnover >= 0.999 * turnover
                assert all(one.is_known for one in chart.bars[-30:])
                assert len(chart.bars) > 30
                shown.append((alert, card.title, card.url))

    Database.open(str(path)).close()
    database = Database.open(str(path))
    try:
        watch(sim.build(SEED, 30, pumps_per_hour=60, quiet_share=0.0), 7, {}, path, beside=look)
    finally:
        database.close()
    assert len(shown) >= 3
    for alert, title, url in shown:
        assert alert.symbol.removesuffix("_USDT") in title
        assert url == f"https://www.mexc.com/futures/{alert.symbol}"
