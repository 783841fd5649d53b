"""What is known about every (symbol, minute): one byte each, and what should be read back next.

A minute nobody has spoken about is unknown; it never has to be written down as such. The ledger is a ring per symbol,
so that 1,061 symbols over two days take 3 MB and an old minute gives way to a new one by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from perpwatch.model import MINUTE_MS, Trust

DEFAULT_MINUTES = 2_880

#: How a minute is written in one byte.
CODES = {Trust.UNKNOWN: 0, Trust.STREAMED: 1, Trust.VERIFIED: 2, Trust.REPAIRED: 3, Trust.QUIET: 4}
_TRUST = tuple(CODES)
_UNKNOWN = 0
#: A minute that never comes.
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Span:
    """Minutes of one symbol, from ``start_ms`` (inclusive) to ``end_ms`` (exclusive)."""

    symbol: str
    start_ms: int
    end_ms: int

    @property
    def minutes(self) -> int:
        return (self.end_ms - self.start_ms) // MINUTE_MS


class Ledger:
    """Trust of every minute of every symbol within the last ``minutes`` minutes."""

    def __init__(self, minutes: int = DEFAULT_MINUTES) -> None:
        if minutes < 1:
            raise ValueError(f"a ledger needs at least one minute, not {minutes}")
        self.minutes = minutes
        self._rings: dict[str, Ring] = {}

    def record(self, symbol: str, open_time_ms: int, trust: Trust) -> None:
        """Write down what is known about a minute. Minutes that have left the ring are ignored."""
        ring = self._rings.get(symbol)
        if ring is None:
            ring = self._rings[symbol] = Ring(self.minutes)
        ring.write(open_time_ms // MINUTE_MS, CODES[trust])

    def record_range(self, symbol: str, start_ms: int, end_ms: int, trust: Trust) -> None:
        """Write down the same for every minute that opens within the window."""
        ring = self._rings.get(symbol)
        if ring is None:
            ring = self._rings[symbol] = Ring(self.minutes)
        code = CODES[trust]
        for minute in range(start_ms // MINUTE_MS, end_ms // MINUTE_MS):
            ring.write(minute, code)

    def trust(self, symbol: str, open_time_ms: int) -> Trust:
        ring = self._rings.get(symbol)
        return _TRUST[ring.read(open_time_ms // MINUTE_MS)] if ring else Trust.UNKNOWN

    def unknown(self, symbol: str, start_ms: int, end_ms: int) -> Iterator[Span]:
        """Unknown stretches that open within the window, oldest first."""
        first, last = start_ms // MINUTE_MS, end_ms // MINUTE_MS
        ring = self._rings.get(symbol)
        if ring is None:
            if last > first:
                yield Span(symbol, first * MINUTE_MS, last * MINUTE_MS)
            return
        start: int | None = None
        for minute in range(first, last):
            if ring.read(minute) == _UNKNOWN:
                start = minute if start is None else start
            elif start is not None:
                yield Span(symbol, start * MINUTE_MS, minute * MINUTE_MS)
                start = None
        if start is not None:
            yield Span(symbol, start * MINUTE_MS, last * MINUTE_MS)

    def counts(self, symbols: Iterable[str], start_ms: int, end_ms: int) -> dict[Trust, int]:
        """How many minutes of these symbols that open within the window are in each state."""
        totals = dict.fromkeys(Trust, 0)
        first, last = start_ms // MINUTE_MS, end_ms // MINUTE_MS
        for symbol in symbols:
            ring = self._rings.get(symbol)
            if ring is None:
                totals[Trust.UNKNOWN] += max(0, last - first)
                continue
            codes = ring.slice(first, last)
            for trust, code in CODES.items():
                totals[trust] += codes.count(code)
        return totals

    def symbols(self) -> list[str]:
        """Those of which anything was ever recorded."""
        return list(self._rings)

    def newest_ms(self, symbol: str) -> int | None:
        """The newest minute that was recorded."""
        ring = self._rings.get(symbol)
        return ring.newest * MINUTE_MS if ring and ring.newest >= 0 else None

    def codes(self, symbol: str, start_ms: int, end_ms: int) -> bytes:
        """One of :data:`CODES` for each minute that opens within the window, to be kept and restored."""
        first, last = start_ms // MINUTE_MS, end_ms // MINUTE_MS
        ring = self._rings.get(symbol)
        return ring.slice(first, last) if ring else bytes(max(0, last - first))

    def restore(self, symbol: str, start_ms: int, codes: bytes) -> None:
        """Write down minutes as :meth:`codes` gave them; those that are unknown there stay as they are.

        Raises:
            ValueError: a byte that is no code; nothing was written.
        """
        if codes and max(codes) >= len(_TRUST):
            raise ValueError(f"{max(codes)} is no state of a minute")
        ring = self._rings.get(symbol)
        if ring is None:
            ring = self._rings[symbol] = Ring(self.minutes)
        ring.fill(start_ms // MINUTE_MS, codes)

    def take_changed_ms(self, symbol: str) -> int | None:
        """The oldest minute that was written since this was last asked; None when none was."""
        ring = self._rings.get(symbol)
        changed = ring.take_changed() if ring else None
        return changed * MINUTE_MS if changed is not None else None

    def forget(self, symbol: str) -> None:
        self._rings.pop(symbol, None)


class Ring:
    """The newest ``size`` minutes as bytes; the cell of a minute is its number modulo the size.

    Minutes are counted since the epoch, and 0 stands for what nobody has written.
    """

    __slots__ = ("_cells", "_changed", "_newest", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._cells = bytearray(size)
        self._newest = -1
        self._changed = _NEVER

    @property
    def newest(self) -> int:
        """-1 before the first."""
        return self._newest

    def take_changed(self) -> int | None:
        """The oldest minute that was written since this was last asked; None when none was."""
        changed, self._changed = self._changed, _NEVER
        return changed if changed != _NEVER else None

    def write(self, minute: int, code: int) -> None:
        newest, size = self._newest, self._size
        if minute > newest:
            if newest >= 0:
                for skipped in range(max(newest + 1, minute - size + 1), minute):
                    self._cells[skipped % size] = _UNKNOWN
            self._newest = minute
        elif minute <= newest - size:
            return
        self._cells[minute % size] = code
        if minute < self._changed:
            self._changed = minute

    def fill(self, first: int, codes: bytes) -> None:
        """Write minutes from ``first`` on; those that are unknown stay as they are."""
        known = codes.rstrip(b"\0")
        if first > self._newest:
            self._append(first, known)
            return
        for minute, code in enumerate(known, first):
            if code != _UNKNOWN:
                self.write(minute, code)

    def _append(self, first: int, codes: bytes) -> None:
        """Write minutes that are all newer than what is there; the last of them is known."""
        if not codes:
            return
        size, end = self._size, first + len(codes)
        if self._newest >= 0:
            for skipped in range(max(self._newest + 1, end - size), first):
                self._cells[skipped % size] = _UNKNOWN
        first = max(first, end - size)
        position, newer = first % size, codes[-(end - first) :]
        until_wrap = newer[: size - position]
        self._cells[position : position + len(until_wrap)] = until_wrap
        self._cells[: len(newer) - len(until_wrap)] = newer[len(until_wrap) :]
        self._newest = end - 1
        self._changed = min(self._changed, first)

    def read(self, minute: int) -> int:
        if minute > self._newest or minute <= self._newest - self._size:
            return _UNKNOWN
        return self._cells[minute % self._size]

    def slice(self, first: int, last: int) -> bytes:
        """The codes of these minutes, first included and last not."""
        if last <= first:
            return b""
        size = self._size
        known_first, known_last = max(first, self._newest - size + 1, 0), min(last, self._newest + 1)
        if known_last <= known_first:
            return bytes(last - first)
        start, end = known_first % size, (known_last - 1) % size + 1
        cells = self._cells
        known = cells[start:end] if start < end else cells[start:] + cells[:end]
        return bytes(known_first - first) + bytes(known) + bytes(last - known_last)
