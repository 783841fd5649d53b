"""Draws the picture beside an alert: candles, their volume with what is usual, and the signal.

Drawn for a phone: dark, few and large letters, one glance. matplotlib's object-oriented interface and its Agg canvas,
without pyplot, so that nothing global is touched and nothing is shown. Drawing is slow beside everything else here and
holds the interpreter, so it belongs into a process of its own: see :mod:`perpwatch.app.painter`.
"""

from __future__ import annotations

import datetime
import functools
import io
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from PIL import Image

from perpwatch.alert.chart import LEAST_CANDLES, MOST_CANDLES, Bar, Chart
from perpwatch.alert.spelling import CUT
from perpwatch.figures import MINUS, short_price_text
from perpwatch.model import Direction

#: Pixels: 4 : 3, two for each of the points that a phone has across.
WIDTH, HEIGHT = 800, 600

BACKGROUND, GRID, TEXT, DIM = "#10151c", "#232b36", "#e6eaf0", "#8b96a5"
UP, DOWN, ACCENT, UNKNOWN = "#2ebd85", "#f6465d", "#f0b90b", "#3a2230"
_DPI = 100
#: Left, bottom, width and height of the two panes, as shares of the picture; prices stand on the right.
_PRICE_PANE, _VOLUME_PANE = (0.02, 0.335, 0.79, 0.555), (0.02, 0.075, 0.79, 0.235)
_COLOURS_KEPT = 64


def draw(chart: Chart) -> bytes:
    """A PNG of ``WIDTH`` by ``HEIGHT`` pixels.

    Raises:
        ValueError: too few candles.
    """
    bars = chart.bars[-MOST_CANDLES:]
    if len(bars) < LEAST_CANDLES:
        raise ValueError(f"a chart needs {LEAST_CANDLES} candles, not {len(bars)}")
    figure = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI, facecolor=BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    # Empty places are kept for candles that are missing altogether.
    first_ms = bars[0].open_time_ms
    places = [(bar.open_time_ms - first_ms) // chart.span_ms for bar in bars]
    right = places[-1] + 0.5 + max(1.0, 0.02 * places[-1])
    price_pane, volume_pane = _pane(figure, _PRICE_PANE, right), _pane(figure, _VOLUME_PANE, right)
    signal_place = (chart.signal_ms - first_ms) // chart.span_ms
    _draw_prices(price_pane, chart, bars, places, signal_place, right)
    _draw_volumes(volume_pane, chart, bars, places, signal_place, right)
    _draw_gaps((price_pane, volume_pane), bars, places)
    _draw_times(volume_pane, chart, first_ms, places[-1])
    _draw_head(figure, chart)
    canvas.draw()  # type: ignore[no-untyped-call]
    return _png(canvas)


def _pane(figure: Figure, box: tuple[float, float, float, float], right: float) -> Axes:
    pane = figure.add_axes(box)
    pane.set_axis_off()
    pane.set_xlim(-0.8, right)
    return pane


def _draw_prices(
    pane: Axes, chart: Chart, bars: Sequence[Bar], places: Sequence[int], signal_place: int, right: float
) -> None:
    known = [bar for bar in bars if bar.is_known] or list(bars)
    low, high = min(bar.low for bar in known), max(bar.high for bar in known)
    if chart.price:
        low, high = min(low, chart.price), max(high, chart.price)
    room = (high - low) * 0.12 or high * 0.001
    pane.set_ylim(low - room, high + room)
    ticks = _ticks(low, high)
    pane.add_collection(
        LineCollection([[(-0.8, tick), (right, tick)] for tick in ticks], colors=GRID, linewidths=1.0, zorder=0)
    )
    last = known[-1]
    taken = [last.close, *([chart.price] if chart.price else [])]
    gap = (high - low + 2 * room) * 0.075
    for tick in ticks:
        if all(abs(tick - other) > gap for other in taken):
            _text(pane, right, tick, f" {_price(tick, chart)}", color=DIM, size=15, va="center")
    for ways, colour in ((True, UP), (False, DOWN)):
        chosen = [
            (place, bar)
            for place, bar in zip(places, bars, strict=True)
            if bar.is_known and (bar.close >= bar.open) is ways
        ]
        wicks = [[(place, bar.low), (place, bar.high)] for place, bar in chosen]
        pane.add_collection(LineCollection(wicks, colors=colour, linewidths=1.3, zorder=2))
        least = (high - low) * 0.004
        bodies = [_box(place, min(bar.open, bar.close), max(abs(bar.close - bar.open), least)) for place, bar in chosen]
        pane.add_collection(PolyCollection(bodies, facecolors=colour, edgecolors="none", zorder=3))
    marked = next((bar for place, bar in zip(places, bars, strict=True) if place == signal_place), None)
    if marked is not None:
        is_down = chart.direction is Direction.DOWN
        y = marked.high + 0.4 * room if is_down else marked.low - 0.4 * room
        pane.plot([signal_place], [y], marker="v" if is_down else "^", color=ACCENT, markersize=13, zorder=5)
    if chart.price:
        pane.plot([-0.8, right], [chart.price] * 2, color=ACCENT, linewidth=1.2, linestyle=(0, (4, 4)), zorder=4)
        far = abs(last.close - chart.price) > gap
        if far:
            _text(pane, right, chart.price, f" {_price(chart.price, chart)}", color=ACCENT, size=15, va="center")
    colour = UP if last.close >= last.open else DOWN
    tag = {"boxstyle": "square,pad=0.18", "facecolor": colour, "edgecolor": "none"}
    text = _price(last.close, chart)
    _text(pane, right * 1.02, last.close, text, color="#ffffff", size=15, weight="bold", va="center", bbox=tag)


def _draw_volumes(
    pane: Axes, chart: Chart, bars: Sequence[Bar], places: Sequence[int], signal_place: int, right: float
) -> None:
    low, high, mean = chart.usual
    top = max([bar.turnover for bar in bars if bar.is_known] + [1.3 * high, 1.3 * mean, 1e-9])
    pane.set_ylim(0.0, 1.15 * top)
    if high > 0.0:
        # No thinner than can be seen beside a tower.
        pane.axhspan(low, max(high, low + 0.02 * top), facecolor="#5b7fb8", alpha=0.45, zorder=1, linewidth=0)
        pane.plot([-0.8, right], [mean] * 2, color="#8fb0e8", linewidth=1.2, zorder=4)
        _text(pane, right, max(mean, 0.1 * top), f" {chart.usual_word}", color="#8fb0e8", size=14, va="center")
    for place_wanted, colours in ((False, (UP, DOWN)), (True, (ACCENT, ACCENT))):
        for ways, colour in zip((True, False), colours, strict=True):
            boxes = [
                _box(place, 0.0, bar.turnover)
                for place, bar in zip(places, bars, strict=True)
                if bar.is_known and (bar.close >= bar.open) is ways and (place == signal_place) is place_wanted
            ]
            alpha = 1.0 if place_wanted else 0.75
            pane.add_collection(PolyCollection(boxes, facecolors=colour, edgecolors="none", alpha=alpha, zorder=3))
    marked = next((bar for place, bar in zip(places, bars, strict=True) if place == signal_place), None)
    if chart.ratio and marked is not None and marked.is_known:
        is_left = signal_place > places[-1] / 2
        _text(
            pane,
            signal_place + (-1.0 if is_left else 1.0),
            max(marked.turnover, 0.2 * top),
            chart.ratio,
            color=ACCENT,
            size=19,
            weight="bold",
            va="top",
            ha="right" if is_left else "left",
        )
    _text(pane, -0.8, 1.15 * top, chart.volume_word, color=DIM, size=14, va="top")


def _draw_gaps(panes: Sequence[Axes], bars: Sequence[Bar], places: Sequence[int]) -> None:
    """Shade what is not known, so that nobody takes it for calm."""
    known = {place for place, bar in zip(places, bars, strict=True) if bar.is_known}
    for place in range(places[0], places[-1] + 1):
        if place not in known:
            for pane in panes:
                pane.axvspan(place - 0.5, place + 0.5, facecolor=UNKNOWN, zorder=0.5, linewidth=0)


def _draw_times(pane: Axes, chart: Chart, first_ms: int, last_place: int) -> None:
    form = "%H:%M" if last_place * chart.span_ms < 36 * 3_600_000 else "%d.%m. %H:%M"
    step = max(1, round(last_place / 4))
    # On round times of the zone that is shown.
    for length in (5, 10, 15, 30, 60, 120, 240, 360, 720, 1440):
        if length * 60_000 >= step * chart.span_ms:
            break
    stride_ms = length * 60_000
    offset_ms = chart.utc_offset_s * 1_000
    local_ms = first_ms + offset_ms
    time_ms = local_ms - local_ms % stride_ms + stride_ms
    while time_ms <= local_ms + last_place * chart.span_ms:
        place = (time_ms - local_ms) / chart.span_ms
        text = datetime.datetime.fromtimestamp(time_ms / 1_000, datetime.UTC).strftime(form)
        if 0.04 * last_place < place < 0.97 * last_place:
            _text(pane, place, 0.0, text, color=DIM, size=14, va="top", ha="center", y_points=-6)
        time_ms += stride_ms
    _text(pane, pane.get_xlim()[1], 0.0, f" {chart.zone}", color=DIM, size=14, va="top", y_points=-6)


def _draw_head(figure: Figure, chart: Chart) -> None:
    style: dict[str, Any] = {"y": 0.975, "size": 21, "weight": "bold", "va": "top", "parse_math": False}
    name = drawable(chart.symbol)
    figure.text(0.02, s=f"{name}  ·  {chart.span}" if name else chart.span, color=TEXT, **style)
    figure.text(0.98, s=drawable(chart.move), color=DOWN if chart.move.startswith(MINUS) else UP, ha="right", **style)


def _text(
    pane: Axes, x: float, y: float, text: str, *, size: float, color: str, y_points: float = 0.0, **style: Any
) -> None:
    """Any text, none of it taken for a formula; moved down by ``y_points``."""
    pane.annotate(
        drawable(text),
        (x, y),
        xytext=(0.0, y_points),
        textcoords="offset points",
        size=size,
        color=color,
        annotation_clip=False,
        parse_math=False,
        **style,
    )


def _price(price: float, chart: Chart) -> str:
    return short_price_text(price).replace(",", chart.group)


def _box(place: float, bottom: float, height: float) -> list[tuple[float, float]]:
    left, right, top = place - 0.36, place + 0.36, bottom + height
    return [(left, bottom), (left, top), (right, top), (right, bottom)]


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round prices within the range."""
    if not high > low:
        return [low]
    raw = (high - low) / 5.0
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if size * factor >= raw)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


#: The one that comes with matplotlib, and whichever of those with Chinese letters this machine has.
_FAMILIES = (
    "DejaVu Sans",
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("PingFang SC", "Hiragino Sans GB", "Heiti TC", "Microsoft YaHei", "SimHei", "Arial Unicode MS"),
)


@functools.cache
def _families() -> list[str]:
    installed = {font.name for font in fontManager.ttflist}
    return [family for family in _FAMILIES if family in installed]


@functools.cache
def _fonts() -> list[FT2Font]:
    return [FT2Font(findfont(FontProperties(family=family))) for family in _families()]


def drawable(text: str) -> str:
    """A text as it can be drawn, with … for what no font has letters for; an exchange may call a contract anything."""
    seen = [character for character in text if unicodedata.category(character) not in ("Cc", "Cf")]
    shown = "".join(character if _is_drawable(character) else CUT for character in seen)
    shown = re.sub(f"{CUT}+", CUT, shown)
    return shown if len(shown) <= 24 else f"{shown[:23].rstrip(CUT)}{CUT}"


def _is_drawable(character: str) -> bool:
    return any(font.get_char_index(ord(character)) for font in _fonts())


def _png(canvas: FigureCanvasAgg) -> bytes:
    # A palette is a third of the bytes, and flat colours lose nothing by it.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])  # type: ignore[no-untyped-call]
    file = io.BytesIO()
    image.quantize(_COLOURS_KEPT, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        file, "PNG", compress_level=6
    )
    return file.getvalue()


matplotlib.rcParams["font.family"] = _families()
