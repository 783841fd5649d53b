"""Which minutes to read back, and when: newest and most traded first, merged per symbol, asked again with patience."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from perpwatch.market.ledger import Ledger, Span
from perpwatch.model import MINUTE_MS

#: The history of the exchange trails its sockets; a minute is read back this long after its end.
REST_SETTLE_MS = 5_000
#: A minute that came back without an answer is asked for again after this time, which doubles each time up to a day.
FIRST_RETRY_MS = 30_000
MAX_RETRY_MS = 24 * 60 * MINUTE_MS


@dataclass(slots=True)
class _Need:
    start_ms: int
    end_ms: int
    due_ms: int
    tries: int = 0


class RepairQueue:
    """The minutes of each symbol that are known to be missing.

    One request costs the same for one minute as for a thousand, so everything a symbol misses is one need.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._needs: dict[str, _Need] = {}

    def __len__(self) -> int:
        return len(self._needs)

    def add(self, span: Span) -> None:
        """These minutes are missing."""
        due_ms = span.end_ms + REST_SETTLE_MS
        need = self._needs.get(span.symbol)
        if need is None:
            self._needs[span.symbol] = _Need(span.start_ms, span.end_ms, due_ms)
            return
        need.start_ms, need.end_ms = min(need.start_ms, span.start_ms), max(need.end_ms, span.end_ms)
        need.due_ms, need.tries = due_ms, 0

    def forget(self, symbol: str) -> None:
        self._needs.pop(symbol, None)

    def due(
        self, now_ms: int, rank: Callable[[str], int], is_coming: Callable[[str, int], bool] | None = None
    ) -> list[Span]:
        """What to read now, most urgent first. Each is given out again later unless it has become known by then.

        Args:
            is_coming: whether somebody reads this symbol from this time on anyway; it is left to them.
        """
        ready: list[Span] = []
        for symbol, need in list(self._needs.items()):
            if need.due_ms > now_ms or (is_coming is not None and is_coming(symbol, need.start_ms)):
                continue
            # What the ledger no longer holds would stay unknown for ever.
            oldest_ms = need.end_ms - self._ledger.minutes * MINUTE_MS
            unknown = list(self._ledger.unknown(symbol, max(need.start_ms, oldest_ms), need.end_ms))
            if not unknown or need.end_ms < now_ms - self._ledger.minutes * MINUTE_MS:
                del self._needs[symbol]
                continue
            need.start_ms, need.end_ms = unknown[0].start_ms, unknown[-1].end_ms
            need.due_ms = now_ms + min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** min(need.tries, 16))
            need.tries += 1
            ready.append(Span(symbol, need.start_ms, need.end_ms))
        ready.sort(key=lambda span: (-span.end_ms, rank(span.symbol)))
        return ready

    def open(self) -> Iterable[Span]:
        """Everything that is missing, for people."""
        for symbol, need in self._needs.items():
            yield from self._ledger.unknown(symbol, need.start_ms, need.end_ms)
