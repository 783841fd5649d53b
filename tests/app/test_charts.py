"""What charts are told of what is known, and of what is not."""

from __future__ import annotations

from msgspec.structs import replace

from perpwatch.app.api_records import Candles, LedgerPage, LedgerRow, MinuteTrades, TradesFlow
from perpwatch.app.dashboard.charts import (
    FLOW_MINUTES,
    TRUST_COLOURS,
    UNDECIDED,
    candles_of,
    flow_of,
    heat_of,
    quantile_text,
    slots_of,
)
from perpwatch.app.usual import UsualTurnover
from perpwatch.market.candles import flat_candle
from perpwatch.model import MINUTE_MS, Finality, Timeframe, Trust

START_MS = 1_700_000_040_000


def candles(*minutes: int) -> Candles:
    ones = [
        replace(
            flat_candle("AAA_USDT", START_MS + minute * MINUTE_MS, 10.0, Finality.SUCCESSOR, Trust.STREAMED),
            high=10.0 + minute,
            turnover=1_000.0 * minute,
        )
        for minute in minutes
    ]
    return Candles("AAA_USDT", Timeframe.Min1, ones, [UsualTurnover(500.0, 800.0, 2_000.0)] * len(ones))


def test_a_minute_nobody_saw_keeps_its_place_without_a_candle() -> None:
    slots = slots_of(candles(0, 1, 4, 6), 120, START_MS + 5 * MINUTE_MS)
    assert [one.open_time_ms for one in slots] == [START_MS + minute * MINUTE_MS for minute in range(7)]
    known = [Trust.STREAMED, Trust.STREAMED, Trust.UNKNOWN, Trust.UNKNOWN, Trust.STREAMED]
    assert [one.trust for one in slots] == [*known, None, Trust.STREAMED]  # the verdict on the last but one is awaited
    drawn = candles_of(Timeframe.Min1, slots, [])
    price, turnover, *_, trust = (series["data"] for series in drawn["series"])
    assert [one == "-" for one in price] == [False, False, True, True, False, True, False]
    assert price[4] == [10.0, 10.0, 10.0, 14.0]
    assert [one if one == "-" else one["value"] for one in turnover] == ["-", 1000.0, "-", "-", 4000.0, "-", 6000.0]
    assert [one["trust"] for one in trust][4:6] == ["streamed", "not decided yet"]
    assert trust[5]["itemStyle"]["color"] == UNDECIDED


def test_the_ledger_knows_better_than_the_candle_how_a_minute_came_about() -> None:
    slots = slots_of(candles(0, 1, 2), 2, START_MS + 9 * MINUTE_MS, {START_MS + MINUTE_MS: Trust.REPAIRED})
    assert [one.trust for one in slots] == [Trust.REPAIRED, Trust.STREAMED]
    assert slots_of(candles(), 120, START_MS) == []


def test_trades_are_split_by_taker_and_unknown_minutes_stay_empty() -> None:
    known = [MinuteTrades(START_MS, 10, 0, 0.7), MinuteTrades(START_MS + 2 * MINUTE_MS, 4, 0, 0.0)]
    buys, sells = (series["data"] for series in flow_of(TradesFlow("AAA_USDT", True, known))["series"])
    assert (len(buys), buys[-3:], sells[-3:]) == (FLOW_MINUTES, [7, None, 0], [3, None, 4])


def test_a_cell_of_the_heat_map_has_the_colour_that_the_legend_of_the_ledger_means() -> None:
    legend = {"3": Trust.UNKNOWN, "0": Trust.QUIET}
    heat = heat_of(LedgerPage(START_MS, 2, legend, [LedgerRow("AAA_USDT", "30"), LedgerRow("BBB_USDT", "00")]))
    assert heat["yAxis"]["data"] == ["BBB_USDT", "AAA_USDT"]  # drawn from below
    assert heat["series"][0]["data"] == [[0, 0, 0], [1, 0, 0], [0, 1, 3], [1, 1, 0]]
    colours = {piece["value"]: piece["color"] for piece in heat["visualMap"]["pieces"]}
    assert colours == {3: TRUST_COLOURS[Trust.UNKNOWN], 0: TRUST_COLOURS[Trust.QUIET]}


def test_quantiles_are_told_by_the_bucket_that_holds_them() -> None:
    assert (
        quantile_text([("0.005", 40.0), ("0.5", 98.0), ("2.0", 99.0), ("+Inf", 100.0)]) == "half ≤ 500 ms, 99 % ≤ 2 s"
    )
    assert quantile_text([("0.005", 60.0), ("0.5", 80.0), ("+Inf", 100.0)]) == "half ≤ 5 ms, 99 % > 500 ms"
    assert quantile_text([("0.005", 0.0), ("+Inf", 0.0)]) == "nothing measured yet"
