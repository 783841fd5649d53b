"""A storm of alerts, and the services that it goes to: some well, some ill, one dead, all over real sockets."""

from __future__ import annotations

import asyncio
import bisect
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from mail_server import MailServer
from told import notice

from perpwatch.alert.card import Card, card_of, digest_of
from perpwatch.alert.notice import Notice
from perpwatch.app.config import Config, load_config
from perpwatch.sim import bot_api, webhook
from perpwatch.sim.bot_api import BotApiServer
from perpwatch.sim.webhook import WebhookServer

SECRET, PASSWORD = "a-secret-of-the-storm", "pa55-word"
#: A private chat, and a group, which takes twenty messages a minute.
PERSON, GROUP = 77, -1_001
#: What goes wrong, as shares of all calls.
WEBHOOK_FAULTS = {
    webhook.Fault.TOO_MANY: 0.04,
    webhook.Fault.BROKEN: 0.06,
    webhook.Fault.RESET: 0.04,
    webhook.Fault.LOST_ANSWER: 0.06,
    webhook.Fault.SILENT: 0.02,
}
TELEGRAM_FAULTS = {
    bot_api.Fault.TOO_MANY: 0.04,
    bot_api.Fault.BROKEN: 0.06,
    bot_api.Fault.BAD_GATEWAY: 0.04,
    bot_api.Fault.RESET: 0.06,
}
MAIL_FAULTS = {"451 try later": 0.06, "": 0.06}  # the last one cuts the line
#: A webhook takes so many requests a second; a letter may come once a second.
WEBHOOK_RATE = 20
#: So long a request may take.
TIMEOUT_S = 2


@dataclass
class Services:
    """The other side of five channels that work, and one that is dead. Use as ``async with``."""

    calm: WebhookServer = field(default_factory=lambda: WebhookServer(SECRET, limit=(WEBHOOK_RATE, 1.0)))
    rough: WebhookServer = field(default_factory=lambda: WebhookServer(SECRET, limit=(WEBHOOK_RATE, 1.0)))
    dead: WebhookServer = field(default_factory=lambda: WebhookServer(SECRET))
    telegram: BotApiServer = field(default_factory=BotApiServer)
    mail: MailServer = field(default_factory=lambda: MailServer(PASSWORD))

    def __post_init__(self) -> None:
        self.rough.fault_shares = dict(WEBHOOK_FAULTS)
        self.dead.fault_shares = {webhook.Fault.SILENT: 1.0}
        self.telegram.fault_shares = dict(TELEGRAM_FAULTS)
        self.telegram.add_chat(PERSON)
        self.telegram.add_chat(GROUP)
        self.mail.reply_shares = dict(MAIL_FAULTS)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Services:
        for server in (self.calm, self.rough, self.dead, self.telegram, self.mail):
            await self._stack.enter_async_context(server)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def settings(self, folder: Path) -> str:
        """A configuration of the channels; writes the files with secrets beside it."""
        (folder / "secret").write_text(SECRET)
        (folder / "token").write_text(self.telegram.token)
        address = f"watch:{PASSWORD}@127.0.0.1:{self.mail.port}/?smtp=127.0.0.1&from=watch@example.com"
        (folder / "mail").write_text(f"mailto://{address}&to=me@example.com")
        text = ""
        for name in ("calm", "rough", "dead"):
            text += _table(
                name,
                type="webhook",
                url=getattr(self, name).url,
                secret_file="secret",
                requests_per_second=WEBHOOK_RATE,
                timeout=TIMEOUT_S,
            )
        for name, chat in (("person", PERSON), ("group", GROUP)):
            text += _table(name, type="telegram", token_file="token", chat=chat, base_url=self.telegram.url)
        return text + _table("mail", type="apprise", url_file="mail", messages_per_minute=60)


def _table(name: str, **keys: object) -> str:
    # Only what the storm tells, and not what a watch may find meanwhile.
    lines = [f"{key} = {value!r}" for key, value in {**keys, "kinds": ["alert"], "rules": ["pump"]}.items()]
    return "\n".join([f"[alerts.channels.{name}]", *lines, "", ""])


def configured(services: Services, folder: Path) -> Config:
    path = folder / "perpwatch.toml"
    path.write_text(services.settings(folder))
    return load_config(path)


async def blow(tell: Callable[[Notice], None], symbols: Sequence[str], seconds: float, first: int = 0) -> None:
    """Tell of something in each of these, evenly; ``first`` numbers the notices."""
    began_s = time.monotonic()
    for number, symbol in enumerate(symbols):
        await asyncio.sleep(max(0.0, began_s + number * seconds / len(symbols) - time.monotonic()))
        tell(notice(first + number, symbol, time.time_ns() // 1_000_000))


class Words:
    """Makes cards without pictures."""

    async def make(self, notices: Sequence[Notice], *, with_picture: bool) -> Card:
        return card_of(notices[0]) if len(notices) == 1 else digest_of(notices)


# --- What the services have seen ------------------------------------------------------------------------------------


def posted(server: WebhookServer) -> Counter[str]:
    """How often each symbol is told in the messages of a webhook; a repetition of a message is known by its id."""
    return Counter(one["symbol"] for message in server.messages.values() for one in message["notices"])


@dataclass(frozen=True)
class Read:
    """What people can read."""

    notices: int  # told, those in digests included
    digests: int
    symbols: Counter[str]  # that are named


def read(texts: Iterable[str]) -> Read:
    """Messages for people, each with its title in the first line."""
    notices, digests, symbols = 0, 0, Counter[str]()
    for text in texts:
        digest = re.match(r"◆ (\d+) alerts", text)
        notices += int(digest[1]) if digest is not None else 1
        digests += digest is not None
        symbols.update(re.findall(r"(?<=[▲▼●] )S\d{4}\b", text))
    return Read(notices, digests, symbols)


def letters(server: MailServer) -> list[str]:
    """Title and text of each letter that was taken."""
    found = []
    for letter in server.letters:
        body = letter.get_body(("plain",))
        assert body is not None
        found.append(f"{letter['Subject']}\n{body.get_content()}")
    return found


def most_within(received_s: Sequence[float], seconds: float) -> int:
    """The most requests within any so many seconds."""
    return max(
        (bisect.bisect_left(received_s, start_s + seconds) - number for number, start_s in enumerate(received_s)),
        default=0,
    )
