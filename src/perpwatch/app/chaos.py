"""Seeded trials: the whole program against the built-in exchange in virtual time, while things go wrong on purpose.

A trial knows the truth, so its verdict is arithmetic: no final candle may differ from it, every minute that could be
known must be known some minutes after the last fault, no limit may be exceeded at any instant, nothing may be left
behind. The same seed makes the same trial to the byte, so a failing one is repeated by its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.model import MINUTE_MS, Batch, Candle, Finality, Timeframe, Trust
from perpwatch.sim import (
    DEFAULT_START_MS,
    Clock,
    FaultEvent,
    Faults,
    MarketCandle,
    SimulatedExchange,
    SimulatedNetwork,
    build,
    run_virtual,
)
from perpwatch.sim.faults import EventKind

#: Market minutes in which faults happen, and those in which everything must be mended again.
FAULTY_MINUTES = 15
MENDING_MINUTES = 10
#: What can happen once; the frequent ones stand here twice.
_EVENT_KINDS: tuple[EventKind, ...] = (
    *("drop", "drop_abrupt", "half_open", "silence", "lost_topic", "lost_topic", "exchange_down", "hang_up"),
    *("rest_510", "rest_html", "rest_timeout", "listing", "delisting", "contract_size"),
)
#: Dials of one connection to a server that hangs up on each: while the back-off is young, and when it has grown.
DIALS_AT_FIRST, DIALS_PER_MINUTE = 10, 6
#: A symbol that traded in each of the last so many minutes and was not heard is mute.
MUTE_MINUTES = 4
#: What may still be on its way when a trial ends: a minute that has just closed, and its reading back.
UNSETTLED_MS = 20_000


@dataclass(frozen=True, slots=True)
class Trial:
    """What is put to the test. ``jumps`` move our wall clock: (market second, by so many seconds)."""

    seed: int
    contracts: int
    minutes: float
    faults: Faults = field(default_factory=Faults)
    pumps_per_hour: float = 20.0
    activity: float = 1.0
    jumps: tuple[tuple[float, float], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)  # overrides of the configuration
    keep_log: bool = False  # digest every event, to compare two runs to the byte


class Verdict(msgspec.Struct):
    """What came of a trial."""

    seed: int
    faults: dict[str, int] = {}  # injected, by kind
    minutes_checked: int = 0
    wrong: int = 0  # final candles that differ from the truth
    unknown: int = 0  # minutes that nobody can say anything about at the end
    unexplained: int = 0  # unknown although the exchange could still tell, or neither closed nor reported
    signals: int = 0
    violations: list[str] = []  # everything that must not be, in words
    events_digest: str = ""
    signals_digest: str = ""

    @property
    def is_good(self) -> bool:
        return not (self.wrong or self.unexplained or self.violations)


def draw_trial(seed: int) -> Trial:
    """A market and a schedule of faults."""
    draw = random.Random(f"chaos {seed}")
    contracts = draw.choice((12, 30, 60, 120))
    settings: dict[str, Any] = {"rest": {"requests_per_second": 8, "history_minutes": 180}}
    if draw.random() < 0.5:
        # Small sockets, so that a small market needs several.
        settings["websocket"] = {"planned_subscriptions_per_connection": draw.choice((10, 15, 25))}
    start_ms, end_ms = DEFAULT_START_MS + 40_000, DEFAULT_START_MS + FAULTY_MINUTES * MINUTE_MS
    # The symbols of a market follow from its seed.
    symbols = build(seed, contracts).market.symbols
    events = tuple(sorted(_draw_event(draw, start_ms, end_ms, symbols) for _ in range(draw.randint(2, 7))))
    faults = Faults(
        duplicate=draw.choice((0.0, 0.0, 0.02)),
        reorder=draw.choice((0.0, 0.0, 0.01)),
        late=draw.choice((0.0, 0.0, 0.05)),
        malformed=draw.choice((0.0, 0.0, 0.002)),
        gzip=draw.choice((0.0, 0.0, 0.1)),
        drops_per_hour=draw.choice((0.0, 4.0, 12.0)),
        drop_hang_up=draw.choice(("1001", "1005", "abrupt")),
        refuse_subscriptions=draw.choice((0.0, 0.0, 0.03)),
        refusal=draw.choice(("error", "silence")),
        max_subscriptions=draw.choice((None, None, 12, 20)),
        limit_refusal=draw.choice(("error", "silence", "close")),
        rest_html=draw.choice((0.0, 0.02)),
        rest_truncated=draw.choice((0.0, 0.02)),
        rest_timeout=draw.choice((0.0, 0.01)),
        rest_429=draw.choice((0.0, 0.01)),
        flat_empty_minutes=draw.random() < 0.3,
        rest_delay_ms=draw.choice((0, 0, 200)),
        acknowledge_unsubscribe=draw.random() < 0.3,
        events=events,
    )
    jumps = tuple(
        (draw.uniform(60, FAULTY_MINUTES * 60), draw.uniform(-7200, 7200)) for _ in range(draw.choice((0, 1)))
    )
    return Trial(seed, contracts, FAULTY_MINUTES + MENDING_MINUTES, faults, 20.0, 2.0, jumps, settings)


def _draw_event(draw: random.Random, start_ms: int, end_ms: int, symbols: list[str]) -> FaultEvent:
    at_ms = draw.randrange(start_ms, end_ms)
    longest_ms = end_ms - at_ms
    duration_ms = min(longest_ms, draw.choice((5_000, 20_000, 60_000, 180_000)))
    symbol = draw.choice(symbols)
    connection = f"connection:{draw.randint(1, 4)}"
    kind = draw.choice(_EVENT_KINDS)
    match kind:
        case "silence":
            return FaultEvent(at_ms, kind, draw.choice((f"kline:{symbol}", connection, "all", "tickers")), duration_ms)
        case "lost_topic":
            return FaultEvent(
                at_ms, kind, draw.choice((f"kline:{symbol}", f"kline:{draw.choice(symbols[:8])}", "tickers"))
            )
        case "drop" | "drop_abrupt":
            return FaultEvent(at_ms, kind, draw.choice((connection, "all")))
        case "half_open":
            return FaultEvent(at_ms, kind, draw.choice((connection, "all")), duration_ms)
        case "listing":
            return FaultEvent(at_ms, kind, f"NEW{draw.randint(1, 9)}_USDT")
        case "contract_size":
            return FaultEvent(at_ms, kind, symbol, value=draw.choice((0.1, 10.0, 1_000.0)))
        case "delisting":
            return FaultEvent(at_ms, kind, symbol)
        case _:
            return FaultEvent(at_ms, kind, duration_ms=duration_ms)


def run_trial(trial: Trial) -> Verdict:
    """Run one trial to its verdict, in virtual time."""
    return run_virtual(_run(trial))


class _JumpingClock:
    """Market time whose wall part is moved by hand; what waits uses the monotonic part, which nobody moves."""

    def __init__(self, clock: Clock, jumps: Iterable[tuple[float, float]]) -> None:
        self._clock = clock
        self._origin_s = clock.monotonic()
        self._jumps = sorted(jumps)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def time_ns(self) -> int:
        passed_s = self._clock.monotonic() - self._origin_s
        return self._clock.time_ns() + sum(int(by_s * 1e9) for at_s, by_s in self._jumps if at_s <= passed_s)


class _Witness:
    """Remembers what the bot said, as whoever reads its output would."""

    def __init__(self, keep_log: bool) -> None:
        self.closed: dict[tuple[str, int], Candle] = {}
        self.lost: set[tuple[str, int]] = set()
        self.signals = 0
        self.events = hashlib.sha256() if keep_log else None
        self.signal_log = hashlib.sha256()

    def on_step(self, batch: Batch, step: Step) -> None:
        for candle in step.outcome.closed:
            if candle.timeframe is Timeframe.Min1:
                key = candle.symbol, candle.open_time_ms
                self.closed[key] = candle
                self.lost.discard(key)
        for span in step.outcome.lost:
            for open_time_ms in range(span.start_ms, span.end_ms, MINUTE_MS):
                self.closed.pop((span.symbol, open_time_ms), None)
                self.lost.add((span.symbol, open_time_ms))
        for signal in step.signals:
            self.signals += 1
            self.signal_log.update(msgspec.json.encode(signal))
        if self.events is not None:
            self.events.update(msgspec.msgpack.encode(batch))


async def _run(trial: Trial) -> Verdict:
    exchange = build(
        trial.seed,
        trial.contracts,
        faults=trial.faults,
        pumps_per_hour=trial.pumps_per_hour,
        activity=trial.activity,
    )
    clock = Clock.starting_at(DEFAULT_START_MS)
    network = SimulatedNetwork(exchange, clock, seed=trial.seed)
    config = Config().with_overrides(trial.settings)
    witness = _Witness(trial.keep_log)
    jitter = random.Random(f"jitter {trial.seed}").random
    async with network:
        bot = Bot(
            config,
            adapter_for(config),
            network.dial,
            network.get,
            _JumpingClock(clock, trial.jumps),
            jitter,
            witness.on_step,
        )
        await bot.run(trial.minutes * 60)
    verdict = _judge(trial, exchange, bot, witness)
    await _check_leaks(verdict)
    return verdict


def _judge(trial: Trial, exchange: SimulatedExchange, bot: Bot, witness: _Witness) -> Verdict:
    verdict = Verdict(
        trial.seed,
        faults=_injected(trial.faults, exchange),
        signals=witness.signals,
        signals_digest=witness.signal_log.hexdigest(),
        events_digest=witness.events.hexdigest() if witness.events is not None else "",
    )
    end_ms = DEFAULT_START_MS + int(trial.minutes * MINUTE_MS) - UNSETTLED_MS
    for symbol, series in bot.engine.book.series.items():
        if not series.watched_since_ms:
            continue
        if symbol not in exchange.market.symbols:
            continue  # delisted: nobody can be asked any more
        first, last = series.watched_since_ms // MINUTE_MS, end_ms // MINUTE_MS
        true = exchange.market.columns(symbol, Timeframe.Min1, first, last).candles()
        truth = {candle.open_time_ms: candle for candle in true}
        for open_time_ms in range(series.watched_since_ms, end_ms // MINUTE_MS * MINUTE_MS, MINUTE_MS):
            _judge_minute(verdict, bot, witness, symbol, open_time_ms, truth)
    if verdict.minutes_checked < trial.contracts * trial.minutes / 2:
        verdict.violations.append(f"only {verdict.minutes_checked} minutes were watched")
    _check_hearing(verdict, exchange, bot, end_ms)
    _check_limits(verdict, exchange, bot.config)
    _check_dials(verdict, exchange, trial.faults, bot)
    _check_bounds(verdict, bot)
    return verdict


def _judge_minute(
    verdict: Verdict, bot: Bot, witness: _Witness, symbol: str, open_time_ms: int, truth: dict[int, MarketCandle]
) -> None:
    verdict.minutes_checked += 1
    said = witness.closed.get((symbol, open_time_ms))
    trust = bot.engine.ledger.trust(symbol, open_time_ms)
    if said is not None and not _is_true(said, truth.get(open_time_ms)):
        verdict.wrong += 1
        verdict.violations.append(f"{symbol} {open_time_ms}: said {said}, true is {truth.get(open_time_ms)}")
    if trust is Trust.UNKNOWN:
        verdict.unknown += 1
        if said is not None or (symbol, open_time_ms) not in witness.lost:
            verdict.unexplained += 1
            verdict.violations.append(f"{symbol} {open_time_ms}: unknown, and nobody was told")
        elif symbol not in bot.feed.given_up:
            verdict.unexplained += 1
            verdict.violations.append(f"{symbol} {open_time_ms}: unknown, although the exchange could tell")


def _check_hearing(verdict: Verdict, exchange: SimulatedExchange, bot: Bot, end_ms: int) -> None:
    """Every symbol with a stream must be heard again by it, not only read back: no stream may stay dead unnoticed."""
    first, last = (end_ms - MUTE_MINUTES * MINUTE_MS) // MINUTE_MS, end_ms // MINUTE_MS - 1
    for symbol, series in bot.engine.book.series.items():
        if series.source and symbol in exchange.market.symbols and symbol not in bot.feed.polled:
            traded = exchange.market.columns(symbol, Timeframe.Min1, first, last).candles()
            if len(traded) == MUTE_MINUTES and series.last_push_ms < traded[0].open_time_ms:
                verdict.violations.append(f"{symbol} trades, and its stream is mute since {series.last_push_ms}")


def _is_true(said: Candle, true: MarketCandle | None) -> bool:
    if true is None:
        return said.contracts == 0.0 and said.open == said.high == said.low == said.close
    return (said.open, said.high, said.low, said.close, said.contracts) == (
        true.open,
        true.high,
        true.low,
        true.close,
        true.contracts,
    ) and said.finality is not Finality.OPEN


def _injected(faults: Faults, exchange: SimulatedExchange) -> dict[str, int]:
    kinds = Counter[str](event.kind for event in faults.events)
    defaults = Faults()
    for name in Faults.__struct_fields__:
        if name != "events" and getattr(faults, name) != getattr(defaults, name):
            kinds[name] += 1
    return dict(kinds)


def _check_limits(verdict: Verdict, exchange: SimulatedExchange, config: Config) -> None:
    counters, websocket = exchange.counters, config.websocket
    allowed_commands = websocket.commands_per_second + 1  # a window of one second may cut into two intervals
    for name, value, limit in (
        ("connections", counters.max_connections, websocket.max_connections),
        ("subscriptions on a connection", counters.max_subscriptions, websocket.max_subscriptions_per_connection),
        ("commands a second", counters.max_commands_per_second, allowed_commands),
    ):
        if value > limit:
            verdict.violations.append(f"{value} {name}, {limit:g} are allowed")


def _check_dials(verdict: Verdict, exchange: SimulatedExchange, faults: Faults, bot: Bot) -> None:
    """A server that accepts and hangs up must meet growing patience, not a storm."""
    for event in faults.events:
        if event.kind == "hang_up":
            end_ms = event.at_ms + event.duration_ms
            dials = sum(event.at_ms <= at_ms < end_ms for at_ms in exchange.counters.dial_times_ms)
            allowed = DIALS_AT_FIRST + event.duration_ms / 60_000 * DIALS_PER_MINUTE
            if dials > allowed * len(bot.feed.pool.connections):
                verdict.violations.append(
                    f"{dials} dials in {event.duration_ms / 1_000:g} s to a server that hangs up on every one"
                )


def _check_bounds(verdict: Verdict, bot: Bot) -> None:
    settling = max((len(series.settling) for series in bot.engine.book.series.values()), default=0)
    if settling > 5:
        verdict.violations.append(f"a symbol has {settling} minutes that never closed")
    strays = [symbol for symbol in bot.engine.warm if symbol not in bot.engine.book.series]
    if strays:
        verdict.violations.append(f"state is kept of symbols that are gone: {strays[:5]}")


async def _check_leaks(verdict: Verdict) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    gc.collect()
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if left:
        verdict.violations.append(f"tasks are left behind: {left}")
