"""Both languages say the same with the same figures."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterator

import pytest

from perpwatch.alert.operational import Trouble
from perpwatch.alert.texts import EN, RU, Forms, Language, Texts, texts_of
from perpwatch.detect.features import FEATURES
from perpwatch.figures import NO_BREAK
from perpwatch.model import Trust


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def every_text(texts: Texts) -> Iterator[tuple[str, Forms]]:
    for field in dataclasses.fields(texts):
        value = getattr(texts, field.name)
        if isinstance(value, str):
            yield field.name, (value,)
        elif isinstance(value, tuple):
            yield field.name, value
        elif isinstance(value, dict):
            for key, text in value.items():
                yield f"{field.name}.{key}", (text,)


@pytest.mark.parametrize("language", Language)
def test_every_text_of_a_language_has_the_placeholders_of_the_english_one(language: Language) -> None:
    english, other = dict(every_text(EN)), dict(every_text(texts_of(language)))
    assert list(other) == list(english)
    for name, forms in other.items():
        assert all(forms), name
        assert {frozenset(placeholders(form)) for form in forms} == {frozenset(placeholders(english[name][0]))}, name


def test_russian_is_russian() -> None:
    ours = {"Min", "REST", "TOML", "USDT", "perpwatch", "alerts", "list"}
    for name, forms in every_text(RU):
        for form in forms:
            bare = "".join(text for text, _, _, _ in string.Formatter().parse(form))
            latin = {
                word.strip(".,:;?") for word in bare.split() if any(letter in string.ascii_letters for letter in word)
            }
            assert latin <= ours, f"{name}: {form}"


@pytest.mark.parametrize("language", Language)
def test_everything_that_is_told_has_a_name(language: Language) -> None:
    texts = texts_of(language)
    assert set(texts.troubles) == set(texts.troubles_over) == set(texts.consequences) == set(Trouble)
    assert set(texts.trusts) == set(Trust)
    assert set(texts.parts) == set(FEATURES.values())


@pytest.mark.parametrize(
    ("count", "english", "russian"),
    [
        (0, "0 trades", "0 сделок"),
        (1, "1 trade", "1 сделка"),
        (2, "2 trades", "2 сделки"),
        (5, "5 trades", "5 сделок"),
        (11, "11 trades", "11 сделок"),
        (12, "12 trades", "12 сделок"),
        (21, "21 trades", "21 сделка"),
        (112, "112 trades", "112 сделок"),
        (1_022, "1,022 trades", "1\u00a0022 сделки"),
    ],
)
def test_counted_things_have_the_form_of_their_number(count: int, english: str, russian: str) -> None:
    assert EN.counted(EN.trades, count) == english
    assert RU.counted(RU.trades, count) == russian


@pytest.mark.parametrize(
    ("amount", "english", "russian"),
    [
        (0.5, "0.5", "0.5"),
        (812.4, "812", "812"),
        (999.7, "1k", "1 тыс."),
        (246_400.0, "246k", "246 тыс."),
        (999_960.0, "1M", "1 млн"),
        (3_124_000.0, "3.12M", "3.12 млн"),
        (4.5e9, "4.5B", "4.5 млрд"),
        (12_345e9, "12,345B", "12 345 млрд"),
    ],
)
def test_money_has_three_digits_that_matter(amount: float, english: str, russian: str) -> None:
    assert (EN.money(amount), RU.money(amount).replace(NO_BREAK, " ")) == (english, russian)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (192, "3 min 12 s"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert EN.duration(seconds).replace(NO_BREAK, " ") == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(16.2, "16 ms"), (-3.4, "−3 ms"), (-0.2, "0 ms"), (999.6, "1.0 s"), (2_340, "2.3 s"), (192_000, "3 min 12 s")],
)
def test_latencies_are_short(milliseconds: float, text: str) -> None:
    assert EN.latency_text(milliseconds).replace(NO_BREAK, " ") == text


@pytest.mark.parametrize(("minutes", "text"), [(1, "1 min"), (60, "60 min"), (240, "4 h"), (1_440, "1 d")])
def test_spans_are_as_traders_call_timeframes(minutes: int, text: str) -> None:
    assert EN.span(minutes).replace(NO_BREAK, " ") == text
