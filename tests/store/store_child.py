"""A process that is there to be killed.

Run as a program it forks one writer per line read (the address and the first minute), tells its process id and then
each minute that is on disk, and ``gone`` when it has ended. Forking saves the half second that starting Python takes.
"""

from __future__ import annotations

import asyncio
import os
import sys

import psycopg  # noqa: F401 - so that the forks need not import it
import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401
from store_rows import at, candle

from perpwatch.model import Candle
from perpwatch.store import Database, LedgerHour, State, Writer

SYMBOLS = 40


def minute_of_the_market(minute: int) -> list[Candle]:
    return [candle(f"S{number:02}_USDT", minute, close=100.0 + minute) for number in range(SYMBOLS)]


async def write_minutes(url: str, minute: int) -> None:
    """Write minutes with their ledger for ever, and tell each that is on disk."""
    async with Writer(Database.open(url)) as writer:
        while True:
            candles = minute_of_the_market(minute)
            codes = bytes([1] * (minute % 60 + 1)).ljust(60, b"\0")
            ledger = [LedgerHour(one.symbol, at(minute - minute % 60), codes) for one in candles]
            await writer.put(*candles, *ledger, State.of("minute", minute, at(minute)))
            assert await writer.flush(20.0)
            say(f"{minute}")
            minute += 1


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())  # at once and whole, also when killed right after


if __name__ == "__main__":
    for line in sys.stdin:
        url, first = line.split()
        child = os.fork()
        if child == 0:
            say(f"pid {os.getpid()}")
            asyncio.run(write_minutes(url, int(first)))
            os._exit(1)
        os.waitpid(child, 0)
        say("gone")
