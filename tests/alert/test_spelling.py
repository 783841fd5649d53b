"""Any text survives any spelling, and nothing is longer than a channel takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from perpwatch.alert.card import Card
from perpwatch.alert.spelling import CUT, TELEGRAM_CAPTION, cleaned, html, markdown, plain, size_of

ANYTHING = st.text(st.characters(exclude_categories=[]), max_size=60)
EVIL = "<script>alert('x')</script> & \"quoted\" *_`[x](y)`_* ~|# @everyone {0} %s \\"


class Seen(HTMLParser):
    """What a chat makes of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.open, self.tags = "", list[str](), list[tuple[str, dict[str, str | None]]]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(text: str) -> Seen:
    """What CommonMark makes of it."""
    return Seen(MarkdownIt("commonmark").render(text))


CARD = Card(
    title="▲ BTC +4.40 % in 1 min, vol 12.6×",
    lines=("Price +4.40 % in 1 min", "Volume 12.6× usual", "3 trades"),
    footer="live data",
    url="https://www.mexc.com/futures/BTC_USDT",
    link="BTC_USDT at MEXC",
)


def test_a_card_in_each_spelling() -> None:
    assert html(CARD) == (
        "<b>▲ BTC +4.40 % in 1 min, vol 12.6×</b>\n"
        "Price +4.40 % in 1 min\nVolume 12.6× usual\n3 trades\n"
        "<i>live data</i>\n"
        '<a href="https://www.mexc.com/futures/BTC_USDT">BTC_USDT at MEXC</a>'
    )
    assert markdown(CARD) == (
        "**▲ BTC +4.40 % in 1 min, vol 12.6×**  \n"
        "Price +4.40 % in 1 min  \nVolume 12.6× usual  \n3 trades  \n"
        "_live data_  \n"
        "[BTC\\_USDT at MEXC](https://www.mexc.com/futures/BTC_USDT)"
    )
    assert plain(CARD) == (
        "▲ BTC +4.40 % in 1 min, vol 12.6×\n"
        "Price +4.40 % in 1 min\nVolume 12.6× usual\n3 trades\n"
        "live data\n"
        "https://www.mexc.com/futures/BTC_USDT"
    )
    assert plain(CARD, has_title=False).startswith("Price +4.40 %")


def test_a_script_is_shown_and_not_run() -> None:
    card = Card(title=EVIL, lines=(EVIL,), footer=EVIL, url=f"https://x/{EVIL}", link=EVIL)
    seen = Seen(html(card))
    assert [tag for tag, _ in seen.tags] == ["b", "i", "a"]
    assert seen.text.split("\n") == [EVIL] * 4
    assert "<script" not in html(card)
    assert not [tag for tag, _ in rendered(markdown(card)).tags if tag == "script"]
    assert "@everyone" not in markdown(card)


@given(ANYTHING, st.lists(ANYTHING, max_size=12), ANYTHING, ANYTHING)
@example(EVIL, [EVIL, "- list", "1. list", "+ list", "# head"], EVIL, EVIL)
@example("\u202egnp.exe", ["\ud800 half", "a\x00b\x1bc"], "two\nlines\u2028here", "")
def test_any_text_is_seen_as_it_is(title: str, lines: list[str], footer: str, link: str) -> None:
    card = Card(title=title, lines=tuple(lines), footer=footer, url="https://x/y" if link else "", link=link)
    seen = Seen(html(card))
    assert not seen.open
    expected = [cleaned(text) for text in (title, *lines, footer)]
    if link:
        expected.append(cleaned(link) or "https://x/y")
    assert [line for line in seen.text.split("\n") if line] == [line for line in expected if line]
    for tag, attributes in seen.tags:
        assert (tag, attributes) in [("b", {}), ("i", {}), ("a", {"href": "https://x/y"})]
    for text in (html(card), markdown(card), plain(card)):
        text.encode("utf-8")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e]", text)
    shown = rendered(markdown(card))
    assert {tag for tag, _ in shown.tags} <= {"p", "strong", "em", "a", "br"}
    assert shown.text.replace("@\u200b", "@").split() == " ".join(expected).split()


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=500),
    st.lists(st.text("ab<&*🚀 ", max_size=500), max_size=40),
    st.text("f<_🚀", max_size=300),
    st.integers(1, TELEGRAM_CAPTION),
)
def test_nothing_is_longer_than_the_limit_and_no_mark_is_broken(
    title: str, lines: list[str], footer: str, limit: int
) -> None:
    card = Card(title=title, lines=tuple(lines), footer=footer, url="https://x/y?a=1&b=2", link="A & B")
    seen = Seen(html(card, limit))
    assert not seen.open
    assert size_of(seen.text) <= limit
    assert size_of(markdown(card, limit)) <= limit
    assert size_of(plain(card, limit)) <= limit


def test_what_is_cut_are_the_last_lines_and_never_the_footer_or_the_link() -> None:
    lines = tuple(f"line {number}" for number in range(1_000))
    card = Card("title", lines, "footer", url="https://x/y", link="page")
    text = html(card, TELEGRAM_CAPTION)
    shown = text.split("\n")
    assert shown[0] == "<b>title</b>"
    assert shown[1] == "line 0"
    assert shown[-3:] == [CUT, "<i>footer</i>", '<a href="https://x/y">page</a>']
    size = size_of(Seen(text).text)
    assert TELEGRAM_CAPTION - 10 < size <= TELEGRAM_CAPTION
    assert shown[-4] == f"line {len(shown) - 5}"


def test_a_card_that_just_fits_is_not_cut() -> None:
    size = len(plain(CARD))
    assert plain(CARD, size) == plain(CARD)
    assert CUT in plain(CARD, size - 1)


@pytest.mark.parametrize("spell", [html, markdown, plain])
def test_an_address_cannot_end_its_link(spell: Callable[[Card], str]) -> None:
    card = Card("t", url='https://x/"> <b>(a)\n\\ü', link="page")
    assert "https://x/%22%3E%20%3Cb%3E%28a%29%0A%5C%C3%BC" in spell(card)
