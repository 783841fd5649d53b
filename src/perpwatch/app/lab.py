"""The laboratory: what rules would have alerted on recorded markets, how soon they saw pumps, and what came of it.

It drives the same rules, detectors, score and policy that run live, over candle files and trade tapes (see
``lab_files``) and over what a watch has kept (``lab_store``). The first day of each warms up and is not counted. Rules
and folders are spread over processes; the figures do not depend on how many.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from perpwatch.alert.outcomes import Outcome, Outcomes, Score, scorecard
from perpwatch.alert.policy import Alert, Held, MarketAlert, Policy, Suppressed
from perpwatch.app.lab_files import (
    DAY_MS,
    Event,
    Label,
    Series,
    Tape,
    all_timeframes,
    candle_files,
    is_same_market,
    read_labels,
    read_market,
    read_tape,
    read_text,
)
from perpwatch.app.lab_store import StoredPast
from perpwatch.app.scorecard import hit_rate_text, lift_text
from perpwatch.detect.flow import TradeFlow
from perpwatch.detect.rule_set import RuleSet
from perpwatch.detect.rules import PRESETS, Rule, read_rules
from perpwatch.detect.score import SCORE, Scorer, read_model, shipped_model_text
from perpwatch.errors import ConfigurationError
from perpwatch.model import (
    ANALYSED_TIMEFRAMES,
    MINUTE_MS,
    Candle,
    Finality,
    Side,
    Signal,
    Timeframe,
    Trade,
    Trades,
    Trust,
)
from perpwatch.store import HOUR_MS

MARKET_SIZE = 750

#: Where an alert belongs to a labelled event, and where it still does not count as another alert.
WINDOW_BEFORE_MS = 10 * MINUTE_MS
WINDOW_AFTER_MS = 16 * MINUTE_MS
PROMPT_MS = 3 * MINUTE_MS

#: Told how much is done, how much there is, and what is being done.
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, slots=True)
class LabOptions:
    """What to run on what."""

    candles: Sequence[Path] = ()  # folders
    trades: Sequence[Path] = ()  # folders
    stored: StoredPast | None = None
    labels: Path | None = None
    rules: Sequence[Rule] = (PRESETS["default"],)
    is_intrabar: bool = False  # judge the running candle at every batch of trades
    budget: float | None = None  # alerts a day, of every rule; None for what each rule says
    is_budget_scaled: bool = False  # the budget is for 750 symbols; otherwise for just the symbols of the set
    risk: float = 1e-4  # that a budget starts from; without one, every detector keeps its own
    warm_up_days: float = 1.0
    has_score: bool = True  # with the model that is shipped
    has_outcomes: bool = True  # what came of the alerts, against random moments
    processes: int = 1


class LabSet(msgspec.Struct, frozen=True):
    """One rule on one folder."""

    name: str
    rule: str
    symbols: int
    days: float  # judged; of tapes, the sum over coins
    alerts: int  # single ones, before market-wide minutes are merged
    alerts_per_day_per_750: float
    market_alerts: int
    told: int  # what a person gets: single alerts outside market-wide minutes, and market alerts
    told_by_day: dict[str, int]
    risk_at_end: float | None  # q per minute; None where no detector has one
    events_total: int
    events_found_window: int  # 10 min before to 16 min after the start
    events_found_3min: int  # 0 to 3 min after
    latency_s_median: float | None  # of official starts where there are any, else of announced ones
    latency_events: int
    other_alerts_per_coin_day: float | None
    outcome: Score | None  # what came of the alerts; None where it was not asked for


class LabAlert(msgspec.Struct, frozen=True):
    """One alert of one rule; ``time_ms`` is when it could be known."""

    set: str
    rule: str
    symbol: str
    time_ms: int
    timeframe: str
    direction: str
    level: str
    detector: str
    escalation: int
    is_merged: bool  # told as part of a market alert
    is_learning: bool
    risk: float
    score: float | None
    reasons: list[dict[str, str | float]]


class LabEvent(msgspec.Struct, frozen=True):
    """One labelled event and how it was seen."""

    set: str
    rule: str
    symbol: str
    start_ms: int
    is_official: bool
    is_found: bool
    latency_s: float | None  # None when no alert came from the start to 16 min after


class LabReport(msgspec.Struct, frozen=True):
    sets: list[LabSet]
    alerts: list[LabAlert]
    events: list[LabEvent]


def rules_from_files(paths: Sequence[Path], *, with_default: bool = True) -> list[Rule]:
    """The rules of several files, beside the default, which is what they are compared with.

    Raises:
        ConfigurationError: a file that cannot be read, a wrong rule, or two of one name.
    """
    rules: dict[str, Rule] = {"default": PRESETS["default"]} if with_default else {}
    named: set[str] = set()
    for path in paths:
        for rule in read_rules(read_text(path), str(path)):
            if rule.name in named:
                raise ConfigurationError(f"rules.{rule.name}", str(path), "a name of its own; it is taken")
            named.add(rule.name)
            rules[rule.name] = rule
    return list(rules.values())


def run_lab(options: LabOptions, progress: Progress | None = None) -> LabReport:
    """Run every rule on every folder.

    Raises:
        ConfigurationError: a folder, file or label list that cannot be used.
    """
    if not options.candles and not options.trades and options.stored is None:
        raise ConfigurationError("candles", "", "give at least one folder with --candles or --trades, or --stored")
    if not options.rules:
        raise ConfigurationError("rules", "", "at least one rule")
    labels = tuple(read_labels(options.labels)) if options.labels else ()
    tasks = _tasks(options, labels)
    report = LabReport([], [], [])
    results = _run_all(tasks, options.processes, progress or (lambda done, total, text: None))
    sources: list[Path | StoredPast] = [*options.candles, *options.trades]
    if options.stored is not None:
        sources.append(options.stored)
    for source in sources:
        pieces = [piece for task, found in zip(tasks, results, strict=True) if task.source == source for piece in found]
        for rule in options.rules:
            _report(report, source.name, rule.name, [piece for piece in pieces if piece.rule == rule.name])
    return report


def run_lab_with_progress_bar(options: LabOptions) -> LabReport:
    """:func:`run_lab` with a bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("lab", total=None)

        def show(done: float, total: float, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        return run_lab(options, show)


def to_json(report: LabReport) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=1)


def to_text(report: LabReport) -> str:
    """The sets side by side, one line per rule and folder."""
    head = (
        f"{'set':<28} {'rule':<16} {'symbols':>7} {'days':>6} {'alerts':>7} {'/day/750':>8} {'market':>6} "
        f"{'told':>6} {'window':>8} {'3 min':>6} {'latency':>8} {'other/coin-day':>14} {'went on':>8} "
        f"{'lift (95 %)':>18}"
    )
    lines = [head, "-" * len(head)]
    for row in report.sets:
        window = f"{row.events_found_window}/{row.events_total}" if row.events_total else "-"
        prompt = str(row.events_found_3min) if row.events_total else "-"
        latency = "-" if row.latency_s_median is None else f"{row.latency_s_median:.1f} s"
        other = "-" if row.other_alerts_per_coin_day is None else f"{row.other_alerts_per_coin_day:.2f}"
        lines.append(
            f"{row.name:<28} {row.rule:<16} {row.symbols:>7} {row.days:>6.1f} {row.alerts:>7} "
            f"{row.alerts_per_day_per_750:>8.0f} {row.market_alerts:>6} {row.told:>6} {window:>8} {prompt:>6} "
            f"{latency:>8} {other:>14} {hit_rate_text(row.outcome):>8} {lift_text(row.outcome):>18}"
        )
    return "\n".join(lines)


# --- Spreading the work -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
    """Some rules on a folder of candles, on some tapes of a folder, or on the stored past."""

    source: Path | StoredPast
    files: tuple[Path, ...]  # tapes; none for a folder of candles
    rules: tuple[Rule, ...]
    options: LabOptions
    labels: tuple[Label, ...]
    weight: float  # how much of the whole it is


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one rule found in one task."""

    rule: str
    alerts: list[Alert]
    merged: set[str]
    told_ms: list[int]
    market_alerts: int
    risk: float | None
    outcomes: list[Outcome]
    events: list[Event]
    symbols: int
    days: float
    coin_days: float
    end_ms: int


#: In a child process: what it reports its share of a task to, and whether it should give up.
_shares: Any = None
_stop: Any = None


def _tasks(options: LabOptions, labels: tuple[Label, ...]) -> list[_Task]:
    tasks = []
    folders = {folder: candle_files(folder) for folder in (*options.candles, *options.trades)}
    for folder in options.candles:
        tasks += [
            _Task(folder, (), tuple(rules), options, labels, len(folders[folder]) * (0.3 + len(rules)))
            for rules in _shared_out(list(options.rules), options.processes)
        ]
    for folder in options.trades:
        for files in _shared_out(folders[folder], 4 * options.processes if options.processes > 1 else 1):
            weight = 0.3 * len(files) * len(options.rules) * (5.0 if options.is_intrabar else 1.0)
            tasks.append(_Task(folder, tuple(files), tuple(options.rules), options, labels, weight))
    if options.stored is not None:
        share = len(options.stored.symbols) * (options.stored.end_ms - options.stored.start_ms) / (14 * DAY_MS)
        tasks += [
            _Task(options.stored, (), tuple(rules), options, labels, share * (1.0 + len(rules)))
            for rules in _shared_out(list(options.rules), options.processes)
        ]
    return tasks


def _shared_out(things: list[Any], parts: int) -> list[list[Any]]:
    """In order, in so many parts of about the same size, none of them empty."""
    count = min(parts, len(things))
    return [list(part) for part in np.array_split(np.array(things, dtype=object), count)]


def _run_all(tasks: Sequence[_Task], processes: int, progress: Progress) -> list[list[_Piece]]:
    shares = [0.0] * len(tasks)
    total = sum(task.weight for task in tasks)

    def tell(number: int, share: float) -> None:
        shares[number] = max(shares[number], share)
        done = sum(task.weight * share for task, share in zip(tasks, shares, strict=True))
        progress(done / total * len(tasks), float(len(tasks)), tasks[number].source.name)

    if min(processes, len(tasks)) <= 1:
        return [_run(task, partial(tell, number)) for number, task in enumerate(tasks)]
    context = multiprocessing.get_context("spawn")
    told, stop = context.SimpleQueue(), context.Event()
    results: dict[int, list[_Piece]] = {}
    with ProcessPoolExecutor(min(processes, len(tasks)), context, _set_up_child, (told, stop)) as pool:
        # The longest first, so that none is left over for one process at the end.
        order = sorted(range(len(tasks)), key=lambda number: -tasks[number].weight)
        open_: dict[Future[list[_Piece] | tuple[str, str, str]], int] = {
            pool.submit(_run_in_child, number, tasks[number]): number for number in order
        }
        try:
            while open_:
                done, _ = wait(open_, timeout=0.2, return_when=FIRST_COMPLETED)
                while not told.empty():
                    tell(*told.get())
                for future in done:
                    number = open_.pop(future)
                    result = future.result()
                    if isinstance(result, tuple):
                        raise ConfigurationError(*result)
                    results[number] = result
        finally:
            if open_:  # something went wrong, or somebody has had enough
                stop.set()
                pool.shutdown(cancel_futures=True)
    return [results[number] for number in range(len(tasks))]


def _set_up_child(shares: Any, stop: Any) -> None:
    global _shares, _stop
    _shares, _stop = shares, stop


def _run_in_child(number: int, task: _Task) -> list[_Piece] | tuple[str, str, str]:
    """As :func:`_run`; our errors have more arguments than pickle can repeat and travel as what they are made of."""

    def tell(share: float) -> None:
        if _stop.is_set():
            raise ConfigurationError("lab", task.source.name, "to be left alone: another part has failed")
        _shares.put((number, share))

    try:
        return _run(task, tell)
    except ConfigurationError as error:
        return error.key, str(error.value), error.expected


def _run(task: _Task, tell: Callable[[float], None]) -> list[_Piece]:
    if isinstance(task.source, StoredPast):
        return _run_stored(task, task.source, tell)
    return _run_tapes(task, tell) if task.files else _run_candles(task, task.source, tell)


# --- Running ----------------------------------------------------------------------------------------------------------


class _Bench:
    """One rule on one market: its detectors, its policy, and what came out."""

    def __init__(self, rule: Rule, watched: int, options: LabOptions, counted_ms: int) -> None:
        self.rule = rule
        self.flow = TradeFlow()
        text = shipped_model_text() if options.has_score else None
        self.rules = RuleSet([rule], self.flow, Scorer(read_model(text) if text is not None else None))
        budget = options.budget if options.budget is not None else rule.alerts_per_day
        if budget is not None and options.is_budget_scaled:
            budget *= watched / MARKET_SIZE
        self._has_budget = budget is not None
        risk = options.risk if self._has_budget else self.risk or options.risk
        self.policy = Policy(
            watched, risk, budget, tags=frozenset(), silence_ms=round(rule.cooldown_minutes * MINUTE_MS), rule=rule.name
        )
        self.outcomes = Outcomes(seed=1) if options.has_outcomes else None
        self.known: list[Outcome] = []
        self.counted_ms = counted_ms
        self.alerts: list[Alert] = []
        self.merged: set[str] = set()
        self.told_ms: list[int] = []
        self.market_alerts: list[MarketAlert] = []
        self._adopt_risk()

    @property
    def risk(self) -> float | None:
        return self.rules.risk(self.rule.name)

    def update(self, candle: Candle, now_ms: int) -> None:
        signals = self.rules.update(candle, now_ms, 0)  # received by nobody: no latency
        if self.outcomes is not None and candle.timeframe is Timeframe.Min1:
            self.known += self.outcomes.observe(candle)
        if signals and now_ms >= self.counted_ms:
            self._offer(signals, now_ms)

    def update_running(self, candle: Candle, now_ms: int, minute: Candle) -> None:
        if candle.turnover >= self.rules.wake_turnover(candle.symbol, candle.timeframe, candle.open_time_ms):
            signals = self.rules.update(candle, now_ms, 0, minute)
            if signals and now_ms >= self.counted_ms:
                self._offer(signals, now_ms)

    def advance(self, now_ms: int) -> None:
        if now_ms < self.counted_ms:
            return
        for alert in self.policy.advance(now_ms):
            self.told_ms.append(now_ms)
            if isinstance(alert, MarketAlert):
                self.market_alerts.append(alert)
                self.merged.update(single.key for single in alert.alerts)
        self._adopt_risk()

    def finish(self, symbols: Sequence[str], events: list[Event], days: float, end_ms: int) -> _Piece:
        if self.outcomes is not None:
            for symbol in symbols:
                self.known += self.outcomes.forget(symbol)
        return _Piece(
            rule=self.rule.name,
            alerts=self.alerts,
            merged=self.merged,
            told_ms=self.told_ms,
            market_alerts=len(self.market_alerts),
            risk=self.risk,
            outcomes=self.known,
            events=events,
            symbols=len(symbols),
            days=days,
            coin_days=len(symbols) * days,
            end_ms=end_ms,
        )

    def _offer(self, signals: Sequence[Signal], now_ms: int) -> None:
        self.advance(now_ms)
        for signal in signals:
            match self.policy.offer(signal):
                case Alert() as alert:
                    self.told_ms.append(alert.time_ms)
                    self._take(alert)
                case Held(alert=alert):
                    self._take(alert)
                case Suppressed(alert=Alert() as alert):
                    self._take(alert)
                    self.merged.add(alert.key)

    def _take(self, alert: Alert) -> None:
        self.alerts.append(alert)
        if self.outcomes is not None:
            self.outcomes.told(alert)

    def _adopt_risk(self) -> None:
        if self._has_budget:
            self.rules.turn(self.policy.risk)


def _run_candles(task: _Task, folder: Path, tell: Callable[[float], None]) -> list[_Piece]:
    """All symbols of the folder are one market: their minutes are walked through together."""
    options = task.options
    market = read_market(folder)
    series = [longer for one in market.series for longer in all_timeframes(one)]
    start_ms, end_ms = market.start_ms, market.end_ms
    counted_ms = start_ms + round(options.warm_up_days * DAY_MS)
    benches = [_Bench(rule, len(market.series), options, counted_ms) for rule in task.rules]
    for from_ms in range(start_ms, end_ms, DAY_MS):
        tell((from_ms - start_ms) / (end_ms - start_ms))
        _walk(benches, [candle for one in series for candle in one.closing(from_ms, min(from_ms + DAY_MS, end_ms))])
    tell(1.0)
    # Days in which the market was known, beyond the warm-up.
    days = float((market.open_times_ms >= counted_ms).sum()) * market.timeframe.milliseconds / DAY_MS
    symbols = [one.symbol for one in market.series]
    events = market.events(task.labels, counted_ms)
    return [bench.finish(symbols, events, days, end_ms) for bench in benches]


def _run_stored(task: _Task, past: StoredPast, tell: Callable[[float], None]) -> list[_Piece]:
    """All symbols of the store are one market, too."""
    options = task.options
    counted_ms = past.start_ms + round(options.warm_up_days * DAY_MS)
    benches = [_Bench(rule, len(past.symbols), options, counted_ms) for rule in task.rules]
    known = set[int]()  # minutes in which the market was, beyond the warm-up
    with past.opened() as reader:
        contracts = past.contracts(reader)
        for bench in benches:
            bench.rules.watch(contracts)
        hours = (past.end_ms - past.start_ms) / HOUR_MS
        for number, candles in enumerate(past.closing(reader)):
            tell(number / hours)
            known.update(
                candle.open_time_ms
                for candle in candles
                if candle.timeframe is Timeframe.Min1
                and candle.open_time_ms >= counted_ms
                and candle.trust is not Trust.UNKNOWN
            )
            _walk(benches, candles)
    tell(1.0)
    days = len(known) * MINUTE_MS / DAY_MS
    events = [
        Event(symbol, label.start_ms, True)
        for label in task.labels
        for symbol in past.symbols
        if is_same_market(label.symbol, symbol) and counted_ms <= label.start_ms < past.end_ms
    ]
    return [bench.finish(past.symbols, events, days, past.end_ms) for bench in benches]


def _walk(benches: Sequence[_Bench], candles: list[Candle]) -> None:
    """Closed candles of a market, each shown when it closes."""
    candles.sort(key=_closing_order)
    for now_ms, group in groupby(candles, key=_close_time):
        closing = list(group)
        for bench in benches:
            for candle in closing:
                bench.update(candle, now_ms)
            # Closed candles have all arrived long before the next minute ends.
            bench.advance(now_ms + Policy.HOLD_MS)


def _run_tapes(task: _Task, tell: Callable[[float], None]) -> list[_Piece]:
    """Each tape is a market of its own."""
    pieces = []
    for number, path in enumerate(task.files):
        tell(number / len(task.files))
        tape = read_tape(path)
        minutes = tape.minutes()
        counted_ms = minutes.start_ms + round(task.options.warm_up_days * DAY_MS)
        days = max(0.0, (minutes.end_ms - counted_ms) / DAY_MS)
        events = tape.events(task.labels, counted_ms, minutes.end_ms)
        for rule in task.rules:
            bench = _Bench(rule, 1, task.options, counted_ms)
            _play(bench, tape, minutes, task.options.is_intrabar)
            pieces.append(bench.finish([tape.symbol], events, days, minutes.end_ms))
    tell(1.0)
    return pieces


def _play(bench: _Bench, tape: Tape, minutes: Series, is_intrabar: bool) -> None:
    """Closed candles at their end and, between them, the running candles after each batch of trades."""
    closed = [candle for one in all_timeframes(minutes) for candle in one.closing(minutes.start_ms, minutes.end_ms)]
    closed.sort(key=_closing_order)
    if not is_intrabar:
        for candle in closed:
            bench.update(candle, candle.close_time_ms)
            bench.advance(candle.close_time_ms)
        return
    running = [_Running(tape.symbol, timeframe, minutes.start_ms) for timeframe in ANALYSED_TIMEFRAMES]
    bench.flow.start(tape.symbol, minutes.start_ms)
    next_closed = 0
    for batch in _batches(tape):
        now_ms = batch.event_time_ms
        while next_closed < len(closed) and closed[next_closed].close_time_ms <= now_ms:
            bench.update(closed[next_closed], closed[next_closed].close_time_ms)
            next_closed += 1
        bench.flow.observe(batch)
        for one in running:
            one.add(batch.trades, now_ms)
        candles = [one.candle() for one in running]
        for candle in candles:
            bench.update_running(candle, now_ms, candles[0])
        bench.advance(now_ms)
    for candle in closed[next_closed:]:
        bench.update(candle, candle.close_time_ms)


class _Running:
    """The running candle of one timeframe, from trades."""

    def __init__(self, symbol: str, timeframe: Timeframe, known_from_ms: int) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.known_from_ms = known_from_ms
        self.open_time_ms = -1
        self.open = self.high = self.low = self.close = 0.0
        self.amount = self.turnover = 0.0

    def add(self, trades: Sequence[Trade], now_ms: int) -> None:
        open_time_ms = now_ms - now_ms % self.timeframe.milliseconds
        if open_time_ms != self.open_time_ms:
            self.open_time_ms = open_time_ms
            self.open = self.high = self.low = trades[0].price
            self.amount = self.turnover = 0.0
        for trade in trades:
            self.high = max(self.high, trade.price)
            self.low = min(self.low, trade.price)
            self.amount += trade.contracts
            self.turnover += trade.contracts * trade.price
        self.close = trades[-1].price

    def candle(self) -> Candle:
        missing = max(0, self.known_from_ms - self.open_time_ms) // MINUTE_MS
        return Candle(
            symbol=self.symbol,
            timeframe=self.timeframe,
            open_time_ms=self.open_time_ms,
            open=self.open,
            high=self.high,
            low=self.low,
            close=self.close,
            contracts=self.amount,
            base_volume=self.amount,
            turnover=self.turnover,
            finality=Finality.OPEN,
            trust=Trust.UNKNOWN if missing else Trust.STREAMED,
            missing_minutes=missing,
        )


def _batches(tape: Tape) -> Iterator[Trades]:
    """Trades of the same millisecond arrive together."""
    edges = np.flatnonzero(np.diff(tape.time_ms, prepend=-1)).tolist()
    times, prices, amounts = tape.time_ms.tolist(), tape.price.tolist(), tape.amount.tolist()
    is_buy = tape.is_buy.tolist()
    for first, last in zip(edges, [*edges[1:], len(times)], strict=True):
        trades = [
            Trade(prices[i], amounts[i], Side.BUY if is_buy[i] else Side.SELL, times[i]) for i in range(first, last)
        ]
        yield Trades(tape.symbol, trades, times[first])


def _close_time(candle: Candle) -> int:
    return candle.close_time_ms


def _closing_order(candle: Candle) -> tuple[int, int, str]:
    return candle.close_time_ms, candle.timeframe.minutes, candle.symbol


# --- Figures ----------------------------------------------------------------------------------------------------------


def _report(report: LabReport, name: str, rule: str, pieces: Sequence[_Piece]) -> None:
    alerts = [(alert, piece) for piece in pieces for alert in piece.alerts]
    # Of a folder of candles the days are those of its market, of tapes those of all coins together.
    events = [event for piece in pieces for event in piece.events]
    coin_days = sum(piece.coin_days for piece in pieces)
    seen = [_seen(name, rule, event, [alert for alert, _ in alerts]) for event in events]
    report.events.extend(seen)
    timed = [event for event in seen if event.is_official] or seen
    latencies = [event.latency_s for event in timed if event.latency_s is not None]
    others = sum(
        not any(
            event.symbol == alert.symbol and -WINDOW_BEFORE_MS <= alert.time_ms - event.start_ms <= WINDOW_AFTER_MS
            for event in events
        )
        for alert, _ in alerts
    )
    told = sorted(time_ms for piece in pieces for time_ms in piece.told_ms)
    by_day: dict[str, int] = {}
    for time_ms in told:
        day = datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()
        by_day[day] = by_day.get(day, 0) + 1
    report.sets.append(
        LabSet(
            name=name,
            rule=rule,
            symbols=sum(piece.symbols for piece in pieces),
            days=sum(piece.days for piece in pieces),
            alerts=len(alerts),
            alerts_per_day_per_750=len(alerts) / coin_days * MARKET_SIZE if coin_days else 0.0,
            market_alerts=sum(piece.market_alerts for piece in pieces),
            told=len(told),
            told_by_day=by_day,
            risk_at_end=pieces[-1].risk,
            events_total=len(events),
            events_found_window=sum(event.is_found for event in seen),
            events_found_3min=sum(
                event.latency_s is not None and event.latency_s * 1000.0 <= PROMPT_MS for event in seen
            ),
            latency_s_median=statistics.median(latencies) if latencies else None,
            latency_events=len(latencies),
            other_alerts_per_coin_day=others / coin_days if coin_days and events else None,
            outcome=_outcome(pieces),
        )
    )
    report.alerts.extend(
        _lab_alert(name, rule, alert, alert.key in piece.merged)
        for alert, piece in sorted(alerts, key=lambda pair: (pair[0].time_ms, pair[0].symbol))
    )


def _seen(name: str, rule: str, event: Event, alerts: Sequence[Alert]) -> LabEvent:
    times = [alert.time_ms - event.start_ms for alert in alerts if alert.symbol == event.symbol]
    after = [time_ms for time_ms in times if 0 <= time_ms <= WINDOW_AFTER_MS]
    return LabEvent(
        set=name,
        rule=rule,
        symbol=event.symbol,
        start_ms=event.start_ms,
        is_official=event.is_official,
        is_found=any(-WINDOW_BEFORE_MS <= time_ms <= WINDOW_AFTER_MS for time_ms in times),
        latency_s=min(after) / 1000.0 if after else None,
    )


def _outcome(pieces: Sequence[_Piece]) -> Score | None:
    outcomes = [outcome for piece in pieces for outcome in piece.outcomes]
    if not outcomes:
        return None
    end_ms = max(piece.end_ms for piece in pieces)
    first_ms = min(outcome.time_ms for outcome in outcomes)
    (score,) = scorecard(outcomes, end_ms, [(end_ms - first_ms) // DAY_MS + 1])
    return score


def _lab_alert(name: str, rule: str, alert: Alert, is_merged: bool) -> LabAlert:
    signal = alert.signal
    return LabAlert(
        set=name,
        rule=rule,
        symbol=alert.symbol,
        time_ms=alert.time_ms,
        timeframe=signal.timeframe,
        direction=signal.direction,
        level=signal.level,
        detector=signal.detector,
        escalation=alert.escalation,
        is_merged=is_merged,
        is_learning=signal.is_learning,
        risk=alert.risk,
        score=next((reason.value for reason in signal.reasons if reason.name == SCORE), None),
        reasons=[
            {"name": reason.name, "value": reason.value, "unit": reason.unit, "text": reason.text}
            for reason in signal.reasons
        ],
    )
