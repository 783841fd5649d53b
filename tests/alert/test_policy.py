"""What becomes an alert, what does not and why, and that a restart repeats nothing."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpwatch.alert.policy import Alert, Budget, Held, MarketAlert, Policy, Silence, Suppressed
from perpwatch.model import MINUTE_MS, Direction, Level, Reason, Signal, Timeframe, Trust

NOON_MS = 1_700_000_040_000 // MINUTE_MS * MINUTE_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


def signal(
    symbol: str = "ABC_USDT",
    at_ms: int = NOON_MS,
    ratio: float = 10.0,
    *,
    detector: str = "rarity",
    timeframe: Timeframe = Timeframe.Min1,
    level: Level = Level.NOTICE,
    trust: Trust = Trust.STREAMED,
) -> Signal:
    return Signal(
        detector=detector,
        symbol=symbol,
        timeframe=timeframe,
        open_time_ms=at_ms - at_ms % timeframe.milliseconds,
        direction=Direction.UP,
        level=level,
        price=1.0,
        strength=0.0,
        is_running=True,
        trust=trust,
        reasons=(Reason("turnover_ratio", ratio, "x"),),
        event_time_ms=at_ms,
        received_time_ns=0,
    )


def silence(decision: Alert | Held | Suppressed) -> Silence | None:
    return decision.silence if isinstance(decision, Suppressed) else None


# --- Episodes ---------------------------------------------------------------------------------------------------------


def test_one_alert_per_symbol_and_hour_across_timeframes_and_detectors() -> None:
    policy = Policy(watched=750)
    assert isinstance(policy.offer(signal()), Alert)
    again = policy.offer(signal(at_ms=NOON_MS + 10 * MINUTE_MS, detector="breakout", timeframe=Timeframe.Min15))
    assert silence(again) is Silence.SILENT_HOUR
    assert isinstance(again, Suppressed)
    assert again.text == "told 10 min ago; volume ratio 10 has not reached 20"
    assert isinstance(policy.offer(signal("XYZ_USDT", NOON_MS + 11 * MINUTE_MS)), Alert)
    assert isinstance(policy.offer(signal(at_ms=NOON_MS + HOUR_MS)), Alert)


def test_twice_the_highest_ratio_alerted_is_an_escalation() -> None:
    policy = Policy(watched=750)
    policy.offer(signal(ratio=10.0))
    assert silence(policy.offer(signal(at_ms=NOON_MS + 1000, ratio=19.9))) is Silence.SILENT_HOUR
    second = policy.offer(signal(at_ms=NOON_MS + 2000, ratio=20.0))
    assert isinstance(second, Alert)
    assert (second.escalation, second.episode_start_ms) == (1, NOON_MS)
    assert silence(policy.offer(signal(at_ms=NOON_MS + 3000, ratio=39.0))) is Silence.SILENT_HOUR
    third = policy.offer(signal(at_ms=NOON_MS + 4000, ratio=41.0))
    assert isinstance(third, Alert)
    assert third.escalation == 2


def test_the_hour_runs_from_where_it_fired_and_silence_does_not_prolong_it() -> None:
    policy = Policy(watched=750)
    policy.offer(signal())
    for minute in range(1, 60):
        assert silence(policy.offer(signal(at_ms=NOON_MS + minute * MINUTE_MS, ratio=15.0))) is Silence.SILENT_HOUR
    after = policy.offer(signal(at_ms=NOON_MS + HOUR_MS, ratio=3.0))
    assert isinstance(after, Alert)
    assert (after.escalation, after.episode_start_ms) == (0, NOON_MS + HOUR_MS)


def test_a_detector_without_a_turnover_ratio_escalates_by_its_strength() -> None:
    policy = Policy(watched=750)
    policy.offer(msgspec.structs.replace(signal(), reasons=(), strength=1.5))
    later = msgspec.structs.replace(signal(at_ms=NOON_MS + 1), reasons=(), strength=3.0)
    assert isinstance(policy.offer(later), Alert)


def test_what_is_not_known_good_is_not_told() -> None:
    policy = Policy(watched=750)
    assert silence(policy.offer(signal(trust=Trust.UNKNOWN))) is Silence.UNTRUSTED
    assert isinstance(policy.offer(signal()), Alert)


def test_a_signal_from_before_the_last_alert_comes_too_late() -> None:
    policy = Policy(watched=750)
    policy.offer(signal(at_ms=NOON_MS + MINUTE_MS))
    assert silence(policy.offer(signal(at_ms=NOON_MS, ratio=1e6))) is Silence.LATE


def test_a_build_up_is_no_alert_but_stands_beside_the_next_one() -> None:
    policy = Policy(watched=750)
    build_up = signal(detector="build_up", timeframe=Timeframe.Min15)
    assert silence(policy.offer(build_up)) is Silence.TAG
    first = policy.offer(signal(at_ms=NOON_MS + HOUR_MS))
    assert isinstance(first, Alert)
    assert first.tags == (build_up,)
    later = policy.offer(signal(at_ms=NOON_MS + 13 * HOUR_MS))
    assert isinstance(later, Alert)
    assert later.tags == ()


# --- Market-wide minutes ----------------------------------------------------------------------------------------------


def test_a_crowded_minute_becomes_one_ranked_market_alert() -> None:
    policy = Policy(watched=40)
    decisions = [
        policy.offer(signal(f"S{n}_USDT", NOON_MS + n, 10.0 + n, level=Level.EXTREME if n == 2 else Level.NOTICE))
        for n in range(6)
    ]
    assert [type(decision) for decision in decisions] == [Alert, Alert, Held, Held, Held, Held]
    assert policy.advance(NOON_MS + 100) == []
    deadline_ms = policy.next_deadline_ms()
    assert deadline_ms == NOON_MS + 2 + Policy.HOLD_MS
    (market,) = policy.advance(deadline_ms)
    assert isinstance(market, MarketAlert)
    assert (market.symbols, market.watched, market.minute_ms) == (6, 40, NOON_MS)
    assert [alert.symbol for alert in market.alerts][:3] == ["S2_USDT", "S5_USDT", "S4_USDT"]
    late = policy.offer(signal("S9_USDT", NOON_MS + 30_000))
    assert silence(late) is Silence.MARKET_WIDE
    assert policy.next_deadline_ms() is None


def test_a_busy_minute_that_is_no_crowd_is_told_singly_after_the_wait() -> None:
    policy = Policy(watched=750)
    for n in range(5):
        policy.offer(signal(f"S{n}_USDT", NOON_MS + n))
    released = policy.advance(NOON_MS + 5000)
    assert [alert.symbol for alert in released if isinstance(alert, Alert)] == ["S2_USDT", "S3_USDT", "S4_USDT"]


@pytest.mark.parametrize(("watched", "threshold"), [(1, 3), (13, 3), (31, 4), (67, 7), (750, 75)])
def test_a_crowd_is_three_symbols_or_a_tenth(watched: int, threshold: int) -> None:
    assert Policy(watched).market_threshold == threshold


def test_the_same_symbol_thrice_is_no_crowd() -> None:
    policy = Policy(watched=5)
    decisions = [policy.offer(signal(at_ms=NOON_MS + n, ratio=10.0 * 3.0**n)) for n in range(3)]
    assert [type(decision) for decision in decisions] == [Alert, Alert, Alert]


def test_the_next_minute_starts_afresh() -> None:
    policy = Policy(watched=5)
    for n in range(3):
        policy.offer(signal(f"S{n}_USDT", NOON_MS + n))
    policy.advance(NOON_MS + 5000)
    assert isinstance(policy.offer(signal("S7_USDT", NOON_MS + MINUTE_MS)), Alert)


# --- Restart ----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.floats(0.0, 1.0))
def test_a_policy_saved_and_restored_after_any_prefix_continues_identically(seed: int, cut: float) -> None:
    random = np.random.default_rng(seed)
    times = NOON_MS + np.cumsum(random.exponential(20_000.0, 150)).astype(int)
    signals = [signal(f"S{random.integers(8)}_USDT", int(at_ms), float(random.lognormal(2.0, 1.0))) for at_ms in times]
    split = int(cut * len(signals))

    def run(policy: Policy, part: list[Signal]) -> list[object]:
        return [(policy.advance(one.event_time_ms), policy.offer(one), policy.risk) for one in part]

    policy = Policy(8, alerts_per_day=200.0)
    run(policy, signals[:split])
    restored = Policy(8, alerts_per_day=200.0)
    restored.restore(policy.state())
    assert run(restored, signals[split:]) == run(policy, signals[split:])
    assert restored.state() == policy.state()


def test_a_replayed_day_after_a_restart_tells_nothing_twice() -> None:
    day = [signal(f"S{n % 7}_USDT", NOON_MS + n * 5 * MINUTE_MS, 10.0 + n % 11) for n in range(200)]
    policy = Policy(750)
    told = {decision.key for one in day if isinstance(decision := policy.offer(one), Alert)}
    restored = Policy(750)
    restored.restore(policy.state())
    again = [restored.offer(one) for one in day]
    assert told
    assert not any(isinstance(decision, Alert) for decision in again)


def test_alerts_from_the_store_are_remembered_where_no_state_survived() -> None:
    first = Policy(750).offer(signal(ratio=10.0))
    assert isinstance(first, Alert)
    policy = Policy(750)
    policy.remember(first)
    assert silence(policy.offer(signal(at_ms=NOON_MS + MINUTE_MS, ratio=15.0))) is Silence.SILENT_HOUR
    assert isinstance(policy.offer(signal(at_ms=NOON_MS + MINUTE_MS, ratio=25.0)), Alert)


def test_a_damaged_or_older_state_is_refused() -> None:
    policy = Policy(750)
    with pytest.raises(ValueError, match="cannot be read"):
        policy.restore(b"nonsense")
    state = msgspec.msgpack.decode(policy.state())
    state["version"] = 0
    with pytest.raises(ValueError, match="version 0"):
        policy.restore(msgspec.msgpack.encode(state))


# --- Budget -----------------------------------------------------------------------------------------------------------


def live(policy: Policy, days: int, calls_per_day: float, seed: int, start_ms: int) -> list[int]:
    """Alerts told per day by a market that gives ``calls_per_day`` at q = 1e-4 and four times as many per decade."""
    random = np.random.default_rng(seed)
    told = [0] * days
    symbol = seed * 1_000_000
    for minute in range(days * 1440):
        now_ms = start_ms + minute * MINUTE_MS
        told[minute // 1440] += len(policy.advance(now_ms))
        rate = calls_per_day / 1440.0 * math.pow(4.0, math.log10(policy.risk) + 4.0)
        for n in range(int(random.poisson(rate))):
            symbol += 1
            decision = policy.offer(signal(f"S{symbol}_USDT", now_ms + n))
            told[minute // 1440] += isinstance(decision, Alert)
    return told


@pytest.mark.parametrize("wanted", [10.0, 40.0, 200.0])
@pytest.mark.parametrize(("before", "after"), [(40.0, 200.0), (200.0, 40.0), (20.0, 100.0)])
def test_the_budget_is_met_two_days_after_a_change_of_regime(wanted: float, before: float, after: float) -> None:
    policy = Policy(750, alerts_per_day=wanted)
    live(policy, 4, before, 1, NOON_MS)
    told = live(policy, 9, after, 2, NOON_MS + 4 * DAY_MS)
    assert sum(told[2:]) / 7.0 == pytest.approx(wanted, rel=0.25)


def test_risk_stays_within_its_limits_and_says_so() -> None:
    policy = Policy(750, alerts_per_day=200.0)
    live(policy, 3, 1.0, 3, NOON_MS)
    assert policy.risk == pytest.approx(Budget.LOOSEST)
    assert "the market gives no more" in policy.budget_status(NOON_MS + 3 * DAY_MS).text


def test_a_spent_budget_drops_alerts_at_the_strictest_risk_only() -> None:
    policy = Policy(750, alerts_per_day=2.0)
    told = live(policy, 8, 2000.0, 4, NOON_MS)
    assert sum(told) <= 2.0 * 8 * 1.25 + 4
    assert policy.dropped > 0
    assert policy.risk == pytest.approx(Budget.STRICTEST)


def test_what_was_dropped_may_be_told_later() -> None:
    policy = Policy(750, alerts_per_day=0.5)
    policy.offer(signal("A_USDT"))
    dropped = policy.offer(signal("B_USDT", NOON_MS + MINUTE_MS))
    assert silence(dropped) is Silence.OVER_BUDGET
    status = policy.budget_status(NOON_MS + MINUTE_MS)
    assert "alerts are dropped" in status.text
    for minute in range(0, 3 * 1440, 5):
        policy.advance(NOON_MS + minute * MINUTE_MS)
    assert isinstance(policy.offer(signal("B_USDT", NOON_MS + 3 * DAY_MS)), Alert)


def test_an_outage_does_not_loosen_the_risk() -> None:
    policy = Policy(750, alerts_per_day=40.0)
    policy.advance(NOON_MS)
    before = policy.risk
    policy.advance(NOON_MS + DAY_MS)
    assert policy.risk == pytest.approx(before, rel=0.05)


def test_the_status_shows_wanted_told_and_risk() -> None:
    policy = Policy(750, alerts_per_day=40.0)
    policy.offer(signal())
    status = policy.budget_status(NOON_MS)
    assert (status.wanted_per_day, status.told_24h) == (40.0, 1)
    assert status.text.startswith("1 of 40 alerts in 24 h; risk")
    assert Policy(750).budget_status(NOON_MS).text == "0 alerts in 24 h at risk 1.0e-04 (fixed)"


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Policy(750, alerts_per_day=0.0)
