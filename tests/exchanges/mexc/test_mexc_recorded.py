"""Frames that others recorded or quoted, spot and futures, 2021 to 2026: each is understood or refused by name."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from mexc_frames import UNSHIPPED, recorded

from perpwatch.errors import ProtocolError
from perpwatch.exchanges.adapter import Ack, Pong
from perpwatch.exchanges.mexc import rest
from perpwatch.exchanges.mexc.codec import decode
from perpwatch.exchanges.mexc.messages import Level
from perpwatch.model import (
    CandleUpdate,
    ContractUpdate,
    Depth,
    FundingRate,
    Kind,
    ReferencePrice,
    RunningCandle,
    Side,
    Ticker,
    Tickers,
    Timeframe,
    Trade,
    Trades,
)


def outcome(line: dict[str, Any]) -> object:
    """What one line means, in the fields that carry the meaning."""
    try:
        message = decode(line["raw"].encode())
    except ProtocolError as error:
        return error.reason
    match message:
        case Trades(symbol=symbol, trades=trades, event_time_ms=time_ms):
            return "trades", symbol, [_trade(trade) for trade in trades], time_ms
        case Depth(kind=kind, symbol=symbol, asks=asks, bids=bids, version=version, event_time_ms=time_ms):
            return kind, symbol, list(asks), list(bids), version, time_ms
        case CandleUpdate(candle=candle, event_time_ms=time_ms):
            return "candle", *_candle(candle), time_ms
        case Tickers(tickers=tickers, event_time_ms=time_ms, unreadable_rows=0):
            return "tickers", [_ticker(ticker) for ticker in tickers], time_ms
        case FundingRate():
            return "funding", message.symbol, message.rate, message.next_settlement_time_ms, message.event_time_ms
        case ReferencePrice():
            return message.kind, message.symbol, message.price, message.event_time_ms
        case ContractUpdate():
            return "contract", message.contract.symbol, message.contract.contract_size, message.event_time_ms
        case Ack() | Pong():
            return message
    raise AssertionError(f"unexpected {message!r}")


def _trade(trade: Trade) -> tuple[object, ...]:
    return trade.price, trade.contracts, trade.side, trade.event_time_ms, trade.trade_id


def _candle(candle: RunningCandle) -> tuple[object, ...]:
    prices = (candle.open, candle.high, candle.low, candle.close)
    return (
        candle.symbol,
        candle.timeframe,
        candle.open_time_s,
        prices,
        candle.contracts,
        candle.amount,
        candle.real_open,
    )


def _ticker(ticker: Ticker) -> tuple[object, ...]:
    return ticker.symbol, ticker.last_price, ticker.contracts_24h, ticker.amount_24h, ticker.best_bid, ticker.best_ask


SHIPPED: list[object] = [
    "Object missing required field `p` - at `$.data[0]`",  # spot
    ("trades", "BTC_USDT", [(39766.5, 32, Side.SELL, 1646999591755, None)], 1646999591755),
    ("trades", "BTC_USD", [(39885.5, 8, Side.SELL, 1647000043904, None)], 1647000043904),
    "Expected `int`, got `str` - at `$.data.version`",  # spot
    (
        Kind.DEPTH,
        "BTC_USDT",
        [Level(39961, 0, 0), Level(39961.5, 0, 0)],
        [Level(39962.5, 58272, 1)],
        4702740808,
        1647000258746,
    ),
    (Kind.DEPTH, "BTC_USD", [], [Level(39944, 943, 1)], 2768205529, 1647000870946),
    "unknown channel 'push.limit.depth'",  # spot
    (
        Kind.DEPTH_FULL,
        "BTC_USD",
        [Level(31647.5, 1029, 1), Level(31648, 378, 1), Level(31648.5, 357, 1)],
        [Level(31647, 154, 1), Level(31646.5, 1470, 1), Level(31646, 140, 1)],
        3087532764,
        1653994948112,
    ),
    (
        Kind.DEPTH_FULL,
        "BTC_USDT",
        [Level(31708.5, 74950, 2), Level(31709, 8817, 2), Level(31709.5, 22296, 2)],
        [Level(31708, 3210, 1), Level(31706, 184756, 2), Level(31705.5, 10412, 1)],
        5194972869,
        1653995843510,
    ),
    "a JSON list where an object was expected",  # spot
    ("trades", "BTC_USDT", [(57602, 14, Side.SELL, 1616370338806, None)], 1616370338806),
    ("trades", "BTC_USD", [(57476.5, 79, Side.BUY, 1616370470356, None)], 1616370470356),
    "a JSON list where an object was expected",  # spot
    (Kind.DEPTH, "BTC_USDT", [Level(38704.5, 138686, 1)], [], 2427341830, 1622722473816),
    (Kind.DEPTH, "BTC_USD", [Level(38758.5, 4172, 2)], [], 1151578213, 1622723010000),
    "Object missing required field `a` - at `$.data`",  # spot kline
    "a JSON list where an object was expected",  # spot
    (
        "candle",
        "BTC_USD",
        Timeframe.Min1,
        1654083720,
        (31439.5, 31439.5, 31439, 31439.5),
        2539,
        8.0759087605568165,
        31439.5,
        1654083763923,
    ),
    (
        "candle",
        "BTC_USDT",
        Timeframe.Min1,
        1654083480,
        (31576, 31585.5, 31574.5, 31575),
        31468,
        99371.3865,
        31576,
        1654083512507,
    ),
    ("tickers", [("BTC_USD", 29902, 21030740, 69402.4579798127137243, 29901.5, 29902.5)], 1654165977028),
    ("tickers", [("BTC_USDT", 29911.5, 295146577, 898120149.6331, 29911, 29911.5)], 1654165943014),
    "no channel",  # three REST bodies, one of them spot's
    "no channel",
    "no channel",
    (Kind.DEPTH, "BTC_USDT", [Level(6859.5, 3251, 1)], [], 96801927, 1587442022003),
    ("funding", "BTC_USDT", 0.001, 0, 1587442022003),
    (Kind.INDEX_PRICE, "BTC_USDT", 0.001, 1587442022003),
    (
        "candle",
        "BTC_USDT",
        Timeframe.Min60,
        1587448800,
        (6894.5, 6910.5, 6885, 6885),
        1611754,
        233.74026934364474,
        None,
        1587442022003,
    ),
    (Kind.FAIR_PRICE, "BTC_USDT", 0.001, 1587442022003),
    (Kind.DEPTH_FULL, "BTC_USDT", [Level(6859.5, 3251, 1)], [], 96801927, 1587442022003),
    ("contract", "CLO_USDT", 10, 1760942212002),
    # The documentation's own example disagrees with itself about the symbol; the row counts.
    ("tickers", [("ETH_USDT", 6865.5, 164586129, None, 6865, 6866.5)], 1587442022003),
    ("tickers", [("BSV_USDT", 183, 200, None, None, None), ("BCH_USDT", 220.4, 200, None, None, None)], 1587442022003),
    ("trades", "BTC_USDT", [(91847.4, 49, Side.SELL, 1763645012047, None)], 1763645012047),
]

#: Frames without a stated licence, read from beside the repository.
LICENCE_UNKNOWN: list[object] = [
    ("tickers", [("BTC_USDT", 84055, 311051901, 2606920596.04, 84054.9, 84055)], 1790870036854),
    ("tickers", [("WCT_USDT", 0.04114, 376505, 157589.74, None, None)], 1790870034312),
    ("trades", "BTC_USDT", [(84062.6, 13, Side.BUY, 1790870038339, "16435741160")], 1790870038339),
    (
        Kind.DEPTH,
        "BTC_USDT",
        [Level(84062.6, 60366, 1)],
        [Level(84062.5, 34991, 8), Level(84062.4, 61, 1)],
        42274310475,
        1790870038460,
    ),
    (
        "candle",
        "BTC_USDT",
        Timeframe.Min1,
        1790869980,
        (84109.4, 84114.5, 84054, 84062.6),
        211601,
        1779128.94,
        84112,
        1790870038344,
    ),
    Ack(channel="deal", event_time_ms=1788335242021),
    ("trades", "BTC_USDT", [(77525.9, 3, Side.SELL, 1788335242156, "16005949540")], 1788335242156),
    Pong(server_time_ms=1788336475469),
    (
        Kind.DEPTH_FULL,
        "BTC_USDT",
        [Level(80468.7, 3446, 2), Level(80469.1, 1239, 1)],
        [Level(80468.6, 31288, 7)],
        41925002140,
        1789897581013,
    ),
    (
        "trades",
        "BTC_USDT",
        [
            (80489, 11, Side.BUY, 1789897547210, "16270106116"),
            (80488.5, 2, Side.SELL, 1789897547211, "16270106117"),
        ],
        1789897547215,
    ),
]


def test_recorded_frames_mean_what_is_written_here() -> None:
    assert [outcome(line) for line in recorded()] == SHIPPED


def test_shipped_frames_come_from_sources_that_allow_it() -> None:
    assert Counter(line["licence"] for line in recorded()) == {"Apache-2.0": 24, "MIT": 10}


def test_recorded_frames_of_unknown_licence_mean_what_is_written_here() -> None:
    if not UNSHIPPED.exists():
        pytest.skip(f"no recorded frames at {UNSHIPPED}; they state no licence and are not part of the repository")
    lines = [line for line in recorded(UNSHIPPED) if line["licence"] == "unknown"]
    assert [outcome(line) for line in lines] == LICENCE_UNKNOWN


def test_a_recorded_rest_body_is_read_by_its_request() -> None:
    body = next(line["raw"] for line in recorded() if '"timestamp":1654326901060' in line["raw"])
    book = rest.depth("BTC_USD").parse(body.encode())
    assert book == Depth(
        kind=Kind.DEPTH_FULL,
        symbol="BTC_USD",
        asks=(Level(29625, 630, 1), Level(29625.5, 371, 1), Level(29626, 581, 1)),
        bids=(Level(29618, 357, 1), Level(29617.5, 357, 1), Level(29617, 581, 1)),
        version=3094693618,
        first_version=3094693618,
        event_time_ms=1654326901060,
    )


def test_a_spot_book_is_no_answer_to_a_futures_request() -> None:
    body = next(line["raw"] for line in recorded() if line["raw"].startswith('{"code":200'))
    with pytest.raises(ProtocolError) as caught:
        rest.depth("BTC_USDT").parse(body.encode())
    assert caught.value.reason == "Object missing required field `success`"
