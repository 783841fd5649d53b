"""Whom to read next: those that traded, the active first, and nobody never."""

from __future__ import annotations

import itertools

from perpwatch.feed.sweep import AGE_MS, CHECK_MS, HOT, LEAST_AGE_MS, SETTLE_MS, Row, Sweep, ages_of

START_MS = 1_791_201_600_000
CYCLE_MS = 5_000


class Market:
    """Volumes that rise as told, and a sweep that reads at a pace."""

    def __init__(self, symbols: int) -> None:
        self.sweep = Sweep()
        self.now_ms = START_MS
        self.traded = {f"S{number:04}": 1_000.0 for number in range(symbols)}
        self.rowless: set[str] = set()
        self.reads: list[str] = []
        self.sweep.watch(dict.fromkeys(self.traded, START_MS), START_MS)

    def hear(self) -> list[str]:
        rows = {
            symbol: Row(volume, volume, 1.0) for symbol, volume in self.traded.items() if symbol not in self.rowless
        }
        return self.sweep.hear(rows, self.traded, self.now_ms, self.now_ms + 100)

    def read(self) -> str | None:
        symbol = self.sweep.next(self.now_ms)
        if symbol is not None:
            self.reads.append(symbol)
            self.sweep.answered(symbol, START_MS, self.now_ms - SETTLE_MS, self.now_ms)
        return symbol

    def run(self, seconds: int, busy: dict[str, float], reads_per_s: int = 5) -> dict[str, int]:
        """Let time pass; ``busy`` symbols trade that much a second. Returns the worst age of each symbol in ms."""
        worst = dict.fromkeys(self.traded, 0)
        for second in range(seconds):
            self.now_ms += 1_000
            for symbol, turnover in busy.items():
                self.traded[symbol] += turnover
            if second % (CYCLE_MS // 1_000) == 0:
                self.hear()
            for _ in range(reads_per_s):
                self.read()
            for symbol, age_ms in self.sweep.ages_ms(self.now_ms).items():
                worst[symbol] = max(worst[symbol], age_ms)
        return worst


def test_a_symbol_that_stands_still_is_known_without_being_read() -> None:
    market = Market(20)
    market.run(60, {})
    market.reads.clear()
    worst = market.run(600, {"S0003": 5.0})
    assert set(market.reads) == {"S0003"}
    assert max(worst.values()) <= LEAST_AGE_MS + CYCLE_MS + SETTLE_MS


def test_a_volume_that_fell_may_hide_a_trade_and_is_read() -> None:
    market = Market(3)
    market.run(60, {})
    market.reads.clear()
    market.traded["S0001"] -= 10.0
    market.run(60, {})
    # A second time when the first answer was too early to be sure of what the ticker counted.
    assert market.reads in (["S0001"], ["S0001"] * 2)


def test_a_symbol_without_a_row_is_read_as_if_it_traded() -> None:
    market = Market(2)
    market.run(60, {})
    market.rowless.add("S0001")
    market.reads.clear()
    market.run(120, {})
    assert set(market.reads) == {"S0001"}


def test_the_active_are_younger_and_nobody_starves_when_requests_are_short() -> None:
    market = Market(HOT + 150)
    busy = {symbol: 100.0 if number < HOT else 1.0 for number, symbol in enumerate(market.traded)}
    market.run(600, busy, reads_per_s=1)
    worst = market.run(900, busy, reads_per_s=1)
    hot = [age_ms for symbol, age_ms in worst.items() if busy[symbol] == 100.0]
    others = [age_ms for symbol, age_ms in worst.items() if busy[symbol] == 1.0]
    assert max(hot) < 0.4 * max(others)
    assert max(others) < 4.0 * AGE_MS  # requests are enough for 2.3 times the ages wished for, and come in waves
    assert market.sweep.hot == {symbol for symbol in busy if busy[symbol] == 100.0}


def test_a_pinned_symbol_is_as_young_as_the_most_active() -> None:
    market = Market(HOT + 150)
    busy = {symbol: 100.0 if number < HOT else 1.0 for number, symbol in enumerate(market.traded)}
    market.sweep.pin(["S0200"])
    market.run(600, busy, reads_per_s=1)
    worst = market.run(900, busy, reads_per_s=1)
    assert worst["S0200"] < 0.5 * worst["S0201"]


def test_a_frozen_row_is_not_believed_for_ever() -> None:
    market = Market(2)
    market.run(60, {})
    market.reads.clear()
    market.run(CHECK_MS // 1_000 + 60, {})
    assert sorted(market.reads) == ["S0000", "S0001"]


def test_a_symbol_whose_read_fails_waits_longer_each_time_and_lets_others_pass() -> None:
    market = Market(1)
    tries = []
    for _ in range(600):
        market.now_ms += 1_000
        if (symbol := market.sweep.next(market.now_ms)) is not None:
            tries.append(market.now_ms)
            market.sweep.failed(symbol, market.now_ms)
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert waits == [5_000 * 2**number for number in range(len(waits))]
    assert len(waits) >= 5


def test_a_symbol_without_history_waits_for_it() -> None:
    sweep = Sweep()
    sweep.watch({"A": 0}, START_MS)
    assert sweep.next(START_MS + AGE_MS) is None
    assert sweep.answered("A", START_MS - AGE_MS, START_MS, START_MS + SETTLE_MS)
    assert sweep.known_ms("A") == START_MS


def test_an_answer_behind_a_hole_does_not_make_the_hole_known() -> None:
    sweep = Sweep()
    sweep.watch({"A": START_MS}, START_MS)
    assert not sweep.answered("A", START_MS + 60_000, START_MS + 120_000, START_MS + 125_000)
    assert sweep.known_ms("A") == START_MS


def test_ages_are_those_of_symbols() -> None:
    ages = ages_of(range(1_000, 101_000, 1_000))
    assert (ages.symbols, ages.median_s, ages.p95_s, ages.worst_s) == (100, 50.0, 96.0, 100.0)
    assert ages_of([]).worst_s == 0.0
