"""The picture is small, and shows what it should whatever the market or the exchange call things."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image

from cards import NOW_MS
from perpwatch.alert.chart import MOST_CANDLES, Bar, Chart, usual_band
from perpwatch.alert.drawing import ACCENT, HEIGHT, UNKNOWN, WIDTH, draw, drawable
from perpwatch.model import MINUTE_MS, Direction

START_MS = NOW_MS - NOW_MS % MINUTE_MS - 80 * MINUTE_MS


def chart(bars: list[Bar] | None = None) -> Chart:
    """80 quiet minutes and a jump."""
    if bars is None:
        prices = [100.0 + number % 3 for number in range(80)] + [110.0, 112.0]
        bars = [
            Bar(START_MS + number * MINUTE_MS, before, max(before, price), min(before, price), price, 1e5)
            for number, (before, price) in enumerate(zip([100.0, *prices], prices, strict=False))
        ]
        bars[80] = replace(bars[80], turnover=2e6)
    return Chart(
        symbol="BEAT_USDT",
        span="1 min",
        span_ms=MINUTE_MS,
        bars=bars,
        usual=(5e4, 2e5, 1e5),
        usual_word="usual",
        volume_word="Volume",
        signal_ms=START_MS + 80 * MINUTE_MS,
        price=110.0,
        ratio="20×",
        move="+8.91 %",
        direction=Direction.UP,
        utc_offset_s=0,
        zone="UTC",
    )


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def columns_of(png: bytes, colour: str) -> list[int]:
    """Columns of the picture in which a colour stands, as near as the palette has it."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    is_it = (np.abs(pixels(png).astype(int) - wanted).max(axis=2) < 16).any(axis=0)
    return [int(column) for column in np.flatnonzero(is_it)]


def test_a_picture_has_its_size_and_is_light() -> None:
    png = draw(chart())
    assert png.startswith(b"\x89PNG")
    assert pixels(png).shape == (HEIGHT, WIDTH, 3)
    assert len(png) < 30_000


def test_the_signal_is_marked_where_it_was() -> None:
    late, early = chart(), replace(chart(), signal_ms=START_MS + 10 * MINUTE_MS, price=0.0, ratio="")
    columns = columns_of(draw(early), ACCENT)
    assert columns
    assert max(columns) < WIDTH / 4
    assert max(columns_of(draw(late), ACCENT)) > WIDTH / 2


def test_what_is_not_known_is_shaded_whether_marked_or_absent() -> None:
    whole = chart()
    assert not columns_of(draw(whole), UNKNOWN)
    absent = replace(whole, bars=whole.bars[:30] + whole.bars[40:])
    marked = replace(whole, bars=[replace(bar, is_known=not 30 <= n < 40) for n, bar in enumerate(whole.bars)])
    shaded = columns_of(draw(absent), UNKNOWN)
    assert shaded
    assert columns_of(draw(marked), UNKNOWN) == shaded


def test_the_newest_candles_are_shown() -> None:
    flat = [Bar(START_MS + number * MINUTE_MS, 1.0, 1.0, 1.0, 1.0, 1.0) for number in range(3 * MOST_CANDLES)]
    last = flat[-MOST_CANDLES:]
    assert draw(chart(flat)) == draw(chart(last))


def test_too_few_candles_make_no_picture() -> None:
    with pytest.raises(ValueError, match="a chart needs 5 candles, not 2"):
        draw(chart(chart().bars[:2]))


def test_letters_that_no_font_has_are_marked_and_not_left_out() -> None:
    unknown = "\U000e1234\U000e1235"  # of a plane that has no letters
    assert drawable(f"{unknown}_USDT") == "…_USDT"
    assert drawable(f"A{unknown}B {unknown}") == "A…B …"
    assert drawable("A\x00\u202eB") == "AB"
    assert drawable("A" * 25) == "A" * 23 + "…"


@pytest.mark.parametrize("name", ["币安人生_USDT", "$x^2$_USDT", "\\frac", "", "A" * 300, "<b>&\x00\u202e", "🚀"])
def test_any_name_makes_a_picture(name: str) -> None:
    assert draw(replace(chart(), symbol=name, zone=name[:5], move=drawable(name)))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1e-12, 1e9), st.floats(1e-12, 1e9), st.floats(0.0, 1e12), st.booleans()),
        min_size=5,
        max_size=40,
    ),
    st.sampled_from(Direction),
    st.integers(-5, 45),
    st.tuples(*[st.floats(0.0, 1e12)] * 3),
    st.floats(0.0, 1e9),
)
def test_any_candles_make_a_light_picture(
    rows: list[tuple[float, float, float, bool]],
    direction: Direction,
    place: int,
    usual: tuple[float, float, float],
    price: float,
) -> None:
    bars = [
        Bar(START_MS + n * MINUTE_MS, open_, max(open_, close), min(open_, close), close, turnover, is_known=is_known)
        for n, (open_, close, turnover, is_known) in enumerate(rows)
    ]
    one = replace(chart(bars), direction=direction, signal_ms=START_MS + place * MINUTE_MS, price=price, usual=usual)
    assert len(draw(one)) < 100_000


def test_the_usual_band_holds_the_middle_of_what_was_traded() -> None:
    assert usual_band([float(number) for number in range(1, 101)]) == (11.0, 90.0, 50.5)
    assert usual_band([5.0]) == (5.0, 5.0, 5.0)
    assert usual_band([]) == (0.0, 0.0, 0.0)
