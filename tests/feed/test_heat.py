"""Trades subscriptions follow what happens, slowly."""

from __future__ import annotations

from perpwatch.feed.heat import SIGNAL_MS, HotSet, heat

T0_MS = 1_791_201_600_000


def test_free_places_are_filled_with_the_hottest_at_once() -> None:
    hot = HotSet(moves=1)
    assert hot.choose({"A": 1.0, "B": 3.0, "C": 2.0}, (), 2, T0_MS) == ("B", "C")
    assert hot.choose({"A": 1.0, "B": 3.0, "C": 2.0}, (), 3, T0_MS) == ("B", "C", "A")


def test_a_place_changes_hands_only_for_one_who_is_half_as_hot_again() -> None:
    hot = HotSet(moves=5)
    hot.choose({"A": 10.0, "B": 0.0}, (), 1, T0_MS)
    assert hot.choose({"A": 10.0, "B": 15.0}, (), 1, T0_MS) == ("A",)
    assert hot.choose({"A": 10.0, "B": 15.1}, (), 1, T0_MS) == ("B",)


def test_no_more_places_change_hands_at_once_than_allowed() -> None:
    hot = HotSet(moves=2)
    cold = {f"C{number}": 1.0 + number for number in range(5)}
    hot.choose(cold, (), 5, T0_MS)
    hotter = cold | {f"H{number}": 100.0 + number for number in range(5)}
    assert hot.choose(hotter, (), 5, T0_MS) == ("H4", "H3", "C4", "C3", "C2")
    assert hot.choose(hotter, (), 5, T0_MS) == ("H4", "H3", "H2", "H1", "C4")


def test_a_signal_keeps_its_symbol_hot_for_a_while_and_a_pin_for_ever() -> None:
    hot = HotSet(moves=5)
    heats = {"A": 100.0, "B": 1.0, "C": 0.0}
    hot.choose(heats, (), 1, T0_MS)
    hot.signalled("B", T0_MS)
    assert hot.choose(heats, (), 1, T0_MS + 1) == ("B",)
    assert hot.choose(heats, (), 1, T0_MS + SIGNAL_MS - 1) == ("B",)
    assert hot.choose(heats, (), 1, T0_MS + SIGNAL_MS) == ("A",)
    assert hot.choose(heats, ("C",), 1, T0_MS + SIGNAL_MS) == ("C",)


def test_who_is_no_longer_watched_loses_its_place() -> None:
    hot = HotSet(moves=1)
    hot.choose({"A": 2.0, "B": 1.0}, (), 2, T0_MS)
    assert hot.choose({"B": 1.0}, (), 2, T0_MS) == ("B",)
    assert hot.choose({"B": 1.0}, (), 0, T0_MS) == ()


def test_heat_is_turnover_weighed_by_how_unusual_it_is_within_bounds() -> None:
    assert heat(2_000.0, 1_000.0) == 4_000.0
    assert heat(1_000.0, 0.001) == 50_000.0
    assert heat(1_000.0, 0.0) == 0.0
