"""Every REST endpoint: what is asked, and what the captured answer means."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mexc_frames import sample, sample_names

from perpwatch.errors import ApiError, ExchangeError, ProtocolError, RateLimited
from perpwatch.exchanges.adapter import Request
from perpwatch.exchanges.mexc import rest
from perpwatch.exchanges.mexc.messages import (
    Deal,
    FundingRow,
    FundingSettlement,
    InsuranceFund,
    Level,
    Page,
    TickerRow,
)
from perpwatch.model import (
    AssetClass,
    Candle,
    CandleHistory,
    Contract,
    Depth,
    Finality,
    Kind,
    ReferencePrice,
    Side,
    Timeframe,
    Trades,
    Trust,
)

BTC = Contract("BTC_USDT", "BTC", "USDT", "USDT", 0.0001)
INVERSE = Contract("BTC_USD", "BTC", "USD", "BTC", 100)
START_MS, END_MS = 1767204000_000, 1767204900_000


def candle(
    open_time_s: int,
    stitched: tuple[float, float, float, float],
    contracts: float,
    turnover: float,
    real: tuple[float, float, float, float],
) -> Candle:
    """Prices are given as open, high, low, close."""
    return Candle(
        symbol="BTC_USDT",
        timeframe=Timeframe.Min5,
        open_time_ms=open_time_s * 1000,
        open=stitched[0],
        high=stitched[1],
        low=stitched[2],
        close=stitched[3],
        contracts=contracts,
        base_volume=contracts * 0.0001,
        turnover=turnover,
        finality=Finality.REST,
        trust=Trust.VERIFIED,
        real_open=real[0],
        real_high=real[1],
        real_low=real[2],
        real_close=real[3],
    )


CANDLES = (
    candle(
        1767204000,
        (87587.5, 87660, 87535.2, 87639),
        1624650,
        14231867.8663,
        (87591.2, 87660, 87535.2, 87639),
    ),
    candle(
        1767204300,
        (87639, 87871, 87603.8, 87837.4),
        3544088,
        31106849.07131,
        (87640, 87871, 87603.8, 87837.4),
    ),
    candle(
        1767204600,
        (87837.4, 87916.9, 87837.4, 87884),
        3029607,
        26622974.07804,
        (87837.5, 87916.9, 87837.5, 87884),
    ),
)
LIGHT = Contract(
    symbol="LIGHT_USDT",
    base_coin="LIGHT",
    quote_coin="USDT",
    settle_coin="USDT",
    contract_size=1,
    price_unit=0.0001,
    price_scale=4,
    opening_time_ms=1758971400000,
    zones=("0fees",),
    display_name="LIGHT_USDT PERPETUAL",
)
SILVER = Contract(
    symbol="SILVER_USDT",
    base_coin="SILVER",
    quote_coin="USDT",
    settle_coin="USDT",
    contract_size=0.01,
    price_unit=0.01,
    price_scale=2,
    opening_time_ms=1766993400000,
    zones=("contract-new", "commodities"),
    asset_class=AssetClass.COMMODITY,
    display_name="SILVER_USDT PERPETUAL",
)
BTC_LISTED = Contract(
    symbol="BTC_USDT",
    base_coin="BTC",
    quote_coin="USDT",
    settle_coin="USDT",
    contract_size=0.0001,
    price_unit=0.1,
    price_scale=1,
    opening_time_ms=0,
    zones=("pow", "layer2"),
    display_name="BTC_USDT PERPETUAL",
)
# fmt: off
COINS = (
    "STETH", "MXSOL", "CRV", "USDT", "DOGE", "ATOM", "WBTC", "CHZ", "XRP", "XLM", "LINK", "TRX",
    "BSV", "BCH", "SUI", "DOT", "FIL", "MX", "BTC", "WLFI", "SOL", "AVAX", "ETC", "BNB",
    "ETH", "USDE", "LTC", "USDC", "ADA",
)
# fmt: on
BTC_TICKER = TickerRow(
    symbol="BTC_USDT",
    last_price=87718.1,
    fair_price=87722.5,
    index_price=87751.69,
    contracts_24h=1281215650,
    amount_24h=11316022274.28668,
    change_24h=-0.0021,
    high_24h=89191.6,
    low_24h=87364.1,
    best_bid=87718.1,
    best_ask=87718.2,
    open_interest=277022504,
    funding_rate=0.0001,
    event_time_ms=1767209294795,
)
ETH_TICKER = TickerRow(
    symbol="ETH_USDT",
    last_price=2975.41,
    fair_price=2975.6,
    index_price=2976.77,
    contracts_24h=251287326,
    amount_24h=7482189922.7103,
    change_24h=-0.0029,
    high_24h=3027.16,
    low_24h=2943.49,
    best_bid=2975.4,
    best_ask=2975.41,
    open_interest=38210461,
    funding_rate=7.4e-05,
    event_time_ms=1767209294795,
)
LIGHT_TICKER = TickerRow(
    symbol="LIGHT_USDT",
    last_price=1.276,
    fair_price=1.278,
    index_price=1.338,
    contracts_24h=130291201,
    amount_24h=130169479.1939,
    change_24h=0.1218,
    high_24h=1.4132,
    low_24h=0.3143,
    best_bid=1.2741,
    best_ask=1.2743,
    open_interest=3290414,
    funding_rate=-0.016561,
    event_time_ms=1767209294795,
)


def settlement(rate: float, time_ms: int) -> FundingSettlement:
    return FundingSettlement(symbol="BTC_USDT", rate=rate, settlement_time_ms=time_ms, cycle_hours=8)


def fund(symbol: str, available: float) -> InsuranceFund:
    return InsuranceFund(symbol=symbol, available=available, currency="USDT", timestamp=1767209444201)


def past_fund(available: float, time_ms: int) -> InsuranceFund:
    return InsuranceFund(symbol="BTC_USDT", available=available, currency="USDT", snapshot_time=time_ms)


def commit(version: int, price: float, contracts: float, orders: int) -> Depth:
    bids = (Level(price, contracts, orders),)
    return Depth(Kind.DEPTH, "BTC_USDT", (), bids, version, version, 0)


def deal(trade_id: str, price: float, contracts: float, side: Side, time_ms: int) -> Deal:
    return Deal(price=price, contracts=contracts, side=side, event_time_ms=time_ms, trade_id=trade_id)


Case = tuple[Request[Any], str, dict[str, str | int] | None, object]

ANSWERS: dict[str, Case] = {
    "rest-ping": (rest.ping(), "/ping", None, 1761875313209),
    "rest-support_currencies": (
        rest.support_currencies(),
        "/support_currencies",
        None,
        COINS,
    ),
    "rest-detail-list": (rest.contracts(), "/detail", None, (LIGHT, SILVER)),
    "rest-detail-single": (rest.contract("BTC_USDT"), "/detail", {"symbol": "BTC_USDT"}, BTC_LISTED),
    "rest-ticker-list": (rest.tickers(), "/ticker", None, (BTC_TICKER, ETH_TICKER, LIGHT_TICKER)),
    "rest-ticker-single": (rest.ticker("BTC_USDT"), "/ticker", {"symbol": "BTC_USDT"}, BTC_TICKER),
    "rest-kline-min5": (
        rest.candles(BTC, Timeframe.Min5, START_MS, END_MS),
        "/kline/BTC_USDT",
        {"interval": "Min5", "start": 1767204000, "end": 1767204899},
        CandleHistory("BTC_USDT", CANDLES, START_MS, END_MS),
    ),
    "rest-kline-one-row-window": (
        rest.candles(BTC, Timeframe.Min5, 1767204283_000, 1767204404_000),
        "/kline/BTC_USDT",
        {"interval": "Min5", "start": 1767204283, "end": 1767204403},
        CandleHistory("BTC_USDT", CANDLES[1:2], 1767204283_000, 1767204404_000),
    ),
    "rest-kline-empty-window": (
        rest.candles(BTC, Timeframe.Min15, 1767204283_000, 1767204404_000),
        "/kline/BTC_USDT",
        {"interval": "Min15", "start": 1767204283, "end": 1767204403},
        CandleHistory("BTC_USDT", (), 1767204283_000, 1767204404_000),
    ),
    "rest-kline-index_price-empty": (
        rest.index_price_candles(BTC, Timeframe.Min15, 1767204283_000, 1767204404_000),
        "/kline/index_price/BTC_USDT",
        {"interval": "Min15", "start": 1767204283, "end": 1767204403},
        CandleHistory("BTC_USDT", (), 1767204283_000, 1767204404_000),
    ),
    # 2021: no real* columns.
    "rest-kline-index_price-doc": (
        rest.fair_price_candles(BTC, Timeframe.Min15, 1609740900_000, 1609741800_000),
        "/kline/fair_price/BTC_USDT",
        {"interval": "Min15", "start": 1609740900, "end": 1609741799},
        CandleHistory(
            "BTC_USDT",
            (
                Candle(
                    symbol="BTC_USDT",
                    timeframe=Timeframe.Min15,
                    open_time_ms=1609740900_000,
                    open=33039,
                    high=33352.3,
                    low=33007.9,
                    close=33233.1,
                    contracts=0,
                    base_volume=0,
                    turnover=0,
                    finality=Finality.REST,
                    trust=Trust.VERIFIED,
                ),
            ),
            1609740900_000,
            1609741800_000,
        ),
    ),
    "rest-depth": (
        rest.depth("BTC_USDT", 1000),
        "/depth/BTC_USDT",
        {"limit": 1000},
        Depth(
            kind=Kind.DEPTH_FULL,
            symbol="BTC_USDT",
            asks=(
                Level(87631.5, 11008, 1),
                Level(87631.6, 4236, 1),
                Level(87631.7, 4396, 1),
                Level(87631.8, 3804, 1),
                Level(87631.9, 4095, 1),
            ),
            bids=(
                Level(87631.4, 11742, 2),
                Level(87631.3, 4236, 1),
                Level(87631.2, 4396, 1),
                Level(87631.1, 3804, 1),
                Level(87631, 4097, 2),
            ),
            version=30094456680,
            first_version=30094456680,
            event_time_ms=1767209914046,
        ),
    ),
    "rest-depth-delisted": (
        rest.depth("GONE_USDT"),
        "/depth/GONE_USDT",
        None,
        Depth(Kind.DEPTH_FULL, "GONE_USDT", (), (), 222542631, 222542631, 1789455601090),
    ),
    # Newest first on the wire.
    "rest-depth_commits": (
        rest.depth_commits("BTC_USDT", 10),
        "/depth_commits/BTC_USDT/10",
        None,
        (
            commit(30093377497, 87716, 6, 2),
            commit(30093377498, 87658, 1845, 2),
            commit(30093377499, 87658, 1, 1),
            commit(30093377500, 87652.3, 1, 1),
            commit(30093377501, 87655, 639, 4),
        ),
    ),
    # Newest first on the wire.
    "rest-deals": (
        rest.deals("BTC_USDT", 100),
        "/deals/BTC_USDT",
        {"limit": 100},
        Trades(
            symbol="BTC_USDT",
            trades=(
                deal("12767059509", 87511.4, 150, Side.BUY, 1767211405934),
                deal("12767059632", 87511.3, 7, Side.SELL, 1767211406356),
                deal("12767059725", 87511.4, 2696, Side.BUY, 1767211406865),
                deal("12767059783", 87511.3, 5, Side.SELL, 1767211407356),
                deal("12767059784", 87511.3, 51, Side.SELL, 1767211407368),
            ),
            event_time_ms=1767211407368,
        ),
    ),
    "rest-index_price": (
        rest.index_price("BTC_USDT"),
        "/index_price/BTC_USDT",
        None,
        ReferencePrice(Kind.INDEX_PRICE, "BTC_USDT", 87812.39, 1767206846103),
    ),
    "rest-fair_price": (
        rest.fair_price("BTC_USDT"),
        "/fair_price/BTC_USDT",
        None,
        ReferencePrice(Kind.FAIR_PRICE, "BTC_USDT", 87790.2, 1767208306192),
    ),
    "rest-funding_rate": (
        rest.funding_rate("BTC_USDT"),
        "/funding_rate/BTC_USDT",
        None,
        FundingRow(
            symbol="BTC_USDT",
            rate=0.0001,
            next_settlement_time_ms=1767225600000,
            event_time_ms=1767211289574,
            max_rate=0.0018,
            min_rate=-0.0018,
            cycle_hours=8,
        ),
    ),
    "rest-funding_rate-bulk": (
        rest.funding_rates(),
        "/funding_rate",
        None,
        (
            FundingRow(
                symbol="BTC_USDT",
                rate=0.000067,
                next_settlement_time_ms=1789459200000,
                event_time_ms=1789455551670,
                max_rate=0.0018,
                min_rate=-0.0018,
                cycle_hours=8,
                index_price=77271.6,
                fair_price=77240.4,
            ),
        ),
    ),
    "rest-funding_rate-history": (
        rest.funding_rate_history("BTC_USDT", 1, 10),
        "/funding_rate/history",
        {"symbol": "BTC_USDT", "page_num": 1, "page_size": 10},
        Page(
            rows=(
                settlement(3.7e-05, 1767196800000),
                settlement(1.5e-05, 1767168000000),
                settlement(2.9e-05, 1767139200000),
                settlement(8.5e-05, 1767110400000),
                settlement(4.6e-05, 1767081600000),
            ),
            page=1,
            page_size=10,
            total_count=1618,
            total_pages=162,
        ),
    ),
    "rest-risk_reverse": (
        rest.risk_reverse(),
        "/risk_reverse",
        None,
        (
            fund("BTC_USDT", 101666648.71379949),
            fund("ETH_USDT", 58879517.964316905),
            fund("LIGHT_USDT", 195323.29322356635),
            fund("SOL_USDT", 41625225.96667348),
            fund("SILVER_USDT", 103976.38007635257),
        ),
    ),
    "rest-risk_reverse-history": (
        rest.risk_reverse_history("BTC_USDT", 1, 10),
        "/risk_reverse/history",
        {"symbol": "BTC_USDT", "page_num": 1, "page_size": 10},
        Page(
            rows=(
                past_fund(101659116.78827809, 1767196800000),
                past_fund(101651255.82306215, 1767182400000),
                past_fund(101648725.13366297, 1767168000000),
                past_fund(101648416.99364553, 1767153600000),
                past_fund(101645700.50268936, 1767139200000),
            ),
            page=1,
            page_size=10,
            total_count=42,
            total_pages=5,
        ),
    ),
}

REFUSALS: dict[str, tuple[type[ExchangeError], str]] = {
    "rest-err-1001-depth": (ApiError, "the exchange answered code 1001: Contract does not exist"),
    "rest-err-1001-detail": (ApiError, "the exchange answered code 1001: Contract not exists"),
    "rest-err-600-interval": (ApiError, "the exchange answered code 600: Parameter error"),
    "rest-err-510-rate": (RateLimited, "request to /api/v1/contract/ticker failed: Requests are too frequent"),
    "rest-err-510-rate-doc": (
        RateLimited,
        "request to /api/v1/contract/ticker failed: Requests are too frequent, please try again later",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_endpoint_is_asked_as_documented(name: str) -> None:
    request, path, params, _ = ANSWERS[name]
    assert request.path == f"/api/v1/contract{path}"
    assert request.params == params
    assert request.endpoint in path.replace("/", "_")


@pytest.mark.parametrize("name", ANSWERS)
def test_a_captured_answer_means_what_is_written_here(name: str) -> None:
    request, _, _, expected = ANSWERS[name]
    assert request.parse(sample(name)) == expected


@pytest.mark.parametrize("name", REFUSALS)
def test_a_captured_refusal_is_its_typed_error(name: str) -> None:
    expected, text = REFUSALS[name]
    with pytest.raises(expected) as caught:
        rest.tickers().parse(sample(name))
    assert type(caught.value) is expected
    assert str(caught.value) == text


def test_every_captured_answer_is_expected() -> None:
    assert {*ANSWERS, *REFUSALS} == set(sample_names("rest-"))


def test_a_rate_limit_says_how_long_to_pause() -> None:
    with pytest.raises(RateLimited) as caught:
        rest.candles(BTC, Timeframe.Min1, START_MS, END_MS).parse(sample("rest-err-510-rate"))
    assert caught.value.retry_after_s == 10
    assert caught.value.url == "/api/v1/contract/kline/BTC_USDT"


def test_a_refusal_carries_its_code() -> None:
    with pytest.raises(ApiError) as caught:
        rest.contract("NOPE_USDT").parse(sample("rest-err-1001-detail"))
    assert (caught.value.code, caught.value.message) == (1001, "Contract not exists")


def test_a_refusal_with_content_of_another_shape_is_still_a_refusal() -> None:
    with pytest.raises(ApiError, match="code 1002: not activated"):
        rest.tickers().parse(b'{"success":false,"code":1002,"message":"not activated","data":{}}')


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty body"),
        (b"\r\n", "empty body"),
        (b"<html><head><title>Access\n Denied</title></head></html>", "HTML instead of JSON: Access Denied"),
        (b"<!DOCTYPE html><body>blocked", "HTML instead of JSON: no title"),
        (b'{"success":true,"code":0,"data":[{"symbol":"BTC', "truncated JSON: Input data was truncated"),
        (b"Too many requests", "not JSON: JSON is malformed: invalid character (byte 0)"),
        (b'{"success":true,"code":0}', "success without data"),
        (b'{"success":true,"code":0,"data":null}', "success without data"),
        (b'{"code":0,"data":[]}', "Object missing required field `success`"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"success":true,"data":{"symbol":"BTC_USDT"}}', "Expected `array | null`, got `object` - at `$.data`"),
    ],
)
def test_a_body_that_is_no_answer_says_what_came(body: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        rest.tickers().parse(body)
    assert caught.value.reason == reason
    assert caught.value.frame == body


def test_an_absurd_time_in_a_column_is_refused_by_name() -> None:
    body = sample("rest-kline-min5").replace(b"1767204300", b"1767204300000")
    with pytest.raises(ProtocolError, match=r"absurd timestamp 1767204300000 at \$\.data\.time\[1\]"):
        rest.candles(BTC, Timeframe.Min5, START_MS, END_MS).parse(body)


def test_integers_in_exponent_form_are_read() -> None:
    body = sample("rest-kline-min5").replace(b"1767204000", b"1.767204E9").replace(b"1624650", b"1624650.0")
    request = rest.candles(BTC, Timeframe.Min5, START_MS, END_MS)
    assert request.parse(body) == request.parse(sample("rest-kline-min5"))


def test_a_symbol_cannot_leave_its_place_in_the_path() -> None:
    assert rest.depth("../x?y=1&z").path == "/api/v1/contract/depth/..%2Fx%3Fy%3D1%26z"


# --- Contracts ----------------------------------------------------------------------------------------------------


def listed(**changes: object) -> Contract:
    body = json.loads(sample("rest-detail-single"))
    body["data"].update(changes)
    return rest.contract("BTC_USDT").parse(json.dumps(body).encode())


@pytest.mark.parametrize("state", [1, 2, 3, 4])
def test_only_state_0_is_trading(state: int) -> None:
    assert listed(state=0).is_trading
    assert not listed(state=state).is_trading


def test_a_permission_for_orders_says_nothing_about_trading() -> None:
    assert listed(apiAllowed=True) == listed(apiAllowed=False)


def test_a_contract_without_a_size_is_kept_and_not_trading() -> None:
    assert listed(contractSize=None).contract_size == 0
    assert not listed(contractSize=None).is_trading
    assert not listed(contractSize=0).is_trading


@pytest.mark.parametrize("field", ["baseCoin", "quoteCoin", "settleCoin", "state"])
def test_a_contract_with_a_null_that_numbers_hang_on_is_kept_and_not_trading(field: str) -> None:
    assert not listed(**{field: None}).is_trading


@pytest.mark.parametrize("field", ["symbol", "baseCoin", "quoteCoin", "settleCoin", "contractSize", "state"])
def test_a_list_that_lost_a_field_is_refused_by_its_name(field: str) -> None:
    body = json.loads(sample("rest-detail-list"))
    del body["data"][1][field]
    with pytest.raises(ProtocolError, match=rf"missing required field `{field}` - at `\$\.data\[1\]`"):
        rest.contracts().parse(json.dumps(body).encode())


def test_a_coin_margined_contract_is_known_by_its_settle_coin() -> None:
    assert listed(symbol="BTC_USD", quoteCoin="USD", settleCoin="BTC", contractSize=100).is_coin_margined


def test_what_is_absent_from_a_contract_has_a_harmless_value() -> None:
    contract = listed(conceptPlate=None, displayNameEn=None, openingTime=None, priceUnit=None, isHidden=None)
    assert contract.zones == ()
    assert contract.display_name == ""
    assert contract.opening_time_ms == 0
    assert contract.price_unit == 0
    assert contract.is_hidden is False


def test_an_opening_time_that_cannot_be_is_unknown() -> None:
    assert listed(openingTime=99_999_999_999_999).opening_time_ms == 0


def test_zones_are_lower_case_without_their_prefix() -> None:
    plates = ["mc-trade-zone-Stock", "mc-trade-zone-stockindex", "mc-trade-zone-ETF", "other"]
    assert listed(conceptPlate=plates).zones == ("stock", "stockindex", "etf", "other")


@pytest.mark.parametrize(
    ("plates", "base_coin", "asset_class"),
    [
        ([], "BTC", AssetClass.COIN),
        (["mc-trade-zone-pow"], "BTC", AssetClass.COIN),
        (["mc-trade-zone-tradfi", "mc-trade-zone-Stock"], "NVIDIA", AssetClass.STOCK),
        (["mc-trade-zone-ETF"], "QQQ", AssetClass.STOCK),
        (["mc-trade-zone-Stock", "mc-trade-zone-stockindex"], "NAS100", AssetClass.INDEX),
        (["mc-trade-zone-metals"], "GOLD", AssetClass.METAL),
        (["mc-trade-zone-Commodities"], "USOIL", AssetClass.COMMODITY),
        (["mc-trade-zone-Forex"], "EUR", AssetClass.FX),
        (["mc-trade-zone-tradfi"], "SKHYNIXSTOCK", AssetClass.STOCK),
        (["mc-trade-zone-tradfi"], "SOMETHING", AssetClass.OTHER),
    ],
)
def test_the_class_is_told_by_zones_and_not_by_type_or_permission(
    plates: list[str], base_coin: str, asset_class: AssetClass
) -> None:
    # 2 is documented as "suspended", and set on contracts that trade; apiAllowed is about orders.
    for noise in ({"type": 1, "apiAllowed": True}, {"type": 2, "apiAllowed": False}):
        assert listed(conceptPlate=plates, baseCoin=base_coin, **noise).asset_class is asset_class


@pytest.mark.parametrize(
    ("base_coin", "multiplier"),
    [("1000BONK", 1_000), ("1000000MOG", 1_000_000), ("10000SATS", 10_000), ("PEPE", 1), ("1INCH", 1), ("100X", 1)],
)
def test_a_number_before_the_name_is_how_many_coins_it_means(base_coin: str, multiplier: int) -> None:
    assert listed(baseCoin=base_coin).multiplier == multiplier


# --- Candles ------------------------------------------------------------------------------------------------------


def kline_body(times_s: list[int], **columns: object) -> bytes:
    ones: list[float] = [1.0] * len(times_s)
    names = ("open", "close", "high", "low", "vol", "amount", "realOpen", "realClose", "realHigh", "realLow")
    data: dict[str, object] = {"time": times_s} | dict.fromkeys(names, ones) | columns
    return json.dumps({"success": True, "code": 0, "data": data}).encode()


def minutes(first_s: int, count: int) -> list[int]:
    return [first_s + 60 * n for n in range(count)]


def test_volume_of_a_coin_margined_contract_is_turned_around() -> None:
    body = kline_body([1767204000], vol=[2539], amount=[8.0759])
    history = rest.candles(INVERSE, Timeframe.Min1, START_MS, END_MS).parse(body)
    assert [(row.contracts, row.base_volume, row.turnover) for row in history.candles] == [(2539, 8.0759, 253_900)]


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "start_s", "end_s"),
    [
        (1767204000_000, 1767204060_000, 1767204000, 1767204059),
        (1767204000_001, 1767204060_001, 1767204001, 1767204060),
        (1767204059_999, 1767204060_001, 1767204060, 1767204060),
    ],
)
def test_the_window_is_sent_in_seconds_with_both_ends_inside(
    start_ms: int, end_ms: int, start_s: int, end_s: int
) -> None:
    params = rest.candles(BTC, Timeframe.Min1, start_ms, end_ms).params
    assert params == {"interval": "Min1", "start": start_s, "end": end_s}


def test_the_end_is_exclusive_although_the_wire_includes_it() -> None:
    request = rest.candles(BTC, Timeframe.Min5, START_MS, 1767204600_000)
    assert request.params == {"interval": "Min5", "start": 1767204000, "end": 1767204599}
    history = request.parse(sample("rest-kline-min5"))
    assert history.candles == CANDLES[:2]


def test_a_short_answer_speaks_for_the_whole_window() -> None:
    history = rest.candles(BTC, Timeframe.Min1, START_MS, END_MS).parse(kline_body([1767204060, 1767204120]))
    assert (history.complete_from_ms, history.complete_to_ms) == (START_MS, END_MS)


@pytest.mark.parametrize("rows", [1990, 1992, 2000])
def test_a_full_answer_speaks_from_its_first_row_on(rows: int) -> None:
    end_s = 1767204000
    first_s = end_s - 60 * rows
    request = rest.candles(BTC, Timeframe.Min1, (end_s - 60 * 2000) * 1000, end_s * 1000)
    history = request.parse(kline_body(minutes(first_s, rows)))
    assert len(history.candles) == rows
    assert (history.complete_from_ms, history.complete_to_ms) == (first_s * 1000, end_s * 1000)


def test_an_answer_just_too_short_to_be_cut_speaks_for_the_whole_window() -> None:
    end_s = 1767204000
    start_ms = (end_s - 60 * 2000) * 1000
    request = rest.candles(BTC, Timeframe.Min1, start_ms, end_s * 1000)
    history = request.parse(kline_body(minutes(end_s - 60 * 1989, 1989)))
    assert history.complete_from_ms == start_ms


def test_a_window_of_more_than_2000_candles_is_spoken_for_from_its_end() -> None:
    """Whether the exchange counts 2,000 rows or 2,000 minutes is not known; a quiet contract must not hide the rest."""
    end_s = 1767204000
    request = rest.candles(BTC, Timeframe.Min1, (end_s - 60 * 5000) * 1000, end_s * 1000)
    assert request.parse(kline_body([])).complete_from_ms == (end_s - 60 * 2000) * 1000
    assert request.parse(kline_body([end_s - 600])).complete_from_ms == (end_s - 60 * 2000) * 1000
    assert request.parse(kline_body([end_s - 60 * 3000])).complete_from_ms == (end_s - 60 * 3000) * 1000


def test_an_answer_about_another_window_speaks_for_nothing_it_does_not_hold() -> None:
    """Times in the wrong unit are ignored silently and the latest candles come back."""
    later_s = END_MS // 1000 + 600
    history = rest.candles(BTC, Timeframe.Min1, START_MS, END_MS).parse(kline_body(minutes(later_s, 3)))
    assert history.candles == ()
    assert history.complete_from_ms == history.complete_to_ms == END_MS


def test_an_answer_that_ends_before_the_window_speaks_for_nothing() -> None:
    earlier_s = START_MS // 1000 - 600
    history = rest.candles(BTC, Timeframe.Min1, START_MS, END_MS).parse(kline_body(minutes(earlier_s, 3)))
    assert history.candles == ()
    assert history.complete_from_ms == history.complete_to_ms


def test_an_answer_overlapping_the_window_speaks_for_the_overlap() -> None:
    history = rest.candles(BTC, Timeframe.Min1, START_MS, END_MS).parse(kline_body(minutes(START_MS // 1000 - 120, 5)))
    assert [row.open_time_ms for row in history.candles] == [START_MS, START_MS + 60_000, START_MS + 120_000]
    assert (history.complete_from_ms, history.complete_to_ms) == (START_MS, START_MS + 180_000)


def test_absent_real_prices_are_none() -> None:
    body = json.loads(sample("rest-kline-min5"))
    for name in ("realOpen", "realClose", "realHigh", "realLow"):
        del body["data"][name]
    history = rest.candles(BTC, Timeframe.Min5, START_MS, END_MS).parse(json.dumps(body).encode())
    assert [row.real_open for row in history.candles] == [None, None, None]
    assert [row.open for row in history.candles] == [87587.5, 87639, 87837.4]


@pytest.mark.parametrize("column", ["open", "close", "high", "low", "vol", "amount", "realHigh"])
def test_columns_of_different_lengths_are_refused(column: str) -> None:
    body = kline_body([1767204000, 1767204060], **{column: [1.0]})
    with pytest.raises(ProtocolError, match="kline columns of different lengths"):
        rest.candles(BTC, Timeframe.Min1, START_MS, END_MS).parse(body)


@pytest.mark.parametrize("times_s", [[1767204060, 1767204000], [1767204000, 1767204000]])
def test_times_that_do_not_rise_are_refused(times_s: list[int]) -> None:
    with pytest.raises(ProtocolError, match="kline times do not rise"):
        rest.candles(BTC, Timeframe.Min1, START_MS, END_MS).parse(kline_body(times_s))


# --- Any bytes ----------------------------------------------------------------------------------------------------


REQUESTS: list[Request[Any]] = list({case[0].path: case[0] for case in ANSWERS.values()}.values())
BODIES = [sample(name) for name in sample_names("rest-")]


def answer_or_typed_error(parse: Callable[[bytes], object], body: bytes) -> None:
    try:
        parse(body)
    except (ProtocolError, ApiError, RateLimited):
        return


@settings(deadline=None)
@given(st.sampled_from(REQUESTS), st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_a_typed_error(request_: Request[Any], body: bytes) -> None:
    answer_or_typed_error(request_.parse, body)
    answer_or_typed_error(request_.parse, b'{"success":true,"data":' + body)


@settings(deadline=None)
@given(st.sampled_from(REQUESTS), st.sampled_from(BODIES), st.data())
def test_a_changed_answer_is_an_answer_or_a_typed_error(
    request_: Request[Any], body: bytes, draw: st.DataObject
) -> None:
    changed = bytearray(body)
    for _ in range(draw.draw(st.integers(0, 4))):
        at = draw.draw(st.integers(0, len(changed)))
        changed[at : at + draw.draw(st.integers(0, 5))] = draw.draw(st.binary(max_size=5))
    answer_or_typed_error(request_.parse, bytes(changed))


@pytest.mark.parametrize("opening", [b"[", b'{"success":true,"data":[', b'{"data":'])
def test_bottomless_nesting_is_refused(opening: bytes) -> None:
    with pytest.raises(ProtocolError, match="recursion"):
        rest.tickers().parse(opening * 50_000)
