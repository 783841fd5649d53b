"""MexcFutures as the rest of the program sees it."""

from __future__ import annotations

import pytest
from mexc_frames import sample

from perpwatch.exchanges.adapter import Adapter, Limits, Pong
from perpwatch.exchanges.mexc import MexcFutures, corrected_websocket_url
from perpwatch.model import Contract, Kind, Stream, Timeframe, stream_of_candles

_: Adapter = MexcFutures()

MEXC = MexcFutures()


def test_addresses_are_the_current_ones() -> None:
    assert MEXC.name == "mexc"
    assert MEXC.websocket_url == "wss://contract.mexc.com/edge"
    assert MEXC.rest_url == "https://api.mexc.com"


def test_addresses_and_limits_can_be_replaced() -> None:
    other = MexcFutures(websocket_url="ws://127.0.0.1:8765", rest_url="http://127.0.0.1:8765")
    assert (other.websocket_url, other.rest_url) == ("ws://127.0.0.1:8765", "http://127.0.0.1:8765")
    assert other.limits == MEXC.limits


def test_limits_are_the_ones_the_documentation_of_limits_gives() -> None:
    assert MEXC.limits == Limits(
        max_connections=10,
        max_subscriptions_per_connection=100,
        commands_per_second=10,
        dials_per_second=1,
        ping_interval_s=15,
        pong_timeout_s=35,
        ack_timeout_s=5,
        connection_lifetime_s=82_800,
        max_frame_bytes=4_194_304,
        requests_per_second=5,
        max_candles_per_request=2_000,
    )


def test_candles_come_in_the_exchange_s_ten_intervals() -> None:
    names = ["Min1", "Min5", "Min15", "Min30", "Min60", "Hour4", "Hour8", "Day1", "Week1", "Month1"]
    assert [timeframe.value for timeframe in MEXC.timeframes] == names


def test_a_stream_is_spelled_the_exchange_s_way() -> None:
    stream = stream_of_candles("BTC_USDT")
    assert MEXC.channel(stream) == "kline"
    assert MEXC.subscribe(stream) == sample("ws-cmd-sub.kline")
    assert MEXC.unsubscribe(stream) == sample("ws-cmd-unsub.kline")
    assert MEXC.channel(Stream(Kind.DEPTH_FULL, "BTC_USDT")) == "depth.full"
    assert MEXC.ping() == sample("ws-cmd-ping")
    assert MEXC.decode(sample("ws-pong")) == Pong(server_time_ms=1789498336785)


def test_requests_go_to_the_documented_paths() -> None:
    contract = Contract("BTC_USDT", "BTC", "USDT", "USDT", 0.0001)
    assert MEXC.server_time().path == "/api/v1/contract/ping"
    assert MEXC.contracts().path == "/api/v1/contract/detail"
    assert MEXC.contract("BTC_USDT").params == {"symbol": "BTC_USDT"}
    assert MEXC.tickers().path == "/api/v1/contract/ticker"
    assert MEXC.candles(contract, Timeframe.Min1, 0, 60_000).path == "/api/v1/contract/kline/BTC_USDT"


def test_a_person_finds_the_contract_at_its_page() -> None:
    assert MEXC.symbol_page("BTC_USDT") == "https://www.mexc.com/futures/BTC_USDT"


@pytest.mark.parametrize(
    ("url", "corrected"),
    [
        ("wss://contract.mexc.com/ws", "wss://contract.mexc.com/edge"),
        ("wss://contract.mexc.com/ws/", "wss://contract.mexc.com/edge"),
        ("wss://contract.mexc.co/ws", "wss://contract.mexc.co/edge"),
        ("wss://futures.mexc.com/ws?a=1", "wss://futures.mexc.com/edge?a=1"),
        ("wss://contract.mxc.com/ws", "wss://contract.mexc.com/edge"),
    ],
)
def test_an_old_address_is_corrected_with_a_warning(url: str, corrected: str) -> None:
    address, warning = corrected_websocket_url(url)
    assert address == corrected
    assert warning is not None
    assert url in warning
    assert corrected in warning


@pytest.mark.parametrize(
    "url",
    [
        "wss://contract.mexc.com/edge",
        "wss://futures.mexc.com/edge",
        "ws://127.0.0.1:8765/ws",
        "wss://example.com/ws",
        "wss://contract.mexc.com.example.com/ws",
    ],
)
def test_any_other_address_is_left_alone(url: str) -> None:
    assert corrected_websocket_url(url) == (url, None)


def test_the_spot_address_is_kept_with_a_warning() -> None:
    url = "wss://wbs-api.mexc.com/ws"
    assert corrected_websocket_url(url) == (
        url,
        "wss://wbs-api.mexc.com/ws is the spot market's address; futures are at wss://contract.mexc.com/edge",
    )
