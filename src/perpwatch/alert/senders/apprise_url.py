"""Alerts to whatever apprise knows: e-mail, Discord, Slack, ntfy and some hundred others, each by a URL.

Only this file knows apprise, and imports it when a channel needs it. Such a URL holds passwords and tokens: neither it
nor any part of it is shown, and apprise's own log is read here and goes nowhere else.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice, message_key
from perpwatch.alert.operational import Phase
from perpwatch.alert.senders.worker import Worker
from perpwatch.alert.spelling import cleaned, html, markdown, plain
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryFailed, DeliveryRefused
from perpwatch.model import Level

if TYPE_CHECKING:
    from apprise import Apprise, NotifyBase

#: A part of the URL that is no longer than this is no secret, and hiding it would hide words.
MAX_PUBLIC_CHARACTERS = 3
MAX_REASON_CHARACTERS = 200
#: Services that hand a message on to a program take it as it is ...
_PLAIN = frozenset({"json", "jsons", "xml", "xmls", "form", "forms"})
#: ... and these read Markdown in what apprise takes for text.
_MARKDOWN = frozenset({"mmost", "mmosts", "zulip"})
_TYPES = {Level.NOTICE: "info", Level.STRONG: "warning", Level.EXTREME: "failure"}
#: Levels of apprise's log that tell what it does; what a library below has said is hidden among them.
_QUIET = frozenset({"TRACE", "DEBUG", "INFO"})
_SCHEME = re.compile(r"\s*([a-z0-9+.-]+)://", re.IGNORECASE)


class AppriseSender:
    """One apprise URL.

    Args:
        url: as apprise documents it.
        turns: when one may be sent.
        timeout_s: for a whole message; a slower answer is still waited for when the same message is sent again.
    Raises:
        ValueError: a URL that cannot be used, and why, without showing any of it but its scheme.
    """

    can_edit = False

    def __init__(self, url: str, turns: Turns, *, timeout_s: float = 30.0) -> None:
        scheme = _scheme(url)
        self.turns = turns
        self.destination = scheme
        self._secrets = _secrets(url)
        self._timeout_s = timeout_s
        self._apprise, service = _load(url, scheme, self._secrets)
        self._format = service.resolve_format().value
        self._has_title = service.title_maxlen > 0
        self._limit = service.body_maxlen
        self.takes_pictures = bool(service.attachment_support)
        self._worker = Worker(f"perpwatch-{scheme}")

    async def send(self, card: Card, notices: Sequence[Notice]) -> str:
        def notify() -> None:
            self._notify(card, notices)

        async with self.turns.turn(self.destination):
            await self._worker.run(message_key(notices), notify, self._timeout_s)
        return ""

    async def edit(self, receipt: str, card: Card, notices: Sequence[Notice]) -> None:
        raise DeliveryRefused("what was sent by apprise cannot be edited")

    async def close(self) -> None:
        return

    def _notify(self, card: Card, notices: Sequence[Notice]) -> None:
        from apprise.attachment.memory import AttachMemory

        picture = None
        if card.picture is not None and self.takes_pictures:
            picture = AttachMemory(content=card.picture, name="chart.png", mimetype="image/png")
        with self._apprise.notify(
            body=self._body(card),
            title=self._title(card),
            notify_type=_type(notices),
            body_format=self._format,
            attach=picture,
            log_level=logging.DEBUG,
        ) as result:
            if not result:
                entries = [entry for one in result.results for entry in one.logs()]
                reasons = [
                    entry.message for entry in entries if entry.level not in _QUIET or "Exception: " in entry.message
                ]
                raise DeliveryFailed(_told(reasons, self._secrets) or "apprise does not say why it could not be sent")

    def _title(self, card: Card) -> str:
        if not self._has_title:
            return ""  # it begins the text
        title = cleaned(card.title)
        # A chat shall not call all its members together because of what a contract is called.
        return title if self._format == "html" else title.replace("@", "@\u200b")

    def _body(self, card: Card) -> str:
        has_title = not self._has_title
        match self._format:
            case "html":
                return html(card, self._limit, has_title=has_title).replace("\n", "<br/>\n")
            case "markdown":
                return markdown(card, self._limit, has_title=has_title)
            case _:
                return plain(card, self._limit, has_title=has_title)


def _scheme(url: str) -> str:
    found = _SCHEME.match(url)
    if found is None:
        raise ValueError("give an apprise URL, such as mailto://user:password@example.com or ntfy://topic")
    return found[1].lower()


def _load(url: str, scheme: str, secrets: Sequence[str]) -> tuple[Apprise, NotifyBase]:
    from apprise import Apprise, AppriseAsset
    from apprise.plugins import url_to_dict

    # Nothing is followed to another address and nothing is kept on disk; the thread and the time limit are ours.
    asset = AppriseAsset(
        app_id="perpwatch",
        app_desc="perpwatch",
        app_url="",
        async_mode=False,
        http_redirects=False,
        service_timeout=0,
        storage_mode="memory",
        allow_templates=False,
    )
    with _Heard() as heard:
        parts = url_to_dict(url.strip())
        if parts is not None and parts["schema"] == "tgram":
            raise ValueError('for Telegram there is type = "telegram", which paces, edits and takes commands')
        # Trying again is ours, and what may fail unseen would be lost. Too long a message is sent in parts.
        settings = {"overflow": "split", **(parts or {}), "retry": 0, "optional": False}
        service = Apprise.instantiate(settings, asset=asset) if parts is not None else None
        if service is None:
            reasons = [one for one in heard.messages if " URL" not in one]  # such a one shows parts of it
            raise ValueError(_told(reasons, secrets) or f"apprise cannot use this {scheme}:// URL on this machine")
        if "format" not in settings and _wants_markdown(service, str(settings["schema"])):
            service = Apprise.instantiate({**settings, "format": "markdown"}, asset=asset)
    assert service is not None, "only the format was added"
    if service.request_rate_per_sec == _guessed_rate():
        service.request_rate_per_sec = 0.0
    apprise = Apprise(asset=asset)
    apprise.add(service)
    return apprise, service


def _wants_markdown(service: NotifyBase, schema: str) -> bool:
    """A chat takes asterisks for markup in what apprise calls text, too."""
    formats = [one.value for one in service._formats()]
    is_chat = "markdown" in formats and formats[0] != "html" and schema not in _PLAIN
    return is_chat or schema in _MARKDOWN


def _guessed_rate() -> float:
    """Seconds between two requests where apprise knows no limit of the service. Ours is kept anyway."""
    from apprise import NotifyBase

    return float(NotifyBase.request_rate_per_sec)


class _Heard(logging.Handler):
    """What apprise complains about while this is open, in this thread. It is told to nobody else.

    The libraries below it name the addresses that they call, which hold tokens.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self._thread = threading.get_ident()
        self._logger = logging.getLogger("apprise")

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.messages.append(record.getMessage())

    def __enter__(self) -> Self:
        self._logger.propagate = False
        self._logger.setLevel(logging.DEBUG)
        for name in ("requests", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)


# --- What is shown --------------------------------------------------------------------------------------------------


def _secrets(url: str) -> list[str]:
    """All parts of a URL, as written and as meant, longest first; whoever needs the host finds it in the settings."""
    rest = url.partition("://")[2]
    parts = {rest, *re.split(r"[/?&=:@#,;+\s]+", rest)}
    spellings = {spelling for part in parts for spelling in (part, unquote(part))}
    return sorted((one for one in spellings if len(one) > MAX_PUBLIC_CHARACTERS), key=len, reverse=True)


def _told(messages: Iterable[str], secrets: Sequence[str]) -> str:
    """Complaints in one line, without secrets."""
    text = "; ".join(dict.fromkeys(" ".join(one.split()) for one in messages))
    for secret in secrets:
        # A short one may be part of a word that means something else.
        pattern = re.escape(secret) if len(secret) > 8 else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(pattern, "***", text, flags=re.IGNORECASE)
    return cleaned(text)[:MAX_REASON_CHARACTERS]


# --- What is sent ---------------------------------------------------------------------------------------------------


def _type(notices: Sequence[Notice]) -> str:
    """By this apprise chooses colours and pictures."""
    if all(one.operational is not None and one.operational.phase is Phase.END for one in notices):
        return "success"
    return _TYPES[max((one.level for one in notices), key=list(Level).index)]
