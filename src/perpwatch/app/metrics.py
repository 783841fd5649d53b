"""The state of a bot in the words of Prometheus. ``docs/metrics.md`` says what each name means.

Nothing here carries a symbol: a label takes one of a few values, so that a thousand contracts cost no more than ten.
What the program counts anyway is read when somebody asks; only latencies and what a step led to are noted as it
happens, once per batch and never per frame.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from perpwatch.alert.operational import OperationalAlert, Phase, Trouble
from perpwatch.app.bot import Bot
from perpwatch.app.delivery import Deliveries
from perpwatch.app.engine import Step
from perpwatch.app.freshness import freshness_of, polled_by_reason
from perpwatch.app.histogram import Histogram
from perpwatch.app.messages import Dispatcher
from perpwatch.errors import ConnectionFailed, ConnectionLost, ExchangeError, StaleConnection
from perpwatch.feed.breaker import BreakerState
from perpwatch.feed.connection import State
from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS, Batch, Finality, StreamUp, Timeframe, Trust
from perpwatch.store import DeliveryState

#: How far back the ledger is summed up.
LEDGER_MINUTES = 60
#: A contract that is read by REST counts as covered while its newest minute is not older than this. A round of polls
#: of a whole market takes minutes.
POLLED_FRESH_MS = 10 * MINUTE_MS

_Name = TypeVar("_Name")
_Labels = TypeVar("_Labels", bound=tuple[str, ...])
_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SHORT_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_OFFSET_S = (-60.0, -10.0, -5.0, -2.0, -1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)


def reason_class(error: ExchangeError) -> str:
    """Why a connection failed, in one of :data:`REASONS`."""
    match error:
        case ConnectionFailed(status=None):
            return "unreachable"
        case ConnectionFailed():
            return "refused"
        case StaleConnection():
            return "mute"
        # Those that we give up ourselves carry no code of the other side, only what we said about them.
        case ConnectionLost(reason=reason) if reason.startswith("mute"):
            return "mute"
        case ConnectionLost(reason=reason) if reason.startswith("renewed"):
            return "renewed"
        case ConnectionLost(code=1006):
            return "broken"
        case ConnectionLost():
            return "closed"
    return "other"


REASONS = ("unreachable", "refused", "mute", "renewed", "broken", "closed", "other")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the watched contracts are served, and how."""

    watched: int
    covered: int  # their candles are known good at this moment
    polled: int  # by REST


def coverage_of(bot: Bot) -> Coverage:
    """How many contracts are watched, covered and read by REST."""
    return Coverage(len(bot.engine.book.series), len(covered_symbols(bot)), len(bot.feed.polled))


def covered_symbols(bot: Bot) -> list[str]:
    """Contracts with a stream that is up, or whose minutes were read by REST a short while ago."""
    polled = set(bot.feed.polled)
    oldest_ms = max(1, bot.engine.now_ms - POLLED_FRESH_MS)
    return [
        symbol
        for symbol, series in bot.engine.book.series.items()
        if series.is_up or (symbol in polled and series.minutes.end_ms >= oldest_ms)
    ]


class Metrics:
    """Everything that can be measured of one bot, in a registry of its own.

    Have :meth:`take` called with every step.
    """

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.registry = CollectorRegistry()
        self.feed_latency = Histogram(_LATENCY_S)
        self.queue_time = Histogram(_SHORT_S)
        self.signal_latency = Histogram(_SHORT_S)
        self.clock_offset = Histogram(_OFFSET_S)
        self.loop_lag = Histogram(_SHORT_S)
        self.gc_pause = Histogram(_SHORT_S)
        self.batches = 0
        self.delay_s = 0.0  # sum over batches, from the exchange's stamp to the end of the analysis ...
        self.delays = 0  # ... of so many
        self.heard_s = bot.clock.monotonic()  # when anything at all was heard from the exchange
        self.data_s: float | None = None  # when the newest data came
        self.minutes_lost = 0
        self.minutes_repaired = 0
        self.streams_broken = 0
        self.finals: Counter[tuple[Timeframe, Finality]] = Counter()
        self.signals: Counter[str] = Counter()  # by detector
        self.alerts: Counter[tuple[str, str]] = Counter()  # by detector and outcome
        self.operational_alerts: Counter[tuple[Trouble, Phase]] = Counter()
        self.open_troubles: Iterable[Trouble] = ()
        self.failures: Counter[str] = Counter()  # of connections, by reason
        self.pings: Counter[str] = Counter()  # to the dead-man's switch, by result
        self.dispatcher: Dispatcher | None = None  # whose losses to show, where there is one
        self.deliveries: Deliveries | None = None  # whose channels to show, where there are some
        self._watermarks_ms: dict[str, int] = {}
        self._failures_seen: dict[str, int] = {}
        self.registry.register(_BotCollector(self))
        ProcessCollector(namespace="perpwatch", registry=self.registry)

    # --- As it happens ----------------------------------------------------------------------------------------------

    def take(self, batch: Batch, step: Step) -> None:
        """Note what a batch led to."""
        clock = self.bot.clock
        now_s = clock.monotonic()
        queued_s = max(0.0, (clock.time_ns() - batch.received_time_ns) / 1e9)
        self.batches += 1
        self.queue_time.observe(queued_s)
        if batch.source == "rest":
            self.heard_s = now_s
        elif batch.watermark_ms > self._watermarks_ms.get(batch.source, 0):
            # Only a frame moves it. Other batches are our own words: an answer is overdue, a line broke.
            self._watermarks_ms[batch.source] = batch.watermark_ms
            self.heard_s = now_s
            self._note_latency(batch, now_s, queued_s)
        for signal in step.signals:
            self.signals[signal.rule] += 1
            self.signal_latency.observe(max(0.0, (clock.time_ns() - signal.received_time_ns) / 1e9))
        for alert in step.alerts:
            self.alerts[alert.rule, "told"] += 1
        for suppressed in step.suppressed:
            self.alerts[suppressed.rule, suppressed.silence.name.lower()] += 1
        outcome = step.outcome
        for candle in outcome.closed:
            self.finals[candle.timeframe, candle.finality] += 1
            if candle.trust is Trust.REPAIRED and candle.timeframe is Timeframe.Min1:
                self.minutes_repaired += 1
        for span in outcome.lost:
            self.minutes_lost += span.minutes
        self.streams_broken += len(outcome.broken)

    def _note_latency(self, batch: Batch, now_s: float, queued_s: float) -> None:
        """Take the oldest event of the batch, which has waited longest."""
        first = batch.events[0] if batch.events else None
        event_time_ms: int = getattr(first, "event_time_ms", 0)
        if not event_time_ms or isinstance(first, StreamUp):
            return
        self.data_s = now_s
        delay_s = max(0.0, (self.bot.feed.now_ms() - event_time_ms) / 1_000)
        self.delay_s += delay_s
        self.delays += 1
        self.feed_latency.observe(max(0.0, delay_s - queued_s))

    def note_operational(self, alert: OperationalAlert) -> None:
        self.operational_alerts[alert.trouble, alert.phase] += 1

    def note_failures(self) -> None:
        """Sort the failures of connections since the last call by reason; several of one connection count as the last.

        To be called often enough that a connection rarely fails twice in between.
        """
        seen = self._failures_seen
        connections = self.bot.feed.pool.connections
        for source, connection in connections.items():
            new = connection.total_failures - seen.get(source, 0)
            if new > 0 and connection.last_error is not None:
                self.failures[reason_class(connection.last_error)] += new
            # A connection that was closed and opened anew begins at 0.
            seen[source] = connection.total_failures
        for source in seen.keys() - connections.keys():
            del seen[source]

    # --- For whoever asks -------------------------------------------------------------------------------------------

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page for a scraper, and its content type, in the format that its ``Accept`` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def unknown_minutes(self) -> dict[int, int]:
        """How many contracts miss the minute that opens at each exchange time."""
        counts: Counter[int] = Counter()
        for span in self.bot.engine.repairs.open():
            counts.update(range(span.start_ms, span.end_ms, MINUTE_MS))
        return dict(counts)

    def clock_offset_s(self) -> float | None:
        """Our wall clock minus the exchange's, give or take the least network delay; None before its first word."""
        feed = self.bot.feed
        if not feed.exchange_clock.is_set:
            return None
        return self.bot.clock.time_ns() / 1e9 - feed.now_ms() / 1e3


# --- Families ------------------------------------------------------------------------------------------------------

_STATES = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 1.0, BreakerState.OPEN: 2.0}


class _BotCollector(Collector):
    """Reads everything off the bot when a scrape asks for it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        """Nothing is read when the collector is registered: the bot may not be ready."""
        return []

    def collect(self) -> Iterator[Metric]:
        version = importlib.metadata.version("perpwatch")
        yield _gauge("info", "Always 1; the version stands in the label.", ("version",), {(version,): 1.0})
        yield from self._contracts()
        yield from self._connections()
        yield from self._candles()
        yield from self._freshness()
        yield from self._rest()
        yield from self._times()
        yield from self._told()
        yield from self._delivered()

    def _contracts(self) -> Iterator[Metric]:
        bot, coverage = self._metrics.bot, coverage_of(self._metrics.bot)
        contracts = {
            "listed": bot.progress.contracts,
            "watched": coverage.watched,
            "warm": len(bot.engine.warm),
            "covered": coverage.covered,
            "polled": coverage.polled,
        }
        share = coverage.covered / coverage.watched if coverage.watched else 0.0
        yield _gauge("contracts", "Contracts, by how far they are served.", ("state",), _by_name(contracts))
        yield _gauge("coverage_ratio", "Share of the watched contracts whose candles are known good.", (), {(): share})

    def _connections(self) -> Iterator[Metric]:
        metrics, pool = self._metrics, self._metrics.bot.feed.pool
        metrics.note_failures()
        status = pool.status()
        states = Counter(one.state for one in status)
        yield _gauge("connections", "Connections, by state.", ("state",), {(str(one),): states[one] for one in State})
        subscriptions: dict[tuple[str, ...], float] = {}
        for one in status:
            subscriptions[one.source, "wanted"] = one.wanted
            subscriptions[one.source, "confirmed"] = one.confirmed
        yield _gauge("subscriptions", "Streams of a connection.", ("connection", "state"), subscriptions)
        for name, text, values in (
            ("frames", "Frames received.", {one.source: one.frames for one in status}),
            ("data_frames", "Frames received that carried data.", {one.source: one.data_frames for one in status}),
            ("bad_frames", "Frames that could not be understood.", {one.source: one.bad_frames for one in status}),
            ("refusals", "Subscriptions refused.", {one.source: one.refusals for one in status}),
            ("unanswered", "Subscriptions never answered.", {one.source: one.unanswered for one in status}),
            ("reconnects", "Times it was opened again.", {one.source: one.reconnects for one in status}),
        ):
            yield _counter(f"connection_{name}", text, ("connection",), _by_name(values))
        ages = {one.source: one.data_age_s for one in status if one.data_age_s is not None}
        yield _gauge("connection_data_age_seconds", "Since its newest data.", ("connection",), _by_name(ages))
        failures = {reason: metrics.failures[reason] for reason in REASONS}
        yield _counter("connection_failures", "Dials that failed and lines lost.", ("reason",), _by_name(failures))
        yield _counter("connections_renewed", "Connections replaced before their end.", (), {(): pool.renewed})
        limits = {"connections": pool.max_connections, "subscriptions_per_connection": pool.per_connection}
        yield _gauge("limit", "Limits in force, lowered when met.", ("limit",), _by_name(limits))
        yield _gauge("streams_refused", "Streams the exchange does not give.", (), {(): len(pool.refused)})

    def _candles(self) -> Iterator[Metric]:
        metrics, engine = self._metrics, self._metrics.bot.engine
        counters = engine.book.counters
        yield _counter("candle_pushes", "Pushes of running candles.", (), {(): counters.pushes})
        odd = {
            name: getattr(counters, name)
            for name in ("repeated", "shrinking", "late", "ahead", "corrected", "retracted", "unwatched")
        }
        yield _counter("candle_oddities", "What happened to pushes besides being used.", ("kind",), _by_name(odd))
        ways = itertools.product(ANALYSED_TIMEFRAMES, (Finality.SUCCESSOR, Finality.CLOCK, Finality.REST))
        finals = {(str(timeframe), str(finality)): metrics.finals[timeframe, finality] for timeframe, finality in ways}
        yield _counter("candle_finals", "Candles closed.", ("timeframe", "finality"), finals)
        yield _gauge("ledger_minutes", "Minutes of the last hour.", ("trust",), _by_name(self._ledger()))
        yield _counter("minutes_lost", "Minutes found missing or retracted.", (), {(): metrics.minutes_lost})
        yield _counter("minutes_repaired", "Minutes read back by REST.", (), {(): metrics.minutes_repaired})
        unknown = sum(metrics.unknown_minutes().values())
        yield _gauge("gap_minutes", "Minutes missing at present.", (), {(): unknown})
        yield _gauge("repairs_open", "Contracts with minutes to read back.", (), {(): len(engine.repairs)})
        yield _counter("streams_broken", "Streams found silent though traded.", (), {(): metrics.streams_broken})

    def _ledger(self) -> dict[Trust, int]:
        """Trust of the minutes of the last hour, of each contract since it is watched."""
        engine = self._metrics.bot.engine
        end_ms = engine.now_ms - engine.now_ms % MINUTE_MS
        by_start: dict[int, list[str]] = {}
        for symbol, series in engine.book.series.items():
            if series.watched_since_ms:
                start_ms = max(series.watched_since_ms, end_ms - LEDGER_MINUTES * MINUTE_MS)
                by_start.setdefault(start_ms, []).append(symbol)
        totals = dict.fromkeys(Trust, 0)
        for start_ms, symbols in by_start.items():
            for trust, count in engine.ledger.counts(symbols, start_ms, end_ms).items():
                totals[trust] += count
        return totals

    def _freshness(self) -> Iterator[Metric]:
        bot = self._metrics.bot
        fresh = freshness_of(bot)
        values = {}
        for group, ages in (("all", fresh.all), ("active", fresh.active), ("hot", fresh.hot)):
            for statistic, age_s in (("median", ages.median_s), ("p95", ages.p95_s), ("worst", ages.worst_s)):
                values[group, statistic] = age_s
        yield _gauge("contract_data_age_seconds", "Age of what is known of a contract.", ("group", "statistic"), values)
        by_rest = _by_name(polled_by_reason(bot.feed))
        yield _gauge("contracts_by_rest", "Contracts that REST reads.", ("reason",), by_rest)

    def _rest(self) -> Iterator[Metric]:
        feed = self._metrics.bot.feed
        rest, counters = feed.rest, feed.rest.counters
        yield _counter("rest_requests", "REST requests sent.", (), {(): counters.requests})
        errors = {
            "failed": counters.failures,
            "rate_limited": counters.rate_limited,
            "api_error": counters.api_errors,
        }
        yield _counter("rest_errors", "REST requests without a usable answer.", ("result",), _by_name(errors))
        yield _gauge("rest_rate", "REST requests allowed a second at present.", (), {(): rest.rate})
        yield _gauge("rest_waiting", "REST requests waiting for their turn.", (), {(): rest.waiting})
        yield _gauge("reads_waiting", "Contracts with a read queued.", (), {(): feed.reads_waiting})
        yield _gauge("reads_given_up", "Contracts whose read failed for good.", (), {(): len(feed.given_up)})
        breakers = {endpoint: _STATES[rest.breaker_state(endpoint)] for endpoint in rest.breakers}
        text = "0 closed, 1 half-open, 2 open: the endpoint is not asked."
        yield _gauge("breaker_state", text, ("endpoint",), _by_name(breakers))

    def _times(self) -> Iterator[Metric]:
        metrics, now_s = self._metrics, self._metrics.bot.clock.monotonic()
        yield _histogram("feed_latency_seconds", "From the exchange's stamp to reception.", metrics.feed_latency)
        yield _histogram("queue_seconds", "From reception to the end of the analysis.", metrics.queue_time)
        yield _histogram("signal_latency_seconds", "From reception to the signal.", metrics.signal_latency)
        yield _histogram("clock_offset_seconds", "Our wall clock minus the exchange's.", metrics.clock_offset)
        offset_s = metrics.clock_offset_s()
        current = {(): offset_s} if offset_s is not None else {}
        yield _gauge("clock_offset_current_seconds", "The same, at present.", (), current)
        yield _histogram("loop_lag_seconds", "By how much the event loop wakes late.", metrics.loop_lag)
        yield _histogram("gc_pause_seconds", "For how long the garbage collector held everything.", metrics.gc_pause)
        yield _gauge("silence_seconds", "Since anything was heard.", (), {(): now_s - metrics.heard_s})
        ages = {(): now_s - metrics.data_s} if metrics.data_s is not None else {}
        yield _gauge("data_age_seconds", "Since the newest data.", (), ages)
        yield _counter("batches", "Batches analysed.", (), {(): metrics.batches})

    def _told(self) -> Iterator[Metric]:
        metrics, bot = self._metrics, self._metrics.bot
        analysis = bot.engine.analysis
        rules = {rule.name: 0 for rule in analysis.rules.rules} | metrics.signals
        yield _counter("signals", "Signals.", ("rule",), _by_name(rules))
        yield _counter("alerts", "Alerts told, and signals kept silent by reason.", ("rule", "outcome"), metrics.alerts)
        risks = {(rule,): policy.risk for rule, policy in analysis.desk.policies.items()}
        yield _gauge("rule_risk", "How rare a minute must be, as a probability; a budget moves it.", ("rule",), risks)
        budgets = analysis.desk.budget_status(bot.engine.now_ms)
        told_24h = {(rule,): float(status.told_24h) for rule, status in budgets.items()}
        yield _gauge("rule_alerts_24h", "Alerts of the last 24 hours.", ("rule",), told_24h)
        told = {(str(trouble), str(phase)): metrics.operational_alerts[trouble, phase] for trouble, phase in _PHASES}
        yield _counter("operational_alerts", "Alerts about the watch itself.", ("trouble", "phase"), told)
        now = set(metrics.open_troubles)
        troubles = {(str(trouble),): float(trouble in now) for trouble in Trouble}
        yield _gauge("trouble", "1 while it is told and not over.", ("trouble",), troubles)
        pings = {result: metrics.pings[result] for result in ("ok", "failed", "withheld")}
        yield _counter("dead_man_pings", "Pings to the dead-man's switch.", ("result",), _by_name(pings))
        dispatcher = metrics.dispatcher
        messages = {
            "delivered": dispatcher.delivered if dispatcher else 0,
            "conflated": dispatcher.conflated if dispatcher else 0,
            "dropped": dispatcher.dropped if dispatcher else 0,
            "failed": dispatcher.errors if dispatcher else 0,
        }
        yield _counter("handler_messages", "Messages for handlers.", ("result",), _by_name(messages))

    def _delivered(self) -> Iterator[Metric]:
        deliveries = self._metrics.deliveries
        status = deliveries.status() if deliveries is not None else []
        waiting = {one.name: one.waiting for one in status}
        yield _gauge("channel_waiting", "Notices that wait.", ("channel",), _by_name(waiting))
        failing = {one.name: float(bool(one.error)) for one in status}
        yield _gauge("channel_failing", "1 while the last attempt failed.", ("channel",), _by_name(failing))
        notices: dict[tuple[str, ...], float] = {}
        failures: dict[tuple[str, ...], float] = {}
        latency = HistogramMetricFamily(
            "perpwatch_channel_latency_seconds", "From the signal to the acknowledgement.", labels=("channel",)
        )
        for one in status:
            assert deliveries is not None
            counters = deliveries.counters(one.name)
            for state in (DeliveryState.SENT, DeliveryState.SUPPRESSED, DeliveryState.FAILED):
                notices[one.name, str(state)] = counters.settled[state]
            failures[(one.name,)] = counters.failures
            latency.add_metric((one.name,), counters.latency.buckets(), counters.latency.sum)
        yield _counter("channel_notices", "Notices, by what became of them.", ("channel", "state"), notices)
        yield _counter("channel_failures", "Attempts that failed.", ("channel",), failures)
        lost = deliveries.lost if deliveries is not None else 0
        yield _counter("notices_lost", "Notices lost by an error of perpwatch.", (), {(): lost})
        yield latency


_PHASES = tuple(itertools.product(Trouble, Phase))


def _by_name(values: Mapping[_Name, float]) -> dict[tuple[str, ...], float]:
    return {(str(name),): value for name, value in values.items()}


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[_Labels, float]) -> Metric:
    family = GaugeMetricFamily(f"perpwatch_{name}", text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[_Labels, float]) -> Metric:
    family = CounterMetricFamily(f"perpwatch_{name}", text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(f"perpwatch_{name}", text)
    family.add_metric((), histogram.buckets(), histogram.sum)
    return family
