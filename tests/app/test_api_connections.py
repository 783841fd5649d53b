"""What readers and requests may cost, over real sockets: a small application behind the server of the API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from perpwatch.app import api_connections, api_live, api_security
from perpwatch.app.api_connections import MAX_HEAD_BYTES, HttpConnection, Server, SocketConnection
from perpwatch.app.api_live import TRY_AGAIN, serve_socket, server_sent
from perpwatch.app.api_security import MAX_BODY_BYTES, Access, Gate
from perpwatch.app.api_stream import MAX_WAITING, Events
from perpwatch.app.dashboard_config import DashboardConfig

#: Large enough that a few of them fill every buffer on the way.
LARGE, END = b"x" * 200_000, b"end"


@contextlib.asynccontextmanager
async def served(events: Events, max_connections: int = 100) -> AsyncIterator[int]:
    """The port of a server with a stream, its server-sent twin and an echo."""

    async def stream(one: WebSocket) -> None:
        await serve_socket(one, events, [])

    async def sent(_request: Request) -> Response:
        return StreamingResponse(server_sent(events, None, name="somebody"), media_type="text/event-stream")

    async def echo(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    routes = [WebSocketRoute("/stream", stream), Route("/events", sent), Route("/echo", echo, methods=["POST"])]
    app = Gate(Starlette(routes=routes), Access(DashboardConfig(), asyncio.get_running_loop().time))
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=HttpConnection,
        ws=SocketConnection,
        log_config=None,
        lifespan="off",
        limit_concurrency=max_connections + 1,
        timeout_graceful_shutdown=1,
    )
    config.limit_concurrency = max_connections + 1
    server = Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def connected(port: int, text: bytes = b"", *, receive_buffer: int = 0) -> AsyncIterator[socket.socket]:
    """A socket to the server over which some bytes were said, and from which nothing is read by itself."""
    with socket.socket() as one:
        if receive_buffer:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        one.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(one, ("127.0.0.1", port))
        await loop.sock_sendall(one, text)
        yield one


async def read_all(one: socket.socket, last: bytes = b"") -> bytes:
    """Everything up to the last words, or to the end; a connection that is reset has ended, too."""
    everything = bytearray()
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            while more := await asyncio.get_running_loop().sock_recv(one, 1 << 16):
                everything += more
                if last and everything.endswith(last):
                    break
    return bytes(everything)


async def answer_to(port: int, text: bytes) -> tuple[int, dict[str, str], Any]:
    """What a request in these bytes gets: status, headers and body."""
    async with connected(port, text) as one:
        head, _, body = (await read_all(one)).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body)


async def flooded(events: Events, dropped: int) -> int:
    """Tell until so many were dropped, and an end; returns how many messages that took."""
    told = 0
    async with asyncio.timeout(20):
        while events.dropped < dropped:
            events.tell("alert", lambda name: LARGE)
            told += 1
            await asyncio.sleep(0.005)
    events.tell("alert", lambda name: END)
    return told


SOCKET = (
    b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
EVENTS = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
REASON = f"too slow: {MAX_WAITING} messages were waiting".encode()


async def count_listeners(events: Events, number: int) -> None:
    async with asyncio.timeout(5):
        while len(events) != number:
            await asyncio.sleep(0.01)


async def test_a_reader_that_stops_reading_is_dropped_with_a_reason_and_the_others_miss_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    events = Events("run", 10)
    async with (
        served(events) as port,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/stream", max_msg_size=0) as quick,
        connected(port, SOCKET, receive_buffer=4_096) as slow,
        connected(port, EVENTS, receive_buffer=4_096),
    ):
        await count_listeners(events, 3)
        flooding = asyncio.create_task(flooded(events, dropped=2))
        read = 0
        while (await quick.receive(timeout=10)).data != END.decode():
            read += 1
        assert read == await flooding > MAX_WAITING  # all of them
        # What was on its way comes first, the reason last.
        everything = await read_all(slow, TRY_AGAIN.to_bytes(2, "big") + REASON)
        assert everything.endswith(REASON)
        assert len(everything) < read * len(LARGE)
    for name in ("127.0.0.1", "somebody"):
        assert caplog.text.count(f"{name} is dropped from a live stream: too slow") == 1


async def test_whoever_takes_nothing_holds_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((api_security, "SEND_S"), (api_live, "SEND_S"), (api_connections, "GOODBYE_S")):
        monkeypatch.setattr(module, name, 0.3)
    events = Events("run", 10)
    async with (
        served(events) as port,
        connected(port, EVENTS, receive_buffer=4_096) as sent,
        connected(port, SOCKET, receive_buffer=4_096) as stream,
    ):
        await count_listeners(events, 2)
        for _ in range(MAX_WAITING):
            events.tell("alert", lambda name: LARGE)
        await count_listeners(events, 0)
        for one in (sent, stream):
            async with asyncio.timeout(5):
                while _state(one) == ESTABLISHED:
                    await asyncio.sleep(0.05)


#: The state of an open connection in the kernel's tcp_info.
ESTABLISHED = 1


def _state(one: socket.socket) -> int:
    return one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


async def test_bodies_are_bounded_however_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_security, "BODY_S", 0.3)
    async with served(Events("run", 10)) as port:
        head = b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        chunk = b"%x\r\n" % 10_000 + b"x" * 10_000 + b"\r\n"
        fine = head + b"Transfer-Encoding: chunked\r\n\r\n" + 6 * chunk + b"0\r\n\r\n"
        status, _, number = await answer_to(port, fine)
        assert (status, number) == (200, 60_000)
        for body in (
            b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
            b"Transfer-Encoding: chunked\r\n\r\n" + 7 * chunk,  # and it has not ended
        ):
            status, headers, problem = await answer_to(port, head + body)
            assert (status, headers["content-type"]) == (413, "application/problem+json")
            assert str(MAX_BODY_BYTES) in problem["detail"]
        for body in (b"Content-Length: 10\r\n\r\nslow", b"Transfer-Encoding: chunked\r\n\r\n4\r\nslow\r\n"):
            status, headers, problem = await answer_to(port, head + body)
            assert (status, headers["connection"]) == (408, "close")
            assert "did not end" in problem["detail"]


async def test_heads_are_bounded_in_size_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_connections, "HEAD_S", 0.3)
    async with served(Events("run", 10)) as port:
        for endless in (b"GET /" + b"x" * MAX_HEAD_BYTES, b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES):
            status, headers, problem = await answer_to(port, endless)
            assert (status, headers["content-type"], problem["status"]) == (431, "application/problem+json", 431)
        status, _, problem = await answer_to(port, b"GET / HTTP/1.1\r\nHost: 127")
        assert (status, "did not end" in problem["detail"]) == (408, True)
        status, headers, problem = await answer_to(port, b"\x16\x03\x01\x02\x00\x01\x00\x01")
        assert (status, headers["content-type"], problem["status"]) == (400, "application/problem+json", 400)
        async with connected(port) as silent:
            assert await read_all(silent) == b""


async def test_what_others_send_is_never_a_mistake_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """Requests with bytes changed, added and left out; whoever sent them has gone, or is told why."""
    random_bytes = random.Random(7)
    bits = [
        b"\r\n",
        b"\x00",
        b"\xff",
        b"%00",
        b"%ff",
        b"[",
        b"http://[",
        b"//",
        b"\\",
        b" ",
        b"-1",
        b"9" * 30,
        b"Host: x\r\n",
    ]
    post = b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
    sound = [SOCKET + b"\x81\x05hello", EVENTS, post + b"Content-Length: 2\r\n\r\nhi"]
    sound.append(post + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    async with served(Events("run", 10)) as port:
        for _ in range(400):
            text = bytearray(random_bytes.choice(sound))
            for _ in range(random_bytes.randint(1, 3)):
                start = random_bytes.randrange(len(text))
                text[start : start + random_bytes.randrange(3)] = random_bytes.choice([*bits, b""])
            async with connected(port, bytes(text)):
                await asyncio.sleep(0.002)
        async with connected(port, SOCKET.replace(b"\r\n\r\n", b"\r\nOrigin: http://evil.example\r\n\r\n")) as refused:
            assert b" 403 " in await read_all(refused)
        request = post + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi"
        assert (await answer_to(port, request))[0] == 200
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


async def test_connections_are_bounded_in_number_and_those_that_are_refused_take_no_place() -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    async with served(Events("run", 10), max_connections=3) as port:
        async with (
            connected(port) as first,
            connected(port),
            connected(port),
            connected(port),  # this one and the next are refused, and do not read why
            connected(port),
        ):
            status, headers, problem = await answer_to(port, b"")
            assert (status, headers["retry-after"], problem["title"]) == (503, "5", "Service Unavailable")
            await asyncio.get_running_loop().sock_sendall(first, request)
            assert (await read_all(first)).startswith(b"HTTP/1.1 200 OK")
        async with asyncio.timeout(5):
            while (await answer_to(port, request))[0] != 200:
                await asyncio.sleep(0.05)
