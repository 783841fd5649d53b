"""Pictures drawn in a process of their own, so that the feed never waits for one.

Drawing takes some 50 ms of Python, most of it with the interpreter's lock held, and matplotlib takes 60 MB: in a thread
it would hold up the event loop for several milliseconds at a time (``benchmarks/card.py`` measures both ways). The
process is asked through its standard input and ends with it, so that none is left behind, however the watch ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import IO

import msgspec

from perpwatch.alert import pipes
from perpwatch.alert.chart import Chart

logger = logging.getLogger(__name__)

#: A card does not wait longer for its picture.
DEADLINE_S = 2.0
#: Reading matplotlib takes a second or two, and more on a machine that is busy.
START_S = 30.0


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    picture: bytes
    error: str = ""


class Painter:
    """Draws charts one after the other, while it is entered; the process starts at once, and nothing waits for it.

    Args:
        deadline_s: after this a card goes without its picture.
    """

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._process: asyncio.subprocess.Process | None = None  # once it can draw
        self._starting: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Painter:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        await self._stop()

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none that can draw."""
        return self._process.pid if self._process is not None else None

    def start(self) -> asyncio.Task[None]:
        """Start the process, unless it is there or coming; the task ends when it can draw, or cannot be started."""
        is_there = self._process is not None and self._process.returncode is None
        if self._starting is None or (self._starting.done() and not is_there):
            self._starting = asyncio.create_task(self._start())
        return self._starting

    async def draw(self, chart: Chart) -> bytes | None:
        """A PNG; None where none could be drawn in time, and the reason is logged."""
        try:
            async with asyncio.timeout(self._deadline_s), self._turn:
                await asyncio.shield(self.start())
                if self._process is None:
                    return None  # why has been logged
                answer = await self._ask(self._process, chart)
        except (OSError, EOFError, TimeoutError) as error:
            logger.warning("a card of %s has no picture: %s", chart.symbol, str(error) or type(error).__name__)
            return None
        if answer.error:
            logger.warning("a card of %s has no picture: %s", chart.symbol, answer.error)
            return None
        return answer.picture

    async def _ask(self, process: asyncio.subprocess.Process, chart: Chart) -> _Answer:
        assert process.stdin is not None
        try:
            process.stdin.write(pipes.packed(chart))
            await process.stdin.drain()
            return await _read_answer(process)
        except BaseException:
            # An answer that nobody took would be the next one's.
            await self._stop()
            raise

    async def _start(self) -> None:
        await self._stop()  # one that has died
        process: asyncio.subprocess.Process | None = None
        try:
            async with asyncio.timeout(START_S):
                process = await asyncio.create_subprocess_exec(
                    *pipes.command(__name__),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the watch, which ends it in its own time
                )
                await _read_answer(process)  # it greets when it can draw
        except (OSError, EOFError, TimeoutError) as error:
            logger.warning("no pictures for now: %s", str(error) or type(error).__name__)
            await _end(process)
        except asyncio.CancelledError:
            await _end(process)
            raise
        else:
            self._process = process

    async def _stop(self) -> None:
        process, self._process = self._process, None
        await _end(process)


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is None:
        return
    if process.returncode is None:
        process.kill()
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()


async def _read_answer(process: asyncio.subprocess.Process) -> _Answer:
    assert process.stdout is not None
    return msgspec.msgpack.decode(await pipes.read_from(process.stdout), type=_Answer)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Draw what is asked for until nobody asks any more."""
    from perpwatch.alert.drawing import draw  # matplotlib, which only this process reads

    pipes.write(answers, _Answer(b""))
    while True:
        body = pipes.read(requests)
        try:
            answer = _Answer(draw(msgspec.msgpack.decode(body, type=Chart)))
        except Exception as error:  # whatever matplotlib does not like costs one picture
            answer = _Answer(b"", f"{type(error).__name__}: {error}")
        pipes.write(answers, answer)


if __name__ == "__main__":
    with contextlib.suppress(EOFError, BrokenPipeError):
        serve(*pipes.opened_in_child())
