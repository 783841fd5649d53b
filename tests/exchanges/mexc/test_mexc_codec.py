"""Odd, old, broken and hostile frames: a message comes out, or a ProtocolError that says why."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import Any, get_args

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mexc_frames import sample, sample_names

from perpwatch.errors import ProtocolError
from perpwatch.exchanges.adapter import Ack, Ignored, Message, Refusal, ServerPing
from perpwatch.exchanges.mexc import codec
from perpwatch.exchanges.mexc.codec import decode
from perpwatch.exchanges.mexc.messages import PushTickers
from perpwatch.model import CandleUpdate, FundingRate, Side, Tickers, Trades

FRAMES = [sample(name) for name in sample_names("ws-") if not name.startswith("ws-cmd")]


def reason(frame: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode(frame)
    return caught.value.reason


# --- Numbers ------------------------------------------------------------------------------------------------------


def test_integers_in_exponent_form_are_integers() -> None:
    frame = (
        b'{"symbol":"BTC_USDT","data":{"symbol":"BTC_USDT","interval":"Min1","t":1.79086998E+9,"o":8.41094E4,"c":84062.6,'
        b'"h":84114.5,"l":84054,"a":1.77912894e6,"q":2.11601E5,"ro":84112,"rc":84062.6,"rh":84114.5,"rl":84054},'
        b'"channel":"push.kline","ts":1.790870038344e12}'
    )
    assert decode(frame) == decode(sample("ws-push-kline"))


def test_trades_in_exponent_form_are_trades() -> None:
    frame = (
        b'{"symbol":"BTC_USDT","data":[{"p":8.40626E4,"v":1.3e1,"T":1E0,"O":3,"M":1,"t":1.790870038339E12,'
        b'"i":"16435741160","cts":"1790870038339"}],"channel":"push.deal","ts":1.790870038339E12}'
    )
    assert decode(frame) == decode(sample("ws-push-deal"))


def test_one_exponent_among_a_thousand_tickers_loses_none() -> None:
    rows = [json.loads(sample("ws-push-tickers"))["data"][0] | {"symbol": f"C{n}_USDT"} for n in range(1000)]
    text = json.dumps({"channel": "push.tickers", "data": rows, "ts": 1790870034312})
    frame = text.replace("1790870034312", "1.790870034312E12", 1).encode()
    message = decode(frame)
    assert isinstance(message, Tickers)
    assert [row.symbol for row in message.tickers] == [f"C{n}_USDT" for n in range(1000)]
    assert message.tickers[0].event_time_ms == 1790870034312


def test_a_fraction_is_not_rounded_into_a_time() -> None:
    frame = sample("ws-push-kline").replace(b"1790869980", b"1790869980.5")
    assert reason(frame) == "Expected `int`, got `float` - at `$.data.t`"


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1" * 400])
def test_an_infinite_price_is_refused(number: bytes) -> None:
    assert "out of range" in reason(sample("ws-push-kline").replace(b"84109.4", number))


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"nan"])
def test_words_for_numbers_are_not_json(number: bytes) -> None:
    assert "JSON is malformed" in reason(sample("ws-push-kline").replace(b"84109.4", number))


@pytest.mark.parametrize("key", [b'"o":84109.4', b'"q":211601', b'"a":1779128.94'])
def test_negative_prices_and_sizes_are_refused(key: bytes) -> None:
    name, number = key.split(b":")
    assert "Expected `float` >= 0.0" in reason(sample("ws-push-kline").replace(key, name + b":-" + number))


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("ws-push-kline", b"1790870038344", b"1790870038", "absurd timestamp 1790870038 at $.ts"),  # seconds
        ("ws-push-kline", b"1790870038344", b"0", "absurd timestamp 0 at $.ts"),
        ("ws-push-kline", b"1790870038344", b"4102444800000", "absurd timestamp 4102444800000 at $.ts"),  # 2100
        ("ws-push-kline", b"1790869980", b"1790869980000", "absurd timestamp 1790869980000 at $.data.t"),  # ms
        ("ws-push-kline", b"1790869980", b"-60", "absurd timestamp -60 at $.data.t"),
        ("ws-push-kline", b"1790869980", b"1790869981", "absurd timestamp 1790869981 at $.data.t"),  # within a minute
        ("ws-push-deal", b'"t":1790870038339', b'"t":12', "absurd timestamp 12 at $.data[0].t"),
        ("ws-pong", b'"data":1789498336785', b'"data":5', "absurd timestamp 5 at $.data"),
        ("ws-ack-sub.depth", b"1789498321789", b'"77"', "absurd timestamp 77 at $.ts"),
    ],
)
def test_an_absurd_time_is_refused_by_name(name: str, old: bytes, new: bytes, expected: str) -> None:
    frame = sample(name)
    assert old in frame
    assert reason(frame.replace(old, new)).startswith(expected)


def test_the_first_and_last_believable_times_are_believed() -> None:
    for time_ms in (1420070400000, 4102444799999):
        update = decode(sample("ws-push-kline").replace(b"1790870038344", str(time_ms).encode()))
        assert isinstance(update, CandleUpdate)
        assert update.event_time_ms == time_ms


def test_a_side_other_than_buy_or_sell_is_refused() -> None:
    assert reason(sample("ws-push-deal").replace(b'"T":1', b'"T":3')) == "Invalid enum value 3 - at `$.data[0].T`"


def test_a_missing_server_time_is_zero() -> None:
    update = decode(sample("ws-push-kline").replace(b',"ts":1790870038344', b""))
    assert isinstance(update, CandleUpdate)
    assert update.event_time_ms == 0


# --- Shapes -------------------------------------------------------------------------------------------------------


def test_an_odd_ticker_row_is_left_out_and_counted() -> None:
    good = json.loads(sample("ws-push-tickers"))["data"][0]
    rows = [
        good,
        good | {"lastPrice": None},
        good | {"symbol": ""},
        "row",
        good | {"symbol": "MX_USDT", "lastPrice": 0},
    ]
    message = decode(json.dumps({"channel": "push.tickers", "data": rows, "ts": 1790870034312}).encode())
    assert isinstance(message, PushTickers)
    assert [row.symbol for row in message.tickers] == ["WCT_USDT", "MX_USDT"]
    assert message.unreadable_rows == 3
    assert message.event_time_ms == 1790870034312


def test_a_ticker_frame_without_one_readable_row_is_refused() -> None:
    assert reason(b'{"channel":"push.tickers","data":[{"symbol":"A_USDT"}],"ts":1790870034312}') == (
        "Object missing required field `lastPrice`"
    )


def test_a_ticker_frame_without_rows_is_empty() -> None:
    message = decode(b'{"channel":"push.tickers","data":[],"ts":1790870034312}')
    assert message == PushTickers(tickers=(), event_time_ms=1790870034312)


def test_a_trade_of_the_old_object_form_in_exponent_form_is_a_trade() -> None:
    message = decode(
        b'{"channel":"push.deal","data":{"M":1,"O":3,"T":2,"p":39766.5,"t":1.646999591755E12,"v":32},'
        b'"symbol":"BTC_USDT","ts":1646999591755}'
    )
    assert isinstance(message, Trades)
    assert [(trade.price, trade.side) for trade in message.trades] == [(39766.5, Side.SELL)]


def test_a_numeric_trade_id_is_kept_as_documented() -> None:
    message = decode(sample("ws-push-deal").replace(b'"16435741160"', b"16435741160"))
    assert isinstance(message, Trades)
    assert message.trades[0].trade_id == 16435741160


def test_a_funding_rate_under_its_documented_name_is_read() -> None:
    message = decode(sample("ws-push-funding.rate").replace(b'"rate"', b'"fundingRate"'))
    assert isinstance(message, FundingRate)
    assert message.rate == 0.000081


def test_a_funding_push_without_a_rate_is_refused() -> None:
    assert reason(sample("ws-push-funding.rate").replace(b'"rate"', b'"x"')) == "a funding rate without rate"


def test_the_server_s_ping_asks_for_its_number_back() -> None:
    assert decode(b'{"ping":1587453241453}') == ServerPing(reply=b'{"pong":1587453241453}')


def test_an_acknowledged_unsubscription_needs_no_reaction() -> None:
    message = decode(b'{"channel":"rs.unsub.kline","data":"success","ts":1789498321789}')
    assert message == Ignored(what="rs.unsub.kline", event_time_ms=1789498321789)


def test_an_acknowledgement_carries_the_channel_of_the_stream() -> None:
    message = decode(b'{"channel":"rs.sub.depth.full","data":"success","ts":"1587453241453"}')
    assert message == Ack(channel="depth.full", event_time_ms=1587453241453)


def test_an_acknowledgement_that_is_no_success_is_a_refusal() -> None:
    message = decode(b'{"channel":"rs.sub.kline","data":"Contract doesn\'t exist!","ts":1587453241453}')
    assert message == Refusal(
        text="Contract doesn't exist!", symbol=None, closes_connection=False, event_time_ms=1587453241453
    )


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b'{"channel":"push.position","data":{},"ts":1}', "unknown channel 'push.position'"),
        (b'{"channel":"rs.sub.order","data":"success"}', "unknown channel 'rs.sub.order'"),
        (b'{"channel":"rs.login","data":"success"}', "unknown channel 'rs.login'"),
        (b'{"channel":"hello"}', "unknown channel 'hello'"),
        (b'{"channel":""}', "unknown channel ''"),
        (b'{"channel":7}', "no channel"),
        (b'{"data":7}', "no channel"),
        (b"{}", "no channel"),
        (b"[]", "a JSON list where an object was expected"),
        (b"null", "a JSON NoneType where an object was expected"),
        (b'"pong"', "a JSON str where an object was expected"),
        (b'{"ping":"x"}', "Expected `int`, got `str` - at `$.ping`"),
        (b'{"channel":"pong","data":"x"}', "Expected `int`, got `str` - at `$.data`"),
        (b'{"channel":"push.kline","data":[]}', "Expected `object`, got `array` - at `$.data`"),
        (b'{"channel":"push.deal","data":{"deals":[]}}', "Object missing required field `p` - at `$.data[0]`"),
    ],
)
def test_a_frame_without_meaning_says_why(frame: bytes, expected: str) -> None:
    assert reason(frame) == expected


@pytest.mark.parametrize("frame", [b"", b"   ", b"<html>", b'{"channel":"push.kline"', b"\xff\xfe\x00", b"PING"])
def test_what_is_not_json_says_so(frame: bytes) -> None:
    assert reason(frame).startswith("not JSON: ")


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"channel":"push.kline","x":[' + b"["])
def test_bottomless_nesting_is_refused(opening: bytes) -> None:
    assert "recursion" in reason(opening * 50_000)


def test_the_frame_is_kept_with_the_error() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(b'{"channel":"push.unknown"}')
    assert caught.value.frame == b'{"channel":"push.unknown"}'


# --- Gzip ---------------------------------------------------------------------------------------------------------


def test_a_gzip_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = gzip.compress(b" " * (17 * 1024 * 1024))
    assert len(bomb) < 20_000
    assert reason(bomb) == "inflates to more than 16777216 bytes"


def test_gzip_of_exactly_the_bound_is_read() -> None:
    frame = sample("ws-pong")
    assert decode(gzip.compress(frame + b" " * (16 * 1024 * 1024 - len(frame)))) == decode(frame)


def test_gzip_with_something_after_it_is_refused() -> None:
    assert reason(gzip.compress(sample("ws-pong")) + b"more") == "4 bytes after the end of gzip"


def test_gzip_inside_gzip_is_refused() -> None:
    assert reason(gzip.compress(gzip.compress(sample("ws-pong")))) == "gzip inside gzip"


def test_gzip_of_another_wrapping_is_not_json() -> None:
    assert reason(zlib.compress(sample("ws-pong"))).startswith("not JSON: ")


@settings(deadline=None)
@given(st.sampled_from(FRAMES), st.data())
def test_truncated_gzip_is_refused(frame: bytes, draw: st.DataObject) -> None:
    packed = gzip.compress(frame)
    cut = draw.draw(st.integers(2, len(packed) - 1))
    assert reason(packed[:cut]) == "truncated gzip"


# --- Any bytes ----------------------------------------------------------------------------------------------------


def message_or_protocol_error(frame: bytes) -> None:
    try:
        message = decode(frame)
    except ProtocolError:
        return
    assert isinstance(message, get_args(Message))


@settings(deadline=None)
@given(st.binary(max_size=400))
@example(b"\x1f\x8b")
@example(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")
def test_any_bytes_are_a_message_or_a_protocol_error(frame: bytes) -> None:
    message_or_protocol_error(frame)
    message_or_protocol_error(b"\x1f\x8b" + frame)
    message_or_protocol_error(gzip.compress(frame))


@settings(deadline=None)
@given(st.sampled_from(FRAMES), st.data())
def test_a_real_frame_with_changed_bytes_is_a_message_or_a_protocol_error(frame: bytes, draw: st.DataObject) -> None:
    changed = bytearray(frame)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(changed)))
        changed[at : at + draw.draw(st.integers(0, 5))] = draw.draw(st.binary(max_size=5))
    message_or_protocol_error(bytes(changed))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]


@settings(deadline=None)
@given(st.sampled_from(FRAMES), st.data())
def test_a_real_frame_with_a_changed_value_is_a_message_or_a_protocol_error(frame: bytes, draw: st.DataObject) -> None:
    value = json.loads(frame)
    *way, last = draw.draw(st.sampled_from(_places(value)[1:]))
    holder = value
    for key in way:
        holder = holder[key]
    if draw.draw(st.booleans()):
        holder[last] = draw.draw(_JSON)
    else:
        del holder[last]
    message_or_protocol_error(json.dumps(value).encode())


@settings(deadline=None)
@given(st.sampled_from(FRAMES), st.data())
def test_how_a_number_is_written_does_not_matter(frame: bytes, draw: st.DataObject) -> None:
    """Any number outside a string may be written with an exponent; the meaning stays."""
    numbers = list(re.finditer(rb"(?<=[:\[,])(-?)(\d+)(?:\.(\d+))?(?=[,\]}])", frame))
    assume(numbers)
    chosen = draw.draw(st.sampled_from(numbers))
    sign, whole, decimals = chosen[1], chosen[2], chosen[3] or b""
    zeros = draw.draw(st.integers(0, 12))
    digits = (whole + decimals).lstrip(b"0")
    rewritten = b"%s%s%sE-%d" % (sign, digits, b"0" * zeros, len(decimals) + zeros) if digits else b"0E5"
    assert decode(frame[: chosen.start()] + rewritten + frame[chosen.end() :]) == decode(frame)


def test_whole_floats_become_integers_everywhere_and_others_stay() -> None:
    value = codec.with_integers({"a": [1.0, 1.5, {"b": -2e3}], "c": 1e300, "d": "1.0", "e": True, "f": None})
    assert value == {"a": [1, 1.5, {"b": -2000}], "c": 1e300, "d": "1.0", "e": True, "f": None}
    assert type(value["a"][0]) is int
    assert type(value["c"]) is float
