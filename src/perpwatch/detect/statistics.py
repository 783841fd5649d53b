"""One-pass estimators over flat arrays: what a detector remembers about one symbol and timeframe.

Every estimator here is defined by a batch formula that a test computes naively at every prefix of real data. State is
kept in 32-bit arrays (``array``), sums in 64 bits; a sum is added up afresh each time its ring comes round, so that the
rounding of subtractions never accumulates.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from perpwatch.model import MINUTE_MS

DAY_MS = 86_400_000


class RollingMeanState(msgspec.Struct, frozen=True, array_like=True):
    values: bytes
    head: int
    total: float


class RollingMean:
    """Mean of the last ``capacity`` values: sum(v[t-n+1 .. t]) / n with n = min(count, capacity).

    ``mean`` is 0 before the first value, ``count`` is n; both are read only.
    Unit: that of the values, which are at least 0. Cost: 0.3 µs per value, 4 bytes per value kept. Warm-up: a mean of
    what there is. Values are stored with 24 bits of precision, so the mean agrees with a 64-bit batch mean to about
    1e-7.
    """

    __slots__ = ("_capacity", "_head", "_total", "_values", "count", "mean")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values = array("f")
        self._head = -1  # where the next value goes once the ring is full; -1 while it fills
        self._total = 0.0
        self.count = 0
        self.mean = 0.0

    def __len__(self) -> int:
        return self.count

    @property
    def is_full(self) -> bool:
        return self._head >= 0

    def push(self, value: float) -> None:
        values, head = self._values, self._head
        if head < 0:
            values.append(value)
            self._total = total = self._total + values[-1]
            self.count = count = self.count + 1
            self.mean = total / count if total > 0.0 else 0.0
            if count == self._capacity:
                self._values = values[:]  # without the room that growing has left behind
                self._head = 0
            return
        dropped = values[head]
        values[head] = value
        total = self._total + (values[head] - dropped)
        head += 1
        if head == self._capacity:
            head = 0
            total = math.fsum(values)
        self._head = head
        self._total = total
        # A tiny negative total can only be rounding.
        self.mean = total / self._capacity if total > 0.0 else 0.0

    def push_all(self, new: Sequence[float]) -> None:
        """:meth:`push` of several, oldest first: the same additions in the same order."""
        place = 0
        while self._head < 0 and place < len(new):
            self.push(new[place])
            place += 1
        if place == len(new):
            return
        values, head, total, capacity = self._values, self._head, self._total, self._capacity
        for value in new[place:] if place else new:
            dropped = values[head]
            values[head] = value
            total += values[head] - dropped
            head += 1
            if head == capacity:
                head = 0
                total = math.fsum(values)
        self._head = head
        self._total = total
        self.mean = total / capacity if total > 0.0 else 0.0

    def newest(self, count: int) -> npt.NDArray[np.float32]:
        """The last values, at most ``count``, oldest first."""
        values = np.frombuffer(self._values, dtype=np.float32)
        head = max(self._head, 0)
        # The oldest stands at the head; a copy, because an array that is looked at cannot grow.
        return np.concatenate([values[head:], values[:head]])[-count:]

    def state(self) -> RollingMeanState:
        return RollingMeanState(self._values.tobytes(), self._head, self._total)

    def restore(self, state: RollingMeanState) -> None:
        self._values = array("f", state.values)
        self._head, self._total = state.head, state.total
        self.count = len(self._values)
        self.mean = self._total / self.count if self._total > 0.0 else 0.0


class TailState(msgspec.Struct, frozen=True, array_like=True):
    values: bytes
    gaps: bytes
    count: int
    room: int
    threshold: float
    size: int
    excesses: int
    sum_1: float
    sum_2: float


class Tail:
    """Peaks over threshold: how rare is a value beyond anything usual?

    Formula: t is a high quantile of the window (98 %), the n_t excesses y = x - t follow a generalised Pareto law, so
    P(X > x) = n_t/n · (1 + γ(x - t)/σ)^(-1/γ), and exp(-(x - t)/σ) for γ → 0. With the mean m and variance s² of the
    excesses, the moment fit is γ = (1 - m²/s²)/2 + 1/n_t and σ = m(1 + m²/s²)/2. The 1/n_t is the price of not knowing
    σ: an exponential law whose mean comes from n_t values predicts the next one by a Pareto law of that shape.
    ``refit`` takes t and the excesses from the window; between refits each new value adds to n, and each new excess to
    n_t, m and s.
    Of the window only values are kept that a refit can still need: a value that as many later ones reach as the tail
    holds will have left the window before it could be one of its largest again. Of values in no order that is one in
    ten of 7,200 (k(1 + ln(n/k)) of n with k in the tail), and the fit is the same to the bit.
    Unit: of the values; probabilities are per value. Cost: 1.5 µs per value, most of it for forgetting, 50 µs per
    refit; 5 bytes per value kept, 5 kB for a window of 7,200. Warm-up: not ready before ``minimum`` values were seen at
    a refit.
    False alarms: on minutes of real turnover the fit is optimistic, because volume is clustered and not stationary:
    at a stated 1e-4 it is exceeded 2.5 to 3 times as often, at 1e-5 10 to 15 times. Steer by the observed count.
    Differs from the paper in the moment fit (the paper maximises the likelihood), in the window, and in that alarms
    are learned as well: a market that stays wild must stop alarming.
    Source: Siffer, Fouque, Termier, Largouët (2017), Anomaly Detection in Streams with Extreme Value Theory, KDD;
    Hosking and Wallis (1987), Parameter and Quantile Estimation for the Generalized Pareto Distribution.
    """

    #: Below this many excesses their variance means nothing.
    MIN_EXCESSES = 10

    __slots__ = (
        "_capacity",
        "_excesses",
        "_gamma",
        "_gaps",
        "_is_fitted",
        "_minimum",
        "_quantile",
        "_room",
        "_sigma",
        "_size",
        "_sum_1",
        "_sum_2",
        "_values",
        "count",
        "is_ready",
        "threshold",
    )

    def __init__(self, capacity: int, minimum: int, quantile: float = 0.98) -> None:
        self._capacity = capacity
        self._minimum = minimum
        self._quantile = quantile
        self.count = 0  # values in the window; read only
        self._values = array("f")  # of those kept, oldest first
        self._gaps = bytearray()  # by how many values each comes after the one kept before it
        self._room = 4 * self._largest(capacity)  # so many are kept before the needless ones are looked for
        self.threshold = math.inf
        self.is_ready = False  # fitted to enough values and excesses; read only
        self._size = 0
        self._excesses = 0
        self._sum_1 = 0.0
        self._sum_2 = 0.0
        self._gamma = 0.0
        self._sigma = 0.0
        self._is_fitted = False

    def __len__(self) -> int:
        return self.count

    def push(self, value: float) -> bool:
        """Remember a value; True when it was an excess, so that rarities have changed visibly."""
        self._values.append(value)
        self._gaps.append(1)
        if len(self._gaps) >= self._room:
            self._thin()
        if self.count < self._capacity:
            self.count += 1
        if self.threshold == math.inf:
            return False
        self._size += 1
        excess = value - self.threshold
        if excess <= 0.0:
            return False
        self._excesses += 1
        self._sum_1 += excess
        self._sum_2 += excess * excess
        self._now_of(self._size, self._excesses)
        return True

    def refit(self) -> None:
        """Take threshold and excesses from the window."""
        size = self.count
        if size < self._minimum:
            return
        self._drop_old()
        values = np.frombuffer(self._values, dtype=np.float32)
        rank = len(values) - self._largest(size)
        largest = np.partition(values, rank)[rank:].tolist()
        self.threshold = threshold = largest[0]
        excesses = [value - threshold for value in largest if value > threshold]
        self._sum_1 = math.fsum(excesses)
        self._sum_2 = math.fsum([excess * excess for excess in excesses])
        self._now_of(size, len(excesses))

    def _now_of(self, size: int, excesses: int) -> None:
        self._size, self._excesses = size, excesses
        self.is_ready = size >= self._minimum and excesses >= self.MIN_EXCESSES
        self._is_fitted = False

    def _largest(self, size: int) -> int:
        """How many of so many values are the threshold or stand above it in their order; grows with ``size``."""
        return size - math.ceil(self._quantile * size) + 1

    def _drop_old(self) -> None:
        """Forget what has left the window."""
        gaps = self._gaps
        after, old = sum(gaps), 0
        for gap in gaps:
            after -= gap  # so many values have come after this one
            if after < self._capacity:
                break
            old += 1
        del self._values[:old], gaps[:old]

    def _thin(self) -> None:
        """Forget what no refit can need."""
        self._drop_old()
        most = self._largest(self._capacity)
        values, gaps = self._values[: -most - 1 : -1], self._gaps[: -most - 1 : -1]
        largest = values.tolist()  # of the values later than the one that is looked at
        heapq.heapify(largest)
        for value, gap in zip(self._values[-most - 1 :: -1], self._gaps[-most - 1 :: -1], strict=True):
            if value > largest[0]:
                heapq.heapreplace(largest, value)
            elif gaps[-1] + gap < 256:
                gaps[-1] += gap
                continue
            values.append(value)
            gaps.append(gap)
        values.reverse()
        gaps.reverse()
        # Without the room that growing has left behind.
        self._values, self._gaps = values[:], gaps[:]
        self._room = len(values) + max(len(values) // 2, most)

    def rarity(self, value: float) -> float:
        """P(X > value); 1 for anything up to the threshold, 0 beyond the end of a bounded tail."""
        excess = value - self.threshold
        if excess <= 0.0 or not self.is_ready:
            return 1.0
        self._fit()
        share = self._excesses / self._size
        if abs(self._gamma) < 1e-6:
            return share * math.exp(-excess / self._sigma)
        base = 1.0 + self._gamma * excess / self._sigma
        return share * math.pow(base, -1.0 / self._gamma) if base > 0.0 else 0.0

    def quantile(self, probability: float) -> float:
        """The value that is exceeded with ``probability``; never below the threshold, infinite while not ready."""
        if not self.is_ready:
            return math.inf
        self._fit()
        ratio = probability * self._size / self._excesses
        if ratio >= 1.0:
            return self.threshold
        if abs(self._gamma) < 1e-6:
            return self.threshold - self._sigma * math.log(ratio)
        return self.threshold + self._sigma / self._gamma * (math.pow(ratio, -self._gamma) - 1.0)

    def _fit(self) -> None:
        if self._is_fitted:
            return
        mean = self._sum_1 / self._excesses
        variance = self._sum_2 / self._excesses - mean * mean
        # Equal excesses have no variance: the least heavy law that still has a tail is the exponential one.
        ratio = mean * mean / variance if variance > 1e-12 else 1.0
        # Heavier than γ = 1/2 a moment fit cannot say, lighter than -1/2 it would swear that nothing larger exists.
        ratio = min(ratio, 2.0)
        self._gamma = 0.5 * (1.0 - ratio) + 1.0 / self._excesses
        self._sigma = 0.5 * mean * (1.0 + ratio)
        self._is_fitted = True

    def state(self) -> TailState:
        return TailState(
            self._values.tobytes(),
            bytes(self._gaps),
            self.count,
            self._room,
            self.threshold,
            self._size,
            self._excesses,
            self._sum_1,
            self._sum_2,
        )

    def restore(self, state: TailState) -> None:
        self._values, self._gaps = array("f", state.values), bytearray(state.gaps)
        self.count, self._room, self.threshold = state.count, state.room, state.threshold
        self._sum_1, self._sum_2 = state.sum_1, state.sum_2
        self._now_of(state.size, state.excesses)


class SlotFactorsState(msgspec.Struct, frozen=True, array_like=True):
    day: int
    days: float
    hour_totals: list[float]
    hour_counts: list[float]
    slot_totals: list[float]
    slot_counts: list[float]
    hour_factors: list[float]
    slot_factors: list[float]


class SlotFactors:
    """What the time of day adds to x in every symbol: an hour-of-day plus a place-in-the-hour offset.

    Formula: factor(t) = a · (mean x of this hour - mean x) + b · (mean x of this place in the hour - mean x), pooled
    over all symbols, each day weighing 6/7 of the day after it; x is cut at ``CUT`` so that no single burst speaks for
    its hour. a = d/(d + 3) · n/(n + 500) and b = n/(n + 500) shrink what is known from few days d or few
    values n. Factors are published once per UTC day, from days that have ended, and are 0 before the first.
    Unit: of x. Cost: 0.3 µs per value. Why: on perpetuals, volume alarms at minute :00 are 2.25 times as frequent as in
    an average minute; the factor removes that without a week of history of its own for each symbol.
    Source: Hansen, Kim, Kimbrough (2021), Periodicity in Cryptocurrency Volatility and Liquidity.
    """

    CUT = 3.0
    KEPT = 6.0 / 7.0
    SHRINK_VALUES = 500.0
    SHRINK_DAYS = 3.0

    def __init__(self, minutes: int) -> None:
        """Args: minutes: length of the candles whose x is given."""
        self._minutes = minutes
        self._slots = max(1, 60 // minutes)
        self._day = -1
        self._day_end_ms = 0  # of that day: what opens from then on is of another
        self._days = 0.0
        self._hour_totals, self._hour_counts = [0.0] * 24, [0.0] * 24
        self._slot_totals, self._slot_counts = [0.0] * self._slots, [0.0] * self._slots
        self._hour_factors, self._slot_factors = [0.0] * 24, [0.0] * self._slots
        self.lowest = 0.0  # no factor is below this
        # Of the candles that close together all but the first find their place here.
        self._place: tuple[int, int, int] = (-1, 0, 0)  # time, hour, place in the hour

    def factor(self, open_time_ms: int) -> float:
        _, hour, slot = self._place if self._place[0] == open_time_ms else self._placed(open_time_ms)
        return self._hour_factors[hour] + self._slot_factors[slot]

    def push(self, open_time_ms: int, value: float) -> float:
        """Take a value; returns the factor as it was before."""
        time_ms, hour, slot = self._place
        if time_ms != open_time_ms:
            _, hour, slot = self._placed(open_time_ms)
        factor = self._hour_factors[hour] + self._slot_factors[slot]
        if open_time_ms >= self._day_end_ms:
            self._publish(open_time_ms // DAY_MS)
        if value > self.CUT:
            value = self.CUT
        self._hour_totals[hour] += value
        self._hour_counts[hour] += 1.0
        self._slot_totals[slot] += value
        self._slot_counts[slot] += 1.0
        return factor

    def _placed(self, open_time_ms: int) -> tuple[int, int, int]:
        minute = open_time_ms // MINUTE_MS % 1440
        self._place = open_time_ms, minute // 60, minute % 60 // self._minutes % self._slots
        return self._place

    def _publish(self, day: int) -> None:
        count = math.fsum(self._hour_counts)
        if count:
            self._days += 1.0
            mean = math.fsum(self._hour_totals) / count
            trust = self._days / (self._days + self.SHRINK_DAYS)
            self._hour_factors = self._offsets(self._hour_totals, self._hour_counts, mean, trust)
            self._slot_factors = self._offsets(self._slot_totals, self._slot_counts, mean, 1.0)
            self.lowest = min(self._hour_factors) + min(self._slot_factors)
            self._days *= self.KEPT
            for values in (self._hour_totals, self._hour_counts, self._slot_totals, self._slot_counts):
                values[:] = [value * self.KEPT for value in values]
        self._begin(day)

    def _begin(self, day: int) -> None:
        self._day, self._day_end_ms = day, (day + 1) * DAY_MS

    def _offsets(self, totals: list[float], counts: list[float], mean: float, trust: float) -> list[float]:
        return [
            trust * n / (n + self.SHRINK_VALUES) * (total / n - mean) if n else 0.0
            for total, n in zip(totals, counts, strict=True)
        ]

    def state(self) -> SlotFactorsState:
        return SlotFactorsState(
            self._day,
            self._days,
            list(self._hour_totals),
            list(self._hour_counts),
            list(self._slot_totals),
            list(self._slot_counts),
            list(self._hour_factors),
            list(self._slot_factors),
        )

    def restore(self, state: SlotFactorsState) -> None:
        self._begin(state.day)
        self._days = state.days
        self._hour_totals, self._hour_counts = list(state.hour_totals), list(state.hour_counts)
        self._slot_totals, self._slot_counts = list(state.slot_totals), list(state.slot_counts)
        self._hour_factors, self._slot_factors = list(state.hour_factors), list(state.slot_factors)
        self.lowest = min(self._hour_factors) + min(self._slot_factors)
