"""What the charts are told: plain options for ECharts, from records. Nothing here knows a page."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perpwatch.app.api_records import Candles, LedgerPage, TradesFlow
from perpwatch.app.dashboard.findings import Finding
from perpwatch.app.usual import UsualTurnover
from perpwatch.model import MINUTE_MS, Candle, Direction, Timeframe, Trust

UP, DOWN, DIM, ACCENT, BAND = "#1f9d70", "#d94a5c", "#8a939e", "#4b84e8", "#c08a2d"
#: Minutes of trades that are drawn.
FLOW_MINUTES = 60
UNDECIDED = "#8a939e33"
#: From known best to not known.
TRUST_COLOURS = {
    Trust.VERIFIED: "#1f9d70",
    Trust.STREAMED: "#55b88f",
    Trust.REPAIRED: "#4b84e8",
    Trust.QUIET: "#9aa5b1",
    Trust.UNKNOWN: "#d94a5c",
}
_GRID_LINE = {"lineStyle": {"color": "#8a939e33"}}
_AXIS = {"axisLine": {"lineStyle": {"color": "#8a939e66"}}, "axisTick": {"show": False}, "axisLabel": {"color": DIM}}


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2%}"


def money(value: float | None) -> str:
    if value is None:
        return "–"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def _time(time_ms: int, form: str) -> str:
    return datetime.datetime.fromtimestamp(time_ms / 1_000, datetime.UTC).strftime(form)


@dataclass(frozen=True, slots=True)
class Slot:
    """One step of the time axis."""

    open_time_ms: int
    candle: Candle | None  # None where nothing is known of it
    usual: UsualTurnover | None
    trust: Trust | None  # None while that is not decided


def slots_of(candles: Candles, count: int, decided_ms: int, known: Mapping[int, Trust] | None = None) -> list[Slot]:
    """The last ``count`` steps up to the newest candle, without holes: a step that nobody saw has its place too.

    Args:
        decided_ms: about what opens from here on the verdict is still awaited.
        known: what the ledger says of minutes, by open time; it knows better than a candle how a minute came about.
    """
    if not candles.candles:
        return []
    by_time = {one.open_time_ms: (one, usual) for one, usual in zip(candles.candles, candles.usual, strict=True)}
    length, last_ms = candles.timeframe.milliseconds, candles.candles[-1].open_time_ms
    first_ms = max(candles.candles[0].open_time_ms, last_ms - (count - 1) * length)
    slots = []
    for open_time_ms in range(first_ms, last_ms + length, length):
        candle, usual = by_time.get(open_time_ms, (None, None))
        trust = (known or {}).get(open_time_ms) or (candle.trust if candle is not None else None)
        if trust is None and open_time_ms < decided_ms:
            trust = Trust.UNKNOWN
        slots.append(Slot(open_time_ms, candle, usual, trust))
    return slots


def candles_of(timeframe: Timeframe, slots: Sequence[Slot], findings: Sequence[Finding]) -> dict[str, Any]:
    """Candles, their turnover in the band that is usual, signals with what came of them, and a strip of trust."""
    form = "%H:%M" if timeframe.minutes <= 5 else "%d %b %H:%M" if timeframe.minutes < 1_440 else "%d %b"
    names = [_time(one.open_time_ms, form) for one in slots]
    marks, words = _marks(timeframe, slots, findings)
    turnovers = [one.candle.turnover for one in slots if one.candle is not None and one.candle.turnover > 0.0]
    bands = [one.usual for one in slots if one.usual is not None]
    # In a logarithmic picture the band stays to be seen beside a minute of a hundred times its turnover.
    least = min([*turnovers, *(band.low for band in bands if band.low > 0.0)], default=1.0)
    floor = 10.0 ** math.floor(math.log10(max(least, 1.0)))
    lows = [None if one.usual is None else max(one.usual.low, floor) for one in slots]
    middles = [None if one.usual is None else max(one.usual.middle, floor) for one in slots]
    highs = [None if one.usual is None else max(one.usual.high, floor) for one in slots]
    in_volume = {"xAxisIndex": 1, "yAxisIndex": 1}
    line = {"type": "line", "symbol": "none", "silent": True, "connectNulls": False, **in_volume}
    edge = {"color": BAND, "width": 1, "opacity": 0.7}
    return {
        "animation": False,
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "tooltip": {
            "trigger": "axis",
            "axisPointer": {"type": "cross"},
            "confine": True,
            ":formatter": "one => perpwatch.candleTip(one)",
            ":position": "perpwatch.tipPlace",
        },
        "grid": [
            {"left": 62, "right": 14, "top": 12, "height": "57%"},
            {"left": 62, "right": 14, "top": "65%", "height": "23%"},
            {"left": 62, "right": 14, "top": "90.5%", "height": 12},
        ],
        "xAxis": [
            {"type": "category", "data": names, "gridIndex": 0, **_AXIS, "axisLabel": {"show": False}},
            {"type": "category", "data": names, "gridIndex": 1, **_AXIS, "axisLabel": {"show": False}},
            {"type": "category", "data": names, "gridIndex": 2, **_AXIS},
        ],
        "yAxis": [
            {"scale": True, "gridIndex": 0, "splitLine": _GRID_LINE, **_AXIS},
            {
                "type": "log",
                "gridIndex": 1,
                "min": floor,
                "splitLine": _GRID_LINE,
                **_AXIS,
                "axisLabel": {"color": DIM, ":formatter": "perpwatch.money", "hideOverlap": True},
                "axisPointer": {"label": {":formatter": "one => perpwatch.money(one.value)"}},
            },
            {"gridIndex": 2, "show": False, "max": 1, "axisPointer": {"show": False}},
        ],
        "series": [
            {
                "name": "price",
                "type": "candlestick",
                "data": ["-" if (c := one.candle) is None else [c.open, c.close, c.low, c.high] for one in slots],
                "itemStyle": {"color": UP, "color0": DOWN, "borderColor": UP, "borderColor0": DOWN},
                "markPoint": {"data": marks, "label": {"show": False}, "silent": True},
            },
            {
                "name": "turnover",
                "type": "bar",
                **in_volume,
                "barCategoryGap": "25%",
                "data": [_bar(one.candle) for one in slots],
            },
            {**line, "name": "usual low", "data": lows, "lineStyle": edge, "z": 3},
            {**line, "name": "usual", "data": middles, "lineStyle": {**edge, "type": "dashed"}, "z": 3},
            {**line, "name": "usual high", "data": highs, "lineStyle": edge, "z": 3},
            {
                "name": "usual band",
                "type": "custom",
                **in_volume,
                "silent": True,
                "z": 1,
                "data": [
                    [place, low, high]
                    for place, (low, high) in enumerate(zip(lows, highs, strict=True))
                    if low is not None and high is not None
                ],
                ":renderItem": "perpwatch.band",
                "encode": {"x": 0, "y": [1, 2]},
                "itemStyle": {"color": BAND, "opacity": 0.22},
                "tooltip": {"show": False},
            },
            {
                "name": "trust",
                "type": "bar",
                "xAxisIndex": 2,
                "yAxisIndex": 2,
                "barCategoryGap": "4%",
                "data": [
                    {
                        "value": 1,
                        "trust": one.trust.value if one.trust is not None else "not decided yet",
                        "time": _time(one.open_time_ms, "%d %b %H:%M UTC"),
                        "found": words.get(place, []),
                        "itemStyle": {"color": TRUST_COLOURS[one.trust] if one.trust is not None else UNDECIDED},
                    }
                    for place, one in enumerate(slots)
                ],
            },
        ],
    }


def _bar(candle: Candle | None) -> Any:
    if candle is None or candle.turnover <= 0.0:
        return "-"
    return {
        "value": round(candle.turnover, 2),
        "itemStyle": {"color": UP if candle.close >= candle.open else DOWN},
    }


def _marks(
    timeframe: Timeframe, slots: Sequence[Slot], findings: Sequence[Finding]
) -> tuple[list[dict[str, Any]], dict[int, list[str]]]:
    """A mark for each candle and direction in which something was found, and its words by place."""
    places = {one.open_time_ms: place for place, one in enumerate(slots)}
    length = timeframe.milliseconds
    chosen: dict[tuple[int, bool], Finding] = {}
    words: dict[int, list[str]] = {}
    for one in findings:
        signal = one.signal
        place = places.get(one.time_ms - one.time_ms % length)
        if signal is None or place is None or slots[place].candle is None:
            continue
        kind = "alert" if one.is_alert else "signal"
        text = f"{kind} {_time(one.time_ms, '%H:%M:%S')}: {signal.rule or signal.detector}, {signal.level.value}"
        words.setdefault(place, []).append(f"{text}; {one.came_of_it}" if one.came_of_it else text)
        key = place, signal.direction is not Direction.DOWN
        old = chosen.get(key)
        if old is None or (one.is_alert, one.outcome is not None) >= (old.is_alert, old.outcome is not None):
            chosen[key] = one
    marks = []
    for (place, is_up), one in chosen.items():
        candle = slots[place].candle
        assert candle is not None
        colour = mark_colour(one)
        marks.append(
            {
                "coord": [place, candle.low if is_up else candle.high],
                "symbol": "triangle",
                "symbolSize": 11,
                "symbolRotate": 0 if is_up else 180,
                "symbolOffset": [0, 10 if is_up else -10],
                "itemStyle": {
                    "color": colour if one.is_alert else "transparent",
                    "borderColor": colour,
                    "borderWidth": 1.5,
                },
            }
        )
    return marks, words


def mark_colour(finding: Finding) -> str:
    """Green where the price went on, grey where it did not, blue while nobody knows."""
    hit = finding.outcome.is_hit if finding.outcome is not None else None
    return ACCENT if hit is None else UP if hit else DIM


def flow_of(flow: TradesFlow) -> dict[str, Any]:
    """The last hour's trades of each minute, split by the takers' side; minutes that are not known stay empty."""
    by_time = {one.open_time_ms: one for one in flow.minutes}
    last_ms = flow.minutes[-1].open_time_ms if flow.minutes else 0
    times = range(last_ms - (FLOW_MINUTES - 1) * MINUTE_MS, last_ms + MINUTE_MS, MINUTE_MS)
    minutes = [by_time.get(open_time_ms) for open_time_ms in times]
    buys = [None if one is None else round(one.trades * one.buy_share) for one in minutes]
    sells = [None if one is None else one.trades - round(one.trades * one.buy_share) for one in minutes]
    bar = {"type": "bar", "stack": "trades", "barCategoryGap": "25%"}
    return {
        "animation": False,
        "tooltip": {"trigger": "axis", "confine": True},
        "grid": {"left": 62, "right": 14, "top": 8, "bottom": 22},
        "xAxis": {"type": "category", "data": [_time(one, "%H:%M") for one in times], **_AXIS},
        "yAxis": {"type": "value", "splitNumber": 2, "splitLine": _GRID_LINE, **_AXIS},
        "series": [
            {"name": "taker buys", **bar, "itemStyle": {"color": UP}, "data": buys},
            {"name": "taker sells", **bar, "itemStyle": {"color": DOWN}, "data": sells},
        ],
    }


def histogram_of(buckets: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Counts by upper bound, from cumulative ones."""
    counts = [count - (buckets[place - 1][1] if place else 0) for place, (_, count) in enumerate(buckets)]
    names = [f"≤ {_seconds(bound)}" if bound != "+Inf" else "more" for bound, _ in buckets]
    return {
        "animation": False,
        "tooltip": {"trigger": "axis", "confine": True},
        "grid": {"left": 46, "right": 8, "top": 8, "bottom": 44},
        "xAxis": {
            "type": "category",
            "data": names,
            **_AXIS,
            "axisLabel": {"color": DIM, "rotate": 40, "fontSize": 10},
        },
        "yAxis": {
            "type": "value",
            "splitNumber": 2,
            "splitLine": _GRID_LINE,
            **_AXIS,
            "axisLabel": {"color": DIM, ":formatter": "perpwatch.money"},
        },
        "series": [{"type": "bar", "name": "times", "data": counts, "itemStyle": {"color": ACCENT}}],
    }


def quantile_text(buckets: Sequence[tuple[str, float]]) -> str:
    """Below what half, and nearly all, of the values lie, as far as the buckets tell."""
    total = buckets[-1][1] if buckets else 0
    if not total:
        return "nothing measured yet"
    texts = []
    for share, name in ((0.5, "half"), (0.99, "99 %")):
        bound = next(bound for bound, count in buckets if count >= share * total)
        above = buckets[-2][0] if len(buckets) > 1 else "0"
        texts.append(f"{name} ≤ {_seconds(bound)}" if bound != "+Inf" else f"{name} > {_seconds(above)}")
    return ", ".join(texts)


def _seconds(bound: str) -> str:
    value = float(bound)
    return f"{1_000 * value:g} ms" if abs(value) < 1.0 else f"{value:g} s"


def heat_of(ledger: LedgerPage) -> dict[str, Any]:
    """A row per contract, a column per minute, a colour per state."""
    rows = list(reversed(ledger.rows))
    cells = [[minute, place, int(code)] for place, row in enumerate(rows) for minute, code in enumerate(row.codes)]
    minutes = [_time(ledger.start_ms + number * MINUTE_MS, "%H:%M") for number in range(ledger.minutes)]
    return {
        "animation": False,
        "tooltip": {"confine": True},
        "grid": {"left": 132, "right": 10, "top": 4, "bottom": 22},
        "xAxis": {"type": "category", "data": minutes, **_AXIS},
        "yAxis": {
            "type": "category",
            "data": [row.symbol for row in rows],
            **_AXIS,
            "axisLabel": {"color": DIM, "fontSize": 11, "width": 122, "overflow": "truncate", "interval": 0},
        },
        "visualMap": {
            "type": "piecewise",
            "show": False,
            "pieces": [
                {"value": int(code), "label": str(trust), "color": TRUST_COLOURS[trust]}
                for code, trust in ledger.legend.items()
            ],
        },
        "series": [{"type": "heatmap", "data": cells, "progressive": 0}],
    }
