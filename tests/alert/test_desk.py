"""Rules side by side have cooldowns and budgets of their own, and tags stand beside the alerts of all."""

from __future__ import annotations

import pytest

from perpwatch.alert.desk import Desk, Order
from perpwatch.alert.policy import Alert, Silence, Suppressed
from perpwatch.model import MINUTE_MS, Direction, Level, Reason, Signal, Timeframe, Trust

START_MS = 1_617_580_800_000


def signal(minute: int, *, symbol: str = "ABC_USDT", detector: str = "rarity", ratio: float = 10.0) -> Signal:
    time_ms = START_MS + minute * MINUTE_MS
    return Signal(
        detector=detector,
        symbol=symbol,
        timeframe=Timeframe.Min1,
        open_time_ms=time_ms - MINUTE_MS,
        direction=Direction.UP,
        level=Level.NOTICE,
        price=1.0,
        strength=ratio,
        is_running=False,
        trust=Trust.STREAMED,
        reasons=(Reason("turnover_ratio", ratio, "x"),),
        event_time_ms=time_ms,
        received_time_ns=0,
    )


def told(desk: Desk, rule: str, one: Signal) -> bool:
    desk.advance(one.event_time_ms)
    return isinstance(desk.offer(rule, one), Alert)


def test_each_rule_has_its_own_cooldown() -> None:
    desk = Desk([Order("slow"), Order("fast", cooldown_minutes=10.0)], watched=100)
    assert [told(desk, rule, signal(1)) for rule in ("slow", "fast")] == [True, True]
    assert [told(desk, rule, signal(12)) for rule in ("slow", "fast")] == [False, True]
    assert [told(desk, rule, signal(61)) for rule in ("slow", "fast")] == [True, True]


def test_alerts_and_their_keys_name_their_rule() -> None:
    desk = Desk([Order("a"), Order("b")], watched=100)
    first, second = desk.offer("a", signal(1)), desk.offer("b", signal(1))
    assert isinstance(first, Alert)
    assert isinstance(second, Alert)
    assert (first.rule, second.rule) == ("a", "b")
    assert first.key != second.key


def test_a_tag_stands_beside_the_alerts_of_every_rule_and_is_not_sent() -> None:
    desk = Desk([Order("a"), Order("b"), Order("slow_build", is_tag=True)], watched=100)
    noted = desk.offer("slow_build", signal(1, detector="build_up"))
    assert isinstance(noted, Suppressed)
    assert noted.silence is Silence.TAG
    for rule in ("a", "b"):
        alert = desk.offer(rule, signal(5))
        assert isinstance(alert, Alert)
        assert [tag.detector for tag in alert.tags] == ["build_up"]


def test_budgets_move_the_risk_of_their_rule_alone() -> None:
    desk = Desk([Order("a", alerts_per_day=2.0), Order("b", alerts_per_day=2.0), Order("c")], watched=1000)
    for minute in range(1, 5):
        told(desk, "a", signal(minute, symbol=f"S{minute}_USDT"))
    desk.advance(START_MS + 10 * MINUTE_MS)
    risks = desk.risks()
    assert set(risks) == {"a", "b"}
    assert risks["a"] < 1e-5 < risks["b"]


def test_other_rules_keep_what_stays() -> None:
    desk = Desk([Order("a", alerts_per_day=2.0), Order("b")], watched=1000)
    for minute in range(1, 4):
        assert told(desk, "a", signal(minute, symbol=f"S{minute}_USDT")) == (minute < 5)
    desk.swap([Order("a", alerts_per_day=2.0, cooldown_minutes=30.0), Order("c")])
    assert not told(desk, "a", signal(10, symbol="S1_USDT"))
    assert told(desk, "a", signal(40, symbol="S1_USDT"))
    assert desk.offer("b", signal(41)) is None
    assert told(desk, "c", signal(41))
    before = desk.risks()["a"]
    desk.swap([Order("a", alerts_per_day=50.0)])
    assert desk.risks()["a"] == pytest.approx(before)
    desk.swap([Order("a")])
    assert desk.risks() == {}


def test_nothing_is_told_twice_after_a_restart() -> None:
    orders = [Order("a"), Order("b")]
    desk = Desk(orders, watched=100)
    assert told(desk, "a", signal(1))
    again = Desk(orders, watched=100)
    again.restore(desk.state())
    assert not told(again, "a", signal(1))
    assert told(again, "b", signal(1))
    with pytest.raises(ValueError, match="cannot be read"):
        again.restore(b"nonsense")


def test_a_crowd_is_counted_against_all_symbols_under_watch() -> None:
    desk = Desk([Order("a")], watched=10)
    for number in range(4):
        desk.offer("a", signal(1, symbol=f"S{number}_USDT"))
    deadline_ms = desk.next_deadline_ms()
    assert deadline_ms is not None
    assert [alert.rule for alert in desk.advance(deadline_ms)] == ["a"]
    desk.watched = 1000
    assert {policy.watched for policy in desk.policies.values()} == {1000}
