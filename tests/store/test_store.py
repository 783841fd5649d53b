"""What is put can be read again, on both engines."""

from __future__ import annotations

import gc
import sys

import msgspec
import pytest
from store_rows import T0, at, candle, signal

from perpwatch.model import MINUTE_MS, Candle, Contract, Finality, Reason, Timeframe, Trust
from perpwatch.store import (
    Alerted,
    AlertOutcome,
    Database,
    Delivery,
    DeliveryState,
    Label,
    LedgerHour,
    Reader,
    Record,
    Retracted,
    State,
    Writer,
)


async def write(database: Database, *records: Record) -> None:
    async with Writer(database) as writer:
        await writer.put(*records)
        assert await writer.flush(10.0)
        assert writer.counters.rejected == 0


async def test_a_candle_comes_back_as_it_was(database: Database) -> None:
    put = [
        candle("BTC_USDT", 0),
        candle("BTC_USDT", 1, finality=Finality.CLOCK, trust=Trust.QUIET),
        candle("币_USDT", 0, Timeframe.Min60, close=0.1 + 0.2),
        candle("BTC_USDT", 0, Timeframe.Month1),
    ]
    await write(database, *put)
    reader = Reader(database)
    assert reader.candles("BTC_USDT", Timeframe.Min1, at(0), at(10)) == put[:2]
    assert reader.candles("币_USDT", Timeframe.Min60, 0, at(60)) == [put[2]]
    assert reader.candles("BTC_USDT", Timeframe.Month1, 0, at(1)) == [put[3]]
    assert reader.candles("BTC_USDT", Timeframe.Min5, 0, at(60)) == []
    assert reader.candles("ETH_USDT", Timeframe.Min1, 0, at(60)) == []


async def test_the_same_again_changes_nothing_and_a_correction_replaces(database: Database) -> None:
    first, corrected = candle(), candle(close=99.5, trust=Trust.REPAIRED, finality=Finality.REST)
    await write(database, first, first)
    await write(database, first)
    await write(database, corrected)
    assert Reader(database).candles("BTC_USDT", Timeframe.Min1, at(0), at(1)) == [corrected]


async def test_the_last_word_about_a_candle_in_one_commit_wins(database: Database) -> None:
    await write(database, candle(close=1.0), candle(close=2.0), candle(close=3.0))
    assert [one.close for one in Reader(database).candles("BTC_USDT", Timeframe.Min1, at(0), at(1))] == [3.0]


async def test_the_whole_market_of_a_minute_is_stored(database: Database) -> None:
    candles = [
        candle(f"S{number:04}_USDT", 0, timeframe) for number in range(1_061) for timeframe in list(Timeframe)[:4]
    ]
    await write(database, *candles)
    assert Reader(database).market_candles(Timeframe.Min1, at(0), at(1)) == candles[::4]


async def test_the_newest_candles_reach_over_holes(database: Database) -> None:
    minutes = [*range(5), *range(3_000, 3_010)]
    await write(database, *(candle("BTC_USDT", minute) for minute in minutes), candle("ETH_USDT", 3_020))
    reader = Reader(database)
    newest = reader.newest_candles("BTC_USDT", Timeframe.Min1, 12)
    assert [(one.open_time_ms - T0) // MINUTE_MS for one in newest] == minutes[-12:]
    assert len(reader.newest_candles("BTC_USDT", Timeframe.Min1, 500)) == 15
    assert reader.newest_candles("XRP_USDT", Timeframe.Min1, 5) == []


async def test_a_look_at_a_symbol_leaves_no_garbage(database: Database) -> None:
    await write(database, *(candle(minute=minute) for minute in range(60)))
    reader = Reader(database)
    reader.candles("BTC_USDT", Timeframe.Min1, T0, at(60))  # what is made once
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            assert len(reader.candles("BTC_USDT", Timeframe.Min1, T0, at(60))) == 60
        assert gc.collect() == 0, "a start looks twenty times for each of a thousand symbols"
    finally:
        gc.enable()


async def test_the_last_candle_of_each_symbol_is_found_although_some_are_behind(database: Database) -> None:
    contracts = [contract("BTC_USDT"), contract("ETH_USDT")]
    await write(database, *contracts, candle("BTC_USDT", 8), candle("BTC_USDT", 9), candle("ETH_USDT", 2))
    last = Reader(database).last_candles(Timeframe.Min1)
    assert {symbol: one.open_time_ms for symbol, one in last.items()} == {"BTC_USDT": at(9), "ETH_USDT": at(2)}
    assert list(Reader(database).last_candles(Timeframe.Min1, within=5)) == ["BTC_USDT"]
    assert Reader(database).last_candles(Timeframe.Min5) == {}


async def test_a_retracted_minute_and_the_candles_over_it_are_no_longer_trusted(database: Database) -> None:
    stored = [candle("BTC_USDT", minute) for minute in (0, 1, 5)]
    longer = [candle("BTC_USDT", minute, Timeframe.Min5) for minute in (0, 5)]
    await write(database, *stored, *longer, candle("ETH_USDT", 1))
    await write(database, Retracted("BTC_USDT", at(1), at(2)))
    reader = Reader(database)

    def untrusted(timeframe: Timeframe) -> list[tuple[str, int]]:
        candles = reader.market_candles(timeframe, at(0), at(60))
        return [(one.symbol, one.open_time_ms) for one in candles if one.trust is Trust.UNKNOWN]

    assert untrusted(Timeframe.Min1) == [("BTC_USDT", at(1))]
    assert untrusted(Timeframe.Min5) == [("BTC_USDT", at(0))]


@pytest.mark.parametrize("order", ["retracted last", "repaired last"])
async def test_within_one_commit_the_later_of_retraction_and_candle_wins(database: Database, order: str) -> None:
    retracted, repaired = Retracted("BTC_USDT", at(0), at(1)), candle(trust=Trust.REPAIRED)
    records: list[Record] = [repaired, retracted] if order == "retracted last" else [retracted, repaired]
    await write(database, candle(), *records)
    trust = [one.trust for one in Reader(database).candles("BTC_USDT", Timeframe.Min1, at(0), at(1))]
    assert trust == [Trust.UNKNOWN if order == "retracted last" else Trust.REPAIRED]


async def test_signals_come_back_newest_last(database: Database) -> None:
    signals = [signal("BTC_USDT", minute) for minute in range(5)] + [signal("ETH_USDT", 2)]
    await write(database, *signals, signals[0])
    reader = Reader(database)
    assert reader.signals(0, "ETH_USDT") == [signals[5]]
    assert reader.signals(at(3)) == signals[3:5]
    assert reader.signals(0, "BTC_USDT", limit=2) == signals[3:5]


async def test_figures_that_are_no_numbers_spoil_no_signal(database: Database) -> None:
    wild = tuple(Reason(name, float(name), "x") for name in ("inf", "-inf", "nan"))
    await write(database, msgspec.structs.replace(signal(), reasons=wild))
    (kept,) = Reader(database).signals(0)
    assert [one.value for one in kept.reasons] == [sys.float_info.max, -sys.float_info.max, 0.0]


async def test_signals_are_counted_by_rule_within_a_span(database: Database) -> None:
    signals = [
        msgspec.structs.replace(signal("BTC_USDT", minute), rule="one" if minute % 2 else "other")
        for minute in range(5)
    ]
    await write(database, *signals)
    times = [one.event_time_ms for one in signals]
    assert Reader(database).signal_counts(times[0], times[4]) == {"one": 2, "other": 2}
    assert Reader(database).signal_counts(times[4] + 1, times[4] + 2) == {}


async def test_an_alert_is_stored_once(database: Database) -> None:
    first, second = Alerted("a:1", at(0), "BTC_USDT", b'{"n":1}'), Alerted("market:1", at(1), "", b'{"n":2}')
    await write(database, first, second)
    await write(database, Alerted("a:1", at(5), "BTC_USDT", b'{"n":9}'))
    reader = Reader(database)
    assert reader.alerts(symbol="BTC_USDT") == [first]
    assert [one.key for one in reader.alerts(since_ms=at(1))] == ["market:1"]


async def test_a_delivery_comes_back_as_it_was_and_the_last_word_about_it_wins(database: Database) -> None:
    waiting = Delivery(channel="desk", key="a:1", thread="a:1", kind="alert", time_ms=at(0), body=b"{}")
    sent = Delivery(
        channel="phone",
        key="a:1",
        thread="a:0",
        kind="update",
        time_ms=at(1),
        symbol="BTC_USDT",
        rule="pump",
        state=DeliveryState.SENT,
        why="HTTP 503",
        attempts=2,
        is_doubtful=True,
        not_before_ms=at(2),
        digest="digest:1",
        receipt="-100:17",
        sent_ms=at(3),
        latency_ms=120_000,
        body='{"symbol":"币"}'.encode(),
    )
    await write(database, waiting, msgspec.structs.replace(sent, state=DeliveryState.PENDING, attempts=1), sent)
    reader = Reader(database)
    assert reader.deliveries() == [waiting, sent]
    assert reader.deliveries(states=[DeliveryState.PENDING, DeliveryState.FAILED]) == [waiting]
    assert reader.deliveries(channels=["phone"]) == reader.deliveries(since_ms=at(1)) == [sent]
    assert reader.deliveries(until_ms=at(1)) == reader.deliveries(limit=2, until_ms=at(1)) == [waiting]
    assert reader.deliveries(limit=1) == [sent]
    await write(database, msgspec.structs.replace(waiting, state=DeliveryState.FAILED, why="no such chat"))
    assert [one.why for one in reader.deliveries(states=[DeliveryState.FAILED])] == ["no such chat"]
    assert reader.deliveries(states=[DeliveryState.PENDING]) == []


async def test_each_person_has_one_word_about_an_alert(database: Database) -> None:
    first, other = Label("a:1", "telegram:7", "wrong", at(0), "BTC_USDT", "pump"), Label("a:1", "api", "wrong", at(1))
    await write(database, first, other)
    await write(database, Label("a:1", "telegram:7", "right", at(2), "BTC_USDT", "pump"))
    assert [(one.who, one.label) for one in Reader(database).labels()] == [("api", "wrong"), ("telegram:7", "right")]
    assert [one.who for one in Reader(database).labels(since_ms=at(2))] == ["telegram:7"]


async def test_the_outcome_of_an_alert_is_kept_and_replaced(database: Database) -> None:
    early, late = (AlertOutcome(f"a:{minute}", at(minute), "BTC_USDT", b"{}") for minute in (5, 60))
    await write(database, late, early)
    better = AlertOutcome("a:60", at(60), "BTC_USDT", b'{"hit":true}')
    await write(database, better)
    assert Reader(database).outcomes() == [early, better]
    assert Reader(database).outcomes(since_ms=at(6)) == [better]


async def test_contracts_ledger_and_state_come_back(database: Database) -> None:
    codes = bytes(range(5)) * 12
    hours = [LedgerHour("BTC_USDT", at(0), codes), LedgerHour("BTC_USDT", at(60), codes[::-1])]
    states = [
        State.of("limits.mexc", {"subscriptions": 30}, at(0)),
        State("policy", bytes(range(256)), at(1)),
        State.of("policy_%", [1], at(1)),
    ]
    await write(database, contract("BTC_USDT"), *hours, *states)
    await write(database, contract("BTC_USDT", is_trading=False))
    reader = Reader(database)
    assert reader.contracts() == [contract("BTC_USDT", is_trading=False)]
    assert reader.ledger(at(30), at(60)) == hours[:1]
    assert reader.ledger(at(0), at(61), "BTC_USDT") == hours
    assert reader.ledger(at(0), at(61), "ETH_USDT") == []
    limits = reader.state("limits.mexc")
    assert limits is not None
    assert limits.decode() == {"subscriptions": 30}
    assert reader.state("policy") == states[1]
    assert reader.state("nothing") is None
    assert reader.states() == states
    assert reader.states("policy_") == states[2:]


async def test_a_candle_spelt_by_an_adapter_is_stored_like_any_other(database: Database) -> None:
    class ExchangeCandle(Candle, frozen=True, rename={"open_time_ms": "t"}):
        """As an adapter names its fields."""

    one = candle()
    spelt = ExchangeCandle(**{name: getattr(one, name) for name in Candle.__struct_fields__})
    await write(database, spelt)
    assert Reader(database).candles("BTC_USDT", Timeframe.Min1, at(0), at(1)) == [one]


def contract(symbol: str, *, is_trading: bool = True) -> Contract:
    return Contract(
        symbol=symbol,
        base_coin=symbol.partition("_")[0],
        quote_coin="USDT",
        settle_coin="USDT",
        contract_size=0.0001,
        zones=("coin", "metal"),
        is_trading=is_trading,
    )
