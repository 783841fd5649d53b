"""Numbers as people read them, in every language alike: a point before decimals, commas between thousands."""

from __future__ import annotations

import math

#: Typographic, so that it is as wide as the plus and never breaks a line.
MINUS = "−"
#: Keeps a number and what it counts in one line.
NO_BREAK = "\u00a0"
_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
#: Digits of a price that matter to a trader.
PRICE_DIGITS = 5


def times_text(times: float) -> str:
    """Three digits that matter: 9.41, 82.3, 10,432."""
    return f"{times:,.0f}" if times >= 999.5 else f"{times:.3g}"


def percent_text(percent: float, *, is_signed: bool = True) -> str:
    """Three digits that matter, and no more than two decimals: +4.40 %, −12.4 %, +0.02 %."""
    size = abs(percent)
    return _percent(percent, f"{size:,.{0 if size >= 99.95 else 1 if size >= 9.995 else 2}f}", is_signed)


def rate_text(percent: float, *, is_signed: bool = True) -> str:
    """A rate of funding, of which the fourth decimal matters: +0.01 %, −0.0125 %."""
    number = f"{abs(percent):,.4f}".rstrip("0")
    return _percent(percent, number if len(number.partition(".")[2]) > 1 else f"{abs(percent):,.2f}", is_signed)


def _percent(percent: float, number: str, is_signed: bool) -> str:
    if not math.isfinite(percent):
        return f"–{NO_BREAK}%"
    if not number.strip("0.,"):
        return f"0{NO_BREAK}%"
    sign = MINUS if percent < 0.0 else "+" if is_signed else ""
    return f"{sign}{number}{NO_BREAK}%"


def short_price_text(price: float) -> str:
    """As :func:`price_text`, with the zeros of a very small price counted as traders do: 0.0₅157 is 0.00000157."""
    if not 0.0 < price < 1e-4:
        return price_text(price)
    text = price_text(price).removeprefix("0.")
    digits = text.lstrip("0")
    zeros = len(text) - len(digits)
    return f"0.0{str(zeros).translate(_LOWERED)}{digits}"


def price_text(price: float) -> str:
    """Five digits that matter, six from a thousand on, without an exponent: 67,231.5, 0.012345, 0.0000001234."""
    if not math.isfinite(price) or price <= 0.0:
        return "–"
    digits = PRICE_DIGITS + (price >= 1_000.0)
    decimals = max(0, digits - 1 - math.floor(math.log10(price)))
    text = f"{price:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
