"""What is done about mute streams, and in which order."""

from __future__ import annotations

from perpwatch.feed.ladder import STEP_MS, WELL_MS, Ladder, Step


def test_one_mute_symbol_climbs_from_asking_again_to_another_connection_to_a_new_one() -> None:
    ladder = Ladder()
    assert ladder.step_for("A", "ws-1", 90, 0) is Step.RESUBSCRIBE
    assert ladder.step_for("A", "ws-1", 90, STEP_MS - 1) is None  # the step gets its time
    assert ladder.step_for("A", "ws-1", 90, STEP_MS) is Step.MOVE
    assert ladder.step_for("A", "ws-2", 90, 2 * STEP_MS) is Step.REPLACE


def test_the_step_that_helped_is_counted() -> None:
    ladder = Ladder()
    ladder.step_for("A", "ws-1", 90, 0)
    ladder.step_for("A", "ws-1", 90, STEP_MS)
    assert ladder.spoke("A") is Step.MOVE
    assert ladder.helped == {Step.RESUBSCRIBE: 0, Step.MOVE: 1, Step.REPLACE: 0}
    assert ladder.spoke("B") is None  # was never mute


def test_a_symbol_that_was_well_for_long_begins_at_the_bottom() -> None:
    ladder = Ladder()
    ladder.step_for("A", "ws-1", 90, 0)
    ladder.spoke("A")
    assert ladder.step_for("A", "ws-1", 90, STEP_MS + 1) is Step.MOVE
    assert ladder.step_for("A", "ws-1", 90, WELL_MS * 3) is Step.RESUBSCRIBE


def test_when_many_of_a_connection_are_mute_the_connection_is_replaced_once() -> None:
    ladder = Ladder()
    steps = [ladder.step_for(symbol, "ws-1", 10, 1_000) for symbol in ("A", "B", "C", "D")]
    assert steps == [Step.RESUBSCRIBE, Step.RESUBSCRIBE, Step.REPLACE, None]
    assert ladder.step_for("E", "ws-2", 10, 1_000) is Step.RESUBSCRIBE  # its neighbours are not touched


def test_three_mute_symbols_of_a_hundred_are_no_crowd() -> None:
    ladder = Ladder()
    assert {ladder.step_for(symbol, "ws-1", 95, 1_000) for symbol in ("A", "B", "C")} == {Step.RESUBSCRIBE}


def test_a_symbol_that_left_is_forgotten() -> None:
    ladder = Ladder()
    for time_ms in (0, STEP_MS):
        ladder.step_for("A", "ws-1", 90, time_ms)
    ladder.forget("A")
    assert ladder.step_for("A", "ws-1", 90, 2 * STEP_MS) is Step.RESUBSCRIBE
