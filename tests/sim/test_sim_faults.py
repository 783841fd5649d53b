"""Every fault does what it says, and nothing else."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import Any

import msgspec
import pytest
from sim_client import Client, of

from perpwatch.errors import ConfigurationError, ConnectionFailed, ProtocolError
from perpwatch.exchanges.mexc import MexcFutures
from perpwatch.model import MINUTE_MS
from perpwatch.sim import FaultEvent, Faults, SimulatedExchange, build
from perpwatch.sim.faults import EventKind, changed, decoded

BASE = Faults(odd_numbers=0.0)


def watching(faults: Faults, *symbols: str, contracts: int = 6) -> Client:
    """A client subscribed to trades and candles of some symbols, the three most traded ones by default."""
    client = Client(build(1, contracts, faults=faults))
    for symbol in symbols or ("BTC_USDT", "ETH_USDT", "SOL_USDT"):
        client.say("sub.deal", symbol=symbol)
        client.say("sub.kline", symbol=symbol, interval="Min1")
    return client


def data(faults: Faults, seconds: float = 60) -> list[bytes]:
    client = watching(faults)
    before = len(client.raw)
    client.exchange.advance(client.exchange.now_ms + round(seconds * 1_000))
    client.hear_raw()
    return client.raw[before:]


def soon(exchange: SimulatedExchange, kind: EventKind, target: str = "", **more: Any) -> None:
    exchange.schedule(FaultEvent(exchange.now_ms, kind, target, **more))


CALM = data(BASE)


# Frames


def test_lost_frames_never_arrive() -> None:
    heard = data(Faults(odd_numbers=0.0, lose=0.2))
    assert 0.7 * len(CALM) < len(heard) < 0.9 * len(CALM)
    assert set(heard) < set(CALM)


def test_duplicated_frames_arrive_twice() -> None:
    heard = data(Faults(odd_numbers=0.0, duplicate=0.2))
    assert 1.1 * len(CALM) < len(heard) < 1.3 * len(CALM)
    assert [frame for frame, _ in itertools.groupby(heard)] == CALM


def test_reordered_frames_come_late_but_within_a_second() -> None:
    heard = data(Faults(odd_numbers=0.0, reorder=0.1), seconds=59)
    assert heard != CALM[: len(heard)]
    newest = 0
    for frame in heard:
        sent_ms = json.loads(frame)["ts"]
        assert newest - sent_ms <= 1_050
        newest = max(newest, sent_ms)
    assert len(heard) > 0.98 * sum(json.loads(frame)["ts"] <= newest for frame in CALM)


def test_a_late_frame_repeats_the_end_of_the_last_candle() -> None:
    client = watching(Faults(odd_numbers=0.0, late=1.0), "BTC_USDT")
    times = [frame["data"]["t"] for frame in of("push.kline", client.wait(180))]
    steps = [after - before for before, after in itertools.pairwise(times)]
    # Two ends of a minute were heard: each time forward, back to the late frame, and forward again.
    assert (steps.count(60), steps.count(-60)) == (4, 2)


def test_shrunk_volume_falls_within_a_candle() -> None:
    client = watching(Faults(odd_numbers=0.0, shrink=0.2), "BTC_USDT")
    rows = [(frame["data"]["t"], frame["data"]["q"]) for frame in of("push.kline", client.wait(60))]
    assert rows != sorted(rows)


def test_times_in_milliseconds() -> None:
    client = watching(Faults(odd_numbers=0.0, milliseconds=0.5), "BTC_USDT")
    times = {frame["data"]["t"] for frame in of("push.kline", client.wait(50))}
    assert times == {client.exchange.market.start_ms // 1_000, client.exchange.market.start_ms}


def test_malformed_frames_are_refused_or_understood_but_never_break_the_decoder() -> None:
    heard = data(Faults(odd_numbers=0.0, malformed=1.0))
    adapter, refused = MexcFutures(), 0
    for frame in heard:
        try:
            adapter.decode(frame)
        except ProtocolError:
            refused += 1
    assert len(heard) == len(CALM)
    assert refused > 0.5 * len(heard)


def test_compressed_frames_are_the_same_inside() -> None:
    heard = data(Faults(odd_numbers=0.0, gzip=1.0))
    assert [gzip.decompress(frame) for frame in heard] == CALM


def test_deals_can_take_their_old_form() -> None:
    client = watching(Faults(odd_numbers=0.0, deals_as_object=True))
    deals = of("push.deal", client.wait(5))
    assert deals
    assert all(frame["data"].keys() == {"p", "v", "T", "O", "M", "t"} for frame in deals)


# Connections


@pytest.mark.parametrize(("kind", "code"), [("drop", 1001), ("drop_abrupt", 1006)])
def test_a_dropped_connection_is_over_and_the_others_are_not(kind: EventKind, code: int) -> None:
    first = watching(BASE)
    second = Client(first.exchange)
    soon(first.exchange, kind, "connection:1")
    first.wait(1)
    assert first.session.closing is not None
    assert first.session.closing.seen_code == code
    assert first.exchange.sessions == [second.session]


def test_connections_drop_now_and_then() -> None:
    client = watching(Faults(drops_per_hour=60.0, drop_hang_up="abrupt"))
    client.wait(600)
    assert client.session.closing is not None
    assert client.session.closing.is_abrupt


def test_a_half_open_connection_says_nothing_not_even_pongs() -> None:
    client = watching(BASE)
    soon(client.exchange, "half_open", "connection:1", duration_ms=120_000)
    client.wait(1)
    client.frames.clear()
    client.wait(100)
    assert client.frames == []
    assert client.session.closing is None
    client.wait(60)
    assert of("pong", client.frames)
    assert of("push.deal", client.frames)


@pytest.mark.parametrize("target", ["", "all", "connection:1"])
def test_a_silent_connection_still_pongs(target: str) -> None:
    client = watching(BASE)
    soon(client.exchange, "silence", target, duration_ms=60_000)
    client.wait(1)
    client.frames.clear()
    assert client.wait(55) == []
    assert of("pong", client.frames)
    assert client.wait(10)


def test_one_symbol_or_one_topic_can_fall_silent() -> None:
    client = watching(BASE)
    soon(client.exchange, "silence", "BTC_USDT")
    soon(client.exchange, "silence", "kline:ETH_USDT")
    client.wait(1)
    heard = {(frame["symbol"], frame["channel"]) for frame in client.wait(30)}
    assert heard == {("ETH_USDT", "push.deal"), ("SOL_USDT", "push.deal"), ("SOL_USDT", "push.kline")}
    assert client.exchange.silenced() == ["BTC_USDT", "kline:ETH_USDT"]


def test_silence_leaves_the_market_as_it_was() -> None:
    silent, calm = watching(BASE), watching(BASE)
    soon(silent.exchange, "silence")
    for client in (silent, calm):
        client.wait(120)
    assert silent.exchange.market.truth("BTC_USDT") == calm.exchange.market.truth("BTC_USDT")


def test_a_connection_is_cut_at_the_end_of_its_life() -> None:
    client = watching(Faults(lifetime_s=86_400.0))
    client.exchange.advance(client.exchange.now_ms + 1)
    lived = watching(Faults(lifetime_s=300.0))
    lived.wait(299)
    assert lived.session.closing is None
    lived.wait(2)
    assert lived.session.closing is not None


@pytest.mark.parametrize(("refusal", "status"), [("403", 403), ("429", 429), ("close", None)])
def test_one_connection_too_many_is_refused(refusal: str, status: int | None) -> None:
    faults = changed(BASE, {"max_connections": 2, "dial_refusal": refusal})
    exchange = build(1, 2, faults=faults)
    clients = [Client(exchange), Client(exchange)]
    with pytest.raises(ConnectionFailed) as refused:
        Client(exchange)
    assert refused.value.status == status
    assert (exchange.counters.max_connections, exchange.counters.refused_dials) == (2, 1)
    exchange.disconnect(clients[0].session)
    Client(exchange)


@pytest.mark.parametrize("refusal", ["error", "silence", "close"])
def test_one_subscription_too_many_is_refused(refusal: str) -> None:
    client = Client(build(1, 6, faults=changed(BASE, {"max_subscriptions": 3, "limit_refusal": refusal})))
    symbols = client.exchange.market.symbols
    for symbol in symbols[:3]:
        assert client.say("sub.deal", symbol=symbol)[0]["data"] == "success"
    assert client.say("sub.deal", symbol=symbols[0])[0]["data"] == "success"
    answer = client.say("sub.deal", symbol=symbols[3])
    assert [frame["channel"] for frame in answer] == (["rs.error"] if refusal == "error" else [])
    assert (client.session.closing is not None) == (refusal == "close")
    assert client.exchange.counters.max_subscriptions == 3


def test_too_many_commands_a_second_are_refused() -> None:
    client = Client(build(1, 6, faults=changed(BASE, {"max_commands_per_second": 5})))
    channels = [client.ping()[0]["channel"] for _ in range(7)]
    assert channels == ["pong"] * 5 + ["rs.error"] * 2
    client.wait(1.1, ping=False)
    assert client.ping()[0]["channel"] == "pong"


def test_some_subscriptions_are_refused() -> None:
    client = Client(build(1, 30, faults=changed(BASE, {"refuse_subscriptions": 0.5})))
    answers = [client.say("sub.deal", symbol=symbol)[0]["channel"] for symbol in client.exchange.market.symbols]
    assert 5 < answers.count("rs.error") < 25
    assert len(client.session.topics) == answers.count("rs.sub.deal")


def test_an_exchange_that_is_down_cuts_everybody_and_comes_back() -> None:
    client = watching(BASE)
    soon(client.exchange, "exchange_down", duration_ms=10_000)
    client.wait(1)
    assert client.session.closing is not None
    assert client.exchange.is_down
    with pytest.raises(ConnectionFailed, match="refused"):
        Client(client.exchange)
    client.exchange.advance(client.exchange.now_ms + 10_000)
    assert not client.exchange.is_down
    Client(client.exchange)


def test_the_old_address_redirects() -> None:
    with pytest.raises(ConnectionFailed) as refused:
        build(1, 2).connect(0, "wss://contract.mexc.com/ws")
    assert refused.value.status == 301


# Contracts


def listed(exchange: SimulatedExchange) -> dict[str, Any]:
    body = exchange.get("/api/v1/contract/detail", {}, exchange.now_ms).body
    return {row["symbol"]: row for row in json.loads(body)["data"]}


def event_heard(kind: EventKind, target: str, **more: Any) -> tuple[Client, list[dict[str, Any]]]:
    """A client that watches the contracts when an event happens, and what it hears of it."""
    client = watching(BASE)
    client.say("sub.contract")
    soon(client.exchange, kind, target, **more)
    return client, of("push.contract", client.wait(2))


def test_a_listing_is_announced_and_trades() -> None:
    client, (announced,) = event_heard("listing", "FRESH_USDT")
    assert announced["data"]["symbol"] == announced["symbol"] == "FRESH_USDT"
    assert announced["data"]["openingTime"] % MINUTE_MS == 0
    assert "FRESH_USDT" in listed(client.exchange)
    client.say("sub.deal", symbol="FRESH_USDT")
    frames = client.wait(600)
    assert [frame for frame in frames if frame["symbol"] == "FRESH_USDT"]


def test_a_delisted_contract_vanishes() -> None:
    client, (announced,) = event_heard("delisting", "ETH_USDT")
    exchange = client.exchange
    assert (announced["symbol"], announced["data"]["state"]) == ("ETH_USDT", 3)
    assert "ETH_USDT" not in listed(exchange)
    assert not [frame for frame in client.wait(60) if frame.get("symbol") == "ETH_USDT"]
    assert client.say("sub.deal", symbol="ETH_USDT")[0]["data"] == "Contract [ETH_USDT] not exists"
    assert json.loads(exchange.get("/api/v1/contract/detail", {"symbol": "ETH_USDT"}, exchange.now_ms).body) == {
        "success": False,
        "code": 1001,
        "message": "Contract not exists",
    }
    depth = json.loads(exchange.get("/api/v1/contract/depth/ETH_USDT", {}, exchange.now_ms).body)["data"]
    assert (depth["asks"], depth["bids"], depth["cts"]) == ([], [], None)


def test_a_rename_is_a_farewell_and_a_welcome() -> None:
    client, announced = event_heard("rename", "ETH_USDT", text="ETHER_USDT")
    assert [(frame["symbol"], frame["data"]["state"]) for frame in announced] == [("ETH_USDT", 3), ("ETHER_USDT", 0)]
    assert {"ETHER_USDT"} == listed(client.exchange).keys() & {"ETH_USDT", "ETHER_USDT"}
    assert not [frame for frame in client.wait(30) if frame.get("symbol") == "ETH_USDT"]


def test_a_changed_contract_size_and_a_pause_are_announced() -> None:
    client, (size,) = event_heard("contract_size", "ETH_USDT", value=0.1)
    assert size["data"]["contractSize"] == 0.1
    client.wait(60)
    assert listed(client.exchange)["ETH_USDT"]["contractSize"] == 0.1
    client, (state,) = event_heard("state", "ETH_USDT", value=4)
    assert state["data"]["state"] == 4
    assert not [frame for frame in client.wait(120) if frame.get("symbol") == "ETH_USDT"]


def test_a_pump_can_be_ordered() -> None:
    client = watching(BASE)
    soon(client.exchange, "pump", "SOL_USDT", value=0.2, duration_ms=30_000, volume_multiple=60.0)
    client.wait(180)
    (pump,) = client.exchange.market.pumps
    assert (pump.symbol, pump.size, pump.volume_multiple) == ("SOL_USDT", 0.2, 60.0)
    candles = client.exchange.market.truth("SOL_USDT")
    assert max(candle.close for candle in candles) / candles[0].open > 1.1


def test_events_about_contracts_that_are_not_there_do_nothing() -> None:
    client = watching(BASE)
    kinds: tuple[EventKind, ...] = ("delisting", "rename", "contract_size", "state", "pump")
    for kind in kinds:
        soon(client.exchange, kind, "NOPE_USDT", text="NEW_USDT", value=0.5)
    client.wait(1)
    assert client.exchange.counters.events == 5
    assert len(client.exchange.market.symbols) == 6


# Configuration


def test_dated_events_happen_at_their_time_and_once() -> None:
    exchange = build(1, 3)
    event = FaultEvent(exchange.now_ms + 5_000, "listing", "LATER_USDT")
    exchange.set_faults(Faults(events=(event,)))
    exchange.set_faults(msgspec.structs.replace(exchange.faults, lose=0.1))
    exchange.advance(exchange.now_ms + 4_950)
    assert exchange.counters.events == 0
    exchange.advance(exchange.now_ms + 60_000)
    assert exchange.counters.events == 1
    assert "LATER_USDT" in exchange.market.symbols


def test_faults_come_from_json_and_leave_the_others_alone() -> None:
    faults = decoded(b'{"duplicate":0.5,"events":[{"at_ms":0,"kind":"drop","target":"all"}]}', Faults(lose=0.1))
    assert (faults.lose, faults.duplicate) == (0.1, 0.5)
    assert faults.events == (FaultEvent(0, "drop", "all"),)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b'{"looze":1}', "faults.looze = 1: unknown; known are lose, duplicate"),
        (b'{"lose":2}', "faults.lose = 2.0: a share between 0 and 1"),
        (b'{"lose":"often"}', "Expected `float`, got `str` - at `$.lose`"),
        (b'{"refusal":"shrug"}', "Invalid enum value 'shrug' - at `$.refusal`"),
        (b'{"events":[{"at_ms":0,"kind":"flood"}]}', "Invalid enum value 'flood'"),
        (b'{"events":[{"at_ms":0,"kind":"drop","when":1}]}', "unknown field `when`"),
        (b'{"events":[{"at_ms":0,"kind":"listing","target":"BTC"}]}', "needs a symbol such as BTC_USDT"),
        (b'{"events":[{"at_ms":0,"kind":"rename","target":"BTC_USDT"}]}', "rename needs a symbol"),
        (b'{"events":[{"at_ms":0,"kind":"contract_size","target":"BTC_USDT"}]}', "a value above 0, not 0.0"),
        (b'{"events":[{"at_ms":0,"kind":"pump","target":"BTC_USDT","value":-1}]}', "a size above -1"),
        (b"[1]", "a JSON object"),
        (b"{", "a JSON object"),
    ],
)
def test_wrong_faults_are_refused_with_what_would_be_right(body: bytes, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        decoded(body, Faults())
    assert complaint in str(refused.value)
