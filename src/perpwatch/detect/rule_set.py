"""Runs several rules side by side, and exchanges them while they run without forgetting what was learned.

Rules that ask the same of the same detector share it, so that a second rule costs little. A new set of rules is built
beside the old one and takes its place at once; detectors whose settings stayed, or changed only in dials such as risk
or a limit, keep all they have learned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import msgspec

from perpwatch.detect.detector import NEVER, Detector
from perpwatch.detect.flow import Confirmed, TradeFlow
from perpwatch.detect.listing import NewListing
from perpwatch.detect.rarity import VolumeRarity
from perpwatch.detect.rules import DEFAULT_RULES, Condition, Rule, Source, difference
from perpwatch.detect.score import Scorer
from perpwatch.detect.ticker_detector import TickerDetector
from perpwatch.detect.volume_ratio import VolumeRatio
from perpwatch.detect.why import Witness, in_order
from perpwatch.errors import ConfigurationError
from perpwatch.model import (
    ANALYSED_TIMEFRAMES,
    MINUTE_MS,
    Candle,
    Contract,
    ContractUpdate,
    Direction,
    Finality,
    Signal,
    Ticker,
    Timeframe,
)

_OPEN = Finality.OPEN
_MIN1 = Timeframe.Min1

#: Candles that a slice of a warm-up takes: some 3 ms of the most expensive detector.
SLICE = 500

#: Closed candles of a symbol, oldest first, as far back as they are at hand.
History = Callable[[str, Timeframe], Sequence[Candle]]


@runtime_checkable
class _Retractable(Protocol):
    def retract(self, signal: Signal) -> None: ...


@dataclass(slots=True)
class _Shared:
    """One detector and the conditions that listen to it."""

    key: bytes
    learns: bytes  # what it learns depends on this; the rest of its settings are dials
    owner: str  # the rule whose budget turns it; empty when any rule may share it
    plain: Source
    detector: Detector | None  # the same behind the flow of trades; None when it watches tickers
    users: list[tuple[int, int]] = field(default_factory=list)  # rule and condition
    fed: set[str] = field(default_factory=set)  # symbols that it has been shown


@dataclass(slots=True)
class _Hits:
    """When each condition of one rule was last met on one symbol."""

    by_condition: list[list[tuple[int, Timeframe, int, Signal]]]  # time, timeframe, open time, signal


class RuleSet:
    """The rules in force.

    Feed it as one would feed a detector; it answers with the signals of all rules, reasons in order of contribution,
    score included. What a rule's hours, direction, level or ``where`` turn down is not told, and a running candle that
    was turned down is judged again with the next push.
    Cost: that of the detectors that the rules name, each distinct one once, and 2 µs per signal and rule.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = DEFAULT_RULES,
        flow: TradeFlow | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        """
        Args:
            flow: trades of the symbols that have them subscribed; the caller feeds it.
            scorer: None for no score.
        Raises:
            ConfigurationError: no rule, or two of one name.
        """
        self.clock_offset_ms = 0.0  # our clock minus the exchange's; assign what is measured
        self.flow = flow if flow is not None else TradeFlow()
        self.scorer = scorer if scorer is not None else Scorer(None)
        self.witness = Witness()
        self.rules: tuple[Rule, ...] = ()
        self._shared: list[_Shared] = []
        self._on_tickers: list[tuple[_Shared, TickerDetector]] = []
        self._hits: dict[tuple[str, str], _Hits] = {}  # by rule and symbol
        self._classes: dict[str, tuple[str, ...]] = {}
        self._risks: dict[str, float] = {}  # by rule, where a budget has turned it
        self._of_symbol: dict[str, list[_Shared]] = {}  # detectors on candles that a symbol needs
        self.swap(rules)

    # --- The rules --------------------------------------------------------------------------------------------------

    def swap(self, rules: Sequence[Rule]) -> list[str]:
        """Put other rules in force and say what changed; when they cannot be used, nothing has changed.

        Detectors that could not keep anything know nothing until :meth:`teach`.

        Raises:
            ConfigurationError: no rule, or two of one name.
        """
        names = [rule.name for rule in rules]
        if not rules or len(set(names)) < len(names):
            raise ConfigurationError("rules", names, "at least one rule, each with a name of its own")
        lines = difference(self.rules, rules)
        shared, kept, fresh = self._assembled(tuple(rules))
        before = {rule.name: rule for rule in self.rules}
        hits = {
            (name, symbol): hit
            for (name, symbol), hit in self._hits.items()
            if any(rule.name == name and rule.conditions == before[name].conditions for rule in rules)
        }
        if self._shared:
            lines.append(f"= {kept} detectors kept what they had learned, {len(fresh)} begin anew")
        # From here on nothing can fail.
        self.rules, self._shared, self._hits = tuple(rules), shared, hits
        self._on_tickers = [
            (one, cast(TickerDetector, one.plain))
            for one in shared
            if one.detector is None and not isinstance(one.plain, NewListing)
        ]
        self._risks = {name: risk for name, risk in self._risks.items() if name in names}
        self._of_symbol = {}
        for name, risk in self._risks.items():
            self.set_risk(name, risk)
        return lines

    def teach(self, symbol: str, history: History) -> None:
        """Warm up the detectors that have not been shown ``symbol`` yet."""
        for one in self._needed_by(symbol):
            assert one.detector is not None
            if symbol in one.fed:
                continue
            for timeframe in ANALYSED_TIMEFRAMES:
                candles = history(symbol, timeframe)
                if candles:
                    one.detector.warm_up(symbol, timeframe, candles)
            one.fed.add(symbol)

    def set_risk(self, rule: str, risk: float) -> None:
        """Turn the risk q of a rule that has a budget; of another rule nothing is turned."""
        self._risks[rule] = risk
        for one in self._shared:
            if one.owner == rule and isinstance(one.plain, VolumeRarity):
                one.plain.risk = risk

    def turn(self, risk: float) -> None:
        """Turn the risk q of every detector that has one, whoever shares it."""
        for one in self._shared:
            if isinstance(one.plain, VolumeRarity):
                one.plain.risk = risk

    def risk(self, rule: str) -> float | None:
        """q of the first detector of a rule that has one."""
        number = [one.name for one in self.rules].index(rule)
        for one in self._shared:
            if isinstance(one.plain, VolumeRarity) and any(user[0] == number for user in one.users):
                return one.plain.risk
        return None

    # --- The flow ---------------------------------------------------------------------------------------------------

    def watch(self, contracts: Iterable[Contract]) -> None:
        """These exist and are not new; their classes decide which rules cover them."""
        contracts = list(contracts)
        self._classes = {contract.symbol: contract.classes for contract in contracts}
        self._of_symbol = {}
        for one in self._shared:
            if isinstance(one.plain, NewListing):
                one.plain.know(self._classes)

    def warm_up(self, symbol: str, timeframe: Timeframe, candles: Sequence[Candle]) -> None:
        """Take closed candles, oldest first, as the whole past of the symbol."""
        for _ in self.warming(symbol, timeframe, candles):
            pass

    def warming(self, symbol: str, timeframe: Timeframe, candles: Sequence[Candle]) -> Iterator[None]:
        """:meth:`warm_up` in slices of a few milliseconds, for a caller who has something else to do between them.

        Until the last slice the symbol must not be judged.
        """
        for one in self._needed_by(symbol):
            assert one.detector is not None
            if isinstance(one.plain, VolumeRarity):
                one.plain.warm_up(symbol, timeframe, candles[:SLICE])
                for first in range(SLICE, len(candles), SLICE):
                    yield
                    one.plain.learn(symbol, timeframe, candles[first : first + SLICE])
            else:
                one.detector.warm_up(symbol, timeframe, candles)
            one.fed.add(symbol)
            yield
        if timeframe is _MIN1:
            self.scorer.warm_up(symbol, candles[:SLICE])
            for first in range(SLICE, len(candles), SLICE):
                yield
                for candle in candles[first : first + SLICE]:
                    self.scorer.learn(candle)
            yield

    def update(
        self, candle: Candle, event_time_ms: int, received_time_ns: int, minute: Candle | None = None
    ) -> list[Signal]:
        """Judge a candle by all rules.

        Args:
            minute: the running minute, when the candle is a longer one that still runs; only the score needs it.
        """
        told: list[Signal] = []
        symbol = candle.symbol
        needed = self._of_symbol.get(symbol) or self._needed_by(symbol)
        if candle.finality is not _OPEN:
            if candle.timeframe is _MIN1:
                self.scorer.learn(candle)
            for one in needed:
                one.fed.add(symbol)
                # Trades turn down running candles only, so they need not be asked before there is a signal.
                signal = one.plain.update(candle, event_time_ms, received_time_ns)  # type: ignore[union-attr]
                if signal is not None:
                    if isinstance(one.detector, Confirmed):
                        signal = one.detector.with_flow(signal)
                    told += self._judge(one, signal, candle, minute)
            return told
        for one in needed:
            detector = one.detector
            assert detector is not None
            if candle.turnover < detector.wake_turnover(symbol, candle.timeframe, candle.open_time_ms):
                continue
            one.fed.add(symbol)
            signal = detector.update(candle, event_time_ms, received_time_ns)
            if signal is not None:
                told += self._judge(one, signal, candle, minute)
        return told

    def wake_turnover(self, symbol: str, timeframe: Timeframe, open_time_ms: int | None = None) -> float:
        """Turnover of the running candle below which :meth:`update` is certain to return nothing."""
        least = NEVER
        for one in self._needed_by(symbol):
            assert one.detector is not None
            wake = one.detector.wake_turnover(symbol, timeframe, open_time_ms)
            if wake < least:
                least = wake
        return least

    def observe(self, ticker: Ticker, event_time_ms: int, received_time_ns: int) -> list[Signal]:
        """Judge a ticker by the rules that watch tickers."""
        self.witness.observe(ticker, event_time_ms)
        told: list[Signal] = []
        for one, detector in self._on_tickers:
            signal = detector.observe(ticker, event_time_ms, received_time_ns)
            if signal is not None:
                told += self._judge(one, signal, None, None)
        return told

    @property
    def watches_tickers(self) -> bool:
        """Whether some rule would judge the tickers themselves; for the reasons of signals REST rows suffice."""
        return bool(self._on_tickers)

    def listed(self, update: ContractUpdate, received_time_ns: int) -> list[Signal]:
        """A contract was listed or changed."""
        self._classes[update.contract.symbol] = update.contract.classes
        self._of_symbol.pop(update.contract.symbol, None)
        told: list[Signal] = []
        for one in self._shared:
            if isinstance(one.plain, NewListing):
                signal = one.plain.observe(update, received_time_ns)
                if signal is not None:
                    told += self._judge(one, signal, None, None)
        return told

    def reset(self, symbol: str) -> None:
        """Continuity was lost."""
        for one in self._needed_by(symbol):
            assert one.detector is not None
            one.detector.reset(symbol)

    def forget(self, symbol: str) -> None:
        """The symbol is no longer watched."""
        for one in self._shared:
            if not isinstance(one.plain, NewListing):
                one.plain.forget(symbol)
            one.fed.discard(symbol)
        self.scorer.forget(symbol)
        self.witness.forget(symbol)
        self._of_symbol.pop(symbol, None)
        for key in [key for key in self._hits if key[1] == symbol]:
            del self._hits[key]

    # --- What survives a restart --------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """What detectors that can be saved have learned, to be given to :meth:`restore` after a restart."""
        saved = [(one.key, one.plain.state()) for one in self._shared if isinstance(one.plain, VolumeRarity)]
        return msgspec.msgpack.encode(saved)

    def restore(self, state: bytes) -> int:
        """Continue where :meth:`state` was taken, as far as the rules are the same; returns how many detectors did.

        Raises:
            ValueError: the state is damaged or of another version; warm up instead.
        """
        try:
            saved = dict(msgspec.msgpack.decode(state, type=list[tuple[bytes, bytes]]))
        except msgspec.DecodeError as error:
            raise ValueError(f"saved state of the rules cannot be read: {error}") from error
        restored = 0
        for one in self._shared:
            if isinstance(one.plain, VolumeRarity) and one.key in saved:
                one.plain.restore(saved[one.key])
                restored += 1
        return restored

    # --- Judging ------------------------------------------------------------------------------------------------------

    def _judge(self, one: _Shared, signal: Signal, candle: Candle | None, minute: Candle | None) -> list[Signal]:
        told: list[Signal] = []
        context: tuple[Any, ...] | None = None
        is_turned_down = False
        is_used = False
        for rule_number, condition_number in one.users:
            rule = self.rules[rule_number]
            condition = rule.conditions[condition_number]
            if (
                (candle is not None and rule.timeframes and signal.timeframe not in rule.timeframes)
                or not rule.covers(signal.symbol, self._classes.get(signal.symbol, ()))
                or not rule.is_on_duty(signal.event_time_ms)
            ):
                continue
            turnover = candle.turnover if candle is not None else rule.minimum_turnover
            if not rule.accepts(condition, signal, turnover):
                is_turned_down = True
                continue
            is_used = True
            parts = self._joined(rule, condition_number, signal)
            if parts is None:
                continue
            if context is None:
                context = self.witness.reasons(signal, self.clock_offset_ms)
                if candle is not None:
                    context += self.scorer.reasons(candle, minute)
            told.append(_told(rule, signal, parts, context))
        if is_turned_down and not is_used and signal.is_running and isinstance(one.plain, _Retractable):
            one.plain.retract(signal)
        return told

    def _joined(self, rule: Rule, number: int, signal: Signal) -> list[Signal] | None:
        """The signals that together make the rule speak; None when some are missing."""
        if rule.needed <= 1 and rule.conditions[number].times <= 1:
            return [signal]
        key = rule.name, signal.symbol
        hits = self._hits.get(key)
        if hits is None:
            hits = self._hits[key] = _Hits([[] for _ in rule.conditions])
        now_ms, span_ms = signal.event_time_ms, rule.within_minutes * MINUTE_MS
        own = hits.by_condition[number]
        name = (signal.timeframe, signal.open_time_ms)
        own[:] = [hit for hit in own if (hit[1], hit[2]) != name]  # a candle counts once
        own.append((now_ms, *name, signal))
        held = []
        for condition, known in zip(rule.conditions, hits.by_condition, strict=True):
            if span_ms:
                known[:] = [hit for hit in known if now_ms - hit[0] <= span_ms]
            else:
                known[:] = [hit for hit in known if hit[2] + hit[1].milliseconds >= now_ms - MINUTE_MS]
                held_here = [hit for hit in known if (hit[1], hit[2]) == name]
                held += [held_here[-1][3]] if len(held_here) >= condition.times else []
                continue
            if len(known) >= condition.times:
                held.append(known[-1][3])
        if len(held) < rule.needed or signal not in held:
            return None
        del self._hits[key]
        return held

    # --- Assembling ---------------------------------------------------------------------------------------------------

    def _needed_by(self, symbol: str) -> list[_Shared]:
        """Detectors on candles whose signals some rule could use on this symbol."""
        needed = self._of_symbol.get(symbol)
        if needed is None:
            classes = self._classes.get(symbol, ())
            covering = {number for number, rule in enumerate(self.rules) if rule.covers(symbol, classes)}
            needed = [
                one
                for one in self._shared
                if one.detector is not None and any(number in covering for number, _ in one.users)
            ]
            self._of_symbol[symbol] = needed
        return needed

    def _assembled(self, rules: tuple[Rule, ...]) -> tuple[list[_Shared], int, list[_Shared]]:
        """Detectors for these rules, as many of them as can be with what the present ones have learned."""
        wanted: dict[tuple[bytes, str], _Shared] = {}
        for rule_number, rule in enumerate(rules):
            for condition_number, condition in enumerate(rule.conditions):
                key, learns = _keys(rule, condition)
                owner = rule.name if rule.alerts_per_day is not None and condition.detector == "rarity" else ""
                one = wanted.get((key, owner))
                if one is None:
                    plain = _made(rule, condition)
                    one = wanted[key, owner] = _Shared(key, learns, owner, plain, None)
                one.users.append((rule_number, condition_number))
        old = {(one.key, one.owner): one for one in self._shared}
        orphans = [one for one in self._shared if (one.key, one.owner) not in wanted]
        kept, fresh = 0, []
        for name, one in wanted.items():
            same = old.get(name)
            if same is not None:
                one.plain, one.fed = same.plain, same.fed
                kept += 1
            else:
                heir = self._heir(one, orphans)
                if heir is None:
                    fresh.append(one)
                else:
                    one.plain, one.fed = heir
                    kept += 1
        for one in wanted.values():
            rule = rules[one.users[0][0]]
            if rule.conditions[one.users[0][1]].kind.is_on_candles:
                inner: Any = one.plain
                one.detector = Confirmed(inner, self.flow, rule.rush_orders) if rule.rush_orders else inner
        return list(wanted.values()), kept, fresh

    def _heir(self, one: _Shared, orphans: list[_Shared]) -> tuple[Source, set[str]] | None:
        """A detector with the new dials and an old one's knowledge; None when no old one has learned the same."""
        for number, orphan in enumerate(orphans):
            if orphan.learns == one.learns:
                del orphans[number]
                return _turned(one.plain, orphan.plain), orphan.fed
        for other in self._shared:
            if other.learns == one.learns:
                # Still in use elsewhere: each goes on with knowledge of its own.
                return _turned(one.plain, copy.deepcopy(other.plain)), set(other.fed)
        return None


def _keys(rule: Rule, condition: Condition) -> tuple[bytes, bytes]:
    """What two conditions must have in common to share a detector, and to inherit what was learned."""
    # A signal that one rule turns down is taken back, so only rules that turn down the same may share.
    figures = (rule.direction, rule.level, rule.minimum_turnover, [str(one) for one in condition.where])
    settings = sorted(condition.settings.items())
    # Which timeframes thresholds are given for decides what is learned; their values do not.
    learned = [
        (name, sorted(value) if isinstance(value, dict) else value)  # of a table only the keys
        for name, value in settings
        if name in condition.kind.learns
    ]
    encode = msgspec.json.encode
    whole = encode([condition.detector, settings, figures, rule.rush_orders])
    return whole, encode([condition.detector, learned])


def _made(rule: Rule, condition: Condition) -> Source:
    # A detector that knows the limit itself need not wake up below it.
    if rule.minimum_turnover and condition.detector in ("rarity", "threshold", "volume_ratio"):
        limit = max(rule.minimum_turnover, float(condition.settings.get("minimum_turnover", 0.0)))
        condition = msgspec.structs.replace(condition, settings={**condition.settings, "minimum_turnover": limit})
    return condition.make()


def _turned(new: Any, old: Any) -> Source:
    if isinstance(old, VolumeRatio):
        old.thresholds, old.running_threshold = new.thresholds, new.running_threshold
        old.minimum_turnover = new.minimum_turnover
        return old
    new.take_over(old)
    return new  # type: ignore[no-any-return]


def _told(rule: Rule, signal: Signal, parts: Sequence[Signal], context: tuple[Any, ...]) -> Signal:
    """One signal of a rule, from those of its conditions."""
    others = [part for part in parts if part is not signal]
    directions = [part.direction for part in (signal, *others) if part.direction is not Direction.FLAT]
    reasons = in_order([reason for part in (signal, *others) for reason in part.reasons] + list(context))
    return Signal(
        detector=signal.detector,
        symbol=signal.symbol,
        timeframe=signal.timeframe,
        open_time_ms=signal.open_time_ms,
        direction=directions[0] if directions else Direction.FLAT,
        level=max((part.level for part in parts), key=lambda level: level.rank),
        price=signal.price,
        strength=signal.strength,
        is_running=signal.is_running,
        trust=signal.trust,
        reasons=reasons,
        event_time_ms=signal.event_time_ms,
        received_time_ns=signal.received_time_ns,
        is_learning=any(part.is_learning for part in parts),
        rule=rule.name,
    )
