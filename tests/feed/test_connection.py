"""Connections over real sockets on the loopback, against a server that misbehaves as it is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import WSMsgType, web
from feed_frames import ADAPTER, T0, ack, candles, kline, pong, refusal
from msgspec.structs import replace

from perpwatch.errors import ConnectionFailed, ConnectionLost
from perpwatch.exchanges.mexc.limits import LIMITS
from perpwatch.feed.budget import Budget
from perpwatch.feed.connection import FRAMES_AT_ONCE, Connection, Retries, State, SystemClock, dial_with, retry_after
from perpwatch.feed.outbox import Outbox, Turns
from perpwatch.feed.ports import Socket
from perpwatch.model import Batch, CandleUpdate, Event, Gap, StreamUp

A, B = candles("A_USDT", "B_USDT")
Behaviour = Callable[[web.WebSocketResponse], Awaitable[None]]


class Server:
    """Counts dials and lets ``behave`` do what it likes with each accepted socket."""

    def __init__(self, behave: Behaviour, refuse: web.Response | None = None) -> None:
        self.dials = 0
        self.url = ""
        self._behave = behave
        self._refuse = refuse
        self._dialled = asyncio.Condition()

    async def dialled(self, times: int) -> None:
        """Wait for so many dials."""
        async with self._dialled:
            await self._dialled.wait_for(lambda: self.dials >= times)

    async def accept(self, request: web.Request) -> web.StreamResponse:
        self.dials += 1
        async with self._dialled:
            self._dialled.notify_all()
        if self._refuse is not None:
            return web.Response(status=self._refuse.status, headers=self._refuse.headers)
        ws = web.WebSocketResponse(autoping=True)
        await ws.prepare(request)
        await self._behave(ws)
        return ws


async def stay(ws: web.WebSocketResponse) -> None:
    async for _ in ws:
        pass


async def answer(ws: web.WebSocketResponse) -> None:
    async for message in ws:
        await ws.send_bytes(b"") if message.type is WSMsgType.BINARY else None
        if b"ping" in message.data.encode():
            await ws.send_str(pong(T0).decode())
        elif '"sub.' in message.data:
            await ws.send_str(ack("kline", T0).decode())


@asynccontextmanager
async def serving(behave: Behaviour = stay, refuse: web.Response | None = None) -> AsyncIterator[Server]:
    server = Server(behave, refuse)
    app = web.Application()
    app.router.add_get("/edge", server.accept)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"ws://{host}:{port}/edge"
    try:
        async with asyncio.timeout(10):
            yield server
    finally:
        await runner.cleanup()


async def frames_of(ws: Socket, count: int) -> list[bytes]:
    frames: list[bytes] = []
    async with asyncio.timeout(5):
        while len(frames) < count:
            frames += await ws.receive()
    return frames


# --- The socket ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (301, {"Location": "/elsewhere"}, "it has moved"),
        (403, {}, "forbidden"),
        (404, {}, "no WebSocket at this path"),
        (429, {"Retry-After": "17"}, "too many connections"),
        (503, {}, "HTTP 503"),
    ],
)
async def test_a_refused_upgrade_says_what_it_means(status: int, headers: dict[str, str], expected: str) -> None:
    async with serving(refuse=web.Response(status=status, headers=headers)) as server:
        with pytest.raises(ConnectionFailed, match=expected) as caught:
            await dial_with()(server.url)
    assert caught.value.status == status
    assert caught.value.retry_after_s == (17.0 if status == 429 else None)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("\u00b2", None),
        ("-1", None),
        ("9" * 400, 600.0),
    ],
)
def test_nobody_makes_us_wait_for_ever(header: str, seconds: float | None) -> None:
    assert retry_after(header) == seconds


async def test_a_port_where_nobody_listens_is_a_failed_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionFailed, match=r"cannot connect to ws://127\.0\.0\.1"):
            await dial_with()(f"ws://127.0.0.1:{port}/edge")


async def test_something_that_speaks_no_http_is_a_failed_connection() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionFailed):
            await dial_with()(f"ws://127.0.0.1:{port}/edge")


@pytest.mark.parametrize("times", [1, 60])  # shorter and longer than a control frame may be
async def test_text_binary_and_fragmented_frames_arrive_whole_and_in_order(times: int) -> None:
    def fragment(head: int, payload: bytes) -> bytes:
        size = len(payload)
        return bytes((head, size)) + payload if size < 126 else bytes((head, 126)) + size.to_bytes(2, "big") + payload

    async def send(ws: web.WebSocketResponse) -> None:
        writer = ws._writer
        assert writer is not None
        await ws.send_str("one" * times)
        await ws.send_bytes(b"\x1f\x8btwo" * times)
        # aiohttp sends no fragments by itself: FIN off and opcode text, then a ping in between, then the last.
        writer.transport.write(fragment(0x01, b"thr" * times) + b"\x89\x00" + fragment(0x80, b"ee" * times))
        await ws.send_str("four" * times)
        await stay(ws)

    async with serving(send) as server:
        ws = await dial_with()(server.url)
        expected = [b"one" * times, b"\x1f\x8btwo" * times, b"thr" * times + b"ee" * times, b"four" * times]
        assert await frames_of(ws, 4) == expected
        await ws.close()
        await ws.close()


async def test_a_frame_that_comes_together_with_a_ping_is_not_kept_waiting_and_the_ping_is_answered() -> None:
    answers: list[bytes] = []

    async def send(ws: web.WebSocketResponse) -> None:
        writer = ws._writer
        assert writer is not None
        ws._autoping = False  # it would take the answer for itself
        writer.transport.write(b"\x81\x03one" + b"\x89\x02hi")  # one segment, the ping last
        answers.extend([(await ws.receive()).data])

    async with serving(send) as server:
        ws = await dial_with()(server.url)
        assert await frames_of(ws, 1) == [b"one"]
        while not answers:
            await asyncio.sleep(0.01)
        assert answers == [b"hi"]
        await ws.close()


async def test_a_read_can_be_taken_from_within_it_and_what_is_left_is_received() -> None:
    go = asyncio.Event()

    async def send(ws: web.WebSocketResponse) -> None:
        await go.wait()
        await ws.send_str("one")
        await ws.receive()
        await ws.send_str("two")
        await stay(ws)

    async with serving(send) as server:
        ws, taken = await dial_with()(server.url), list[bytes]()

        def take_first() -> None:
            taken.extend(ws.take() if not taken else ())
            ws.send(b"more")

        ws.on_read = take_first
        receiving = asyncio.create_task(frames_of(ws, 1))
        await asyncio.sleep(0)
        go.set()
        assert await receiving == [b"two"]
        assert taken == [b"one"]
        await ws.close()


async def test_a_rush_is_digested_bit_by_bit_and_in_order() -> None:
    frames = [b"%-300d" % number for number in range(20_000)]

    async def send(ws: web.WebSocketResponse) -> None:
        writer = ws._writer
        assert writer is not None
        writer.transport.write(b"".join(b"\x81\x7e" + len(one).to_bytes(2, "big") + one for one in frames))
        await stay(ws)

    async with serving(send) as server:
        ws, taken = await dial_with()(server.url), list[list[bytes]]()
        received = await ws.receive()  # what came before anybody listened
        ws.on_read = lambda: taken.append(ws.take())
        while len(received) + sum(map(len, taken)) < len(frames):
            await asyncio.sleep(0.01)
        assert received + [frame for some in taken for frame in some] == frames
        assert max(map(len, taken)) <= FRAMES_AT_ONCE
        await ws.close()


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [(1001, b"maintenance", (1001, "maintenance")), (1003, b"", (1003, "closed by the server"))],
)
async def test_a_close_frame_is_told_after_the_frames_before_it(
    code: int, message: bytes, expected: tuple[int, str]
) -> None:
    async def close(ws: web.WebSocketResponse) -> None:
        await ws.send_str("last")
        await ws.close(code=code, message=message)

    async with serving(close) as server:
        ws = await dial_with()(server.url)
        assert await frames_of(ws, 1) == [b"last"]
        with pytest.raises(ConnectionLost) as caught:
            await frames_of(ws, 1)
        assert (caught.value.code, caught.value.reason) == expected
        ws.send(b"into the void")
        await ws.close()


async def test_a_close_frame_without_status_is_1005_and_a_cut_line_1006() -> None:
    async def close(ws: web.WebSocketResponse) -> None:
        writer = ws._writer
        assert writer is not None
        if server.dials == 1:
            writer.transport.write(b"\x88\x00")
            await stay(ws)
        else:
            writer.transport.abort()

    async with serving(close) as server:
        codes = []
        for _ in range(2):
            ws = await dial_with()(server.url)
            with pytest.raises(ConnectionLost) as caught:
                await frames_of(ws, 1)
            codes.append(caught.value.code)
            await ws.close()
        assert codes == [1005, 1006]


@pytest.mark.parametrize("fragments", [1, 20])
async def test_a_message_beyond_the_limit_ends_the_connection(fragments: int) -> None:
    async def send(ws: web.WebSocketResponse) -> None:
        writer = ws._writer
        assert writer is not None
        if fragments == 1:
            await ws.send_str("x" * 5_000)
        for number in range(fragments - 1):
            writer.transport.write(b"\x00\x7d" + b"x" * 125 if number else b"\x01\x7d" + b"x" * 125)
        await stay(ws)

    async with serving(send) as server:
        ws = await dial_with(max_frame_bytes=1_000)(server.url)
        with pytest.raises(ConnectionLost):
            await frames_of(ws, 99)
        await ws.close()


# --- The connection --------------------------------------------------------------------------------------------------


class Life:
    """A connection in the background and everything it delivered."""

    def __init__(
        self,
        url: str,
        limits: dict[str, float] | None = None,
        retries: Retries | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.events: list[Event] = []
        self.batches: list[Batch] = []
        quick = replace(LIMITS, **{"commands_per_second": 1e3, **(limits or {})})
        self.connection = Connection(
            "ws-1",
            url,
            ADAPTER,
            quick,
            dial_with(),
            SystemClock(),
            Budget(1_000.0),
            lambda: 0.5,
            self._take,
            retries or Retries(first_s=0.02, cap_s=0.32),
            turns or Turns(),
        )
        self.connection.subscribe([A])
        self._news = asyncio.Event()

    def _take(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.events += batch.events
        self._news.set()

    async def __aenter__(self) -> Life:
        self.task = asyncio.create_task(self.connection.run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        assert self.connection.state is State.CLOSED

    async def until(self, kind: type[Event], count: int = 1) -> None:
        while sum(isinstance(event, kind) for event in self.events) < count:
            self._news.clear()
            await self._news.wait()


async def test_a_connection_subscribes_delivers_and_says_good_bye_with_a_gap() -> None:
    async def push(ws: web.WebSocketResponse) -> None:
        async for message in ws:
            if "sub.kline" in message.data:
                await ws.send_str(ack("kline", T0).decode())
                await ws.send_str(kline("A_USDT", T0 + 500, contracts=3).decode())

    async with serving(push) as server:
        async with Life(server.url) as life:
            await life.until(CandleUpdate)
        kinds = [type(event) for event in life.events]
        assert [kinds[0], kinds[-1]] == [StreamUp, Gap]
        assert life.events[-1] == Gap(A, "ws-1", T0 + 500, None, "closed by us")
        assert server.dials == 1


async def test_back_off_grows_while_handshakes_succeed_and_no_data_comes() -> None:
    """A server that accepts and closes: 1,137 dials a second were measured in a library that resets on connect."""

    async def close(ws: web.WebSocketResponse) -> None:
        await ws.send_str(pong(T0).decode())
        await ws.close(code=1001)

    async with serving(close) as server, Life(server.url) as life:
        await asyncio.sleep(0.5)
        # Delays of half of 20, 40, 80, 160, 320, 320 ms: five or six dials in half a second.
        assert 3 <= server.dials <= 7
        assert life.connection.failures == life.connection.total_failures >= 3


async def test_back_off_starts_anew_with_the_first_data() -> None:
    async def push_and_close(ws: web.WebSocketResponse) -> None:
        await ws.send_str(kline("A_USDT", T0).decode())
        await ws.close(code=1001)

    async with serving(push_and_close) as server, Life(server.url) as life:
        await life.until(CandleUpdate, 6)
        assert life.connection.failures <= 1
        assert life.connection.total_failures >= 5
        assert server.dials >= 6


async def test_every_reconnect_is_told_as_gap_and_stream_up() -> None:
    async def cut(ws: web.WebSocketResponse) -> None:
        async for message in ws:
            if "sub.kline" in message.data:
                await ws.send_str(ack("kline", T0 + server.dials * 1_000).decode())
                if server.dials < 3:
                    await ws.close(code=1001)
                    return

    async with serving(cut) as server, Life(server.url) as life:
        await life.until(StreamUp, 3)
        assert [type(event) for event in life.events] == [StreamUp, Gap, StreamUp, Gap, StreamUp]
        assert [event.start_time_ms for event in life.events if isinstance(event, Gap)] == [T0 + 1_000, T0 + 2_000]
        assert life.connection.reconnects == 2
        assert life.connection.counters().acks == 3


async def test_a_mute_server_is_left_and_dialled_anew() -> None:
    async with serving(stay) as server, Life(server.url, {"pong_timeout_s": 0.1, "ping_interval_s": 0.05}) as life:
        async with asyncio.timeout(5):
            await server.dialled(2)
        assert str(life.connection.last_error).startswith("connection lost: no answer to our pings")


async def test_a_connection_can_be_told_to_begin_anew_and_to_carry_more() -> None:
    async with serving(answer) as server, Life(server.url) as life:
        await life.until(StreamUp)
        life.connection.subscribe([B])
        await life.until(StreamUp, 2)
        life.connection.restart("tired")
        await life.until(StreamUp, 4)
        assert server.dials == 2
        gaps = [event for event in life.events if isinstance(event, Gap)]
        assert [(gap.stream, gap.reason) for gap in gaps] == [(A, "tired"), (B, "tired")]
        life.connection.unsubscribe([A])
        assert list(life.connection.wanted) == [B]


async def events_of_last_words(*behind: bytes, tail: bytes = b"") -> list[Event]:
    """What a connection tells of a server that announces its end and says more in the same breath."""
    said = [refusal("will close the channel", T0 + 200), *behind]
    go = asyncio.Event()

    async def push(ws: web.WebSocketResponse) -> None:
        async for message in ws:
            if "sub.kline" in message.data:
                await ws.send_str(ack("kline", T0).decode())
                await ws.send_str(kline("A_USDT", T0 + 100).decode())
                await go.wait()
                writer = ws._writer
                assert writer is not None
                heads = [
                    bytes((0x81, len(one))) if len(one) < 126 else b"\x81\x7e" + len(one).to_bytes(2, "big")
                    for one in said
                ]
                writer.transport.write(b"".join(map(b"".join, zip(heads, said, strict=True))) + tail)
                await stay(ws)

    async with serving(push) as server, Life(server.url, retries=Retries(first_s=9.0)) as life:
        await life.until(CandleUpdate)
        go.set()
        await life.until(Gap)
    return life.events


async def test_last_words_are_the_reason_although_the_line_ends_in_the_same_read() -> None:
    events = await events_of_last_words(tail=b"\x88\x02\x03\xe9")
    assert [event.reason for event in events if isinstance(event, Gap)] == ["will close the channel"]


async def test_nothing_behind_last_words_is_taken_so_that_the_gap_begins_before_them() -> None:
    behind = [pong(T0 + 300)] * (FRAMES_AT_ONCE - 1) + [kline("A_USDT", T0 + 9_000)] * 9
    events = await events_of_last_words(*behind)
    assert [event.start_time_ms for event in events if isinstance(event, Gap)] == [T0 + 100]
    assert sum(isinstance(event, CandleUpdate) for event in events) == 1


async def test_attempts_can_be_limited() -> None:
    async with serving(refuse=web.Response(status=403)) as server:
        life = Life(server.url, retries=Retries(first_s=0.01, cap_s=0.01, max_attempts=3))
        with pytest.raises(ConnectionFailed, match="forbidden"):
            await life.connection.run()
        assert server.dials == 3


async def test_a_consumer_that_is_behind_when_the_line_breaks_gets_the_gap_from_what_it_had() -> None:
    """What waits undecoded is lost with the session; the gap must not begin behind it."""
    release, outbox = asyncio.Event(), Outbox(max_events=1)

    async def push(ws: web.WebSocketResponse) -> None:
        async for message in ws:
            if "sub.kline" in message.data:
                await ws.send_str(ack("kline", T0).decode())
                await ws.send_str(kline("A_USDT", T0 + 100).decode())
                await release.wait()
                await ws.send_str(kline("A_USDT", T0 + 9_000).decode())
                await stay(ws)

    async with serving(push) as server:
        async with Life(server.url, turns=outbox.turns) as life:
            await life.until(CandleUpdate)
            outbox.put(life.batches[-1])
            release.set()
            while not outbox.turns._lock.locked():  # until the read has come and waits for room
                await asyncio.sleep(0.01)
            life.connection.restart("test")
            await life.until(Gap)
        gap = next(event for event in life.events if isinstance(event, Gap))
        assert gap.start_time_ms == T0 + 100


class DoomedSocket:
    """Loses its line when told to."""

    def __init__(self) -> None:
        self.on_read: Callable[[], None] = lambda: None
        self.doom = asyncio.Event()
        self.is_closed = False

    def take(self) -> list[bytes]:
        return []

    async def receive(self) -> list[bytes]:
        await self.doom.wait()
        raise ConnectionLost("doomed")

    def send(self, payload: bytes) -> None:
        pass

    async def close(self) -> None:
        self.is_closed = True


async def test_a_connection_that_is_cancelled_while_its_line_breaks_ends() -> None:
    """The failure must not swallow the cancellation, or the program dials on while it shuts down."""
    life, doomed, dialled = Life("ws://nowhere/edge"), DoomedSocket(), asyncio.Event()

    async def dial(url: str) -> Socket:
        dialled.set()
        return doomed

    life.connection._dial = dial
    task = asyncio.create_task(life.connection.run())
    await dialled.wait()
    await asyncio.sleep(0.01)
    assert life.connection.state is State.OPEN
    doomed.doom.set()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=1)
    task.cancel()
    assert done == {task}
    assert task.cancelled()
    assert doomed.is_closed
