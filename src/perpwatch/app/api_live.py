"""A channel of messages on its way to one reader, as WebSocket or as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from perpwatch.app.api_security import SEND_S, address_of
from perpwatch.app.api_stream import Events, Message, Subscriber, Topic

#: A stream that has nothing to say says so now and then, so that both ends know that the other is there.
HEARTBEAT_S = 10.0
#: The close code for "come back later" (RFC 6455 registry).
TRY_AGAIN = 1013
TOO_MANY = "too many are listening already"


async def serve_socket(
    socket: WebSocket, topic: Topic, first: Sequence[Message], missed: Sequence[Message] = (), kind: str = ""
) -> None:
    """Send what comes over a WebSocket, until the reader goes or is too slow.

    Args:
        first: before all else, whatever kind the reader wants.
        missed: what came while the reader was away.
        kind: only messages of this kind; empty for all.
    """
    if topic.is_full:
        await socket.accept()
        await socket.close(TRY_AGAIN, TOO_MANY)
        return
    subscriber = topic.subscribe(kind=kind, name=address_of(socket))
    waiting = [*first, *(one for one in missed if subscriber.wants(one))]
    try:
        await socket.accept()
        sending = asyncio.create_task(_send_all(socket, topic, waiting, subscriber))
        # Nothing is expected from a reader, but only reading shows that it has gone.
        listening = asyncio.create_task(_until_gone(socket))
        dropping = asyncio.create_task(subscriber.dropped.wait())
        tasks = sending, listening, dropping
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if subscriber.reason:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it has gone by itself
                await socket.close(TRY_AGAIN, subscriber.reason)
    finally:
        topic.unsubscribe(subscriber)


async def _send_all(socket: WebSocket, topic: Topic, first: Sequence[Message], subscriber: Subscriber) -> None:
    async def send(message: Message) -> None:
        await topic.turns.take()
        async with asyncio.timeout(SEND_S):
            await socket.send_text(message.text)

    try:
        for message in first:
            await send(message)
        async for message in subscriber:
            await send(message)
    except TimeoutError:
        topic.drop(subscriber, f"too slow: nothing was taken for {SEND_S:.0f} s")


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def server_sent(
    topic: Events, last_id: str | None, *, kind: str = "", name: str = "", for_s: float | None = None
) -> AsyncIterator[bytes]:
    """Events as server-sent events, the text of an answer.

    Args:
        last_id: what the reader has read already.
        kind: only events of this kind; empty for all.
        name: of the reader, for the log.
        for_s: end after so many seconds; None for never.
    """
    # Subscribed in the same breath as the missed ones are taken, so that nothing falls between; and only here, so that
    # a reader who has gone before the first word is no subscriber.
    missed, reason = topic.after(last_id)
    subscriber = topic.subscribe(kind=kind, name=name)
    try:
        yield b"retry: 2000\n\n"
        if reason:
            yield b"event: reset\ndata: " + msgspec.json.encode({"reason": reason}) + b"\n\n"
        for message in missed:
            if subscriber.wants(message):
                yield message.server_sent
        loop = asyncio.get_running_loop()
        until_s = None if for_s is None else loop.time() + for_s
        while True:
            wait_s = HEARTBEAT_S if until_s is None else min(HEARTBEAT_S, until_s - loop.time())
            try:
                async with asyncio.timeout(max(0.0, wait_s)):
                    message = await anext(subscriber)
            except TimeoutError:
                if until_s is not None and loop.time() >= until_s:
                    return
                yield b": still here\n\n"
            except StopAsyncIteration:
                yield b"event: dropped\ndata: " + msgspec.json.encode({"reason": subscriber.reason}) + b"\n\n"
                return
            else:
                await topic.turns.take()
                yield message.server_sent
    finally:
        topic.unsubscribe(subscriber)
