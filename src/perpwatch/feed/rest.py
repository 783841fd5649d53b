"""REST calls under one budget, and the only file that knows the HTTP library.

Whoever asks gives a :class:`Priority`; turns go to the most urgent first. A "too many requests" of any kind stops *all*
calls for as long as asked, slows the rate, and is forgotten only step by step. Each endpoint has a breaker of its own.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from perpwatch.errors import ApiError, ExchangeError, ProtocolError, RateLimited, RequestFailed
from perpwatch.exchanges.adapter import Request
from perpwatch.feed.breaker import Breaker, BreakerState
from perpwatch.feed.budget import Budget
from perpwatch.feed.connection import USER_AGENT, Clock, retry_after
from perpwatch.feed.ports import HttpAnswer, HttpGet

logger = logging.getLogger(__name__)
T = TypeVar("T")

TIMEOUT_S = 15.0
#: The contract list is 2.3 MB; nothing else comes near. A body beyond this is not what we asked for.
MAX_BODY_BYTES = 32 * 1024 * 1024
#: What is left of the rate after a refusal, and the least it can sink to (share of the configured rate).
SLOW_DOWN = 0.6
LEAST_SHARE = 0.1
#: Refusals within this time of the last are its echo: calls that were under way when we were told to stop.
ECHO_S = 5.0
#: Share of the configured rate that each success gives back: half of the rate is regained within 100 calls.
SPEED_UP = 0.005
#: Pause after a refusal that names no time.
DEFAULT_PAUSE_S = 10.0


class Priority(enum.IntEnum):
    """Who goes first; smaller is more urgent."""

    CONTROL = 0  # contracts, clock, health
    REPAIR = 1
    HISTORY = 2
    POLL = 3
    AUDIT = 4


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]


@asynccontextmanager
async def http_over_network(*, proxy: str | None = None) -> AsyncIterator[HttpGet]:
    """A ``get`` over the network. Redirects are not followed: an interface that redirects has moved or is blocked."""
    async with aiohttp.ClientSession(
        headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
        timeout=aiohttp.ClientTimeout(total=None),  # whoever asks sets the limit
    ) as client:

        async def get(url: str, params: Mapping[str, str | int]) -> HttpAnswer:
            try:
                async with client.get(url, params=params, proxy=proxy, allow_redirects=False) as response:
                    body = bytearray()
                    async for chunk in response.content.iter_chunked(65_536):
                        body += chunk
                        if len(body) > MAX_BODY_BYTES:
                            raise RequestFailed(url, f"the answer is larger than {MAX_BODY_BYTES} bytes")
                    headers = {name.lower(): value for name, value in response.headers.items()}
                    return _Answer(response.status, bytes(body), headers)
            except aiohttp.ClientConnectorDNSError as error:
                raise RequestFailed(url, "the name does not resolve; is there a network?") from error
            except aiohttp.ClientProxyConnectionError as error:
                raise RequestFailed(url, f"the proxy {proxy} cannot be reached") from error
            except aiohttp.ClientSSLError as error:
                raise RequestFailed(url, f"TLS failed: {error}") from error
            except (aiohttp.ClientError, OSError) as error:
                raise RequestFailed(url, str(error) or type(error).__name__) from error

        yield get


@dataclass(slots=True)
class RestCounters:
    requests: int = 0
    failures: int = 0
    rate_limited: int = 0
    api_errors: int = 0


class RestClient:
    """Sends requests of one exchange, paced."""

    def __init__(self, base_url: str, get: HttpGet, clock: Clock, requests_per_second: float) -> None:
        self.base_url = base_url.rstrip("/")
        self.counters = RestCounters()
        self.breakers: dict[str, Breaker] = {}
        self.configured_rate = requests_per_second
        self._get = get
        self._clock = clock
        self._budget = Budget(requests_per_second)
        self._queue: list[tuple[int, int, float, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._slowed_s = float("-inf")

    @property
    def rate(self) -> float:
        """Calls a second at present."""
        return self._budget.rate

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def breaker_state(self, endpoint: str) -> BreakerState:
        breaker = self.breakers.get(endpoint)
        return breaker.state(self._clock.monotonic()) if breaker else BreakerState.CLOSED

    async def fetch(self, request: Request[T], priority: Priority) -> T:
        """Wait for a turn, send, and understand the answer.

        Raises:
            RequestFailed: no usable answer, or the endpoint's breaker is open; worth another try later.
            RateLimited: asked too often; all calls are paused already.
            ApiError: the exchange said no; the same call would fail again.
        """
        url = self.base_url + request.path
        breaker = self.breakers.setdefault(request.endpoint, Breaker())
        if not breaker.allows(self._clock.monotonic()):
            raise RequestFailed(url, f"not asked: {request.endpoint} fails repeatedly ({breaker.last_reason})")
        try:
            await self._turn(priority, request.weight)
            self.counters.requests += 1
            answer = await self._ask(url, request.params or {})
            result = self._understand(url, request, answer)
        except RateLimited as error:
            breaker.give_back()
            self._slow_down(error)
            raise
        except ApiError:
            self.counters.api_errors += 1
            breaker.succeed()  # it is there, and talks sense
            raise
        except ExchangeError as error:
            self.counters.failures += 1
            breaker.fail(self._clock.monotonic(), str(error))
            raise
        except BaseException:
            breaker.give_back()
            raise
        breaker.succeed()
        self._budget.rate = min(self.configured_rate, self._budget.rate + SPEED_UP * self.configured_rate)
        return result

    async def _ask(self, url: str, params: Mapping[str, str | int]) -> HttpAnswer:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._get(url, params)
        except TimeoutError as error:
            raise RequestFailed(url, f"no answer within {TIMEOUT_S:g} s") from error

    def _understand(self, url: str, request: Request[T], answer: HttpAnswer) -> T:
        status = answer.status
        if status == 429:
            after_s = retry_after(answer.headers.get("retry-after", ""))
            raise RateLimited(url, "HTTP 429, too many requests", after_s or DEFAULT_PAUSE_S, status=429)
        if 300 <= status < 400:
            where = answer.headers.get("location", "an unnamed place")
            raise RequestFailed(url, f"redirected to {where}; set rest.base_url to where it lives now", status=status)
        if status == 403:
            raise RequestFailed(url, "HTTP 403, forbidden: often the region or the firewall", status=status)
        if status != 200:
            raise RequestFailed(url, f"HTTP {status}", status=status)
        try:
            return request.parse(answer.body)
        except ProtocolError as error:
            raise RequestFailed(url, error.reason, status=status) from error

    def _slow_down(self, error: RateLimited) -> None:
        self.counters.rate_limited += 1
        now_s = self._clock.monotonic()
        self._budget.pause(now_s + error.retry_after_s)
        if now_s - self._slowed_s > ECHO_S:
            self._slowed_s = now_s
            self._budget.rate = max(LEAST_SHARE * self.configured_rate, SLOW_DOWN * self._budget.rate)
            logger.warning(
                "%s; all calls pause %.0f s and go on at %.1f a second", error, error.retry_after_s, self._budget.rate
            )

    # --- Turns ------------------------------------------------------------------------------------------------------

    async def _turn(self, priority: Priority, cost: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (priority, next(self._order), cost, turn))
        self._schedule()
        await turn

    def _schedule(self) -> None:
        if self._timer is None and self._queue:
            wait_s = self._budget.wait(self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._give_turn)

    def _give_turn(self) -> None:
        self._timer = None
        now_s = self._clock.monotonic()
        if self._budget.wait(now_s) <= 0.0:
            while self._queue:
                _, _, cost, turn = heapq.heappop(self._queue)
                if not turn.done():  # its caller may have been cancelled meanwhile
                    self._budget.take(now_s, cost)
                    turn.set_result(None)
                    break
        self._schedule()
