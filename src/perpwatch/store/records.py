"""What can be put into the store besides the words of :mod:`perpwatch.model`."""

from __future__ import annotations

import enum
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


class DeliveryState(enum.StrEnum):
    """How far a notice has come on a channel."""

    PENDING = "pending"
    SENT = "sent"  # acknowledged by the channel
    SUPPRESSED = "suppressed"  # not to be shown there
    FAILED = "failed"  # given up


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One notice on one channel: a row of the outbox. Put again, it replaces what was known."""

    channel: str
    key: str  # of the notice; unique on the channel
    thread: str  # the key of the first notice about the same thing
    kind: str
    time_ms: int  # at which the notice was decided
    symbol: str = ""
    rule: str = ""
    state: DeliveryState = DeliveryState.PENDING
    why: str = ""  # suppressed or failed, or what the last attempt ended with
    attempts: int = 0  # begun
    is_doubtful: bool = False  # an attempt had no answer, so it may have been shown already
    not_before_ms: int = 0  # our wall clock
    digest: str = ""  # names the digest in which it is told, empty when it is told by itself
    receipt: str = ""  # by which the channel finds the message again
    sent_ms: int = 0  # when it was acknowledged, by our wall clock; 0 until then
    latency_ms: int | None = None  # from the signal to the acknowledgement; None until then, and where none counts
    body: bytes = b""  # the notice itself, as JSON


class Label(msgspec.Struct, frozen=True):
    """A person's judgement of an alert; the same person's next one replaces it."""

    alert_key: str
    who: str  # as the channel knows the person
    label: str
    time_ms: int  # our wall clock
    symbol: str = ""
    rule: str = ""


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


Record = Candle | Signal | Contract | LedgerHour | Retracted | Alerted | AlertOutcome | Delivery | Label | State
