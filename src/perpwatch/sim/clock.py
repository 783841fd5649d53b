"""Market time: event loops whose clock is not the wall's, and the clock that reads them.

Nothing above a loop knows which one it runs on. :class:`VirtualTimeLoop` never waits, so an hour of market passes as
fast as its work can be done, always in the same order. :class:`ScaledLoop` waits, but for a fraction of the time, so
that real sockets and timers on both sides of a connection live in a market that runs faster than the world.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _InstantSelector(selectors.DefaultSelector):
    """Never waits: moves the loop's time by what it would have waited."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: every task waits and no timer is set")
            if timeout > 0:
                self.loop.now_s += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting costs nothing and the same program always runs in the same order.

    Raises from ``run_*``:
        RuntimeError: every task waits for another and no timer is left to wake one.

    There must be no threads and no real sockets: waiting for them looks like a deadlock, because it is one in
    virtual time.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        selector = _InstantSelector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.now_s


class _ScaledSelector(selectors.DefaultSelector):
    """Waits ``speed`` times less than it is told."""

    speed = 1.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout if timeout is None else timeout / self.speed)


class ScaledLoop(asyncio.SelectorEventLoop):
    """An event loop whose time runs ``speed`` times faster than the world's, with real sockets.

    Timers keep the selector's resolution of about 1 ms of real time, which is ``speed`` ms of market time.
    """

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._started_s = time.monotonic()
        selector = _ScaledSelector()
        selector.speed = speed
        super().__init__(selector)

    def time(self) -> float:
        """Market seconds since the loop was made."""
        return (time.monotonic() - self._started_s) * self.speed


class Clock:
    """Reads a loop's time in two ways: seconds for timers, wall nanoseconds for stamps.

    Args:
        epoch_ms: UTC market time at the loop's time ``origin_s``.
    """

    def __init__(self, epoch_ms: int, loop: asyncio.AbstractEventLoop, origin_s: float = 0.0) -> None:
        self._epoch_ns = epoch_ms * 1_000_000
        self._loop = loop
        self._origin_s = origin_s

    @classmethod
    def starting_at(cls, epoch_ms: int) -> Clock:
        """The clock of the running loop on which it is ``epoch_ms`` just now."""
        loop = asyncio.get_running_loop()
        return cls(epoch_ms, loop, loop.time())

    @property
    def speed(self) -> float:
        """Market seconds that pass in a real one; 1 where the question makes no sense."""
        return self._loop.speed if isinstance(self._loop, ScaledLoop) else 1.0

    def monotonic(self) -> float:
        """Market seconds that never go back, from an unstated origin."""
        return self._loop.time()

    def time_ns(self) -> int:
        """Market nanoseconds since the epoch, UTC."""
        return self._epoch_ns + round((self._loop.time() - self._origin_s) * 1e9)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end in virtual time and return its result."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def run_scaled(main: Coroutine[Any, Any, T], speed: float) -> T:
    """Run ``main`` with real sockets in a market that is ``speed`` times faster than the world.

    Raises:
        ValueError: a speed that is not above 0.
    """
    if not speed > 0:
        main.close()
        raise ValueError(f"speed = {speed!r}: must be above 0")
    with asyncio.Runner(loop_factory=lambda: ScaledLoop(speed)) as runner:
        return runner.run(main)
