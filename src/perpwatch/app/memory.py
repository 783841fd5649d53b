"""A process that runs for months: the collector leaves alone what stays, and what the start has borrowed goes back.

Learning the history of a thousand contracts needs memory for a while, and leaves behind hundreds of thousands of
objects that live as long as the watch. Without a word from us the C library keeps the former, and the collector walks
through the latter again and again, for a tenth of a second each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator

from perpwatch.app.bot import Bot

#: What is asked for in one piece of this size, as histories are that wait and answers of the exchange, has pages of its
#: own, which go back with it. Left to itself the C library raises the size to whatever was last given back, and then
#: such pieces lie among those that stay for months.
OWN_PAGES_FROM = 65_536
#: ``M_MMAP_THRESHOLD`` of glibc's malloc.h.
_MMAP_THRESHOLD = -3

LOOK_EVERY_S = 1.0
#: Between two times at which free memory goes back: at first what the start has borrowed, a part of which is in use
#: for a minute after the last history was learned, then seldom.
GIVE_BACK_AFTER_S, GIVE_BACK_EVERY_S = 4.0, 3_600.0
#: New containers before the collector looks at the youngest. The events of the stream are none, so that this is reached
#: every few seconds, and cycles are rare here.
YOUNG = 50_000


@contextlib.contextmanager
def pauses_told(tell: Callable[[float], None]) -> Iterator[None]:
    """Tell the seconds of each run of the collector, during which nothing else happens."""
    began_s = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began_s
        now_s = time.perf_counter()
        if phase == "start":
            began_s = now_s
        elif began_s:
            tell(now_s - began_s)

    gc.callbacks.append(note)
    try:
        yield
    finally:
        gc.callbacks.remove(note)


@contextlib.asynccontextmanager
async def tended(bot: Bot) -> AsyncIterator[None]:
    """Look after the memory of the process while this is entered. It belongs to programs, not to libraries."""
    _borrow_apart()
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, *before[1:])
    # Libraries stay, so that the collector needs to walk only through what comes after them.
    _set_aside()
    tending = asyncio.create_task(_tend(bot))
    try:
        yield
    finally:
        tending.cancel()
        gc.unfreeze()
        gc.set_threshold(*before)


async def _tend(bot: Bot) -> None:
    while not _is_warm(bot):  # noqa: ASYNC110 - nobody says when the last history is learned
        await asyncio.sleep(LOOK_EVERY_S)
    _set_aside()
    wait_s = GIVE_BACK_AFTER_S
    while True:
        await asyncio.to_thread(give_back)
        await asyncio.sleep(wait_s)
        wait_s = min(2.0 * wait_s, GIVE_BACK_EVERY_S)


def _set_aside() -> None:
    """The collector looks no more at what is there now."""
    gc.collect()  # garbage that is set aside would be kept for ever
    gc.freeze()


def _is_warm(bot: Bot) -> bool:
    return 0 < bot.progress.watched <= len(bot.engine.warm) + len(bot.feed.given_up)


def give_back() -> None:
    """Return free memory to the system, where the C library can be told to."""
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


def _borrow_apart() -> None:
    """What is large and short-lived does not lie among what stays."""
    option = _c_function("mallopt")
    if option is not None:
        option(_MMAP_THRESHOLD, OWN_PAGES_FROM)


def _c_function(name: str) -> Callable[..., int] | None:
    # glibc has them, musl gives memory back by itself.
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
