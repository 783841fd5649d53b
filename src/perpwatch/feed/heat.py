"""Which symbols deserve the trades subscriptions that are left: a set that follows what happens, slowly. Pure.

Pins come first, then symbols in which a rule has found something lately, then those that trade most *for themselves*:
turnover of the last minutes times how many times its usual it is. A symbol that has a place keeps it unless another is
clearly hotter, and no more than so many places change hands at once, because each costs two commands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from perpwatch.model import MINUTE_MS

#: How many times hotter a symbol must be than one that has a place.
STAY = 1.5
#: A signal keeps its symbol hot for so long.
SIGNAL_MS = 15 * MINUTE_MS
#: The most that "times its usual" counts: beyond it one wild minute of a dead contract would outweigh a real market.
MOST_UNUSUAL = 50.0


def heat(turnover: float, usual: float) -> float:
    """How hot a symbol is, from its turnover lately and what is usual in the same time (quote coin)."""
    return turnover * min(turnover / usual, MOST_UNUSUAL) if usual > 0.0 else 0.0


class HotSet:
    """The symbols that have a place, hottest last known first.

    Args:
        moves: places that may change hands in one :meth:`choose`, at least 1.
    """

    def __init__(self, moves: int) -> None:
        self.moves = moves
        self.symbols: tuple[str, ...] = ()
        self._signalled_ms: dict[str, int] = {}

    def signalled(self, symbol: str, time_ms: int) -> None:
        """A rule has found something unusual."""
        self._signalled_ms[symbol] = max(time_ms, self._signalled_ms.get(symbol, 0))

    def choose(self, heats: Mapping[str, float], pins: Collection[str], places: int, now_ms: int) -> Sequence[str]:
        """Give ``places`` to the hottest symbols of ``heats``; free places are filled at once."""
        self._signalled_ms = {
            symbol: time_ms for symbol, time_ms in self._signalled_ms.items() if now_ms - time_ms < SIGNAL_MS
        }
        kept = [symbol for symbol in self.symbols if symbol in heats]

        def rank(symbol: str) -> tuple[bool, bool, float]:
            return symbol in pins, symbol in self._signalled_ms, heats[symbol]

        def defended(symbol: str) -> tuple[bool, bool, float]:
            return symbol in pins, symbol in self._signalled_ms, STAY * heats[symbol]

        kept.sort(key=rank, reverse=True)
        del kept[max(0, places) :]
        waiting = sorted(heats.keys() - set(kept), key=lambda symbol: (rank(symbol), symbol), reverse=True)
        free = places - len(kept)
        if free > 0:
            kept += waiting[:free]
            del waiting[:free]
        for newcomer in waiting[: self.moves]:
            coldest = min(kept, key=defended, default=None)
            if coldest is None or rank(newcomer) <= defended(coldest):
                break
            kept[kept.index(coldest)] = newcomer
        self.symbols = tuple(sorted(kept, key=lambda symbol: (rank(symbol), symbol), reverse=True))
        return self.symbols
