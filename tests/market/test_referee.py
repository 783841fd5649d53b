"""Quiet or broken, by the whole-market ticker."""

from __future__ import annotations

from perpwatch.market.referee import KEPT_RISES, Heard, Referee
from perpwatch.model import MINUTE_MS, Ticker, Tickers

T0 = 1_791_201_600_000
END = T0 + MINUTE_MS


def tell(referee: Referee, at_ms: int, **contracts: float | None) -> Heard:
    rows = [Ticker(symbol=symbol, last_price=1.0, contracts_24h=count) for symbol, count in contracts.items()]
    return referee.hear(Tickers(rows, at_ms))


def was_quiet(referee: Referee, *, pushed_before_ms: int = 0, is_pushed_after: bool = False) -> bool:
    return referee.was_quiet("A", T0, END, pushed_before_ms=pushed_before_ms, is_pushed_after=is_pushed_after)


def test_a_volume_that_stands_still_is_quiet() -> None:
    referee = Referee()
    assert tell(referee, T0 - 2_000, A=100.0).new == ["A"]
    told = [
        tell(referee, T0 + 2_000, A=100.0),
        tell(referee, T0 + 4_000),  # no row: unchanged
        tell(referee, END + 1_000, A=90.0),  # what was traded a day ago drops out
    ]
    assert referee.can_judge("A", T0)
    assert was_quiet(referee)
    assert not any(heard.risen or heard.new for heard in told)


def test_a_rise_without_a_push_is_not_quiet() -> None:
    referee = Referee()
    tell(referee, T0 - 2_000, A=100.0)
    tell(referee, T0 + 30_000, A=100.0)
    heard = tell(referee, T0 + 32_000, A=101.0, B=1.0)
    assert not was_quiet(referee, pushed_before_ms=T0 - 1_000, is_pushed_after=True)
    assert heard == Heard(T0 + 30_000, ["A"], ["B"])


def test_a_suspect_is_remembered_from_its_first_rise_until_it_is_acquitted() -> None:
    referee = Referee()
    referee.suspect("A", T0)
    referee.suspect("A", T0 + 2_000)
    assert referee.suspects() == {"A": T0}
    referee.acquit(["A", "B"])
    assert referee.suspects() == {}
    referee.suspect("A", T0)
    referee.lose()
    assert referee.suspects() == {}


def test_an_earlier_rise_is_not_hidden_by_a_later_one() -> None:
    """The verdict comes after the minute, when the symbol may have traded again, and answered."""
    referee = Referee()
    tell(referee, T0 - 2_000, A=100.0)
    tell(referee, T0 + 30_000, A=101.0)
    tell(referee, END + 1_000, A=101.0)
    tell(referee, END + 3_000, A=102.0)
    assert not was_quiet(referee, pushed_before_ms=T0 - 5_000, is_pushed_after=True)


def test_a_rise_over_the_beginning_is_explained_by_a_push_before_it() -> None:
    referee = Referee()
    tell(referee, T0 - 1_000, A=100.0)
    tell(referee, T0 + 1_000, A=101.0)
    tell(referee, END + 1_000)
    assert was_quiet(referee, pushed_before_ms=T0 - 200)
    assert not was_quiet(referee, pushed_before_ms=T0 - 2_000)


def test_a_rise_over_the_end_is_explained_by_a_push_of_the_next_minute() -> None:
    referee = Referee()
    tell(referee, T0 - 1_000, A=100.0)
    tell(referee, END - 1_000, A=100.0)
    tell(referee, END + 1_000, A=101.0)
    assert was_quiet(referee, is_pushed_after=True)
    assert not was_quiet(referee, is_pushed_after=False)


def test_a_minute_older_than_the_memory_is_not_called_quiet() -> None:
    referee = Referee()
    tell(referee, T0 - 1_000, A=0.0)
    for count in range(1, KEPT_RISES + 2):
        tell(referee, END + count * 2_000, A=float(count))
    assert not was_quiet(referee)


def test_an_interrupted_witness_cannot_judge_what_it_missed() -> None:
    referee = Referee()
    tell(referee, T0 - 2_000, A=100.0)
    referee.lose()
    assert not referee.can_judge("A", T0)
    tell(referee, T0 + 10_000, A=100.0)
    assert not referee.can_judge("A", T0)
    assert referee.can_judge("A", T0 + 10_000)


def test_a_rise_first_told_after_an_interruption_accuses_nobody_and_acquits_nobody() -> None:
    referee = Referee()
    tell(referee, T0 - 4_000, A=100.0)
    referee.lose()
    tell(referee, T0 - 2_000, B=1.0)  # the row of A may have been in a frame that was lost
    assert tell(referee, T0 + 2_000, A=105.0) == Heard(T0 - 2_000, [], ["A"])
    tell(referee, END + 1_000)
    assert not was_quiet(referee)


def test_a_symbol_that_was_never_spoken_of_cannot_be_judged() -> None:
    referee = Referee()
    tell(referee, T0 - 2_000, A=None)
    assert not referee.can_judge("A", T0)
    tell(referee, T0 + 2_000, A=5.0)
    assert not referee.can_judge("A", T0)
    assert referee.can_judge("A", END)


def test_an_older_picture_is_not_taken() -> None:
    referee = Referee()
    tell(referee, T0, A=100.0)
    assert tell(referee, T0 - 1, A=500.0) == Heard(T0, [], [])
    assert tell(referee, T0 + 2_000, A=100.0).risen == []
    assert referee.as_of_ms == T0 + 2_000


def test_a_departed_symbol_is_forgotten() -> None:
    referee = Referee()
    tell(referee, T0, A=1.0)
    tell(referee, T0 + 2_000, A=2.0)
    referee.suspect("A", T0)
    referee.forget("A")
    assert referee.suspects() == {}
    assert not referee.can_judge("A", T0 + 2_000)
