"""What can be put into the store besides the words of :mod:`perpwatch.model`."""

from __future__ import annotations

from typing import Any

import msgspec

from perpwatch.model import MINUTE_MS, Candle, Contract, Signal, Trust

HOUR_MS = 60 * MINUTE_MS

#: One byte per minute in a ledger row; also how a candle's trust is kept.
TRUST_CODES = {Trust.UNKNOWN: 0, Trust.STREAMED: 1, Trust.VERIFIED: 2, Trust.REPAIRED: 3, Trust.QUIET: 4}


#: In a ledger row: nothing was traded, and there was no price yet to draw a candle at.
EMPTY_CODE = 5


class LedgerHour(msgspec.Struct, frozen=True):
    """What is known about the sixty minutes of one hour of one symbol."""

    symbol: str
    hour_ms: int  # open time of its first minute, on a whole hour
    codes: bytes  # sixty of TRUST_CODES or EMPTY_CODE


class Retracted(msgspec.Struct, frozen=True):
    """Minutes that were closed and turned out to lie in a silent failure.

    The candles that were stored for them, and the longer ones they are part of, stay but are no longer trusted.
    """

    symbol: str
    start_ms: int
    end_ms: int  # exclusive


class Alerted(msgspec.Struct, frozen=True):
    """Something a person is to be told. A key is stored once; a second put changes nothing."""

    key: str
    time_ms: int  # exchange time at which it was decided
    symbol: str  # empty for an alert about the market
    body: bytes  # the alert itself, as JSON
    delivered_time_ms: int = 0  # 0 while it waits


class Delivered(msgspec.Struct, frozen=True):
    """The alert of this key has reached its people."""

    key: str
    time_ms: int


class AlertOutcome(msgspec.Struct, frozen=True):
    """What the market did after an alert; known again, it replaces what was known."""

    alert_key: str
    time_ms: int  # of the alert
    symbol: str
    body: bytes  # the figures, as JSON


class State(msgspec.Struct, frozen=True):
    """Something the program must remember: limits of the exchange, cooldowns, what a detector has learnt."""

    key: str
    value: bytes  # JSON, or whatever its owner encodes
    updated_ms: int

    @classmethod
    def of(cls, key: str, value: Any, updated_ms: int) -> State:
        """A state of plain values, kept as JSON."""
        return cls(key, msgspec.json.encode(value), updated_ms)

    def decode(self) -> Any:
        """What :meth:`of` was given, tuples as lists."""
        return msgspec.json.decode(self.value)


Record = Candle | Signal | Contract | LedgerHour | Retracted | Alerted | Delivered | AlertOutcome | State
