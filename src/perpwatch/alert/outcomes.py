"""What happened after an alert, against what happens anyway.

Pure and synchronous: it is told of alerts, and of closed minutes of all symbols, and gives an :class:`Outcome` once an
alert's last horizon is over. What happens anyway is measured at random moments of the same symbol, drawn by a hash of
seed, symbol and minute, and matched to the alert by volatility.

A return is the price at the horizon over the price of the alert, in the alert's direction: after a fall, a further fall
is positive. Horizons are counted in whole minutes after the minute in which the alert was given; excursions are the
best and worst price meanwhile, by highs and lows, and the alert's own minute does not belong to them, because part of
it came before the alert.
"""

from __future__ import annotations

import math
import zlib
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from perpwatch.alert.policy import Alert
from perpwatch.model import MINUTE_MS, Candle, Direction, Finality, Timeframe, Trust

HORIZONS = (5, 15, 60, 240)  # minutes
DAY_MS = 1440 * MINUTE_MS
#: The horizon by which an alert counts as a hit.
HIT_HORIZON = 60
_MASK = (1 << 64) - 1
# Asked for every minute: naming a member through its class takes ten times as long.
_MIN1, _OPEN, _UNKNOWN = Timeframe.Min1, Finality.OPEN, Trust.UNKNOWN


class Excursion(msgspec.Struct, frozen=True, array_like=True):
    """How the price had gone after some minutes; fractions, in the direction of the alert."""

    minutes: int
    forward: float  # return at the end
    best: float
    worst: float


class Outcome(msgspec.Struct, frozen=True):
    """One alert and what came of it; ``random`` holds the matched moments, seen in the same direction."""

    key: str
    rule: str
    symbol: str
    time_ms: int
    direction: Direction
    price: float
    volatility: float  # mean absolute return of a minute in the hour before
    after: tuple[Excursion, ...]  # horizons over which the market was known
    random: tuple[tuple[Excursion, ...], ...]

    @property
    def is_hit(self) -> bool | None:
        """The move went on by at least what an hour usually moves; None where the hour is not known."""
        return _is_hit(self.after, self.volatility)

    @property
    def random_hits(self) -> float | None:
        """Share of the matched moments that were hits; None without any."""
        hits = [hit for one in self.random if (hit := _is_hit(one, self.volatility)) is not None]
        return sum(hits) / len(hits) if hits else None


def _is_hit(after: Sequence[Excursion], volatility: float) -> bool | None:
    usual = volatility * math.sqrt(HIT_HORIZON)
    for one in after:
        if one.minutes == HIT_HORIZON:
            return one.best >= usual
    return None


@dataclass(slots=True)
class _Watch:
    """A moment whose future is being seen."""

    time_ms: int  # the end of its minute
    price: float
    volatility: float
    last_ms: int  # end of the last minute seen
    close: float
    high: float
    low: float
    due_ms: int  # when the next horizon is over
    missing: int = 0
    ends: list[tuple[int, float, float, float]] = field(default_factory=list)  # minutes, close, high, low
    alert: tuple[str, str, int, Direction] | None = None  # key, rule, time, direction; None for a random moment

    def see(self, candle: Candle, end_ms: int) -> bool:
        """Take the next minute, which ends at ``end_ms``; True when the last horizon is over."""
        open_ms = candle.open_time_ms
        if open_ms < self.time_ms:
            return False
        if open_ms != self.last_ms:
            self._close_horizons(open_ms)
            self.missing += (open_ms - self.last_ms) // MINUTE_MS
        self.last_ms, self.close = end_ms, candle.close
        if candle.high > self.high:
            self.high = candle.high
        if candle.low < self.low:
            self.low = candle.low
        if end_ms >= self.due_ms:
            self._close_horizons(end_ms)
        return len(self.ends) == len(HORIZONS)

    def _close_horizons(self, until_ms: int) -> None:
        for minutes in HORIZONS[len(self.ends) :]:
            self.due_ms = self.time_ms + minutes * MINUTE_MS
            if self.due_ms > until_ms:
                return
            # The price of a few minutes ago still speaks for the horizon, that of an hour ago does not.
            unknown = self.missing + (self.due_ms - self.last_ms) // MINUTE_MS
            is_known = unknown <= max(1, minutes // 10)
            self.ends.append((minutes, *((self.close, self.high, self.low) if is_known else (math.nan,) * 3)))

    @property
    def past(self) -> _Past:
        return _Past(self.time_ms, self.price, self.volatility, self.ends)


@dataclass(frozen=True, slots=True)
class _Past:
    """A moment whose future is known."""

    time_ms: int
    price: float
    volatility: float
    ends: list[tuple[int, float, float, float]]  # minutes, close, high, low; NaN where the market was not known

    def excursions(self, direction: Direction) -> tuple[Excursion, ...]:
        sign = -1.0 if direction is Direction.DOWN else 1.0
        result = []
        for minutes, close, high, low in self.ends:
            if math.isnan(close):
                continue
            moves = [sign * (price / self.price - 1.0) for price in (close, high, low)]
            result.append(Excursion(minutes, moves[0], max(moves), min(moves)))
        return tuple(result)


class _Moments:
    """Random moments of one symbol, oldest first, in 120 bytes each: there are hundreds of thousands of them."""

    __slots__ = ("_figures",)

    #: Time, price, volatility, then close, high and low at each horizon.
    WIDTH = 3 + 3 * len(HORIZONS)

    def __init__(self) -> None:
        self._figures = array("d")

    def add(self, moment: _Past, most: int) -> None:
        """Keep a moment, and no more than ``most``."""
        figures = self._figures
        figures.extend((moment.time_ms, moment.price, moment.volatility))
        for _, *prices in moment.ends:
            figures.extend(prices)
        del figures[: -self.WIDTH * most]

    def __iter__(self) -> Iterator[_Past]:
        figures, width = self._figures, self.WIDTH
        for first in range(0, len(figures), width):
            time_ms, price, volatility, *prices = figures[first : first + width]
            ends = list(zip(HORIZONS, prices[0::3], prices[1::3], prices[2::3], strict=True))
            yield _Past(int(time_ms), price, volatility, ends)


@dataclass(slots=True)
class _Market:
    """One symbol."""

    returns: array[float] = field(default_factory=lambda: array("d"))  # absolute ones of the last hour's minutes
    end_ms: int = 0
    close: float = 0.0
    phase: int = 0  # decides which minutes are random moments
    watched: list[_Watch] = field(default_factory=list)
    moments: _Moments = field(default_factory=_Moments)  # random ones whose future is known
    alerted_ms: int = -DAY_MS  # when the last alert was given

    @property
    def volatility(self) -> float:
        return sum(self.returns) / len(self.returns) if self.returns else 0.0


class Outcomes:
    """Follows alerts and random moments until their last horizon.

    Cost: 2 µs per closed minute, 20 kB per symbol once all random moments are known. Warm-up:
    alerts of the first hours have no random moments to be matched with, and say so by having none.
    """

    #: One minute in so many is a random moment: about ten a day.
    EVERY = 144
    KEPT_MOMENTS = 150
    MATCHED = 20
    #: Volatility of a matched moment differs by no more than this factor, if there are five such; else the nearest.
    FACTOR = 1.5
    LEAST_MATCHED = 5
    HOUR = 60

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._markets: dict[str, _Market] = {}

    def __len__(self) -> int:
        """Alerts whose outcome is still open."""
        return sum(watch.alert is not None for market in self._markets.values() for watch in market.watched)

    def told(self, alert: Alert) -> None:
        """An alert was given; one without a price or direction is not followed."""
        signal = alert.signal
        self.alerted(alert.key, alert.rule, alert.symbol, signal.direction, signal.price, alert.time_ms)

    def alerted(self, key: str, rule: str, symbol: str, direction: Direction, price: float, time_ms: int) -> None:
        """An alert was given; one without a price or direction is not followed."""
        market = self._market(symbol)
        if price <= 0.0 or direction is Direction.FLAT:
            return
        if any(watch.alert is not None and watch.alert[0] == key for watch in market.watched):
            return
        end_ms = -(-time_ms // MINUTE_MS) * MINUTE_MS
        market.alerted_ms = end_ms
        market.watched = [watch for watch in market.watched if watch.alert is not None or watch.time_ms != end_ms]
        volatility = market.volatility
        alert = (key, rule, time_ms, direction)
        market.watched.append(_Watch(end_ms, price, volatility, end_ms, price, price, price, end_ms, alert=alert))

    def observe(self, candle: Candle) -> list[Outcome]:
        """Take a closed minute and return the outcomes that it completes; any other candle is ignored."""
        if (
            candle.timeframe is not _MIN1
            or candle.finality is _OPEN
            or candle.trust is _UNKNOWN
            or candle.missing_minutes
            or not 0.0 < candle.low <= candle.high < math.inf
        ):
            return []
        market = self._market(candle.symbol)
        if candle.open_time_ms < market.end_ms:
            return []
        before = market.close if candle.open_time_ms == market.end_ms else candle.open
        if before > 0.0:
            market.returns.append(abs(candle.close / before - 1.0))
            if len(market.returns) > self.HOUR:
                del market.returns[0]
        end_ms = candle.close_time_ms
        market.end_ms, market.close = end_ms, candle.close
        outcomes: list[Outcome] = []
        if market.watched and (done := [watch for watch in market.watched if watch.see(candle, end_ms)]):
            market.watched = [watch for watch in market.watched if len(watch.ends) < len(HORIZONS)]
            for watch in done:
                if watch.alert is None:
                    market.moments.add(watch.past, self.KEPT_MOMENTS)
            outcomes = [self._outcome(candle.symbol, market, watch) for watch in done if watch.alert is not None]
        # The hour after an alert is no random moment.
        if (
            self._is_random(market, end_ms)
            and len(market.returns) >= self.HOUR
            and end_ms - market.alerted_ms >= self.HOUR * MINUTE_MS
        ):
            close = candle.close
            market.watched.append(_Watch(end_ms, close, market.volatility, end_ms, close, close, close, end_ms))
        return outcomes

    def warm_up(self, symbol: str, minutes: Sequence[Candle], alerts: Sequence[Alert]) -> list[Outcome]:
        """Go through the past of a symbol, and through its alerts in it, oldest first.

        Random moments of that past are what alerts are compared with from now on. What is known of the symbol already
        is replaced, alerts whose outcome is open excepted.

        Returns:
            Outcomes of those alerts whose last horizon is over.
        """
        before = self._markets.pop(symbol, None)
        found: list[Outcome] = []
        waiting = deque(alerts)
        for minute in minutes:
            while waiting and waiting[0].time_ms < minute.close_time_ms:
                self.told(waiting.popleft())
            found += self.observe(minute)
        for alert in waiting:
            self.told(alert)
        if before is not None:
            market = self._market(symbol)
            known = {watch.alert[0] for watch in market.watched if watch.alert is not None}
            market.watched += [one for one in before.watched if one.alert is not None and one.alert[0] not in known]
        return found

    def forget(self, symbol: str) -> list[Outcome]:
        """The symbol is no longer watched; returns what is known of its open alerts."""
        market = self._markets.pop(symbol, None)
        if market is None:
            return []
        return [self._outcome(symbol, market, watch) for watch in market.watched if watch.alert is not None]

    def _market(self, symbol: str) -> _Market:
        market = self._markets.get(symbol)
        if market is None:
            market = self._markets[symbol] = _Market(phase=_mixed(self._seed, zlib.crc32(symbol.encode())))
        return market

    def _is_random(self, market: _Market, time_ms: int) -> bool:
        # Fibonacci hashing: one multiplication per minute, the high bits of which are well mixed.
        return ((time_ms // MINUTE_MS ^ market.phase) * 0x9E3779B97F4A7C15 & _MASK) >> 33 < 2**31 // self.EVERY

    def _outcome(self, symbol: str, market: _Market, watch: _Watch) -> Outcome:
        assert watch.alert is not None
        key, rule, time_ms, direction = watch.alert
        moments = self._matched(market, watch, zlib.crc32(key.encode()))
        return Outcome(
            key=key,
            rule=rule,
            symbol=symbol,
            time_ms=time_ms,
            direction=direction,
            price=watch.price,
            volatility=watch.volatility,
            after=watch.past.excursions(direction),
            random=tuple(moment.excursions(direction) for moment in moments),
        )

    def _matched(self, market: _Market, watch: _Watch, number: int) -> list[_Past]:
        """Random moments of like volatility."""
        by_distance = sorted(market.moments, key=lambda one: (_distance(one, watch), one.time_ms))
        near = [moment for moment in by_distance if _distance(moment, watch) <= math.log(self.FACTOR)]
        if len(near) < self.LEAST_MATCHED:
            return by_distance[: self.LEAST_MATCHED]
        near.sort(key=lambda moment: _mixed(self._seed, number, moment.time_ms))
        return near[: self.MATCHED]


def _distance(moment: _Past, watch: _Watch) -> float:
    return abs(math.log(max(moment.volatility, 1e-9) / max(watch.volatility, 1e-9)))


def _mixed(*numbers: int) -> int:
    """A hash in which every bit of every number counts (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = 0
    for number in numbers:
        value = (value ^ number) + 0x9E3779B97F4A7C15 & _MASK
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
        value ^= value >> 31
    return value


# --- Scorecard --------------------------------------------------------------------------------------------------------


class Score(msgspec.Struct, frozen=True):
    """How a rule did over some days.

    A hit is an alert after which the price went on, within an hour, by at least ``volatility · √60``. ``lift`` says how
    many times as often that happens as at matched random moments; 1 is no better than chance.
    """

    rule: str
    days: int
    alerts: int
    judged: int  # those whose hour is known
    hits: int
    hit_rate: float | None
    random_hit_rate: float | None
    lift: float | None
    lift_low: float | None  # 95 % interval
    lift_high: float | None
    forward: tuple[tuple[int, float, float], ...]  # horizon, mean return in the alert's direction, mean at random


def scorecard(outcomes: Iterable[Outcome], now_ms: int, days: Sequence[int] = (7, 30)) -> list[Score]:
    """One line per rule and span of days, rules in order of their names."""
    outcomes = list(outcomes)
    rules = sorted({outcome.rule for outcome in outcomes})
    return [
        _score(rule, span, [one for one in outcomes if one.rule == rule and 0 <= now_ms - one.time_ms < span * DAY_MS])
        for rule in rules
        for span in days
    ]


def _score(rule: str, days: int, outcomes: list[Outcome]) -> Score:
    judged = [one for one in outcomes if one.is_hit is not None]
    matched = [one for one in judged if one.random_hits is not None]
    lift, low, high = _lift(matched)
    return Score(
        rule=rule,
        days=days,
        alerts=len(outcomes),
        judged=len(judged),
        hits=sum(bool(one.is_hit) for one in judged),
        hit_rate=sum(bool(one.is_hit) for one in judged) / len(judged) if judged else None,
        random_hit_rate=sum(one.random_hits or 0.0 for one in matched) / len(matched) if matched else None,
        lift=lift,
        lift_low=low,
        lift_high=high,
        forward=tuple(_forward(minutes, outcomes) for minutes in HORIZONS),
    )


def _lift(matched: Sequence[Outcome]) -> tuple[float | None, float | None, float | None]:
    """Hits over random hits, with a 95 % interval.

    Formula: L = Σh / Σp; the residuals h - L·p are summed within each UTC hour, because alerts of one hour share their
        market, and se(log L) = √(Σ of squared sums · m/(m - 1)) / Σh over m hours; the interval is L·exp(±1.96 se).
    No interval below five hours or without a hit: there the formula means nothing.
    Source: linearised ratio estimator with clusters, Cochran (1977), Sampling Techniques, chapters 6 and 11.
    """
    hits = sum(bool(one.is_hit) for one in matched)
    random_hits = math.fsum(one.random_hits or 0.0 for one in matched)
    if random_hits <= 0.0:
        return None, None, None
    lift = hits / random_hits
    by_hour: dict[int, float] = {}
    for one in matched:
        hour = one.time_ms // (60 * MINUTE_MS)
        by_hour[hour] = by_hour.get(hour, 0.0) + float(bool(one.is_hit)) - lift * (one.random_hits or 0.0)
    count = len(by_hour)
    if count < 5 or not hits:
        return lift, None, None
    variance = math.fsum(value * value for value in by_hour.values()) * count / (count - 1)
    deviation = 1.96 * math.sqrt(variance) / hits
    return lift, lift * math.exp(-deviation), lift * math.exp(deviation)


def _forward(minutes: int, outcomes: Sequence[Outcome]) -> tuple[int, float, float]:
    own = [one.forward for outcome in outcomes for one in outcome.after if one.minutes == minutes]
    random = [
        math.fsum(returns) / len(returns)
        for outcome in outcomes
        if (returns := [one.forward for moment in outcome.random for one in moment if one.minutes == minutes])
    ]
    mean = math.fsum(own) / len(own) if own else math.nan
    return minutes, mean, math.fsum(random) / len(random) if random else math.nan
