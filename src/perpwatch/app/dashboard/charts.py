"""What the charts are told: plain options for ECharts, from records. Nothing here knows a page."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from perpwatch.alert.outcomes import Outcome
from perpwatch.app.api_records import Candles, LedgerPage, TradesFlow
from perpwatch.model import Direction, Signal, Trust

UP, DOWN, DIM, ACCENT = "#1f9d70", "#d94a5c", "#8a939e", "#4b84e8"
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


def candles_of(candles: Candles, signals: Sequence[Signal], outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Candles, their volume with what is usual, signals with what came of them, and a strip of trust."""
    form = "%H:%M" if candles.timeframe.minutes < 240 else "%d %b"
    ones = candles.candles
    names = [_time(one.open_time_ms, form) for one in ones]
    places = {one.open_time_ms: place for place, one in enumerate(ones)}
    length = candles.timeframe.milliseconds
    marks = []
    for signal in signals:
        place = places.get(signal.event_time_ms - signal.event_time_ms % length)
        if place is None:
            continue
        outcome = next(
            (one for one in outcomes.values() if one.symbol == signal.symbol and one.time_ms == signal.event_time_ms),
            None,
        )
        hit = None if outcome is None else outcome.is_hit
        is_up = signal.direction is not Direction.DOWN
        marks.append(
            {
                "name": f"{signal.rule} {signal.level}",
                "coord": [place, ones[place].low if is_up else ones[place].high],
                "symbol": "triangle",
                "symbolSize": 10,
                "symbolRotate": 0 if is_up else 180,
                "symbolOffset": [0, 9 if is_up else -9],
                "itemStyle": {"color": ACCENT if hit is None else UP if hit else DIM},
                "value": "" if hit is None else "went on" if hit else "did not",
            }
        )
    usual = candles.usual_turnover
    return {
        "animation": False,
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "cross"}, "confine": True},
        "grid": [
            {"left": 66, "right": 14, "top": 12, "height": "58%"},
            {"left": 66, "right": 14, "top": "68%", "height": "19%"},
            {"left": 66, "right": 14, "top": "90%", "height": 12},
        ],
        "xAxis": [
            {"type": "category", "data": names, "gridIndex": 0, **_AXIS, "axisLabel": {"show": False}},
            {"type": "category", "data": names, "gridIndex": 1, **_AXIS, "axisLabel": {"show": False}},
            {"type": "category", "data": names, "gridIndex": 2, **_AXIS},
        ],
        "yAxis": [
            {"scale": True, "gridIndex": 0, "splitLine": _GRID_LINE, **_AXIS},
            {"gridIndex": 1, "splitNumber": 2, "splitLine": _GRID_LINE, **_AXIS, "axisLabel": {"color": DIM}},
            {"gridIndex": 2, "show": False, "max": 1},
        ],
        "series": [
            {
                "name": "price",
                "type": "candlestick",
                "data": [[one.open, one.close, one.low, one.high] for one in ones],
                "itemStyle": {"color": UP, "color0": DOWN, "borderColor": UP, "borderColor0": DOWN},
                "markPoint": {"data": marks, "label": {"show": False}},
            },
            {
                "name": "turnover",
                "type": "bar",
                "xAxisIndex": 1,
                "yAxisIndex": 1,
                "data": [
                    {"value": round(one.turnover, 2), "itemStyle": {"color": UP if one.close >= one.open else DOWN}}
                    for one in ones
                ],
                "markLine": {
                    "symbol": "none",
                    "silent": True,
                    "label": {"show": False},
                    "lineStyle": {"color": DIM, "type": "dashed"},
                    "data": [] if usual is None else [{"yAxis": usual}],
                },
            },
            {
                "name": "trust",
                "type": "bar",
                "xAxisIndex": 2,
                "yAxisIndex": 2,
                "barCategoryGap": "4%",
                "data": [
                    {"value": 1, "name": str(one.trust), "itemStyle": {"color": TRUST_COLOURS[one.trust]}}
                    for one in ones
                ],
            },
        ],
    }


def flow_of(flow: TradesFlow) -> dict[str, Any]:
    """Trades of each minute, split by the takers' side."""
    return {
        "animation": False,
        "tooltip": {"trigger": "axis", "confine": True},
        "grid": {"left": 50, "right": 14, "top": 8, "bottom": 22},
        "xAxis": {"type": "category", "data": [_time(one.open_time_ms, "%H:%M") for one in flow.minutes], **_AXIS},
        "yAxis": {"type": "value", "splitNumber": 2, "splitLine": _GRID_LINE, **_AXIS},
        "series": [
            {
                "name": "taker buys",
                "type": "bar",
                "stack": "trades",
                "itemStyle": {"color": UP},
                "data": [round(one.trades * one.buy_share) for one in flow.minutes],
            },
            {
                "name": "taker sells",
                "type": "bar",
                "stack": "trades",
                "itemStyle": {"color": DOWN},
                "data": [one.trades - round(one.trades * one.buy_share) for one in flow.minutes],
            },
        ],
    }


def histogram_of(buckets: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Counts by upper bound, from cumulative ones."""
    counts = [count - (buckets[place - 1][1] if place else 0) for place, (_, count) in enumerate(buckets)]
    names = [f"≤ {float(bound):g} s" if bound != "+Inf" else "more" for bound, _ in buckets]
    return {
        "animation": False,
        "tooltip": {"trigger": "axis", "confine": True},
        "grid": {"left": 52, "right": 10, "top": 8, "bottom": 40},
        "xAxis": {
            "type": "category",
            "data": names,
            **_AXIS,
            "axisLabel": {"color": DIM, "rotate": 35, "fontSize": 10},
        },
        "yAxis": {"type": "value", "splitNumber": 3, "splitLine": _GRID_LINE, **_AXIS},
        "series": [{"type": "bar", "name": "frames", "data": counts, "itemStyle": {"color": ACCENT}}],
    }


def heat_of(ledger: LedgerPage) -> dict[str, Any]:
    """A row per contract, a column per minute, a colour per state."""
    order = [Trust.UNKNOWN, Trust.STREAMED, Trust.VERIFIED, Trust.REPAIRED, Trust.QUIET]
    rows = list(reversed(ledger.rows))
    cells = [[minute, place, int(code)] for place, row in enumerate(rows) for minute, code in enumerate(row.codes)]
    minutes = [_time(ledger.start_ms + number * 60_000, "%H:%M") for number in range(ledger.minutes)]
    return {
        "animation": False,
        "tooltip": {"confine": True},
        "grid": {"left": 110, "right": 10, "top": 30, "bottom": 24},
        "xAxis": {"type": "category", "data": minutes, **_AXIS},
        "yAxis": {
            "type": "category",
            "data": [row.symbol for row in rows],
            **_AXIS,
            "axisLabel": {"color": DIM, "fontSize": 9, "width": 100, "overflow": "truncate"},
        },
        "visualMap": {
            "type": "piecewise",
            "orient": "horizontal",
            "left": "center",
            "top": 0,
            "itemHeight": 10,
            "textStyle": {"color": DIM},
            "pieces": [
                {"value": code, "label": str(trust), "color": TRUST_COLOURS[trust]} for code, trust in enumerate(order)
            ],
        },
        "series": [{"type": "heatmap", "data": cells, "progressive": 0}],
    }
