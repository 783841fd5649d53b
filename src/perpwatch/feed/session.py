"""One connection's life as a state machine: subscribe, acknowledge, ping, silence, lifetime.

Synchronous and deterministic. The driver hands in frames and the time, sends what :meth:`Session.frames_to_send` gives,
and wakes the session at :meth:`Session.next_deadline`. Two clocks are arguments: ``now_s``, monotonic seconds, for
everything that waits; the exchange's own milliseconds, read from its frames, for everything that is said about data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from perpwatch.errors import ConnectionLost, ProtocolError, StaleConnection
from perpwatch.exchanges.adapter import Ack, Adapter, Ignored, Limits, Pong, Refusal, ServerPing
from perpwatch.model import (
    ByKind,
    CandleUpdate,
    ContractUpdate,
    Depth,
    Event,
    EventContractUpdate,
    FundingRate,
    Gap,
    Kind,
    ReferencePrice,
    Stream,
    StreamUp,
    Tickers,
    Trades,
)

#: Commands that may await their answer at once. Answers name no symbol and are told apart by order alone, so a small
#: window keeps what one missing answer puts in doubt small.
WINDOW = 8
#: A stream that was refused or never answered is asked for this often before it is reported.
MAX_TRIES = 3
#: A frame whose exchange time runs ahead of what the connection's own frames and our monotonic clock allow is absurd.
MAX_AHEAD_MS = 60_000
#: The same for the first frame, against the time that other connections have told: wide, because clocks are set.
MAX_FIRST_AHEAD_MS = 3_600_000
#: Bad frames kept for inspection, per session.
KEPT_BAD_FRAMES = 20

_WORD_OF = ByKind(
    CandleUpdate, Trades, Tickers, Depth, FundingRate, ReferencePrice, ContractUpdate, EventContractUpdate
)


@dataclass(slots=True)
class _Command:
    """A subscription whose answer is still to come.

    ``is_settled`` when nothing hangs on the answer any more (data has confirmed the stream, or nobody wants it). Such
    a command stays in the line all the same: its answer names no symbol and would be taken for that of the next.
    """

    stream: Stream
    channel: str
    sent_s: float
    is_settled: bool = False


@dataclass(slots=True)
class SessionCounters:
    frames: int = 0
    data_frames: int = 0
    bad_frames: int = 0
    acks: int = 0
    refusals: int = 0
    unanswered: int = 0
    pings: int = 0
    pongs: int = 0


@dataclass(slots=True)
class Session:
    """What one connection wants, has and awaits."""

    adapter: Adapter
    limits: Limits
    source: str
    opened_s: float
    opened_ms: int = 0  # the exchange's time at that moment, as others know it; 0 when nobody does
    counters: SessionCounters = field(default_factory=SessionCounters)
    bad_frames: deque[ProtocolError] = field(default_factory=lambda: deque(maxlen=KEPT_BAD_FRAMES))
    confirmed: dict[Stream, None] = field(default_factory=dict)
    rejected: dict[Stream, str] = field(default_factory=dict)  # given up, with the reason
    watermark_ms: int = 0
    last_frame_s: float = 0.0
    last_data_s: float = 0.0  # 0 until the first data frame
    origins: list[bytes] = field(default_factory=list)  # of the last read: see Batch.frames
    asides: list[bytes] = field(default_factory=list)  # of the last read: see Batch.asides
    _queue: deque[tuple[Stream, bool]] = field(default_factory=deque)  # (stream, wanted), not yet sent
    _awaiting: deque[_Command] = field(default_factory=deque)  # subscriptions sent, oldest first
    _by_order: dict[Stream, int] = field(default_factory=dict)  # confirmed by an answer alone since the line was empty
    _tries: dict[Stream, tuple[int, int]] = field(default_factory=dict)  # failures, and the confirmed at the first
    _doubted: dict[Stream, None] = field(default_factory=dict)  # were confirmed and are asked for again
    _up: dict[Stream, None] = field(default_factory=dict)  # said to be up, and not said to be down since
    _window: int = WINDOW
    _next_command_s: float = 0.0
    _next_ping_s: float = 0.0
    _last_pong_s: float = 0.0
    _watermark_s: float = 0.0  # monotonic time at which the watermark was set
    _replies: list[bytes] = field(default_factory=list)
    _decode: Callable[[bytes], Any] = field(init=False)
    _decode_all: Callable[[Sequence[bytes]], list[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._decode, self._decode_all = self.adapter.decode, self.adapter.decode_all
        self.last_frame_s = self._last_pong_s = self.opened_s
        # The first ping goes out at once: its pong tells the exchange's time before any data does.
        self._next_ping_s = self._next_command_s = self.opened_s

    # --- Wishes -----------------------------------------------------------------------------------------------------

    def subscribe(self, streams: Iterable[Stream]) -> None:
        """Ask for streams; those that are already asked for are left alone."""
        asked = self._asked()
        self._queue.extend((stream, True) for stream in streams if stream not in asked)

    def unsubscribe(self, streams: Iterable[Stream]) -> None:
        """Stop streams. No answer is awaited: whether the exchange sends one is not established."""
        for stream in streams:
            awaited = [command for command in self._awaiting if command.stream == stream and not command.is_settled]
            was_sent = stream in self.confirmed or bool(awaited) or (stream, False) in self._queue
            self._queue = deque(item for item in self._queue if item[0] != stream)
            for command in awaited:
                command.is_settled = True
            self.confirmed.pop(stream, None)
            self.rejected.pop(stream, None)
            self._tries.pop(stream, None)
            self._by_order.pop(stream, None)
            self._up.pop(stream, None)
            self._doubted.pop(stream, None)
            if was_sent:
                self._queue.append((stream, False))

    def resubscribe(self, stream: Stream) -> None:
        """Ask again for a stream that is confirmed but mute."""
        self.confirmed.pop(stream, None)
        self._by_order.pop(stream, None)
        self._queue.appendleft((stream, True))
        self._queue.appendleft((stream, False))

    def _asked(self) -> set[Stream]:
        waiting = {stream for stream, wanted in self._queue if wanted}
        awaited = {command.stream for command in self._awaiting if not command.is_settled}
        return waiting | awaited | self.confirmed.keys() | self.rejected.keys()

    @property
    def pending(self) -> int:
        """Subscriptions that are asked for and not confirmed."""
        awaited = sum(not command.is_settled for command in self._awaiting)
        return awaited + sum(wanted for _, wanted in self._queue)

    @property
    def has_words(self) -> bool:
        """Something is to be said, at once or as soon as the limits allow."""
        return bool(self._replies or self._queue)

    # --- Receiving --------------------------------------------------------------------------------------------------

    def receive(self, frames: Sequence[bytes], now_s: float, events: list[Event]) -> None:
        """Take frames in order; what they mean to others is appended to ``events``.

        A frame that cannot be understood is counted, kept and skipped; the streams it may have belonged to get a gap.

        Raises:
            ConnectionLost: the server announced that it hangs up.
        """
        if not self._receive_plain(frames, now_s, events):
            self._receive_any(frames, now_s, events)

    def _receive_plain(self, frames: Sequence[bytes], now_s: float, events: list[Event]) -> bool:
        """Take frames that all are data, believable and awaited by nobody, which is what nearly every read brings.

        Returns False, and has done nothing, when there is more to them. Looking at a read as a whole saves a fifth of
        what the program spends on a frame.
        """
        if not frames or not self.watermark_ms or self._awaiting:
            return False
        try:
            messages = self._decode_all(frames)
        except ProtocolError:
            return False
        word_of = _WORD_OF
        if any(word_of[kind] is None for kind in set(map(type, messages))):
            return False
        newest_ms = max([message.event_time_ms for message in messages])
        if newest_ms > self._latest_believable_ms(now_s):
            return False
        self.origins = [b""] * len(events)
        self.origins += frames
        self.asides = []
        events += messages
        self.counters.frames += len(frames)
        self.counters.data_frames += len(frames)
        self.last_data_s = self.last_frame_s = now_s
        if newest_ms > self.watermark_ms:
            self.watermark_ms = newest_ms
            self._watermark_s = now_s
        return True

    def _receive_any(self, frames: Sequence[bytes], now_s: float, events: list[Event]) -> None:
        decode, word_of = self._decode, _WORD_OF
        watermark_ms = self.watermark_ms
        # One bound per read, not per frame: frames of one read were sent within moments of each other.
        latest_ms = self._latest_believable_ms(now_s)
        self.counters.frames += len(frames)
        data_frames = 0
        self.origins = origins = [b""] * len(events)
        self.asides = asides = []
        for frame in frames:
            try:
                message = decode(frame)
            except ProtocolError as error:
                self._keep_bad_frame(error, watermark_ms, events)
                asides.append(frame)
                continue
            if word_of[type(message)] is not None:
                event_time_ms = message.event_time_ms
                if event_time_ms > watermark_ms:
                    if event_time_ms > latest_ms:
                        absurd = (
                            f"absurd timestamp {event_time_ms}: {event_time_ms - watermark_ms} ms after its neighbours"
                        )
                        self._keep_bad_frame(ProtocolError(absurd, frame), watermark_ms, events)
                        asides.append(frame)
                        continue
                    if not watermark_ms:
                        latest_ms = event_time_ms + MAX_AHEAD_MS
                    watermark_ms = event_time_ms
                data_frames += 1
                if self._awaiting:
                    self._confirm_by_data(message, events)
                if len(origins) < len(events):
                    origins += [b""] * (len(events) - len(origins))  # what the session itself has said since
                events.append(message)
                origins.append(frame)
            else:
                asides.append(frame)
                told_ms = self._control(message, now_s, watermark_ms, latest_ms, events)
                if told_ms and not watermark_ms:
                    latest_ms = told_ms + MAX_AHEAD_MS
                watermark_ms = max(watermark_ms, told_ms)
        if data_frames:
            self.counters.data_frames += data_frames
            self.last_data_s = now_s
        self.last_frame_s = now_s
        if watermark_ms > self.watermark_ms:
            self.watermark_ms = watermark_ms
            self._watermark_s = now_s

    def _latest_believable_ms(self, now_s: float) -> int:
        if self.watermark_ms:
            return self.watermark_ms + MAX_AHEAD_MS + int((now_s - self._watermark_s) * 1_000)
        if self.opened_ms:
            return self.opened_ms + MAX_FIRST_AHEAD_MS + int((now_s - self.opened_s) * 1_000)
        return 1 << 62

    def _control(self, message: object, now_s: float, watermark_ms: int, latest_ms: int, events: list[Event]) -> int:
        """React to a frame that carries no data; returns its exchange time, 0 when it has none worth having."""
        event_time_ms: int | None = None
        match message:
            case Pong(server_time_ms=server_time_ms):
                self.counters.pongs += 1
                self._last_pong_s = now_s
                event_time_ms = server_time_ms
            case Ack(channel=channel):
                event_time_ms = message.event_time_ms
                self._acknowledged(channel, now_s, event_time_ms or watermark_ms, events)
            case Refusal(text=text, symbol=symbol):
                if message.closes_connection:
                    raise ConnectionLost(text)
                self._refused(text, symbol, events)
            case ServerPing(reply=reply):
                self._replies.append(reply)
            case Ignored():
                event_time_ms = message.event_time_ms
            case _:
                raise AssertionError(f"the adapter returned {message!r}, which is no message")
        return event_time_ms if event_time_ms is not None and event_time_ms <= latest_ms else 0

    def _acknowledged(self, channel: str, now_s: float, event_time_ms: int, events: list[Event]) -> None:
        for command in self._awaiting:
            if command.channel == channel:
                self.counters.acks += 1
                self._awaiting.remove(command)
                if not command.is_settled:
                    self._by_order[command.stream] = event_time_ms
                    self._confirm(command.stream, event_time_ms, events)
                if not self._awaiting:
                    self._by_order.clear()  # as many answers as commands: every one went to its own
                return
        # An answer that nobody waits for. Nothing hangs on it.

    def _confirm(self, stream: Stream, event_time_ms: int, events: list[Event]) -> None:
        self.confirmed[stream] = self._up[stream] = None
        self._tries.pop(stream, None)
        self._doubted.pop(stream, None)
        events.append(StreamUp(stream, self.source, event_time_ms))

    def _confirm_by_data(self, message: object, events: list[Event]) -> None:
        """Data of an awaited stream is a better confirmation than an answer without a name."""
        match message:
            case CandleUpdate(candle=candle):
                stream = Stream(Kind.CANDLES, candle.symbol, candle.timeframe.value)
            case Trades(symbol=symbol):
                stream = Stream(Kind.TRADES, symbol)
            case _:
                return
        self._by_order.pop(stream, None)
        for command in self._awaiting:
            if command.stream == stream and not command.is_settled:
                command.is_settled = True
                # Good from the frame before: this one is already part of it.
                self._confirm(stream, message.event_time_ms, events)
                return

    def _refused(self, text: str, symbol: str | None, events: list[Event]) -> None:
        self.counters.refusals += 1
        for command in self._awaiting:
            if symbol is None or command.stream.symbol == symbol:
                self._awaiting.remove(command)
                if not command.is_settled:
                    self._try_again(command.stream, text)
                elif command.stream in self.confirmed:
                    # What seemed to confirm it was the last of an earlier subscription.
                    self._doubt(command.stream, self.watermark_ms, events)
                    self._try_again(command.stream, text)
                return

    def _try_again(self, stream: Stream, reason: str, *, is_next: bool = False) -> None:
        tries, confirmed_then = self._tries.get(stream, (0, len(self.confirmed)))
        if tries + 1 < MAX_TRIES:
            self._tries[stream] = tries + 1, confirmed_then
        elif len(self.confirmed) > confirmed_then:
            # Others got in meanwhile, so this is bad luck and not a limit: it deserves as many tries as a new one.
            self._tries[stream] = 1, len(self.confirmed)
        else:
            self._tries.pop(stream, None)
            self.rejected[stream] = reason
            return
        if is_next:
            behind = 0
            while behind < len(self._queue) and self._queue[behind][0] in self._doubted:
                behind += 1
            self._queue.insert(behind, (stream, True))
        else:
            self._queue.append((stream, True))

    def _doubt(self, stream: Stream, since_ms: int, events: list[Event]) -> None:
        del self.confirmed[stream]
        self._up.pop(stream, None)
        events.append(Gap(stream, self.source, since_ms, None, "subscription in doubt"))

    def _keep_bad_frame(self, error: ProtocolError, watermark_ms: int, events: list[Event]) -> None:
        self.counters.bad_frames += 1
        self.bad_frames.append(error)
        # What it said is lost. Its channel and symbol can often still be read; else it may have been about anything.
        frame, start_ms = error.frame, watermark_ms
        of_channel = [stream for stream in self._up if self.adapter.channel(stream).encode() in frame]
        of_symbol = [stream for stream in self._up if stream.symbol and stream.symbol.encode() in frame]
        suspects = [stream for stream in of_channel if stream.symbol.encode() in frame] or of_symbol or of_channel
        events.extend(
            Gap(stream, self.source, start_ms, start_ms + 1, f"unreadable frame: {error.reason}")
            for stream in suspects or self._up
        )

    # --- Time -------------------------------------------------------------------------------------------------------

    def on_timer(self, now_s: float, events: list[Event]) -> None:
        """Check what time has brought: pings, silence, answers that never came.

        Raises:
            StaleConnection: the server no longer answers pings.
        """
        # The same sums as in next_deadline: a difference can fall short of the limit by a rounding, for ever.
        if now_s >= self._last_pong_s + self.limits.pong_timeout_s:
            raise StaleConnection(now_s - self._last_pong_s, "answer to our pings")
        overdue = [command for command in self._awaiting if now_s >= command.sent_s + self.limits.ack_timeout_s]
        if overdue:
            for command in reversed(overdue):
                self._awaiting.remove(command)
                if not command.is_settled:
                    self.counters.unanswered += 1
                    reason = f"no answer within {self.limits.ack_timeout_s:g} s"
                    # Before all but those in doubt: a limit that is met with silence takes three time outs to find.
                    self._try_again(command.stream, reason, is_next=True)
            self._distrust_order(events)

    def _distrust_order(self, events: list[Event]) -> None:
        """An answer is missing: those since the line was last empty may have belonged to others. Ask again singly."""
        for stream, event_time_ms in reversed(self._by_order.items()):
            if stream in self.confirmed:
                self._doubt(stream, event_time_ms, events)
                self._doubted[stream] = None
                self._queue.appendleft((stream, True))
        self._by_order.clear()
        self._window = 1

    def frames_to_send(self, now_s: float) -> list[bytes]:
        """What is due now, in order."""
        frames, self._replies = self._replies, []
        if now_s >= self._next_ping_s:
            # Not tied to data: the server closes after 60 s without a ping even while data flows.
            self._next_ping_s = now_s + self.limits.ping_interval_s
            self.counters.pings += 1
            frames.append(self.adapter.ping())
            self._next_command_s = max(self._next_command_s, now_s) + 1.0 / self.limits.commands_per_second
        while self._queue and now_s >= self._next_command_s:
            stream, wanted = self._queue[0]
            if wanted and len(self._awaiting) >= self._window:
                break
            self._queue.popleft()
            self._next_command_s = max(self._next_command_s, now_s) + 1.0 / self.limits.commands_per_second
            if wanted:
                self._awaiting.append(_Command(stream, self.adapter.channel(stream), now_s))
                frames.append(self.adapter.subscribe(stream))
            else:
                frames.append(self.adapter.unsubscribe(stream))
        return frames

    def next_deadline(self) -> float:
        """When the session wants to be woken at the latest, in monotonic seconds."""
        deadline = min(self._next_ping_s, self._last_pong_s + self.limits.pong_timeout_s)
        if self._awaiting:
            deadline = min(deadline, self._awaiting[0].sent_s + self.limits.ack_timeout_s)
        if self._queue and (len(self._awaiting) < self._window or not self._queue[0][1]):
            deadline = min(deadline, self._next_command_s)
        return deadline

    # --- The end ----------------------------------------------------------------------------------------------------

    def end(self, reason: str) -> list[Event]:
        """The connection is gone: everything it carried has a gap from the last thing it delivered."""
        return [Gap(stream, self.source, self.watermark_ms, None, reason) for stream in self._up]
