"""A card as a channel wants it: Telegram's HTML, Markdown, plain text.

All text is escaped, whoever it comes from: a contract or a rule may be called anything. What does not fit is cut at
the ends of lines, the least important ones first, and never inside a tag or an escape; the title always stays, and the
footer and the link as long as they fit.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from perpwatch.alert.card import Card

#: What Telegram takes, counted as it counts: UTF-16 units of the text that is seen, without the tags.
TELEGRAM_MESSAGE, TELEGRAM_CAPTION = 4_096, 1_024
#: No line says more.
LINE_LENGTH = 400
CUT = "…"

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#~|&])")
_SPACES = re.compile(" {2,}")
#: What makes a list only at the start of a line.
_BULLET, _NUMBER = re.compile(r"^[-+=]"), re.compile(r"^(\d+)([.)])")


def html(card: Card, limit: int = TELEGRAM_MESSAGE, *, has_title: bool = True) -> str:
    """Telegram's HTML: only the tags b, i and a.

    Args:
        limit: UTF-16 units of the text without its tags, which is what Telegram counts.
        has_title: False where the channel shows the title by itself.
    """
    return _spelt(card, limit, _HTML, has_title=has_title)


def markdown(card: Card, limit: int = TELEGRAM_MESSAGE, *, has_title: bool = True) -> str:
    """CommonMark, as far as chats know it. ``limit`` counts the marks, too."""
    return _spelt(card, limit, _MARKED, has_title=has_title)


def plain(card: Card, limit: int = TELEGRAM_MESSAGE, *, has_title: bool = True) -> str:
    """Text without any marks, the page's address as it is."""
    return _spelt(card, limit, _PLAIN, has_title=has_title)


def size_of(text: str) -> int:
    """UTF-16 units, which is how chats count: most characters are one, an emoji is two."""
    return len(text) + sum(character > "\uffff" for character in text)


def cleaned(text: str) -> str:
    """One line without what would break it or turn it round: control and bidirectional marks, half characters."""
    return _SPACES.sub(" ", "".join(_kept(character) for character in text)).strip()


def _kept(character: str) -> str:
    kind = unicodedata.category(character)
    if kind in ("Cc", "Zl", "Zp"):
        return " "
    return "\ufffd" if kind == "Cs" else "" if kind == "Cf" else character


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spelling:
    escape: Callable[[str], str]
    title: str  # what stands around an escaped text
    footer: str
    link: Callable[[str, str], str]  # escaped text, address
    line_end: str = "\n"
    counts_marks: bool = True

    def cost(self, seen: str, marked: str) -> int:
        return size_of(marked if self.counts_marks else seen)


def _html_escape(text: str) -> str:
    return _html.escape(text, quote=True)


def _markdown_escape(text: str) -> str:
    text = _NUMBER.sub(r"\1\\\2", _BULLET.sub(r"\\\g<0>", _MARKDOWN.sub(r"\\\1", text)))
    # A chat shall not call all its members together because of what a contract is called.
    return text.replace("@", "@\u200b")


def _address(url: str) -> str:
    """An address that ends neither a tag nor a link before its time."""
    return "".join(
        character if "!" <= character <= "~" and character not in "<>\"'()\\@" else _quoted(character)
        for character in url
    )


def _quoted(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))


def _html_link(text: str, url: str) -> str:
    return f'<a href="{_html_escape(_address(url))}">{text}</a>'


_HTML = _Spelling(escape=_html_escape, title="<b>{}</b>", footer="<i>{}</i>", link=_html_link, counts_marks=False)
_MARKED = _Spelling(
    escape=_markdown_escape,
    title="**{}**",
    footer="_{}_",
    link=lambda text, url: f"[{text}]({_address(url)})",
    line_end="  \n",  # two spaces keep lines apart where Markdown becomes HTML
)
_PLAIN = _Spelling(escape=lambda text: text, title="{}", footer="{}", link=lambda text, url: _address(url))


def _spelt(card: Card, limit: int, spelling: _Spelling, *, has_title: bool) -> str:
    end = len(spelling.line_end) if spelling.counts_marks else 1
    room = limit + end  # no line end stands before the first line
    top: list[str] = []
    bottom: list[str] = []

    def put(lines: list[str], line: tuple[str, str] | None, *, reserve: int = 0) -> bool:
        nonlocal room
        if line is None or (needed := end + spelling.cost(*line)) + reserve > room:
            return False
        lines.append(line[1])
        room -= needed
        return True

    if has_title:
        put(top, _fitting(cleaned(card.title)[:LINE_LENGTH], spelling.title, spelling, limit))
    if card.url:
        seen = cleaned(card.link)[:LINE_LENGTH] or card.url
        put(bottom, (seen, spelling.link(spelling.escape(seen), card.url)))
    put(bottom, _fitting(cleaned(card.footer), spelling.footer, spelling, LINE_LENGTH))
    lines = [line for line in map(cleaned, card.lines) if line]
    for number, text in enumerate(lines):
        is_last = number == len(lines) - 1
        line = _fitting(text, "{}", spelling, LINE_LENGTH)
        if not put(top, line, reserve=0 if is_last else end + len(CUT)):
            put(top, (CUT, CUT))
            break
    return spelling.line_end.join(top + bottom[::-1])


def _fitting(text: str, around: str, spelling: _Spelling, room: int) -> tuple[str, str] | None:
    """As much of a text as there is room for, as it is seen and as it is marked; None when there is none at all."""
    for length in (len(text), *range(min(len(text), max(room, 0)) - 1, 0, -1)):
        seen = text if length == len(text) else f"{text[:length].rstrip()}{CUT}"
        marked = around.format(spelling.escape(seen))
        if spelling.cost(seen, marked) <= room:
            return (seen, marked) if seen else None
    return None
