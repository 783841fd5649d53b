"""From batches to alerts: everything between a feed and a person, without waiting for anything.

Synchronous and deterministic: the same batches give the same steps, live, replayed or simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from perpwatch.app.analysis import Analysis, Findings
from perpwatch.detect.detector import NEVER
from perpwatch.detect.rules import Rule
from perpwatch.feed.exchange_clock import ExchangeClock
from perpwatch.market.activity import Activity
from perpwatch.market.candles import CandleBook, Outcome, Series, roll_up_all
from perpwatch.market.ledger import Ledger, Span
from perpwatch.market.referee import Referee
from perpwatch.market.repair import REST_SETTLE_MS, RepairQueue
from perpwatch.model import (
    MINUTE_MS,
    Batch,
    ByKind,
    Candle,
    CandleHistory,
    Contract,
    ContractTicker,
    ContractUpdate,
    Event,
    FundingRate,
    Gap,
    Kind,
    StreamUp,
    Ticker,
    Tickers,
    Timeframe,
    Trades,
)

#: Closed candles that an earlier run has kept, oldest first: of a symbol and timeframe, opening in a window of time.
Past = Callable[[str, Timeframe, int, int], Sequence[Candle]]
#: Candles, the history included, that are worth learning: a day more than detectors remember.
PAST_CANDLES = {Timeframe.Min1: 8_640, Timeframe.Min5: 1_728, Timeframe.Min15: 1_056, Timeframe.Min60: 264}
#: Stored candles read in one slice of a warm-up: some 4 ms.
PAST_AT_ONCE = 500

#: How often the minutes of streams that are down are looked at, in the exchange's time.
LOOK_AT_THE_DOWN_EVERY_MS = 5_000

_MIN1 = Timeframe.Min1
_WORD_OF = ByKind(ContractTicker, Tickers, Trades)


@dataclass(slots=True)
class Step(Findings):
    """What one batch led to: findings for people, and what happened to the candles."""

    outcome: Outcome = field(default_factory=Outcome)
    events: Sequence[Event] = ()  # those that are of use elsewhere too: trades, depth, contracts


class Watch(msgspec.Struct, frozen=True):
    """Exactly these contracts are watched from now on."""

    now_ms: int  # the exchange's time, as far as anybody knows it
    contracts: Sequence[Contract]


class SwapRules(msgspec.Struct, frozen=True):
    """Other rules are in force from now on; detectors that are new know nothing until they are taught."""

    rules: tuple[Rule, ...]


class Teach(msgspec.Struct, frozen=True):
    """Detectors that came after the history of a symbol shall know it."""

    symbol: str


class Mute(msgspec.Struct, frozen=True):
    """These rules, and all rules about these symbols, find and learn and tell nothing from now on; all others tell."""

    rules: tuple[str, ...]
    symbols: tuple[str, ...]


#: What an engine is told besides batches. Both together, in their order, decide everything it finds.
Command = Watch | SwapRules | Teach | Mute


class Engine:
    """The whole analysis of one exchange.

    Args:
        analysis: what judges the candles.
        timeframes: those that are analysed; minutes are always kept.
        is_intrabar: whether running candles are judged, not only closed ones.
    """

    def __init__(self, analysis: Analysis, timeframes: Sequence[Timeframe], *, is_intrabar: bool = True) -> None:
        self.analysis = analysis
        self.analysis.on_risk = self._look_anew
        self.timeframes = tuple(timeframes)
        self.is_intrabar = is_intrabar
        self.ledger = Ledger()
        self.referee = Referee()
        self.book = CandleBook(self.ledger, self.referee)
        self.repairs = RepairQueue(self.ledger)
        self.activity = Activity()
        self.tickers = self.referee.rows  # the newest row of each symbol, wherever it came from
        self.details: dict[str, Ticker] = {}  # the newest by REST: open interest, funding, best prices
        self._hears_stream = False  # whether the whole-market ticker is streamed
        self.warm: dict[str, None] = {}  # symbols whose history is known, so that detectors may speak
        self.past: Past | None = None  # what is known of the time before a history, assigned by whoever has kept it
        self._warming: dict[str, list[Candle]] = {}  # histories that have come and are to be learned
        self._slices: tuple[list[Candle], Iterator[None]] | None = None  # one of them, and what is left of it
        self.gap_reasons: dict[str, str] = {}  # why the candle stream of a symbol was last interrupted
        self.signals = 0
        self.alerts = 0
        self._next_look_ms = 0
        self._exchange_clock = ExchangeClock()  # by our wall clock: latency is what a frame shows above it
        self.now_ms = 0  # the exchange's time, as far as any source has proven it

    # --- Who is watched ---------------------------------------------------------------------------------------------

    def obey(self, command: Command) -> list[str]:
        """Carry out a command; returns what has changed, in words.

        Raises:
            ConfigurationError: rules that cannot be used, and nothing has changed.
        """
        match command:
            case Watch(now_ms=now_ms, contracts=contracts):
                self.now_ms = max(self.now_ms, now_ms)
                self.watch(contracts)
            case SwapRules(rules=rules):
                return self.analysis.swap(rules)
            case Teach(symbol=symbol):
                self.teach(symbol)
            case Mute(rules=rules, symbols=symbols):
                self.analysis.silence(rules, symbols)
        return []

    def watch(self, contracts: Sequence[Contract]) -> None:
        """Watch exactly these contracts from now on."""
        wanted = {contract.symbol for contract in contracts}
        for symbol in [symbol for symbol in self.book.series if symbol not in wanted]:
            self.book.unwatch(symbol)
            self.repairs.forget(symbol)
            self.warm.pop(symbol, None)
            self._warming.pop(symbol, None)
            self.gap_reasons.pop(symbol, None)
            self.analysis.forget(symbol)
        for contract in contracts:
            self.book.watch(contract)
        self.analysis.watch(contracts)

    def history(self, symbol: str, timeframe: Timeframe) -> Sequence[Candle]:
        """Closed candles of a symbol, as far back as they are at hand; none before its history is known."""
        series = self.book.series.get(symbol)
        if series is None or symbol not in self.warm or not series.minutes:
            return []
        minutes = list(series.minutes)
        return roll_up_all(minutes, timeframe, until_ms=minutes[-1].close_time_ms)

    def teach(self, symbol: str) -> None:
        """Warm up the detectors that came after the history of a symbol."""
        if symbol in self.warm:
            self.analysis.teach(symbol, self.history)
            self.book.series[symbol].wake_amount = -1.0

    def _look_anew(self) -> None:
        """What wakes the detectors has changed, so the next push of every symbol needs a look."""
        for symbol in self.warm:
            self.book.series[symbol].wake_amount = -1.0

    # --- The flow ---------------------------------------------------------------------------------------------------

    def take(self, batch: Batch) -> Step:
        """Digest a batch; the histories in it are learned by :meth:`warming`, or else with the next batch."""
        for _ in self.warming():
            pass
        step = Step()
        outcome, received_ns = step.outcome, batch.received_time_ns
        rest: list[Event] = []
        for event, series in self.book.pushed(batch.events, outcome):
            if series is None:
                self._take_other(event, batch, step, rest)
            elif self.is_intrabar:
                self._look(series, event.event_time_ms, received_ns, step)  # type: ignore[union-attr]
        step.events = rest
        if batch.watermark_ms:
            self.now_ms = max(self.now_ms, batch.watermark_ms)
            if batch.source != "rest":
                received_s = received_ns / 1e9
                self._exchange_clock.observe(batch.watermark_ms, received_s)
                exchange_ms = self._exchange_clock.now_ms(received_s)
                self.analysis.rules.clock_offset_ms = received_s * 1e3 - exchange_ms
            self.book.advance(batch.source, batch.watermark_ms, outcome)
            if self.now_ms >= self._next_look_ms:
                self._next_look_ms = self.now_ms + LOOK_AT_THE_DOWN_EVERY_MS
                self.book.close_the_down(self.now_ms, outcome)
        if outcome.closed or outcome.lost:
            self._digest(outcome, batch, step)
        self.analysis.advance(self.now_ms, step)
        self.signals += len(step.signals)
        self.alerts += len(step.alerts)
        return step

    def _take_other(self, event: Event, batch: Batch, step: Step, rest: list[Event]) -> None:
        # The two that come by the thousand are told apart by a look at a table, before the rest.
        word = _WORD_OF[type(event)]
        if word is ContractTicker or word is Tickers:
            self._take_tickers(event, batch, step)  # type: ignore[arg-type]
            return
        if word is Trades:
            self.analysis.trade(event)  # type: ignore[arg-type]
            rest.append(event)
            return
        match event:
            case StreamUp():
                if event.stream.kind is Kind.CANDLES:
                    self.book.stream_up(event)
                elif event.stream.kind is Kind.TICKERS:
                    self._hears_stream = True
                self.analysis.stream_up(event)
            case Gap():
                self.book.gap(event, step.outcome)
                if event.stream.kind is Kind.TICKERS:
                    self._hears_stream = event.end_time_ms is not None
                    self.activity.lose()
                self.analysis.gap(event)
                if event.stream.kind is Kind.CANDLES:
                    self.gap_reasons[event.stream.symbol] = event.reason
            case CandleHistory():
                self._take_history(event, batch.watermark_ms - REST_SETTLE_MS, step.outcome)
            case FundingRate():
                known = self.details.get(event.symbol)
                if known is not None:
                    self.details[event.symbol] = replace(known, funding_rate=event.rate)
                rest.append(event)
            case ContractUpdate():
                self.analysis.listed(event, batch.received_time_ns, step)
                rest.append(event)
            case _:
                rest.append(event)

    def _take_tickers(self, tickers: Tickers, batch: Batch, step: Step) -> None:
        # The row of one contract says when it was heard, and nothing about the market at that moment.
        is_of_market = _WORD_OF[type(tickers)] is Tickers
        if batch.source == "rest":
            # Not for the referee: it trails the stream, and would look like trades that nobody pushed.
            self._take_details(tickers)
            if is_of_market and not self._hears_stream:
                self.activity.hear(tickers)
        elif is_of_market:
            self.activity.note(self.book.hear(tickers, step.outcome), tickers.event_time_ms)
        else:
            for ticker in tickers.tickers:
                self.tickers[ticker.symbol] = ticker
        # Rows of the market's stream have no figures beside the price that a reason could name.
        if batch.source == "rest" or not is_of_market or self.analysis.rules.watches_tickers:
            self.analysis.hear(tickers, batch.received_time_ns, step)

    def _take_history(self, history: CandleHistory, until_ms: int, outcome: Outcome) -> None:
        minutes = self.book.fill(history, until_ms, outcome)
        symbol = history.symbol
        if symbol in self.warm or symbol in self._warming or symbol not in self.book.series:
            return
        end_ms = minutes[-1].close_time_ms if minutes else until_ms
        watched_since_ms = self.book.series[symbol].watched_since_ms
        if end_ms < watched_since_ms:
            # The last minutes before the stream came up had not settled yet when the history was read.
            start_ms = end_ms - end_ms % MINUTE_MS
            self.repairs.add(Span(symbol, start_ms, watched_since_ms))
        # Minutes that were closed live while the history was on its way belong behind it.
        closed = self.book.series[symbol].minutes
        minutes += closed[closed.place(end_ms) :]
        self._warming[symbol] = minutes

    def warming(self) -> Iterator[None]:
        """Learn the histories that have come, in slices of a few milliseconds; between two of them others may run.

        What is not asked for goes on with the next call; a batch that is taken before the end learns the rest at once.
        """
        while self._warming:
            symbol, minutes = next(iter(self._warming.items()))
            if self._slices is None or self._slices[0] is not minutes:
                self._slices = minutes, self._learn(symbol, minutes)
            for _ in self._slices[1]:
                yield
                if self._warming.get(symbol) is not minutes:
                    break  # meanwhile it is no longer watched
            else:
                del self._warming[symbol]
                self._slices = None
                self.warm[symbol] = None
                self.teach(symbol)  # rules may have changed meanwhile

    def _learn(self, symbol: str, minutes: list[Candle]) -> Iterator[None]:
        series = self.book.series[symbol]
        end_ms = minutes[-1].close_time_ms if minutes else 0
        if series.minutes.end_ms > end_ms:
            # Closed by the very batch that brought the history.
            minutes = minutes + series.minutes[series.minutes.place(end_ms) :]
        for timeframe in self.timeframes:
            candles = minutes
            if timeframe is not Timeframe.Min1 and minutes:
                candles = roll_up_all(minutes, timeframe, until_ms=minutes[-1].close_time_ms)
                yield
            if self.past is not None and candles:
                whole_ms = -(-minutes[0].open_time_ms // timeframe.milliseconds) * timeframe.milliseconds
                older: list[Candle] = []
                stride = PAST_AT_ONCE * timeframe.milliseconds
                first_ms = minutes[-1].close_time_ms - PAST_CANDLES[timeframe] * timeframe.milliseconds
                first_ms -= first_ms % timeframe.milliseconds
                for start_ms in range(first_ms, whole_ms, stride):
                    older += self.past(symbol, timeframe, start_ms, min(start_ms + stride, whole_ms))
                    yield
                if older:
                    # The first candle of a history may lack minutes that were known before.
                    candles = older + [candle for candle in candles if candle.open_time_ms >= whole_ms]
            yield from self.analysis.warming(symbol, timeframe, candles)
        self.analysis.recall(symbol, minutes)
        yield

    # --- Detection --------------------------------------------------------------------------------------------------

    def _look(self, series: Series, event_time_ms: int, received_ns: int, step: Step) -> None:
        """Judge the running candles of a symbol, then note from which amount on they are worth another look."""
        symbol = series.contract.symbol
        if symbol not in self.warm:
            series.wake_amount = NEVER
            return
        wake = NEVER
        analysis, book = self.analysis, self.book
        minute = book.running_candle(series, _MIN1)
        for timeframe in self.timeframes:
            turnover = book.ended_turnover(series, timeframe) + minute.turnover
            open_ms = minute.open_time_ms - minute.open_time_ms % timeframe.milliseconds
            least = analysis.wake_turnover(symbol, timeframe, open_ms)
            if turnover >= least:
                candle = minute if timeframe is Timeframe.Min1 else book.running_candle(series, timeframe)
                analysis.judge_running(candle, minute, event_time_ms, received_ns, step)
                least = analysis.wake_turnover(symbol, timeframe, open_ms)  # higher once it has spoken
            # The minutes of a longer candle that have ended count towards what wakes it.
            wake = min(wake, least - (turnover - minute.turnover))
        # Amounts of coin-margined contracts are in base coin, which no turnover can be compared with.
        series.wake_amount = -1.0 if series.contract.is_coin_margined else wake

    def _digest(self, outcome: Outcome, batch: Batch, step: Step) -> None:
        """Closed candles go to the analysis, lost minutes to the repair."""
        for candle in outcome.closed:
            self._judge_closed(candle, batch, step)
        for span in outcome.lost:
            self.repairs.add(span)
            self.analysis.reset(span.symbol)

    def _judge_closed(self, candle: Candle, batch: Batch, step: Step) -> None:
        if candle.symbol not in self.warm:
            return
        if candle.timeframe is _MIN1:
            # What is usual, or how much has ended, has changed, so the next push needs a look.
            self.book.series[candle.symbol].wake_amount = -1.0
        if candle.timeframe in self.timeframes:
            self.analysis.judge_closed(candle, batch.watermark_ms or self.now_ms, batch.received_time_ns, step)
        if candle.timeframe is _MIN1:
            self.analysis.follow(candle, step)

    # --- Tickers ----------------------------------------------------------------------------------------------------

    def _take_details(self, tickers: Tickers) -> None:
        """Rows by REST carry more figures and are older: of the price the newer one counts."""
        for ticker in tickers.tickers:
            self.details[ticker.symbol] = ticker
            known = self.tickers.get(ticker.symbol)
            if known is None or known.event_time_ms < ticker.event_time_ms:
                self.tickers[ticker.symbol] = ticker

    def ticker(self, symbol: str) -> Ticker | None:
        """Everything known of a contract's state; figures that no stream carries are as old as the last REST answer."""
        ticker, details = self.tickers.get(symbol), self.details.get(symbol)
        if ticker is None or details is None or ticker is details:
            return ticker
        return replace(
            ticker,
            best_bid=details.best_bid if ticker.best_bid is None else ticker.best_bid,
            best_ask=details.best_ask if ticker.best_ask is None else ticker.best_ask,
            open_interest=self.open_interest(symbol),
            funding_rate=details.funding_rate if ticker.funding_rate is None else ticker.funding_rate,
        )

    def open_interest(self, symbol: str) -> float | None:
        """The newest open interest of a contract that is known."""
        for rows in (self.tickers, self.details):
            if symbol in rows and rows[symbol].open_interest is not None:
                return rows[symbol].open_interest
        return None

    # --- What should be read back -----------------------------------------------------------------------------------

    def due_repairs(self, rank: dict[str, int], is_coming: Callable[[str, int], bool] | None = None) -> list[Span]:
        """Missing minutes that are ready to be read back, most urgent first; see :meth:`RepairQueue.due`."""
        return self.repairs.due(self.now_ms, lambda symbol: rank.get(symbol, len(rank)), is_coming)

    def coverage(self) -> float:
        """Share of the watched symbols whose candle stream is up; 0 when none is watched."""
        series = self.book.series.values()
        return sum(one.is_up for one in series) / len(series) if series else 0.0

    def history_window_ms(self, minutes: int) -> tuple[int, int]:
        """The window that a history of so many minutes, read now, covers."""
        end_ms = self.now_ms - self.now_ms % MINUTE_MS + MINUTE_MS
        return end_ms - minutes * MINUTE_MS, end_ms
