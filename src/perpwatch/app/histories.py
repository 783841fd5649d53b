"""Histories on their way into the store: gathered, and written together in slices of time.

The table of candles lies in the order of time, so a history of one contract has a row in each of thousands of pages,
and written by itself it costs all of them. The same hour of many contracts shares its pages.
"""

from __future__ import annotations

from collections.abc import Sequence

from perpwatch.model import ANALYSED_TIMEFRAMES, Candle, Timeframe
from perpwatch.store import HOUR_MS, PackedCandles

#: Minutes from which on a history is worth waiting for others: less touches few pages.
GATHERED_MINUTES = 60
#: Contracts that are written together.
GROUP = 48
#: How long a history waits for others, by the exchange's time.
GATHERING_MS = 10_000
#: Contracts that may wait, in 283 kB each when a day and nine hours are read.
MAX_WAITING = 2 * GROUP
#: A slice takes whole hours until it holds so many candles. Whatever else is to be stored waits for one slice at most.
SLICE_CANDLES = 2_000


class Histories:
    """Contracts of which candles wait to be written, oldest hours first."""

    def __init__(self) -> None:
        self._gathered: dict[str, PackedCandles] = {}
        self._group: dict[str, PackedCandles] = {}  # what is left of those that are being written
        self._end_ms: dict[str, int] = {}
        self._since_ms = 0  # when the first one was gathered

    def __len__(self) -> int:
        return len(self._end_ms)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._end_ms

    def reaches(self, symbol: str, open_time_ms: int) -> bool:
        """Whether candles of a symbol wait that end after this."""
        return open_time_ms < self._end_ms.get(symbol, 0)

    def holds(self, symbol: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> bool:
        """Whether candles of a symbol may wait that open within a window."""
        packed = self._gathered.get(symbol) or self._group.get(symbol)
        if packed is None or timeframe not in ANALYSED_TIMEFRAMES:
            return False
        length = timeframe.milliseconds
        return start_ms < self._end_ms[symbol] and -(-packed.start_ms // length) * length < end_ms

    def gather(self, symbol: str, candles: Sequence[Candle], now_ms: int) -> None:
        """Let candles of a symbol wait, of which none does."""
        if not self._gathered:
            self._since_ms = now_ms
        self._gathered[symbol] = PackedCandles.of(symbol, candles)
        self._end_ms[symbol] = max(one.close_time_ms for one in candles)

    def is_due(self, now_ms: int) -> bool:
        """Whether a slice is to be written now."""
        is_group_due = len(self._gathered) >= GROUP or now_ms >= self._since_ms + GATHERING_MS
        return bool(self._group) or (bool(self._gathered) and is_group_due)

    def take(self, symbol: str) -> PackedCandles | None:
        """All that is left of one symbol."""
        self._end_ms.pop(symbol, None)
        return self._gathered.pop(symbol, None) or self._group.pop(symbol, None)

    def take_slice(self) -> list[PackedCandles]:
        """The oldest hours that wait, of the whole group; the next group is begun when there is none."""
        if not self._group:
            for symbol in list(self._gathered)[:GROUP]:
                self._group[symbol] = self._gathered.pop(symbol)
        group = self._group
        if not group:
            return []
        start_ms = min(packed.start_ms for packed in group.values())
        end_ms = start_ms - start_ms % HOUR_MS
        count = 0
        while count < SLICE_CANDLES and count < sum(map(len, group.values())):
            end_ms += HOUR_MS
            count = sum(packed.place(end_ms) for packed in group.values())
        slice_: list[PackedCandles] = []
        for symbol, packed in list(group.items()):
            place = packed.place(end_ms)
            if place:
                slice_.append(packed.part(0, place))
            if place == len(packed):
                del group[symbol], self._end_ms[symbol]
            else:
                group[symbol] = packed.part(place, len(packed))
        return slice_
