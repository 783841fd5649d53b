"""REST of the simulated exchange: windows, limits, and bad days."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from sim_client import sample
from test_sim_exchange import keys

from perpwatch.exchanges.mexc import MexcFutures
from perpwatch.model import MINUTE_MS, Timeframe
from perpwatch.sim import FaultEvent, Faults, SimulatedExchange, build
from perpwatch.sim.faults import changed

PREFIX = "/api/v1/contract/"
FREE = Faults(rest_limits=False)


@pytest.fixture
def exchange() -> SimulatedExchange:
    exchange = build(1, 40, faults=FREE)
    exchange.advance(exchange.now_ms + 10 * MINUTE_MS + 20_000)
    return exchange


def get(exchange: SimulatedExchange, path: str, **params: object) -> Any:
    text = {name: str(value) for name, value in params.items()}
    return json.loads(exchange.get(PREFIX + path, text, exchange.now_ms).body)


def rows(exchange: SimulatedExchange, symbol: str = "BTC_USDT", **params: object) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = get(exchange, f"kline/{symbol}", **params)["data"]
    assert len({len(column) for column in columns.values()}) == 1
    return columns


@pytest.mark.parametrize(
    ("path", "params", "name"),
    [
        ("ping", {}, "rest-ping"),
        ("detail", {}, "rest-detail-list"),
        ("ticker", {"symbol": "BTC_USDT"}, "rest-ticker-single"),
        ("ticker", {}, "rest-ticker-list"),
        ("kline/BTC_USDT", {"interval": "Min5"}, "rest-kline-min5"),
        ("deals/BTC_USDT", {}, "rest-deals"),
        ("index_price/BTC_USDT", {}, "rest-index_price"),
        ("fair_price/BTC_USDT", {}, "rest-fair_price"),
        ("funding_rate/BTC_USDT", {}, "rest-funding_rate"),
        ("funding_rate", {}, "rest-funding_rate-bulk"),
        ("funding_rate/history", {"symbol": "BTC_USDT"}, "rest-funding_rate-history"),
        ("risk_reverse", {}, "rest-risk_reverse"),
        ("support_currencies", {}, "rest-support_currencies"),
        ("depth/BTC_USDT", {"limit": 5}, "rest-depth"),
    ],
)
def test_answers_have_the_shape_of_the_recorded_ones(
    exchange: SimulatedExchange, path: str, params: dict[str, object], name: str
) -> None:
    def shape(answer: Any) -> Any:
        inner = answer["data"][0] if isinstance(answer["data"], list) else answer["data"]
        return keys(inner)

    ours, theirs = shape(get(exchange, path, **params)), shape(sample(name))
    if name == "rest-detail-list":  # the real one has more fields than anybody needs
        assert len(ours.keys() & theirs.keys()) > 45
        assert {field: kind for field, kind in ours.items() if field in theirs and theirs[field] != kind} == {}
    elif name.startswith("rest-ticker"):
        assert theirs.keys() == ours.keys()
    elif name in ("rest-funding_rate", "rest-depth"):  # fields have been added since these were recorded
        assert ours.keys() >= theirs.keys()
    else:
        assert ours == theirs


def test_rows_are_the_truth_with_the_open_candle_last(exchange: SimulatedExchange) -> None:
    market = exchange.market
    columns = rows(exchange, start=market.start_ms // 1_000)
    truth = [*market.truth("BTC_USDT"), market.running("BTC_USDT")]
    assert columns["time"] == [candle.open_time_ms // 1_000 for candle in truth if candle]
    for name, field in (("open", "open"), ("realHigh", "real_high"), ("vol", "contracts"), ("amount", "amount")):
        assert columns[name] == [getattr(candle, field) for candle in truth]


def test_both_ends_are_included_and_in_seconds(exchange: SimulatedExchange) -> None:
    start = exchange.market.start_ms // 1_000
    assert rows(exchange, start=start + 60, end=start + 180)["time"] == [start + 60, start + 120, start + 180]
    assert rows(exchange, start=start + 61, end=start + 179)["time"] == [start + 120]
    assert rows(exchange, interval="Min5", start=start, end=start + 600)["time"] == [start, start + 300, start + 600]


def test_the_latest_two_thousand_rows_win(exchange: SimulatedExchange) -> None:
    now = exchange.market.minute * 60
    columns = rows(exchange, start=now - 5_000 * 60, end=now)
    assert columns["time"] == list(range(now - 1_999 * 60, now + 60, 60))
    assert rows(exchange)["time"] == columns["time"]
    assert rows(exchange, end=now - 6_000)["time"][-1] == now - 6_000


def test_milliseconds_are_taken_for_seconds_far_away(exchange: SimulatedExchange) -> None:
    assert rows(exchange, start=exchange.now_ms)["time"] == []
    assert len(rows(exchange, startTime=exchange.now_ms - 60_000)["time"]) == 2_000


def test_a_window_without_candles_is_empty_and_successful(exchange: SimulatedExchange) -> None:
    old = exchange.now_ms // 1_000 - 31 * 86_400
    assert get(exchange, "kline/BTC_USDT", start=old - 600, end=old) == sample("rest-kline-empty-window")
    now = exchange.market.start_ms // 1_000
    assert rows(exchange, interval="Min15", start=now + 60, end=now + 180)["time"] == []


@pytest.mark.parametrize("is_flat", [False, True])
def test_minutes_without_trades_are_left_out_or_flat(is_flat: bool) -> None:
    exchange = build(1, 60, faults=Faults(rest_limits=False, flat_empty_minutes=is_flat))
    exchange.advance(exchange.now_ms + 60 * MINUTE_MS)
    market = exchange.market
    quiet = min(market.symbols, key=lambda symbol: len(market.truth(symbol)))
    columns = rows(exchange, quiet, start=market.start_ms // 1_000 - 86_400)
    steps = {after - before for before, after in zip(columns["time"], columns["time"][1:], strict=False)}
    if is_flat:
        assert steps == {60}
        flat = [row for row, volume in enumerate(columns["vol"]) if volume == 0]
        assert flat
        assert all(columns["open"][row] == columns["close"][row - 1] == columns["high"][row] for row in flat if row)
    else:
        assert len(steps) > 1
        assert min(columns["vol"]) > 0


@pytest.mark.parametrize("kind", ["index_price", "fair_price"])
def test_reference_candles_have_no_volume(exchange: SimulatedExchange, kind: str) -> None:
    columns = get(exchange, f"kline/{kind}/BTC_USDT", interval="Min1")["data"]
    assert len(columns["time"]) == 2_000
    assert set(columns["vol"]) == set(columns["amount"]) == {0.0}


def test_errors_are_those_of_the_exchange_with_status_200(exchange: SimulatedExchange) -> None:
    assert get(exchange, "kline/BTC_USDT", interval="Hour1") == sample("rest-err-600-interval")
    assert get(exchange, "detail", symbol="NOPE_USDT") == sample("rest-err-1001-detail")
    assert get(exchange, "deals/NOPE_USDT") == sample("rest-err-1001-depth")
    assert exchange.get(PREFIX + "detail", {"symbol": "NOPE_USDT"}, exchange.now_ms).status == 200
    assert exchange.get(PREFIX + "nothing", {}, exchange.now_ms).status == 404


def test_deals_are_the_newest_first(exchange: SimulatedExchange) -> None:
    deals = get(exchange, "deals/BTC_USDT", limit=10)["data"]
    times = [deal["t"] for deal in deals]
    assert len(deals) == 10
    assert times == sorted(times, reverse=True)


def test_history_may_be_older_than_the_stream(exchange: SimulatedExchange) -> None:
    exchange.set_faults(changed(exchange.faults, {"rest_lag_ms": 30_000}))
    assert rows(exchange)["time"][-1] == (exchange.market.minute - 1) * 60


def test_the_programs_own_parser_reads_the_answers(exchange: SimulatedExchange) -> None:
    adapter, now_ms = MexcFutures(), exchange.now_ms
    contracts = adapter.contracts()
    parsed = contracts.parse(exchange.get(contracts.path, {}, now_ms).body)
    assert {contract.symbol for contract in parsed} == set(exchange.market.symbols)
    tickers = adapter.tickers()
    assert len(tickers.parse(exchange.get(tickers.path, {}, now_ms).body)) == 40
    bitcoin = next(contract for contract in parsed if contract.symbol == "BTC_USDT")
    request = adapter.candles(bitcoin, Timeframe.Min1, exchange.market.start_ms, now_ms)
    params = {name: str(value) for name, value in (request.params or {}).items()}
    history = request.parse(exchange.get(request.path, params, now_ms).body)
    truth = exchange.market.truth("BTC_USDT")
    closed = [candle for candle in history.candles if candle.open_time_ms < exchange.market.minute * MINUTE_MS]
    assert [(c.open_time_ms, c.open, c.close, c.contracts, c.turnover) for c in closed] == [
        (c.open_time_ms, c.open, c.close, c.contracts, c.amount) for c in truth
    ]


# Limits


def codes(exchange: SimulatedExchange, path: str, count: int, every_ms: int) -> list[int]:
    answers = []
    for _ in range(count):
        answers.append(get(exchange, path)["code"])
        exchange.advance(exchange.now_ms + every_ms)
    return answers


def test_more_than_twenty_requests_in_two_seconds_are_too_frequent() -> None:
    exchange = build(1, 2)
    assert codes(exchange, "ping", 25, every_ms=50) == [0] * 20 + [510] * 5
    assert get(exchange, "ping") == sample("rest-err-510-rate")
    exchange.advance(exchange.now_ms + 2_000)
    assert get(exchange, "ping")["code"] == 0
    assert exchange.rest.counters.throttled == 6
    assert exchange.rest.counters.max_requests_per_2s == 26


def test_refused_requests_count_as_well() -> None:
    exchange = build(1, 2)
    answers = codes(exchange, "detail", 60, every_ms=100)
    # Whoever keeps asking twice as often as allowed is let in only once.
    assert answers == [0] * 10 + [510] * 50


def test_endpoints_have_budgets_of_their_own() -> None:
    exchange = build(1, 2)
    assert codes(exchange, "ticker", 11, every_ms=0)[-1] == 510
    assert codes(exchange, "ping", 1, every_ms=0) == [0]


def test_all_endpoints_can_share_one_budget() -> None:
    exchange = build(1, 2, faults=Faults(max_requests_per_2s=5))
    answers = [get(exchange, path)["code"] for path in ("ping", "ticker", "detail", "ping", "detail", "ping")]
    assert answers == [0, 0, 0, 0, 0, 510]


# Bad days


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ("rest_510", 200, b'{"success":false,"code":510,"message":"Requests are too frequent"}'),
        ("rest_html", 200, b"<!DOCTYPE html>"),
        ("rest_empty", 200, b""),
        ("rest_429", 429, b"Too Many Requests"),
        ("rest_403", 403, b"<HTML>"),
        ("rest_redirect", 302, b""),
        ("rest_timeout", 504, b""),
    ],
)
def test_a_share_of_answers_is_spoilt(fault: str, status: int, body: bytes) -> None:
    exchange = build(1, 2, faults=changed(FREE, {fault: 0.5}))
    answers = [exchange.get(PREFIX + "ping", {}, exchange.now_ms) for _ in range(100)]
    spoilt = [answer for answer in answers if not answer.body.startswith(b'{"success":true')]
    assert 30 < len(spoilt) < 70
    assert all(answer.status == status and answer.body.startswith(body) for answer in spoilt)
    assert {answer.delay_s is None for answer in spoilt} == {fault == "rest_timeout"}
    if fault == "rest_429":
        assert spoilt[0].headers["retry-after"] == "5"
    if fault == "rest_redirect":
        assert spoilt[0].headers["location"]


def test_a_truncated_body_is_no_json() -> None:
    exchange = build(1, 2, faults=changed(FREE, {"rest_truncated": 1.0}))
    with pytest.raises(json.JSONDecodeError):
        get(exchange, "detail")


def test_answers_can_be_slow() -> None:
    exchange = build(1, 2, faults=changed(FREE, {"rest_delay_ms": 1_500}))
    assert exchange.get(PREFIX + "ping", {}, exchange.now_ms).delay_s == 1.5


def test_a_storm_spoils_everything_until_it_is_over() -> None:
    exchange = build(1, 2, faults=FREE)
    exchange.schedule(FaultEvent(exchange.now_ms, "rest_510", duration_ms=10_000))
    exchange.advance(exchange.now_ms + 100)
    assert codes(exchange, "ping", 12, every_ms=1_000) == [510] * 10 + [0] * 2


def test_two_thousand_rows_cost_a_few_milliseconds() -> None:
    exchange = build(1, 60, faults=FREE)
    started = time.process_time()
    for symbol in exchange.market.symbols:
        rows(exchange, symbol)
    assert (time.process_time() - started) / 60 < 0.03
