"""What to read back, and when."""

from __future__ import annotations

import itertools

from perpwatch.market.ledger import Ledger, Span
from perpwatch.market.repair import FIRST_RETRY_MS, REST_SETTLE_MS, RepairQueue
from perpwatch.model import MINUTE_MS, Trust

T0 = 1_791_201_600_000


def at(minute: int) -> int:
    return T0 + minute * MINUTE_MS


def span(symbol: str, first: int, end: int) -> Span:
    return Span(symbol, at(first), at(end))


def rank(symbol: str) -> int:
    return {"BTC_USDT": 0, "ETH_USDT": 1}.get(symbol, 9)


def test_a_minute_is_read_back_only_after_it_has_settled() -> None:
    queue = RepairQueue(Ledger())
    queue.add(span("BTC_USDT", 0, 1))
    assert queue.due(at(1) + REST_SETTLE_MS - 1, rank) == []
    assert queue.due(at(1) + REST_SETTLE_MS, rank) == [span("BTC_USDT", 0, 1)]


def test_all_that_a_symbol_misses_is_one_request() -> None:
    ledger = Ledger()
    queue = RepairQueue(ledger)
    queue.add(span("BTC_USDT", 7, 9))
    queue.add(span("BTC_USDT", 2, 3))
    ledger.record("BTC_USDT", at(5), Trust.STREAMED)
    assert len(queue) == 1
    assert queue.due(at(20), rank) == [span("BTC_USDT", 2, 9)]
    assert list(queue.open()) == [span("BTC_USDT", 2, 5), span("BTC_USDT", 6, 9)]


def test_the_newest_come_first_and_then_the_most_traded() -> None:
    queue = RepairQueue(Ledger())
    queue.add(span("RIF_USDT", 4, 5))
    queue.add(span("ETH_USDT", 0, 3))
    queue.add(span("BTC_USDT", 2, 3))
    assert [one.symbol for one in queue.due(at(20), rank)] == ["RIF_USDT", "BTC_USDT", "ETH_USDT"]


def test_what_has_become_known_is_not_asked_for_again() -> None:
    ledger = Ledger()
    queue = RepairQueue(ledger)
    queue.add(span("BTC_USDT", 0, 2))
    assert queue.due(at(3), rank) == [span("BTC_USDT", 0, 2)]
    ledger.record("BTC_USDT", at(0), Trust.REPAIRED)
    assert queue.due(at(3) + FIRST_RETRY_MS, rank) == [span("BTC_USDT", 1, 2)]
    ledger.record("BTC_USDT", at(1), Trust.QUIET)
    assert queue.due(at(60), rank) == []
    assert len(queue) == 0


def test_what_stays_unknown_is_asked_for_with_growing_patience() -> None:
    queue = RepairQueue(Ledger())
    queue.add(span("BTC_USDT", 0, 1))
    asked_ms = [now_ms for now_ms in range(at(1), at(20), 5_000) if queue.due(now_ms, rank)]
    assert [later - earlier for earlier, later in itertools.pairwise(asked_ms)] == [
        30_000,
        60_000,
        120_000,
        240_000,
        480_000,
    ]


def test_what_the_ledger_no_longer_holds_is_given_up() -> None:
    queue = RepairQueue(Ledger(minutes=10))
    queue.add(span("BTC_USDT", 0, 1))
    assert queue.due(at(12), rank) == []
    assert len(queue) == 0


def test_a_departed_symbol_is_forgotten() -> None:
    queue = RepairQueue(Ledger())
    queue.add(span("BTC_USDT", 0, 1))
    queue.forget("BTC_USDT")
    assert queue.due(at(20), rank) == []
