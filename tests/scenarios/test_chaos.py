"""A few of the seeded trials that ``perpwatch chaos`` runs by the hundred."""

from __future__ import annotations

import pytest

from perpwatch.app.chaos import Trial, draw_trial, run_trial
from perpwatch.app.chaos_cli import judge_seed, summed
from perpwatch.model import MINUTE_MS
from perpwatch.sim import DEFAULT_START_MS, FaultEvent, Faults


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [1, 2, 7, 11, 12])
def test_nothing_is_wrong_and_nothing_stays_unknown_whatever_fails(seed: int) -> None:
    verdict = run_trial(draw_trial(seed))
    assert verdict.violations == []
    assert (verdict.wrong, verdict.unexplained) == (0, 0)


def test_a_server_that_accepts_and_hangs_up_meets_growing_patience() -> None:
    hang_up = FaultEvent(DEFAULT_START_MS + 3 * MINUTE_MS, "hang_up", duration_ms=180_000)
    trial = Trial(1, 40, 10, Faults(events=(hang_up,)), settings={"rest": {"history_minutes": 60}})
    assert run_trial(trial).violations == []


def test_a_candle_that_differs_from_the_truth_is_found() -> None:
    # Frames that never arrive, as no exchange is known to do: only an audit can see it, and here there is none.
    trial = Trial(1, 40, 10, Faults(lose=0.05), settings={"rest": {"history_minutes": 60, "audit_share": 0.0}})
    verdict = run_trial(trial)
    assert verdict.wrong > 0
    assert not verdict.is_good


def test_the_audit_finds_what_nobody_else_can() -> None:
    faults = Faults(lose=0.05)
    with_audit = run_trial(Trial(1, 40, 10, faults, settings={"rest": {"history_minutes": 60, "audit_share": 0.8}}))
    without = run_trial(Trial(1, 40, 10, faults, settings={"rest": {"history_minutes": 60, "audit_share": 0.0}}))
    assert with_audit.wrong < without.wrong / 2


def test_a_trial_that_ends_in_a_crash_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(trial: Trial) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("perpwatch.app.chaos_cli.run_trial", crash)
    verdict = judge_seed(1)
    assert verdict.violations == ["the program ended with RuntimeError('out of luck')"]
    assert summed([verdict]).failed_seeds == [1]
