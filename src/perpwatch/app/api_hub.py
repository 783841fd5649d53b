"""The one place that looks at a running bot for API and pages: everything is made once and shared by all who look.

While nobody looks, nothing is made; only what must be remembered is noted, a figure of each minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from perpwatch.alert.outcomes import Outcome, Score, scorecard
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.api_actions import Actions, Unknown
from perpwatch.app.api_market import FIELDS, MarketRow, MarketTable
from perpwatch.app.api_records import (
    AlertRecord,
    Candles,
    ClassCoverage,
    ConnectionRecord,
    Coverage,
    DeliveryRecord,
    LedgerPage,
    LedgerRow,
    MinuteTrades,
    OutcomeRecord,
    RestRecord,
    RuleRecord,
    RuleTrial,
    ServedBy,
    Setting,
    Status,
    StreamEvent,
    SymbolDetail,
    SymbolRow,
    TradesFlow,
    TrustCount,
)
from perpwatch.app.api_stream import Events, Message, Topic
from perpwatch.app.api_trial import NOTHING_KEPT, TrialRunning, try_rule
from perpwatch.app.bot import Bot
from perpwatch.app.delivery import ChannelStatus
from perpwatch.app.engine import Step
from perpwatch.app.freshness import Freshness, ages_ms, freshness_of, measure_freshness, served_by_rest
from perpwatch.app.health import Monitor
from perpwatch.app.metrics import coverage_of, covered_symbols
from perpwatch.app.planning import PlanReport, plan_report
from perpwatch.app.slices import one_by_one
from perpwatch.app.usual import USUAL_CANDLES, usual_turnover
from perpwatch.app.view import alert_line
from perpwatch.detect.rules import Condition, Rule, describe
from perpwatch.errors import ConfigurationError, ExchangeError, StoreError
from perpwatch.feed.rest import Priority
from perpwatch.market.candles import flat_candle, roll_up_all
from perpwatch.market.ledger import CODES
from perpwatch.model import (
    ANALYSED_TIMEFRAMES,
    MINUTE_MS,
    Candle,
    CandleHistory,
    Finality,
    Signal,
    Timeframe,
    Trust,
)
from perpwatch.store import Reader

logger = logging.getLogger(__name__)

DAY_MS = 1_440 * MINUTE_MS
#: The freshness of the data is measured at every so-manieth tick; it takes half as long as all else together.
FRESHNESS_TICKS = 5
#: A minute is decided so long after its end at the latest, see ``VERDICT_MS`` of the candles; before, it is not shown.
DECIDED_MS = 35_000
#: Signals whose silence can be explained.
KEPT_SILENCES = 2_000
#: Outcomes at hand, and how far back they are read from the store.
KEPT_OUTCOMES, OUTCOME_DAYS = 10_000, 30
#: Over so many ticks the rate of a connection is told.
RATE_TICKS = 10
#: Rows of the outbox that are looked at for one answer.
MOST_DELIVERIES = 10_000
#: Candles that were asked of the exchange are good for so long.
CANDLES_FRESH_S, CANDLES_KEPT = 60.0, 200
#: An answer of the exchange is awaited for so long; then what is at hand must do.
CANDLES_WAIT_S = 4.0

#: Of a code of the ledger its digit.
_DIGITS = bytes(ord("0") + code if code < 10 else ord("?") for code in range(256))

_Read = TypeVar("_Read")
SignalKey = tuple[str, str, str, Timeframe, int, bool, int]


class Hub:
    """Watches a bot for its audience. :meth:`run` must run beside the bot, and :meth:`note` be told every step.

    Whoever is going to ask something says so by :meth:`look`.

    Args:
        reader: the store, where there is one.
        tick_s: seconds of the loop between two pictures.
    """

    def __init__(
        self, bot: Bot, monitor: Monitor, title: str, reader: Reader | None, *, tick_s: float, max_clients: int
    ) -> None:
        self.bot = bot
        self.monitor = monitor
        self.title = title
        self.actions = Actions(bot)
        self.table = MarketTable(bot)
        self.config_file: Path | None = None  # where rules that are tried find the store
        self.started_ms = bot.clock.time_ns() // 1_000_000
        self.run_id = f"{time.time_ns():x}"
        self.market = Topic(max_clients)
        self.pulse = Topic(max_clients)
        self.events = Events(self.run_id, max_clients)
        self.outcomes: dict[str, Outcome] = {}
        self.ticks = 0
        self._reader = reader
        self._tick_s = tick_s
        self._made = 0  # the tick of the newest picture
        self._measured = 0  # the tick in which the freshness was measured
        self._pictures = 0
        self._making = asyncio.Lock()
        self._full = -1, Message(b"")
        self._frames: deque[tuple[float, dict[str, int]]] = deque(maxlen=RATE_TICKS + 1)
        self._freshness: Freshness | None = None
        self._trying = asyncio.Lock()
        self._silences: dict[SignalKey, str] = {}
        self._day = 0
        self._counts: Counter[tuple[str, str]] = Counter()  # rule and what: signals, alerts, suppressed; of the day
        self._candles: dict[tuple[str, Timeframe], tuple[float, list[Candle]]] = {}

    # --- The flow ---------------------------------------------------------------------------------------------------

    def note(self, step: Step) -> None:
        """Take what a step found; costs nothing where it found nothing."""
        if step.signals or step.alerts or step.suppressed or step.outcomes:
            self._count(step)
            for signal in step.signals:
                self._tell("signal", signal.event_time_ms, signal=signal)
            for alert in step.alerts:
                self._tell("alert", alert.time_ms, alert=record_of(alert))
            for suppressed in step.suppressed:
                self._silences[key_of(suppressed.signal)] = suppressed.text or suppressed.silence.value
            while len(self._silences) > KEPT_SILENCES:
                del self._silences[next(iter(self._silences))]
            for outcome in step.outcomes:
                self._keep(outcome)

    async def run(self) -> None:
        """Make a picture at every tick at which somebody looks, until cancelled."""
        await self._recall()
        while True:
            await asyncio.sleep(self._tick_s)
            await self._tick()

    async def _tick(self) -> None:
        self._frames.append(
            (self.bot.clock.monotonic(), {one.source: one.data_frames for one in self.bot.feed.pool.status()})
        )
        self.ticks += 1
        if len(self.market) or len(self.pulse):
            await self.look()
        else:
            self.table.remember()

    async def look(self) -> None:
        """Make a new picture, unless the one of this tick is made already."""
        async with self._making:
            if not self._pictures or self._made < self.ticks:
                await self._make()

    async def _make(self) -> None:
        """Bring the table up to date, and tell everybody what changed."""
        tick = self.ticks
        if self._freshness is None or tick - self._measured >= FRESHNESS_TICKS:
            self._freshness = await one_by_one(measure_freshness(self.bot))
            self._measured = tick
        changed, gone = await one_by_one(self.table.updating(max(1, tick - self._made)))
        # From here on in one breath: who comes later begins with the new table, and who is here gets what changed.
        self._pictures += 1
        self._made = tick
        if len(self.market):
            self.market.publish(self._message(changed, gone))
        if len(self.pulse):
            self.pulse.publish(self.pulse_now())

    def market_now(self) -> Message:
        """The whole table as a message; made once for all who come between two pictures."""
        if self._full[0] != self._pictures:
            self._full = self._pictures, self._message(list(self.table.rows.values()), [], is_whole=True)
        return self._full[1]

    def pulse_now(self) -> Message:
        """How well the watch is, as a message."""
        return Message(msgspec.json.encode({"type": "pulse", **self._pulse()}))

    def _pulse(self) -> dict[str, Any]:
        health = self.monitor.report()
        return {
            "run": self.run_id,
            "time_ms": self.table.updated_ms,
            "age_s": health.data.age_s,
            "status": health.status,
            "reasons": health.reasons,
            "watched": len(self.table.rows),
            "mode": self.bot.config.mode,
            "polled": len(self.bot.feed.polled),
            "ages": self.freshness().all,
        }

    def _message(self, rows: Sequence[MarketRow], gone: Sequence[str], *, is_whole: bool = False) -> Message:
        kind = "whole" if is_whole else "changes"
        message = {"type": kind, **self._pulse(), "rows": rows, "gone": gone}
        if is_whole:
            message["fields"] = FIELDS
        return Message(msgspec.json.encode(message))

    def _tell(self, kind: str, time_ms: int, *, signal: Signal | None = None, alert: AlertRecord | None = None) -> None:
        self.events.tell(kind, lambda name: msgspec.json.encode(StreamEvent(name, kind, time_ms, signal, alert)))

    def _count(self, step: Step) -> None:
        day = self.bot.engine.now_ms // DAY_MS
        if day != self._day:
            self._day, self._counts = day, Counter()
        for signal in step.signals:
            self._counts[signal.rule, "signals"] += 1
        for alert in step.alerts:
            self._counts[alert.rule, "alerts"] += 1
        for suppressed in step.suppressed:
            self._counts[suppressed.rule, "suppressed"] += 1

    def _keep(self, outcome: Outcome) -> None:
        self.outcomes[outcome.key] = outcome
        if len(self.outcomes) > KEPT_OUTCOMES:
            del self.outcomes[next(iter(self.outcomes))]

    async def _recall(self) -> None:
        """What the store knows of this day, and what came of earlier alerts."""
        today_ms = self.started_ms - self.started_ms % DAY_MS
        found = await self.read(lambda reader: reader.signal_counts(today_ms, self.started_ms)) or {}
        alerted = await self.read(lambda reader: reader.alerts(today_ms, limit=1_000_000, until_ms=self.started_ms))
        earlier = Counter[tuple[str, str]]()
        for one in alerted or ():
            alert = decoded_alert(one.body)
            if alert is not None:
                earlier[alert.rule, "alerts"] += 1
                earlier[alert.rule, "told"] += isinstance(alert, Alert)
        for rule, count in found.items():
            earlier[rule, "signals"] = count
            # What was kept silent is not kept; it is every signal that was not told by itself.
            earlier[rule, "suppressed"] = max(0, count - earlier[rule, "told"])
        if self._day in (0, today_ms // DAY_MS):
            self._day = today_ms // DAY_MS
            self._counts += earlier
        since_ms = self.started_ms - OUTCOME_DAYS * DAY_MS
        for stored in await self.read(lambda reader: reader.outcomes(since_ms)) or ():
            try:
                self._keep(msgspec.json.decode(stored.body, type=Outcome))
            except msgspec.DecodeError as error:
                logger.warning("an outcome cannot be read and is left out: %s", error)

    @property
    def has_store(self) -> bool:
        return self._reader is not None

    async def read(self, question: Callable[[Reader], _Read]) -> _Read | None:
        """Ask the store, beside the loop; None where there is none, or where it cannot answer, which is logged."""
        if self._reader is None:
            return None
        try:
            return await asyncio.to_thread(question, self._reader)
        except StoreError as error:
            logger.warning("the store cannot be read: %s", error)
            return None

    def freshness(self) -> Freshness:
        """How old what is known is, measured a few seconds ago at most."""
        if self._freshness is None:
            self._freshness = freshness_of(self.bot)
        return self._freshness

    def silence_of(self, signal: Signal) -> str:
        """Why a signal was not told; empty where it was, or where that is forgotten."""
        return self._silences.get(key_of(signal), "")

    # --- The watch --------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        bot = self.bot
        return Status(
            run=self.run_id,
            title=self.title,
            line=bot.status_line(),
            time_ms=bot.engine.now_ms,
            started_ms=self.started_ms,
            signals=bot.engine.signals,
            alerts=bot.engine.alerts,
            stream_clients=len(self.events) + len(self.market) + len(self.pulse),
            stream_clients_dropped=self.events.dropped + self.market.dropped + self.pulse.dropped,
            health=self.monitor.report(),
        )

    def connections(self) -> list[ConnectionRecord]:
        before_s, before = self._frames[0] if self._frames else (0.0, dict[str, int]())
        span_s = self._frames[-1][0] - before_s if self._frames else 0.0
        return [
            ConnectionRecord(
                source=one.source,
                state=one.state.value,
                confirmed=one.confirmed,
                wanted=one.wanted,
                rate=round(max(0, self._frames[-1][1].get(one.source, 0) - before.get(one.source, 0)) / span_s, 2)
                if span_s > 0.0
                else 0.0,
                expected_rate=round(one.expected_rate, 2),
                data_frames=one.data_frames,
                bad_frames=one.bad_frames,
                reconnects=one.reconnects,
                refusals=one.refusals,
                lag_ms=round(one.lag_ms, 1),
                data_age_s=None if one.data_age_s is None else round(one.data_age_s, 2),
                retry_in_s=None if one.retry_in_s is None else round(one.retry_in_s, 1),
                last_error=one.last_error,
            )
            for one in self.bot.feed.pool.status()
        ]

    def rest(self) -> RestRecord:
        rest = self.bot.feed.rest
        counters = rest.counters
        breakers = {endpoint: rest.breaker_state(endpoint).value for endpoint in rest.breakers}
        return RestRecord(
            counters.requests, counters.failures, counters.rate_limited, rest.waiting, round(rest.rate, 2), breakers
        )

    def plan(self) -> PlanReport:
        """What should be subscribed where, and why."""
        turnover = {symbol: row.turnover_24h or 0.0 for symbol, row in self.table.rows.items()}
        return plan_report(self.bot.config, turnover)

    def coverage(self) -> Coverage:
        bot, found = self.bot, coverage_of(self.bot)
        end_ms = bot.engine.now_ms - bot.engine.now_ms % MINUTE_MS
        counts = bot.engine.ledger.counts(bot.watched, end_ms - 60 * MINUTE_MS, end_ms)
        return Coverage(
            mode=bot.config.mode.value,
            watched=found.watched,
            covered=found.covered,
            polled=found.polled,
            polled_why=served_by_rest(bot),
            warm=bot.progress.warm,
            classes=self._classes(),
            ages=self.freshness(),
            missing=bot.gap_reasons(),
            trust=TrustCount(60, counts),
        )

    def _classes(self) -> list[ClassCoverage]:
        series, covered = self.bot.engine.book.series, set(covered_symbols(self.bot))
        watched = Counter(one.contract.asset_class for one in series.values())
        good = Counter(one.contract.asset_class for symbol, one in series.items() if symbol in covered)
        return [ClassCoverage(name, count, good[name]) for name, count in watched.most_common()]

    def troubled(self, count: int, minutes: int) -> list[str]:
        """Contracts of whose last minutes some are not known, most traded first; then the others, most traded first."""
        start_ms, end_ms = self._decided(minutes)
        ledger = self.bot.engine.ledger
        warm = self.bot.engine.warm
        bad: list[str] = []
        good: list[str] = []
        for symbol in self.table.rows:
            is_bad = symbol in warm and 0 in ledger.codes(symbol, start_ms, end_ms)
            (bad if is_bad else good).append(symbol)
        return (bad + good)[:count]

    @property
    def decided_ms(self) -> int:
        """About minutes that opened before this one nothing is to be waited for."""
        return self._decided(1)[1]

    def _decided(self, minutes: int) -> tuple[int, int]:
        """The last minutes about which nothing is to be waited for."""
        decided_ms = self.bot.engine.now_ms - DECIDED_MS
        end_ms = max(0, decided_ms - decided_ms % MINUTE_MS)
        return max(0, end_ms - minutes * MINUTE_MS), end_ms

    def ledger(self, symbols: Sequence[str], minutes: int) -> LedgerPage:
        """What is known of some symbols' last minutes, those left out about which the verdict is still awaited."""
        ledger = self.bot.engine.ledger
        start_ms, end_ms = self._decided(minutes)
        rows = [
            LedgerRow(symbol, ledger.codes(symbol, start_ms, end_ms).translate(_DIGITS).decode()) for symbol in symbols
        ]
        return LedgerPage(start_ms, minutes, {str(code): trust for trust, code in CODES.items()}, rows)

    def symbol_rows(self) -> list[SymbolRow]:
        """The market table with names, and with what need not be known every second."""
        by_rest = set(self.bot.feed.polled)
        return [self._symbol_row(row, by_rest) for row in self.table.rows.values()]

    def _symbol_row(self, row: MarketRow, by_rest: Collection[str]) -> SymbolRow:
        symbol, bot = row.symbol, self.bot
        contract, ticker = bot.engine.book.series[symbol].contract, bot.engine.ticker(symbol)
        interest = ticker.open_interest if ticker is not None else None
        return SymbolRow(
            *msgspec.structs.astuple(row),
            served_by=ServedBy.REST if symbol in by_rest else ServedBy.WEBSOCKET,
            open_interest=interest,
            open_interest_value=None if not interest or not row.price else contract.notional(interest, row.price),
            is_muted=symbol in bot.analysis.muted,
            is_pinned=symbol in bot.pinned,
        )

    # --- One contract -----------------------------------------------------------------------------------------------

    def symbol(self, symbol: str) -> SymbolDetail | None:
        """None for one that is not watched."""
        row, series = self.table.rows.get(symbol), self.bot.engine.book.series.get(symbol)
        if row is None or series is None:
            return None
        return SymbolDetail(
            self._symbol_row(row, set(self.bot.feed.polled)),
            series.contract,
            symbol in self.bot.analysis.muted,
            symbol in self.bot.pinned,
            series.source if series.is_up else "",
            self._age_s(symbol),
            self.bot.adapter.symbol_page(symbol),
        )

    def _age_s(self, symbol: str) -> float | None:
        age_ms = ages_ms(self.bot).get(symbol)
        return None if age_ms is None else round(age_ms / 1_000, 1)

    async def candles(
        self, symbol: str, timeframe: Timeframe, limit: int, *, asks_exchange: bool = True
    ) -> Candles | None:
        """The newest candles of a watched symbol, from memory, else the store, else the exchange; None if not watched.

        The last one is the running candle where the timeframe is analysed. The exchange may take seconds to answer.
        """
        count = limit + USUAL_CANDLES
        book = self.bot.engine.book
        series = book.series.get(symbol)
        if series is None:
            return None
        minutes = list(series.minutes)
        at_hand = roll_up_all(minutes, timeframe, until_ms=minutes[-1].close_time_ms) if minutes else []
        if at_hand and timeframe is not Timeframe.Min1 and minutes[0].open_time_ms > at_hand[0].open_time_ms:
            at_hand = at_hand[1:]  # its first minutes are not at hand
        if len(at_hand) < count:
            since_ms = at_hand[0].open_time_ms if at_hand else None
            known = {
                one.open_time_ms: one for one in await self._older(symbol, timeframe, count, since_ms, asks_exchange)
            }
            at_hand = [one for _, one in sorted((known | {one.open_time_ms: one for one in at_hand}).items())]
        series = book.series.get(symbol)
        if series is not None and timeframe is Timeframe.Min1:
            last_ms = at_hand[-1].open_time_ms if at_hand else 0
            at_hand += [one for one in book.settling_candles(series) if one.open_time_ms > last_ms]
        if series is not None and series.running is not None and timeframe in ANALYSED_TIMEFRAMES:
            running = book.running_candle(series, timeframe)
            at_hand = [one for one in at_hand if one.open_time_ms < running.open_time_ms] + [running]
        return Candles(symbol, timeframe, at_hand[-limit:], usual_turnover(at_hand, limit))

    async def _older(
        self, symbol: str, timeframe: Timeframe, limit: int, since_ms: int | None, asks_exchange: bool
    ) -> list[Candle]:
        """Candles from before ``since_ms``, which is at hand, and maybe some after it."""
        kept = self._candles.get((symbol, timeframe))
        now_s = self.bot.clock.monotonic()
        if kept is not None:
            last_ms = kept[1][-1].close_time_ms if kept[1] else 0
            if now_s - kept[0] < CANDLES_FRESH_S or (since_ms is not None and last_ms >= since_ms):
                return kept[1]
        stored = await self.read(lambda reader: reader.newest_candles(symbol, timeframe, limit))
        if stored is not None and len(stored) >= limit:
            self._remember(symbol, timeframe, stored)
            return stored
        if not asks_exchange:
            return list(stored or ())
        bot = self.bot
        end_ms = bot.feed.now_ms()
        start_ms = max(0, end_ms - min(limit, bot.adapter.limits.max_candles_per_request) * timeframe.milliseconds)
        request = bot.adapter.candles(bot.engine.book.series[symbol].contract, timeframe, start_ms, end_ms)
        try:
            async with asyncio.timeout(CANDLES_WAIT_S):
                history = await bot.feed.rest.fetch(request, Priority.AUDIT)
        except (ExchangeError, TimeoutError) as error:
            logger.info("candles of %s for a page cannot be read: %s", symbol, error or "it takes too long")
            return list(stored or ())
        found = _with_quiet_ones(history, timeframe, end_ms)
        # What was kept knows better how a candle came about; the exchange knows more of them.
        known = {one.open_time_ms: one for one in found} | {one.open_time_ms: one for one in stored or ()}
        found = [one for _, one in sorted(known.items())]
        self._remember(symbol, timeframe, found)
        return found

    def _remember(self, symbol: str, timeframe: Timeframe, candles: list[Candle]) -> None:
        self._candles.pop((symbol, timeframe), None)
        self._candles[symbol, timeframe] = self.bot.clock.monotonic(), candles
        if len(self._candles) > CANDLES_KEPT:
            del self._candles[next(iter(self._candles))]

    def trades(self, symbol: str) -> TradesFlow:
        """The trades of the last hour's minutes, where they are subscribed."""
        flow, now_ms = self.bot.analysis.flow, self.bot.engine.now_ms
        first_ms = now_ms - now_ms % MINUTE_MS - 59 * MINUTE_MS
        minutes = []
        for open_time_ms in range(first_ms, now_ms, MINUTE_MS):
            one = flow.of_candle(symbol, Timeframe.Min1, open_time_ms)
            if one is not None:
                rushes = one.buy_rushes + one.sell_rushes
                minutes.append(MinuteTrades(open_time_ms, one.trades, rushes, round(one.buy_share, 4)))
        return TradesFlow(symbol, bool(minutes), minutes)

    # --- What was found ---------------------------------------------------------------------------------------------

    def channels(self) -> list[ChannelStatus]:
        """How the channels do that alerts go out by; none where none is configured."""
        deliveries = self.monitor.metrics.deliveries
        return deliveries.status() if deliveries is not None else []

    async def delivered(self, alerts: Sequence[AlertRecord]) -> list[AlertRecord]:
        """The alerts with what became of them on each channel, where that is kept."""
        if not alerts:
            return []
        # A notice is decided with its alert; the exchange's time stands on both.
        first_ms, last_ms = alerts[0].time_ms, alerts[-1].time_ms
        rows = await self.read(lambda reader: reader.deliveries(first_ms, limit=MOST_DELIVERIES, until_ms=last_ms + 1))
        if rows is None:
            return list(alerts)
        by_key: dict[str, list[DeliveryRecord]] = {one.key: [] for one in alerts}
        for row in rows:
            if row.key in by_key:
                by_key[row.key].append(DeliveryRecord.of(row))
        return [msgspec.structs.replace(one, deliveries=by_key[one.key]) for one in alerts]

    def alerts(self) -> list[AlertRecord]:
        """The newest alerts of this run, oldest first."""
        return [record_of(alert) for alert in self.bot.alerts]

    def outcome_records(self) -> list[OutcomeRecord]:
        return [OutcomeRecord.of(one) for one in self.outcomes.values()]

    def scores(self) -> list[Score]:
        return scorecard(self.outcomes.values(), self.bot.engine.now_ms)

    async def try_rule(self, rule: Rule) -> RuleTrial:
        """How often a rule would have told something in the last day.

        Raises:
            TrialRunning: another one is being tried.
            ConfigurationError: nothing can be said, and why.
        """
        if not self.has_store:
            raise ConfigurationError("store.enabled", False, f"true: {NOTHING_KEPT}")
        if self._trying.locked():
            raise TrialRunning
        async with self._trying:
            return await try_rule(rule, self.config_file)

    def rules(self) -> list[RuleRecord]:
        analysis, now_ms = self.bot.analysis, self.bot.engine.now_ms
        scores = {score.rule: score for score in self.scores() if score.days == OUTCOME_DAYS}
        budgets = analysis.desk.budget_status(now_ms)
        counts = self._counts if now_ms // DAY_MS == self._day else Counter[tuple[str, str]]()
        records = []
        for rule in analysis.rules.rules:
            score, budget = scores.get(rule.name), budgets.get(rule.name)
            records.append(
                RuleRecord(
                    name=rule.name,
                    text=describe(rule),
                    is_tag=rule.is_tag,
                    is_paused=rule.name in analysis.paused,
                    signals_today=counts[rule.name, "signals"],
                    alerts_today=counts[rule.name, "alerts"],
                    suppressed_today=counts[rule.name, "suppressed"],
                    budget=budget.text if budget is not None else "",
                    alerts_per_day=rule.alerts_per_day,
                    hit_rate=score.hit_rate if score is not None else None,
                    judged=score.judged if score is not None else 0,
                    settings=[
                        Setting(number, name, float(value))
                        for number, condition in enumerate(rule.conditions)
                        for name, value in numbers_of(condition).items()
                    ],
                )
            )
        return records


def _with_quiet_ones(history: CandleHistory, timeframe: Timeframe, end_ms: int) -> list[Candle]:
    """What the exchange said of closed candles; those without a trade, which it leaves out, are drawn flat."""
    found: list[Candle] = []
    for candle in history.candles:
        if candle.close_time_ms > end_ms:
            break
        if found:
            last = found[-1]
            found += [
                msgspec.structs.replace(
                    flat_candle(history.symbol, open_time_ms, last.close, Finality.REST, Trust.VERIFIED),
                    timeframe=timeframe,
                )
                for open_time_ms in range(last.close_time_ms, candle.open_time_ms, timeframe.milliseconds)
            ]
        found.append(candle)
    return found


def key_of(signal: Signal) -> SignalKey:
    """What tells a signal from all others."""
    return (
        signal.rule,
        signal.detector,
        signal.symbol,
        signal.timeframe,
        signal.open_time_ms,
        signal.is_running,
        signal.event_time_ms,
    )


def decoded_alert(body: bytes) -> Alert | MarketAlert | None:
    """An alert as the store has it; None for one that cannot be read."""
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(body, type=Alert)
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(body, type=MarketAlert)
    logger.warning("an alert that was kept cannot be read and is left out")
    return None


def record_of(alert: Alert | MarketAlert) -> AlertRecord:
    text = alert_line(alert)
    if isinstance(alert, Alert):
        return AlertRecord(alert.key, alert.time_ms, alert.rule, alert.symbol, text, alert=alert)
    return AlertRecord(alert.key, alert.time_ms, alert.rule, "", text, market=alert)


def numbers_of(condition: Condition) -> dict[str, int | float]:
    """The numbers that decide when a condition holds, those with their defaults too."""
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(condition.kind.make).parameters.items()
    }
    return {
        name: value
        for name, value in (defaults | dict(condition.settings)).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def changed_rule(hub: Hub, name: str, condition: int, setting: str, value: float) -> Rule:
    """A rule in force with one number changed.

    Raises:
        Unknown: no such rule.
        ConfigurationError: no such condition or setting, or a value that its detector refuses.
    """
    rules = {rule.name: rule for rule in hub.bot.analysis.rules.rules}
    if name not in rules:
        raise Unknown("rule", name, f"one of {', '.join(rules)}")
    rule = rules[name]
    if not 0 <= condition < len(rule.conditions):
        raise ConfigurationError("condition", condition, f"0 to {len(rule.conditions) - 1}")
    old = rule.conditions[condition]
    numbers = numbers_of(old)
    if setting not in numbers:
        raise ConfigurationError("name", setting, f"one of {', '.join(numbers) or 'none: it has no numbers'}")
    known = numbers[setting]
    number = int(value) if isinstance(known, int) and value.is_integer() else value
    new = msgspec.structs.replace(old, settings={**old.settings, setting: number})
    try:
        new.make()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(setting, value, str(error)) from error
    conditions = (*rule.conditions[:condition], new, *rule.conditions[condition + 1 :])
    return msgspec.structs.replace(rule, conditions=conditions)
