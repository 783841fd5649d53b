"""The simulated exchange on a real local port: WebSocket, REST and a few addresses of its own.

``GET /sim/truth`` lists the planted moves, ``GET /sim/status`` what has happened so far, and ``POST /sim/faults``
changes how the exchange misbehaves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

import aiohttp
import msgspec
from aiohttp import web

from perpwatch.errors import ConfigurationError, ConnectionFailed
from perpwatch.sim import faults as fault_settings
from perpwatch.sim.clock import Clock
from perpwatch.sim.exchange import Session, SimulatedExchange
from perpwatch.sim.frames import encode, is_binary
from perpwatch.sim.rest import JSON

#: Real seconds between two looks at the market.
TICK_S = 0.02
#: What a client may leave unread before it is cut off: several times the first tickers frame of a large market.
MAX_UNREAD_BYTES = 8 * 2**20
_CLOSE_TIMEOUT_S = 0.5  # real seconds a client has to answer our good-bye


class _Connection:
    """One client on a socket: a session of the exchange and the frames on their way to it."""

    def __init__(
        self, session: Session, socket: web.WebSocketResponse, request: web.Request, close_timeout_s: float
    ) -> None:
        self.session = session
        self.socket = socket
        self._transport = request.transport
        self._close_timeout_s = close_timeout_s
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._news = asyncio.Event()

    def carry(self) -> None:
        """Take what the session has to say; cut off a client that does not read."""
        for frame in self.session.take():
            self._unsent.append(frame)
            self._unsent_bytes += len(frame)
        if self._unsent_bytes > MAX_UNREAD_BYTES:
            self.abort()
        elif self._unsent or self.session.closing is not None:
            self._news.set()

    def abort(self) -> None:
        """Drop the line without a word."""
        if self._transport is not None:
            self._transport.abort()

    async def write(self) -> None:
        """Send until the exchange hangs up or the client is gone."""
        socket, unsent = self.socket, self._unsent
        while True:
            await self._news.wait()
            self._news.clear()
            while unsent:
                frame = unsent.popleft()
                self._unsent_bytes -= len(frame)
                kind = aiohttp.WSMsgType.BINARY if is_binary(frame) else aiohttp.WSMsgType.TEXT
                await socket.send_frame(frame, kind)
            closing = self.session.closing
            if closing is None:
                continue
            if closing.is_abrupt:
                self.abort()
            elif closing.code is None:
                # A close frame without a status, which the library's own close cannot send.
                await socket.send_frame(b"", aiohttp.WSMsgType.CLOSE)
                await asyncio.sleep(self._close_timeout_s)
                self.abort()
            else:
                await socket.close(code=closing.code)
            return

    async def read(self, exchange: SimulatedExchange, clock: Clock) -> None:
        """Pass on what the client says until it leaves."""
        async for message in self.socket:
            now_ms = clock.time_ns() // 1_000_000
            match message.type:
                case aiohttp.WSMsgType.TEXT | aiohttp.WSMsgType.BINARY:
                    exchange.advance(now_ms)
                    self.session.receive(message.data, now_ms)
                    self.carry()
                case aiohttp.WSMsgType.PING:
                    if now_ms >= self.session.half_open_until_ms:
                        await self.socket.pong(message.data)
                case _:
                    pass


class SimulatorServer:
    """Serves an exchange on ``host``; ``port`` 0 takes a free one. Entered, it lets the exchange follow the clock."""

    def __init__(self, exchange: SimulatedExchange, clock: Clock, host: str = "127.0.0.1", port: int = 0) -> None:
        self.exchange = exchange
        self.clock = clock
        self.host = host
        self.port = port
        self._connections: dict[_Connection, None] = {}
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def websocket_url(self) -> str:
        return f"ws://{self.host}:{self.port}/edge"

    @property
    def rest_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> SimulatorServer:
        application = web.Application()
        application.router.add_get("/edge", self._edge)
        application.router.add_get("/ws", self._old_address)
        application.router.add_get("/api/v1/contract/{path:.*}", self._rest)
        application.router.add_get("/api/v3/exchangeInfo", self._spot)
        application.router.add_get("/sim/truth", self._truth)
        application.router.add_get("/sim/status", self._status)
        application.router.add_post("/sim/faults", self._faults)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_CLOSE_TIMEOUT_S * self.clock.speed)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._task = asyncio.create_task(self._run(), name="simulated exchange")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for connection in list(self._connections):
            connection.abort()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._task is not None and not self._task.cancelled():
            # It ends by itself only when the exchange has failed, and that must not go unnoticed.
            self._task.result()

    def _now_ms(self) -> int:
        return self.clock.time_ns() // 1_000_000

    async def _run(self) -> None:
        while True:
            self.exchange.advance(self._now_ms())
            for connection in self._connections:
                connection.carry()
            await asyncio.sleep(TICK_S * self.clock.speed)

    # Addresses of the exchange

    async def _edge(self, request: web.Request) -> web.StreamResponse:
        now_ms = self._now_ms()
        self.exchange.advance(now_ms)
        try:
            session = self.exchange.connect(now_ms, request.path)
        except ConnectionFailed as refusal:
            if refusal.status is None:
                return self._cut(request)
            headers = {} if refusal.retry_after_s is None else {"Retry-After": f"{refusal.retry_after_s:.0f}"}
            return web.Response(status=refusal.status, headers=headers)
        close_timeout_s = _CLOSE_TIMEOUT_S * self.clock.speed
        # No compression is negotiated, and pings are answered by hand so that a half-open line stays mute.
        socket = web.WebSocketResponse(compress=False, autoping=False, timeout=close_timeout_s, decode_text=False)
        await socket.prepare(request)
        connection = _Connection(session, socket, request, close_timeout_s)
        self._connections[connection] = None
        writer = asyncio.create_task(connection.write(), name=f"connection {session.number}")
        try:
            await connection.read(self.exchange, self.clock)
        finally:
            del self._connections[connection]
            self.exchange.disconnect(session)
            writer.cancel()
            # A write to a client that has just gone is no error of ours.
            await asyncio.gather(writer, return_exceptions=True)
        return socket

    async def _old_address(self, _request: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "https://www.mexc.com/"})

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        if self.exchange.is_down:
            return self._cut(request)
        answer = self.exchange.get(request.path, dict(request.query), self._now_ms())
        if answer.delay_s is None:
            await asyncio.get_running_loop().create_future()
        elif answer.delay_s:
            await asyncio.sleep(answer.delay_s)
        return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))

    async def _spot(self, _request: web.Request) -> web.Response:
        # Clients of the whole MEXC ask for the spot markets as well; there are none here.
        return web.Response(body=b'{"timezone":"UTC","symbols":[]}', headers=JSON)

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    # Addresses of the simulator

    async def _truth(self, _request: web.Request) -> web.Response:
        return web.Response(body=encode(self.exchange.market.pumps), headers=JSON)

    async def _status(self, _request: web.Request) -> web.Response:
        return web.Response(body=encode(self.exchange.status()), headers=JSON)

    async def _faults(self, request: web.Request) -> web.Response:
        try:
            faults = fault_settings.decoded(await request.read(), self.exchange.faults)
        except ConfigurationError as error:
            return web.Response(status=400, body=encode({"error": str(error)}), headers=JSON)
        self.exchange.set_faults(faults)
        return web.Response(body=encode(msgspec.to_builtins(faults)), headers=JSON)
