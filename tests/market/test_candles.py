"""Pushes become candles, whatever happens to them on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from perpwatch.market.candles import (
    CORRECTION_MS,
    SETTLE_MS,
    VERDICT_MS,
    CandleBook,
    Outcome,
    roll_up,
    roll_up_all,
    with_quiet_minutes,
)
from perpwatch.market.ledger import Ledger, Span
from perpwatch.market.minutes import KEPT_MINUTES
from perpwatch.market.referee import Referee
from perpwatch.model import (
    MINUTE_MS,
    Candle,
    CandleHistory,
    CandleUpdate,
    Contract,
    Finality,
    Gap,
    Kind,
    RunningCandle,
    Stream,
    StreamUp,
    Ticker,
    Tickers,
    Timeframe,
    Trust,
    stream_of_candles,
)

T0 = 1_791_201_600_000  # a whole hour
SYMBOL = "RIF_USDT"
CONTRACT = Contract(SYMBOL, "RIF", "USDT", "USDT", contract_size=10.0)
STREAM = stream_of_candles(SYMBOL)


def at(minute: int, second: float = 0.0) -> int:
    return T0 + minute * MINUTE_MS + int(second * 1_000)


def running(minute: int, contracts: float, close: float = 1.0) -> RunningCandle:
    return RunningCandle(
        SYMBOL, Timeframe.Min1, at(minute) // 1_000, 1.0, max(1.0, close), min(1.0, close), close, contracts, contracts
    )


def from_rest(minute: int, contracts: float, close: float = 1.0) -> Candle:
    return Candle(
        SYMBOL,
        Timeframe.Min1,
        at(minute),
        1.0,
        max(1.0, close),
        min(1.0, close),
        close,
        contracts,
        contracts * 10.0,
        contracts,
        Finality.REST,
        Trust.VERIFIED,
    )


@dataclass
class Story:
    """A book of one symbol, and everything that came out of it."""

    ledger: Ledger = field(default_factory=Ledger)
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self.book = CandleBook(self.ledger, Referee())
        self.series = self.book.watch(CONTRACT)

    def up(self, at_ms: int, source: str = "ws-1") -> None:
        self.book.stream_up(StreamUp(STREAM, source, at_ms))

    def push(self, minute: int, contracts: float, at_ms: int, close: float = 1.0) -> bool:
        return self.book.push(CandleUpdate(running(minute, contracts, close), at_ms), self.outcome) is not None

    def gap(self, start_ms: int, end_ms: int | None = None, source: str = "ws-1") -> None:
        self.book.gap(Gap(STREAM, source, start_ms, end_ms, "test"), self.outcome)

    def reach(self, at_ms: int, source: str = "ws-1") -> None:
        self.book.advance(source, at_ms, self.outcome)

    def tell(self, at_ms: int, contracts_24h: float) -> None:
        """The ticker frames of the two seconds that end here."""
        ticker = Ticker(symbol=SYMBOL, last_price=1.0, contracts_24h=contracts_24h)
        self.book.hear(Tickers([ticker], at_ms), self.outcome)

    def read(self, rows: Sequence[Candle], first: int, end: int, until_ms: int | None = None) -> list[Candle]:
        history = CandleHistory(SYMBOL, rows, at(first), at(end))
        return self.book.fill(history, at(end) if until_ms is None else until_ms, self.outcome)

    def closed(self, timeframe: Timeframe = Timeframe.Min1) -> list[tuple[int, float, Finality, Trust]]:
        """All candles in the order they came out: minute, contracts, finality, trust."""
        return [
            ((one.open_time_ms - T0) // MINUTE_MS, one.contracts, one.finality, one.trust)
            for one in self.outcome.closed
            if one.timeframe is timeframe
        ]

    def lost(self) -> list[int]:
        return [(span.start_ms - T0) // MINUTE_MS for span in self.outcome.lost]


def begun() -> Story:
    """Up since before minute 0, with a minute before it, and a witness who has watched all along."""
    story = Story()
    story.tell(at(-2), 100.0)
    story.up(at(-2))
    story.push(-1, 7, at(-1, 10))
    story.push(0, 1, at(0, 1))
    story.reach(at(0, 3))
    story.outcome = Outcome()
    return story


STREAMED, QUIET, REPAIRED, VERIFIED = Trust.STREAMED, Trust.QUIET, Trust.REPAIRED, Trust.VERIFIED
SUCCESSOR, CLOCK, REST = Finality.SUCCESSOR, Finality.CLOCK, Finality.REST


# --- Closing ---------------------------------------------------------------------------------------------------------


def test_a_minute_is_closed_when_its_source_has_passed_its_end_and_not_before() -> None:
    story = begun()
    story.push(0, 5, at(0, 59.9))
    story.push(1, 2, at(1, 0.5))
    story.reach(at(1, 1.9))
    assert story.closed() == []
    story.reach(at(1, 2))
    assert story.closed() == [(0, 5.0, SUCCESSOR, STREAMED)]


def test_a_minute_without_successor_is_closed_by_the_clock_of_its_source() -> None:
    story = begun()
    story.push(0, 5, at(0, 30))
    story.reach(at(1, 3))
    assert story.closed() == [(0, 5.0, CLOCK, STREAMED)]
    story.reach(at(1, 9))
    assert len(story.closed()) == 1


def test_units_are_those_of_the_contract() -> None:
    story = begun()
    story.push(0, 5, at(0, 30), close=1.5)
    story.reach(at(1, 3))
    candle = story.outcome.closed[0]
    assert (candle.contracts, candle.base_volume, candle.turnover, candle.close) == (5.0, 50.0, 5.0, 1.5)


def test_a_push_of_less_volume_is_a_reorder_and_does_not_count() -> None:
    story = begun()
    story.push(0, 5, at(0, 30))
    assert not story.push(0, 3, at(0, 31))
    story.reach(at(1, 3))
    assert story.closed() == [(0, 5.0, CLOCK, STREAMED)]
    assert story.book.counters.shrinking == 1


def test_a_late_push_before_the_close_counts_and_one_after_it_corrects() -> None:
    story = begun()
    story.push(1, 1, at(1, 0.2))
    story.push(0, 6, at(1, 0.8))
    story.reach(at(1, 2))
    story.push(0, 8, at(1, 5))
    assert story.closed() == [(0, 6.0, SUCCESSOR, STREAMED), (0, 8.0, SUCCESSOR, STREAMED)]
    story.push(0, 9, at(1, 2) + CORRECTION_MS + 1)
    assert len(story.closed()) == 2
    assert story.book.counters.late == 1


def test_the_only_push_of_a_minute_counts_although_it_was_overtaken() -> None:
    story = begun()
    story.push(2, 1, at(2, 0.1))
    story.push(1, 4, at(2, 0.6))
    story.reach(at(2, 2))
    assert story.closed() == [(0, 1.0, SUCCESSOR, STREAMED), (1, 4.0, SUCCESSOR, STREAMED)]


def test_a_push_from_the_future_is_not_taken() -> None:
    story = begun()
    assert not story.push(2, 1, at(1, 0.1))
    assert story.book.counters.ahead == 1


def test_a_symbol_that_is_not_watched_is_counted_and_ignored() -> None:
    book = CandleBook(Ledger(), Referee())
    assert book.push(CandleUpdate(running(0, 1), at(0)), Outcome()) is None
    assert book.counters.unwatched == 1


# --- Quiet, broken, unknown ------------------------------------------------------------------------------------------


def test_a_silent_minute_is_quiet_when_the_witness_stood_still() -> None:
    story = begun()
    story.push(0, 1, at(0, 20), close=1.25)
    for second in range(2, 130, 2):
        story.tell(at(0, second), 100.0 if second <= 20 else 101.0)
    story.reach(at(2, 3))
    assert story.closed() == [(0, 1.0, CLOCK, STREAMED), (1, 0.0, CLOCK, QUIET)]
    assert story.outcome.lost == []


def test_a_quiet_minute_is_drawn_flat_at_the_last_close() -> None:
    story = begun()
    story.push(0, 4, at(0, 20), close=1.25)
    story.tell(at(2, 1), 100.0)
    story.reach(at(2, 3))
    quiet = story.outcome.closed[1]
    assert (quiet.open, quiet.high, quiet.low, quiet.close, quiet.is_synthetic) == (1.25, 1.25, 1.25, 1.25, True)


def test_a_silent_minute_waits_for_a_witness_who_is_behind() -> None:
    story = begun()
    story.reach(at(2, 3))
    assert story.closed() == [(0, 1.0, CLOCK, STREAMED)]
    story.tell(at(2, 4), 100.0)
    assert story.closed()[1:] == [(1, 0.0, CLOCK, QUIET)]


def test_a_witness_that_never_speaks_again_does_not_stop_the_clock() -> None:
    """The ticker topic can die without a word while its connection lives."""
    story = begun()
    for minute in range(3, 9):
        story.push(minute, 1, at(minute, 1))
        story.reach(at(minute, 3))
    assert VERDICT_MS <= MINUTE_MS
    assert story.lost() == [1, 2]
    assert [minute for minute, *_ in story.closed()] == [0, 3, 4, 5, 6, 7]
    assert len(story.series.settling) <= 1


def test_a_minute_that_traded_unseen_is_missing_although_the_stream_spoke_before_the_verdict() -> None:
    story = begun()
    story.tell(at(1, 30), 100.0)
    story.tell(at(1, 32), 150.0)  # a trade whose only push never came
    story.tell(at(2, 1), 150.0)
    story.push(2, 1, at(2, 2.5))
    story.reach(at(2, 2.5))
    assert story.lost() == [1]
    assert [minute for minute, *_ in story.closed()] == [0]


def test_a_symbol_that_trades_in_silence_is_broken_and_what_it_said_since_is_taken_back() -> None:
    story = begun()
    story.tell(at(1, 30), 100.0)
    story.tell(at(2, 2), 100.0)
    story.reach(at(2, 3))
    assert story.closed()[-1] == (1, 0.0, CLOCK, QUIET)
    story.tell(at(2, 10), 100.0)
    story.tell(at(2, 12), 200.0)
    story.reach(at(2, 20))
    story.tell(at(2, 20), 200.0)
    assert story.outcome.broken == [SYMBOL]
    assert story.lost() == [0, 1]
    assert not story.series.is_up
    story.tell(at(2, 22), 200.0)
    assert story.outcome.broken == [SYMBOL]


def test_a_push_that_answers_the_witness_acquits() -> None:
    story = begun()
    story.tell(at(0, 10), 100.0)
    story.tell(at(0, 12), 200.0)
    story.push(0, 2, at(0, 10.8))
    story.reach(at(0, 30))
    story.tell(at(0, 30), 200.0)
    assert story.outcome.broken == []


# --- Gaps ------------------------------------------------------------------------------------------------------------


def test_a_minute_over_a_gap_is_missing_unless_a_push_after_it_made_it_whole() -> None:
    for last_push_s, closed in ((45.0, [(0, 9.0, CLOCK, STREAMED)]), (None, [])):
        story = begun()
        story.push(0, 5, at(0, 20))
        story.gap(at(0, 25))
        story.up(at(0, 40))
        if last_push_s is not None:
            story.push(0, 9, at(0, last_push_s))
        story.reach(at(1, 3))
        assert story.closed() == closed
        assert story.lost() == ([] if closed else [0])


def test_minutes_that_passed_while_the_stream_was_down_are_missing() -> None:
    story = begun()
    story.gap(at(0, 30))
    story.up(at(3, 10))
    story.push(3, 2, at(3, 20))
    story.reach(at(4, 3))
    assert story.lost() == [0, 1, 2]
    assert story.closed() == [(3, 2.0, CLOCK, STREAMED)]


def test_a_reordered_push_after_a_gap_does_not_upset_the_order_of_minutes() -> None:
    story = begun()
    story.push(1, 3, at(1, 0.5))
    story.gap(at(1, 0.6), at(1, 0.7))
    story.push(0, 6, at(1, 0.9))
    story.push(1, 4, at(1, 1.0))
    story.reach(at(1, 3))
    story.push(2, 1, at(2, 0.1))
    story.reach(at(2, 3))
    assert story.closed() == [(0, 6.0, SUCCESSOR, STREAMED), (1, 4.0, SUCCESSOR, STREAMED)]
    assert story.lost() == []


def test_a_shorter_gap_does_not_bring_a_broken_stream_back() -> None:
    story = begun()
    story.gap(at(0, 30))
    story.gap(at(0, 31), at(0, 32))
    assert not story.series.is_up


def test_a_gap_of_another_source_is_not_ours() -> None:
    story = begun()
    story.gap(at(0, 30), source="ws-9")
    assert story.series.is_up


def test_a_gap_learned_of_late_takes_back_what_was_closed_except_what_rest_confirmed() -> None:
    story = begun()
    for minute in (1, 2, 3):
        story.push(minute, 1, at(minute, 1))
    story.reach(at(3, 3))
    story.read([from_rest(1, 1)], 1, 2)
    story.gap(at(1, 30))
    assert story.lost() == [2]
    assert [story.ledger.trust(SYMBOL, at(minute)) for minute in (0, 1, 2)] == [STREAMED, VERIFIED, Trust.UNKNOWN]


# --- Sources ---------------------------------------------------------------------------------------------------------


def test_a_stream_that_moves_loses_nothing() -> None:
    story = begun()
    story.push(0, 5, at(0, 30))
    story.reach(at(0, 40))
    story.reach(at(5, 0), source="ws-2")  # ahead, and has closed minutes of others
    story.up(at(0, 41), source="ws-2")
    story.gap(at(0, 42))
    story.reach(at(1, 2), source="ws-2")
    assert story.closed() == [(0, 5.0, CLOCK, STREAMED)]


def test_a_stream_that_moves_away_from_a_dead_source_is_not_taken_for_whole() -> None:
    """The old connection was half open: nobody will ever report what it lost."""
    story = begun()
    story.push(0, 5, at(0, 10))
    story.reach(at(0, 10))
    story.up(at(0, 50), source="ws-2")
    story.reach(at(1, 3), source="ws-2")
    assert story.closed() == []
    assert story.lost() == [0]


def test_a_symbol_that_leaves_and_returns_begins_anew() -> None:
    story = begun()
    story.book.unwatch(SYMBOL)
    story.book.unwatch(SYMBOL)
    story.reach(at(3))
    assert story.closed() == []
    story.series = story.book.watch(CONTRACT)
    assert not story.series.is_up
    assert story.ledger.trust(SYMBOL, at(-1)) is Trust.UNKNOWN


# --- History and repairs ---------------------------------------------------------------------------------------------


def test_history_before_the_watch_is_filed_and_not_told() -> None:
    story = Story()
    story.up(at(0, 20))
    minutes = story.read([from_rest(-3, 1), from_rest(-1, 2)], -3, 0)
    assert [(minute.contracts, minute.is_synthetic) for minute in minutes] == [(1.0, False), (0.0, True), (2.0, False)]
    assert story.closed() == []
    assert story.ledger.counts([SYMBOL], at(-3), at(0))[VERIFIED] == 3


def test_no_minute_falls_between_the_history_and_a_stream_that_comes_up_later() -> None:
    story = Story()
    story.read([from_rest(-2, 1), from_rest(-1, 1)], -2, 0)
    story.up(at(2, 10))
    story.push(2, 3, at(2, 20))
    story.reach(at(3, 3))
    assert story.lost() == [0, 1]
    story.read([from_rest(0, 5), from_rest(1, 6)], 0, 2)
    assert sorted(story.closed()) == [(0, 5.0, REST, REPAIRED), (1, 6.0, REST, REPAIRED), (2, 3.0, CLOCK, STREAMED)]


def test_a_missing_minute_without_trades_can_be_repaired() -> None:
    story = begun()
    story.push(0, 4, at(0, 20), close=1.25)
    story.reach(at(1, 3))
    story.gap(at(1, 5))
    story.up(at(1, 40))
    story.tell(at(2, 2), 100.0)
    story.reach(at(2, 3))
    assert story.lost() == [1]
    story.read([], 1, 2)
    assert story.closed()[-1] == (1, 0.0, REST, REPAIRED)
    assert story.outcome.closed[-1].close == 1.25


def test_a_quiet_beginning_of_a_repair_behind_a_hole_stands_at_the_next_open() -> None:
    story = begun()
    story.gap(at(0, 5))
    story.up(at(4, 0))
    story.reach(at(4, 3))
    assert story.lost() == [0, 1, 2, 3]
    story.read([from_rest(3, 9)], 2, 4)
    assert [minute[:2] for minute in story.closed()] == [(2, 0.0), (3, 9.0)]


def test_a_minute_without_trades_is_known_although_no_price_was_ever_seen() -> None:
    """A contract that has not traded within its whole history: asking for ever would tell no more."""
    story = Story()
    story.up(at(0, 20))
    story.reach(at(2, 3))
    assert story.lost() == [0, 1]
    story.read([], -60, 2, until_ms=at(1, 58))
    assert story.closed() == []
    assert [story.ledger.trust(SYMBOL, at(minute)) for minute in range(2)] == [VERIFIED, Trust.UNKNOWN]


def test_a_listing_has_no_minutes_before_its_first() -> None:
    assert with_quiet_minutes(CandleHistory(SYMBOL, [from_rest(5, 1)], at(0), at(7)), at(7))[0].open_time_ms == at(5)


def test_the_running_candle_of_an_answer_is_cut() -> None:
    story = begun()
    assert [one.contracts for one in story.read([from_rest(-1, 7), from_rest(0, 3)], -1, 2, until_ms=at(0, 50))] == [7]


def test_rest_verifies_what_agrees_and_corrects_what_was_short_and_never_takes_away() -> None:
    story = begun()
    for minute, contracts in ((0, 5), (1, 5), (2, 5)):
        story.push(minute, contracts, at(minute, 30))
    story.reach(at(3, 3))
    story.outcome = Outcome()
    story.read([from_rest(0, 5), from_rest(1, 8), from_rest(2, 4)], 0, 3)
    assert story.closed() == [(1, 8.0, REST, REPAIRED)]
    assert [story.ledger.trust(SYMBOL, at(minute)) for minute in range(3)] == [VERIFIED, REPAIRED, STREAMED]


def test_a_repair_redoes_the_longer_candles_it_belongs_to() -> None:
    story = begun()
    story.gap(at(0, 10))
    story.up(at(1, 0))
    for minute in range(1, 6):
        story.push(minute, 1, at(minute, 30))
    story.reach(at(5, 3))
    assert story.closed(Timeframe.Min5) == [(0, 4.0, SUCCESSOR, Trust.UNKNOWN)]
    story.read([from_rest(0, 2)], 0, 1)
    assert story.closed(Timeframe.Min5)[1:] == [(0, 6.0, SUCCESSOR, REPAIRED)]
    assert story.outcome.closed[-1].missing_minutes == 0


def test_a_repair_of_long_ago_does_not_undo_longer_candles_that_are_no_longer_kept() -> None:
    story = begun()
    story.gap(at(0, 10))
    story.up(at(1, 0))
    for minute in range(1, KEPT_MINUTES + 3):
        story.push(minute, 1, at(minute, 30))
        story.reach(at(minute + 1, 3))
    story.outcome = Outcome()
    story.read([from_rest(0, 2)], 0, 1)
    assert story.closed() == [(0, 2.0, REST, REPAIRED)]
    assert [one.timeframe for one in story.outcome.closed] == [Timeframe.Min1]
    assert len(story.series.minutes) == KEPT_MINUTES


def test_a_polled_symbol_closes_its_minutes_by_rest_alone() -> None:
    story = Story()
    story.read([from_rest(minute, 1) for minute in range(-5, 0)], -5, 0)
    story.read([from_rest(minute, 1) for minute in range(-5, 5)], -5, 5)
    assert story.closed() == [(minute, 1.0, REST, VERIFIED) for minute in range(5)]
    assert story.closed(Timeframe.Min5) == [(0, 5.0, REST, VERIFIED)]


# --- Running candles -------------------------------------------------------------------------------------------------


def test_a_running_longer_candle_holds_closed_settling_and_running_minutes() -> None:
    story = begun()
    story.push(0, 5, at(0, 30))
    story.push(1, 6, at(1, 30))
    story.reach(at(1, 40))
    story.push(2, 7, at(2, 0.5), close=2.0)
    candle = story.book.running_candle(story.series, Timeframe.Min5)
    assert (candle.contracts, candle.close, candle.finality, candle.missing_minutes) == (18.0, 2.0, Finality.OPEN, 0)
    assert story.book.ended_turnover(story.series, Timeframe.Min5) == 11.0


def test_a_running_longer_candle_counts_the_minutes_it_misses() -> None:
    story = begun()
    story.gap(at(0, 30))
    story.up(at(1))
    story.push(1, 6, at(1, 30))
    story.push(2, 7, at(2, 5))
    story.reach(at(2, 5))
    assert story.book.running_candle(story.series, Timeframe.Min5).missing_minutes == 1


def test_pushes_below_the_wake_amount_need_no_look() -> None:
    story = begun()
    story.series.wake_amount = 50.0
    assert [story.push(0, contracts, at(0, 5)) for contracts in (49, 50, 60)] == [False, True, True]
    assert story.push(1, 1, at(1, 1))  # the first of a minute always does


# --- Whatever happens on the way -------------------------------------------------------------------------------------


@dataclass
class Way:
    """How the pushes of one symbol suffer between exchange and book; times in milliseconds."""

    trades: list[tuple[int, int]]  # when, contracts
    duplicate: float
    reorder: float
    outages: list[tuple[int, int]]
    seed: int

    def truth(self) -> dict[int, int]:
        """Contracts per minute: the naive computation."""
        minutes: dict[int, int] = {}
        for at_ms, contracts in self.trades:
            minutes[at_ms // MINUTE_MS * MINUTE_MS] = minutes.get(at_ms // MINUTE_MS * MINUTE_MS, 0) + contracts
        return minutes


MINUTES = 16


@st.composite
def ways(draw: st.DrawFn) -> Way:
    moments = draw(st.lists(st.integers(at(1), at(MINUTES) - 1), unique=True, max_size=60))
    starts = draw(st.lists(st.integers(at(1), at(MINUTES - 1)), unique=True, max_size=3))
    return Way(
        trades=[(moment, draw(st.integers(1, 50))) for moment in sorted(moments)],
        duplicate=draw(st.sampled_from([0.0, 0.2])),
        reorder=draw(st.sampled_from([0.0, 0.2])),
        outages=[(start, start + draw(st.integers(100, 150_000))) for start in sorted(starts)],
        seed=draw(st.integers(0, 999)),
    )


def travel(way: Way) -> Story:
    """Play the way: pushes, tickers every 2 s, outages with gap and return, and a watermark that follows."""
    story, random = Story(), Random(way.seed)
    arrivals: list[tuple[int, int, str, tuple[int, int, int]]] = []  # when, order, what, (minute, contracts, stamp)
    running_totals: dict[int, int] = {}
    order = 0

    def is_down(at_ms: int) -> bool:
        return any(start <= at_ms < end for start, end in way.outages)

    for at_ms, contracts in way.trades:
        minute_ms = at_ms // MINUTE_MS * MINUTE_MS
        running_totals[minute_ms] = running_totals.get(minute_ms, 0) + contracts
        if is_down(at_ms):
            continue
        delay_ms = random.randrange(1_000) if random.random() < way.reorder else 0
        for _ in range(2 if random.random() < way.duplicate else 1):
            order += 1
            arrivals.append((at_ms + delay_ms, order, "push", (minute_ms, running_totals[minute_ms], at_ms)))
    for at_ms in range(at(0), at(MINUTES + 1), 2_000):
        total = sum(contracts for moment, contracts in way.trades if moment <= at_ms)
        arrivals.append((at_ms, -1, "tickers", (0, total, at_ms)))
    for start, end in way.outages:
        arrivals.append((start, 0, "down", (0, 0, start)))
        if not is_down(end):
            arrivals.append((end, 0, "up", (0, 0, end)))
    story.up(at(0))
    story.push(0, 1, at(0, 1))
    watermark_ms = at(0, 1)
    for arrives_ms, _, what, (minute_ms, contracts, stamp_ms) in sorted(arrivals):
        match what:
            case "push" if not is_down(arrives_ms):
                story.push((minute_ms - T0) // MINUTE_MS, contracts, stamp_ms)
            case "tickers":
                story.tell(stamp_ms, 1_000.0 + contracts)
            case "down":
                story.gap(watermark_ms)
            case "up":
                story.up(stamp_ms)
        if not is_down(arrives_ms):
            watermark_ms = max(watermark_ms, stamp_ms)
            story.reach(watermark_ms)
    story.reach(at(MINUTES + 1))
    return story


@settings(max_examples=250, derandomize=True, deadline=None)
@given(ways())
def test_no_minute_is_final_with_a_wrong_value_and_none_is_forgotten(way: Way) -> None:
    story, truth = travel(way), way.truth()
    final = {one.open_time_ms: one for one in story.outcome.closed if one.timeframe is Timeframe.Min1}
    lost = {span.start_ms for span in story.outcome.lost}
    for minute in range(1, MINUTES):
        known = story.ledger.trust(SYMBOL, at(minute)) is not Trust.UNKNOWN
        if known:
            assert final[at(minute)].contracts == truth.get(at(minute), 0), minute
        else:
            assert at(minute) in lost, minute
    if not way.outages:
        assert lost == set()
        assert [final[at(minute)].is_synthetic for minute in range(1, MINUTES)] == [
            at(minute) not in truth for minute in range(1, MINUTES)
        ]
    assert len(story.series.settling) <= 2


@settings(max_examples=150, derandomize=True, deadline=None)
@given(ways())
def test_longer_candles_are_the_roll_up_of_the_minutes_also_after_repair(way: Way) -> None:
    story, truth = travel(way), way.truth()
    rows = [from_rest((open_ms - T0) // MINUTE_MS, contracts) for open_ms, contracts in sorted(truth.items())]
    story.read(rows, 1, MINUTES)
    minutes: dict[int, Candle] = {}
    longer: dict[tuple[Timeframe, int], Candle] = {}
    for one in story.outcome.closed:
        if one.timeframe is Timeframe.Min1:
            minutes[one.open_time_ms] = one
        else:
            longer[one.timeframe, one.open_time_ms] = one
    assert {at(minute): truth.get(at(minute), 0) for minute in range(1, MINUTES)} == {
        open_ms: one.contracts for open_ms, one in minutes.items() if at(1) <= open_ms < at(MINUTES)
    }
    for timeframe in (Timeframe.Min5, Timeframe.Min15):
        for start in range(0, MINUTES - timeframe.minutes + 1, timeframe.minutes):
            batch = [minutes[at(minute)] for minute in range(start, start + timeframe.minutes) if at(minute) in minutes]
            assert longer[timeframe, at(start)] == roll_up(batch, timeframe)
            assert longer[timeframe, at(start)].contracts == sum(one.contracts for one in batch)


def test_a_whole_history_is_rolled_up_as_one_candle_after_another() -> None:
    minutes = [from_rest(minute, minute, close=1.0 + minute / 100) for minute in range(3, 23)]
    fives = roll_up_all(minutes, Timeframe.Min5, until_ms=at(22))
    assert [(one.open_time_ms, one.contracts, one.missing_minutes, one.close) for one in fives] == [
        (at(0), 7.0, 3, 1.04),
        (at(5), 35.0, 0, 1.09),
        (at(10), 60.0, 0, 1.0 + 14 / 100),
        (at(15), 85.0, 0, 1.19),
    ]
    assert len(roll_up_all(minutes, Timeframe.Min1, until_ms=at(22))) == 19


def test_a_ticker_gap_blinds_the_referee_and_frees_those_who_wait() -> None:
    story = begun()
    story.reach(at(2, 3))
    story.book.gap(Gap(Stream(Kind.TICKERS), "ws-1", at(1), None, "cut"), story.outcome)
    assert story.outcome.lost == [Span(SYMBOL, at(1), at(2))]
    assert SETTLE_MS == 2_000


def naively_rolled_up(minutes: Sequence[Candle], timeframe: Timeframe) -> Candle:
    """What a longer candle is, as one would write it down."""
    traded = [minute for minute in minutes if not minute.is_synthetic]
    missing = timeframe.minutes - len(minutes) + sum(minute.missing_minutes for minute in minutes)
    trusts = [Trust.UNKNOWN, Trust.REPAIRED, Trust.QUIET, Trust.STREAMED, Trust.VERIFIED]
    contracts = base_volume = turnover = 0.0
    for minute in traded:
        contracts, base_volume = contracts + minute.contracts, base_volume + minute.base_volume
        turnover += minute.turnover
    real_opens = [one.real_open for one in traded if one.real_open is not None]
    real_closes = [one.real_close for one in traded if one.real_close is not None]
    return Candle(
        SYMBOL,
        timeframe,
        minutes[0].open_time_ms // timeframe.milliseconds * timeframe.milliseconds,
        minutes[0].open,
        max(one.high for one in minutes),
        min(one.low for one in minutes),
        minutes[-1].close,
        contracts,
        base_volume,
        turnover,
        minutes[-1].finality,
        Trust.UNKNOWN if missing else min((one.trust for one in minutes), key=trusts.index),
        real_opens[0] if real_opens else None,
        max((one.real_high for one in traded if one.real_high is not None), default=None),
        min((one.real_low for one in traded if one.real_low is not None), default=None),
        real_closes[-1] if real_closes else None,
        not traded,
        missing,
    )


PRICES = st.floats(0.5, 2.0)
SOMETIMES = st.none() | PRICES


@given(
    st.dictionaries(
        st.integers(0, 59),
        st.builds(
            Candle,
            st.just(SYMBOL),
            st.just(Timeframe.Min1),
            st.just(0),
            *[PRICES] * 4,
            *[st.floats(0.0, 1e9)] * 3,
            st.sampled_from([Finality.SUCCESSOR, Finality.CLOCK, Finality.REST]),
            st.sampled_from([Trust.VERIFIED, Trust.STREAMED, Trust.QUIET, Trust.REPAIRED]),
            *[SOMETIMES] * 4,
            st.booleans(),
        ),
        min_size=1,
    )
)
@settings(max_examples=150, deadline=None)
def test_a_longer_candle_is_what_its_minutes_make_by_the_plain_formula(drawn: dict[int, Candle]) -> None:
    minutes = [replace(drawn[number], open_time_ms=at(number)) for number in sorted(drawn)]
    assert roll_up(minutes, Timeframe.Min60) == naively_rolled_up(minutes, Timeframe.Min60)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(1, 50)), min_size=1, max_size=60))
@settings(max_examples=150, deadline=None)
def test_minutes_filed_in_any_order_and_corrected_make_the_candles_of_the_whole(filed: list[tuple[int, int]]) -> None:
    story = Story()
    story.up(at(0))
    known: dict[int, float] = {}
    for minute, contracts in filed:
        read = CandleHistory(SYMBOL, [from_rest(minute, float(contracts))], at(minute), at(minute + 1))
        story.book.fill(read, at(60), story.outcome)
        known[minute] = float(contracts)
        assert [(one.open_time_ms, one.contracts) for one in story.series.minutes] == [
            (at(number), known[number]) for number in sorted(known)
        ]
    for timeframe in (Timeframe.Min5, Timeframe.Min15):
        newest: dict[int, Candle] = {}
        for candle in story.outcome.closed:
            if candle.timeframe is timeframe:
                newest[candle.open_time_ms] = candle
        for open_ms, candle in newest.items():
            inside = [one for one in story.series.minutes if open_ms <= one.open_time_ms < candle.close_time_ms]
            assert candle == naively_rolled_up(inside, timeframe)
