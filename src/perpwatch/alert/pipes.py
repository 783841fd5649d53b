"""Requests and answers through the standard pipes of a child process: what both of its ends share.

The child runs one of our modules, is asked one thing after the other, and ends when nobody asks any more, however its
parent ends. What goes through is MessagePack behind its length in four bytes.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import IO, TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import asyncio

#: Below the watch, which must not be late.
NICENESS = 5
_LENGTH = struct.Struct("<I")


def command(module: str) -> tuple[str, ...]:
    """The child's command line: a module that serves when it is run."""
    return sys.executable, "-m", module


def packed(what: object) -> bytes:
    """A request or an answer as it goes through."""
    body = msgspec.msgpack.encode(what)
    return _LENGTH.pack(len(body)) + body


def write(pipe: IO[bytes], what: object) -> None:
    pipe.write(packed(what))
    pipe.flush()


def read(pipe: IO[bytes]) -> bytes:
    """The next one, to be decoded.

    Raises:
        EOFError: nobody is there any more.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    body = pipe.read(length)
    if len(body) < length:
        raise EOFError
    return body


async def read_from(stream: asyncio.StreamReader) -> bytes:
    """The same, without holding up an event loop."""
    (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
    return await stream.readexactly(length)


def opened_in_child() -> tuple[IO[bytes], IO[bytes]]:
    """The child's ends, of requests and of answers; its priority sinks below the watch's."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICENESS)
    # What some library prints is no answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return sys.stdin.buffer, answers
