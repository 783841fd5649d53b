"""The words all packages share: what they mean and in which units.

Times
    ``*_time_ms`` is the exchange's clock, ``received_time_ns`` is ours; they never stand in for each other.
    ``open_time_ms`` names a candle. All are UTC since the epoch.
Prices and volumes
    float64, because we rank and compare and do not account. Volume exists in three units with three names:
    ``contracts``, ``base_volume`` (base coin) and ``turnover`` (quote coin). An ``amount`` is the exchange's own
    turnover figure in the *settle* coin, which is the quote coin except on coin-margined contracts.
Values are frozen. An adapter may subclass them to name the exchange's spelling of each field, so that a frame
is decoded straight into the word the rest of the program uses and nothing is copied on the hot path.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Self

import msgspec

MINUTE_MS = 60_000


class Timeframe(enum.StrEnum):
    """The length of a candle, in the exchange's own words."""

    _value_: str
    minutes: int  # a month counts as 30 days (only the exchange knows its real end)
    milliseconds: int

    def __new__(cls, name: str, minutes: int = 0) -> Self:
        timeframe = str.__new__(cls, name)
        timeframe._value_ = name
        timeframe.minutes, timeframe.milliseconds = minutes, minutes * MINUTE_MS
        return timeframe

    Min1 = "Min1", 1
    Min5 = "Min5", 5
    Min15 = "Min15", 15
    Min30 = "Min30", 30
    Min60 = "Min60", 60
    Hour4 = "Hour4", 240
    Hour8 = "Hour8", 480
    Day1 = "Day1", 1440
    Week1 = "Week1", 10_080
    Month1 = "Month1", 43_200


#: The timeframes that are analysed; all are rolled up from Min1.
ANALYSED_TIMEFRAMES = (Timeframe.Min1, Timeframe.Min5, Timeframe.Min15, Timeframe.Min60)


class Side(enum.IntEnum):
    """The taker's side of a trade."""

    BUY = 1
    SELL = 2


class Direction(enum.StrEnum):
    UP = "up"
    DOWN = "down"
    FLAT = "flat"


class Level(enum.StrEnum):
    """How unusual a signal is, in rising order."""

    NOTICE = "notice"
    STRONG = "strong"
    EXTREME = "extreme"

    @property
    def rank(self) -> int:
        """0 for the least: as texts they do not sort."""
        return _LEVELS.index(self)


_LEVELS = tuple(Level)


class Finality(enum.StrEnum):
    """How a candle became final."""

    OPEN = "open"  # still running
    SUCCESSOR = "successor"  # a later candle of the same stream arrived
    CLOCK = "clock"  # its time passed on the exchange's clock while the feed was known good
    REST = "rest"  # read back from the exchange's history


class Trust(enum.StrEnum):
    """What is known about one (symbol, minute)."""

    STREAMED = "streamed"  # final from the socket
    VERIFIED = "verified"  # REST agrees
    REPAIRED = "repaired"  # came from REST after a gap
    QUIET = "quiet"  # no trade, and an independent witness says so
    UNKNOWN = "unknown"  # nobody can say


class AssetClass(enum.StrEnum):
    """What a contract's price follows; all but coins keep an outside market's hours, with silences and jumps."""

    COIN = "coin"
    STOCK = "stock"  # tokenised shares and funds
    INDEX = "index"  # of shares
    METAL = "metal"
    COMMODITY = "commodity"  # energy, grain ...
    FX = "fx"
    OTHER = "other"  # something outside, and the exchange does not say what


class Kind(enum.StrEnum):
    """What a stream carries. ``TICKERS`` is the whole market in one stream, ``CANDLES`` needs a timeframe."""

    TICKERS = "tickers"
    TICKER = "ticker"
    CANDLES = "kline"
    TRADES = "deals"
    DEPTH = "depth"
    DEPTH_FULL = "depth_full"
    DEPTH_STEP = "depth_step"
    FUNDING_RATE = "funding_rate"
    INDEX_PRICE = "index_price"
    FAIR_PRICE = "fair_price"
    CONTRACTS = "contract"
    EVENT_CONTRACTS = "event_contract"


class Stream(msgspec.Struct, frozen=True, order=True, gc=False):
    """One thing an exchange can push: a kind of data, for one symbol unless it covers the market.

    ``parameter`` is whatever else the exchange wants to know: a timeframe for candles, a limit or step for books.
    """

    kind: Kind
    symbol: str = ""
    parameter: str = ""

    def __str__(self) -> str:
        name = f"{self.kind}_{self.parameter}" if self.parameter else str(self.kind)
        return f"{name}:{self.symbol}" if self.symbol else name


class Contract(msgspec.Struct, frozen=True, gc=False):
    """A perpetual contract, as the exchange lists it."""

    symbol: str
    base_coin: str
    quote_coin: str
    settle_coin: str
    contract_size: float  # base coin per contract; quote coin per contract when coin-margined
    price_unit: float = 0.0  # smallest price step, quote coin
    price_scale: int = 8  # decimals of a price
    is_trading: bool = True  # enabled on the exchange; false while paused, in delivery or offline
    is_hidden: bool = False
    opening_time_ms: int = 0  # 0 for old contracts; in the future when trading has not begun
    zones: tuple[str, ...] = ()  # the exchange's own grouping: pow, layer2, contract-new ...
    display_name: str = ""
    asset_class: AssetClass = AssetClass.COIN
    multiplier: int = 1  # coins in one unit of the name: 1000 in 1000BONK

    @property
    def is_coin_margined(self) -> bool:
        """Settled in the base coin, so that amounts are in base coin and contracts are worth quote coin."""
        return self.settle_coin != self.quote_coin

    @property
    def classes(self) -> tuple[str, ...]:
        """What it may be called in a rule: its class, and the exchange's zones."""
        return (self.asset_class.value, *self.zones)

    def turnover(self, contracts: float, amount: float) -> float:
        """Quote coin traded, from the exchange's contracts and amount (settle coin)."""
        return contracts * self.contract_size if self.is_coin_margined else amount

    def base_volume(self, contracts: float, amount: float) -> float:
        """Base coin traded, from the exchange's contracts and amount (settle coin)."""
        return amount if self.is_coin_margined else contracts * self.contract_size

    def notional(self, contracts: float, price: float) -> float:
        """Quote coin that ``contracts`` at ``price`` are worth."""
        return contracts * self.contract_size * (1.0 if self.is_coin_margined else price)


class Ticker(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The state of one contract. Fields the source does not carry are None.

    Those that a row of the whole market has come in the order of its wire, which the decoder looks for first; hence
    they are given by name only.
    """

    amount_24h: float | None = None  # settle coin
    fair_price: float | None = None
    high_24h: float | None = None
    index_price: float | None = None
    last_price: float
    low_24h: float | None = None
    change_24h: float | None = None  # fraction
    symbol: str
    event_time_ms: int = 0
    contracts_24h: float | None = None
    best_bid: float | None = None
    best_ask: float | None = None
    open_interest: float | None = None  # contracts
    funding_rate: float | None = None  # fraction per settlement


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One execution. Its symbol stands on the ``Trades`` that carries it."""

    price: float
    contracts: float
    side: Side
    event_time_ms: int
    trade_id: str | int | None = None  # unique per symbol when the exchange gives one


class RunningCandle(msgspec.Struct, frozen=True, gc=False):
    """The whole of a candle so far, as pushed: each one replaces the one before, none is a delta.

    Open is stitched to the previous close where the exchange does so; the ``real_*`` prices come from trades of
    this candle alone. Its open time is kept in seconds because candles open on whole seconds and nothing is
    converted on the hot path.
    """

    symbol: str
    timeframe: Timeframe
    open_time_s: int
    open: float
    high: float
    low: float
    close: float
    contracts: float
    amount: float  # settle coin
    real_open: float | None = None
    real_high: float | None = None
    real_low: float | None = None
    real_close: float | None = None


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One candle, finished unless ``finality`` says it is still open.

    ``missing_minutes`` counts the minutes inside it about which nothing is known: 0 for a candle one can trust.
    ``is_synthetic`` marks a minute without trades, drawn flat at the previous close.
    """

    symbol: str
    timeframe: Timeframe
    open_time_ms: int
    open: float
    high: float
    low: float
    close: float
    contracts: float
    base_volume: float
    turnover: float  # quote coin
    finality: Finality
    trust: Trust
    real_open: float | None = None
    real_high: float | None = None
    real_low: float | None = None
    real_close: float | None = None
    is_synthetic: bool = False
    missing_minutes: int = 0

    @property
    def close_time_ms(self) -> int:
        """The first millisecond that no longer belongs to the candle."""
        return self.open_time_ms + self.timeframe.milliseconds


class DepthLevel(msgspec.Struct, frozen=True, array_like=True, gc=False):
    price: float
    contracts: float
    orders: int = 0


# --- Events: what a feed yields -----------------------------------------------------------------------------------


class CandleUpdate(msgspec.Struct, frozen=True, gc=False):
    """A running candle was pushed."""

    candle: RunningCandle
    event_time_ms: int


class Tickers(msgspec.Struct, frozen=True, gc=False):
    """Rows of one or many contracts. A missing row means *unchanged*, never *gone*."""

    tickers: Sequence[Ticker]
    event_time_ms: int
    unreadable_rows: int = 0  # left out because they made no sense; the rest of the market is worth keeping


class ContractTicker(Tickers, frozen=True, gc=False):
    """The row of one contract, from a stream of its own: it says nothing about any other."""


class Trades(msgspec.Struct, frozen=True, gc=False):
    """Executions of one symbol, oldest first."""

    symbol: str
    trades: Sequence[Trade]
    event_time_ms: int


class Depth(msgspec.Struct, frozen=True, gc=False):
    """Changes or a full picture of an order book, as ``kind`` says; unsorted, 0 contracts removes a level."""

    kind: Kind
    symbol: str
    asks: Sequence[DepthLevel]
    bids: Sequence[DepthLevel]
    version: int
    first_version: int  # of the merged changes; equal to ``version`` when not merged
    event_time_ms: int


class FundingRate(msgspec.Struct, frozen=True, gc=False):
    symbol: str
    rate: float  # fraction per settlement
    next_settlement_time_ms: int
    event_time_ms: int


class ReferencePrice(msgspec.Struct, frozen=True, gc=False):
    """The index price (other venues) or fair price (mark) of a contract, as ``kind`` says."""

    kind: Kind
    symbol: str
    price: float
    event_time_ms: int


class ContractUpdate(msgspec.Struct, frozen=True, gc=False):
    """A contract was listed, delisted or changed."""

    contract: Contract
    event_time_ms: int


class EventContractUpdate(msgspec.Struct, frozen=True, gc=False):
    """A short-term event future was announced; carried for completeness, not analysed."""

    symbol: str
    contract_id: str
    event_time_ms: int


class StreamUp(msgspec.Struct, frozen=True, gc=False):
    """``source`` delivers ``stream`` from this exchange time on."""

    stream: Stream
    source: str
    event_time_ms: int


class Gap(msgspec.Struct, frozen=True, gc=False):
    """``stream`` may have lost data between two exchange times.

    ``end_time_ms`` is None while the stream is still down; the ``StreamUp`` that follows ends it.
    """

    stream: Stream
    source: str
    start_time_ms: int
    end_time_ms: int | None
    reason: str


class CandleHistory(msgspec.Struct, frozen=True, gc=False):
    """Candles of one symbol read back by REST, oldest first.

    ``complete_from_ms`` (inclusive) to ``complete_to_ms`` (exclusive) is the window the answer speaks for: a minute
    inside it without a row had no trade.

    ``is_inferred`` when it was not read: an earlier answer, with the word of the whole-market ticker that nothing was
    traded since.
    """

    symbol: str
    candles: Sequence[Candle]
    complete_from_ms: int
    complete_to_ms: int
    is_inferred: bool = False


Event = (
    CandleUpdate
    | Tickers
    | Trades
    | Depth
    | FundingRate
    | ReferencePrice
    | ContractUpdate
    | EventContractUpdate
    | StreamUp
    | Gap
    | CandleHistory
)


class ByKind(dict[type, type | None]):
    """The word of this module that a class is or derives from; None where it is none of ``words``.

    For the places that look at every message: ``isinstance`` with structs costs three times as much.
    """

    def __init__(self, *words: type) -> None:
        super().__init__()
        self._words = words

    def __missing__(self, kind: type) -> type | None:
        self[kind] = word = next((one for one in kind.__mro__ if one in self._words), None)
        return word


class Batch(msgspec.Struct, frozen=True, gc=False):
    """What one source delivered in one read, in order.

    ``watermark_ms`` is the exchange time up to which the source has delivered everything it sent; 0 where the source
    cannot say. Candles are closed by it, so that no local clock decides what is final.

    ``frames`` stand beside the events, each as the exchange sent it; empty where the feed itself speaks, and none after
    the last event that came in a frame. ``asides`` are the frames of the read that carry no data or no meaning.
    """

    source: str
    received_time_ns: int
    watermark_ms: int
    events: Sequence[Event]
    frames: Sequence[bytes] = ()
    asides: Sequence[bytes] = ()

    def histories(self) -> list[CandleHistory]:
        """The histories among the events; they are made by us, so that no adapter has a class of its own for them."""
        # Not isinstance: with structs that is a fiftieth of what the whole program spends on an event.
        return [event for event in self.events if type(event) is CandleHistory]


# --- What is found and told ----------------------------------------------------------------------------------------


class Reason(msgspec.Struct, frozen=True, gc=False):
    """One number behind a signal, so that a person can check it by hand."""

    name: str  # turnover_ratio, turnover, mean_turnover ...
    value: float
    unit: str  # "x", "USDT", "%", "candles"
    text: str = ""  # the same in words


class Signal(msgspec.Struct, frozen=True, gc=False):
    """A detector saw something unusual in one candle of one symbol."""

    detector: str
    symbol: str
    timeframe: Timeframe
    open_time_ms: int  # names the candle
    direction: Direction
    level: Level
    price: float
    strength: float  # what a later signal of the same candle must exceed to be worth telling; detector's own unit
    is_running: bool  # the candle was still open
    trust: Trust  # of the data under the signal
    reasons: tuple[Reason, ...]  # most important first
    event_time_ms: int
    received_time_ns: int
    is_learning: bool = False  # history was too short for the detector's normal test
    rule: str = ""  # the rule that asked for it; empty while only the detector has spoken


def stream_of_candles(symbol: str, timeframe: Timeframe = Timeframe.Min1) -> Stream:
    return Stream(Kind.CANDLES, symbol, timeframe.value)
