"""Alerts in the terminal, for one who sits before it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice, highest_level, message_key
from perpwatch.alert.senders.worker import Worker
from perpwatch.alert.spelling import cleaned
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryFailed, DeliveryRefused
from perpwatch.model import Level

#: A terminal that is held (Ctrl-S), or a pipe that nobody reads, takes nothing for as long as it likes.
TIMEOUT_S = 5.0
_STYLES = {Level.NOTICE: "bold", Level.STRONG: "bold yellow", Level.EXTREME: "bold red"}


class ConsoleSender:
    """Prints cards on a console."""

    can_edit = False
    takes_pictures = False
    destination = "console"

    def __init__(self, console: Console, turns: Turns) -> None:
        self.turns = turns
        self._console = console
        self._worker = Worker("perpwatch-console")

    async def send(self, card: Card, notices: Sequence[Notice]) -> str:
        text = console_text(card, highest_level(notices))

        def write() -> None:
            try:
                self._console.print(text, soft_wrap=True)
            except (OSError, ValueError) as error:  # a ValueError is a stream that is closed
                raise DeliveryFailed(f"the terminal cannot be written: {error}") from error

        async with self.turns.turn(self.destination):
            await self._worker.run(message_key(notices), write, TIMEOUT_S)
        return ""

    async def edit(self, receipt: str, card: Card, notices: Sequence[Notice]) -> None:
        raise DeliveryRefused("what is printed stays as it is")

    async def close(self) -> None:
        return


def console_text(card: Card, level: Level) -> Text:
    """A card with colours. Nothing in it is taken for markup, and nothing in it commands the terminal."""
    text = Text(cleaned(card.title), style=_STYLES[level])
    for line in card.lines:
        text.append(f"\n  {cleaned(line)}", style="not bold default")
    for line in (card.footer, card.url):
        if line:
            text.append(f"\n  {cleaned(line)}", style="not bold dim default")
    return text
