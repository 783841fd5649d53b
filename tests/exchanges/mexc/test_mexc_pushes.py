"""Every captured push, and what it means."""

from __future__ import annotations

import gzip
import json

import msgspec
import pytest
from mexc_frames import sample, sample_names

from perpwatch.errors import ProtocolError
from perpwatch.exchanges.adapter import Ack, Message, Pong, Refusal
from perpwatch.exchanges.mexc.codec import decode, decode_all
from perpwatch.exchanges.mexc.messages import Deal, Kline, Level, Push, PushDeal, PushKline, PushTickers, TickerRow
from perpwatch.model import (
    CandleUpdate,
    Contract,
    ContractTicker,
    ContractUpdate,
    Depth,
    EventContractUpdate,
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


def kline(
    symbol: str,
    timeframe: Timeframe,
    open_time_s: int,
    stitched: tuple[float, float, float, float],
    contracts: float,
    amount: float,
    real: tuple[float, float, float, float],
    event_time_ms: int,
) -> PushKline:
    """Prices are given as open, high, low, close."""
    candle = Kline(
        symbol=symbol,
        timeframe=timeframe,
        open_time_s=open_time_s,
        open=stitched[0],
        high=stitched[1],
        low=stitched[2],
        close=stitched[3],
        contracts=contracts,
        amount=amount,
        real_open=real[0],
        real_high=real[1],
        real_low=real[2],
        real_close=real[3],
    )
    return PushKline(candle=candle, event_time_ms=event_time_ms)


def deal(price: float, contracts: float, side: Side, event_time_ms: int, trade_id: str | None = None) -> Deal:
    return Deal(price=price, contracts=contracts, side=side, event_time_ms=event_time_ms, trade_id=trade_id)


EXPECTED: dict[str, Message] = {
    "ws-ack-sub.depth": Ack(channel="depth", event_time_ms=1789498321789),
    "ws-pong": Pong(server_time_ms=1789498336785),
    "ws-pong-doc-form": Pong(server_time_ms=1587453241453),
    "ws-err-heartbeat": Refusal(
        text="more than 60 seconds no response, close the channel",
        symbol=None,
        closes_connection=True,
        event_time_ms=1790148403253,
    ),
    "ws-err-interval": Refusal(text="Not support interval", symbol=None, closes_connection=False, event_time_ms=None),
    "ws-err-unknown-symbol": Refusal(
        text="Contract [NOPE_USDT] not exists",
        symbol="NOPE_USDT",
        closes_connection=False,
        event_time_ms=1789498321790,
    ),
    "ws-push-kline": kline(
        "BTC_USDT",
        Timeframe.Min1,
        1790869980,
        (84109.4, 84114.5, 84054, 84062.6),
        211601,
        1779128.94,
        (84112, 84114.5, 84054, 84062.6),
        1790870038344,
    ),
    "ws-push-kline-2026-02": kline(
        "BTC_USDT",
        Timeframe.Min1,
        1770330480,
        (63104.8, 63522.3, 63104.8, 63519.9),
        1425571,
        9033395.19463,
        (63123.3, 63522.3, 63120.8, 63519.9),
        1770330514053,
    ),
    "ws-push-kline-min5": kline(
        "SOL_USDT",
        Timeframe.Min5,
        1770174300,
        (98.11, 98.4, 98.11, 98.35),
        236245,
        2322734.44,
        (98.11, 98.4, 98.11, 98.35),
        1770174432306,
    ),
    "ws-push-kline-small-price": kline(
        "CHEEMS_USDT",
        Timeframe.Min15,
        1746351000,
        (0.0000015036, 0.0000015036, 0.0000014962, 0.0000014988),
        79,
        1183.078,
        (0.0000015021, 0.0000015021, 0.0000014962, 0.0000014988),
        1746351123147,
    ),
    "ws-push-kline-2022": kline(
        "BTC_USDT",
        Timeframe.Min1,
        1654083480,
        (31576, 31585.5, 31574.5, 31575),
        31468,
        99371.3865,
        (31576, 31585.5, 31574.5, 31575),
        1654083512507,
    ),
    "ws-push-kline-inverse-2022": kline(
        "BTC_USD",
        Timeframe.Min1,
        1654083720,
        (31439.5, 31439.5, 31439, 31439.5),
        2539,
        8.0759087605568165,
        (31439.5, 31439.5, 31439, 31439.5),
        1654083763923,
    ),
    "ws-push-tickers": PushTickers(
        tickers=(
            TickerRow(
                symbol="WCT_USDT",
                last_price=0.04114,
                fair_price=0.04116,
                index_price=0.04119,
                contracts_24h=376505,
                amount_24h=157589.74,
                change_24h=-0.0292,
                high_24h=0.04297,
                low_24h=0.04068,
                event_time_ms=1790870034312,
            ),
        ),
        event_time_ms=1790870034312,
    ),
    "ws-push-ticker": ContractTicker(
        tickers=(
            TickerRow(
                symbol="BTC_USDT",
                last_price=84055,
                fair_price=84063.8,
                index_price=84104,
                contracts_24h=311051901,
                amount_24h=2606920596.04,
                change_24h=-0.0005,
                high_24h=84461.9,
                low_24h=83136.6,
                best_bid=84054.9,
                best_ask=84055,
                open_interest=546882118,
                funding_rate=0.000072,
                event_time_ms=1790870036854,
            ),
        ),
        event_time_ms=1790870036854,
    ),
    "ws-push-ticker-inverse-2022": ContractTicker(
        tickers=(
            TickerRow(
                symbol="BTC_USD",
                last_price=29902,
                fair_price=29903.13,
                index_price=29926.05,
                contracts_24h=21030740,
                amount_24h=69402.4579798127137243,
                change_24h=-0.0264,
                high_24h=31873,
                low_24h=29275.5,
                best_bid=29901.5,
                best_ask=29902.5,
                open_interest=17766,
                funding_rate=-0.000012,
                event_time_ms=1654165977028,
            ),
        ),
        event_time_ms=1654165977028,
    ),
    "ws-push-deal": PushDeal(
        symbol="BTC_USDT",
        trades=(deal(84062.6, 13, Side.BUY, 1790870038339, "16435741160"),),
        event_time_ms=1790870038339,
    ),
    "ws-push-deal-multi": PushDeal(
        symbol="BTC_USDT",
        trades=(
            deal(80489, 11, Side.BUY, 1789897547210, "16270106116"),
            deal(80488.5, 2, Side.SELL, 1789897547211, "16270106117"),
        ),
        event_time_ms=1789897547215,
    ),
    "ws-push-deal-2025-11-array": PushDeal(
        symbol="BTC_USDT", trades=(deal(91847.4, 49, Side.SELL, 1763645012047),), event_time_ms=1763645012047
    ),
    "ws-push-deal-2025-05-object": PushDeal(
        symbol="PENGU_USDT", trades=(deal(0.00981, 2040, Side.BUY, 1746350434582),), event_time_ms=1746350434583
    ),
    "ws-push-deal-2022-object": PushDeal(
        symbol="BTC_USDT", trades=(deal(39766.5, 32, Side.SELL, 1646999591755),), event_time_ms=1646999591755
    ),
    "ws-push-depth-merged-quiet": Depth(
        kind=Kind.DEPTH,
        symbol="SKHYNIXSTOCK_USDT",
        asks=(Level(1235.06, 606, 1),),
        bids=(Level(1233.04, 0, 0),),
        version=1111084807,
        first_version=1111084806,
        event_time_ms=1789498405588,
    ),
    "ws-push-depth-merged": Depth(
        kind=Kind.DEPTH,
        symbol="DOGE_USDT",
        asks=(
            Level(0.0801, 2868, 1),
            Level(0.08014, 7405, 4),
            Level(0.08015, 7000, 4),
            Level(0.08011, 26243, 2),
            Level(0.08012, 5313, 3),
            Level(0.08039, 64, 1),
            Level(0.0805, 84, 4),
            Level(0.08009, 2700, 1),
        ),
        bids=(
            Level(0.08003, 8905, 4),
            Level(0.08004, 8819, 4),
            Level(0.07969, 0, 0),
            Level(0.07979, 6750, 3),
            Level(0.08006, 5200, 3),
            Level(0.08007, 3878, 3),
            Level(0.08008, 3453, 2),
            Level(0.08009, 0, 0),
        ),
        version=8752808003,
        first_version=8752807948,
        event_time_ms=1789498405534,
    ),
    "ws-push-depth-unmerged": Depth(
        kind=Kind.DEPTH,
        symbol="ETH_USDT",
        asks=(Level(2384.59, 42, 1),),
        bids=(),
        version=37723308980,
        first_version=37723308980,
        event_time_ms=1789498321801,
    ),
    "ws-push-depth-2022": Depth(
        kind=Kind.DEPTH,
        symbol="BTC_USDT",
        asks=(Level(39961, 0, 0), Level(39961.5, 0, 0)),
        bids=(Level(39962.5, 58272, 1),),
        version=4702740808,
        first_version=4702740808,
        event_time_ms=1647000258746,
    ),
    "ws-push-depth.full": Depth(
        kind=Kind.DEPTH_FULL,
        symbol="RIF_USDT",
        asks=(Level(0.08055, 48, 1), Level(0.08056, 347, 1), Level(0.08057, 149, 1)),
        bids=(Level(0.08049, 46, 1), Level(0.08048, 489, 1), Level(0.08047, 420, 1)),
        version=5220571685,
        first_version=5220571685,
        event_time_ms=1789498322169,
    ),
    "ws-push-depth.full-exponent": Depth(
        kind=Kind.DEPTH_FULL,
        symbol="BTC_USDT",
        asks=(Level(75481.2, 10, 1),),
        bids=(Level(75480, 4959, 3),),
        version=41770922520,
        first_version=41770922520,
        event_time_ms=1789498322169,
    ),
    # Documented without ts; the picture's own time stands in.
    "ws-push-depth.step": Depth(
        kind=Kind.DEPTH_STEP,
        symbol="BTC_USDT",
        asks=(Level(111090, 398676, 26), Level(111100, 410175, 8)),
        bids=(Level(111080, 461204, 35), Level(111070, 386809, 3)),
        version=27883254360,
        first_version=27883254360,
        event_time_ms=1760950364388,
    ),
    "ws-push-funding.rate": FundingRate(
        symbol="BTC_USDT", rate=0.000081, next_settlement_time_ms=1789516800000, event_time_ms=1789498561049
    ),
    "ws-push-index.price": ReferencePrice(
        kind=Kind.INDEX_PRICE, symbol="BTC_USDT", price=76027.1, event_time_ms=1789498540911
    ),
    "ws-push-fair.price": ReferencePrice(
        kind=Kind.FAIR_PRICE, symbol="BTC_USDT", price=75986, event_time_ms=1789498540821
    ),
    "ws-push-contract": ContractUpdate(
        contract=Contract(
            symbol="CLO_USDT",
            base_coin="CLO",
            quote_coin="USDT",
            settle_coin="USDT",
            contract_size=10,
            price_unit=0.0001,
            price_scale=4,
            is_trading=True,
            is_hidden=False,
            opening_time_ms=1760440200000,
            zones=(),
            display_name="CLO_USDT PERPETUAL",
        ),
        event_time_ms=1760942212002,
    ),
    "ws-push-event.contract-SYNTHETIC": EventContractUpdate(
        symbol="BTC_USDT", contract_id="123", event_time_ms=1760942212002
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_captured_frame_means_what_is_written_here(name: str) -> None:
    message = decode(sample(name))
    assert type(message) is type(EXPECTED[name])
    assert message == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_frame_means_the_same_when_gzipped(name: str) -> None:
    assert decode(gzip.compress(sample(name))) == EXPECTED[name]


def test_frames_that_were_read_together_mean_what_each_means_alone() -> None:
    frames = [sample(name) for name in EXPECTED]
    assert decode_all(frames) == list(EXPECTED.values())
    pushes = [sample(f"ws-push-{name}") for name in ("kline", "ticker", "deal", "tickers", "funding.rate")]
    assert decode_all(pushes) == [decode(frame) for frame in pushes]
    with pytest.raises(ProtocolError):
        decode_all([*pushes, b"{}", *pushes])
    assert decode_all([]) == []


def test_every_captured_frame_is_expected() -> None:
    received = [name for prefix in ("ws-ack", "ws-err", "ws-pong", "ws-push") for name in sample_names(prefix)]
    assert sorted(EXPECTED) == sorted(received)


def test_hot_pushes_are_model_words_without_a_copy() -> None:
    candle, tickers, trades = (decode(sample(f"ws-push-{name}")) for name in ("kline", "tickers", "deal"))
    assert isinstance(candle, CandleUpdate)
    assert isinstance(candle.candle, RunningCandle)
    assert isinstance(tickers, Tickers)
    assert all(isinstance(row, Ticker) for row in tickers.tickers)
    assert isinstance(trades, Trades)
    assert all(isinstance(trade, Trade) for trade in trades.trades)


@pytest.mark.parametrize("name", ["ws-push-kline", "ws-push-tickers", "ws-push-deal-multi", "ws-push-depth.full"])
def test_encoding_a_push_gives_its_wire_form_back(name: str) -> None:
    push = msgspec.json.decode(sample(name), type=Push)
    wire, encoded = json.loads(sample(name)), json.loads(msgspec.json.encode(push))
    assert encoded.keys() <= wire.keys()
    assert {key: wire[key] for key in ("channel", "ts")} == {key: encoded[key] for key in ("channel", "ts")}
    assert decode(msgspec.json.encode(push)) == EXPECTED[name]


def test_coin_margined_amounts_are_base_coin() -> None:
    """2,539 contracts of 100 USD at 31,439.5 are 8.0759 BTC, which is what the frame calls its amount."""
    update = decode(sample("ws-push-kline-inverse-2022"))
    assert isinstance(update, CandleUpdate)
    contract = Contract("BTC_USD", "BTC", "USD", "BTC", 100)
    contracts, amount = update.candle.contracts, update.candle.amount
    assert contract.turnover(contracts, amount) == 253_900
    assert contract.base_volume(contracts, amount) == pytest.approx(253_900 / 31_439.5, rel=1e-4)
