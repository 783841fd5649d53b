"""Drives one session over one socket at a time, again and again, and is the only file that knows the WebSocket library.

A :class:`Connection` keeps its wishes over reconnects. Whatever happens to the socket becomes events in its batches: a
``StreamUp`` per stream that is delivered, a ``Gap`` per stream that was.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import socket as sockets
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import picows

from perpwatch.errors import (
    FIRST_DELAY_S,
    MAX_DELAY_S,
    ConnectionFailed,
    ConnectionLost,
    ExchangeError,
    ProtocolError,
    retry_delay,
)
from perpwatch.exchanges.adapter import Adapter, Limits
from perpwatch.feed.budget import Budget
from perpwatch.feed.outbox import Turns
from perpwatch.feed.ports import Dial, Socket
from perpwatch.feed.session import Session, SessionCounters
from perpwatch.model import Batch, Event, Stream

logger = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 10.0
#: Bytes of frames that may wait for us before the socket is no longer read, so that TCP slows the sender down.
MAX_WAITING_BYTES = 16 * 1024 * 1024
#: Frames handled before other tasks of the loop get their turn. With what they are decoded into they fit into the cache
#: of a core; with twice as many each costs 7 % more.
FRAMES_PER_TURN = 1_000
#: Frames of a read that are digested together from within it: with what becomes of them they stay in the cache.
FRAMES_AT_ONCE = 250
#: What the system may hold for a socket: enough for a megabyte a second over a line of 200 ms, and no more than a read
#: can bring without keeping the loop for long. It uses twice as much, its own records included.
HELD_BYTES = 208 * 1024
#: The library's buffer has room for all of it; one that is filled would grow, and never shrink.
READ_BYTES = 512 * 1024
USER_AGENT = "perpwatch"
#: The longest wait that a server can ask for.
MAX_RETRY_AFTER_S = 600.0


class Clock(Protocol):
    """Time as the shell sees it: monotonic seconds for waiting, wall nanoseconds for stamps."""

    def monotonic(self) -> float: ...
    def time_ns(self) -> int: ...


class SystemClock:
    """This machine's time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time_ns(self) -> int:
        return time.time_ns()


class State(enum.StrEnum):
    """Where a connection stands."""

    WAITING = "waiting"  # for its turn to dial, or for the end of a back-off
    DIALLING = "dialling"
    OPEN = "open"
    CLOSED = "closed"


# --- The library ---------------------------------------------------------------------------------------------------


def dial_with(*, proxy: str | None = None, max_frame_bytes: int = 4 * 1024 * 1024) -> Dial:
    """A ``dial`` over the network, through ``proxy`` when one is given (http, https, socks4 or socks5 address)."""

    async def dial(url: str) -> Socket:
        listener = _Listener(max_frame_bytes)
        try:
            await picows.ws_connect(
                lambda: listener,
                url,
                max_frame_size=max_frame_bytes,
                read_buffer_init_size=READ_BYTES,
                max_redirects=0,
                enable_auto_pong=False,  # the listener answers: it hears of the last frame of each read, whatever it is
                websocket_handshake_timeout=DIAL_TIMEOUT_S,
                extra_headers={"User-Agent": USER_AGENT},
                proxy=proxy,
            )
        except picows.WSInvalidStatusError as error:
            raise _refused_upgrade(url, error) from error
        except (picows.WSError, picows.WSInvalidURL) as error:
            raise ConnectionFailed(url, f"no WebSocket there: {error}") from error
        except ssl.SSLError as error:
            raise ConnectionFailed(url, f"TLS failed: {error.reason or error}") from error
        except sockets.gaierror as error:
            raise ConnectionFailed(url, f"the name does not resolve ({error.strerror}); is there a network?") from error
        except TimeoutError as error:
            raise ConnectionFailed(url, f"no answer within {DIAL_TIMEOUT_S:g} s") from error
        except OSError as error:
            raise ConnectionFailed(url, error.strerror or str(error)) from error
        return listener

    return dial


def _refused_upgrade(url: str, error: picows.WSInvalidStatusError) -> ConnectionFailed:
    response = error.response
    assert response is not None, "the library raises this error for a response"
    status = int(response.status)
    retry_after_s = retry_after(response.headers.get("Retry-After", ""))
    hints = {
        301: "it has moved; the address of today ends in /edge",
        403: "forbidden, often by region or because of too many connections",
        404: "no WebSocket at this path",
        429: "too many connections",
    }
    reason = f"the server answered HTTP {status}" + (f": {hints[status]}" if status in hints else "")
    return ConnectionFailed(url, reason, status=status, retry_after_s=retry_after_s)


def retry_after(header: str) -> float | None:
    """Seconds that a Retry-After header asks for; None for a date or nonsense. Nobody makes us wait for ever."""
    return min(float(header), MAX_RETRY_AFTER_S) if header.isascii() and header.isdigit() else None


#: A longer payload is data: frames that control the connection carry no more (RFC 6455, 5.5; the library sees to it).
MAX_CONTROL_BYTES = 125

# An enum's member by its name costs as much as the rest of a frame.
_TEXT, _BINARY, _CONTINUATION = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION
_CLOSE, _PING = picows.WSMsgType.CLOSE, picows.WSMsgType.PING


def _leave() -> None:
    """Let frames wait."""


class _Listener(picows.WSListener):
    """A picows listener as a :class:`Socket`: frames wait here until they are asked for, all at once."""

    def __init__(self, max_message_bytes: int) -> None:
        self.on_read: Callable[[], None] = _leave
        self._max_message_bytes = max_message_bytes
        self._frames: list[bytes] = []
        self._offered_at = FRAMES_AT_ONCE  # they are offered before the read ends when there are so many
        self._waiting_bytes = 0  # of the first frames that wait ...
        self._counted = 0  # ... which are so many
        self._parts: list[bytes] = []
        self._lost: ConnectionLost | None = None
        self._wake = asyncio.Event()
        self._transport: picows.WSTransport | None = None
        self._is_paused = False

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        line = transport.underlying_transport.get_extra_info("socket")
        line.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, HELD_BYTES)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        # Nearly every frame is a whole message, which its length tells; asking for its kind costs a third of all this.
        if len(payload) > MAX_CONTROL_BYTES and frame.fin and not self._parts:
            self._frames.append(payload)
        else:
            self._take_other(transport, frame, payload)
        if frame.last_in_buffer or len(self._frames) >= self._offered_at:
            self._offer(transport)

    def _take_other(self, transport: picows.WSTransport, frame: picows.WSFrame, payload: bytes) -> None:
        kind = frame.msg_type
        if kind is _TEXT and frame.fin:
            self._frames.append(payload)
        elif kind is _TEXT or kind is _BINARY or kind is _CONTINUATION:
            self._parts.append(payload)
            if frame.fin:
                self._frames.append(b"".join(self._parts))
                self._parts.clear()
            elif sum(map(len, self._parts)) > self._max_message_bytes:
                self._lost = ConnectionLost(f"a message of more than {self._max_message_bytes} bytes", 1009)
                transport.disconnect(graceful=False)
        elif kind is _CLOSE:
            code = frame.get_close_code().value
            reason = (frame.get_close_message() or b"").decode("utf-8", "replace") or "closed by the server"
            self._lost = ConnectionLost(reason, code or 1005)
            transport.disconnect()
        elif kind is _PING:
            transport.send_pong(payload)

    def _offer(self, transport: picows.WSTransport) -> None:
        """Offer what has come; where it has to wait, read no further once that is too much."""
        if self._frames:
            self.on_read()
        if not self._frames:
            return
        self._offered_at = sys.maxsize  # from now on once a read, because frames come in thousands
        self._wake.set()
        self._waiting_bytes += sum(map(len, self._frames[self._counted :]))
        self._counted = len(self._frames)
        if self._waiting_bytes > MAX_WAITING_BYTES and not self._is_paused:
            self._is_paused = True
            transport.underlying_transport.pause_reading()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._lost = self._lost or ConnectionLost("the line broke without a good-bye")
        self._wake.set()

    async def receive(self) -> list[bytes]:
        while not self._frames:
            if self._lost is not None:
                raise self._lost
            self._wake.clear()
            await self._wake.wait()
        return self.take()

    def take(self) -> list[bytes]:
        frames, self._frames = self._frames, []
        self._waiting_bytes = self._counted = 0
        self._offered_at = FRAMES_AT_ONCE
        if self._is_paused:
            self._is_paused = False
            self._resume()
        return frames

    def _resume(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_disconnected:
            transport.underlying_transport.resume_reading()

    def send(self, payload: bytes) -> None:
        if self._lost is None and self._transport is not None:
            self._transport.send(picows.WSMsgType.TEXT, payload)

    async def close(self) -> None:
        if self._transport is None or self._transport.is_disconnected:
            return
        if self._lost is None:
            self._transport.send_close(picows.WSCloseCode.OK)
        self._transport.disconnect(graceful=False)


# --- The driver ----------------------------------------------------------------------------------------------------

#: Takes a batch of one connection.
Sink = Callable[[Batch], None]


@dataclass(frozen=True, slots=True)
class Retries:
    """How a lost connection comes back: delays grow from ``first_s`` to ``cap_s``.

    After ``max_attempts`` failures in a row the connection gives up and its error ends the feed; 0 is never.
    """

    first_s: float = FIRST_DELAY_S
    cap_s: float = MAX_DELAY_S
    max_attempts: int = 0


class Connection:
    """One place in the pool: a name, what it should carry, and a socket when there is one.

    Args:
        source: its name in batches, logs and metrics.
        jitter: random numbers in [0, 1) for the back-off.
        retries: how patient to be.
        exchange_now_ms: the exchange's time, 0 while nobody knows it.
        dials: the budget of dials that the whole process shares.
        turns: when to decode a read and hand it over, so that connections do that one after the other.
    """

    def __init__(
        self,
        source: str,
        url: str,
        adapter: Adapter,
        limits: Limits,
        dial: Dial,
        clock: Clock,
        dials: Budget,
        jitter: Callable[[], float],
        sink: Sink,
        retries: Retries,
        turns: Turns,
        exchange_now_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self.source = source
        self.url = url
        self.state = State.WAITING
        self.wanted: dict[Stream, None] = {}
        self.session: Session | None = None
        self.opened_s: float | None = None
        self.reconnects = 0
        self.failures = 0  # in a row; 0 again with the first data frame
        self.total_failures = 0
        self.last_error: ExchangeError | None = None
        self.retry_at_s: float | None = None
        self.past = SessionCounters()  # of the sessions that have ended
        self.confirmed_at_end = 0  # streams that the last session had when it ended ...
        self.pending_at_end = 0  # ... and that it was still asking for
        self.bad_frames: deque[ProtocolError] = deque(maxlen=20)
        self.sessions_ended = 0
        self.batches = 0
        self._adapter = adapter
        self._limits = limits
        self._dial = dial
        self._clock = clock
        self._dials = dials
        self._jitter = jitter
        self._sink = sink
        self._retries = retries
        self._exchange_now_ms = exchange_now_ms
        self._turns = turns
        self._poke = asyncio.Event()
        self._restart: Exception | None = None  # why to give up the present socket
        self._is_taking = False  # frames of an earlier read are on their long way

    # --- What it should carry ---------------------------------------------------------------------------------------

    def subscribe(self, streams: Iterable[Stream]) -> None:
        streams = tuple(streams)
        self.wanted.update(dict.fromkeys(streams))
        if self.session is not None:
            self.session.subscribe(streams)
            self._poke.set()

    def unsubscribe(self, streams: Iterable[Stream]) -> None:
        streams = tuple(streams)
        for stream in streams:
            self.wanted.pop(stream, None)
        if self.session is not None:
            self.session.unsubscribe(streams)
            self._poke.set()

    def resubscribe(self, stream: Stream) -> None:
        """Ask again for a stream that is mute although its symbol trades."""
        if self.session is not None and stream in self.session.confirmed:
            self.session.resubscribe(stream)
            self._poke.set()

    def restart(self, reason: str) -> None:
        """Give up the present socket and dial anew."""
        self._restart = ConnectionLost(reason)
        self._poke.set()

    @property
    def confirmed(self) -> int:
        return len(self.session.confirmed) if self.session is not None else 0

    def counters(self) -> SessionCounters:
        """Totals over all sessions so far."""
        if self.session is None:
            return self.past
        return _sum(self.past, self.session.counters)

    # --- Its life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the connection alive until cancelled."""
        try:
            while True:
                await self._wait_for_turn()
                try:
                    await self._live_once()
                except ExchangeError as error:
                    self._note_failure(error)
        finally:
            self.state = State.CLOSED

    async def _wait_for_turn(self) -> None:
        self.state = State.WAITING
        now_s = self._clock.monotonic()
        if self.retry_at_s is not None:
            await asyncio.sleep(self.retry_at_s - now_s)
        await asyncio.sleep(self._dials.take(self._clock.monotonic()))
        self.retry_at_s = None

    def _note_failure(self, error: ExchangeError) -> None:
        self.last_error = error
        self.failures += 1
        self.total_failures += 1
        if self._retries.max_attempts and self.failures >= self._retries.max_attempts:
            raise error
        delay_s = retry_delay(
            error, self.failures, self._jitter(), first_s=self._retries.first_s, cap_s=self._retries.cap_s
        )
        assert delay_s is not None, "every failure of a connection is worth another try"
        self.retry_at_s = self._clock.monotonic() + delay_s
        logger.warning("%s: %s; next try in %.1f s", self.source, error, delay_s)

    async def _live_once(self) -> None:
        self.state = State.DIALLING
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                socket = await self._dial(self.url)
        except TimeoutError as error:
            raise ConnectionFailed(self.url, f"no answer within {DIAL_TIMEOUT_S:g} s") from error
        if self.opened_s is not None:
            self.reconnects += 1
        self.opened_s = now_s = self._clock.monotonic()
        self.state = State.OPEN
        self._restart = None
        self.session = Session(
            self._adapter, self._limits, self.source, now_s, self._exchange_now_ms(), bad_frames=self.bad_frames
        )
        self.session.subscribe(self.wanted)
        reason = "closed by us"
        try:
            await self._drive(self.session, socket)
        except ConnectionLost as lost:
            reason = lost.reason
            raise
        finally:
            await self._end(self.session, socket, reason)

    async def _end(self, session: Session, socket: Socket, reason: str) -> None:
        self.session = None
        self.past = _sum(self.past, session.counters)
        self.confirmed_at_end, self.pending_at_end = len(session.confirmed), session.pending
        self.sessions_ended += 1
        gaps = session.end(reason)
        try:
            if gaps:
                self._sink(Batch(self.source, self._clock.time_ns(), session.watermark_ms, gaps))
        finally:
            await socket.close()

    async def _drive(self, session: Session, socket: Socket) -> None:
        """Read and keep time until one of the two fails.

        Not a task group: that of Python 3.11, cancelled while a child fails, raises the failure alone, and the
        connection would dial on in the midst of a shutdown.
        """
        self._is_taking = False
        socket.on_read = partial(self._take_at_once, session, socket)
        tasks = [
            asyncio.create_task(self._read(session, socket)),
            asyncio.create_task(self._keep_time(session, socket)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            socket.on_read = _leave
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._restart is not None:
            raise self._restart  # before what came of it: a server's last words before the end of the line
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _read(self, session: Session, socket: Socket) -> None:
        while True:
            frames = await socket.receive()
            if self._restart is not None:
                return  # what is taken behind a failure would put the gap behind what was lost with it
            received_ns = self._clock.time_ns()
            self._is_taking = True
            for start in range(0, len(frames), FRAMES_PER_TURN):
                if start:
                    await asyncio.sleep(0)
                async with self._turns:
                    self._take(session, frames[start : start + FRAMES_PER_TURN], received_ns)
            self._is_taking = False
            if session.has_words:
                self._send(session, socket)

    def _take_at_once(self, session: Session, socket: Socket) -> None:
        """Take a read from within it, while nothing waits for its turn: no task is woken, and all is in the cache."""
        if self._is_taking or self._restart is not None or not self._turns.is_free:
            return
        try:
            self._take(session, socket.take(), self._clock.time_ns())
            if session.has_words:
                self._send(session, socket)
        except Exception as error:
            self._restart = error
            self._poke.set()

    def _take(self, session: Session, frames: Sequence[bytes], received_ns: int) -> None:
        events: list[Event] = []
        try:
            session.receive(frames, self._clock.monotonic(), events)
        finally:
            if self.failures and session.last_data_s:
                self.failures = 0  # data, not the handshake, proves that the way is free
            self.batches += 1
            batch = Batch(
                self.source, received_ns, session.watermark_ms, events, frames=session.origins, asides=session.asides
            )
            self._sink(batch)

    async def _keep_time(self, session: Session, socket: Socket) -> None:
        while True:
            self._poke.clear()  # before looking at what it was about, so that a poke meanwhile is not lost
            if self._restart is not None:
                raise self._restart
            events: list[Event] = []
            session.on_timer(self._clock.monotonic(), events)
            if events:
                self._sink(Batch(self.source, self._clock.time_ns(), session.watermark_ms, events))
            self._send(session, socket)
            try:
                async with asyncio.timeout(max(0.0, session.next_deadline() - self._clock.monotonic())):
                    await self._poke.wait()
            except TimeoutError:
                pass  # the deadline itself

    def _send(self, session: Session, socket: Socket) -> None:
        for frame in session.frames_to_send(self._clock.monotonic()):
            socket.send(frame)


def _sum(first: SessionCounters, second: SessionCounters) -> SessionCounters:
    return SessionCounters(**{name: getattr(first, name) + getattr(second, name) for name in SessionCounters.__slots__})
