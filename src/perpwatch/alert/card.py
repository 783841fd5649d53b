"""The message that a person reads, before any channel has spelt it."""

from __future__ import annotations

import msgspec


class Card(msgspec.Struct, frozen=True):
    """A message in plain text. Nothing in it is escaped; whoever spells it for a channel escapes all of it."""

    title: str  # fits the notification line of a phone
    lines: tuple[str, ...] = ()  # the reasons, most important first
    footer: str = ""  # trust in the data, latency
    url: str = ""  # the symbol's page at the exchange
    picture: bytes | None = None  # PNG
