"""What the API says, field by field; its OpenAPI document is made from these."""

from __future__ import annotations

import enum

import msgspec

from perpwatch.alert.outcomes import Excursion, Outcome
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.api_market import MarketRow
from perpwatch.app.freshness import Freshness
from perpwatch.app.health import Health
from perpwatch.app.usual import UsualTurnover
from perpwatch.model import AssetClass, Candle, Contract, Direction, Signal, Timeframe, Trust
from perpwatch.store import Delivery, DeliveryState


class ServedBy(enum.StrEnum):
    """How a contract's candles come."""

    WEBSOCKET = "websocket"
    REST = "rest"  # no room on the sockets, refused there, or taken over while the stream is down


class SymbolRow(MarketRow, frozen=True, array_like=False, gc=False, kw_only=True):
    """A contract as the market table has it, with names, and more of what is known of it."""

    served_by: ServedBy
    open_interest: float | None  # contracts
    open_interest_value: float | None  # quote coin
    is_muted: bool
    is_pinned: bool


class SymbolPage(msgspec.Struct, frozen=True):
    time_ms: int  # exchange time of the rows; 0 before the first word of the exchange
    total: int  # contracts that match, of which this page shows some
    rows: list[SymbolRow]


class SymbolDetail(msgspec.Struct, frozen=True):
    row: SymbolRow
    contract: Contract
    is_muted: bool
    is_pinned: bool
    source: str  # the connection that streams its candles; empty for none
    age_s: float | None  # since the moment up to which everything about it is known
    exchange_url: str  # the contract's page at the exchange


class Candles(msgspec.Struct, frozen=True):
    symbol: str
    timeframe: Timeframe
    candles: list[Candle]  # oldest first; the last one may be open
    usual: list[UsualTurnover | None]  # for each candle, from those before it; null where too few are known


class MinuteTrades(msgspec.Struct, frozen=True):
    open_time_ms: int
    trades: int
    rush_orders: int
    buy_share: float  # of the contracts traded, by takers


class TradesFlow(msgspec.Struct, frozen=True):
    symbol: str
    is_known: bool  # trades of the contract are subscribed
    minutes: list[MinuteTrades]  # oldest first


class ConnectionRecord(msgspec.Struct, frozen=True):
    source: str
    state: str
    confirmed: int  # streams
    wanted: int
    rate: float  # data frames a second, of late
    expected_rate: float
    data_frames: int
    bad_frames: int
    reconnects: int
    refusals: int
    lag_ms: float  # mean of its frames above the quickest
    data_age_s: float | None
    retry_in_s: float | None
    last_error: str | None


class RestRecord(msgspec.Struct, frozen=True):
    requests: int  # since start
    failures: int
    rate_limited: int
    waiting: int
    rate: float  # allowed a second
    breakers: dict[str, str]  # state by endpoint


class Status(msgspec.Struct, frozen=True):
    """The watch at one moment."""

    run: str  # names this run of the program
    title: str  # what is watched
    line: str
    time_ms: int  # exchange time
    started_ms: int
    signals: int
    alerts: int
    stream_clients: int
    stream_clients_dropped: int
    health: Health


class TrustCount(msgspec.Struct, frozen=True):
    minutes: int
    counts: dict[Trust, int]  # contracts times minutes


class ClassCoverage(msgspec.Struct, frozen=True):
    asset_class: AssetClass
    watched: int
    covered: int


class Coverage(msgspec.Struct, frozen=True):
    mode: str  # of the feed: websocket, rest, dual
    watched: int
    covered: int  # their candles are known good at this moment
    polled: int  # by REST
    polled_why: dict[str, int]  # how many of them for which reason
    warm: int
    classes: list[ClassCoverage]  # the largest first
    ages: Freshness  # how old what is known is
    missing: dict[str, str]  # why minutes of a contract are missing just now
    trust: TrustCount  # of the last hour


class LedgerRow(msgspec.Struct, frozen=True):
    symbol: str
    codes: str  # a digit a minute, oldest first: see ``legend``


class LedgerPage(msgspec.Struct, frozen=True):
    start_ms: int
    minutes: int
    legend: dict[str, Trust]
    rows: list[LedgerRow]


class DeliveryRecord(msgspec.Struct, frozen=True):
    """How far a notice has come on one channel."""

    key: str  # of the notice; an alert's own
    channel: str
    kind: str
    time_ms: int  # at which it was decided
    symbol: str  # empty for none
    rule: str
    state: DeliveryState
    why: str  # suppressed or failed, or what the last attempt ended with
    attempts: int
    sent_ms: int | None  # when it was acknowledged, by our wall clock
    latency_ms: int | None  # from the signal to the acknowledgement

    @classmethod
    def of(cls, one: Delivery) -> DeliveryRecord:
        return cls(
            key=one.key,
            channel=one.channel,
            kind=one.kind,
            time_ms=one.time_ms,
            symbol=one.symbol,
            rule=one.rule,
            state=one.state,
            why=one.why,
            attempts=one.attempts,
            sent_ms=one.sent_ms or None,
            latency_ms=one.latency_ms,
        )


class AlertRecord(msgspec.Struct, frozen=True):
    """An alert of one contract (``alert``) or of the whole market (``market``)."""

    key: str
    time_ms: int
    rule: str
    symbol: str  # empty for the whole market
    text: str
    alert: Alert | None = None
    market: MarketAlert | None = None
    deliveries: list[DeliveryRecord] | None = None  # on each channel; null on the live stream and where nothing is kept


class OutcomeRecord(msgspec.Struct, frozen=True):
    key: str  # of the alert
    rule: str
    symbol: str
    time_ms: int
    direction: Direction
    price: float
    is_hit: bool | None  # the price went on within an hour; null where that is not known
    after: tuple[Excursion, ...]

    @classmethod
    def of(cls, one: Outcome) -> OutcomeRecord:
        return cls(one.key, one.rule, one.symbol, one.time_ms, one.direction, one.price, one.is_hit, one.after)


class Setting(msgspec.Struct, frozen=True):
    """A number of a rule that can be tried and changed."""

    condition: int  # which of the rule's conditions, from 0
    name: str
    value: float


class RuleRecord(msgspec.Struct, frozen=True):
    name: str
    text: str
    is_tag: bool
    is_paused: bool
    signals_today: int  # UTC; with a store also before this run of the program
    alerts_today: int
    suppressed_today: int
    budget: str  # in words
    alerts_per_day: float | None
    hit_rate: float | None  # of the last 30 days
    judged: int  # alerts behind it
    settings: list[Setting]


class RuleTrial(msgspec.Struct, frozen=True):
    """What a changed rule would have told in the past that is kept."""

    rule: str
    days: float
    alerts: int
    told: int  # after alerts of one minute are merged
    per_day: float


class RuleChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    condition: int
    name: str
    value: float


class Done(msgspec.Struct, frozen=True):
    """An action was carried out."""

    text: str


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str


class StreamEvent(msgspec.Struct, frozen=True):
    """One message of the live stream."""

    id: str  # give it as ``last_id`` to go on from here
    type: str  # signal, alert
    time_ms: int
    signal: Signal | None = None
    alert: AlertRecord | None = None
