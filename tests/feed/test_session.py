"""One connection's life, told frames and times."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from feed_frames import ADAPTER, T0, ack, candles, kline, pong, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from perpwatch.errors import ConnectionLost, StaleConnection
from perpwatch.exchanges.mexc.limits import LIMITS
from perpwatch.feed.session import MAX_TRIES, WINDOW, Session
from perpwatch.model import CandleUpdate, Event, Gap, Kind, Stream, StreamUp

#: As many commands as the window allows may go out at one moment.
QUICK = replace(LIMITS, commands_per_second=1e9)
PING = b'{"method":"ping"}'
A, B, C, D = candles("A_USDT", "B_USDT", "C_USDT", "D_USDT")
TICKERS = Stream(Kind.TICKERS)


class Story:
    """A session, its clock, and all it has said."""

    def __init__(self, *streams: Stream) -> None:
        self.now_s = 100.0
        self.session = Session(ADAPTER, QUICK, "ws-1", self.now_s)
        self.session.subscribe(streams)
        self.events: list[Event] = []
        self.sent: list[bytes] = []
        self.send()

    @property
    def now_ms(self) -> int:
        return T0 + int((self.now_s - 100.0) * 1_000)

    def send(self) -> list[bytes]:
        sent: list[bytes] = []
        for _ in range(300):
            # Commands are spaced by a nanosecond here.
            self.now_s += 1e-6
            sent += (frames := self.session.frames_to_send(self.now_s))
            if not frames:
                break
        self.sent += sent
        return sent

    def hear(self, *frames: bytes) -> list[Event]:
        events: list[Event] = []
        self.session.receive(frames, self.now_s, events)
        self.events += events
        self.send()
        return events

    def wait(self, seconds: float) -> list[Event]:
        """Let time pass with a server that answers pings."""
        events: list[Event] = []
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, max(self.now_s + 1e-3, self.session.next_deadline()))
            self.session.on_timer(self.now_s, events)
            if PING in self.send():
                self.session.receive([pong(self.now_ms)], self.now_s, events)
        self.events += events
        return events

    def ups(self, events: list[Event]) -> list[Stream]:
        return [event.stream for event in events if isinstance(event, StreamUp)]

    def gaps(self, events: list[Event]) -> list[tuple[Stream, int | None]]:
        return [(event.stream, event.end_time_ms) for event in events if isinstance(event, Gap)]


# --- Asking ----------------------------------------------------------------------------------------------------------


def test_it_pings_at_once_and_then_on_time_whatever_else_happens() -> None:
    story = Story()
    assert story.sent == [PING]
    story.wait(46.0)
    assert story.sent == [PING] * 4
    assert story.session.counters.pings == 4


def test_commands_keep_to_their_rate_and_the_window() -> None:
    session = Session(ADAPTER, LIMITS, "ws-1", 0.0)
    session.subscribe(candles(*(f"S{number}_USDT" for number in range(30))))
    sent = [(step, frame) for step in range(120) for frame in session.frames_to_send(step / 128)]
    assert len(sent) == 1 + WINDOW
    assert all(later - earlier in (12, 13) for (earlier, _), (later, _) in pairwise(sent))  # of 128 steps a second


def test_answers_go_to_the_commands_in_order() -> None:
    story = Story(A, TICKERS, B)
    events = story.hear(ack("kline", T0), ack("kline", T0 + 1), ack("tickers", T0 + 2))
    assert [(event.stream, event.event_time_ms) for event in events if isinstance(event, StreamUp)] == [
        (A, T0),
        (B, T0 + 1),
        (TICKERS, T0 + 2),
    ]
    assert story.session.pending == 0


def test_a_refusal_that_names_a_symbol_goes_to_it() -> None:
    story = Story(A, B)
    for _ in range(MAX_TRIES):
        story.hear(refusal("Contract [B_USDT] not exists", T0))
    assert story.session.rejected == {B: "Contract [B_USDT] not exists"}
    story.hear(ack("kline", T0))
    assert list(story.session.confirmed) == [A]


def test_data_confirms_a_stream_and_its_late_answer_is_not_taken_for_another() -> None:
    story = Story(A, B)
    assert story.ups(story.hear(kline("A_USDT", T0 + 5))) == [A]
    assert story.ups(story.hear(ack("kline", T0 + 6))) == []
    assert story.ups(story.hear(ack("kline", T0 + 7))) == [B]


def test_the_answer_to_a_stream_nobody_wants_any_more_is_not_taken_for_another() -> None:
    story = Story(A, B)
    story.session.unsubscribe([A])
    assert story.ups(story.hear(ack("kline", T0))) == []
    assert story.ups(story.hear(ack("kline", T0 + 1))) == [B]
    assert list(story.session.confirmed) == [B]


def test_a_missing_answer_puts_in_doubt_all_that_were_answered_since_the_line_was_empty() -> None:
    """A was swallowed: the answers of B, C and D look like those of A, B and C."""
    story = Story(A, B, C, D)
    story.hear(ack("kline", T0), ack("kline", T0 + 10), ack("kline", T0 + 20))
    events = story.wait(5.1)
    assert sorted(story.gaps(events)) == [(A, None), (B, None), (C, None)]
    assert story.session.counters.unanswered == 1
    # Now they are asked for one by one, and A is swallowed again.
    for _ in range(8):
        asked = story.sent[-1]
        story.hear(*([] if b"A_USDT" in asked else [ack("kline", story.now_ms)]))
        if b"A_USDT" in asked:
            story.wait(5.1)
    assert sorted(story.session.confirmed) == [B, C, D]
    assert list(story.session.rejected) == [A]


def test_a_stream_whose_data_flows_is_not_put_in_doubt() -> None:
    story = Story(A, B, C)
    story.hear(ack("kline", T0), ack("kline", T0 + 10), kline("A_USDT", T0 + 20))
    assert story.gaps(story.wait(5.1)) == [(B, None)]


def test_answers_that_are_complete_leave_no_doubt() -> None:
    story = Story(A, B)
    story.hear(ack("kline", T0), ack("kline", T0))
    story.session.subscribe([C])
    story.send()
    assert story.gaps(story.wait(16.0)) == []
    assert sorted(story.session.confirmed) == [A, B]
    assert story.session.rejected == {C: "no answer within 5 s"}


def test_a_stream_refused_by_bad_luck_gets_more_tries_while_others_get_in() -> None:
    story = Story(A)
    for symbol in ("B_USDT", "C_USDT", "D_USDT"):
        story.hear(refusal("Subscription failed", T0))
        story.session.subscribe(candles(symbol))
        story.send()
        story.hear(refusal("Subscription failed", T0), ack("kline", T0))
    assert A not in story.session.rejected


def test_a_stream_wanted_and_unwanted_again_before_anything_was_sent_is_still_stopped() -> None:
    story = Story(A)
    story.hear(ack("kline", T0))
    story.session.unsubscribe([A])
    story.session.subscribe([A])
    story.session.unsubscribe([A])
    assert story.send() == [ADAPTER.unsubscribe(A)]


def test_a_mute_stream_is_asked_for_anew() -> None:
    story = Story(A)
    story.hear(ack("kline", T0))
    story.session.resubscribe(A)
    assert story.send() == [ADAPTER.unsubscribe(A), ADAPTER.subscribe(A)]
    assert story.ups(story.hear(ack("kline", T0 + 9))) == [A]


# --- Silence and the end ---------------------------------------------------------------------------------------------


def test_a_server_that_answers_no_pings_is_stale_although_data_flows() -> None:
    story = Story(A)
    for second in range(34):
        story.now_s = 100.0 + second
        story.hear(kline("A_USDT", story.now_ms))
        story.session.on_timer(story.now_s, [])
    story.now_s = 100.0 + LIMITS.pong_timeout_s
    with pytest.raises(StaleConnection, match="no answer to our pings for 35 s"):
        story.session.on_timer(story.now_s, [])


@pytest.mark.parametrize("sent_s", [0.1, 2.7182818, 1234.5678, 98765.4321])
def test_the_deadline_it_names_is_late_enough_to_act(sent_s: float) -> None:
    """A difference can fall short of a limit by a rounding; then a loop that never sleeps would wake it for ever."""
    session = Session(ADAPTER, QUICK, "ws-1", sent_s)
    session.subscribe([A])
    while session.next_deadline() <= sent_s + 1e-6:
        session.frames_to_send(sent_s + 1e-6)
    for _ in range(20):
        now_s = session.next_deadline()
        try:
            session.on_timer(now_s, [])
        except StaleConnection:
            return
        session.frames_to_send(now_s)
        assert session.next_deadline() > now_s
    pytest.fail("never stale")


def test_the_end_is_a_gap_for_all_that_was_delivered_and_nothing_else() -> None:
    story = Story(A, B, C)
    story.hear(ack("kline", T0), ack("kline", T0), kline("A_USDT", T0 + 700))
    assert story.session.end("cut") == [
        Gap(A, "ws-1", T0 + 700, None, "cut"),
        Gap(B, "ws-1", T0 + 700, None, "cut"),
    ]


def test_a_stream_that_is_being_healed_has_a_gap_when_the_connection_ends() -> None:
    story = Story(A)
    story.hear(ack("kline", T0))
    story.session.resubscribe(A)
    assert story.session.end("cut") == [Gap(A, "ws-1", T0, None, "cut")]


def test_the_server_s_last_words_end_the_session() -> None:
    story = Story(A)
    with pytest.raises(ConnectionLost, match="close the channel"):
        story.hear(refusal("more than 60 seconds no response, close the channel", T0))


# --- Frames that make no sense ---------------------------------------------------------------------------------------


def test_a_bad_frame_is_kept_and_is_a_gap_of_the_stream_it_names() -> None:
    story = Story(A, B)
    story.hear(ack("kline", T0), ack("kline", T0))
    events = story.hear(kline("B_USDT", T0 + 50)[:-30])
    assert story.gaps(events) == [(B, T0 + 1)]
    assert story.session.counters.bad_frames == 1
    assert story.session.bad_frames[0].frame.startswith(b'{"symbol":"B_USDT"')


def test_an_unreadable_ticker_frame_is_a_gap_of_the_tickers_and_not_of_the_symbols_in_it() -> None:
    story = Story(A, TICKERS)
    story.hear(ack("kline", T0), ack("tickers", T0))
    events = story.hear(b'{"channel":"push.tickers","data":[{"symbol":"A_USDT","lastPrice":1,"vol')
    assert story.gaps(events) == [(TICKERS, T0 + 1)]


def test_a_frame_that_names_nothing_is_a_gap_of_everything() -> None:
    story = Story(A, B)
    story.hear(ack("kline", T0), ack("kline", T0))
    assert story.gaps(story.hear(b"\x00\xff")) == [(A, T0 + 1), (B, T0 + 1)]


@pytest.mark.parametrize("first", [pong(T0), kline("A_USDT", T0)])
def test_an_absurd_time_moves_nothing_also_in_the_first_read(first: bytes) -> None:
    story = Story(A)
    events = story.hear(ack("kline", T0), first, kline("A_USDT", T0 + 3_600_000))
    assert story.session.watermark_ms == T0
    assert story.session.counters.bad_frames == 1
    assert [event.end_time_ms for event in events if isinstance(event, Gap)] == [T0 + 1]


def test_after_a_long_silence_a_later_time_is_not_absurd() -> None:
    story = Story(A)
    story.hear(ack("kline", T0))
    story.now_s += 3_600.0
    story.hear(kline("A_USDT", T0 + 3_600_000))
    assert story.session.watermark_ms == T0 + 3_600_000


def test_only_data_counts_as_data() -> None:
    story = Story(A)
    story.hear(pong(T0), ack("kline", T0))
    assert story.session.last_data_s == 0.0
    story.hear(kline("A_USDT", T0))
    assert story.session.last_data_s > 0.0


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(st.binary(max_size=80) | st.sampled_from([kline("A_USDT", T0), b"{}", b"[]", b"\x1f\x8b"]), max_size=8))
def test_any_bytes_are_counted_and_survived(frames: list[bytes]) -> None:
    story = Story(A)
    story.hear(ack("kline", T0))
    story.hear(*frames)
    counters = story.session.counters
    assert counters.frames == counters.acks + counters.data_frames + counters.bad_frames


# --- Whatever the exchange does --------------------------------------------------------------------------------------


@settings(max_examples=60, derandomize=True, deadline=None)
@given(data=st.data())
def test_every_stream_ends_confirmed_or_reported_and_the_confirmed_are_real(data: st.DataObject) -> None:
    """The other side keeps a book of who is subscribed, answers in order, and swallows or refuses what it likes."""
    everything = candles(*(f"S{number}_USDT" for number in range(data.draw(st.integers(1, 12)))))
    dead = set(data.draw(st.lists(st.sampled_from(everything), unique=True, max_size=4)))
    names_symbol = data.draw(st.booleans())
    story = Story()
    subscribed: set[Stream] = set()
    up: set[Stream] = set()
    unread: deque[bytes] = deque()
    story.session.subscribe(everything)
    heard = 0
    for _ in range(600):
        for frame in story.send():
            for stream in everything:
                if frame == ADAPTER.subscribe(stream):
                    fate = "silence" if stream in dead else data.draw(st.sampled_from(["ack"] * 8 + ["no", "silence"]))
                    if fate == "ack":
                        subscribed.add(stream)
                        unread.append(ack("kline", story.now_ms))
                    elif fate == "no":
                        text = f"Contract [{stream.symbol}] not exists" if names_symbol else "Subscription failed"
                        unread.append(refusal(text, story.now_ms))
        if unread:
            story.hear(unread.popleft())
        else:
            story.wait(1.0)
        for event in story.events[heard:]:
            if isinstance(event, StreamUp):
                up.add(event.stream)
            elif isinstance(event, Gap) and event.end_time_ms is None:
                up.discard(event.stream)
        heard = len(story.events)
        if not story.session.pending and not unread:
            break
    session = story.session
    assert session.pending == 0
    assert set(session.confirmed) | set(session.rejected) == set(everything)
    assert up == set(session.confirmed)
    assert set(session.confirmed) <= subscribed
    assert not dead & set(session.confirmed)


def test_a_candle_push_is_passed_on_as_it_is() -> None:
    story = Story(A)
    events = story.hear(ack("kline", T0), kline("A_USDT", T0 + 400, contracts=12))
    assert isinstance(events[1], CandleUpdate)
    assert (events[1].event_time_ms, events[1].candle.contracts) == (T0 + 400, 12.0)
