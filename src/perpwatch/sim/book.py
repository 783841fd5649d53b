"""A plain order book around the last price: enough to build one from its changes and compare it with a snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

LEVELS = 25

#: price, contracts, orders; no contracts means the level is gone.
Level = tuple[float, int, int]


@dataclass(slots=True)
class Change:
    """What one move of the book did. Every changed level is a version of its own."""

    first_version: int
    version: int
    asks: list[Level]
    bids: list[Level]


@dataclass(slots=True)
class Book:
    """Levels by tick number, ``LEVELS`` on each side."""

    random: Random
    scale: int
    version: int = 1_000_000
    asks: dict[int, tuple[int, int]] = field(default_factory=dict)
    bids: dict[int, tuple[int, int]] = field(default_factory=dict)

    def move(self, price: float) -> Change:
        """Follow the last price; changes a few levels even when it stands still."""
        tick = round(price * 10.0**self.scale)
        before = self.version
        asks = self._side(self.asks, range(tick + 1, tick + 1 + LEVELS))
        bids = self._side(self.bids, range(tick, max(0, tick - LEVELS), -1))
        self.version += len(asks) + len(bids)
        return Change(before + 1, self.version, asks, bids)

    def top(self, limit: int) -> tuple[list[Level], list[Level]]:
        """The best asks and bids, best first."""
        asks = [self._level(tick, self.asks[tick]) for tick in sorted(self.asks)[:limit]]
        bids = [self._level(tick, self.bids[tick]) for tick in sorted(self.bids, reverse=True)[:limit]]
        return asks, bids

    def grouped(self, step: float) -> tuple[list[Level], list[Level]]:
        """The book in steps of ``step``: asks rounded up, bids down."""
        ticks = max(1, round(step * 10.0**self.scale))
        sides: list[list[Level]] = []
        for levels, is_ask in ((self.asks, True), (self.bids, False)):
            groups: dict[int, tuple[int, int]] = {}
            for tick, (contracts, orders) in levels.items():
                group = -(-tick // ticks) * ticks if is_ask else tick // ticks * ticks
                so_far = groups.get(group, (0, 0))
                groups[group] = (so_far[0] + contracts, so_far[1] + orders)
            sides.append([self._level(tick, groups[tick]) for tick in sorted(groups, reverse=not is_ask)])
        return sides[0], sides[1]

    def _side(self, levels: dict[int, tuple[int, int]], wanted: range) -> list[Level]:
        changes = [(self._price(tick), 0, 0) for tick in levels if tick not in wanted]
        touched = wanted[self.random.randrange(len(wanted))]
        kept = {tick: level for tick, level in levels.items() if tick in wanted and tick != touched}
        levels.clear()
        for tick in wanted:
            level = kept.get(tick)
            if level is None:
                level = (self.random.randrange(1, 5_000), self.random.randrange(1, 6))
                changes.append((self._price(tick), *level))
            levels[tick] = level
        return changes

    def _level(self, tick: int, level: tuple[int, int]) -> Level:
        return (self._price(tick), *level)

    def _price(self, tick: int) -> float:
        return round(tick / 10.0**self.scale, self.scale)
