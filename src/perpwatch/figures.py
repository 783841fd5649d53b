"""Numbers as people read them, in every language alike: a point before decimals, commas between thousands."""

from __future__ import annotations

import math

#: Typographic, so that it is as wide as the plus and never breaks a line.
MINUS = "−"
#: Digits of a price that matter to a trader.
PRICE_DIGITS = 5


def times_text(times: float) -> str:
    """Three digits that matter: 9.41, 82.3, 10,432."""
    return f"{times:,.0f}" if times >= 999.5 else f"{times:.3g}"


def percent_text(percent: float, *, is_signed: bool = True) -> str:
    """Three digits that matter and no more than four decimals: +4.40 %, −12.4 %, +0.0125 %."""
    if not math.isfinite(percent):
        return "– %"
    size = abs(percent)
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.0995 else 4
    number = f"{size:,.{decimals}f}"
    if decimals == 4:
        number = number.rstrip("0").rstrip(".")
    is_zero = not number.strip("0.,")
    sign = "" if is_zero or not is_signed else "+" if percent > 0.0 else MINUS
    if not is_signed and percent < 0.0 and not is_zero:
        sign = MINUS
    return f"{sign}{number} %"


def price_text(price: float) -> str:
    """Five digits that matter, six from a thousand on, without an exponent: 67,231.5, 0.012345, 0.0000001234."""
    if not math.isfinite(price) or price <= 0.0:
        return "–"
    digits = PRICE_DIGITS + (price >= 1_000.0)
    decimals = max(0, digits - 1 - math.floor(math.log10(price)))
    text = f"{price:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
