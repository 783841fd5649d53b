"""An hour of the whole market in virtual time: every final candle is true, or its minute is known to be missing."""

from __future__ import annotations

import pytest

from perpwatch.app.chaos import Trial, Verdict, run_trial
from perpwatch.model import MINUTE_MS
from perpwatch.sim import DEFAULT_START_MS, FaultEvent, Faults


def after(minutes: float) -> int:
    return DEFAULT_START_MS + int(minutes * MINUTE_MS)


ROUGH_HOUR = Faults(
    reorder=0.002,
    duplicate=0.002,
    late=0.01,
    drops_per_hour=2,
    events=(
        FaultEvent(after(12), "silence", "connection:2", 40_000),
        FaultEvent(after(20), "silence", "kline:BTC_USDT", 90_000),
        FaultEvent(after(25), "half_open", "connection:5"),
        FaultEvent(after(30), "drop", "all"),
    ),
)


def run(seed: int, minutes: float, *, keep_log: bool = False) -> Verdict:
    # Two hours of history warm the shorter timeframes up; more would only test the simulator's history.
    settings = {"rest": {"history_minutes": 120}}
    return run_trial(Trial(seed, 800, minutes, ROUGH_HOUR, settings=settings, keep_log=keep_log))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_candle_of_a_rough_hour_is_wrong_and_none_is_missed_in_silence(seed: int) -> None:
    verdict = run(seed, 60)
    assert verdict.violations == []
    assert verdict.wrong == 0
    assert verdict.unexplained == 0
    assert verdict.minutes_checked > 46_000
    assert verdict.signals > 0


@pytest.mark.timeout(300)
def test_the_same_seed_gives_the_same_events_and_signals_to_the_byte() -> None:
    first, second, other = run(4, 13, keep_log=True), run(4, 13, keep_log=True), run(5, 13, keep_log=True)
    assert first.signals > 0
    assert (first.events_digest, first.signals_digest) == (second.events_digest, second.signals_digest)
    assert first.events_digest != other.events_digest
