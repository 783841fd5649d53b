"""What a webhook is sent: the card for people, and the same in fields for programs.

These structs are a promise to receivers and stand apart from our own, which change as we please. Within a version
fields are added and never changed or removed, so receivers ignore what they do not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from perpwatch.alert.card import Card
from perpwatch.alert.notice import Development, Notice, NoticeKind, message_key
from perpwatch.alert.operational import OperationalAlert, Phase, Trouble
from perpwatch.alert.outcomes import Excursion, Outcome
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.model import AssetClass, Direction, Level, Reason, Signal, Timeframe, Trust

VERSION: Literal[1] = 1

_Milliseconds = Annotated[int, Meta(description="Milliseconds since 1970 UTC.")]
_Fraction = Annotated[float | None, Meta(description="A fraction: 0.01 is one per cent. Null where it is not known.")]


class WebhookReason(msgspec.Struct, frozen=True):
    """One number behind an alert."""

    name: str
    value: Annotated[float | None, Meta(description="Null where it is no finite number.")]
    unit: Annotated[str, Meta(description="x, USDT, %, candles ...")]
    text: Annotated[str, Meta(description="The same in words; may be empty.")]


class WebhookAlert(msgspec.Struct, frozen=True):
    """Something unusual in one symbol."""

    key: Annotated[str, Meta(description="The same alert has the same key in the API and in the store.")]
    symbol: str
    rule: str
    detector: str
    timeframe: Timeframe
    open_time_ms: Annotated[int, Meta(description="Names the candle: its opening, milliseconds since 1970 UTC.")]
    time_ms: Annotated[int, Meta(description="Exchange time at which it fired, milliseconds since 1970 UTC.")]
    direction: Direction
    level: Level
    price: Annotated[float | None, Meta(description="In quote coin.")]
    trust: Annotated[Trust, Meta(description="How far the data under it are known to be good.")]
    is_running: Annotated[bool, Meta(description="The candle was still open.")]
    escalation: Annotated[int, Meta(description="0 for the first alert of an episode, then counted up.", ge=0)]
    episode_start_ms: _Milliseconds
    reasons: Annotated[list[WebhookReason], Meta(description="Most important first.")]
    tags: Annotated[list[str], Meta(description="Detectors that had spoken of the symbol before.")]


class WebhookExcursion(msgspec.Struct, frozen=True):
    """How the price had gone after some minutes; positive is the direction of the alert."""

    minutes: int
    forward: _Fraction
    best: _Fraction
    worst: _Fraction


class WebhookOutcome(msgspec.Struct, frozen=True):
    """What came of an alert."""

    is_hit: Annotated[bool | None, Meta(description="The price went on within an hour; null where it is not known.")]
    after: list[WebhookExcursion]


class WebhookDevelopment(msgspec.Struct, frozen=True):
    """How an episode went on after its first alert."""

    time_ms: _Milliseconds
    price: Annotated[float | None, Meta(description="In quote coin.")]
    change: _Fraction
    best: Annotated[float | None, Meta(description="The furthest the price went in the alert's direction; a fraction.")]
    peak_ratio: Annotated[float | None, Meta(description="Highest turnover against the usual; 0 when not measured.")]
    is_over: Annotated[bool, Meta(description="Nothing more will be told of this thread.")]
    outcome: WebhookOutcome | None


class WebhookMarket(msgspec.Struct, frozen=True):
    """So many symbols at once that it is the market and not the symbols."""

    minute_ms: _Milliseconds
    watched: Annotated[int, Meta(description="Symbols under watch at that time.")]
    alerts: Annotated[list[WebhookAlert], Meta(description="Most unusual first.")]


class WebhookOperational(msgspec.Struct, frozen=True):
    """A trouble of the watch itself."""

    trouble: Trouble
    phase: Phase
    start_ms: _Milliseconds
    text: str
    duration_s: Annotated[float | None, Meta(description="Null at the start of a trouble.")]
    repaired_minutes: Annotated[int | None, Meta(description="Summed over contracts; null where none could be lost.")]
    unknown_minutes: Annotated[int | None, Meta(description="Summed over contracts; null where none could be lost.")]


class WebhookNotice(msgspec.Struct, frozen=True):
    """One thing told. What it is about is the field that is not null."""

    key: Annotated[str, Meta(description="Names it for ever. The same key is the same news.")]
    thread: Annotated[str, Meta(description="The key of the first notice about the same thing.")]
    kind: NoticeKind
    time_ms: _Milliseconds
    level: Level
    rule: Annotated[str, Meta(description="Empty where no rule is behind it.")]
    symbol: Annotated[str, Meta(description="Empty when it is about no single symbol.")]
    asset_class: AssetClass | None
    is_pinned: bool
    alert: WebhookAlert | None
    development: Annotated[WebhookDevelopment | None, Meta(description="Stands beside the alert it goes on from.")]
    market: WebhookMarket | None
    operational: WebhookOperational | None


class WebhookMessage(msgspec.Struct, frozen=True):
    """The body of a request."""

    version: Annotated[Literal[1], Meta(description="Of this document; fields may be added within a version.")]
    id: Annotated[str, Meta(description="A repeated delivery has the same id, here and in Idempotency-Key.")]
    follows: Annotated[
        str | None,
        Meta(description="The id of the earlier message that this one takes the place of; null for a new one."),
    ]
    title: str
    lines: Annotated[list[str], Meta(description="The reasons in words, most important first.")]
    footer: Annotated[str, Meta(description="Trust in the data, latency.")]
    url: Annotated[str, Meta(description="The symbol's page at the exchange; may be empty.")]
    notices: Annotated[list[WebhookNotice], Meta(description="What it tells; several when it is a digest.")]


def webhook_message(card: Card, notices: Sequence[Notice], follows: str | None = None) -> WebhookMessage:
    """What is sent for a card and the notices that it tells."""
    return WebhookMessage(
        version=VERSION,
        id=message_key(notices),
        follows=follows,
        title=card.title,
        lines=list(card.lines),
        footer=card.footer,
        url=card.url,
        notices=[_notice(one) for one in notices],
    )


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of a message."""
    (reference,), definitions = msgspec.json.schema_components([WebhookMessage])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:perpwatch:webhook:{VERSION}",
        **reference,
        "$defs": definitions,
    }


def schema_text() -> str:
    """The schema as it is published: ``docs/webhook.schema.json``."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


def _notice(one: Notice) -> WebhookNotice:
    return WebhookNotice(
        key=one.key,
        thread=one.thread,
        kind=one.kind,
        time_ms=one.time_ms,
        level=one.level,
        rule=one.rule,
        symbol=one.symbol,
        asset_class=one.asset_class,
        is_pinned=one.is_pinned,
        alert=None if one.alert is None else _alert(one.alert),
        development=None if one.development is None else _development(one.development),
        market=None if one.market is None else _market(one.market),
        operational=None if one.operational is None else _operational(one.operational),
    )


def _alert(one: Alert) -> WebhookAlert:
    signal: Signal = one.signal
    return WebhookAlert(
        key=one.key,
        symbol=one.symbol,
        rule=one.rule,
        detector=signal.detector,
        timeframe=signal.timeframe,
        open_time_ms=signal.open_time_ms,
        time_ms=one.time_ms,
        direction=signal.direction,
        level=signal.level,
        price=_finite(signal.price),
        trust=signal.trust,
        is_running=signal.is_running,
        escalation=one.escalation,
        episode_start_ms=one.episode_start_ms,
        reasons=[_reason(reason) for reason in signal.reasons],
        tags=[tag.detector for tag in one.tags],
    )


def _reason(one: Reason) -> WebhookReason:
    return WebhookReason(one.name, _finite(one.value), one.unit, one.text)


def _development(one: Development) -> WebhookDevelopment:
    return WebhookDevelopment(
        time_ms=one.time_ms,
        price=_finite(one.price),
        change=_finite(one.change),
        best=_finite(one.best),
        peak_ratio=_finite(one.peak_ratio),
        is_over=one.is_over,
        outcome=None if one.outcome is None else _outcome(one.outcome),
    )


def _outcome(one: Outcome) -> WebhookOutcome:
    return WebhookOutcome(one.is_hit, [_excursion(excursion) for excursion in one.after])


def _excursion(one: Excursion) -> WebhookExcursion:
    return WebhookExcursion(one.minutes, _finite(one.forward), _finite(one.best), _finite(one.worst))


def _market(one: MarketAlert) -> WebhookMarket:
    return WebhookMarket(one.minute_ms, one.watched, [_alert(alert) for alert in one.alerts])


def _operational(one: OperationalAlert) -> WebhookOperational:
    return WebhookOperational(
        trouble=one.trouble,
        phase=one.phase,
        start_ms=one.start_ms,
        text=one.text,
        duration_s=one.duration_s,
        repaired_minutes=one.repaired_minutes,
        unknown_minutes=one.unknown_minutes,
    )


def _finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None
