"""What to ask of the exchange, and on which connection."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpwatch.feed.plan import Action, Connected, Way, parse_wish, plan, serve
from perpwatch.model import Kind, Stream, stream_of_candles

BRIEF = ["ticker", "kline_Min1", "kline_Min5", "kline_Min15", "kline_Min60"]
Placed = dict[str, list[Stream]]


def market(count: int) -> dict[str, float]:
    """Daily turnovers as on the real market: few large ones, many small ones."""
    return {f"C{number:04}_USDT": 2e9 / (number + 1) for number in range(count)}


def apply(actions: list[Action], placed: Placed, limit: int | None = None) -> Placed:
    """Carry out a plan; connections that close or drop streams do so before others take any."""
    after = {source: list(streams) for source, streams in placed.items()}
    for action in actions:
        if action.opens:
            assert action.source not in after
            after[action.source] = []
        for stream in action.unsubscribe:
            after[action.source].remove(stream)
    for action in actions:
        for stream in action.subscribe:
            assert stream not in after[action.source]
            after[action.source].append(stream)
            assert limit is None or len(after[action.source]) <= limit
    for action in actions:
        if action.closes:
            assert not after.pop(action.source)
    return after


def make(wanted: Mapping[Stream, float], placed: Placed, connections: int, room: int) -> list[Action]:
    have = [Connected(source, streams) for source, streams in placed.items()]
    return plan(wanted, have, max_connections=connections, per_connection=room)


def streams(count: int) -> dict[Stream, float]:
    return {stream_of_candles(symbol): turnover / 2e8 for symbol, turnover in market(count).items()}


# --- serve -----------------------------------------------------------------------------------------------------------


def test_the_whole_brief_fits_eight_connections_of_95() -> None:
    service = serve(market(750), [parse_wish(name) for name in BRIEF], capacity=8 * 95)
    assert len(service.rates) == 752  # a candle stream each, the tickers, and in a free place the listings
    assert service.polled == ()
    nothing = dict.fromkeys(Way, 0)
    assert service.ways == {
        "ticker": {**nothing, Way.MARKET_WIDE: 750},
        "kline_Min1": {**nothing, Way.STREAMED: 750},
        "kline_Min5": {**nothing, Way.DERIVED: 750},
        "kline_Min15": {**nothing, Way.DERIVED: 750},
        "kline_Min60": {**nothing, Way.DERIVED: 750},
    }
    placed = apply(make(service.rates, {}, 8, 95), {}, limit=95)
    assert len(placed) == 8
    assert sum(len(one) for one in placed.values()) == 752


def test_what_does_not_fit_is_named_and_is_the_least_traded() -> None:
    turnover = market(1_061)
    service = serve(turnover, [parse_wish(name) for name in BRIEF], capacity=10 * 95)
    assert service.polled == tuple(f"C{number:04}_USDT" for number in range(949, 1_061))
    assert service.ways["kline_Min1"][Way.STREAMED] == 949
    assert service.ways["kline_Min60"] == {**dict.fromkeys(Way, 0), Way.DERIVED: 949, Way.POLLED: 112}
    assert len(service.rates) == 950


def test_trades_get_what_is_left_most_traded_first() -> None:
    service = serve(market(10), [parse_wish("kline_Min1"), parse_wish("deals")], capacity=14)
    assert [stream.symbol for stream in service.rates if stream.kind is Kind.TRADES] == [
        "C0000_USDT",
        "C0001_USDT",
        "C0002_USDT",
    ]
    assert service.ways["deals"] == {**dict.fromkeys(Way, 0), Way.STREAMED: 3, Way.UNSERVED: 7}
    assert service.untold_trades[0] == "C0003_USDT"


def test_the_witness_is_taken_also_when_nobody_wished_for_it() -> None:
    assert Stream(Kind.TICKERS) in serve(market(3), [parse_wish("kline_Min1")], capacity=10).rates


def test_without_sockets_everything_is_polled() -> None:
    service = serve(market(3), [parse_wish(name) for name in BRIEF], capacity=0)
    assert service.rates == {}
    assert service.polled == ("C0000_USDT", "C0001_USDT", "C0002_USDT")


def test_an_unknown_wish_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'kline_Min3'; choose from ticker, deals, kline_Min1"):
        parse_wish("kline_Min3")


# --- plan ------------------------------------------------------------------------------------------------------------


def test_nothing_wanted_closes_everything() -> None:
    stream = stream_of_candles("BTC_USDT")
    assert make({}, {"ws-1": [stream]}, 3, 5) == [Action("ws-1", unsubscribe=(stream,), closes=True)]


def test_one_more_symbol_is_one_more_subscription() -> None:
    placed = apply(make(streams(20), {}, 3, 10), {})
    more = {**streams(20), stream_of_candles("NEW_USDT"): 0.1}
    actions = make(more, placed, 3, 10)
    assert [stream for action in actions for stream in action.subscribe] == [stream_of_candles("NEW_USDT")]
    assert [action.unsubscribe for action in actions] == [()]


def test_a_name_in_use_is_not_given_twice() -> None:
    actions = make(streams(15), {"ws-2": list(streams(5))}, 3, 5)
    assert [action.source for action in actions if action.opens] == ["ws-1", "ws-3"]


def test_a_nearly_empty_connection_is_drained() -> None:
    placed = {"ws-1": list(streams(50))[:30], "ws-2": list(streams(50))[30:33]}
    actions = make({stream: 1.0 for one in placed.values() for stream in one}, placed, 5, 50)
    assert {action.source for action in actions if action.closes} == {"ws-2"}
    assert [len(action.subscribe) for action in actions if action.source == "ws-1"] == [3]


def test_a_lowered_limit_moves_only_what_is_too_much() -> None:
    placed = {"ws-1": list(streams(40))}
    actions = make(streams(40), placed, 5, 25)
    after = apply(actions, placed, limit=25)
    assert {source: len(one) for source, one in after.items()} == {"ws-1": 25, "ws-2": 15}
    assert after["ws-1"] == placed["ws-1"][:25]


def test_load_is_spread_by_expected_messages() -> None:
    wanted = streams(400)
    placed = apply(make(wanted, {}, 5, 95), {})
    loads = [sum(wanted[stream] for stream in one) for one in placed.values()]
    assert max(loads) - min(loads) <= max(wanted.values())


universes = st.integers(0, 60).map(streams)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(data=st.data(), connections=st.integers(1, 6), room=st.integers(1, 12))
def test_whatever_is_wanted_is_served_once_within_the_limits_and_settles(
    data: st.DataObject, connections: int, room: int
) -> None:
    placed: Placed = {}
    for _ in range(data.draw(st.integers(1, 4))):
        everything = list(streams(60).items())
        wanted = dict(data.draw(st.lists(st.sampled_from(everything), unique=True, max_size=60)))
        before = {stream: source for source, one in placed.items() for stream in one}
        actions = make(wanted, placed, connections, room)
        placed = apply(actions, placed, limit=room)
        served = [stream for one in placed.values() for stream in one]
        assert sorted(served) == sorted(list(wanted)[: connections * room])
        assert len(placed) <= connections
        assert make(wanted, placed, connections, room) == []
        if not any(action.closes for action in actions):
            after = {stream: source for source, one in placed.items() for stream in one}
            assert all(after[stream] == source for stream, source in before.items() if stream in after)
        if data.draw(st.booleans()):
            connections = data.draw(st.integers(1, 6))
            room = min(room, data.draw(st.integers(1, 12)))
            placed = apply(make(wanted, placed, connections, room), placed, limit=None)
            served = [stream for one in placed.values() for stream in one]
            assert sorted(served) == sorted(list(wanted)[: connections * room])
