"""The simulated exchange over memory: sockets and requests without a network, in the loop's own time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import TracebackType
from urllib.parse import urlsplit

from perpwatch.errors import ConnectionFailed, ConnectionLost, RequestFailed
from perpwatch.sim.clock import Clock
from perpwatch.sim.exchange import Session, SimulatedExchange

WEBSOCKET_URL = "wss://contract.mexc.com/edge"
REST_URL = "https://api.mexc.com"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back for a GET; header names are lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _Line:
    """One direction of a connection: what is sent arrives after a latency, and in order."""

    def __init__(self, latency: Callable[[], float]) -> None:
        self._latency = latency
        self._under_way: deque[Callable[[], None]] = deque()
        self._free_s = 0.0  # when it has carried what was sent before

    def carry(self, arrival: Callable[[], None]) -> None:
        """Let ``arrival`` happen at the other end."""
        loop = asyncio.get_running_loop()
        self._free_s = max(self._free_s, loop.time() + self._latency())
        # Timers of the same time fire in no particular order, so each one lets the oldest message arrive.
        self._under_way.append(arrival)
        loop.call_at(self._free_s, self._arrive)

    def _arrive(self) -> None:
        self._under_way.popleft()()


class MemorySocket:
    """The client's end of a connection to the simulated exchange."""

    def __init__(self, network: SimulatedNetwork, session: Session) -> None:
        #: Called when frames have arrived: they can be taken then, and otherwise wait to be received.
        self.on_read: Callable[[], None] = lambda: None
        self.session = session
        self._network = network
        self._arrived: list[bytes] = []
        self._lost: ConnectionLost | None = None
        self._news = asyncio.Event()
        self._is_closed = False
        self._up = _Line(network.latency)
        self._down = _Line(network.latency)

    async def receive(self) -> list[bytes]:
        """All frames that have arrived, oldest first; waits for the first.

        Raises:
            ConnectionLost: the exchange hung up or the line broke, once all frames before are delivered.
        """
        while not self._arrived:
            if self._lost is not None:
                raise self._lost
            await self._news.wait()
        return self.take()

    def take(self) -> list[bytes]:
        """All frames that have arrived, oldest first; maybe none."""
        arrived, self._arrived = self._arrived, []
        if self._lost is None:
            self._news.clear()
        return arrived

    def send(self, payload: bytes) -> None:
        """Send one text frame; on a lost connection silently useless."""
        if self._is_closed or self._lost is not None:
            return
        self._up.carry(partial(self._reach_exchange, payload))

    async def close(self) -> None:
        """Free the socket; never raises."""
        if self._is_closed:
            return
        self._is_closed = True
        self._lose(ConnectionLost("closed by us", 1000))
        self._up.carry(self._leave)

    def carry(self) -> None:
        """Send what the exchange has to say on its way."""
        frames = self.session.take()
        if frames:
            self._down.carry(partial(self._arrive, frames))
        closing = self.session.closing
        if closing is not None:
            self._network.forget(self)
            lost = ConnectionLost("the line broke" if closing.is_abrupt else "the exchange hung up", closing.seen_code)
            self._down.carry(partial(self._lose, lost))

    def _reach_exchange(self, payload: bytes) -> None:
        self.session.receive(payload, self._network.now_ms())
        self.carry()

    def _leave(self) -> None:
        self.session.exchange.disconnect(self.session)
        self._network.forget(self)

    def _arrive(self, frames: list[bytes]) -> None:
        if self._lost is None:
            self._arrived.extend(frames)
            self.on_read()
            if self._arrived:
                self._news.set()

    def _lose(self, lost: ConnectionLost) -> None:
        if self._lost is None:
            self._lost = lost
            self._news.set()


class SimulatedNetwork:
    """Carries frames and requests between clients and an exchange in the same loop.

    While it is entered, it lets the exchange's time follow the clock. Every message takes a one-way latency drawn from
    the seed; messages of one connection stay in order.

    Args:
        exchange: the other side.
        clock: market time of the loop.
        latency_s: the least and the most a message takes.
        tick_s: how often what the exchange has to say is carried away.
    """

    def __init__(
        self,
        exchange: SimulatedExchange,
        clock: Clock,
        *,
        seed: int = 0,
        latency_s: tuple[float, float] = (0.02, 0.08),
        tick_s: float = 0.1,
    ) -> None:
        self.exchange = exchange
        self.clock = clock
        self._random = Random(f"network {seed}")
        self._latency_s = latency_s
        self._tick_s = tick_s
        self._sockets: dict[MemorySocket, None] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> SimulatedNetwork:
        self._task = asyncio.create_task(self._run(), name="simulated exchange")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            # Ours to swallow only when it is the task that was cancelled.
            if not task.cancelled():
                raise

    async def dial(self, url: str) -> MemorySocket:
        """Connect to the exchange.

        Raises:
            ConnectionFailed: it refuses.
        """
        await asyncio.sleep(self.latency())
        try:
            session = self.exchange.connect(self.now_ms(), url)
        except ConnectionFailed:
            await asyncio.sleep(self.latency())
            raise
        socket = MemorySocket(self, session)
        self._sockets[socket] = None
        await asyncio.sleep(self.latency())
        return socket

    async def get(self, url: str, params: Mapping[str, str | int]) -> HttpAnswer:
        """Ask by REST. One that is never answered waits until the caller gives up.

        Raises:
            RequestFailed: the exchange refuses the connection.
        """
        await asyncio.sleep(self.latency())
        if self.exchange.is_down:
            await asyncio.sleep(self.latency())
            raise RequestFailed(url, "connection refused")
        text_params = {name: str(value) for name, value in params.items()}
        answer = self.exchange.get(urlsplit(url).path, text_params, self.now_ms())
        if answer.delay_s is None:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep((answer.delay_s or 0.0) + self.latency())
        return HttpAnswer(answer.status, answer.body, answer.headers)

    # For the sockets

    def now_ms(self) -> int:
        """Market time, with the exchange brought up to it."""
        now_ms = self.clock.time_ns() // 1_000_000
        self.exchange.advance(now_ms)
        return now_ms

    def latency(self) -> float:
        """Seconds that a message takes one way."""
        return self._random.uniform(*self._latency_s)

    def forget(self, socket: MemorySocket) -> None:
        self._sockets.pop(socket, None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            self.now_ms()
            for socket in list(self._sockets):
                socket.carry()
            # Against a fixed grid, so that late wake-ups do not add up.
            next_s = max(next_s + self._tick_s, loop.time())
            await asyncio.sleep(next_s - loop.time())
