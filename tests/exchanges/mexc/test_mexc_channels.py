"""Commands, written and read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mexc_frames import sample, sample_names

from perpwatch.errors import ProtocolError
from perpwatch.exchanges.mexc import channels
from perpwatch.exchanges.mexc.messages import Push, wire_tag
from perpwatch.model import Kind, Stream, Timeframe, stream_of_candles

SUBSCRIPTIONS = {
    "ws-cmd-sub.tickers": Stream(Kind.TICKERS),
    "ws-cmd-sub.ticker": Stream(Kind.TICKER, "BTC_USDT"),
    "ws-cmd-sub.deal": Stream(Kind.TRADES, "BTC_USDT"),
    "ws-cmd-sub.deal-unaggregated": Stream(Kind.TRADES, "BTC_USDT", "unmerged"),
    "ws-cmd-sub.depth": Stream(Kind.DEPTH, "BTC_USDT"),
    "ws-cmd-sub.depth-unmerged": Stream(Kind.DEPTH, "BTC_USDT", "unmerged"),
    "ws-cmd-sub.depth.full": Stream(Kind.DEPTH_FULL, "BTC_USDT", "5"),
    "ws-cmd-sub.depth.step": Stream(Kind.DEPTH_STEP, "BTC_USDT", "10"),
    "ws-cmd-sub.kline": stream_of_candles("BTC_USDT", Timeframe.Min1),
    "ws-cmd-sub.funding.rate": Stream(Kind.FUNDING_RATE, "BTC_USDT"),
    "ws-cmd-sub.index.price": Stream(Kind.INDEX_PRICE, "BTC_USDT"),
    "ws-cmd-sub.fair.price": Stream(Kind.FAIR_PRICE, "BTC_USDT"),
    "ws-cmd-sub.contract": Stream(Kind.CONTRACTS),
    "ws-cmd-sub.event.contract": Stream(Kind.EVENT_CONTRACTS),
}
UNSUBSCRIPTIONS = {
    "ws-cmd-unsub.tickers": Stream(Kind.TICKERS),
    "ws-cmd-unsub.deal": Stream(Kind.TRADES, "BTC_USDT"),
    "ws-cmd-unsub.kline": stream_of_candles("BTC_USDT", Timeframe.Min1),
}
#: The obsolete top-level gzip switch is understood and never sent.
READ_ONLY = {"ws-cmd-sub.kline-gzip-off": stream_of_candles("BTC_USDT", Timeframe.Min1)}


@pytest.mark.parametrize("name", SUBSCRIPTIONS)
def test_a_subscription_is_written_as_documented(name: str) -> None:
    assert json.loads(channels.subscribe(SUBSCRIPTIONS[name])) == json.loads(sample(name))


@pytest.mark.parametrize("name", UNSUBSCRIPTIONS)
def test_an_unsubscription_is_written_as_documented(name: str) -> None:
    assert json.loads(channels.unsubscribe(UNSUBSCRIPTIONS[name])) == json.loads(sample(name))


@pytest.mark.parametrize("name", SUBSCRIPTIONS | UNSUBSCRIPTIONS | READ_ONLY)
def test_a_documented_command_is_read_as_its_stream(name: str) -> None:
    expected = (SUBSCRIPTIONS | UNSUBSCRIPTIONS | READ_ONLY)[name]
    assert channels.stream_of(channels.parse_command(sample(name))) == expected


def test_ping_is_written_and_read_as_documented() -> None:
    assert sample("ws-cmd-ping") == channels.PING
    command = channels.parse_command(channels.PING)
    assert (command.action, command.channel) == ("ping", "")


def test_every_documented_command_is_expected() -> None:
    expected = {*SUBSCRIPTIONS, *UNSUBSCRIPTIONS, *READ_ONLY, "ws-cmd-ping"}
    assert expected == set(sample_names("ws-cmd"))


def test_every_kind_has_a_channel_and_every_channel_a_push() -> None:
    for kind in Kind:
        assert channels.parse_channel(channels.channel(Stream(kind))) is kind
    names = {channels.channel(Stream(kind)) for kind in Kind}
    assert {f"push.{name}" for name in names} == {wire_tag(push) for push in Push.__args__}


def test_a_channel_the_exchange_does_not_have_is_unknown() -> None:
    assert channels.parse_channel("position") is None


def test_depth_full_always_sends_a_limit() -> None:
    command = channels.subscribe(Stream(Kind.DEPTH_FULL, "BTC_USDT"))
    assert command == b'{"method":"sub.depth.full","param":{"symbol":"BTC_USDT","limit":20}}'


@pytest.mark.parametrize(
    "stream",
    [
        Stream(Kind.TICKER),
        Stream(Kind.CANDLES, "BTC_USDT"),
        Stream(Kind.CANDLES, "BTC_USDT", "Hour1"),
        Stream(Kind.CANDLES, "", "Min1"),
        Stream(Kind.DEPTH_STEP, "BTC_USDT"),
        Stream(Kind.DEPTH_FULL, "BTC_USDT", "many"),
        Stream(Kind.TRADES, "BTC_USDT", "merged"),
        Stream(Kind.FAIR_PRICE, "BTC_USDT", "Min1"),
        Stream(Kind.TICKERS, "BTC_USDT"),
        Stream(Kind.CONTRACTS, "", "x"),
    ],
    ids=str,
)
def test_a_stream_the_exchange_cannot_serve_is_refused_before_it_is_sent(stream: Stream) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        channels.subscribe(stream)
    with pytest.raises(ValueError):  # noqa: PT011
        channels.unsubscribe(stream)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b'{"method":"sub.kline","param":{"interval":"Min1"}}', "sub.kline without a symbol"),
        (b'{"method":"sub.deal"}', "sub.deal without a symbol"),
        (b'{"method":"sub.ticker","param":{"symbol":""}}', "sub.ticker without a symbol"),
        (b'{"method":"sub.nothing","param":{"symbol":"BTC_USDT"}}', "unknown method 'sub.nothing'"),
        (b'{"method":"login"}', "unknown method 'login'"),
        (b'{"method":"ping"}', "unknown method 'ping'"),
        (b'{"method":"get.kline","param":{"symbol":"BTC_USDT"}}', "unknown method 'get.kline'"),
    ],
)
def test_a_command_without_a_stream_says_why(frame: bytes, reason: str) -> None:
    command = channels.parse_command(frame)
    with pytest.raises(ProtocolError) as caught:
        channels.stream_of(command)
    assert caught.value.reason == reason


def test_an_unsupported_interval_is_left_for_the_exchange_to_refuse() -> None:
    command = channels.parse_command(b'{"method":"sub.kline","param":{"symbol":"BTC_USDT","interval":"Hour1"}}')
    assert channels.stream_of(command) == Stream(Kind.CANDLES, "BTC_USDT", "Hour1")


@pytest.mark.parametrize(
    "frame", [b"", b"ping", b"[]", b'{"method":7}', b'{"param":{}}', b"\xff\xfe", b'{"a":' * 9_000]
)
def test_what_is_no_command_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a command"):
        channels.parse_command(frame)


_SYMBOLS = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
_STREAMS = st.one_of(
    st.builds(Stream, st.sampled_from([Kind.TICKERS, Kind.CONTRACTS, Kind.EVENT_CONTRACTS])),
    st.builds(
        Stream,
        st.sampled_from([Kind.TICKER, Kind.FUNDING_RATE, Kind.INDEX_PRICE, Kind.FAIR_PRICE]),
        _SYMBOLS,
    ),
    st.builds(Stream, st.sampled_from([Kind.TRADES, Kind.DEPTH]), _SYMBOLS, st.sampled_from(["", "unmerged"])),
    st.builds(Stream, st.just(Kind.CANDLES), _SYMBOLS, st.sampled_from([frame.value for frame in Timeframe])),
    st.builds(Stream, st.just(Kind.DEPTH_FULL), _SYMBOLS, st.sampled_from(["5", "10", "20"])),
    st.builds(Stream, st.just(Kind.DEPTH_STEP), _SYMBOLS, st.sampled_from(["0.1", "1", "10"])),
)


@settings(deadline=None)
@given(_STREAMS)
def test_reading_a_command_gives_back_its_stream(stream: Stream) -> None:
    assert channels.stream_of(channels.parse_command(channels.subscribe(stream))) == stream
    assert channels.stream_of(channels.parse_command(channels.unsubscribe(stream))) == stream
