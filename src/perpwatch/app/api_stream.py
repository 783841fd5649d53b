"""Messages to many readers at once: each is encoded once, and whoever cannot follow is let go with a reason.

Nothing here waits for a reader. A subscriber has a queue of bounded length; when it is full the subscriber is dropped,
and the feed never notices. Readers take turns, so that the feed is heard between the fiftieth and the first of them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from functools import cached_property

logger = logging.getLogger(__name__)

#: Messages that may wait for one reader.
MAX_WAITING = 64
#: Events that a reader who was away can have again.
KEPT_EVENTS = 2_000
#: Readers that are served between two looks at the sockets.
SERVED_AT_ONCE = 4


class Message:
    """One message, in every form that readers want, each made once.

    Args:
        id: of an event that can be resumed from.
        kind: what readers may choose by.
    """

    def __init__(self, body: bytes, id: str = "", kind: str = "") -> None:
        self.body = body
        self.id = id
        self.kind = kind

    @cached_property
    def text(self) -> str:
        return self.body.decode()

    @cached_property
    def server_sent(self) -> bytes:
        """As a server-sent event."""
        return b"id: " + self.id.encode() + b"\ndata: " + self.body + b"\n\n"


class Subscriber:
    """One reader. Use as an asynchronous iterator; it ends when the reader was dropped, and ``reason`` says why.

    Args:
        kind: only messages of this kind; empty for all.
        name: who it is, for the log.
    """

    def __init__(self, max_waiting: int = MAX_WAITING, kind: str = "", name: str = "") -> None:
        self.name = name
        self.reason = ""
        self.dropped = asyncio.Event()
        self._kind = kind
        self._waiting: deque[Message] = deque()
        self._max_waiting = max_waiting
        self._news = asyncio.Event()

    def wants(self, message: Message) -> bool:
        return not self._kind or message.kind == self._kind

    def put(self, message: Message) -> bool:
        """Queue a message; False when the reader was too slow and is dropped."""
        if not self.wants(message):
            return True
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
        self.dropped.set()

    def __aiter__(self) -> Subscriber:
        return self

    async def __anext__(self) -> Message:
        while not self._waiting:
            if self.reason:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()


class Turns:
    """Lets a few go on at each round of the event loop; between two rounds it looks at its sockets."""

    def __init__(self, at_once: int = SERVED_AT_ONCE) -> None:
        self._at_once = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_due = False

    async def take(self) -> None:
        """Return when it is the caller's turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if not self._is_due:
            self._is_due = True
            turn.get_loop().call_soon(self._next)
        await turn

    def _next(self) -> None:
        given = 0
        while self._waiting and given < self._at_once:
            turn = self._waiting.popleft()
            if not turn.done():  # whoever waited may have gone
                turn.set_result(None)
                given += 1
        self._is_due = bool(self._waiting)
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._next)


class Topic:
    """A channel to all its subscribers."""

    def __init__(self, max_subscribers: int) -> None:
        self.max_subscribers = max_subscribers
        self.dropped = 0
        self.turns = Turns()
        self._subscribers: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def is_full(self) -> bool:
        return len(self._subscribers) >= self.max_subscribers

    def subscribe(self, max_waiting: int = MAX_WAITING, kind: str = "", name: str = "") -> Subscriber:
        subscriber = Subscriber(max_waiting, kind, name)
        self._subscribers[subscriber] = None
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber, None)

    def publish(self, message: Message) -> None:
        """Hand a message to everybody."""
        for subscriber in [one for one in self._subscribers if not one.put(message)]:
            self.drop(subscriber, subscriber.reason)

    def drop(self, subscriber: Subscriber, reason: str) -> None:
        """Let a reader go who cannot follow."""
        subscriber.drop(reason)
        if subscriber in self._subscribers:
            del self._subscribers[subscriber]
            self.dropped += 1
            logger.info("%s is dropped from a live stream: %s", subscriber.name or "a reader", subscriber.reason)

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
        self._kept: deque[tuple[int, Message]] = deque(maxlen=kept)
        self._numbers = itertools.count(1)

    def tell(self, kind: str, encode: Callable[[str], bytes]) -> None:
        """Number, keep and publish a message; ``encode`` is given its identifier."""
        number = next(self._numbers)
        name = f"{self.run}.{number}"
        message = Message(encode(name), name, kind)
        self._kept.append((number, message))
        self.publish(message)

    def after(self, last_id: str | None) -> tuple[list[Message], str]:
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
