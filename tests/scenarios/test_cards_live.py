"""What a watch tells becomes cards that show what it saw; with PICTURES_FOLDER set, one is kept for the guide."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from virtual_watch import SEED, watch

from perpwatch import sim
from perpwatch.alert.card import Card
from perpwatch.alert.chart import Chart
from perpwatch.alert.drawing import draw
from perpwatch.alert.policy import Alert
from perpwatch.alert.texts import EN
from perpwatch.app.bot import Bot
from perpwatch.app.card_maker import CardMaker, chart_of, joined, view_of, window_of
from perpwatch.app.notices import alert_notice
from perpwatch.store import Database, Reader


def test_the_card_of_an_alert_shows_the_running_minute_that_made_it(tmp_path: Path) -> None:
    path, shown = tmp_path / "perpwatch.db", list[tuple[Alert, Card, Chart]]()

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
                notice = alert_notice(alert, alert.key, bot.engine.book.series[alert.symbol].contract.asset_class)
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
                shown.append((alert, card, chart))

    Database.open(str(path)).close()
    database = Database.open(str(path))
    try:
        watch(sim.build(SEED, 30, pumps_per_hour=60, quiet_share=0.0), 7, {}, path, beside=look)
    finally:
        database.close()
    assert len(shown) >= 3
    for alert, card, _ in shown:
        assert alert.symbol.removesuffix("_USDT") in card.title
        assert card.url == f"https://www.mexc.com/futures/{alert.symbol}"
    if folder := os.environ.get("PICTURES_FOLDER"):
        *_, chart = max(shown, key=lambda one: one[0].ratio)
        (Path(folder) / "card.png").write_bytes(draw(chart))
