"""Which contracts are watched, why, and in which order they matter. Pure: the same arguments give the same verdicts."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from perpwatch.model import AssetClass, Contract, Ticker

DAY_MS = 86_400_000
#: Who is watched counts as if it traded so many times as much, so that a contract at an edge does not come and go: one
#: that entered with just enough leaves when it has lost a fifth of it.
STAY = 1.25


class Tier(enum.StrEnum):
    """How much is traded in 24 h; a tenth of it moves a price as far as all of the next tier."""

    DEEP = "deep"  # from 50 million quote coins
    LIQUID = "liquid"  # from 5 million
    THIN = "thin"  # from 500,000
    DUST = "dust"

    @classmethod
    def of(cls, turnover_24h: float) -> Tier:
        if turnover_24h >= 50e6:
            return cls.DEEP
        if turnover_24h >= 5e6:
            return cls.LIQUID
        return cls.THIN if turnover_24h >= 0.5e6 else cls.DUST


@dataclass(frozen=True, slots=True)
class UniverseFilter:
    """What a user wants to watch. Patterns are shell-like and match symbols (``BTC_*``); exclusion wins.

    A pinned contract is watched whatever else is asked for, as long as it trades.
    """

    quote: str = "USDT"  # empty for any
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    limit: int = 0  # the so many most traded, pins included; 0 for all
    classes: Sequence[AssetClass] = ()  # empty for all
    exclude_classes: Sequence[AssetClass] = ()
    minimum_turnover_24h: float = 0.0  # quote coin
    minimum_activity: float = 0.0  # share of the minutes of the last hour in which somebody traded, where it is known
    minimum_age_days: float = 0.0  # since trading began
    pins: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A contract, and why it is in the universe or not."""

    contract: Contract
    turnover_24h: float  # quote coin
    reason: str  # why it is left out; empty when it is watched
    rank: int = 0  # by turnover, among all that are listed; 1 is the most traded
    age_days: float | None = None  # None for contracts whose beginning the exchange does not tell: old ones
    activity: float | None = None  # share of the last hour's minutes with trades; None when not known
    is_pinned: bool = False
    is_on_the_edge: bool = False  # watched only because it was watched before

    @property
    def is_watched(self) -> bool:
        return not self.reason

    @property
    def tier(self) -> Tier:
        return Tier.of(self.turnover_24h)

    @property
    def explanation(self) -> str:
        """Why it is in or out, with the numbers that decided."""
        if self.reason:
            return f"out: {self.reason}"
        facts = ["pinned"] if self.is_pinned else []
        facts.append(f"rank {self.rank} with {self.turnover_24h:,.0f} in 24 h ({self.tier})")
        if self.activity is not None:
            facts.append(f"traded in {self.activity:.0%} of the last hour's minutes")
        if self.age_days is not None:
            facts.append(f"listed {self.age_days:.1f} days ago")
        if self.is_on_the_edge:
            facts.append("on the edge, and stays because it was watched before")
        return f"in: {', '.join(facts)}"


def choose(
    contracts: Iterable[Contract],
    tickers: Iterable[Ticker],
    wanted: UniverseFilter,
    now_ms: int,
    watched: Collection[str] = (),
    activity: Mapping[str, float] | None = None,
) -> list[Member]:
    """Every contract with the verdict: pins first, then the most traded.

    A contract without a ticker row counts as untraded, not as gone.

    Args:
        watched: symbols that are watched now; at an edge they stay.
        activity: share of the last hour's minutes with trades, of symbols for which it is known.
    """
    turnover = turnovers(contracts := list(contracts), tickers)
    activity = activity or {}
    by_turnover = sorted(contracts, key=lambda contract: (-turnover[contract.symbol], contract.symbol))
    ranks = {contract.symbol: rank for rank, contract in enumerate(by_turnover, start=1)}
    pins = {symbol: place for place, symbol in enumerate(wanted.pins)}

    def weight(symbol: str) -> float:
        return turnover[symbol] * (STAY if symbol in watched else 1.0)

    # Places are given in the order in which contracts count, ...
    members: dict[str, Member] = {}
    taken = 0
    for contract in sorted(
        by_turnover, key=lambda one: (pins.get(one.symbol, len(pins)), -weight(one.symbol), one.symbol)
    ):
        symbol = contract.symbol
        is_pinned = symbol in pins
        known = activity.get(symbol)
        stay = STAY if symbol in watched else 1.0
        felt = None if known is None else known * stay
        reason = _never(contract, now_ms)
        if not reason and not is_pinned:
            reason = _why_not(contract, wanted, now_ms, turnover[symbol] * stay, felt)
        if not reason and wanted.limit and taken >= wanted.limit:
            reason = f"not among the {wanted.limit} most traded"
        is_on_the_edge = False
        if not reason:
            taken += 1
            is_on_the_edge = not is_pinned and bool(
                _why_not(contract, wanted, now_ms, turnover[symbol], known)
                or (wanted.limit and ranks[symbol] > wanted.limit)
            )
        age_ms = now_ms - contract.opening_time_ms
        members[symbol] = Member(
            contract=contract,
            turnover_24h=turnover[symbol],
            reason=reason,
            rank=ranks[symbol],
            age_days=age_ms / DAY_MS if contract.opening_time_ms and age_ms >= 0 else None,
            activity=known,
            is_pinned=is_pinned,
            is_on_the_edge=is_on_the_edge and symbol in watched,
        )
    # ... and shown pins first, then by what they really trade.
    order = sorted(by_turnover, key=lambda one: pins.get(one.symbol, len(pins)))
    return [members[contract.symbol] for contract in order]


def turnovers(contracts: Iterable[Contract], tickers: Iterable[Ticker]) -> Mapping[str, float]:
    """Turnover of the last 24 h in quote coin, per contract; 0 without a ticker."""
    rows = {ticker.symbol: ticker for ticker in tickers}
    result = {}
    for contract in contracts:
        row = rows.get(contract.symbol)
        result[contract.symbol] = contract.turnover(row.contracts_24h or 0.0, row.amount_24h or 0.0) if row else 0.0
    return result


def _never(contract: Contract, now_ms: int) -> str:
    """What no pin can change."""
    if not contract.is_trading:
        return "not trading"
    if contract.opening_time_ms > now_ms:
        return "trading has not begun"
    return ""


def _why_not(
    contract: Contract, wanted: UniverseFilter, now_ms: int, turnover_24h: float, activity: float | None
) -> str:
    symbol = contract.symbol
    if wanted.quote and contract.quote_coin != wanted.quote:
        return f"quoted in {contract.quote_coin}, not {wanted.quote}"
    if contract.is_hidden:
        return "hidden by the exchange"
    if wanted.classes and contract.asset_class not in wanted.classes:
        return f"of class {contract.asset_class}, not {' or '.join(wanted.classes)}"
    if contract.asset_class in wanted.exclude_classes:
        return f"of class {contract.asset_class}, which is excluded"
    if not any(fnmatch.fnmatchcase(symbol, pattern) for pattern in wanted.include):
        return "matches no include pattern"
    for pattern in wanted.exclude:
        if fnmatch.fnmatchcase(symbol, pattern):
            return f"excluded by {pattern}"
    age_days = (now_ms - contract.opening_time_ms) / DAY_MS
    if contract.opening_time_ms and age_days < wanted.minimum_age_days:
        return f"listed {age_days:.1f} days ago, {wanted.minimum_age_days:g} are asked for"
    if turnover_24h < wanted.minimum_turnover_24h:
        return f"traded {turnover_24h:,.0f} in 24 h, {wanted.minimum_turnover_24h:,.0f} are asked for"
    if activity is not None and activity < wanted.minimum_activity:
        return f"traded in {activity:.0%} of the last hour's minutes, {wanted.minimum_activity:.0%} are asked for"
    return ""
