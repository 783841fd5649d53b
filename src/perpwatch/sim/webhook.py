"""A receiver of webhooks on a real local port, as careful as a good one and as unreliable as a bad one.

It believes a request only with a fresh signature, takes each message once, and counts every request by the moment at
which it came in.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import hmac
import json
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

#: A signature that is older may have been recorded by somebody and sent again.
MAX_AGE_S = 300.0


class Fault(enum.StrEnum):
    """What can happen to a request."""

    TOO_MANY = "429"
    BROKEN = "503"
    SILENT = "silent"  # never answered, and nothing taken
    RESET = "reset"  # cut off before anything is taken
    LOST_ANSWER = "lost answer"  # taken, and cut off instead of an answer


@dataclass(slots=True)
class Received:
    """One request, as it came in."""

    key: str  # Idempotency-Key
    headers: Mapping[str, str]
    body: bytes
    received_s: float
    status: int = 0  # of the answer; 0 where there was none


@dataclass(slots=True)
class Answer:
    """What a request is answered with instead of being taken."""

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class WebhookServer:
    """Receives at one address on loopback.

    Args:
        secret: shared with the sender.
        limit: requests, seconds; a request beyond is answered with 429 and noted.
        tls: makes it an https address.
        seed: of the faults that are drawn.
    """

    def __init__(
        self,
        secret: str,
        *,
        limit: tuple[int, float] | None = None,
        tls: ssl.SSLContext | None = None,
        seed: int = 1,
        wall_s: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.port = 0
        self.messages: dict[str, Any] = {}  # taken, by id, in the order in which they came
        self.received: list[Received] = []
        self.forged: list[str] = []  # requests that were not believed, and why
        self.exceeded = 0  # requests beyond the limit
        self.faults: deque[Fault | Answer | None] = deque()  # of the next requests; None lets one pass
        self.fault_shares: dict[Fault, float] = {}  # of all others
        self.retry_after = "1"
        self._secret = secret.encode()
        self._limit = limit
        self._tls = tls
        self._random = random.Random(seed)
        self._wall_s = wall_s
        self._monotonic = monotonic
        self._arrivals: deque[float] = deque()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}/alerts/t0ps3cret?room=r00mkey"

    async def __aenter__(self) -> WebhookServer:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._receive)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        now_s = self._monotonic()
        body = await request.read()
        received = Received(request.headers.get("Idempotency-Key", ""), request.headers.copy(), body, now_s)
        self.received.append(received)
        fault = self._fault(now_s)
        if fault is Fault.RESET:
            return self._cut(request)
        if fault is Fault.SILENT:
            await asyncio.get_running_loop().create_future()  # until the sender hangs up
        if isinstance(fault, Answer):
            received.status = fault.status
            return web.Response(status=fault.status, text=fault.body, headers=fault.headers)
        if fault in (Fault.TOO_MANY, Fault.BROKEN):
            received.status = int(fault)
            return web.Response(status=received.status, headers={"Retry-After": self.retry_after})
        if doubt := self._doubt(request, body):
            self.forged.append(doubt)
            received.status = 401
            return web.Response(status=401, text=doubt)
        self.messages.setdefault(received.key, json.loads(body))
        if fault is Fault.LOST_ANSWER:
            return self._cut(request)
        received.status = 204
        return web.Response(status=204)

    def _fault(self, now_s: float) -> Fault | Answer | None:
        if self._limit is not None:
            calls, seconds = self._limit
            self._arrivals.append(now_s)
            while self._arrivals[0] <= now_s - seconds:
                self._arrivals.popleft()
            if len(self._arrivals) > calls:
                self.exceeded += 1
                return Fault.TOO_MANY
        if self.faults:
            return self.faults.popleft()
        drawn = self._random.random()
        for fault, share in self.fault_shares.items():
            if drawn < share:
                return fault
            drawn -= share
        return None

    def _doubt(self, request: web.Request, body: bytes) -> str:
        """Why a request is not believed; empty when it is."""
        parts = dict(part.partition("=")[::2] for part in request.headers.get("Perpwatch-Signature", "").split(","))
        time_text = parts.get("t", "0")
        expected = hmac.new(self._secret, time_text.encode() + b"." + body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(parts.get("v1", ""), expected):
            return "wrong signature"
        if abs(self._wall_s() - float(time_text)) > MAX_AGE_S:
            return "stale signature"
        return ""

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
