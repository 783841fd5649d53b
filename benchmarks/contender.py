"""What every contender has in common: it is told how many frames come, and tells what they cost it.

A contender is a process of its own, pinned to one core. It connects to ``ws://127.0.0.1:PORT/TAG``, subscribes, prints
``ready``, and for each line ``FRAMES BYTES`` on its standard input ``ready`` again and, after that many frames, a line
of JSON. To ``tell`` it answers with a line of JSON at once.
Only the standard library is used here, because contenders live in different environments.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable


def pin(core: int) -> None:
    """Stay on one core, where the system can do that."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(0, {core})


class Stopwatch:
    """Counts frames and measures from the first to the last of a flood.

    Args:
        settle_s: seconds after the last frame during which work still counts: that of other threads.
    """

    def __init__(self, settle_s: float = 0.0) -> None:
        self.left = 0
        self._settle_s = settle_s
        self._frames = 0
        self._is_first = True
        self._cpu_s = self._wall_s = 0.0
        self.extra: Callable[[], dict[str, float]] = lambda: {}

    def expect(self, frames: int) -> None:
        self._frames, self._is_first = frames, True
        self.left = frames

    def count(self, frames: int = 1) -> None:
        """So many frames have been worked on; called often, so it does little."""
        if self._is_first:
            self._is_first = False
            self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()
        self.left -= frames
        if self.left <= 0 < self._frames:
            wall_s = time.perf_counter() - self._wall_s
            counted, self._frames = self._frames, 0
            if self._settle_s:
                threading.Timer(self._settle_s, self._tell, (counted, wall_s)).start()
            else:
                self._tell(counted, wall_s)

    def _tell(self, frames: int, wall_s: float) -> None:
        cpu_s = time.process_time() - self._cpu_s
        print(json.dumps({"frames": frames, "wall_s": wall_s, "cpu_s": cpu_s} | self.extra()), flush=True)


def listen(take: Callable[[int, int], None], tell: Callable[[], object] = dict) -> None:
    """Call ``take(frames, bytes)`` for each line of the standard input, from a thread; its end ends the process."""

    def read() -> None:
        for line in sys.stdin:
            if line == "tell\n":
                print(json.dumps(tell()), flush=True)
                continue
            gc.collect()
            frames, size = line.split()
            take(int(frames), int(size))
            print("ready", flush=True)
        os._exit(0)

    print("ready", flush=True)
    threading.Thread(target=read, daemon=True).start()


async def listen_for_ever(take: Callable[[int, int], None], tell: Callable[[], object] = dict) -> None:
    """The same within a loop."""
    listen(take, tell)
    await asyncio.get_running_loop().create_future()
