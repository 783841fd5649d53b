"""Which symbol to read by REST next, when there are far more symbols than requests. Pure: it is told the time.

One call brings the 24 h volume of the whole market. A symbol whose row stands still has not traded, and is known
without being read; a symbol whose row moved is read, and one answer of Min1 candles serves all timeframes. So requests
go only to where something happened.

What is known of a symbol reaches up to a time, and its *age* is how long ago that was. The symbol that is oldest in
proportion to the age it should have at most comes next, so that nobody starves: when requests are short, all ages grow
in the same proportion.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import msgspec

#: What REST shows trails the market by up to this long (caches of the exchange). Nothing younger counts as known.
SETTLE_MS = 5_000
#: So many symbols with the largest turnover per second, and those that a user pins, are wanted younger than the others.
HOT = 100
#: The age that a symbol should have at most; ages in proportion to these decide who is next.
HOT_AGE_MS, AGE_MS = 60_000, 240_000
#: By how much a symbol that stands still goes before one that trades: its answer holds until it trades again.
STILL_FIRST = 1.05
#: Below this age nobody is read again, however many requests are left.
LEAST_AGE_MS = 15_000
#: A symbol that stands still is read all the same after this time, lest a row of the ticker be frozen.
CHECK_MS = 3_600_000
#: A symbol whose read failed is left alone for this long, which doubles with each failure in a row up to a limit.
HOLD_MS, MAX_HOLD_MS = 5_000, 600_000
#: A symbol that traded within this time is active.
ACTIVE_MS = 600_000
#: Time over which the turnover per second is averaged.
MEMORY_MS = 600_000

_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Row:
    """What a whole-market ticker says of one symbol. Two equal rows mean: no trade between them.

    All three are compared, because volume of a day ago drops out of the window at the same time: that it would be the
    same number of contracts happens, that it would be the same amount and price does not.
    """

    contracts_24h: float
    amount_24h: float
    last_price: float


@dataclass(slots=True)
class _Symbol:
    begun_ms: int
    known_ms: int  # everything about the symbol is known up to here; 0 before its history is read
    read_ms: int = 0
    row: Row | None = None
    still_since_ms: int = _NEVER  # since this time at least its row is the same
    traded_ms: int = -ACTIVE_MS
    activity: float = 0.0  # turnover per second, quote coin
    is_reading: bool = False
    held_until_ms: int = 0
    failures: int = 0

    @property
    def may_have_traded(self) -> bool:
        """Whether something may have happened that is not known."""
        return not self.read_ms or self.still_since_ms > self.known_ms


class Ages(msgspec.Struct, frozen=True):
    """How old the data of some symbols is, in seconds; all 0 when there is no symbol."""

    symbols: int
    median_s: float
    p95_s: float
    worst_s: float


def ages_of(ages_ms: Iterable[int]) -> Ages:
    """Sum up ages; a percentile is the age of a symbol (nearest rank)."""
    ordered = sorted(ages_ms)
    if not ordered:
        return Ages(0, 0.0, 0.0, 0.0)
    last = len(ordered) - 1
    median_ms, p95_ms = ordered[last // 2], ordered[-(-last * 19 // 20)]
    return Ages(len(ordered), median_ms / 1_000, p95_ms / 1_000, ordered[-1] / 1_000)


class Sweep:
    """The symbols that REST reads. All times are the exchange's, in milliseconds."""

    def __init__(self) -> None:
        self.pinned: frozenset[str] = frozenset()
        self._symbols: dict[str, _Symbol] = {}
        self._hot: frozenset[str] = frozenset()
        self._heard_ms = 0

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._symbols

    def __len__(self) -> int:
        return len(self._symbols)

    # --- What it is told --------------------------------------------------------------------------------------------

    def watch(self, known_ms: Mapping[str, int], now_ms: int) -> None:
        """Read exactly these symbols from now on.

        Args:
            known_ms: for each symbol up to when it is known; 0 when its history is still to be read, by somebody else.
                Only used for symbols that are new.
        """
        for symbol in self._symbols.keys() - known_ms.keys():
            del self._symbols[symbol]
        for symbol, until_ms in known_ms.items():
            if symbol not in self._symbols:
                self._symbols[symbol] = _Symbol(now_ms, until_ms)
        self._hot &= self._symbols.keys()

    def pin(self, symbols: Collection[str]) -> None:
        """Keep these as young as the most active, whatever they do."""
        self.pinned = frozenset(symbols)

    def hear(
        self, rows: Mapping[str, Row], turnover_24h: Mapping[str, float], asked_ms: int, answered_ms: int
    ) -> list[str]:
        """Take a whole-market ticker; returns the symbols that are known longer by it, without being read.

        Args:
            turnover_24h: of the same rows, in quote coin, which can be compared.
        """
        passed_ms, self._heard_ms = answered_ms - self._heard_ms, answered_ms
        share = min(1.0, passed_ms / MEMORY_MS)
        longer = []
        for symbol, one in self._symbols.items():
            row, before = rows.get(symbol), one.row
            turnover = turnover_24h.get(symbol, 0.0)
            one.row = row
            if row is None:
                one.still_since_ms = _NEVER
            elif row != before:
                one.still_since_ms = answered_ms
                if before is None:
                    one.activity = turnover / 86_400
                elif row.contracts_24h > before.contracts_24h:
                    one.traded_ms = answered_ms
            elif not one.may_have_traded and asked_ms - SETTLE_MS > one.known_ms > 0:
                one.known_ms = asked_ms - SETTLE_MS
                longer.append(symbol)
            if row is not None and before is not None:
                rise = max(0.0, (row.amount_24h - before.amount_24h) * _quote_per_amount(row, turnover))
                one.activity += share * (rise / passed_ms * 1_000 - one.activity)
        ranked = sorted(self._symbols, key=lambda symbol: (-self._symbols[symbol].activity, symbol))
        self._hot = frozenset(ranked[:HOT])
        return longer

    def answered(self, symbol: str, from_ms: int, until_ms: int, asked_ms: int) -> bool:
        """The candles between two times were read by a request that was sent at ``asked_ms``.

        Returns:
            Whether that joins what was known; an answer behind a hole does not.
        """
        one = self._symbols.get(symbol)
        if one is None:
            return True
        one.is_reading, one.failures, one.held_until_ms = False, 0, 0
        if one.known_ms and from_ms > one.known_ms:
            return False
        one.known_ms, one.read_ms = max(one.known_ms, until_ms), max(one.read_ms, asked_ms)
        return True

    def failed(self, symbol: str, now_ms: int, *, is_final: bool = False) -> None:
        """A read of the symbol brought nothing; ``is_final`` when the same would happen again."""
        one = self._symbols.get(symbol)
        if one is not None:
            hold_ms = MAX_HOLD_MS if is_final else min(MAX_HOLD_MS, HOLD_MS * 2 ** min(one.failures, 16))
            one.is_reading, one.failures, one.held_until_ms = False, one.failures + 1, now_ms + hold_ms

    # --- What it says -----------------------------------------------------------------------------------------------

    def next(self, now_ms: int) -> str | None:
        """The symbol to read now; it is not named again before it is answered or failed. None when nobody needs it."""
        best, best_age = None, 0.0
        for symbol, one in self._symbols.items():
            if not one.known_ms or one.is_reading or one.held_until_ms > now_ms:
                continue
            unread = (now_ms - (one.read_ms or one.begun_ms)) / CHECK_MS
            age_ms = now_ms - one.known_ms
            if unread < 1.0 and (age_ms < LEAST_AGE_MS or not one.may_have_traded):
                continue
            age = max(unread, age_ms / (HOT_AGE_MS if self.is_hot(symbol) else AGE_MS))
            if one.still_since_ms <= now_ms - SETTLE_MS:
                age *= STILL_FIRST
            if age > best_age:
                best, best_age = symbol, age
        if best is not None:
            self._symbols[best].is_reading = True
        return best

    def is_hot(self, symbol: str) -> bool:
        return symbol in self._hot or symbol in self.pinned

    def known_ms(self, symbol: str) -> int:
        """Up to when everything about a symbol is known; 0 when nothing is, or it is not read by REST."""
        one = self._symbols.get(symbol)
        return one.known_ms if one is not None else 0

    def ages_ms(self, now_ms: int) -> dict[str, int]:
        """The age of each symbol; before its history is read, since its watch began."""
        return {symbol: now_ms - (one.known_ms or one.begun_ms) for symbol, one in self._symbols.items()}

    def active(self, now_ms: int) -> set[str]:
        """Symbols that were seen to trade a short while ago."""
        return {symbol for symbol, one in self._symbols.items() if now_ms - one.traded_ms <= ACTIVE_MS}

    def activity(self, symbol: str) -> float | None:
        """Turnover per second of a symbol, in quote coin, as the ticker tells; None when it is not read by REST."""
        one = self._symbols.get(symbol)
        return one.activity if one is not None and one.row is not None else None

    @property
    def hot(self) -> set[str]:
        """The most active symbols, and those that are pinned."""
        return set(self._hot) | (self.pinned & self._symbols.keys())


def _quote_per_amount(row: Row, turnover_24h: float) -> float:
    """1 where amounts are in quote coin; the price, roughly, where they are in base coin."""
    return turnover_24h / row.amount_24h if row.amount_24h else 0.0
