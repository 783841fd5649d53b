"""The other end of the protocol: acknowledgements, refusals, pings and what each channel pushes."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from sim_client import Client, of, sample

from perpwatch.exchanges.adapter import Message
from perpwatch.exchanges.mexc import MexcFutures
from perpwatch.model import MINUTE_MS, Kind, Stream
from perpwatch.sim import Faults, SimulatedExchange, SimulatedMarket, build

PLAIN = Faults(odd_numbers=0.0)


@pytest.fixture
def exchange() -> SimulatedExchange:
    return build(1, 40, faults=PLAIN)


@pytest.fixture
def client(exchange: SimulatedExchange) -> Client:
    return Client(exchange)


def keys(value: Any) -> Any:
    """The shape of a JSON value: names and types, numbers all alike."""
    if isinstance(value, dict):
        return {name: keys(each) for name, each in sorted(value.items())}
    if isinstance(value, list):
        return [keys(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def transcript(seed: int, cuts_ms: list[int], faults: Faults = PLAIN) -> list[bytes]:
    """Everything two clients hear in a minute and a half, when time passes in the given pieces."""
    exchange = build(seed, 25, pumps_per_hour=60, faults=faults)
    clients = [Client(exchange), Client(exchange)]
    clients[0].say("sub.tickers")
    for number, symbol in enumerate(exchange.market.symbols):
        clients[number % 2].say("sub.kline", symbol=symbol, interval="Min1")
        clients[0].say("sub.deal", symbol=symbol)
    clients[1].say("sub.depth", symbol="ETH_USDT")
    clients[1].say("sub.depth.full", symbol="ETH_USDT", limit=5)
    end_ms, number = exchange.now_ms + 90_000, 0
    while exchange.now_ms < end_ms:
        exchange.advance(min(end_ms, exchange.now_ms + cuts_ms[number % len(cuts_ms)]))
        number += 1
    return [*clients[0].session.take(), b"", *clients[1].session.take()]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    faults = Faults(duplicate=0.01, reorder=0.02, malformed=0.01, odd_numbers=0.05)
    assert transcript(1, [100], faults) == transcript(1, [100], faults)
    assert transcript(1, [100]) != transcript(2, [100])


def test_bytes_do_not_depend_on_how_time_is_cut() -> None:
    assert transcript(1, [100]) == transcript(1, [1, 333, 20_000, 49])


# Commands


def test_a_good_subscription_is_acknowledged_as_on_the_wire(client: Client) -> None:
    (answer,) = client.say("sub.depth", symbol="BTC_USDT")
    assert answer | {"ts": 0} == sample("ws-ack-sub.depth") | {"ts": 0}
    assert answer["ts"] == client.exchange.now_ms


def test_acknowledgements_come_in_order_and_name_the_channel_only(client: Client) -> None:
    for method, param in (
        ("sub.kline", {"symbol": "BTC_USDT", "interval": "Min1"}),
        ("sub.deal", {"symbol": "NOPE_USDT"}),
        ("sub.tickers", {}),
        ("sub.kline", {"symbol": "ETH_USDT", "interval": "Min1"}),
    ):
        client.session.receive(json.dumps({"method": method, "param": param}), client.exchange.now_ms)
    answers = [(frame["channel"], frame["data"]) for frame in client.hear()]
    assert answers == [
        ("rs.sub.kline", "success"),
        ("rs.error", "Contract [NOPE_USDT] not exists"),
        ("rs.sub.tickers", "success"),
        ("rs.sub.kline", "success"),
    ]


def test_an_unknown_symbol_is_refused_in_the_exchanges_words(client: Client) -> None:
    expected = sample("ws-err-unknown-symbol")
    (answer,) = client.say("sub.deal", symbol="NOPE_USDT")
    assert answer["data"] == expected["data"]
    assert answer.keys() == expected.keys()
    assert client.session.closing is None


def test_a_bad_interval_is_refused_in_the_exchanges_words(client: Client) -> None:
    (answer,) = client.say("sub.kline", symbol="BTC_USDT", interval="Hour1")
    assert answer["data"] == sample("ws-err-interval")["data"]


@pytest.mark.parametrize("text", ['{"method":"sub.nothing"}', '{"method":"PING"}', "not json", "[1]", "{}", '"x"'])
def test_what_is_no_command_gets_no_answer_at_all(client: Client, text: str) -> None:
    assert client.send(text) == []
    assert client.wait(12) == []
    assert client.exchange.counters.unknown_commands == 1


def test_a_second_subscription_is_acknowledged_but_nothing_is_doubled(client: Client) -> None:
    for _ in range(2):
        assert client.say("sub.deal", symbol="BTC_USDT")[0]["channel"] == "rs.sub.deal"
    ids = [deal["i"] for frame in of("push.deal", client.wait(5)) for deal in frame["data"]]
    assert len(ids) == len(set(ids)) > 5


def test_a_subscription_without_symbol_costs_the_connection(client: Client) -> None:
    assert client.say("sub.deal")[0]["channel"] == "rs.error"
    assert client.session.closing is not None
    assert client.exchange.sessions == []


def test_a_subscription_without_symbol_is_only_refused_when_so_switched() -> None:
    client = Client(build(1, 2, faults=Faults(hang_up_without_symbol=False)))
    assert client.say("sub.deal")[0]["channel"] == "rs.error"
    assert client.session.closing is None


def test_unsubscribing_ends_the_stream_without_a_word(client: Client) -> None:
    client.say("sub.deal", symbol="BTC_USDT")
    client.say("sub.kline", symbol="BTC_USDT", interval="Min1")
    client.wait(5)
    assert client.say("unsub.deal", symbol="BTC_USDT") == []
    client.say("unsub.kline", symbol="BTC_USDT")
    assert client.wait(10) == []
    assert not client.session.topics


def test_an_unsubscription_is_acknowledged_when_so_switched() -> None:
    client = Client(build(1, 2, faults=Faults(acknowledge_unsubscribe=True)))
    assert [frame["channel"] for frame in client.say("unsub.tickers")] == ["rs.unsub.tickers"]


# Heartbeat


def test_a_ping_is_answered_with_the_servers_time(client: Client) -> None:
    client.wait(3)
    (pong,) = client.ping()
    assert pong == {"channel": "pong", "data": client.exchange.now_ms, "ts": client.exchange.now_ms}


def test_a_client_that_does_not_ping_is_closed_after_a_minute_although_data_flows(client: Client) -> None:
    client.say("sub.deal", symbol="BTC_USDT")
    heard = client.wait(59.5, ping=False)
    assert client.session.closing is None
    heard = client.wait(2, ping=False)
    assert client.session.closing is not None
    assert client.session.closing.seen_code == 1005
    assert heard[-1]["data"] == sample("ws-err-heartbeat")["data"]
    assert client.exchange.counters.heartbeat_closes == 1


def test_a_client_that_pings_stays(client: Client) -> None:
    client.wait(600)
    assert client.session.closing is None


# Channels


def test_klines_have_the_shape_of_the_captured_frame(client: Client) -> None:
    client.say("sub.kline", symbol="BTC_USDT", interval="Min1")
    frame = client.wait(3)[0]
    assert keys(frame) == keys(sample("ws-push-kline"))
    assert frame["data"]["t"] % 60 == 0
    assert frame["data"]["t"] < 2e9


def test_kline_pushes_lead_to_the_true_candles(client: Client) -> None:
    market = client.exchange.market
    for symbol in market.symbols:
        client.say("sub.kline", symbol=symbol, interval="Min1")
    frames = of("push.kline", client.wait(300))
    last = {(frame["symbol"], frame["data"]["t"]): frame["data"] for frame in frames}
    for symbol in market.symbols:
        for candle in market.truth(symbol):
            pushed = last[symbol, candle.open_time_ms // 1_000]
            assert [pushed[name] for name in ("o", "h", "l", "c", "q", "a", "ro", "rh", "rl", "rc")] == [
                candle.open,
                candle.high,
                candle.low,
                candle.close,
                candle.contracts,
                candle.amount,
                candle.real_open,
                candle.real_high,
                candle.real_low,
                candle.real_close,
            ]


def test_klines_come_with_trades_only_and_a_new_subscriber_waits_for_one(client: Client) -> None:
    market = client.exchange.market
    client.wait(120)
    quiet = min(market.symbols, key=lambda symbol: len(market.truth(symbol)))
    client.say("sub.kline", symbol=quiet, interval="Min1")
    client.say("sub.deal", symbol=quiet)
    frames = client.wait(1_800)
    trades = [deal["t"] for frame in of("push.deal", frames) for deal in frame["data"]]
    klines = of("push.kline", frames)
    assert 0 < len(klines) <= len(trades)
    assert {kline["data"]["t"] for kline in klines} == {time_ms // MINUTE_MS * 60 for time_ms in trades}
    opened = [kline["data"]["t"] for kline in klines]
    assert any(after - before > 60 for before, after in itertools.pairwise(opened))


def test_a_candle_is_pushed_at_most_about_four_times_a_second(client: Client) -> None:
    client.say("sub.kline", symbol="BTC_USDT", interval="Min1")
    times = [frame["ts"] for frame in client.wait(60)]
    assert len(times) > 60
    # The last push of a minute comes at its end, however recent the one before.
    assert all(b - a >= 250 for a, b in itertools.pairwise(times) if b % MINUTE_MS != MINUTE_MS - 1)


def test_volume_never_falls_within_a_candle(client: Client) -> None:
    client.say("sub.kline", symbol="BTC_USDT", interval="Min5")
    rows = [(frame["data"]["t"], frame["data"]["q"]) for frame in client.wait(600)]
    assert rows == sorted(rows)


def test_a_longer_candle_contains_its_closed_minutes(client: Client) -> None:
    market = client.exchange.market
    client.wait(130)
    client.say("sub.kline", symbol="BTC_USDT", interval="Min15")
    frame = client.wait(1)[-1]["data"]
    closed = sum(candle.contracts for candle in market.truth("BTC_USDT"))
    running = market.running("BTC_USDT")
    assert running is not None
    assert closed < frame["q"] <= closed + running.contracts
    assert frame["o"] == market.truth("BTC_USDT")[0].open


def test_deals_are_arrays_with_string_ids_and_add_up_to_the_candle(client: Client) -> None:
    client.say("sub.deal", symbol="ETH_USDT")
    frames = client.wait(60)
    assert keys(frames[0]) == keys(sample("ws-push-deal"))
    assert max(len(frame["data"]) for frame in frames) > 1
    candle = client.exchange.market.truth("ETH_USDT")[0]
    assert sum(deal["v"] for frame in frames for deal in frame["data"]) == candle.contracts


def test_uncompressed_deals_come_one_by_one(client: Client) -> None:
    client.say("sub.deal", symbol="BTC_USDT", compress=False)
    assert {len(frame["data"]) for frame in client.wait(30)} == {1}


def test_the_first_tickers_frame_is_the_whole_market_and_later_ones_what_changed(client: Client) -> None:
    client.say("sub.tickers")
    first, *later = client.wait(60)
    symbols = {row["symbol"] for row in first["data"]}
    assert keys(first) == keys(sample("ws-push-tickers"))
    assert symbols > set(client.exchange.market.symbols)
    assert sum(row["lastPrice"] == 0 for row in first["data"]) == 8
    assert 29 <= len(later) <= 30
    assert all(frame["ts"] % 2_000 == 0 and 0 < len(frame["data"]) < len(symbols) for frame in later)


def test_merged_tickers_show_the_market_as_it_is(client: Client) -> None:
    market = client.exchange.market
    client.say("sub.tickers")
    rows: dict[str, Any] = {}
    for frame in client.wait(240):
        rows.update({row["symbol"]: row for row in frame["data"]})
    for listing in market.listings():
        row, day = rows[listing.symbol], market.day(listing)
        assert (row["lastPrice"], row["volume24"]) == (listing.last_price, day.contracts)
        assert (row["high24Price"], row["lower24Price"]) == (day.high, day.low)


def test_a_ticker_comes_at_most_once_a_second_and_only_with_trades(client: Client) -> None:
    client.say("sub.ticker", symbol="BTC_USDT")
    frames = client.wait(30)
    assert keys(frames[0]) == keys(sample("ws-push-ticker"))
    times = [frame["ts"] for frame in frames]
    assert len(times) > 20
    assert all(b - a >= 1_000 for a, b in itertools.pairwise(times))


def test_reference_prices_and_funding_have_the_captured_shapes(client: Client) -> None:
    for channel in ("index.price", "fair.price", "funding.rate"):
        client.say(f"sub.{channel}", symbol="BTC_USDT")
    frames = client.wait(61)
    for channel, least in (("index.price", 60), ("fair.price", 60), ("funding.rate", 1)):
        pushed = of(f"push.{channel}", frames)
        assert len(pushed) >= least
        assert keys(pushed[0]) == keys(sample(f"ws-push-{channel}"))


def test_a_book_built_from_changes_equals_the_snapshot(client: Client) -> None:
    client.say("sub.depth", symbol="BTC_USDT")
    sides: dict[str, dict[float, int]] = {}
    version = 0
    answer = client.exchange.get("/api/v1/contract/depth/BTC_USDT", {}, client.exchange.now_ms)
    snapshot = json.loads(answer.body)["data"]
    for side in ("asks", "bids"):
        sides[side] = {price: contracts for price, contracts, _ in snapshot[side]}
    version = snapshot["version"]
    for frame in client.wait(20):
        change = frame["data"]
        assert change["begin"] == version + 1
        assert change["version"] == change["end"]
        version = change["end"]
        for side in ("asks", "bids"):
            for price, contracts, _ in change[side]:
                sides[side][price] = contracts
                if not contracts:
                    del sides[side][price]
    answer = client.exchange.get("/api/v1/contract/depth/BTC_USDT", {}, client.exchange.now_ms)
    snapshot = json.loads(answer.body)["data"]
    assert snapshot["version"] == version
    for side in ("asks", "bids"):
        assert sides[side] == {price: contracts for price, contracts, _ in snapshot[side]}


def test_unmerged_depth_counts_every_change(client: Client) -> None:
    client.say("sub.depth", symbol="BTC_USDT", compress=False)
    versions = [frame["data"]["version"] for frame in client.wait(5)]
    assert versions == list(range(versions[0], versions[0] + len(versions)))


def test_full_depth_begins_with_a_picture_and_keeps_its_limit(client: Client) -> None:
    market = client.exchange.market
    symbol = market.symbols[-1]
    client.say("sub.depth.full", symbol=symbol, limit=5)
    frames = client.wait(20)
    assert keys(frames[0]) == keys(sample("ws-push-depth.full"))
    assert frames[0]["ts"] - market.start_ms <= 300
    assert len(frames[0]["data"]["asks"]) == 5
    assert frames[0]["data"]["asks"][0][0] > frames[0]["data"]["bids"][0][0]
    assert len(frames) >= 3


def test_stepped_depth_is_grouped(client: Client) -> None:
    client.say("sub.depth.step", symbol="BTC_USDT", step="1")
    frame = client.wait(5)[0]
    assert keys(frame["data"]) == keys(sample("ws-push-depth.step")["data"])
    assert all(price == int(price) for price, *_ in frame["data"]["asks"])


# Cross-checks


def test_odd_numbers_say_the_same() -> None:
    exchange = build(1, 5, faults=Faults(odd_numbers=1.0))
    client = Client(exchange)
    client.say("sub.kline", symbol="BTC_USDT", interval="Min1")
    client.say("sub.deal", symbol="PEPE_USDT")
    client.say("sub.deal", symbol="DOGE_USDT")
    frames = of("push.kline", client.wait(60))
    text = b"".join(client.raw)
    assert b"E+4" in text
    assert b"00," in text
    candle = exchange.market.truth("BTC_USDT")[0]
    last = next(frame["data"] for frame in reversed(frames) if frame["data"]["t"] * 1_000 == candle.open_time_ms)
    assert (last["o"], last["h"], last["l"], last["c"]) == (candle.open, candle.high, candle.low, candle.close)


@pytest.mark.parametrize("odd_numbers", [0.0, 0.5])
def test_the_programs_own_decoder_understands_every_frame(odd_numbers: float) -> None:
    exchange = build(1, 40, coin_margined=2, faults=Faults(odd_numbers=odd_numbers))
    adapter, client = MexcFutures(), Client(exchange)
    streams = [Stream(Kind.TICKERS), Stream(Kind.CONTRACTS)]
    for symbol in exchange.market.symbols:
        streams += [Stream(Kind.CANDLES, symbol, "Min1"), Stream(Kind.CANDLES, symbol, "Hour4")]
        streams += [Stream(kind, symbol) for kind in (Kind.TRADES, Kind.TICKER, Kind.INDEX_PRICE, Kind.FAIR_PRICE)]
        streams += [Stream(Kind.FUNDING_RATE, symbol), Stream(Kind.DEPTH, symbol)]
        streams += [Stream(Kind.DEPTH_FULL, symbol, "20")]
    for stream in streams:
        client.send(adapter.subscribe(stream).decode())
    client.wait(90)
    messages: list[Message] = [adapter.decode(frame) for frame in client.raw]
    assert len({type(message).__name__ for message in messages}) >= 9
    assert len(messages) > 5_000


def test_counters_tell_what_happened(client: Client) -> None:
    for symbol in client.exchange.market.symbols[:7]:
        client.say("sub.deal", symbol=symbol)
    client.say("unsub.deal", symbol="BTC_USDT")
    second = Client(client.exchange)
    second.exchange.disconnect(second.session)
    counters = client.exchange.counters
    assert (counters.connections, counters.max_connections, len(client.exchange.sessions)) == (2, 2, 1)
    assert (counters.max_subscriptions, len(client.session.topics)) == (7, 6)
    assert (counters.commands, counters.max_commands_per_second) == (8, 8)
    assert msgspec.json.encode(client.exchange.status())


def test_a_market_is_followed_also_when_nobody_listens() -> None:
    exchange = SimulatedExchange(SimulatedMarket(1, 5))
    exchange.advance(exchange.now_ms + 180_000)
    assert len(exchange.market.truth("BTC_USDT")) == 3
