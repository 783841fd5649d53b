"""What a process holds in memory, and what the collector walks through."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from perpwatch.app.config import Config
from perpwatch.app.demo import DemoOptions, demo_bot, serve_exchange
from perpwatch.app.memory import give_back, pauses_told, tended


class _Circle:
    def __init__(self) -> None:
        self.itself = self


def rss_mb() -> float:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1_024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library gives memory back by itself")
def test_free_memory_goes_back_to_the_system() -> None:
    kept = [bytes(2_000) for _ in range(50_000)]
    last = bytes(2_000)  # above all others, so that the C library alone could not shrink its heap
    kept.clear()
    before_mb = rss_mb()
    give_back()
    assert rss_mb() < before_mb - 50.0
    del last


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library gives memory back by itself")
def test_what_is_large_goes_back_by_itself_while_a_bot_is_tended() -> None:
    # A process of its own: one that has run other tests has free places for all of it in its heap.
    process = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=30)
    assert float(process.stdout) > 40.0, process.stderr


async def test_the_collector_leaves_alone_what_a_warm_watch_holds_and_is_as_before_afterwards() -> None:
    before = gc.get_threshold()
    async with (
        serve_exchange(DemoOptions(pairs=5)) as server,
        demo_bot(Config(), server, lambda batch, step: None) as (bot, _),
    ):
        async with tended(bot):
            libraries = gc.get_freeze_count()
            assert libraries > 0
            running = asyncio.create_task(bot.run())
            circle = _Circle()
            gone = weakref.ref(circle)
            del circle
            async with asyncio.timeout(30.0):
                while gc.get_freeze_count() <= libraries:
                    await asyncio.sleep(0.1)
            assert len(bot.engine.warm) == 5
            assert gone() is None, "garbage is not set aside"
        assert gc.get_freeze_count() == 0
        assert gc.get_threshold() == before
        bot.stop()
        await running


def test_pauses_of_the_collector_are_told_as_long_as_somebody_asks() -> None:
    callbacks = list(gc.callbacks)
    pauses_s: list[float] = []
    with pauses_told(pauses_s.append):
        gc.collect()
        told = len(pauses_s)
    gc.collect()
    assert told == len(pauses_s) >= 1
    assert all(0.0 <= pause_s < 60.0 for pause_s in pauses_s)
    assert gc.callbacks == callbacks


async def gone_back_mb() -> float:
    """How much of 50 MB, borrowed in large pieces, goes back by itself."""
    async with (
        serve_exchange(DemoOptions(pairs=1)) as server,
        demo_bot(Config(), server, lambda batch, step: None) as (bot, _),
        tended(bot),
    ):
        bytes(30_000_000)  # larger than all that follow: from now on the C library would keep those in its heap
        borrowed, kept = [], []
        for _ in range(500):
            borrowed.append(b"x" * 100_000)
            kept.append(b"x" * 2_000)  # among them, so that the heap has no end to cut off
        before_mb = rss_mb()
        borrowed.clear()
        return before_mb - rss_mb()


if __name__ == "__main__":
    print(asyncio.run(gone_back_mb()))
