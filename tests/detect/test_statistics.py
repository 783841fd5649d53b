"""One-pass estimators equal their batch formulas at every prefix."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perpwatch.detect.statistics import RollingMean, SlotFactors, Tail
from perpwatch.model import MINUTE_MS


def heavy_tailed(size: int, seed: int = 7) -> list[float]:
    """Log-normal turnovers with a tenth of the minutes empty."""
    random = np.random.default_rng(seed)
    values = random.lognormal(8.0, 1.5, size) * (random.random(size) > 0.1)
    return [float(value) for value in values.astype(np.float32)]


def test_rolling_mean_equals_the_batch_mean_at_every_prefix() -> None:
    values = heavy_tailed(1000)
    mean = RollingMean(60)
    for size, value in enumerate(values, start=1):
        mean.push(value)
        window = values[max(0, size - 60) : size]
        assert mean.mean == pytest.approx(math.fsum(window) / len(window), rel=1e-9)
        assert len(mean) == len(window)
    assert mean.is_full


def test_values_pushed_together_are_values_pushed_one_by_one() -> None:
    values = heavy_tailed(500)
    one, together = RollingMean(60), RollingMean(60)
    for first in range(0, len(values), 17):
        for value in values[first : first + 17]:
            one.push(value)
        together.push_all(values[first : first + 17])
        assert together.mean == one.mean
        assert together.state() == one.state()


def test_a_candle_of_a_billion_leaves_no_trace_once_it_has_left_the_window() -> None:
    mean = RollingMean(4)
    for value in (1.0, 1e15, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        mean.push(value)
    assert mean.mean == 1.0


def test_an_empty_mean_is_nought() -> None:
    assert RollingMean(3).mean == 0.0


def batch_tail(window: list[float], later: list[float], value: float, quantile: float) -> float:
    """P(X > value): threshold and excesses of the window at the refit, and of what came after it."""
    threshold = sorted(window)[math.ceil(quantile * len(window)) - 1]
    excesses = np.array([x - threshold for x in (*window, *later) if x > threshold])
    if value <= threshold:
        return 1.0
    mean, variance = excesses.mean(), excesses.var()
    ratio = min(mean * mean / variance, 2.0)
    gamma, sigma = 0.5 * (1.0 - ratio) + 1.0 / len(excesses), 0.5 * mean * (1.0 + ratio)
    base = 1.0 + gamma * (value - threshold) / sigma
    share = len(excesses) / (len(window) + len(later))
    return float(share * base ** (-1.0 / gamma)) if base > 0.0 else 0.0


def test_tail_equals_the_batch_fit_at_every_prefix() -> None:
    values = [math.log1p(value / 5000.0) for value in heavy_tailed(2500)]
    values = [float(np.float32(value)) for value in values]
    tail = Tail(capacity=1500, minimum=1000)
    refit_at = 0
    for size, value in enumerate(values, start=1):
        if refit_at:
            window, later = values[max(0, refit_at - 1500) : refit_at], values[refit_at : size - 1]
            assert tail.rarity(value) == pytest.approx(batch_tail(window, later, value, 0.98), rel=1e-6)
        else:
            assert tail.rarity(value) == 1.0
        tail.push(value)
        if size % 240 == 0 and size >= 1000:
            tail.refit()
            refit_at = size


@pytest.mark.parametrize("order", ["any", "rising", "falling", "waves", "equal", "one burst"])
def test_a_tail_that_keeps_only_what_it_needs_is_that_of_the_whole_window(order: str) -> None:
    values = [math.log1p(value / 5000.0) for value in heavy_tailed(4000, seed=11)]
    match order:
        case "rising":
            values.sort()
        case "falling":
            values.sort(reverse=True)
        case "waves":
            values = [value + math.sin(number / 200.0) for number, value in enumerate(values)]
        case "equal":
            values = [round(value) * 0.5 for value in values]
        case "one burst":
            values = [value + 100.0 * (1000 <= number < 1040) for number, value in enumerate(values)]
    kept = np.array(values, dtype=np.float32)
    tail = Tail(capacity=1000, minimum=200, quantile=0.98)
    for size, value in enumerate(values, start=1):
        tail.push(value)
        assert len(tail) == min(size, 1000)
        if size >= 200 and size % 30 == 0:
            tail.refit()
            window = np.sort(kept[max(0, size - 1000) : size])
            assert tail.threshold == window[math.ceil(0.98 * len(window)) - 1]
            excesses = window[window > tail.threshold].astype(np.float64) - tail.threshold
            state = tail.state()
            sums = math.fsum(excesses), math.fsum(excesses * excesses)
            assert (state.size, state.excesses, state.sum_1, state.sum_2) == (len(window), len(excesses), *sums)


def test_a_tail_keeps_a_fraction_of_its_window() -> None:
    tail = Tail(capacity=7200, minimum=1000)
    for value in heavy_tailed(20_000):
        tail.push(math.log1p(value / 5000.0))
    state = tail.state()
    assert len(state.values) + len(state.gaps) < 7200


def test_the_quantile_is_the_inverse_of_the_rarity() -> None:
    tail = Tail(capacity=5000, minimum=1000)
    for value in heavy_tailed(5000):
        tail.push(math.log1p(value / 5000.0))
    tail.refit()
    for probability in (1e-2, 1e-3, 1e-4, 1e-6):
        assert tail.rarity(tail.quantile(probability)) == pytest.approx(probability, rel=1e-6)
    assert tail.quantile(0.5) == tail.threshold


def test_the_tail_of_a_known_law_is_found() -> None:
    """Of an exponential law, P(X > x) = exp(-x)."""
    random = np.random.default_rng(3)
    tail = Tail(capacity=50_000, minimum=1000)
    for value in random.exponential(1.0, 50_000).tolist():
        tail.push(value)
    tail.refit()
    assert tail.rarity(math.log(1e4)) == pytest.approx(1e-4, rel=0.35)


def test_a_tail_is_not_ready_before_its_minimum_nor_without_excesses() -> None:
    tail = Tail(capacity=100, minimum=50)
    for _ in range(49):
        tail.push(1.0)
    tail.refit()
    assert not tail.is_ready
    assert tail.quantile(1e-4) == math.inf
    for _ in range(51):
        tail.push(1.0)
    tail.refit()
    assert not tail.is_ready  # nothing ever exceeded the threshold


def test_equal_excesses_give_a_tail_that_allows_for_their_number() -> None:
    tail = Tail(capacity=1000, minimum=100)
    for number in range(1000):
        tail.push(1.0 if number % 60 == 0 else 0.0)
    tail.refit()
    assert tail.rarity(1.0) == pytest.approx(17 / 1000 * math.pow(1.0 + 1.0 / 17, -17.0))


def test_slot_factors_equal_the_batch_offsets_of_the_days_that_have_ended() -> None:
    random = np.random.default_rng(5)
    slots = SlotFactors(5)
    rows: list[tuple[int, float]] = []
    day = 288
    for number in range(3 * day):
        # Full hours are busier, and so is the evening.
        value = float(random.exponential(0.5)) + (1.0 if number % 12 == 0 else 0.0) + (0.5 if number % day > 200 else 0)
        open_ms = number * 5 * MINUTE_MS
        rows.append((open_ms, value))
        slots.push(open_ms, value)
        ended = number // day
        if ended == 0:
            assert slots.factor(open_ms) == 0.0
        elif number % 37 == 0:
            assert slots.factor(open_ms) == pytest.approx(batch_factor(rows[: ended * day], ended, open_ms), rel=1e-9)
            assert slots.factor(open_ms) >= slots.lowest
    assert slots.factor(0) > slots.factor(5 * MINUTE_MS)


def batch_factor(rows: list[tuple[int, float]], ended: int, open_ms: int) -> float:
    """Offsets over whole days; a day that ended n days before the last one weighs (6/7)^n."""
    cut = [(t, min(value, 3.0), math.pow(6.0 / 7.0, ended - 1 - t // 86_400_000)) for t, value in rows]
    mean = sum(w * x for _, x, w in cut) / sum(w for _, _, w in cut)
    days = sum(math.pow(6.0 / 7.0, n) for n in range(ended))
    total = 0.0
    for period_ms, unit_ms, trust in ((86_400_000, 3_600_000, days / (days + 3.0)), (3_600_000, 300_000, 1.0)):
        same = [(x, w) for t, x, w in cut if t % period_ms // unit_ms == open_ms % period_ms // unit_ms]
        n = sum(w for _, w in same)
        total += trust * n / (n + 500.0) * (sum(w * x for x, w in same) / n - mean)
    return total


def test_one_burst_does_not_speak_for_its_hour() -> None:
    slots = SlotFactors(60)
    for hour in range(25):
        slots.push(hour * 60 * MINUTE_MS, 100.0 if hour == 3 else 0.0)
    assert slots.factor(3 * 60 * MINUTE_MS) < 3.0


def test_states_continue_identically() -> None:
    values = heavy_tailed(700)
    mean, tail, slots = RollingMean(100), Tail(300, 100), SlotFactors(1)
    for number, value in enumerate(values[:400]):
        mean.push(value)
        tail.push(value)
        slots.push(number * 20 * MINUTE_MS, value / 1e4)
    tail.refit()
    other_mean, other_tail, other_slots = RollingMean(100), Tail(300, 100), SlotFactors(1)
    other_mean.restore(mean.state())
    other_tail.restore(tail.state())
    other_slots.restore(slots.state())
    for number, value in enumerate(values[400:], start=400):
        for one_mean, one_tail, one_slots in ((mean, tail, slots), (other_mean, other_tail, other_slots)):
            one_mean.push(value)
            one_tail.push(value)
            one_slots.push(number * 20 * MINUTE_MS, value / 1e4)
        assert other_mean.mean == mean.mean
        assert other_tail.rarity(value) == tail.rarity(value)
        assert other_slots.factor(number * MINUTE_MS) == slots.factor(number * MINUTE_MS)
    assert other_mean.state() == mean.state()
    assert other_tail.state() == tail.state()
    assert other_slots.state() == slots.state()
