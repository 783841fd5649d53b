"""Where all sources meet: a bounded queue of batches with one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from perpwatch.model import Batch

#: Events that may wait for the reader before sources have to.
DEFAULT_EVENTS = 200_000
#: A candle of a history keeps the reader busy for as long as so many events, and they come a thousand at a time.
EVENTS_PER_CANDLE = 20


class Turns:
    """One source at a time, and only when there is room for what it brings.

    A read goes from its bytes to its end before the next one is decoded: otherwise all connections decode first, and
    the reader finds none of it in the processor's cache; a flood over nine of them costs half as much again.

    While nothing waits anywhere (:attr:`is_free`) a source digests a read from within it. Else it uses this as ``async
    with`` around decoding and putting, and the next source has its turn when the reader has been woken by the put, and
    so has usually digested it.
    """

    def __init__(self, outbox: Outbox | None = None) -> None:
        self._outbox = outbox
        self._lock = asyncio.Lock()

    @property
    def is_free(self) -> bool:
        """Nobody has a turn, and whoever reads waits for what is put."""
        return not self._lock.locked() and (self._outbox is None or self._outbox.is_idle)

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        if self._outbox is not None:
            try:
                await self._outbox.room()
            except BaseException:
                self._lock.release()
                raise

    async def __aexit__(self, *_: object) -> None:
        # In the loop's next round, behind the reader. It is not waited for: who has other things to do must not keep
        # answers of the exchange from being read.
        asyncio.get_running_loop().call_soon(self._lock.release)


class Outbox:
    """Nothing is dropped: a source that finds the outbox full waits, so that its socket is no longer read."""

    def __init__(self, max_events: int = DEFAULT_EVENTS) -> None:
        self.max_events = max_events
        self.waiting_events = 0
        self.turns = Turns(self)
        #: Digests a batch while the reader waits, without waking it; returns whether it did.
        self.at_once: Callable[[Batch], bool] | None = None
        self._batches: deque[Batch] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._is_closed = False
        self._is_awaited = False
        self._error: Exception | None = None

    @property
    def is_idle(self) -> bool:
        """The reader waits, and nothing waits for it."""
        return self._is_awaited and not self._batches and self._error is None

    def put(self, batch: Batch) -> None:
        """Hand over a batch, in order, however full the outbox is; after :meth:`close` it is discarded."""
        if self._is_closed or (self.at_once is not None and self.is_idle and self._digest(self.at_once, batch)):
            return
        self._batches.append(batch)
        self.waiting_events += _weight(batch)
        self._filled.set()

    def _digest(self, at_once: Callable[[Batch], bool], batch: Batch) -> bool:
        self._is_awaited = False  # what is put meanwhile belongs behind this one
        try:
            return at_once(batch)
        except Exception as error:
            self._error = error
            self._filled.set()
            return True
        finally:
            self._is_awaited = True

    async def room(self) -> None:
        """Wait until the outbox is not full, or closed."""
        while self.waiting_events >= self.max_events and not self._is_closed:
            self._emptied.clear()
            await self._emptied.wait()

    async def take(self) -> list[Batch]:
        """Everything that waits, at least one batch; an empty list when closed and drained.

        Raises:
            Exception: whatever :attr:`at_once` has raised; nothing is given any more.
        """
        while not self._batches and self._error is None:
            if self._is_closed:
                return []
            self._filled.clear()
            self._is_awaited = True
            try:
                await self._filled.wait()
            finally:
                self._is_awaited = False
        if self._error is not None:
            raise self._error
        batches = list(self._batches)
        self._batches.clear()
        self.waiting_events = 0
        self._emptied.set()
        return batches

    def close(self) -> None:
        """No more is taken in; what is inside can still be read."""
        self._is_closed = True
        self._filled.set()
        self._emptied.set()


def _weight(batch: Batch) -> int:
    # An empty batch still says that its source is alive, and takes room.
    weight = len(batch.events) or 1
    if batch.source == "rest":
        candles = sum(len(history.candles) for history in batch.histories())
        weight += candles * EVENTS_PER_CANDLE
    return weight
