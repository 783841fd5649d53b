"""Messages to many readers at once: each is encoded once, and whoever cannot follow is let go with a reason.

Nothing here waits for a reader. A subscriber has a queue of bounded length; when it is full the subscriber is dropped,
and the feed never notices.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque

#: Messages that may wait for one reader.
MAX_WAITING = 64
#: Events that a reader who was away can have again.
KEPT_EVENTS = 2_000


class Subscriber:
    """One reader. Use as an asynchronous iterator; it ends when the reader was dropped, and ``reason`` says why."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self.reason = ""
        self._waiting: deque[bytes] = deque()
        self._max_waiting = max_waiting
        self._news = asyncio.Event()

    def put(self, message: bytes) -> bool:
        """Queue a message; False when the reader was too slow and is dropped."""
        if len(self._waiting) >= self._max_waiting:
            self.drop(f"too slow: {self._max_waiting} messages were waiting")
            return False
        self._waiting.append(message)
        self._news.set()
        return True

    def drop(self, reason: str) -> None:
        """End the subscription; what waits is forgotten."""
        self.reason = self.reason or reason
        self._waiting.clear()
        self._news.set()

    def __aiter__(self) -> Subscriber:
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self.reason:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()


class Topic:
    """A channel to all its subscribers."""

    def __init__(self, max_subscribers: int) -> None:
        self.max_subscribers = max_subscribers
        self.dropped = 0
        self._subscribers: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def is_full(self) -> bool:
        return len(self._subscribers) >= self.max_subscribers

    def subscribe(self, max_waiting: int = MAX_WAITING) -> Subscriber:
        subscriber = Subscriber(max_waiting)
        self._subscribers[subscriber] = None
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber, None)

    def publish(self, message: bytes) -> None:
        """Hand a message to everybody."""
        slow = [subscriber for subscriber in self._subscribers if not subscriber.put(message)]
        for subscriber in slow:
            self.dropped += 1
            del self._subscribers[subscriber]

    def close(self, reason: str) -> None:
        """Let everybody go."""
        for subscriber in self._subscribers:
            subscriber.drop(reason)
        self._subscribers.clear()


class Events(Topic):
    """A channel that numbers its messages and keeps the newest, so that readers can resume.

    Args:
        run: names this run of the program; identifiers of another run are not mistaken for ones of this.
    """

    def __init__(self, run: str, max_subscribers: int, kept: int = KEPT_EVENTS) -> None:
        super().__init__(max_subscribers)
        self.run = run
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=kept)
        self._numbers = itertools.count(1)

    def next_id(self) -> tuple[int, str]:
        number = next(self._numbers)
        return number, f"{self.run}.{number}"

    def tell(self, number: int, message: bytes) -> None:
        """Publish the message that was given this number by :meth:`next_id`, in order."""
        self._kept.append((number, message))
        self.publish(message)

    def after(self, last_id: str | None) -> tuple[list[bytes], str]:
        """What a reader has missed who has read up to ``last_id``.

        Returns:
            The messages, oldest first, and why some are missing among them; no reason when none is. Without an
            identifier there are none.
        """
        if last_id is None:
            return [], ""
        run, _, number = last_id.rpartition(".")
        everything = [message for _, message in self._kept]
        if run != self.run or not number.isascii() or not number.isdigit():
            return everything, f"{last_id!r} is not of this run of the program; all that is kept follows"
        read = int(number)
        missed = [message for kept, message in self._kept if kept > read]
        if self._kept and read + 1 < self._kept[0][0]:
            return missed, f"events {read + 1} to {self._kept[0][0] - 1} are no longer kept"
        return missed, ""
