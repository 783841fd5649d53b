"""How the simulated exchange spells what it says. Written on its own, so that it can disagree with our decoder."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import lru_cache
from random import Random
from typing import Any

import msgspec

from perpwatch.sim.market import DayStatistics, Listing, MarketCandle, MarketTrade

encode = msgspec.json.encode

#: Spells a price with so many decimals at most.
Spelling = Callable[[float, int], str]

#: Rows of the whole-market tickers that no contract list knows: without a price, as on the wire.
GHOSTS = tuple(f"{coin}_USDT" for coin in ("MX", "TON", "WBTC", "STETH", "USDE", "USDGO", "MXSOL", "USD1"))
#: A row with a price that no contract list knows either.
UNLISTED = "OLDCOIN_USDT"


@lru_cache(maxsize=65_536)
def plain(price: float, scale: int) -> str:
    """``price`` in digits, without an exponent and without trailing zeros."""
    text = f"{price:.{scale}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def odd_spelling(random: Random) -> Spelling:
    """Spells the same numbers in the ways the exchange sometimes uses: ``7.548E+4``, ``0.080100``."""

    def spell(price: float, scale: int) -> str:
        text = plain(price, scale)
        how = random.random()
        if how < 0.4:
            return f"{Decimal(text).normalize():E}"
        if how < 0.8 and "." in text:
            return f"{text}00"
        return text

    return spell


def index_price(listing: Listing, now_ms: int) -> float:
    """What other venues pay: near the last price, and moving a little when it stands still."""
    each = listing.instrument
    phase = now_ms / 61_000 + each.key % 1_000
    return round(listing.last_price * (1 + 3e-4 * math.sin(phase)), each.price_scale + 1)


def fair_price(listing: Listing, now_ms: int) -> float:
    """The mark: half way between the last price and the index."""
    return _fair(listing, index_price(listing, now_ms))


def _fair(listing: Listing, index: float) -> float:
    return round((listing.last_price + index) / 2, listing.instrument.price_scale)


def funding_rate(listing: Listing, now_ms: int) -> float:
    """The rate of the running settlement period, a fraction."""
    return round(1e-4 * math.sin(now_ms // 28_800_000 + listing.instrument.key % 100), 6)


def next_settlement_ms(now_ms: int) -> int:
    return (now_ms // 28_800_000 + 1) * 28_800_000


def acknowledgement(channel: str, now_ms: int) -> bytes:
    return f'{{"channel":"rs.{channel}","data":"success","ts":{now_ms}}}'.encode()


def error(text: str, now_ms: int) -> bytes:
    return b'{"channel":"rs.error","data":%s,"ts":%d}' % (encode(text), now_ms)


def pong(now_ms: int) -> bytes:
    return f'{{"channel":"pong","data":{now_ms},"ts":{now_ms}}}'.encode()


def kline(
    symbol: str, interval: str, open_time: int, candle: MarketCandle, scale: int, now_ms: int, spell: Spelling
) -> bytes:
    """``open_time`` as it shall appear: in seconds, except under a fault."""
    return (
        f'{{"symbol":"{symbol}","data":{{"symbol":"{symbol}","interval":"{interval}","t":{open_time},'
        f'"o":{spell(candle.open, scale)},"c":{spell(candle.close, scale)},"h":{spell(candle.high, scale)},'
        f'"l":{spell(candle.low, scale)},"a":{candle.amount!r},"q":{candle.contracts},'
        f'"ro":{spell(candle.real_open, scale)},"rc":{spell(candle.real_close, scale)},'
        f'"rh":{spell(candle.real_high, scale)},"rl":{spell(candle.real_low, scale)}}},'
        f'"channel":"push.kline","ts":{now_ms}}}'
    ).encode()


def deals(symbol: str, trades: Iterable[MarketTrade], scale: int, now_ms: int, spell: Spelling) -> bytes:
    rows = ",".join(_deal(trade, scale, spell) for trade in trades)
    return f'{{"symbol":"{symbol}","data":[{rows}],"channel":"push.deal","ts":{now_ms}}}'.encode()


def _deal(trade: MarketTrade, scale: int, spell: Spelling) -> str:
    return (
        f'{{"p":{spell(trade.price, scale)},"v":{trade.contracts},"T":{trade.side},"O":{opens(trade)},"M":2,'
        f'"t":{trade.time_ms},"i":"{trade.trade_id}","cts":"{trade.time_ms}"}}'
    )


def opens(trade: MarketTrade) -> int:
    """The field ``O``: whether the trade opened a position (1), closed one (2) or neither (3)."""
    return 1 + trade.trade_id % 3


def deal_as_object(symbol: str, trade: MarketTrade, scale: int, now_ms: int, spell: Spelling) -> bytes:
    """The form in use until August 2025."""
    return (
        f'{{"symbol":"{symbol}","data":{{"p":{spell(trade.price, scale)},"v":{trade.contracts},"T":{trade.side},'
        f'"O":{opens(trade)},"M":2,"t":{trade.time_ms}}},"channel":"push.deal","ts":{now_ms}}}'
    ).encode()


def tickers_row(listing: Listing, day: DayStatistics, now_ms: int) -> str:
    each, last, index = listing.instrument, listing.last_price, index_price(listing, now_ms)
    scale = each.price_scale
    return (
        f'{{"amount24":{day.amount!r},"contractId":{each.contract_id},'
        f'"fairPrice":{_fair(listing, index):.{scale}f},"high24Price":{plain(day.high, scale)},'
        f'"indexPrice":{index:.{scale + 1}f},"lastPrice":{plain(last, scale)},'
        f'"lower24Price":{plain(day.low, scale)},"maxBidPrice":{last * 1.2:.{scale}f},'
        f'"minAskPrice":{last * 0.8:.{scale}f},"riseFallRate":{last / day.open - 1:.4f},'
        f'"symbol":"{each.symbol}","timestamp":{now_ms},"volume24":{day.contracts}}}'
    )


def ghost_rows(now_ms: int) -> list[str]:
    def row(number: int, symbol: str, price: str, contracts: int) -> str:
        return (
            f'{{"amount24":{contracts * 2},"contractId":{9_000 + number},"fairPrice":{price},"high24Price":{price},'
            f'"indexPrice":{price},"lastPrice":{price},"lower24Price":{price},"maxBidPrice":{price},'
            f'"minAskPrice":{price},"riseFallRate":0,"symbol":"{symbol}","timestamp":{now_ms},'
            f'"volume24":{contracts}}}'
        )

    return [row(number, symbol, "0", 0) for number, symbol in enumerate(GHOSTS)] + [row(99, UNLISTED, "1.25", 4_711)]


def tickers(rows: Iterable[str], now_ms: int) -> bytes:
    return f'{{"channel":"push.tickers","data":[{",".join(rows)}],"ts":{now_ms}}}'.encode()


def best_prices(listing: Listing) -> tuple[float, float]:
    """Best bid and best ask: the last trade was at one of them."""
    each, last = listing.instrument, listing.last_price
    return last, round(last + each.price_unit, each.price_scale)


def ticker_fields(listing: Listing, day: DayStatistics, now_ms: int) -> dict[str, Any]:
    """What REST and the stream of one contract have in common."""
    last, (bid, ask) = listing.last_price, best_prices(listing)
    scale = listing.instrument.price_scale
    return {
        "symbol": listing.symbol,
        "lastPrice": last,
        "riseFallRate": round(last / day.open - 1, 4),
        "fairPrice": fair_price(listing, now_ms),
        "indexPrice": index_price(listing, now_ms),
        "volume24": day.contracts,
        "amount24": day.amount,
        "maxBidPrice": round(last * 1.2, scale),
        "minAskPrice": round(last * 0.8, scale),
        "lower24Price": day.low,
        "high24Price": day.high,
        "timestamp": now_ms,
        "bid1": bid,
        "ask1": ask,
        "holdVol": day.contracts // 3,
        "riseFallValue": round(last - day.open, scale),
        "fundingRate": funding_rate(listing, now_ms),
    }


def ticker(listing: Listing, day: DayStatistics, now_ms: int) -> bytes:
    fields = ticker_fields(listing, day, now_ms)
    change = fields["riseFallRate"]
    fields |= {"zone": "UTC+8", "riseFallRates": [change] * 6, "riseFallRatesOfTimezone": [change] * 3}
    return encode({"symbol": listing.symbol, "data": fields, "channel": "push.ticker", "ts": now_ms})


def rest_ticker(listing: Listing, day: DayStatistics, now_ms: int) -> dict[str, Any]:
    fields = ticker_fields(listing, day, now_ms)
    change = fields["riseFallRate"]
    rates = {"zone": "UTC+8", "r": change, "v": fields["riseFallValue"], "r7": change, "r30": change, "r90": change}
    return fields | {
        "contractId": listing.instrument.contract_id,
        "riseFallRates": rates,
        "riseFallRatesOfTimezone": [change] * 3,
    }


def pushed(channel: str, symbol: str, fields: object, now_ms: int) -> bytes:
    """Any push whose spelling is nothing special."""
    return encode({"symbol": symbol, "data": fields, "channel": f"push.{channel}", "ts": now_ms})


def contract_record(listing: Listing) -> dict[str, Any]:
    """A contract as ``detail`` and ``push.contract`` show it."""
    each = listing.instrument
    is_traditional = "mc-trade-zone-tradfi" in each.zones
    scale = each.price_scale
    return {
        "amountScale": 4,
        "apiAllowed": False,
        "askLimitPriceRate": 0.2,
        "automaticDelivery": 0,
        "baseCoin": each.base_coin,
        "baseCoinName": each.base_coin,
        "bidLimitPriceRate": 0.2,
        "conceptPlate": list(each.zones),
        "conceptPlateId": [10 + number for number in range(len(each.zones))],
        "contractSize": each.contract_size,
        "createTime": 1_600_000_000_000,
        "depthStepList": [f"{10.0**-power:.{max(0, power)}f}" for power in range(scale, scale - 4, -1)],
        "displayName": f"{each.symbol}永续",
        "displayNameEn": f"{each.symbol} PERPETUAL",
        "feeRateMode": "NORMAL",
        "futureType": 1,
        "id": each.contract_id,
        "indexOrigin": ["BITGET", "MEXC", "KUCOIN"],
        "initialMarginRate": 0.02,
        "isHidden": False,
        "isHot": False,
        "isNew": each.is_new,
        "isZeroFeeRate": False,
        "isZeroFeeSymbol": False,
        "limitMaxVol": 30_000,
        "liquidationFeeRate": 0.0002,
        "maintenanceMarginRate": 0.005,
        "makerFeeRate": 0,
        "maxLeverage": 50,
        "maxNumOrders": [200, 50],
        "maxVol": 30_000,
        "minLeverage": 1,
        "minVol": 1,
        "openingCountdownOption": 1,
        "openingTime": each.opening_time_ms,
        "positionOpenType": 3,
        "preMarket": False,
        "priceCoefficientVariation": 0.4,
        "priceScale": scale,
        "priceUnit": each.price_unit,
        "quoteCoin": each.quote_coin,
        "quoteCoinName": each.quote_coin,
        "riskBaseVol": 30_000,
        "riskIncrImr": 0.005,
        "riskIncrMmr": 0.005,
        "riskIncrVol": 30_000,
        "riskLevelLimit": 1,
        "riskLimitMode": "INCREASE",
        "riskLimitType": "BY_VOLUME",
        "settleCoin": each.settle_coin,
        "showBeforeOpen": True,
        "state": each.state,
        "symbol": each.symbol,
        "takerFeeRate": 0.0002,
        "triggerProtect": 0.1,
        "type": 2 if is_traditional else 1,
        "volScale": 0,
        "volUnit": 1,
    }


def malformed(frame: bytes, how: str, now_ms: int) -> bytes:
    """A frame spoilt in one of the ways of :data:`perpwatch.sim.faults.MALFORMED`."""
    match how:
        case "truncated":
            # Not within a character: a text frame that is no UTF-8 would cost the connection, not the frame.
            return frame[: len(frame) * 2 // 3].decode(errors="ignore").encode()
        case "unknown_channel":
            return frame.replace(b'"channel":"push.', b'"channel":"push.new.', 1)
        case "absurd_time":
            return frame.replace(b'"t":', b'"t":9', 1).replace(b'"ts":', b'"ts":-', 1)
        case "huge_exponent":
            for name in (b'"c":', b'"p":', b'"lastPrice":', b'"price":'):
                frame = frame.replace(name, name + b'1E+999,"was":', 1)
            return frame
        case _:
            for name in (b'"c":', b'"p":', b'"lastPrice":', b'"price":'):
                frame = frame.replace(name, name + b'[null],"was":', 1)
            return frame


def compressed(frame: bytes) -> bytes:
    # Without a time stamp inside, so that the same frame always gives the same bytes.
    return gzip.compress(frame, compresslevel=1, mtime=0)


def is_binary(frame: bytes) -> bool:
    """Whether a frame travels as binary: only compressed ones do."""
    return frame[:2] == b"\x1f\x8b"
