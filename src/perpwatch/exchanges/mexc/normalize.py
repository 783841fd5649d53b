"""The exchange's shapes into the program's words, where the two differ.

Pure arithmetic and renaming. Nothing is skipped: what cannot be turned into a word is a ProtocolError of the caller's
frame, raised here as :class:`Unreadable` because only the caller has the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from perpwatch.exchanges.mexc.limits import FULL_ANSWER_ROWS, MAX_CANDLES_PER_REQUEST
from perpwatch.exchanges.mexc.messages import (
    EARLIEST_S,
    LATEST_S,
    Book,
    BookSnapshot,
    ContractRecord,
    Deal,
    FairPrice,
    IndexPrice,
    KlineColumns,
    Push,
    PushContract,
    PushDepth,
    PushDepthFull,
    PushDepthStep,
    PushEventContract,
    PushFairPrice,
    PushFundingRate,
    PushIndexPrice,
    PushTicker,
)
from perpwatch.model import (
    AssetClass,
    Candle,
    CandleHistory,
    Contract,
    ContractTicker,
    ContractUpdate,
    Depth,
    Event,
    EventContractUpdate,
    Finality,
    FundingRate,
    Kind,
    ReferencePrice,
    Timeframe,
    Trades,
    Trust,
)

ZONE_PREFIX = "mc-trade-zone-"


class Unreadable(ValueError):
    """An answer contradicts itself; the text says how."""


def event(push: Push) -> Event:
    """The event that a push tells of; the push itself where it is one.

    Raises:
        Unreadable: the push lacks what makes it one.
    """
    build = BUILDERS.get(type(push))
    return push if build is None else build(push)  # type: ignore[return-value]


def depth(kind: Kind, symbol: str, book: Book, time_ms: int) -> Depth:
    """A book's changes or picture. Merged changes span ``first_version`` to ``version``."""
    version = book.version if book.end is None else book.end
    first = version if book.begin is None else book.begin
    return Depth(kind, symbol, book.asks, book.bids, version, first, time_ms)


def snapshot(symbol: str, book: BookSnapshot) -> Depth:
    """A whole book read by REST."""
    return Depth(Kind.DEPTH_FULL, symbol, book.asks, book.bids, book.version, book.version, book.timestamp)


def commits(symbol: str, books: Sequence[Book]) -> tuple[Depth, ...]:
    """The last changes of a book, oldest first; the wire has the newest first and no times (0)."""
    return tuple(depth(Kind.DEPTH, symbol, book, 0) for book in sorted(books, key=lambda book: book.version))


def deals(symbol: str, rows: Sequence[Deal]) -> Trades:
    """The last executions, oldest first; the wire has the newest first."""
    trades = tuple(reversed(rows))
    return Trades(symbol, trades, trades[-1].event_time_ms if trades else 0)


def index_price(row: IndexPrice) -> ReferencePrice:
    return ReferencePrice(Kind.INDEX_PRICE, row.symbol, row.index_price, row.timestamp)


def fair_price(row: FairPrice) -> ReferencePrice:
    return ReferencePrice(Kind.FAIR_PRICE, row.symbol, row.fair_price, row.timestamp)


#: What each zone of the exchange says about a contract. ``apiAllowed`` and ``type`` say nothing: both are set on
#: contracts that trade like any other.
_CLASS_OF_ZONE = {
    "stockindex": AssetClass.INDEX,
    "stock": AssetClass.STOCK,
    "etf": AssetClass.STOCK,
    "metals": AssetClass.METAL,
    "commodities": AssetClass.COMMODITY,
    "forex": AssetClass.FX,
}
#: The zone of everything that is no coin.
_OUTSIDE = "tradfi"


def asset_class(zones: Sequence[str], base_coin: str) -> AssetClass:
    """What a contract follows, from its zones; the most telling one counts."""
    for zone, meaning in _CLASS_OF_ZONE.items():
        if zone in zones:
            return meaning
    if _OUTSIDE in zones:
        return AssetClass.STOCK if base_coin.endswith("STOCK") else AssetClass.OTHER
    return AssetClass.COIN


def multiplier(base_coin: str) -> int:
    """How many coins one unit of the name stands for: 1000 in 1000BONK, 1 in 1INCH.

    A name without a number says nothing of its price either: PEPE trades in units of one.
    """
    found = re.match(r"10{3,}(?=[A-Z])", base_coin)
    return int(found[0]) if found else 1


def contract(record: ContractRecord) -> Contract:
    """A contract of the exchange's list. Zones lose their prefix and become lower case: ``pow``, ``layer2``."""
    zones = tuple(zone.removeprefix(ZONE_PREFIX).lower() for zone in record.concept_plate or ())
    opening_ms = record.opening_time or 0
    is_countable = bool(record.base_coin and record.quote_coin and record.settle_coin and record.contract_size)
    return Contract(
        symbol=record.symbol,
        base_coin=record.base_coin or "",
        quote_coin=record.quote_coin or "",
        settle_coin=record.settle_coin or "",
        contract_size=record.contract_size or 0.0,
        price_unit=record.price_unit or 0.0,
        price_scale=8 if record.price_scale is None else record.price_scale,
        is_trading=record.state == 0 and is_countable,
        is_hidden=bool(record.is_hidden),
        opening_time_ms=opening_ms if EARLIEST_S * 1000 <= opening_ms < LATEST_S * 1000 else 0,
        zones=zones,
        display_name=record.display_name_en or "",
        asset_class=asset_class(zones, record.base_coin or ""),
        multiplier=multiplier(record.base_coin or ""),
    )


def candle_history(
    columns: KlineColumns, listed: Contract, timeframe: Timeframe, start_ms: int, end_ms: int
) -> CandleHistory:
    """Candles that open within ``start_ms`` (inclusive) to ``end_ms`` (exclusive), and the window they speak for.

    The exchange keeps the *latest* 2,000 candles of a window that holds more, and has been seen to return 1,992 for a
    full one. So a long answer speaks from its first row on, and a window of more than 2,000 candles never from further
    back than its last 2,000 unless a row says so. An answer with rows outside the window did not listen to it (times
    in the wrong unit are ignored silently): it speaks for what it holds and nothing else.

    What the answer cannot tell: a window before the exchange's memory (about 30 days of Min1) comes back empty with
    success, exactly like one without trades; and a window that reaches into the future looks quiet there. Whoever
    knows the time keeps the window inside both.

    Raises:
        Unreadable: columns of different lengths, or times that do not rise.
    """
    times_ms = [time_s * 1000 for time_s in columns.time]
    _check_columns(columns)
    if any(later <= earlier for earlier, later in pairwise(times_ms)):
        raise Unreadable("kline times do not rise")
    absent = (None,) * len(times_ms)
    candles = tuple(
        Candle(
            symbol=listed.symbol,
            timeframe=timeframe,
            open_time_ms=time_ms,
            open=open_,
            high=high,
            low=low,
            close=close,
            contracts=contracts,
            base_volume=listed.base_volume(contracts, amount),
            turnover=listed.turnover(contracts, amount),
            finality=Finality.REST,
            trust=Trust.VERIFIED,
            # Mostly the same numbers; kept once, they take a quarter of the memory of a candle less.
            real_open=open_ if real_open == open_ else real_open,
            real_high=high if real_high == high else real_high,
            real_low=low if real_low == low else real_low,
            real_close=close if real_close == close else real_close,
        )
        for time_ms, open_, high, low, close, contracts, amount, real_open, real_high, real_low, real_close in zip(
            times_ms,
            columns.open,
            columns.high,
            columns.low,
            columns.close,
            columns.vol,
            columns.amount,
            absent if columns.real_open is None else columns.real_open,
            absent if columns.real_high is None else columns.real_high,
            absent if columns.real_low is None else columns.real_low,
            absent if columns.real_close is None else columns.real_close,
            strict=True,
        )
        if start_ms <= time_ms < end_ms
    )
    complete_from_ms, complete_to_ms = _window_spoken_for(times_ms, timeframe, start_ms, end_ms)
    return CandleHistory(listed.symbol, candles, complete_from_ms, complete_to_ms)


def _ticker(push: PushTicker) -> ContractTicker:
    return ContractTicker((push.data,), push.ts or push.data.event_time_ms)


def _depth(push: PushDepth) -> Depth:
    return depth(Kind.DEPTH, push.symbol, push.data, push.ts)


def _depth_full(push: PushDepthFull) -> Depth:
    return depth(Kind.DEPTH_FULL, push.symbol, push.data, push.ts)


def _depth_step(push: PushDepthStep) -> Depth:
    book = push.data
    time_ms = push.ts or book.ct or 0
    return Depth(Kind.DEPTH_STEP, push.symbol, book.asks, book.bids, book.version, book.version, time_ms)


def _funding_rate(push: PushFundingRate) -> FundingRate:
    funding = push.data
    rate = funding.funding_rate if funding.rate is None else funding.rate
    if rate is None:
        raise Unreadable("a funding rate without rate")
    return FundingRate(funding.symbol, rate, funding.next_settle_time, push.ts)


def _index_price(push: PushIndexPrice) -> ReferencePrice:
    return ReferencePrice(Kind.INDEX_PRICE, push.data.symbol, push.data.price, push.ts)


def _fair_price(push: PushFairPrice) -> ReferencePrice:
    return ReferencePrice(Kind.FAIR_PRICE, push.data.symbol, push.data.price, push.ts)


def _contract(push: PushContract) -> ContractUpdate:
    return ContractUpdate(contract(push.data), push.ts)


def _event_contract(push: PushEventContract) -> EventContractUpdate:
    return EventContractUpdate(push.data.symbol, str(push.data.contract_id), push.ts)


#: How the event of a push is built, for those that are not events themselves. A table, not isinstance: struct classes
#: check instances the slow way of abstract base classes, which costs more than decoding a trade.
BUILDERS: dict[type, Callable[[Any], Event]] = {
    PushTicker: _ticker,
    PushDepth: _depth,
    PushDepthFull: _depth_full,
    PushDepthStep: _depth_step,
    PushFundingRate: _funding_rate,
    PushIndexPrice: _index_price,
    PushFairPrice: _fair_price,
    PushContract: _contract,
    PushEventContract: _event_contract,
}


def _check_columns(columns: KlineColumns) -> None:
    lengths = {
        name: len(column) for name in columns.__struct_fields__ if (column := getattr(columns, name)) is not None
    }
    if len(set(lengths.values())) > 1:
        raise Unreadable(f"kline columns of different lengths: {lengths}")


def _window_spoken_for(times_ms: Sequence[int], timeframe: Timeframe, start_ms: int, end_ms: int) -> tuple[int, int]:
    step_ms = timeframe.milliseconds
    if times_ms and (times_ms[0] < start_ms or times_ms[-1] >= end_ms):
        from_ms = min(max(start_ms, times_ms[0]), end_ms)
        return from_ms, max(from_ms, min(end_ms, times_ms[-1] + step_ms))
    if len(times_ms) >= FULL_ANSWER_ROWS:
        return times_ms[0], end_ms
    certain_from_ms = max(start_ms, end_ms - MAX_CANDLES_PER_REQUEST * step_ms)
    return (min(certain_from_ms, times_ms[0]) if times_ms else certain_from_ms), end_ms
