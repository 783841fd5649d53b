"""What a watch leaves in the store, and what the next one finds there."""

from __future__ import annotations

import random
from pathlib import Path

from perpwatch import sim
from perpwatch.alert.outcomes import Outcome
from perpwatch.alert.policy import Alert, MarketAlert, Policy
from perpwatch.app.analysis import Analysis
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import load_config
from perpwatch.app.engine import Engine, Step
from perpwatch.app.keeper import Keeper, Restored
from perpwatch.market.ledger import CODES
from perpwatch.model import (
    ANALYSED_TIMEFRAMES,
    MINUTE_MS,
    Batch,
    Candle,
    Direction,
    Finality,
    Level,
    Reason,
    Signal,
    Timeframe,
    Trust,
)
from perpwatch.store import EMPTY_CODE, TRUST_CODES, Database, Reader, Writer
from perpwatch.store.maintenance import check

SEED = 11
START_MS = sim.DEFAULT_START_MS


class Watch:
    """A bot over a simulated exchange, with its store, run in virtual time."""

    def __init__(self, path: Path, exchange: sim.SimulatedExchange, *, is_history_kept: bool = True) -> None:
        self.database = Database.open(str(path))
        self.reader = Reader(self.database)
        self.exchange = exchange
        self.is_history_kept = is_history_kept
        self.restored: Restored | None = None
        self.closed: dict[tuple[Timeframe, int, str], Candle] = {}
        self.signals: list[Signal] = []
        self.lost = 0

    def run(self, start_ms: int, minutes: float) -> None:
        sim.run_virtual(self._run(start_ms, minutes))

    async def _run(self, start_ms: int, minutes: float) -> None:
        clock = sim.Clock.starting_at(start_ms)
        network = sim.SimulatedNetwork(self.exchange, clock, seed=SEED)
        config = load_config(None, {"rest": {"history_minutes": 120}})
        adapter, jitter = adapter_for(config), random.Random(SEED).random
        async with network, Writer(self.database, is_inline=True) as writer:
            self.bot = Bot(config, adapter, network.dial, network.get, clock, jitter, self._on_step)
            self.keeper = Keeper(self.bot.engine, self.reader, writer, is_history_kept=self.is_history_kept)
            self.restored = self.keeper.restore(start_ms)
            await self.bot.run(minutes * 60.0)
            self.keeper.finish()
            assert writer.counters.rejected == 0

    def _on_step(self, batch: Batch, step: Step) -> None:
        self.keeper.note(batch, step)
        self.signals += step.signals
        self.lost += len(step.outcome.lost)
        for candle in step.outcome.closed:
            self.closed[candle.timeframe, candle.open_time_ms, candle.symbol] = candle

    def stored(self, timeframe: Timeframe) -> dict[tuple[Timeframe, int, str], Candle]:
        candles = self.reader.market_candles(timeframe, 0, START_MS * 2)
        return {(timeframe, one.open_time_ms, one.symbol): one for one in candles}


FAULTS = sim.Faults(
    reorder=0.01,
    late=0.02,
    drops_per_hour=4,
    events=(
        sim.FaultEvent(START_MS + 4 * MINUTE_MS, "silence", "connection:1", 40_000),
        sim.FaultEvent(START_MS + 6 * MINUTE_MS, "silence", "kline:BTC_USDT", 90_000),
    ),
)


def test_the_codes_of_ledger_and_store_are_the_same() -> None:
    assert CODES == TRUST_CODES


def test_every_closed_candle_of_a_rough_watch_is_kept_and_agrees_with_the_ledger(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "perpwatch.db", sim.build(SEED, 30, faults=FAULTS, pumps_per_hour=20))
    watch.run(START_MS, 12)
    ledger = watch.bot.engine.ledger
    stored = {key: candle for timeframe in ANALYSED_TIMEFRAMES for key, candle in watch.stored(timeframe).items()}
    assert watch.closed.keys() <= stored.keys()
    for key, candle in watch.closed.items():
        if stored[key].trust is Trust.UNKNOWN is not candle.trust:
            assert ledger.trust(key[2], key[1]) is Trust.UNKNOWN or key[0] is not Timeframe.Min1
        elif stored[key].finality is not Finality.REST:  # a history that came later may have rolled it up anew
            assert stored[key] == candle
    assert watch.lost > 0
    for (timeframe, open_time_ms, symbol), candle in stored.items():
        if timeframe is Timeframe.Min1:
            is_known = ledger.trust(symbol, open_time_ms) is not Trust.UNKNOWN
            assert is_known == (candle.trust is not Trust.UNKNOWN)
    assert watch.reader.signals(0) == sorted(watch.signals, key=lambda one: (one.event_time_ms, one.symbol))
    assert {one.symbol for one in watch.reader.contracts()} >= set(watch.bot.watched)
    findings = check(watch.database)
    assert findings.is_clean, findings
    watch.database.close()


def test_a_restart_finds_its_ledger_and_fills_the_time_between(tmp_path: Path) -> None:
    path, exchange = tmp_path / "perpwatch.db", sim.build(SEED, 20, quiet_share=0.0)
    first = Watch(path, exchange)
    first.run(START_MS, 5)
    known = first.bot.engine.ledger.counts(first.bot.watched, START_MS - 60 * MINUTE_MS, START_MS + 4 * MINUTE_MS)
    first.database.close()

    second = Watch(path, exchange)
    assert EMPTY_CODE not in b"".join(hour.codes for hour in second.reader.ledger(0, exchange.now_ms))
    second.run(exchange.now_ms + 25 * MINUTE_MS, 5)
    assert second.restored is not None
    assert second.restored.symbols == 20
    assert second.restored.minutes >= sum(known.values()) - known[Trust.UNKNOWN]
    assert second.restored.newest_ms >= START_MS + 3 * MINUTE_MS
    findings = check(second.database)
    assert findings.is_clean, findings
    assert findings.gaps.total() <= 20 * 2  # the minutes in which the watches began and ended
    stored = second.stored(Timeframe.Min15)
    assert (Timeframe.Min15, START_MS + 15 * MINUTE_MS, "BTC_USDT") in stored
    assert stored[Timeframe.Min15, START_MS + 15 * MINUTE_MS, "BTC_USDT"].missing_minutes == 0
    second.database.close()


def test_without_history_only_what_was_watched_is_kept(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "perpwatch.db", sim.build(SEED, 5), is_history_kept=False)
    watch.run(START_MS, 3)
    assert min(one.open_time_ms for one in watch.stored(Timeframe.Min1).values()) >= START_MS - MINUTE_MS
    assert [hour.hour_ms for hour in watch.reader.ledger(0, START_MS - 60 * MINUTE_MS)] == []
    assert check(watch.database).is_clean
    watch.database.close()


async def test_alerts_are_kept_with_the_state_that_must_not_forget_them(tmp_path: Path) -> None:
    database = Database.open(str(tmp_path / "perpwatch.db"))
    async with Writer(database) as writer:
        keeper = Keeper(Engine(Analysis(), []), Reader(database), writer)
        policy = Policy(watched=10)
        alert = policy.offer(SIGNAL)
        assert isinstance(alert, Alert)
        market = MarketAlert("market:1", START_MS, START_MS + 2 * MINUTE_MS, (alert,), 10, 1e-4)
        outcome = Outcome(alert.key, "volume_ratio", "BTC_USDT", START_MS, Direction.UP, 1.0, 0.001, (), ())
        keeper.alert(alert, {"policy": policy.state()})
        keeper.alert(market)
        keeper.remember("limits", b"30", START_MS)
        keeper.outcome(outcome)
        assert await writer.flush(10.0)
        assert [one.key for one in Reader(database).alerts()] == [alert.key, market.key]
        assert keeper.recall("limits") == b"30"
        assert keeper.recall("nothing") is None
        assert [one.alert_key for one in Reader(database).outcomes()] == [alert.key]
        state, again = keeper.recall("policy"), Policy(watched=10)
        assert state is not None
        again.restore(state)
        assert not isinstance(again.offer(SIGNAL), Alert)
    database.close()


SIGNAL = Signal(
    detector="volume_ratio",
    symbol="BTC_USDT",
    timeframe=Timeframe.Min1,
    open_time_ms=START_MS,
    direction=Direction.UP,
    level=Level.STRONG,
    price=1.0,
    strength=20.0,
    is_running=False,
    trust=Trust.STREAMED,
    reasons=(Reason("turnover_ratio", 20.0, "x"),),
    event_time_ms=START_MS + MINUTE_MS,
    received_time_ns=0,
)
