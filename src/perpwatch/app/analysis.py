"""What is found and told: rules, the desk that decides what a person hears of them, and what came of it.

The engine brings candles, tickers and trades here in the exchange's order; everything that follows from them is added
to the findings of the step. Synchronous and deterministic like the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from perpwatch.alert.desk import Desk, Order
from perpwatch.alert.outcomes import Outcome, Outcomes
from perpwatch.alert.policy import Alert, Held, MarketAlert, Silence, Suppressed
from perpwatch.detect.flow import TradeFlow
from perpwatch.detect.rule_set import History, RuleSet
from perpwatch.detect.rules import DEFAULT_RULES, Rule
from perpwatch.detect.score import Scorer
from perpwatch.model import Candle, Contract, ContractUpdate, Gap, Kind, Signal, StreamUp, Tickers, Timeframe, Trades

#: The source of batches, and the detector and rule of alerts, that no market made.
TEST = "test"
#: How often held alerts are released and budgets moved, in the exchange's time; short beside the two seconds for which
#: an alert waits for its crowd.
ADVANCE_EVERY_MS = 500


@dataclass(slots=True)
class Findings:
    """What one batch led to for people."""

    signals: list[Signal] = field(default_factory=list)
    alerts: list[Alert | MarketAlert] = field(default_factory=list)
    suppressed: list[Suppressed] = field(default_factory=list)  # signals that were not told, and why
    outcomes: list[Outcome] = field(default_factory=list)  # of earlier alerts


def orders_of(rules: Iterable[Rule]) -> list[Order]:
    """How each rule wants to be told."""
    return [Order(rule.name, rule.cooldown_minutes, rule.alerts_per_day, rule.is_tag) for rule in rules]


class Analysis:
    """The rules in force and everything that follows from their signals.

    Args:
        rules: at least one, each with a name of its own.
        scorer: None for no score.
        seed: which random moments outcomes are compared with.
    """

    def __init__(self, rules: Sequence[Rule] = DEFAULT_RULES, scorer: Scorer | None = None, seed: int = 1) -> None:
        self.flow = TradeFlow()
        self.rules = RuleSet(rules, self.flow, scorer)
        self.desk = Desk(orders_of(rules), 0)
        self.outcomes = Outcomes(seed)
        self.paused: frozenset[str] = frozenset()  # rules that find and learn, and tell nothing
        self.muted: frozenset[str] = frozenset()  # symbols of which nothing is told
        self.on_risk: Callable[[], None] = lambda: None  # a budget has moved what counts as rare
        self._alerted: dict[str, list[Alert]] = {}  # told before the start, by symbol: they wait for the history
        self._completed: list[Outcome] = []  # of symbols that are no longer watched
        self._advance_ms = 0
        self._watched: set[str] = set()

    # --- The rules --------------------------------------------------------------------------------------------------

    def swap(self, rules: Sequence[Rule]) -> list[str]:
        """Put other rules in force and say what changed; when they cannot be used, nothing has changed.

        Detectors that could not keep anything know nothing until :meth:`teach`.

        Raises:
            ConfigurationError: no rule, or two of one name.
        """
        changes = self.rules.swap(rules)
        self.desk.swap(orders_of(rules))
        self.on_risk()
        return changes

    def silence(self, rules: Iterable[str], symbols: Iterable[str]) -> None:
        """Tell nothing of these rules and symbols from now on, and of no others."""
        self.paused, self.muted = frozenset(rules), frozenset(symbols)

    def teach(self, symbol: str, history: History) -> None:
        """Warm up the detectors that have not seen ``symbol`` yet."""
        self.rules.teach(symbol, history)

    # --- Who is watched ---------------------------------------------------------------------------------------------

    def watch(self, contracts: Sequence[Contract]) -> None:
        """Exactly these are watched from now on."""
        self._watched = {contract.symbol for contract in contracts}
        self.desk.watched = len(self._watched)
        self.rules.watch(contracts)

    def forget(self, symbol: str) -> None:
        self.rules.forget(symbol)
        self.flow.forget(symbol)
        self._completed += self.outcomes.forget(symbol)

    def warming(self, symbol: str, timeframe: Timeframe, candles: Sequence[Candle]) -> Iterator[None]:
        """Take closed candles, oldest first, as the past of a symbol, in slices of a few milliseconds."""
        return self.rules.warming(symbol, timeframe, candles)

    def recall(self, symbol: str, minutes: Sequence[Candle]) -> None:
        """Go through the last day or so of a symbol for what came of the alerts in it."""
        self._completed += self.outcomes.warm_up(symbol, minutes, self._alerted.pop(symbol, ()))

    def reset(self, symbol: str) -> None:
        """Continuity was lost."""
        self.rules.reset(symbol)

    # --- The flow ---------------------------------------------------------------------------------------------------

    def wake_turnover(self, symbol: str, timeframe: Timeframe, open_time_ms: int | None = None) -> float:
        """Turnover of the running candle below which :meth:`judge_running` is certain to find nothing."""
        return self.rules.wake_turnover(symbol, timeframe, open_time_ms)

    def judge_running(
        self, candle: Candle, minute: Candle, event_time_ms: int, received_time_ns: int, found: Findings
    ) -> None:
        """Judge a candle that still runs; ``minute`` is the running minute of the same symbol."""
        signals = self.rules.update(candle, event_time_ms, received_time_ns, minute)
        if signals:
            self._offer(signals, event_time_ms, found)

    def judge_closed(self, candle: Candle, now_ms: int, received_time_ns: int, found: Findings) -> None:
        """Judge a candle that has ended, and learn from it."""
        signals = self.rules.update(candle, now_ms, received_time_ns)
        if signals:
            self._offer(signals, now_ms, found)

    def follow(self, minute: Candle, found: Findings) -> None:
        """Take a closed minute as what came of earlier alerts; after it was judged."""
        found.outcomes += self.outcomes.observe(minute)

    def hear(self, tickers: Tickers, received_time_ns: int, found: Findings) -> None:
        """Judge tickers of watched symbols."""
        for ticker in tickers.tickers:
            if ticker.symbol not in self._watched:
                continue
            signals = self.rules.observe(ticker, ticker.event_time_ms or tickers.event_time_ms, received_time_ns)
            if signals:
                self._offer(signals, tickers.event_time_ms, found)

    def trade(self, trades: Trades) -> None:
        """Count trades; those of symbols whose stream is not known to be whole are ignored."""
        self.flow.observe(trades)

    def stream_up(self, event: StreamUp) -> None:
        if event.stream.kind is Kind.TRADES:
            self.flow.start(event.stream.symbol, event.event_time_ms)

    def gap(self, event: Gap) -> None:
        if event.stream.kind is not Kind.TRADES:
            return
        if event.end_time_ms is None:
            self.flow.forget(event.stream.symbol)
        else:
            self.flow.start(event.stream.symbol, event.end_time_ms)

    def listed(self, update: ContractUpdate, received_time_ns: int, found: Findings) -> None:
        """A contract was listed or changed."""
        signals = self.rules.listed(update, received_time_ns)
        if signals:
            self._offer(signals, update.event_time_ms, found)

    def advance(self, now_ms: int, found: Findings) -> None:
        """The exchange's time has come to ``now_ms``: release what was held, move budgets."""
        if self._completed:
            found.outcomes += self._completed
            self._completed = []
        if now_ms < self._advance_ms:
            return
        self._advance_ms = now_ms + ADVANCE_EVERY_MS
        found.alerts += self.desk.advance(now_ms)
        self._turn()

    def _offer(self, signals: Sequence[Signal], now_ms: int, found: Findings) -> None:
        found.signals += signals
        found.alerts += self.desk.advance(now_ms)
        for signal in signals:
            if signal.rule in self.paused:
                found.suppressed.append(Suppressed(signal, Silence.PAUSED, "somebody paused it", rule=signal.rule))
                continue
            if signal.symbol in self.muted:
                found.suppressed.append(Suppressed(signal, Silence.MUTED, "somebody muted it", rule=signal.rule))
                continue
            match self.desk.offer(signal.rule, signal):
                case Alert() as alert:
                    found.alerts.append(alert)
                    self.outcomes.told(alert)
                case Held(alert=alert):
                    self.outcomes.told(alert)  # it is told within seconds, singly or in a market alert
                case Suppressed(alert=alert) as suppressed:
                    found.suppressed.append(suppressed)
                    if alert is not None:
                        self.outcomes.told(alert)
        self._turn()

    def _turn(self) -> None:
        """Let budgets move the detectors."""
        moved = False
        for rule, risk in self.desk.risks().items():
            if self.rules.risk(rule) not in (risk, None):
                self.rules.set_risk(rule, risk)
                moved = True
        if moved:
            self.on_risk()

    # --- What survives a restart --------------------------------------------------------------------------------------

    def remember(self, alerts: Iterable[Alert]) -> None:
        """Take alerts of earlier, oldest first, as told: none is repeated, and what came of them is still found out."""
        for alert in alerts:
            self.desk.remember(alert)
            self._alerted.setdefault(alert.symbol, []).append(alert)
