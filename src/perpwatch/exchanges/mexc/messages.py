"""Every public message of MEXC Futures, typed, with a captured payload beside its meaning.

The wire struct *is* the event where it can be: a struct that subclasses a word of :mod:`perpwatch.model` and redeclares
its fields with the wire's names decodes straight into that word, and nothing is copied. Where the wire is shaped
differently, :mod:`.normalize` builds the event. Encoding a push gives its wire form back.

What a number may be is part of its type, so that the decoder checks it in C: times lie between 2015 and 2100 (which
tells seconds from milliseconds), sizes and prices are not negative, and no number is infinite (JSON has no word for it
and the decoder refuses 1e999).
"""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from perpwatch.model import (
    CandleUpdate,
    DepthLevel,
    FundingRate,
    RunningCandle,
    Side,
    Ticker,
    Tickers,
    Timeframe,
    Trade,
    Trades,
)

T = TypeVar("T")

EARLIEST_S = 1_420_070_400  # 2015-01-01; the exchange's contracts are younger
LATEST_S = 4_102_444_800  # 2100-01-01

Symbol = Annotated[str, Meta(min_length=1, max_length=64)]
TimeMs = Annotated[int, Meta(ge=EARLIEST_S * 1000, lt=LATEST_S * 1000)]
#: Every candle opens on a whole minute; anything else would end up in two buckets.
OpenTimeS = Annotated[int, Meta(ge=EARLIEST_S, lt=LATEST_S, multiple_of=60)]
#: A moment that may be 0 (not known) or lie in the future.
OptionalTimeMs = Annotated[int, Meta(ge=0, lt=LATEST_S * 1000)]
Price = Annotated[float, Meta(ge=0)]
Size = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


# --- WebSocket pushes that are model words as they stand -----------------------------------------------------------


# {"symbol":"BTC_USDT","interval":"Min1","t":1770330480,"o":63104.8,"c":63519.9,"h":63522.3,"l":63104.8,
#  "a":9033395.19463,"q":1425571,"ro":63123.3,"rc":63519.9,"rh":63522.3,"rl":63120.8}
class Kline(RunningCandle, frozen=True, gc=False, omit_defaults=True):
    """The bar so far. ``t`` is in *seconds*; ``o`` is the previous close; ``ro rh rl rc`` are from real trades.

    ``q`` is contracts; ``a`` is turnover in the settle coin. The documented ``v`` has never been seen, and the oldest
    documentation has no ``r*`` fields.
    """

    symbol: Symbol
    timeframe: Timeframe = field(name="interval")
    open_time_s: OpenTimeS = field(name="t")
    open: Price = field(name="o")
    high: Price = field(name="h")
    low: Price = field(name="l")
    close: Price = field(name="c")
    contracts: Size = field(name="q")
    amount: Size = field(name="a")
    real_open: Price | None = field(default=None, name="ro")
    real_high: Price | None = field(default=None, name="rh")
    real_low: Price | None = field(default=None, name="rl")
    real_close: Price | None = field(default=None, name="rc")


# {"symbol":"BTC_USDT","data":{...Kline...},"channel":"push.kline","ts":1770330514053}
class PushKline(CandleUpdate, frozen=True, gc=False, omit_defaults=True, tag_field="channel", tag="push.kline"):
    """A running candle; sent with trades only, so a quiet contract is silent."""

    candle: Kline = field(name="data")
    event_time_ms: TimeMs = field(default=0, name="ts")


# {"amount24":157589.74,"contractId":1156,"fairPrice":0.04116,"high24Price":0.04297,"indexPrice":0.04119,
#  "lastPrice":0.04114,"lower24Price":0.04068,"maxBidPrice":0.04942,"minAskPrice":0.03295,"riseFallRate":-0.0292,
#  "symbol":"WCT_USDT","timestamp":1790870034312,"volume24":376505}
class TickerRow(Ticker, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One contract's state. ``volume24`` is contracts, ``amount24`` the settle coin, ``riseFallRate`` a fraction.

    ``maxBidPrice`` and ``minAskPrice`` are the band for orders, *not* best bid and ask, and are left out. Best bid
    and ask, open interest and funding come with ``push.ticker`` and REST only. Ghost rows have ``lastPrice`` 0.
    """

    amount_24h: float | None = field(default=None, name="amount24")
    fair_price: float | None = field(default=None, name="fairPrice")
    high_24h: float | None = field(default=None, name="high24Price")
    index_price: float | None = field(default=None, name="indexPrice")
    last_price: Price = field(name="lastPrice")
    low_24h: float | None = field(default=None, name="lower24Price")
    change_24h: float | None = field(default=None, name="riseFallRate")
    symbol: Symbol
    event_time_ms: OptionalTimeMs = field(default=0, name="timestamp")
    contracts_24h: float | None = field(default=None, name="volume24")
    best_bid: float | None = field(default=None, name="bid1")
    best_ask: float | None = field(default=None, name="ask1")
    open_interest: float | None = field(default=None, name="holdVol")
    funding_rate: float | None = field(default=None, name="fundingRate")


# {"channel":"push.tickers","data":[{...TickerRow...}],"ts":1790870034312}
class PushTickers(Tickers, frozen=True, gc=False, omit_defaults=True, tag_field="channel", tag="push.tickers"):
    """The whole market: all rows in the first frame, then the changed ones, about every 2 s."""

    tickers: tuple[TickerRow, ...] = field(name="data")
    event_time_ms: TimeMs = field(default=0, name="ts")


# {"p":84062.6,"v":13,"T":1,"O":3,"M":1,"t":1790870038339,"i":"16435741160","cts":"1790870038339"}
class Deal(Trade, frozen=True, gc=False, omit_defaults=True):
    """One execution: ``v`` contracts at ``p``; ``T`` is the taker's side (1 bought, 2 sold).

    ``i`` is a string although documented as a number, and was absent before late 2025. ``cts`` (a string, absent
    before 2026) repeats ``t`` in all captures and is left out.
    """

    price: Price = field(name="p")
    contracts: Size = field(name="v")
    side: Side = field(name="T")
    event_time_ms: TimeMs = field(name="t")
    trade_id: str | int | None = field(default=None, name="i")


# {"symbol":"BTC_USDT","data":[{...Deal...}],"channel":"push.deal","ts":1790870038339}
# Until August 2025 data was one object instead of an array; the codec reads that as an array of one.
class PushDeal(Trades, frozen=True, gc=False, omit_defaults=True, tag_field="channel", tag="push.deal"):
    """Executions, oldest first; several in one frame when merged."""

    symbol: Symbol
    trades: tuple[Deal, ...] = field(name="data")
    event_time_ms: TimeMs = field(default=0, name="ts")


# --- WebSocket pushes that are normalized --------------------------------------------------------------------------


# {"symbol":"BTC_USDT","data":{"symbol":"BTC_USDT","lastPrice":84055,...,"bid1":84054.9,"ask1":84055,
#  "holdVol":546882118,"fundingRate":0.000072,"zone":"UTC+8","riseFallRates":[...]},"channel":"push.ticker",
#  "ts":1790870036854}
class PushTicker(Struct, frozen=True, gc=False, tag_field="channel", tag="push.ticker"):
    """One contract, about once a second while it trades, with best bid and ask, open interest and funding."""

    data: TickerRow
    ts: TimeMs = 0


class Level(DepthLevel, frozen=True, array_like=True, gc=False):
    """``[price, contracts, orders]``; ``[price, 0, 0]`` deletes the level."""

    price: Price
    contracts: Size
    orders: Count = 0


# merged:   {"cts":1789498405579,"asks":[[1235.06,606,1]],"bids":[[1233.04,0,0]],"end":1111084807,
#            "begin":1111084806,"version":1111084807}
# unmerged: {"cts":1789498321765,"asks":[[2384.59,42,1]],"bids":[],"version":37723308980}
class Book(Struct, frozen=True, gc=False):
    """Changes of a book or a picture of it; ``begin`` and ``end`` only where changes were merged."""

    asks: tuple[Level, ...]
    bids: tuple[Level, ...]
    version: Count
    begin: Count | None = None
    end: Count | None = None


# {"symbol":"ETH_USDT","data":{...Book...},"channel":"push.depth","ts":1789498321801}
class PushDepth(Struct, frozen=True, gc=False, tag_field="channel", tag="push.depth"):
    """Changes of a book; no snapshot is ever pushed."""

    symbol: Symbol
    data: Book
    ts: TimeMs = 0


# {"symbol":"RIF_USDT","data":{"cts":1789498322165,"asks":[[0.080550,48,1]],"bids":[[0.080490,46,1]],
#  "version":5220571685},"channel":"push.depth.full","ts":1789498322169}
class PushDepthFull(Struct, frozen=True, gc=False, tag_field="channel", tag="push.depth.full"):
    """The best 5, 10 or 20 levels of each side, best first."""

    symbol: Symbol
    data: Book
    ts: TimeMs = 0


# {"askMarketLevelPrice":111089.4,"asks":[[111090,398676,26]],"bidMarketLevelPrice":111085.5,
#  "bids":[[111080,461204,35]],"ct":1760950364388,"version":27883254360}
class SteppedBook(Struct, frozen=True, gc=False):
    """Levels grouped by a price step; versions skip. ``ct`` is the exchange's time of the picture."""

    asks: tuple[Level, ...]
    bids: tuple[Level, ...]
    version: Count
    ct: TimeMs | None = None


# {"channel":"push.depth.step","data":{...SteppedBook...},"symbol":"BTC_USDT"}   (documented without ts)
class PushDepthStep(Struct, frozen=True, gc=False, tag_field="channel", tag="push.depth.step"):
    symbol: Symbol
    data: SteppedBook
    ts: TimeMs = 0


# {"symbol":"BTC_USDT","rate":0.000081,"nextSettleTime":1789516800000}
class Funding(Struct, frozen=True, gc=False, rename="camel"):
    """Old documentation prints no ``nextSettleTime`` and, in its table, ``fundingRate`` for ``rate``."""

    symbol: Symbol
    rate: float | None = None
    funding_rate: float | None = None
    next_settle_time: OptionalTimeMs = 0


# {"symbol":"BTC_USDT","data":{...Funding...},"channel":"push.funding.rate","ts":1789498561049}
class PushFundingRate(Struct, frozen=True, gc=False, tag_field="channel", tag="push.funding.rate"):
    """About once a minute."""

    data: Funding
    ts: TimeMs = 0


# {"symbol":"BTC_USDT","price":76027.1}
class PriceOfSymbol(Struct, frozen=True, gc=False):
    symbol: Symbol
    price: Price


# {"symbol":"BTC_USDT","data":{...PriceOfSymbol...},"channel":"push.index.price","ts":1789498540911}
class PushIndexPrice(Struct, frozen=True, gc=False, tag_field="channel", tag="push.index.price"):
    data: PriceOfSymbol
    ts: TimeMs = 0


# {"symbol":"BTC_USDT","data":{...PriceOfSymbol...},"channel":"push.fair.price","ts":1789498540821}
class PushFairPrice(Struct, frozen=True, gc=False, tag_field="channel", tag="push.fair.price"):
    data: PriceOfSymbol
    ts: TimeMs = 0


# {"symbol":"BTC_USDT","baseCoin":"BTC","quoteCoin":"USDT","settleCoin":"USDT","contractSize":0.0001,"priceUnit":0.1,
#  "priceScale":1,"state":0,"isHidden":false,"openingTime":0,"displayNameEn":"BTC_USDT PERPETUAL",
#  "conceptPlate":["mc-trade-zone-pow","mc-trade-zone-layer2"], ... some seventy more}
class ContractRecord(Struct, frozen=True, gc=False, rename="camel"):
    """One contract, the same from the socket and from REST.

    ``state``: 0 enabled, 1 delivery, 2 delivered, 3 offline, 4 paused. ``contractSize`` is base coin per contract, or
    quote coin when the settle coin is not the quote coin. ``apiAllowed`` is about orders (false even for BTC_USDT) and
    ``type`` does not tell perpetuals apart, so neither is read. What changes the meaning of numbers must be there;
    where it is null the contract is kept as not trading: one odd record must not hide a thousand good ones.
    """

    symbol: Symbol
    base_coin: str | None
    quote_coin: str | None
    settle_coin: str | None
    contract_size: Size | None
    state: int | None
    price_unit: float | None = None
    price_scale: int | None = None
    is_hidden: bool | None = None
    opening_time: int | None = None
    concept_plate: tuple[str, ...] | None = None
    display_name_en: str | None = None


# {"channel":"push.contract","data":{...ContractRecord...},"symbol":"CLO_USDT","ts":1760942212002}
class PushContract(Struct, frozen=True, gc=False, tag_field="channel", tag="push.contract"):
    """Something about a contract changed: listed, paused, delisted, other fees or limits."""

    data: ContractRecord
    ts: TimeMs = 0


# {"contractId":"123","symbol":"BTC_USDT","baseCoin":"BTC","quoteCoin":"USDT","settleCoin":"USDT",
#  "investMinAmount":10.0,"investMaxAmount":1000.0,"payRateScale":6, ...}            (documented; no capture exists)
class EventContractRecord(Struct, frozen=True, gc=False, rename={"contract_id": "contractId"}):
    symbol: Symbol
    contract_id: str | int


# {"channel":"push.event.contract","data":{...EventContractRecord...},"symbol":"BTC_USDT","ts":1760942212002}
class PushEventContract(Struct, frozen=True, gc=False, tag_field="channel", tag="push.event.contract"):
    data: EventContractRecord
    ts: TimeMs = 0


#: Pushes that are model events already.
ReadyPush = PushKline | PushTickers | PushDeal
#: Pushes that :mod:`.normalize` turns into model events.
RawPush = (
    PushTicker
    | PushDepth
    | PushDepthFull
    | PushDepthStep
    | PushFundingRate
    | PushIndexPrice
    | PushFairPrice
    | PushContract
    | PushEventContract
)
Push = ReadyPush | RawPush


# --- WebSocket replies ---------------------------------------------------------------------------------------------


# {"channel":"pong","data":1789498336785,"ts":1789498336785}      captured
# {"channel":"pong","data":1587453241453}                         documented
class PongReply(Struct, frozen=True, gc=False):
    """``data`` is the server's clock."""

    data: TimeMs
    ts: TimeMs | None = None


# {"channel":"rs.sub.depth","data":"success","ts":1789498321789}
# {"channel":"rs.error","data":"Contract [NOPE_USDT] not exists","ts":1789498321790}
# {"channel":"rs.error","data":"Not support interval"}
# {"channel":"rs.error","data":"more than 60 seconds no response, close the channel","ts":1790148403253}
class CommandReply(Struct, frozen=True, gc=False):
    """Answer to a command; names the channel but no symbol. Documentation prints ``ts`` as a string."""

    channel: str
    data: str = ""
    ts: TimeMs | None = None


# {"ping":1587453241453}
class PingRequest(Struct, frozen=True, gc=False):
    """The server's own ping; reported once, on the old address, in 2022."""

    ping: Count


# --- REST ----------------------------------------------------------------------------------------------------------


# {"success":true,"code":0,"data":...}                    answered
# {"success":false,"code":1001,"message":"Contract does not exist"}      refused, with HTTP status 200
class Envelope(Struct, Generic[T], frozen=True):
    success: bool
    data: T | None = None
    code: int = 0
    message: str | None = None


# {"success":false,"code":510,"message":"Requests are too frequent"}
class Outcome(Struct, frozen=True, gc=False):
    """The envelope without its content, for answers whose content is not what was asked for."""

    success: bool
    code: int = 0
    message: str | None = None


# {"time":[1767204000],"open":[87587.5],"close":[87639],"high":[87660],"low":[87535.2],"vol":[1624650],
#  "amount":[14231867.8663],"realOpen":[87591.2],"realClose":[87639],"realHigh":[87660],"realLow":[87535.2]}
class KlineColumns(Struct, frozen=True, rename="camel"):
    """Candles in columns of equal length, oldest first; ``time`` in seconds, ``vol`` in contracts.

    The ``real*`` columns are on the wire but not in the documentation; 2021 had none. The open candle is the last row.
    """

    time: tuple[OpenTimeS, ...]
    open: tuple[Price, ...]
    high: tuple[Price, ...]
    low: tuple[Price, ...]
    close: tuple[Price, ...]
    vol: tuple[Size, ...]
    amount: tuple[Size, ...]
    real_open: tuple[Price | None, ...] | None = None
    real_high: tuple[Price | None, ...] | None = None
    real_low: tuple[Price | None, ...] | None = None
    real_close: tuple[Price | None, ...] | None = None


# {"asks":[[87631.5,11008,1]],"bids":[[87631.4,11742,2]],"timestamp":1767209914046,"version":30094456680}
class BookSnapshot(Struct, frozen=True):
    """A whole book. A delisted contract still succeeds, with an empty one."""

    asks: tuple[Level, ...]
    bids: tuple[Level, ...]
    version: Count
    timestamp: TimeMs


# {"indexPrice":87812.39,"symbol":"BTC_USDT","timestamp":1767206846103}
class IndexPrice(Struct, frozen=True, rename={"index_price": "indexPrice"}):
    symbol: Symbol
    index_price: Price
    timestamp: TimeMs


# {"fairPrice":87790.2,"symbol":"BTC_USDT","timestamp":1767208306192}
class FairPrice(Struct, frozen=True, rename={"fair_price": "fairPrice"}):
    symbol: Symbol
    fair_price: Price
    timestamp: TimeMs


# {"symbol":"BTC_USDT","fundingRate":0.000067,"maxFundingRate":0.0018,"minFundingRate":-0.0018,"collectCycle":8,
#  "nextSettleTime":1789459200000,"timestamp":1789455551670,"idxPrice":77271.6,"fairPrice":77240.4}
class FundingRow(FundingRate, frozen=True, gc=False):
    """The current funding rate and its bounds; prices since April 2026 only."""

    symbol: Symbol
    rate: float = field(name="fundingRate")
    next_settlement_time_ms: OptionalTimeMs = field(name="nextSettleTime")
    event_time_ms: TimeMs = field(name="timestamp")
    max_rate: float | None = field(default=None, name="maxFundingRate")
    min_rate: float | None = field(default=None, name="minFundingRate")
    cycle_hours: int | None = field(default=None, name="collectCycle")
    index_price: float | None = field(default=None, name="idxPrice")
    fair_price: float | None = field(default=None, name="fairPrice")


# {"collectCycle":8,"fundingRate":3.7e-05,"settleTime":1767196800000,"symbol":"BTC_USDT"}
class FundingSettlement(Struct, frozen=True, gc=False):
    """A funding rate that was settled."""

    symbol: Symbol
    rate: float = field(name="fundingRate")
    settlement_time_ms: TimeMs = field(name="settleTime")
    cycle_hours: int | None = field(default=None, name="collectCycle")


# {"available":101666648.71379949,"currency":"USDT","symbol":"BTC_USDT","timestamp":1767209444201}
# {"available":101659116.78827809,"currency":"USDT","snapshotTime":1767196800000,"symbol":"BTC_USDT"}   in histories
class InsuranceFund(Struct, frozen=True, gc=False):
    """What the insurance fund of a contract holds (``risk_reverse`` in the exchange's words)."""

    symbol: Symbol
    available: float  # in ``currency``
    currency: str
    timestamp: TimeMs | None = None
    snapshot_time: TimeMs | None = field(default=None, name="snapshotTime")


# {"currentPage":1,"pageSize":10,"resultList":[...],"totalCount":1618,"totalPage":162}
class Page(Struct, Generic[T], frozen=True):
    """One page of a history, newest first."""

    rows: tuple[T, ...] = field(name="resultList")
    page: int = field(name="currentPage")
    page_size: int = field(name="pageSize")
    total_count: int = field(name="totalCount")
    total_pages: int = field(name="totalPage")


def wire_tag(push: type[msgspec.Struct]) -> str:
    """The ``channel`` that a push carries, ``push.kline`` for example."""
    tag = push.__struct_config__.tag
    assert isinstance(tag, str)
    return tag
