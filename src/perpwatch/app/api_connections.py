"""The server's connections, bounded where uvicorn leaves them open: nobody who is slow, endless or many holds anything
for long.

uvicorn ends idle connections, but waits for ever for the rest of a head, lets a head grow without end, and closes a
connection only when everything written was taken, which somebody who has stopped reading never does. Its
``limit_concurrency`` is taken here as the number of the first connection that is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from perpwatch.app.api_problem import problem_body

#: A request line and its headers: so many bytes, within so many seconds of the first of them or of the connection.
MAX_HEAD_BYTES, HEAD_S = 32_768, 10.0
#: Somebody who was told why he is let go has so long to read it.
GOODBYE_S = 5.0
#: Where an application finds the connection in its scope.
EXTENSION = "perpwatch.connection"


class _Ending:
    """Ends a connection for good."""

    transport: asyncio.Transport
    is_lost = False

    def end(self) -> None:
        """End it now, whatever is still to be sent."""
        if self.is_lost:
            return
        # Without this the system would go on to offer what it holds for minutes to somebody who does not want it.
        one = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class HttpConnection(_Ending, HttpToolsProtocol):
    """One connection of a client that speaks HTTP."""

    _waiting: asyncio.TimerHandle | None = None  # for the rest of a head
    _head_bytes = 0
    _is_in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Each costs the process a file descriptor, which the feed needs, too.
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self.connections.discard(self)  # whoever is refused takes nobody's place
            self._refuse(503, f"{self.limit_concurrency - 1} connections are open already", "Retry-After: 5")
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._waiting is None:
                self._await_head()
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"a request line and its headers may have {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: {"end": self.end}}

    def on_headers_complete(self) -> None:
        self._is_in_head, self._head_bytes = False, 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head = True
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is not a request that can be understood")

    def _await_head(self) -> None:
        self._waiting = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if self._head_bytes:
            self._refuse(408, f"the head of the request did not end within {HEAD_S:.0f} s")
        else:
            self.end()  # it has asked nothing

    def _refuse(self, status: int, detail: str, *headers: str) -> None:
        """Say why in one write, and close."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.end()  # in the middle of an answer nothing else can be said
            return
        body = problem_body(status, detail)
        head = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Content-Type: application/problem+json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *headers,
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()
        self.loop.call_later(GOODBYE_S, self.end)


class SocketConnection(_Ending, WebSocketsSansIOProtocol):
    """One connection of a client that speaks WebSocket."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        is_close = message["type"] == "websocket.close"
        if is_close:
            self.writable.set()  # the reason goes behind what waits already, however long that is
        await super().send(message)
        if is_close:
            self.loop.call_later(GOODBYE_S, self.end)
        elif message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # refused with an answer, which uvicorn would call a mistake of ours

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.end()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self.loop.call_later(GOODBYE_S, self.end)


class Server(uvicorn.Server):
    """Signals belong to the program around."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def give_up(scope: Any) -> None:
    """End the connection of a request at once, whatever is still to be sent."""
    connection = scope.get("extensions", {}).get(EXTENSION)
    if connection is not None:
        connection["end"]()
