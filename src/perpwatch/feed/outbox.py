"""Where all sources meet: a bounded queue of batches with one reader."""

from __future__ import annotations

import asyncio
from collections import deque

from perpwatch.model import Batch

#: Events that may wait for the reader before sources have to.
DEFAULT_EVENTS = 200_000
#: A candle of a history keeps the reader busy for as long as so many events, and they come a thousand at a time.
EVENTS_PER_CANDLE = 20


class Turns:
    """One source at a time: use as ``async with`` around decoding a read and putting it, here or through others.

    The next source has its turn when whoever reads has been woken by the put, and so has usually digested it: a read
    goes from its bytes to its end before the next one is decoded. Otherwise all connections decode first, and the
    reader finds none of it in the processor's cache: a flood over nine of them costs half as much again.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        # In the loop's next round, behind the reader. It is not waited for: who has other things to do must not keep
        # answers of the exchange from being read.
        asyncio.get_running_loop().call_soon(self._lock.release)


class Outbox:
    """Nothing is dropped: a source that finds the outbox full waits, so that its socket is no longer read."""

    def __init__(self, max_events: int = DEFAULT_EVENTS) -> None:
        self.max_events = max_events
        self.waiting_events = 0
        self.turns = Turns()
        self._batches: deque[Batch] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._is_closed = False

    async def put(self, batch: Batch) -> None:
        """Hand over a batch, in order; after :meth:`close` it is discarded."""
        while self.waiting_events >= self.max_events and not self._is_closed:
            self._emptied.clear()
            await self._emptied.wait()
        if self._is_closed:
            return
        self._batches.append(batch)
        self.waiting_events += _weight(batch)
        self._filled.set()

    async def take(self) -> list[Batch]:
        """Everything that waits, at least one batch; an empty list when closed and drained."""
        while not self._batches:
            if self._is_closed:
                return []
            self._filled.clear()
            await self._filled.wait()
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
