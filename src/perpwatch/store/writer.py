"""The one writer: takes records without making anybody wait, commits them in batches, and outlives a full disk.

What is put is in memory until it is committed; what :meth:`Writer.flush` has waited for is on disk. A unit (the
records of one put) is committed whole or not at all. While the database cannot be written, the same batch is tried
again until it can, in the order of the puts; nothing is dropped for it. The queue has a size: beyond it ``put`` waits,
so that whoever reads the exchange reads slower. A record that the database will never take is reported and skipped.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from perpwatch.errors import StoreError, StoreUnavailable, retry_delay
from perpwatch.store.batch import Batch
from perpwatch.store.database import BUSY_TIMEOUT_MS, Database
from perpwatch.store.maintenance import Retention, checkpoint, cleaning
from perpwatch.store.packed import PackedCandles
from perpwatch.store.records import Record

logger = logging.getLogger(__name__)

#: Records in the queue from which on ``put`` waits: more than three hours of the whole market, some 150 MB.
DEFAULT_MAX_WAITING = 300_000
#: The same while the database takes them: only histories come in such a rush, and need not fill the memory.
MAX_RUSH = 16_384
#: Records per commit, unless a single unit has more.
BATCH_RECORDS = 8_192
#: Waits between tries while the database cannot be written; they double from the first to the cap.
FIRST_RETRY_S = 0.25
RETRY_CAP_S = 10.0
#: Idle for so long, the write-ahead log is copied into the file.
IDLE_S = 1.0
#: What leaving the block waits for the last commit.
CLOSE_DEADLINE_S = 10.0

Unit = tuple[Record | PackedCandles, ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why nothing can be written just now, or that a record could not be written at all."""

    kind: str  # full, read_only, locked, unreachable, broken_disk; or rejected, for good
    text: str  # what the database said
    waiting: int  # records in memory


@dataclass(slots=True)
class WriterCounters:
    """All since start, besides ``waiting``, which is now."""

    waiting: int = 0  # records that are not committed yet
    written: int = 0  # rows
    commits: int = 0
    rejected: int = 0  # records that the database will never take
    retries: int = 0
    cleaned: int = 0  # rows deleted by retention
    last_commit_s: float = 0.0


class Writer:
    """Owns all writing to a database, inside its ``async with``.

    Args:
        max_waiting: records in memory from which on :meth:`put` waits.
        on_trouble: told when writing fails for a new reason; called on the event loop.
        on_recovered: told the trouble and how many seconds it lasted.
        is_inline: write inside ``put`` instead of in a thread: for virtual time, where a thread looks like a deadlock.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_waiting: int = DEFAULT_MAX_WAITING,
        on_trouble: Callable[[Trouble], None] = lambda trouble: None,
        on_recovered: Callable[[Trouble, float], None] = lambda trouble, seconds: None,
        is_inline: bool = False,
    ) -> None:
        self.counters = WriterCounters()
        self.trouble: Trouble | None = None
        self._database = database
        self._max_waiting = max_waiting
        self._on_trouble = on_trouble
        self._on_recovered = on_recovered
        self._is_inline = is_inline
        self._units: deque[Unit] = deque()
        self._put = 0  # units put and units done with, counted to know what a flush waits for
        self._done = 0
        self._trouble_since_s = 0.0
        self._attempts = 0
        self._chores: Iterator[int] | None = None
        self._wake = threading.Condition()  # guards everything above
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._progress = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        if not self._is_inline:
            self._thread = threading.Thread(target=self._run, name="perpwatch-store", daemon=True)
            self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(CLOSE_DEADLINE_S)

    # --- Putting ----------------------------------------------------------------------------------------------------

    def put_now(self, *records: Record | PackedCandles) -> None:
        """Take records, to be committed together; never waits and never refuses.

        Whoever cannot wait uses this, and lets somebody who can await :meth:`room`.
        """
        if records:
            self.put_units_now([records])

    def put_units_now(self, units: Sequence[Unit]) -> None:
        """Take several units, each to be committed whole, at once: none of them is begun before all are there.

        Packed candles come first in their unit, and count as many records as there are candles.
        """
        with self._wake:
            self._units += units
            self._put += len(units)
            self.counters.waiting += sum(map(_size, units))
            self._wake.notify()
        if self._is_inline:
            self._write_inline()

    async def put(self, *records: Record) -> None:
        """Take records, to be committed together; waits while the queue is full."""
        self.put_now(*records)
        await self.room()

    @property
    def has_room(self) -> bool:
        """Fewer records are waiting than the queue holds; than a small part of it while all goes well."""
        return self.counters.waiting < (self._max_waiting if self.trouble else min(self._max_waiting, MAX_RUSH))

    async def room(self) -> None:
        """Wait until :attr:`has_room`."""
        while not self.has_room:
            await self._await_progress()

    async def flush(self, deadline_s: float) -> bool:
        """Wait until everything put so far is on disk; False when that took longer than ``deadline_s``."""
        target = self._put
        try:
            async with asyncio.timeout(deadline_s):
                while self._done < target:
                    await self._await_progress()
        except TimeoutError:
            return False
        return True

    def clean(self, retention: Retention, now_ms: int) -> None:
        """Delete what has become too old, in small steps between the writes; what is under way begins again."""
        with self._wake:
            self._chores = cleaning(self._database, retention, now_ms)
            self._wake.notify()
        if self._is_inline:
            self._do_chores()

    @property
    def is_cleaning(self) -> bool:
        return self._chores is not None

    async def close(self, deadline_s: float) -> int:
        """Commit what can be committed until then, and stop.

        Returns:
            Records that are lost because they could not be written.
        """
        if self._is_stopping:
            return self.counters.waiting
        try:
            await self.flush(deadline_s)
        finally:
            with self._wake:
                self._is_stopping = True
                self._wake.notify()
            if self._thread is not None and self._thread.is_alive():
                # A little more than SQLite waits for a lock; a server that hangs does not hold up the exit.
                await asyncio.to_thread(self._thread.join, BUSY_TIMEOUT_MS / 1_000 + 1.0)
        if self.counters.waiting:
            logger.error("%d records could not be stored before the end", self.counters.waiting)
        return self.counters.waiting

    async def _await_progress(self) -> None:
        if not self._is_inline:
            await self._progress.wait()
            return
        self._write_inline()
        if self._units:
            await asyncio.sleep(self._delay_s())

    # --- The thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        is_checkpoint_due = False
        while not self._is_stopping:
            units = self._next_batch()
            if units:
                self._write(units)
                is_checkpoint_due = True
            elif self._chores is not None:
                self._do_chore()
            else:
                with self._wake:
                    has_news = self._units or self._chores is not None or self._is_stopping
                    is_idle = not has_news and not self._wake.wait(IDLE_S if is_checkpoint_due else None)
                if is_idle:
                    is_checkpoint_due = False
                    self._checkpoint()

    def _next_batch(self) -> list[Unit]:
        """The oldest units; they stay in the queue until they are done with."""
        units: list[Unit] = []
        records = 0
        with self._wake:
            for unit in self._units:
                size = _size(unit)
                if units and records + size > BATCH_RECORDS:
                    break
                units.append(unit)
                records += size
        return units

    def _write(self, units: list[Unit]) -> None:
        """Try until it is written, or the end has come."""
        while not self._try(units):
            with self._wake:
                # Puts notify too, so the time is looked at again after each.
                until_s = time.monotonic() + self._delay_s()
                while not self._is_stopping and (left_s := until_s - time.monotonic()) > 0:
                    self._wake.wait(left_s)
                if self._is_stopping:
                    return

    def _try(self, units: list[Unit]) -> bool:
        """Commit; False when it should be tried again. What can never be written is reported and counts as done."""
        started_s = time.monotonic()
        try:
            batch = Batch()
            for unit in units:
                batch.add(unit)
            with self._database.writing() as connection:
                rows = batch.write(connection)
        except StoreUnavailable as error:
            self.counters.retries += 1
            self._attempts += 1
            self._database.forget_connections()
            self._set_trouble(Trouble(error.trouble, str(error), self.counters.waiting), started_s)
            return False
        except Exception as error:
            # Whatever it is, the rest of the market must not wait behind it.
            if len(units) > 1:
                for unit in units:
                    self._write([unit])
            else:
                self._reject(units[0], error)
            return True
        self.counters.commits += 1
        self.counters.written += rows
        self.counters.last_commit_s = time.monotonic() - started_s
        self._set_trouble(None, started_s)
        self._finish(units)
        return True

    def _reject(self, unit: Unit, error: Exception) -> None:
        logger.error("the store will not take %.500r", unit, exc_info=None if isinstance(error, StoreError) else error)
        self.counters.rejected += _size(unit)
        self._finish([unit])
        self._call(self._on_trouble, Trouble("rejected", f"{type(error).__name__}: {error}", self.counters.waiting))

    def _finish(self, units: list[Unit]) -> None:
        with self._wake:
            for unit in units:
                done = self._units.popleft()
                assert done is unit
                self.counters.waiting -= _size(unit)
            self._done += len(units)
        self._call(self._wake_waiters)

    def _delay_s(self) -> float:
        error = StoreUnavailable("", "", "")
        return retry_delay(error, max(self._attempts, 1), 1.0, first_s=FIRST_RETRY_S, cap_s=RETRY_CAP_S) or 0.0

    def _set_trouble(self, trouble: Trouble | None, now_s: float) -> None:
        before, self.trouble = self.trouble, trouble
        if trouble is None:
            self._attempts = 0
            if before is not None:
                self._call(self._on_recovered, before, time.monotonic() - self._trouble_since_s)
        elif before is None or before.kind != trouble.kind:
            self._trouble_since_s = now_s if before is None else self._trouble_since_s
            self._call(self._on_trouble, trouble)
            self._call(self._wake_waiters)  # the queue may hold more from now on

    # --- Without a thread -------------------------------------------------------------------------------------------

    def _write_inline(self) -> None:
        while units := self._next_batch():
            if not self._try(units):
                return

    def _do_chores(self) -> None:
        while self._chores is not None:
            self._do_chore()

    # --- Between the writes -----------------------------------------------------------------------------------------

    def _do_chore(self) -> None:
        chores = self._chores
        assert chores is not None
        try:
            self.counters.cleaned += next(chores)
            return
        except StopIteration:
            pass
        except StoreError as error:
            # The next call of clean tries again; a disk that is full shows at the next write.
            logger.warning("old rows could not be deleted: %s", error)
        with self._wake:
            if self._chores is chores:
                self._chores = None

    def _checkpoint(self) -> None:
        try:
            checkpoint(self._database)
        except StoreError as error:
            logger.warning("the write-ahead log could not be copied into the file: %s", error)

    # --- Back to the event loop -------------------------------------------------------------------------------------

    def _call(self, function: Callable[..., None], *args: object) -> None:
        if self._is_inline:
            function(*args)
            return
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The loop has ended without leaving the block; the thread is a daemon and follows.
            logger.warning("the event loop ended before the store was closed")
            self._is_stopping = True

    def _wake_waiters(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()


def _size(unit: Unit) -> int:
    first = unit[0]
    return len(unit) if type(first) is not PackedCandles else len(unit) - 1 + len(first)
