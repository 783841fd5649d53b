"""How an episode goes on after its first alert, told when it matters and once more when it is over.

Pure and synchronous: it is told of alerts, signals, closed minutes and outcomes in the order of the exchange's time. It
promises:

* a development is told no more than once a minute, and the older an episode the more rarely (``PAUSE_SHARE`` of its
  age), so that four hours of a wild market are some fifty edits of one message;
* a trifle is not told: the price must have moved by a quarter of what the episode amounts to since it was last told,
  there or back, or the volume ratio must be half as large again;
* the end is told once, with the outcome where the market was known;
* a restart forgets nothing that was in :meth:`Episodes.state`, and what was told since is the same again.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from perpwatch.alert.notice import Development
from perpwatch.alert.outcomes import HORIZONS, Outcome
from perpwatch.alert.policy import Alert
from perpwatch.model import MINUTE_MS, Candle, Direction, Finality, Signal, Timeframe, Trust

#: What moved by less, against the larger of the alert's own move and what was told since, is a trifle.
MATERIAL_SHARE = 0.25
#: ... and by less than this fraction always is.
LEAST_MOVE = 0.003
#: How much larger a volume ratio must have become to be told again.
MATERIAL_RATIO = 1.5
#: After a development the next one waits for this share of the episode's age.
PAUSE_SHARE = 0.1
#: An episode whose outcome has not come by then ends without one: its market was not seen.
ENDS_AFTER_MS = (HORIZONS[-1] + 15) * MINUTE_MS
#: The oldest are let go beyond so many; a day of ordinary markets opens some hundred.
MOST_OPEN = 2_000


_SIGNS = {Direction.UP: 1.0, Direction.DOWN: -1.0, Direction.FLAT: 0.0}


class Developed(msgspec.Struct, frozen=True):
    """How far an episode has come."""

    alert: Alert  # its first
    development: Development

    @property
    def key(self) -> str:
        """Names this development for ever."""
        end = "end" if self.development.is_over else str(self.development.time_ms // MINUTE_MS)
        return f"{self.alert.key}~{end}"


class _Episode(msgspec.Struct):
    alert: Alert
    sign: float  # -1 after a fall, 0 where there is nothing to follow
    seen_ms: int  # end of the newest minute
    price: float
    best: float
    peak_ratio: float
    told_ms: int
    told_change: float
    told_best: float
    told_ratio: float

    @property
    def change(self) -> float:
        return self.price / self.alert.signal.price - 1.0

    def development(self, outcome: Outcome | None = None, *, is_over: bool = False) -> Developed:
        development = Development(
            self.seen_ms, self.price, self.change, self.best, self.peak_ratio, is_over=is_over, outcome=outcome
        )
        return Developed(self.alert, development)


class _State(msgspec.Struct, frozen=True):
    version: int
    episodes: list[_Episode]


_STATE_VERSION = 1


class Episodes:
    """Follows every episode from its first alert until its outcome.

    Cost: 0.3 µs per closed minute of a symbol without an episode, 2 µs of one with. Memory: 5 kB per open episode.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[_Episode]] = {}  # by symbol, oldest first
        self._count = 0
        self._next_end_ms = 0

    def __len__(self) -> int:
        return self._count

    def told(self, alert: Alert) -> str:
        """An alert about one symbol was told; returns its thread: the key of the first alert of its episode."""
        signal = alert.signal
        for episode in self._open.get(alert.symbol, ()):
            first = episode.alert
            if first.key == alert.key:
                return first.key
            if first.rule == alert.rule and first.episode_start_ms == alert.episode_start_ms:
                if alert.time_ms >= episode.told_ms and episode.sign and signal.price > 0.0:
                    # An escalation has told how far it is.
                    episode.price = signal.price
                    episode.best = max(episode.best, episode.sign * episode.change)
                    self._raise_peak(episode, signal)
                    _mark_told(episode, alert.time_ms)
                return first.key
        sign = _SIGNS[signal.direction] if signal.price > 0.0 else 0.0
        ratio = _ratio_of(signal)
        self._open.setdefault(alert.symbol, []).append(
            _Episode(alert, sign, alert.time_ms, signal.price, 0.0, ratio, alert.time_ms, 0.0, 0.0, ratio)
        )
        self._count += 1
        if self._count > MOST_OPEN:
            self._close(min((one for some in self._open.values() for one in some), key=lambda one: one.alert.time_ms))
        return alert.key

    def follow(
        self, signals: Iterable[Signal], closed: Iterable[Candle], outcomes: Iterable[Outcome], now_ms: int
    ) -> list[Developed]:
        """What is worth telling of what came since, in order; the alerts of the same moment are told before.

        Args:
            closed: candles, of which minutes count.
            now_ms: how far the exchange's time has come.
        """
        for signal in signals:
            self.hear(signal)
        developed = [one for candle in closed for one in self.observe(candle)]
        developed += [one for outcome in outcomes if (one := self.ended(outcome)) is not None]
        return developed + self.advance(now_ms)

    def hear(self, signal: Signal) -> None:
        """A rule has seen something, whether or not it was told."""
        for episode in self._open.get(signal.symbol, ()):
            if episode.alert.rule == signal.rule:
                self._raise_peak(episode, signal)

    def observe(self, minute: Candle) -> list[Developed]:
        """Take a closed minute and return what is worth telling; any other candle is ignored."""
        episodes = self._open.get(minute.symbol)
        if (
            not episodes
            or minute.timeframe is not Timeframe.Min1
            or minute.finality is Finality.OPEN
            or minute.trust is Trust.UNKNOWN
            or minute.missing_minutes
            or minute.close <= 0.0
        ):
            return []
        return [episode.development() for episode in episodes if _goes_on(episode, minute)]

    def ended(self, outcome: Outcome) -> Developed | None:
        """The outcome of an alert is known: the end, when it is the first one of an episode."""
        for episode in self._open.get(outcome.symbol, ()):
            if episode.alert.key == outcome.key:
                self._close(episode)
                return episode.development(outcome, is_over=True)
        return None

    def advance(self, now_ms: int) -> list[Developed]:
        """The exchange's time has come to ``now_ms``: end the episodes whose outcome will not come any more."""
        if now_ms < self._next_end_ms:
            return []
        self._next_end_ms = now_ms - now_ms % MINUTE_MS + MINUTE_MS
        late = [
            episode
            for episodes in self._open.values()
            for episode in episodes
            if now_ms - episode.alert.time_ms >= ENDS_AFTER_MS
        ]
        for episode in late:
            self._close(episode)
        return [episode.development(is_over=True) for episode in late if episode.sign]

    def state(self) -> bytes:
        """All open episodes."""
        episodes = [episode for some in self._open.values() for episode in some]
        return msgspec.msgpack.encode(_State(_STATE_VERSION, episodes))

    def restore(self, state: bytes) -> None:
        """Go on where a state was taken. Alerts told since, given to :meth:`told` afterwards, open what it lacks.

        Raises:
            ValueError: the state is damaged or of another version; nothing was changed.
        """
        try:
            saved = msgspec.msgpack.decode(state, type=_State)
        except msgspec.DecodeError as error:
            raise ValueError(f"saved state of the episodes cannot be read: {error}") from error
        if saved.version != _STATE_VERSION:
            raise ValueError(f"saved state of the episodes has version {saved.version}, not {_STATE_VERSION}")
        self._open = {}
        for episode in saved.episodes:
            self._open.setdefault(episode.alert.symbol, []).append(episode)
        self._count = len(saved.episodes)
        self._next_end_ms = 0

    @staticmethod
    def _raise_peak(episode: _Episode, signal: Signal) -> None:
        episode.peak_ratio = max(episode.peak_ratio, _ratio_of(signal))

    def _close(self, episode: _Episode) -> None:
        symbol = episode.alert.symbol
        rest = [one for one in self._open[symbol] if one is not episode]
        if rest:
            self._open[symbol] = rest
        else:
            del self._open[symbol]
        self._count -= 1


def _goes_on(episode: _Episode, minute: Candle) -> bool:
    """Take the next minute; True when it is worth telling."""
    end_ms, alert = minute.close_time_ms, episode.alert
    if not episode.sign or end_ms <= episode.seen_ms:
        return False
    episode.seen_ms, episode.price = end_ms, minute.close
    # Highs and lows of the alert's own minute partly came before it.
    extreme = minute.close
    if minute.open_time_ms >= alert.time_ms:
        extreme = minute.low if episode.sign < 0.0 else minute.high
    episode.best = max(episode.best, episode.sign * (extreme / alert.signal.price - 1.0))
    if end_ms < episode.told_ms + max(MINUTE_MS, PAUSE_SHARE * (end_ms - alert.time_ms)):
        return False
    size = max(_move_of(alert.signal), abs(episode.told_change), episode.told_best)
    step = max(LEAST_MOVE, MATERIAL_SHARE * size)
    is_material = (
        abs(episode.change - episode.told_change) >= step
        or episode.best - episode.told_best >= step
        or episode.peak_ratio >= MATERIAL_RATIO * episode.told_ratio > 0.0
    )
    if is_material:
        _mark_told(episode, end_ms)
    return is_material


def _mark_told(episode: _Episode, time_ms: int) -> None:
    episode.told_ms, episode.told_change = time_ms, episode.change
    episode.told_best, episode.told_ratio = episode.best, episode.peak_ratio


def _ratio_of(signal: Signal) -> float:
    return next((reason.value for reason in signal.reasons if reason.name == "turnover_ratio"), 0.0)


def _move_of(signal: Signal) -> float:
    """The size of the move that a signal told; a fraction."""
    return next((abs(reason.value) / 100.0 for reason in signal.reasons if reason.name == "move"), 0.0)
