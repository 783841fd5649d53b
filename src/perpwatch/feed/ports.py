"""The two openings through which a feed touches the world: libraries fill them live, memory in simulation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol


class Socket(Protocol):
    """A connected WebSocket, reduced to what a session needs."""

    on_read: Callable[[], None]
    """Called from within each read that has brought frames, and must not raise. Whoever it belongs to may :meth:`take`
    them at once; what is left waits for :meth:`receive`."""

    def take(self) -> list[bytes]:
        """All frames that have arrived, oldest first; maybe none."""
        ...

    async def receive(self) -> list[bytes]:
        """The same, at least one; waits for the first.

        Raises:
            ConnectionLost: the other side closed or the line broke; frames that came before are delivered first.
        """
        ...

    def send(self, payload: bytes) -> None:
        """Queue one text frame. Sending on a lost connection is silently useless; ``receive`` reports the loss."""
        ...

    async def close(self) -> None:
        """Say good-bye and free the socket. Never raises, also when called twice."""
        ...


#: Opens a socket; raises ConnectionFailed.
Dial = Callable[[str], Awaitable[Socket]]


class HttpAnswer(Protocol):
    """What came back for a GET; header names are lower case."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


#: Gets an address with query parameters; raises RequestFailed when no answer came.
HttpGet = Callable[[str, Mapping[str, str | int]], Awaitable[HttpAnswer]]
