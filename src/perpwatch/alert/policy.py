"""Signal to alert or silence: what is worth a person's attention.

The policy is a pure state machine. It is given signals in the order of their exchange time, and told how far time has
come; it reads no clock. It promises:

* one alert per symbol and hour (``silence_ms``), across timeframes and detectors, except an *escalation*: a turnover
  ratio of at least twice the highest one alerted in this hour. The hour runs from where the alert fired; what was
  suppressed neither prolongs it nor raises the bar;
* a minute in which at least max(3, 10 %) of the symbols alert becomes one ranked market alert;
* a person's budget of alerts a day is met by moving the detectors' risk q, visibly (see :class:`Budget`);
* nothing is told twice, also after a restart: keys and episodes are part of the saved state.
"""

from __future__ import annotations

import enum
import math

import msgspec

from perpwatch.model import MINUTE_MS, Signal, Trust

HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


class Alert(msgspec.Struct, frozen=True):
    """What a person is told about one symbol."""

    key: str  # the same for the same candle, detector and escalation, so that it is stored and sent once
    signal: Signal
    time_ms: int  # exchange time at which the signal fired
    episode_start_ms: int  # the first alert of the episode that this one belongs to
    escalation: int  # 0 for the first alert of an episode, then counted up
    ratio: float  # turnover ratio that a later signal of the hour must double
    risk: float  # q per minute in force when it fired
    tags: tuple[Signal, ...] = ()  # what was known of the symbol before: a slow build-up ...
    rule: str = ""  # whose policy told it

    @property
    def symbol(self) -> str:
        return self.signal.symbol


class MarketAlert(msgspec.Struct, frozen=True):
    """So many symbols at once that it is the market and not the symbols."""

    key: str
    minute_ms: int  # the minute in which the signals fired
    time_ms: int  # when it was decided
    alerts: tuple[Alert, ...]  # most unusual first; some of them were told singly before the crowd was seen
    watched: int  # symbols at that time
    risk: float
    rule: str = ""

    @property
    def symbols(self) -> int:
        return len({alert.symbol for alert in self.alerts})


class Silence(enum.StrEnum):
    """Why a signal did not become an alert."""

    DUPLICATE = "already told"
    SILENT_HOUR = "same symbol within the hour"
    MARKET_WIDE = "part of a market alert"
    UNTRUSTED = "data not known good"
    LATE = "older than what was told"
    OVER_BUDGET = "the day's budget is spent"
    TAG = "kept to be shown beside the symbol's next alert"
    PAUSED = "the rule is paused"
    MUTED = "the symbol is muted"


class Suppressed(msgspec.Struct, frozen=True):
    """A signal that was not told, and why."""

    signal: Signal
    silence: Silence
    text: str  # with the numbers that decided
    alert: Alert | None = None  # what it would have been, where a market alert covers it
    rule: str = ""  # whose policy kept it silent


class Held(msgspec.Struct, frozen=True):
    """An alert that waits for at most ``Policy.HOLD_MS`` to see whether it is part of a crowd."""

    alert: Alert


class BudgetStatus(msgspec.Struct, frozen=True):
    """What the budget is doing, to be shown."""

    wanted_per_day: float | None  # None when no budget is set
    told_24h: int
    risk: float
    text: str


class Budget:
    """Moves q so that a person gets as many alerts a day as asked for.

    Formula: an integral controller in decades of q. Each alert told lowers log10 q by ``GAIN / wanted``; time raises
    it by ``GAIN`` per day, so log10 q(t) = log10 q(0) + GAIN · (t - told(t) / wanted). While q is inside its limits,
    what was told differs from what was wanted by no more than ``wanted / GAIN`` per decade that q had to move.
    Limits: q stays within [1e-6, 1e-3] as long as that can meet the budget, and goes up to 1e-2 for a budget that a
    small or quiet market cannot fill otherwise. At the strictest q an account is kept: half a day's budget ahead,
    alerts are dropped until time has caught up (market alerts are not).
    Time counts only while it flows: a step of more than ten minutes is an outage and loosens nothing.
    Unit: q per minute. Cost: 1 µs per alert. Warm-up: none; starts at the given q.
    Trade-off: a larger gain follows a new regime sooner and reacts more to the burst of a single hour. Alerts grow by
    a factor of about 4 per decade of q, so that the gain of 1.5 forgets a regime with a time constant of half a day.
    """

    GAIN = 1.5
    STRICTEST = 1e-6
    LOOSE = 1e-3
    LOOSEST = 1e-2
    #: Days of budget told ahead, at the strictest q, from which on alerts are dropped.
    MAX_AHEAD_DAYS = 0.5
    MAX_STEP_MS = 10 * MINUTE_MS

    def __init__(self, wanted_per_day: float, risk: float = 1e-4) -> None:
        """
        Raises:
            ValueError: nothing wanted.
        """
        if not wanted_per_day > 0.0:
            raise ValueError(f"alerts a day must be positive, not {wanted_per_day}")
        self.wanted_per_day = wanted_per_day
        self._decades = math.log10(risk)  # below the strictest, the account
        self._time_ms = 0

    @property
    def risk(self) -> float:
        # In steps of a fiftieth of a decade, so that detectors do not change with every minute.
        return math.pow(10.0, max(round(self._decades * 50.0) / 50.0, math.log10(self.STRICTEST)))

    @property
    def is_spent(self) -> bool:
        """Even the strictest q has told too much: drop alerts."""
        return self._decades < math.log10(self.STRICTEST) - self.GAIN * self.MAX_AHEAD_DAYS

    def told(self) -> None:
        self._decades -= self.GAIN / self.wanted_per_day

    def advance(self, now_ms: int) -> None:
        step_ms = now_ms - self._time_ms
        if step_ms <= 0:
            return
        if self._time_ms:
            raised = self._decades + self.GAIN * min(step_ms, self.MAX_STEP_MS) / DAY_MS
            self._decades = min(raised, math.log10(self.LOOSEST))
        self._time_ms = now_ms

    def state(self) -> tuple[float, int]:
        return self._decades, self._time_ms

    def restore(self, state: tuple[float, int]) -> None:
        self._decades, self._time_ms = state


class _Episode(msgspec.Struct):
    start_ms: int
    fired_ms: int
    ratio: float  # the highest alerted
    escalation: int


class _PolicyState(msgspec.Struct, frozen=True):
    version: int
    episodes: dict[str, _Episode]
    keys: dict[str, int]
    minute_ms: int
    minute: list[Alert]
    held: list[Alert]
    held_since_ms: int
    is_market_told: bool
    tags: dict[str, Signal]
    told_ms: list[int]
    budget: tuple[float, int] | None


_STATE_VERSION = 1


class Policy:
    """Decides for every signal; see the module for what it promises.

    Cost: 3 µs per signal. Memory: the symbols of the last hour and the keys of the last week.
    """

    SILENCE_MS = HOUR_MS
    ESCALATION = 2.0
    MARKET_SYMBOLS = 3
    MARKET_SHARE = 0.10
    #: The first two symbols of a minute leave at once; later ones wait this long for the crowd to show itself.
    HOLD_MS = 2_000
    KEPT_KEYS_MS = 7 * DAY_MS
    KEPT_TAGS_MS = 12 * HOUR_MS

    def __init__(
        self,
        watched: int,
        risk: float = 1e-4,
        alerts_per_day: float | None = None,
        tags: frozenset[str] = frozenset({"build_up"}),
        silence_ms: int = SILENCE_MS,
        rule: str = "",
    ) -> None:
        """
        Args:
            watched: symbols under watch; assign the attribute when it changes.
            risk: q per minute to start with, and to stay at without a budget.
            alerts_per_day: the budget; None for none.
            tags: detectors that find what is worth knowing but not worth a message.
            silence_ms: how long a symbol is silent after an alert.
            rule: stands on every alert, and in its key.
        """
        self.rule = rule
        self.silence_ms = silence_ms
        self.watched = watched
        self.dropped = 0  # alerts dropped because the budget was spent
        self._risk = risk
        self._budget = Budget(alerts_per_day, risk) if alerts_per_day is not None else None
        self._episodes: dict[str, _Episode] = {}
        self._keys: dict[str, int] = {}
        self._minute_ms = 0
        self._minute: list[Alert] = []  # all alerts of the minute, told or held
        self._held: list[Alert] = []
        self._held_since_ms = 0
        self._is_market_told = False
        self._tag_detectors = tags
        self._tags: dict[str, Signal] = {}  # the latest of each symbol
        self._told_ms: list[int] = []  # of the last 24 h

    @property
    def risk(self) -> float:
        """q per minute that the detectors should use from now on."""
        return self._budget.risk if self._budget else self._risk

    @property
    def has_budget(self) -> bool:
        return self._budget is not None

    @property
    def _prefix(self) -> str:
        return f"{self.rule}/" if self.rule else ""

    @property
    def market_threshold(self) -> int:
        """Symbols in one minute that make it market-wide."""
        return max(self.MARKET_SYMBOLS, math.ceil(self.MARKET_SHARE * self.watched))

    def offer(self, signal: Signal) -> Alert | Held | Suppressed:
        """Decide about one signal. Call :meth:`advance` with its event time first, to release what was held."""
        if signal.trust is Trust.UNKNOWN:
            return Suppressed(signal, Silence.UNTRUSTED, "the candle has unknown minutes")
        now_ms = signal.event_time_ms
        if signal.detector in self._tag_detectors:
            return self.note(signal)
        ratio = _turnover_ratio(signal)
        episode = self._episodes.get(signal.symbol)
        is_same_hour = episode is not None and now_ms - episode.fired_ms < self.silence_ms
        if episode is not None and now_ms < episode.fired_ms:
            return Suppressed(signal, Silence.LATE, "an alert with a later time was told")
        escalation = 0
        if episode is not None and is_same_hour:
            needed = self.ESCALATION * episode.ratio
            if ratio < needed:
                minutes = (now_ms - episode.fired_ms) // MINUTE_MS
                text = f"told {minutes} min ago; volume ratio {ratio:.3g} has not reached {needed:.3g}"
                return Suppressed(signal, Silence.SILENT_HOUR, text)
            escalation = episode.escalation + 1
        key = f"{self._prefix}{signal.detector}:{signal.symbol}:{signal.timeframe}:{signal.open_time_ms}:{escalation}"
        if key in self._keys:
            return Suppressed(signal, Silence.DUPLICATE, f"{key} was told")
        start_ms = episode.start_ms if episode is not None and is_same_hour else now_ms
        self._keys[key] = now_ms
        self._episodes[signal.symbol] = _Episode(start_ms, now_ms, ratio, escalation)
        tag = self._tags.get(signal.symbol)
        tags = (tag,) if tag is not None and now_ms - tag.event_time_ms < self.KEPT_TAGS_MS else ()
        alert = Alert(key, signal, now_ms, start_ms, escalation, ratio, self.risk, tags, self.rule)
        minute_ms = now_ms - now_ms % MINUTE_MS
        if minute_ms > self._minute_ms:
            self._minute_ms, self._minute, self._is_market_told = minute_ms, [], False
        self._minute.append(alert)
        if self._is_market_told:
            return Suppressed(signal, Silence.MARKET_WIDE, f"the market alert of {self._minute_ms} covers it", alert)
        if len({other.symbol for other in self._minute}) < self.MARKET_SYMBOLS:
            if self._budget and self._budget.is_spent:
                self._withdraw(alert, episode)
                return Suppressed(signal, Silence.OVER_BUDGET, self.budget_status(now_ms).text)
            self._tell(now_ms)
            return alert
        if not self._held:
            self._held_since_ms = now_ms
        self._held.append(alert)
        return Held(alert)

    def note(self, signal: Signal) -> Suppressed:
        """Keep a signal to be shown beside the symbol's next alert."""
        self._tags[signal.symbol] = signal
        return Suppressed(signal, Silence.TAG, f"{signal.detector} is shown beside an alert, not sent")

    def set_budget(self, alerts_per_day: float | None) -> None:
        """Another budget from now on; q goes on from where it is."""
        if alerts_per_day != (self._budget.wanted_per_day if self._budget else None):
            self._risk = self.risk
            self._budget = Budget(alerts_per_day, self._risk) if alerts_per_day is not None else None

    def advance(self, now_ms: int) -> list[Alert | MarketAlert]:
        """Time has come to ``now_ms`` (exchange): release held alerts, singly or as one, and move the budget."""
        if self._budget:
            self._budget.advance(now_ms)
        if not self._held or now_ms < self._held_since_ms + self.HOLD_MS:
            return []
        held, self._held = self._held, []
        if len({alert.symbol for alert in self._minute}) < self.market_threshold:
            told: list[Alert | MarketAlert] = []
            for alert in held:
                if self._budget and self._budget.is_spent:
                    self.dropped += 1
                else:
                    self._tell(alert.time_ms)
                    told.append(alert)
            return told
        self._is_market_told = True
        self._tell(now_ms)
        ranked = sorted(self._minute, key=_rank, reverse=True)
        key = f"{self._prefix}market:{self._minute_ms}"
        return [MarketAlert(key, self._minute_ms, now_ms, tuple(ranked), self.watched, self.risk, self.rule)]

    def next_deadline_ms(self) -> int | None:
        """When :meth:`advance` has something to release; None while nothing is held."""
        return self._held_since_ms + self.HOLD_MS if self._held else None

    def remember(self, alert: Alert) -> None:
        """Take an alert from the store as told, where no saved state survived."""
        episode = self._episodes.get(alert.symbol)
        self._keys[alert.key] = alert.time_ms
        if episode is None or episode.fired_ms <= alert.time_ms:
            self._episodes[alert.symbol] = _Episode(
                alert.episode_start_ms, alert.time_ms, alert.ratio, alert.escalation
            )

    def budget_status(self, now_ms: int) -> BudgetStatus:
        """What to show beside the alerts."""
        self._told_ms = [time_ms for time_ms in self._told_ms if now_ms - time_ms < DAY_MS]
        told = len(self._told_ms)
        if self._budget is None:
            return BudgetStatus(None, told, self.risk, f"{told} alerts in 24 h at risk {self.risk:.1e} (fixed)")
        wanted = self._budget.wanted_per_day
        text = f"{told} of {wanted:g} alerts in 24 h; risk {self.risk:.1e} per minute"
        if self.risk >= Budget.LOOSEST * 0.999:
            text += ", the loosest there is: the market gives no more"
        elif self.risk > Budget.LOOSE * 1.001:
            text += ", looser than recommended, to fill the budget"
        elif self._budget.is_spent:
            text += ", the strictest there is, and the budget is spent: alerts are dropped"
        elif self.risk <= Budget.STRICTEST * 1.001:
            text += ", the strictest there is"
        return BudgetStatus(wanted, told, self.risk, text)

    def state(self) -> bytes:
        """Everything that keeps a restart from repeating an alert."""
        return msgspec.msgpack.encode(
            _PolicyState(
                version=_STATE_VERSION,
                episodes=self._episodes,
                keys=self._keys,
                minute_ms=self._minute_ms,
                minute=self._minute,
                held=self._held,
                held_since_ms=self._held_since_ms,
                is_market_told=self._is_market_told,
                tags=self._tags,
                told_ms=self._told_ms,
                budget=self._budget.state() if self._budget else None,
            )
        )

    def restore(self, state: bytes) -> None:
        """
        Raises:
            ValueError: the state is damaged or of another version; nothing was changed.
        """
        try:
            saved = msgspec.msgpack.decode(state, type=_PolicyState)
        except msgspec.DecodeError as error:
            raise ValueError(f"saved state of the alert policy cannot be read: {error}") from error
        if saved.version != _STATE_VERSION:
            raise ValueError(f"saved state of the alert policy has version {saved.version}, not {_STATE_VERSION}")
        self._episodes, self._keys = saved.episodes, saved.keys
        self._minute_ms, self._minute = saved.minute_ms, saved.minute
        self._held, self._held_since_ms = saved.held, saved.held_since_ms
        self._is_market_told, self._told_ms = saved.is_market_told, saved.told_ms
        self._tags = saved.tags
        if self._budget and saved.budget:
            self._budget.restore(saved.budget)

    def _withdraw(self, alert: Alert, episode: _Episode | None) -> None:
        """As if it had not been offered, except that it still counts towards a crowd."""
        self.dropped += 1
        del self._keys[alert.key]
        if episode is None:
            del self._episodes[alert.symbol]
        else:
            self._episodes[alert.symbol] = episode

    def _tell(self, now_ms: int) -> None:
        self._told_ms.append(now_ms)
        if self._budget:
            self._budget.told()
        if len(self._told_ms) > 1 and now_ms - self._told_ms[0] > 2 * DAY_MS:
            self._told_ms = [time_ms for time_ms in self._told_ms if now_ms - time_ms < DAY_MS]
            self._keys = {key: time_ms for key, time_ms in self._keys.items() if now_ms - time_ms < self.KEPT_KEYS_MS}
            self._tags = {
                symbol: tag for symbol, tag in self._tags.items() if now_ms - tag.event_time_ms < self.KEPT_TAGS_MS
            }
            self._episodes = {
                symbol: episode
                for symbol, episode in self._episodes.items()
                if now_ms - episode.fired_ms < self.silence_ms
            }


def _rank(alert: Alert) -> tuple[int, float]:
    return alert.signal.level.rank, alert.ratio


def _turnover_ratio(signal: Signal) -> float:
    """What escalation compares: comparable across timeframes and detectors where a detector gives it."""
    for reason in signal.reasons:
        if reason.name == "turnover_ratio":
            return reason.value
    return signal.strength
