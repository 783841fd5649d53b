"""An episode is told as it goes on, seldom enough, and to its end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cards import NOW_MS, alert, signal
from perpwatch.alert import episodes as module
from perpwatch.alert.episodes import ENDS_AFTER_MS, Developed, Episodes
from perpwatch.alert.outcomes import Outcomes
from perpwatch.alert.policy import Alert
from perpwatch.model import MINUTE_MS, Candle, Direction, Finality, Reason, Timeframe, Trust

#: The end of the minute in which the alert was given.
END_MS = NOW_MS - NOW_MS % MINUTE_MS + MINUTE_MS


def minute(number: int, close: float, *, high: float = 0.0, low: float = 0.0, symbol: str = "BEAT_USDT") -> Candle:
    """The minute that ends so many minutes after the alert's; number 0 is the alert's own."""
    return Candle(
        symbol=symbol,
        timeframe=Timeframe.Min1,
        open_time_ms=END_MS + (number - 1) * MINUTE_MS,
        open=close,
        high=high or close,
        low=low or close,
        close=close,
        contracts=1.0,
        base_volume=1.0,
        turnover=1.0,
        finality=Finality.SUCCESSOR,
        trust=Trust.STREAMED,
    )


def at_price(price: float, direction: Direction = Direction.UP) -> Alert:
    reasons = (Reason("move", 6.0, "%"), Reason("turnover_ratio", 12.0, "x"))
    return alert(signal(direction=direction, price=price, reasons=reasons))


def follow(episodes: Episodes, closes: Sequence[float], first: int = 1) -> list[Developed]:
    return [one for number, close in enumerate(closes, first) for one in episodes.observe(minute(number, close))]


def test_a_move_that_goes_on_is_told_and_a_trifle_is_not() -> None:
    episodes = Episodes()
    episodes.told(at_price(100.0))
    # A quarter of the alert's 6 % is 1.5 %.
    assert follow(episodes, [100.5, 101.0, 101.4, 99.0]) == []
    (one,) = follow(episodes, [101.6], first=5)
    assert (one.development.price, one.development.is_over) == (101.6, False)
    assert one.development.change == pytest.approx(0.016)
    assert one.key == f"{at_price(100.0).key}~{(END_MS + 5 * MINUTE_MS) // MINUTE_MS}"
    # ... and from there again, back as well as on.
    assert follow(episodes, [102.0, 101.0], first=6) == []
    (two,) = follow(episodes, [100.0], first=8)
    assert two.development.change == 0.0
    assert two.development.best == pytest.approx(0.02)


def test_a_spike_within_a_minute_is_told_by_its_peak() -> None:
    episodes = Episodes()
    episodes.told(at_price(100.0, Direction.DOWN))
    (one,) = episodes.observe(minute(1, 100.0, low=95.0))
    assert one.development.change == 0.0
    assert one.development.best == pytest.approx(0.05)


def test_the_alert_s_own_minute_counts_by_its_close_alone() -> None:
    episodes = Episodes()
    episodes.told(at_price(100.0))
    assert episodes.observe(minute(0, 100.0, high=120.0)) == []
    assert episodes.observe(minute(-1, 150.0)) == []


def test_volume_that_grows_is_told_with_the_next_minute() -> None:
    episodes = Episodes()
    first = at_price(100.0)
    episodes.told(first)
    larger = (Reason("turnover_ratio", 17.0, "x"),)
    episodes.hear(replace(first.signal, reasons=larger))
    assert follow(episodes, [100.0]) == []
    episodes.hear(replace(first.signal, reasons=(Reason("turnover_ratio", 18.0, "x"),)))
    episodes.hear(replace(first.signal, reasons=(Reason("turnover_ratio", 99.0, "x"),), rule="another"))
    episodes.hear(replace(first.signal, reasons=larger))
    (one,) = follow(episodes, [100.0], first=2)
    assert one.development.peak_ratio == 18.0


def test_the_older_an_episode_the_more_rarely_it_is_told() -> None:
    episodes = Episodes()
    episodes.told(at_price(100.0))
    closes = [100.0 if number % 2 else 150.0 for number in range(240)]
    told = [one.development.time_ms for one in follow(episodes, closes)]
    assert 20 < len(told) < 60
    assert all(after - before >= MINUTE_MS for before, after in itertools.pairwise(told))
    assert told[-1] - told[-2] >= 20 * MINUTE_MS


def test_an_escalation_belongs_to_the_thread_and_is_not_told_twice() -> None:
    episodes = Episodes()
    first = at_price(100.0)
    assert episodes.told(first) == first.key
    assert episodes.told(first) == first.key
    later = replace(
        first,
        key="later",
        escalation=1,
        time_ms=NOW_MS + 5 * MINUTE_MS,
        signal=signal(price=110.0, reasons=(Reason("turnover_ratio", 30.0, "x"),)),
    )
    assert episodes.told(later) == first.key
    assert len(episodes) == 1
    assert follow(episodes, [110.0, 110.5], first=6) == []
    (one,) = follow(episodes, [114.0], first=8)
    assert (one.alert, one.development.peak_ratio) == (first, 30.0)
    # Another rule, and an escalation of what was told in a crowd, are threads of their own.
    assert episodes.told(replace(first, key="other", rule="other")) == "other"
    assert episodes.told(replace(later, key="crowd", episode_start_ms=NOW_MS - MINUTE_MS)) == "crowd"


def test_the_outcome_ends_it_once() -> None:
    episodes, outcomes = Episodes(), Outcomes(1)
    first = at_price(100.0)
    later = replace(first, key="later", escalation=1, time_ms=NOW_MS + 5 * MINUTE_MS)
    for one in (first, later):
        episodes.told(one)
        outcomes.told(one)
    ends: list[Developed] = []
    for number in range(260):
        one_minute = minute(number, 100.0 + number / 10)
        episodes.observe(one_minute)
        ends += [end for outcome in outcomes.observe(one_minute) if (end := episodes.ended(outcome)) is not None]
    (end,) = ends
    assert end.key == f"{first.key}~end"
    assert (end.alert, end.development.is_over, end.development.price) == (first, True, 124.0)
    assert end.development.outcome is not None
    assert end.development.outcome.key == first.key
    assert len(episodes) == 0
    assert episodes.advance(END_MS + ENDS_AFTER_MS) == []


def test_without_an_outcome_it_ends_as_well() -> None:
    episodes = Episodes()
    episodes.told(at_price(100.0))
    episodes.told(alert(signal("FLAT_USDT", Direction.FLAT, price=0.0)))
    follow(episodes, [101.0])
    assert episodes.advance(NOW_MS + ENDS_AFTER_MS - 1) == []
    (end,) = episodes.advance(NOW_MS + ENDS_AFTER_MS + MINUTE_MS)
    assert (end.development.is_over, end.development.outcome, end.development.price) == (True, None, 101.0)
    assert len(episodes) == 0


def test_unknown_minutes_and_other_candles_say_nothing() -> None:
    episodes = Episodes()
    episodes.told(at_price(100.0))
    good = minute(1, 200.0)
    for changes in (
        {"trust": Trust.UNKNOWN},
        {"finality": Finality.OPEN},
        {"timeframe": Timeframe.Min5},
        {"missing_minutes": 1},
        {"symbol": "OTHER_USDT"},
    ):
        assert episodes.observe(replace(good, **changes)) == []
    assert len(episodes.observe(good)) == 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 3)
    episodes = Episodes()
    for number in range(10):
        one = alert(signal(f"C{number}_USDT"))
        episodes.told(replace(one, time_ms=NOW_MS + number))
    assert len(episodes) == 3
    assert episodes.observe(minute(1, 1.0, symbol="C0_USDT")) == []
    assert len(episodes.observe(minute(1, 1.0, symbol="C9_USDT"))) == 1


def test_a_damaged_state_is_refused_and_changes_nothing() -> None:
    episodes = Episodes()
    episodes.told(at_price(100.0))
    for state in (b"", b"\x00", b"\x82\xa7version\x09\xa8episodes\x90"):
        with pytest.raises(ValueError, match="saved state of the episodes"):
            episodes.restore(state)
    assert len(episodes) == 1


@settings(max_examples=60)
@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=60), st.data())
def test_a_restart_at_any_minute_goes_on_identically(factors: list[float], data: st.DataObject) -> None:
    first = at_price(100.0)
    whole = Episodes()
    whole.told(first)
    cut = data.draw(st.integers(0, len(factors) - 1))
    closes = [100.0 * factor for factor in factors]
    before = follow(whole, closes[:cut])
    again = Episodes()
    again.restore(whole.state())
    assert again.told(first) == first.key
    assert follow(again, closes[cut:], first=cut + 1) == follow(whole, closes[cut:], first=cut + 1)
    assert len({one.key for one in before}) == len(before)
