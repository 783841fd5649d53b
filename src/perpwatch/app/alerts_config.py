"""The ``[alerts]`` table of the configuration: who is told what, and by which channel.

Secrets never stand in it: a key that ends in ``_file`` names a file that holds one, a key that ends in ``_env`` a
variable of the environment.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from perpwatch.alert.notice import NoticeKind
from perpwatch.alert.routing import QuietHours, Route
from perpwatch.app.url_setting import is_url
from perpwatch.errors import ConfigurationError
from perpwatch.model import AssetClass, Level


def _listed(value: object) -> object:
    """The environment gives lists as text: JSON, or with commas."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return [part.strip() for part in value.split(",") if part.strip()]


def _check_quiet_hours(text: str) -> str:
    QuietHours.parse(text)
    return text


def _check_time_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("give a name like Europe/Berlin, or UTC") from error
    return name


def _check_kind(name: object) -> object:
    if name not in _KINDS:
        raise ValueError(f"choose from {', '.join(_KINDS)}")
    return name


def _check_chat(chat: str) -> str:
    if re.fullmatch(r"-?[1-9][0-9]{0,18}|@[A-Za-z][A-Za-z0-9_]{3,31}", chat) is None:
        raise ValueError("give the number of a chat, negative for groups, or the @name of a public one")
    return chat


def _check_chart_url(url: str) -> str:
    if "." not in (urlsplit(url).hostname or ""):
        raise ValueError("give an address that phones can reach; Telegram takes no other")
    return url


#: A test is for every channel.
_KINDS = [kind.value for kind in NoticeKind if kind is not NoticeKind.TEST]
_Kind = Annotated[NoticeKind, BeforeValidator(_check_kind)]
_Patterns = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), BeforeValidator(_listed)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class ChannelConfig(BaseModel):
    """What all channels have in common. Everything is passed on unless a key says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kinds: Annotated[list[_Kind], Field(min_length=1), BeforeValidator(_listed)] = [NoticeKind(name) for name in _KINDS]
    rules: _Patterns = ["*"]
    level: Level = Level.NOTICE
    classes: Annotated[list[AssetClass], BeforeValidator(_listed)] = []
    symbols: _Patterns = ["*"]
    pinned_only: bool = False
    quiet_hours: Annotated[str, AfterValidator(_check_quiet_hours)] | None = None
    alerts_per_hour: Annotated[int, Field(ge=1)] | None = None
    alerts_per_day: Annotated[int, Field(ge=1)] | None = None

    def route(self, time_zone: str) -> Route:
        """The filter in the words of :mod:`perpwatch.alert.routing`."""
        hours = QuietHours.parse(self.quiet_hours, time_zone) if self.quiet_hours is not None else None
        return Route(
            kinds=frozenset(self.kinds),
            rules=tuple(self.rules),
            level=self.level,
            classes=frozenset(self.classes),
            symbols=tuple(self.symbols),
            pinned_only=self.pinned_only,
            quiet_hours=hours,
            alerts_per_hour=self.alerts_per_hour,
            alerts_per_day=self.alerts_per_day,
        )


class ConsoleChannel(ChannelConfig):
    """Lines on standard error, for a terminal or a log."""

    type: Literal["console"]


class DesktopChannel(ChannelConfig):
    """Notifications of the desktop that the program runs on."""

    type: Literal["desktop"]


_Chat = Annotated[
    str,
    BeforeValidator(lambda chat: str(chat) if isinstance(chat, int) and not isinstance(chat, bool) else chat),
    AfterValidator(_check_chat),
]


class TelegramChannel(ChannelConfig):
    """A chat of Telegram, or one topic of it. Channels with the same token are one bot."""

    type: Literal["telegram"]
    token_file: Text | None = None
    token_env: Text | None = None
    chat: _Chat
    topic: Annotated[int, Field(ge=1)] | None = None
    users: Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_listed)] = []  # who may command the bot
    silent: bool = False
    chart_url: Annotated[str, is_url("http", "https"), AfterValidator(_check_chart_url)] | None = None
    base_url: Annotated[str, is_url("http", "https")] = "https://api.telegram.org"
    proxy_file: Text | None = None  # an address may hold a password, so it is treated like one
    proxy_env: Text | None = None


class WebhookChannel(ChannelConfig):
    """Signed JSON, posted to an address."""

    type: Literal["webhook"]
    url: Text | None = None
    url_file: Text | None = None  # for an address that holds a token; or ...
    url_env: Text | None = None
    secret_file: Text | None = None
    secret_env: Text | None = None
    ca_file: Text | None = None
    updates: bool = False  # how episodes go on is posted, too
    requests_per_second: Annotated[float, Field(gt=0, le=1_000)] = 10.0
    timeout: Annotated[float, Field(ge=1, le=120)] = 20.0  # seconds

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if sum(one is not None for one in (self.url, self.url_file, self.url_env)) != 1:
            raise ValueError("give one of url, url_file and url_env")
        if self.url is not None and "@" in self.url.partition("://")[2].partition("/")[0]:
            raise ValueError("no user and password in url; the signature proves who sends")
        return self


class AppriseChannel(ChannelConfig):
    """Whatever apprise knows by a URL, which is a secret as a whole."""

    type: Literal["apprise"]
    url_file: Text | None = None
    url_env: Text | None = None
    messages_per_minute: Annotated[int, Field(ge=1, le=600)] = 20
    timeout: Annotated[float, Field(ge=1, le=120)] = 20.0  # seconds


#: Every channel there is, by its type.
Channel = Annotated[
    ConsoleChannel | DesktopChannel | TelegramChannel | WebhookChannel | AppriseChannel,
    Field(discriminator="type"),
]
CHANNELS: dict[str, type[ChannelConfig]] = {
    "console": ConsoleChannel,
    "desktop": DesktopChannel,
    "telegram": TelegramChannel,
    "webhook": WebhookChannel,
    "apprise": AppriseChannel,
}
#: Those that tell nobody beyond the machine that the program runs on.
LOCAL_CHANNELS = (ConsoleChannel, DesktopChannel)


def _check_name(name: str) -> str:
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name) is None:
        raise ValueError("name a channel with small letters, digits, - and _")
    return name


class AlertsConfig(BaseModel):
    """Who is told."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    enabled: bool = True  # false sends nothing, whatever channels there are
    language: Literal["en", "ru"] = "en"
    time_zone: Annotated[str, AfterValidator(_check_time_zone)] = "UTC"  # of quiet hours and of the times in messages
    channels: dict[Annotated[str, AfterValidator(_check_name)], Channel] = {}

    @property
    def zone(self) -> datetime.tzinfo:
        """Of the times in messages."""
        return datetime.UTC if self.time_zone == "UTC" else zoneinfo.ZoneInfo(self.time_zone)


def read_secret(key: str, file: str | None, variable: str | None, folder: Path) -> str:
    """A secret from the place that the configuration names; never an empty one.

    Args:
        key: of the setting without its ending: ``alerts.channels.phone.token``.
        file: relative to ``folder``, that of the configuration.
    Raises:
        ConfigurationError: there is none, said without its text.
    """
    if (file is None) == (variable is None):
        raise ConfigurationError(key, "(not shown)", f"give one of {key}_file and {key}_env")
    if variable is not None:
        secret = os.environ.get(variable, "").strip()
        if not secret:
            raise ConfigurationError(
                f"{key}_env", variable, "there is no such variable in the environment, or it is empty"
            )
        return secret
    assert file is not None
    try:
        secret = (folder / file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"{key}_file", file, f"a file that can be read ({reason})") from error
    if not secret:
        raise ConfigurationError(f"{key}_file", file, "the file is empty")
    return secret


def channel_keys(type_name: str) -> Mapping[str, Any]:
    """The keys of a type of channel; those of all together for a type that there is not."""
    if type_name in CHANNELS:
        return CHANNELS[type_name].model_fields
    return {key: field for channel in CHANNELS.values() for key, field in channel.model_fields.items()}
