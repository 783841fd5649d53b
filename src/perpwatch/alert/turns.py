"""Turns at one service, for all tasks that call it: the clock and the waiting around :class:`~.pacing.Pacer`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

from perpwatch.alert.pacing import Pacer
from perpwatch.errors import DeliveryFailed


class Turns:
    """Lets calls through as fast as the service's limits allow; to one destination in the order in which they came.

    Args:
        monotonic: real seconds; where time is simulated, those of the running loop.
    """

    def __init__(self, pacer: Pacer, monotonic: Callable[[], float]) -> None:
        self._pacer = pacer
        self._monotonic = monotonic
        self._queues: dict[str, asyncio.Lock] = {}
        self._answered = asyncio.Event()

    @classmethod
    def unlimited(cls) -> Self:
        """Turns at a service that limits nobody, but may still ask for a pause."""
        return cls(Pacer((), lambda destination: ()), time.monotonic)

    def wait_s(self, destination: str) -> float:
        """How long a call would have to wait if it were the next; 0 for not at all, ``inf`` for an answer first."""
        return max(0.0, self._pacer.free_at_s(destination) - self._monotonic())

    def recall(self, destination: str, ago_s: float) -> None:
        """An earlier run made a call, which was answered so long ago."""
        self._pacer.recall(destination, self._monotonic() - ago_s)

    async def ready(self, destination: str) -> None:
        """Wait until a call would be allowed, without making one; another may still come first."""
        while (wait_s := self.wait_s(destination)) > 0.0:
            self._answered.clear()
            try:
                async with asyncio.timeout(wait_s if math.isfinite(wait_s) else None):
                    await self._answered.wait()
            except TimeoutError:
                pass

    @asynccontextmanager
    async def turn(self, destination: str) -> AsyncIterator[None]:
        """Wait until a call is allowed, then make it within; it counts until the end of this.

        A :class:`~perpwatch.errors.DeliveryFailed` that asks for a pause is obeyed for everybody, and passed on.
        """
        async with self._queues.setdefault(destination, asyncio.Lock()):
            await self.ready(destination)
            call = self._pacer.begin(destination, self._monotonic())
        try:
            yield
        except DeliveryFailed as error:
            if error.retry_after_s is not None:
                self._pacer.hold(
                    destination, self._monotonic(), error.retry_after_s, is_whole_service=error.is_whole_service
                )
            raise
        finally:
            self._pacer.end(call, self._monotonic())
            self._answered.set()
