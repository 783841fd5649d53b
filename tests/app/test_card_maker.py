"""Cards of what a watch really told: words, page, record and picture."""

from __future__ import annotations

import asyncio
import dataclasses
import zoneinfo
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from cards import NOW_MS, alert, notice, signal
from perpwatch.alert.chart import MOST_CANDLES, Chart
from perpwatch.alert.notice import Development, Notice, NoticeKind
from perpwatch.alert.outcomes import Score
from perpwatch.alert.texts import EN, RU, Language
from perpwatch.app.card_maker import CardMaker, MarketView, chart_of, joined, window_of
from perpwatch.app.painter import Painter
from perpwatch.errors import StoreUnavailable
from perpwatch.market.candles import roll_up_all
from perpwatch.model import MINUTE_MS, Candle, Finality, Level, Timeframe, Trust

LAST_MS = NOW_MS - NOW_MS % MINUTE_MS
SCORE = Score("default", 30, 61, 58, 34, 34 / 58, 0.33, 1.8, 1.2, 2.4, ())


def minutes(count: int, end_ms: int = LAST_MS + MINUTE_MS, symbol: str = "BEAT_USDT") -> list[Candle]:
    """Minutes of which the last one still runs."""
    return [
        Candle(
            symbol=symbol,
            timeframe=Timeframe.Min1,
            open_time_ms=end_ms - (count - number) * MINUTE_MS,
            open=1.0,
            high=1.2,
            low=0.9,
            close=1.1,
            contracts=1.0,
            base_volume=1.0,
            turnover=float(number % 100),
            finality=Finality.OPEN if number == count - 1 else Finality.SUCCESSOR,
            trust=Trust.STREAMED,
        )
        for number in range(count)
    ]


def view(
    recent: Sequence[Candle] = (), past: Sequence[Candle] = (), scores: Sequence[Score] = (SCORE,)
) -> tuple[MarketView, list[str]]:
    asked: list[str] = []

    def stored(symbol: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Sequence[Candle]:
        asked.append("past")
        return [one for one in roll_up_all(past, timeframe, until_ms=NOW_MS) if start_ms <= one.open_time_ms < end_ms]

    def read_scores() -> Sequence[Score]:
        asked.append("scores")
        return scores

    return MarketView("MEXC", lambda symbol: f"https://x/{symbol}", lambda symbol: recent, stored, read_scores), asked


async def test_a_card_has_words_page_record_and_picture() -> None:
    one, asked = view(minutes(120))
    async with asyncio.timeout(60), Painter(deadline_s=30.0) as painter:
        await painter.start()
        maker = CardMaker(one, painter=painter)
        card = await maker.make([notice(alert())], with_picture=True)
        assert card.title == "▲▲ BEAT +6.04\u00a0% in 1\u00a0min, vol 12.6×"
        assert (card.url, card.link) == ("https://x/BEAT_USDT", "BEAT_USDT at MEXC")
        assert card.lines[-1] == "Rule default, 30 days: 34 of 58 alerts went on, 1.8× as often as by chance"
        assert card.picture is not None
        again = await maker.make([notice(alert())])
        assert again == replace(card, picture=None)
        assert sorted(asked) == ["past", "scores"], "a record is read once for some minutes"


async def test_several_notices_are_a_digest() -> None:
    one, asked = view()
    card = await CardMaker(one, Language.RU).make([notice(alert()), notice(alert(signal("B_USDT")))], with_picture=True)
    assert card.title == "◆ 2 сигнала, больше всех BEAT +6.04\u00a0%"
    assert card.picture is None
    assert asked == []


async def test_a_store_in_trouble_costs_the_record_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> Sequence[Score]:
        raise StoreUnavailable("sqlite:///x", "locked", "database is locked")

    one, _ = view(minutes(120))
    one = dataclasses.replace(one, scores=fail)
    card = await CardMaker(one).make([notice(alert())])
    assert not [line for line in card.lines if "default" in line]
    assert "how the rules did cannot be read" in caplog.text


async def test_what_is_about_no_symbol_has_neither_page_nor_picture() -> None:
    one, asked = view()
    test = Notice(key="t", thread="t", kind=NoticeKind.TEST, time_ms=NOW_MS, level=Level.NOTICE)
    card = await CardMaker(one, painter=Painter()).make([test], with_picture=True)
    assert (card.url, card.picture) == ("", None)
    assert asked == []


def drawn(one: Notice, candles: Sequence[Candle]) -> Chart:
    chart = chart_of(one, candles, EN)
    assert chart is not None
    return chart


def test_an_alert_is_shown_with_the_hour_before_it_and_what_came_since() -> None:
    one = notice(alert())
    timeframe, start_ms, end_ms = window_of(one)
    assert timeframe is Timeframe.Min1
    assert (end_ms - start_ms) // MINUTE_MS == MOST_CANDLES
    assert (LAST_MS - start_ms) // MINUTE_MS == 54
    chart = drawn(one, minutes(1500))
    assert len(chart.bars) == 55
    assert chart.bars[-1].open_time_ms == chart.signal_ms == LAST_MS
    assert (chart.ratio, chart.move, chart.span) == ("12.6×", "+6.04\u00a0%", "1\u00a0min")
    # The mean is the one of the words, the band that of the day before.
    assert chart.usual == (10.0, 90.0, 247_400.0)


def test_an_episode_of_four_hours_is_shown_whole_in_longer_candles() -> None:
    development = Development(NOW_MS + 240 * MINUTE_MS, 1.1, 0.1, 0.2, 20.0, is_over=True)
    one = notice(alert(), NoticeKind.UPDATE, development=development)
    timeframe, start_ms, end_ms = window_of(one)
    assert timeframe is Timeframe.Min15
    assert start_ms < NOW_MS - 60 * MINUTE_MS
    assert end_ms > development.time_ms
    candles = joined((), minutes(1700, LAST_MS + 241 * MINUTE_MS), timeframe)
    chart = drawn(one, candles)
    assert chart.ratio == "", "the ratio is that of a minute"
    assert chart.move == "+16.6\u00a0%"
    assert chart.bars[-1].open_time_ms <= development.time_ms


def test_times_are_those_of_the_zone() -> None:
    chart = chart_of(notice(alert()), minutes(120), RU, zoneinfo.ZoneInfo("Asia/Kolkata"))
    assert chart is not None
    assert (chart.utc_offset_s, chart.zone, chart.span) == (19_800, "IST", "1\u00a0мин")
    assert (chart.group, chart.volume_word, chart.usual_word) == ("\u00a0", "Объём", "обычно")


def test_without_candles_there_is_no_picture() -> None:
    assert chart_of(notice(alert()), minutes(4), EN) is None


@pytest.mark.parametrize("timeframe", [Timeframe.Min1, Timeframe.Min5, Timeframe.Min60])
def test_kept_candles_and_those_at_hand_are_one_row(timeframe: Timeframe) -> None:
    all_of_them = minutes(400)
    kept = roll_up_all(all_of_them[:-1], timeframe, until_ms=LAST_MS)
    row = joined(kept, all_of_them[-130:], timeframe)
    open_times = [candle.open_time_ms for candle in row]
    assert open_times == list(range(open_times[0], LAST_MS + 1, timeframe.milliseconds))
    assert open_times[-1] == LAST_MS - LAST_MS % timeframe.milliseconds
    assert not any(candle.missing_minutes for candle in row[1:])
    assert sum(candle.turnover for candle in row) == sum(
        one.turnover for one in all_of_them if one.open_time_ms >= open_times[0]
    )


def test_minutes_that_nobody_has_stay_missing() -> None:
    whole = minutes(60)
    row = joined((), whole[:30] + whole[40:], Timeframe.Min5)
    assert any(candle.missing_minutes for candle in row)
