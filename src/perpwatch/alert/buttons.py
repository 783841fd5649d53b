"""Buttons below a message about the market: what they say, and what a press of them brings back.

A program can pretend a press with any data, so the data is signed with a key of the bot's. It is at most 64 bytes, as
Telegram demands.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
from collections.abc import Sequence

import msgspec

from perpwatch.alert.notice import Notice

MAX_DATA_BYTES = 64
_SIGNATURE_LENGTH = 10  # characters of base64: 60 bits


class Act(enum.StrEnum):
    """What a press asks for. The values are part of messages that have been sent, so they never change."""

    MUTE_HOUR = "h"  # of a symbol
    MUTE_DAY = "d"
    UNMUTE = "u"
    LESS = "l"  # of a rule
    MORE = "m"
    WRONG = "w"  # of an alert, by its reference


class Button(msgspec.Struct, frozen=True):
    text: str
    data: str = ""  # signed; empty for a link
    url: str = ""


class Press(msgspec.Struct, frozen=True):
    """What somebody has pressed."""

    act: Act
    subject: str  # a symbol, a rule, or the reference of an alert


#: Language: words on the buttons.
WORDS = {
    "en": {
        Act.MUTE_HOUR: "🔕 1 h",
        Act.MUTE_DAY: "🔕 24 h",
        Act.UNMUTE: "🔔 {subject}",
        Act.LESS: "➖ Less of this",
        Act.MORE: "➕ More of this",
        Act.WRONG: "👎 Wrong",
        "chart": "📈 Open chart",
    },
    "ru": {
        Act.MUTE_HOUR: "🔕 1 ч",
        Act.MUTE_DAY: "🔕 24 ч",
        Act.UNMUTE: "🔔 {subject}",
        Act.LESS: "➖ Реже такие",
        Act.MORE: "➕ Чаще такие",
        Act.WRONG: "👎 Ошибка",
        "chart": "📈 Открыть график",
    },
}


def reference(key: str) -> str:
    """A short name of an alert, to be typed by people: eight letters and digits, the same for the same key."""
    return base64.b32encode(hashlib.blake2b(key.encode(), digest_size=5).digest()).decode().lower()


class Buttons:
    """Makes the buttons of one bot, and reads them again.

    Args:
        secret: whoever knows it can make presses; nobody can learn it from them.
        language: ``en`` or ``ru``.
        can_act: False where nobody may command, so that there are links alone.
    """

    def __init__(self, secret: str, language: str, *, can_act: bool = True) -> None:
        self.can_act = can_act
        self._key = hashlib.sha256(f"perpwatch buttons {secret}".encode()).digest()
        self._words = WORDS[language]

    def of(self, notices: Sequence[Notice], url: str = "") -> list[list[Button]]:
        """Rows below a message; a digest, and what nothing can be done about, have the link at most."""
        rows: list[list[Button]] = []
        if self.can_act and len(notices) == 1:
            rows += self._acts(notices[0])
        if url:
            rows.append([Button(self._words["chart"], url=url)])
        return [row for row in rows if row]

    def _acts(self, notice: Notice) -> list[list[Button]]:
        alert, market = notice.alert, notice.market
        if alert is None and market is None:
            return []
        key = alert.key if alert is not None else notice.key
        rule = ((Act.LESS, notice.rule), (Act.MORE, notice.rule)) if notice.rule else ()
        rows = [self.row((Act.MUTE_HOUR, alert.symbol), (Act.MUTE_DAY, alert.symbol))] if alert is not None else []
        return [*rows, self.row(*rule, (Act.WRONG, reference(key)))]

    def row(self, *presses: tuple[Act, str]) -> list[Button]:
        """Buttons beside each other; what is too long for one is left out."""
        return [
            Button(self._words[act].format(subject=subject), data)
            for act, subject in presses
            if len((data := self.data(act, subject)).encode()) <= MAX_DATA_BYTES
        ]

    def data(self, act: Act, subject: str) -> str:
        content = f"{act}:{subject}"
        return f"{content}:{self._signature(content)}"

    def press(self, data: str) -> Press | None:
        """What was pressed; None when no button of ours brings this."""
        content, _, signature = data.rpartition(":")
        if not hmac.compare_digest(signature.encode(), self._signature(content).encode()):
            return None
        act, _, subject = content.partition(":")
        return Press(Act(act), subject) if act in list(Act) else None

    def _signature(self, content: str) -> str:
        digest = hmac.digest(self._key, content.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode()[:_SIGNATURE_LENGTH]


def keyboard(rows: Sequence[Sequence[Button]]) -> dict[str, list[list[dict[str, str]]]]:
    """Buttons as the Bot API spells them."""
    return {
        "inline_keyboard": [
            [
                {"text": one.text, "url": one.url} if one.url else {"text": one.text, "callback_data": one.data}
                for one in row
            ]
            for row in rows
        ]
    }
