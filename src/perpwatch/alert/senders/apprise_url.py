"""Alerts to whatever apprise knows: e-mail, Discord, Slack, ntfy and some hundred others, each by a URL."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice, highest_level, message_key
from perpwatch.alert.operational import Phase
from perpwatch.alert.senders.apprise_process import AppriseProcess, Message
from perpwatch.alert.senders.worker import Worker
from perpwatch.alert.spelling import cleaned, html, markdown, plain
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryRefused
from perpwatch.model import Level

_TYPES = {Level.NOTICE: "info", Level.STRONG: "warning", Level.EXTREME: "failure"}
_SCHEME = re.compile(r"\s*([a-z0-9+.-]+)://", re.IGNORECASE)


class AppriseSender:
    """One apprise URL, with a process that serves it.

    Args:
        url: as apprise documents it.
        turns: when one may be sent.
        timeout_s: for a whole message; a slower answer is still waited for when the same message is sent again.
    Raises:
        ValueError: a URL that cannot be used, and why, without showing any of it but its scheme.
    """

    can_edit = False

    def __init__(self, url: str, turns: Turns, *, timeout_s: float = 30.0) -> None:
        found = _SCHEME.match(url)
        if found is None:
            raise ValueError("give an apprise URL, such as mailto://user:password@example.com or ntfy://topic")
        scheme = found[1].lower()
        self.turns = turns
        self.destination = scheme
        self._timeout_s = timeout_s
        self.process = AppriseProcess(url.strip())
        self._service = self.process.start()
        self.takes_pictures = self._service.takes_pictures
        self._worker = Worker(f"perpwatch-{scheme}")

    async def send(self, card: Card, notices: Sequence[Notice]) -> str:
        message = Message(
            self._title(card),
            self._body(card),
            self._service.format,
            _type(notices),
            card.picture if self.takes_pictures else None,
        )
        async with self.turns.turn(self.destination):
            await self._worker.run(message_key(notices), lambda: self.process.send(message), self._timeout_s)
        return ""

    async def edit(self, receipt: str, card: Card, notices: Sequence[Notice]) -> None:
        raise DeliveryRefused("what was sent by apprise cannot be edited")

    async def close(self) -> None:
        await asyncio.to_thread(self.process.close)

    def _title(self, card: Card) -> str:
        if not self._service.has_title:
            return ""  # it begins the text
        title = cleaned(card.title)
        # A chat shall not call all its members together because of what a contract is called.
        return title if self._service.format == "html" else title.replace("@", "@\u200b")

    def _body(self, card: Card) -> str:
        has_title, limit = not self._service.has_title, self._service.limit
        match self._service.format:
            case "html":
                return html(card, limit, has_title=has_title).replace("\n", "<br/>\n")
            case "markdown":
                return markdown(card, limit, has_title=has_title)
            case _:
                return plain(card, limit, has_title=has_title)


def _type(notices: Sequence[Notice]) -> str:
    """By this apprise chooses colours and pictures."""
    if all(one.operational is not None and one.operational.phase is Phase.END for one in notices):
        return "success"
    return _TYPES[highest_level(notices)]
