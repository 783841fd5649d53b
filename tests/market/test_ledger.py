"""Trust per (symbol, minute)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpwatch.market.ledger import CODES, Ledger, Span
from perpwatch.model import MINUTE_MS, Trust

T0 = 1_791_201_600_000


def at(minute: int) -> int:
    return T0 + minute * MINUTE_MS


def test_a_minute_nobody_spoke_of_is_unknown() -> None:
    ledger = Ledger()
    assert ledger.trust("BTC_USDT", at(0)) is Trust.UNKNOWN
    ledger.record("BTC_USDT", at(1), Trust.STREAMED)
    assert [ledger.trust("BTC_USDT", at(minute)) for minute in range(3)] == [
        Trust.UNKNOWN,
        Trust.STREAMED,
        Trust.UNKNOWN,
    ]


def test_unknown_stretches_are_told_oldest_first() -> None:
    ledger = Ledger()
    for minute in (1, 2, 5):
        ledger.record("BTC_USDT", at(minute), Trust.STREAMED)
    assert list(ledger.unknown("BTC_USDT", at(0), at(8))) == [
        Span("BTC_USDT", at(0), at(1)),
        Span("BTC_USDT", at(3), at(5)),
        Span("BTC_USDT", at(6), at(8)),
    ]
    assert list(ledger.unknown("ETH_USDT", at(0), at(2))) == [Span("ETH_USDT", at(0), at(2))]
    assert list(ledger.unknown("ETH_USDT", at(2), at(2))) == []


def test_an_old_minute_gives_way_to_a_new_one() -> None:
    ledger = Ledger(minutes=3)
    ledger.record_range("BTC_USDT", at(0), at(3), Trust.VERIFIED)
    ledger.record("BTC_USDT", at(4), Trust.STREAMED)
    assert [ledger.trust("BTC_USDT", at(minute)) for minute in range(5)] == [
        Trust.UNKNOWN,
        Trust.UNKNOWN,
        Trust.VERIFIED,
        Trust.UNKNOWN,
        Trust.STREAMED,
    ]
    ledger.record("BTC_USDT", at(1), Trust.REPAIRED)  # has left the ring
    assert ledger.trust("BTC_USDT", at(4)) is Trust.STREAMED


def test_counts_add_up_to_the_minutes_asked_for() -> None:
    ledger = Ledger()
    ledger.record_range("BTC_USDT", at(0), at(2), Trust.VERIFIED)
    ledger.record("BTC_USDT", at(2), Trust.QUIET)
    counts = ledger.counts(["BTC_USDT", "ETH_USDT"], at(0), at(4))
    assert counts == {
        Trust.STREAMED: 0,
        Trust.VERIFIED: 2,
        Trust.REPAIRED: 0,
        Trust.QUIET: 1,
        Trust.UNKNOWN: 5,
    }


def test_what_was_known_can_be_kept_and_restored() -> None:
    ledger = Ledger(minutes=10)
    for minute, trust in enumerate([Trust.STREAMED, Trust.QUIET, Trust.UNKNOWN, Trust.REPAIRED, Trust.VERIFIED]):
        ledger.record("BTC_USDT", at(minute), trust)
    assert ledger.newest_ms("BTC_USDT") == at(4)
    assert (ledger.symbols(), ledger.newest_ms("ETH_USDT")) == (["BTC_USDT"], None)
    kept = ledger.codes("BTC_USDT", at(-2), at(6))
    assert kept == b"\0\0\1\4\0\3\2\0"
    assert ledger.codes("ETH_USDT", at(0), at(2)) == b"\0\0"
    assert ledger.codes("BTC_USDT", at(2), at(2)) == b""

    other = Ledger(minutes=10)
    other.record("BTC_USDT", at(2), Trust.STREAMED)
    other.record("BTC_USDT", at(3), Trust.STREAMED)
    other.restore("BTC_USDT", at(-2), kept)
    assert other.codes("BTC_USDT", at(-2), at(6)) == b"\0\0\1\4\1\3\2\0"
    with pytest.raises(ValueError, match="9 is no state"):
        other.restore("BTC_USDT", at(0), b"\1\x09")


def test_a_departed_symbol_is_forgotten() -> None:
    ledger = Ledger()
    ledger.record("BTC_USDT", at(0), Trust.VERIFIED)
    ledger.forget("BTC_USDT")
    ledger.forget("BTC_USDT")
    assert ledger.trust("BTC_USDT", at(0)) is Trust.UNKNOWN


def test_a_ledger_without_minutes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one minute"):
        Ledger(0)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(1, 7), st.lists(st.tuples(st.integers(0, 30), st.sampled_from(Trust)), max_size=30))
def test_the_ring_agrees_with_a_dictionary(size: int, records: list[tuple[int, Trust]]) -> None:
    ledger, known, newest = Ledger(size), dict[int, Trust](), -1
    for minute, trust in records:
        ledger.record("BTC_USDT", at(minute), trust)
        newest = max(newest, minute)
        if minute > newest - size:
            known[minute] = trust
    for minute in range(32):
        expected = known.get(minute, Trust.UNKNOWN) if newest - size < minute <= newest else Trust.UNKNOWN
        assert ledger.trust("BTC_USDT", at(minute)) is expected
        assert list(ledger.codes("BTC_USDT", at(minute), at(minute + 1))) == [CODES[expected]]
    whole = ledger.codes("BTC_USDT", at(-3), at(35))
    assert [CODES[ledger.trust("BTC_USDT", at(minute))] for minute in range(-3, 35)] == list(whole)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(1, 7), st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=12)), max_size=6))
def test_restoring_is_recording_what_is_known(size: int, pieces: list[tuple[int, bytes]]) -> None:
    restored, recorded, trusts = Ledger(size), Ledger(size), list(CODES)
    for first, piece in pieces:
        codes = bytes(byte % len(CODES) for byte in piece)
        restored.restore("BTC_USDT", at(first), codes)
        for minute, code in enumerate(codes, first):
            if code:
                recorded.record("BTC_USDT", at(minute), trusts[code])
    assert restored.codes("BTC_USDT", at(-1), at(45)) == recorded.codes("BTC_USDT", at(-1), at(45))


def test_the_oldest_minute_written_since_the_last_question_is_told_once() -> None:
    ledger = Ledger(60)
    assert ledger.take_changed_ms("A") is None
    ledger.restore("A", at(10), bytes([0, 1, 2]))
    ledger.record("A", at(20), Trust.STREAMED)
    assert ledger.take_changed_ms("A") == at(10)
    assert ledger.take_changed_ms("A") is None
    ledger.record("A", at(21), Trust.QUIET)
    ledger.record("A", at(15), Trust.REPAIRED)
    ledger.record("A", at(-60), Trust.REPAIRED)  # no longer kept
    assert ledger.take_changed_ms("A") == at(15)
    ledger.record("A", at(22), Trust.QUIET)
    assert ledger.take_changed_ms("A") == at(22)
