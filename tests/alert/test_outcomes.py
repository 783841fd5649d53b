"""What came of an alert is measured as a person would, against moments nobody chose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from perpwatch.alert.outcomes import HORIZONS, Excursion, Outcome, Outcomes, scorecard
from perpwatch.model import MINUTE_MS, Candle, Direction, Finality, Timeframe, Trust

START_MS = 1_617_580_800_000
DAY_MS = 1440 * MINUTE_MS


def minute(
    number: int, close: float, *, high: float | None = None, low: float | None = None, open: float = 0.0
) -> Candle:
    open = open or close
    return Candle(
        symbol="ABC_USDT",
        timeframe=Timeframe.Min1,
        open_time_ms=START_MS + number * MINUTE_MS,
        open=open,
        high=max(open, close) if high is None else high,
        low=min(open, close) if low is None else low,
        close=close,
        contracts=1.0,
        base_volume=1.0,
        turnover=close,
        finality=Finality.SUCCESSOR,
        trust=Trust.STREAMED,
    )


def feed(outcomes: Outcomes, candles: Sequence[Candle]) -> list[Outcome]:
    return [outcome for one in candles for outcome in outcomes.observe(one)]


def walk(size: int, seed: int, deviation: float = 0.001) -> list[Candle]:
    returns = np.random.default_rng(seed).normal(0.0, deviation, size)
    closes = [100.0, *(100.0 * np.exp(np.cumsum(returns))).tolist()]
    return [minute(number, closes[number + 1], open=closes[number]) for number in range(size)]


def alert(outcomes: Outcomes, number: int, direction: Direction = Direction.UP, key: str = "a") -> None:
    outcomes.alerted(key, "default", "ABC_USDT", direction, 100.0, START_MS + number * MINUTE_MS)


def test_returns_and_excursions_are_those_of_the_whole_minutes_after() -> None:
    outcomes = Outcomes(seed=1)
    feed(outcomes, [minute(n, 100.0) for n in range(100)])
    alert(outcomes, 100)
    after = {0: (101.0, 103.0, 99.0), 4: (102.0, 102.0, 102.0), 30: (90.0, 110.0, 80.0), 239: (95.0, 95.0, 95.0)}
    candles = []
    for n in range(240):
        close, high, low = after.get(n, (100.0, 100.0, 100.0))
        candles.append(minute(100 + n, close, high=high, low=low))
    assert feed(outcomes, candles[:-1]) == []
    assert len(outcomes) == 1
    (outcome,) = feed(outcomes, candles[-1:])
    assert [one.minutes for one in outcome.after] == list(HORIZONS)
    for one, expected in zip(
        outcome.after,
        [(0.02, 0.03, -0.01), (0.0, 0.03, -0.01), (0.0, 0.1, -0.2), (-0.05, 0.1, -0.2)],
        strict=True,
    ):
        assert (one.forward, one.best, one.worst) == pytest.approx(expected)
    assert len(outcomes) == 0


def test_after_a_fall_a_further_fall_is_good() -> None:
    outcomes = Outcomes(seed=1)
    alert(outcomes, 0, Direction.DOWN)
    (outcome,) = feed(outcomes, [minute(n, 90.0, high=104.0, low=88.0) for n in range(240)])
    first = outcome.after[0]
    assert (first.forward, first.best, first.worst) == pytest.approx((0.1, 0.12, -0.04))


def test_the_rest_of_the_alerts_own_minute_does_not_count() -> None:
    outcomes = Outcomes(seed=1)
    outcomes.alerted("a", "default", "ABC_USDT", Direction.UP, 100.0, START_MS + 20_000)
    (outcome,) = feed(outcomes, [minute(0, 100.0, high=500.0), *(minute(n, 100.0) for n in range(1, 241))])
    assert outcome.after[-1].best == 0.0


def test_a_horizon_in_a_hole_is_not_known_and_a_short_hole_does_no_harm() -> None:
    outcomes = Outcomes(seed=1)
    alert(outcomes, 0)
    hole = [n for n in range(260) if not 10 <= n < 40 and n != 3]
    (outcome,) = feed(outcomes, [minute(n, 100.0) for n in hole])
    assert [one.minutes for one in outcome.after] == [5]
    outcomes = Outcomes(seed=1)
    alert(outcomes, 0)
    (outcome,) = feed(outcomes, [minute(n, 100.0) for n in range(260) if not 100 <= n < 120])
    assert [one.minutes for one in outcome.after] == [5, 15, 60, 240]


def test_an_alert_is_followed_once_and_one_without_direction_never() -> None:
    outcomes = Outcomes(seed=1)
    alert(outcomes, 0)
    alert(outcomes, 0)
    alert(outcomes, 0, Direction.FLAT, key="b")
    assert len(outcomes) == 1
    assert len(feed(outcomes, [minute(n, 100.0) for n in range(300)])) == 1


def test_candles_that_say_nothing_are_ignored() -> None:
    outcomes = Outcomes(seed=1)
    alert(outcomes, 0)
    for one in (
        msgspec.structs.replace(minute(0, 100.0), timeframe=Timeframe.Min5),
        msgspec.structs.replace(minute(0, 100.0), finality=Finality.OPEN),
        msgspec.structs.replace(minute(0, 100.0), trust=Trust.UNKNOWN),
        msgspec.structs.replace(minute(0, 100.0), high=math.inf),
    ):
        assert outcomes.observe(one) == []
    feed(outcomes, [minute(n, 100.0) for n in range(10)])
    assert feed(outcomes, [minute(n, 900.0) for n in range(10)]) == []  # sent again
    (outcome,) = outcomes.forget("ABC_USDT")
    assert [(one.minutes, one.best) for one in outcome.after] == [(5, 0.0)]
    assert outcomes.forget("ABC_USDT") == []


def test_random_moments_depend_on_the_seed_alone() -> None:
    def run(seed: int) -> list[Outcome]:
        outcomes = Outcomes(seed)
        candles = walk(8000, seed=3)
        found = feed(outcomes, candles[:7000])
        outcomes.alerted("a", "default", "ABC_USDT", Direction.UP, candles[6999].close, START_MS + 7000 * MINUTE_MS)
        return found + feed(outcomes, candles[7000:])

    assert run(1) == run(1)
    assert run(1)[0].after == run(2)[0].after
    assert run(1)[0].random != run(2)[0].random
    assert len(run(1)[0].random) == Outcomes.MATCHED


def test_matched_moments_have_a_like_volatility() -> None:
    outcomes = Outcomes(seed=4)
    calm, wild = walk(6000, seed=3, deviation=0.001), walk(6000, seed=5, deviation=0.01)
    moved = [msgspec.structs.replace(one, open_time_ms=one.open_time_ms + 6000 * MINUTE_MS) for one in wild]
    feed(outcomes, [*calm, *moved])
    alert(outcomes, 12_000)
    (outcome,) = feed(outcomes, [minute(12_000 + n, 100.0) for n in range(240)])
    assert len(outcome.random) == Outcomes.MATCHED
    spread = [one.best - one.worst for moment in outcome.random for one in moment if one.minutes == 60]
    assert min(spread) > 0.02  # a calm hour spans less than 1 %


def test_no_random_moment_lies_in_the_hour_after_an_alert() -> None:
    outcomes = Outcomes(seed=2)
    candles = walk(9000, seed=7)
    for number in range(8000):  # alerting all the time
        outcomes.observe(candles[number])
        if number % 30 == 0:
            alert(outcomes, number + 1, key=str(number))
    alert(outcomes, 8000, key="last")
    last = next(one for one in feed(outcomes, candles[8000:]) if one.key == "last")
    assert last.random == ()
    assert last.random_hits is None


# --- The scorecard ----------------------------------------------------------------------------------------------------


def outcome(number: int, hit: bool, random_hits: Sequence[bool], *, rule: str = "default", hours: int = 1) -> Outcome:
    def after(good: bool) -> tuple[Excursion, ...]:
        return (Excursion(60, 0.01 if good else -0.01, 0.05 if good else 0.0, -0.02),)

    return Outcome(
        key=f"{rule}{number}",
        rule=rule,
        symbol="ABC_USDT",
        time_ms=START_MS + number * hours * 60 * MINUTE_MS,
        direction=Direction.UP,
        price=100.0,
        volatility=0.001,
        after=after(hit),
        random=tuple(after(one) for one in random_hits),
    )


def test_the_scorecard_counts_hits_against_random_hits() -> None:
    outcomes = [outcome(n, n % 2 == 0, [n % 4 == 0, False, False, False]) for n in range(100)]
    week, month = scorecard(outcomes, START_MS + 100 * 60 * MINUTE_MS)
    assert (week.days, week.alerts, week.judged, week.hits) == (7, 100, 100, 50)
    assert (week.hit_rate, week.random_hit_rate, week.lift) == (0.5, 0.0625, 8.0)
    assert week.lift_low is not None
    assert week.lift_high is not None
    assert 1.0 < week.lift_low < 8.0 < week.lift_high
    assert month.days == 30
    assert month.hits == 50
    assert week.forward[2] == pytest.approx((60, 0.0, -0.00875))


def test_only_the_days_asked_for_count_and_each_rule_for_itself() -> None:
    outcomes = [outcome(n, True, [True]) for n in range(24 * 10)] + [outcome(0, False, [], rule="other")]
    rows = scorecard(outcomes, START_MS + 10 * DAY_MS, days=(7, 30))
    assert [(row.rule, row.days, row.alerts) for row in rows] == [
        ("default", 7, 24 * 7 - 1),
        ("default", 30, 240),
        ("other", 7, 0),
        ("other", 30, 1),
    ]
    assert rows[3].lift is None
    assert rows[3].hit_rate == 0.0


def test_alerts_of_one_hour_are_one_opinion() -> None:
    spread = scorecard(
        [outcome(n, n % 2 == 0, [False, n % 3 == 0]) for n in range(60)], START_MS + 60 * 60 * MINUTE_MS
    )[0]
    burst = [outcome(n, n % 2 == 0, [False, n % 3 == 0]) for n in range(60)]
    burst = [msgspec.structs.replace(one, time_ms=START_MS + n // 30 * 60 * MINUTE_MS) for n, one in enumerate(burst)]
    together = scorecard(burst, START_MS + 60 * 60 * MINUTE_MS)[0]
    assert together.lift == spread.lift
    assert together.lift_low is None  # two hours say nothing about a market
    assert spread.lift_low is not None


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = trials = 0
    for _ in range(300):
        outcomes: list[Outcome] = []
        for hour in range(150):
            is_busy = random.random() < 0.5  # alerts of an hour share their market
            for _ in range(int(random.integers(1, 4))):
                hit = bool(random.random() < (0.6 if is_busy else 0.2))
                matched = [bool(random.random() < 0.2) for _ in range(10)]
                outcomes.append(msgspec.structs.replace(outcome(hour, hit, matched), key=str(len(outcomes))))
        row = scorecard(outcomes, START_MS + 150 * 60 * MINUTE_MS)[0]
        assert row.lift_low is not None
        assert row.lift_high is not None
        covered += row.lift_low <= 2.0 <= row.lift_high
        trials += 1
    assert 0.90 <= covered / trials <= 0.99


def test_an_outcome_survives_the_store() -> None:
    one = outcome(1, True, [False, True])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Outcome) == one
