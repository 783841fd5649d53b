"""Numbers as a trader writes them."""

from __future__ import annotations

import math

import pytest

from perpwatch.figures import NO_BREAK, percent_text, price_text, rate_text, short_price_text


@pytest.mark.parametrize(
    ("percent", "text"),
    [
        (4.4, "+4.40 %"),
        (-12.44, "−12.4 %"),
        (9.996, "+10.0 %"),
        (99.96, "+100 %"),
        (1_234.0, "+1,234 %"),
        (0.0749, "+0.07 %"),
        (0.0, "0 %"),
        (-0.00001, "0 %"),
        (math.nan, "– %"),
    ],
)
def test_percent_has_three_digits_that_matter(percent: float, text: str) -> None:
    assert percent_text(percent).replace(NO_BREAK, " ") == text


def test_a_size_has_no_plus() -> None:
    assert percent_text(4.4, is_signed=False) == f"4.40{NO_BREAK}%"


@pytest.mark.parametrize(
    ("percent", "text"),
    [(0.0125, "+0.0125 %"), (0.01, "+0.01 %"), (-0.1, "−0.10 %"), (0.005, "+0.005 %"), (1.0, "+1.00 %"), (0.0, "0 %")],
)
def test_rates_of_funding_have_four_decimals(percent: float, text: str) -> None:
    assert rate_text(percent).replace(NO_BREAK, " ") == text


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (67_231.5, "67,231.5"),
        (1_234.567, "1,234.57"),
        (100.0, "100"),
        (1.23456, "1.2346"),
        (0.0123456, "0.012346"),
        (0.0000001234, "0.0000001234"),
        (1_234_567.8, "1,234,568"),
        (0.0, "–"),
        (math.nan, "–"),
    ],
)
def test_prices_have_the_digits_that_matter_and_no_exponent(price: float, text: str) -> None:
    assert price_text(price) == text


def test_the_zeros_of_small_prices_are_counted() -> None:
    assert short_price_text(0.00000157) == "0.0₅157"
    assert short_price_text(0.00003069) == "0.0₄3069"
    assert short_price_text(1.5e-12) == "0.0₁₁15"
    assert short_price_text(0.00012) == price_text(0.00012) == "0.00012"
