"""Which contracts are watched, and in which order they matter."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from perpwatch.model import Contract, Ticker


@dataclass(frozen=True, slots=True)
class UniverseFilter:
    """What a user wants to watch. Patterns are shell-like and match symbols (``BTC_*``); exclusion wins."""

    quote: str = "USDT"  # empty for any
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    limit: int = 0  # the so many most traded; 0 for all


@dataclass(frozen=True, slots=True)
class Member:
    """A contract, and why it is in the universe or not."""

    contract: Contract
    turnover_24h: float  # quote coin
    reason: str  # empty when it is watched

    @property
    def is_watched(self) -> bool:
        return not self.reason


def choose(
    contracts: Iterable[Contract], tickers: Iterable[Ticker], wanted: UniverseFilter, now_ms: int
) -> list[Member]:
    """Every contract with the verdict, most traded first.

    A contract without a ticker row counts as untraded, not as gone.
    """
    turnover = turnovers(contracts := list(contracts), tickers)
    ranked = sorted(contracts, key=lambda contract: (-turnover[contract.symbol], contract.symbol))
    members: list[Member] = []
    watched = 0
    for contract in ranked:
        reason = _why_not(contract, wanted, now_ms)
        if not reason and wanted.limit and watched >= wanted.limit:
            reason = f"not among the {wanted.limit} most traded"
        watched += not reason
        members.append(Member(contract, turnover[contract.symbol], reason))
    return members


def turnovers(contracts: Iterable[Contract], tickers: Iterable[Ticker]) -> Mapping[str, float]:
    """Turnover of the last 24 h in quote coin, per contract; 0 without a ticker."""
    rows = {ticker.symbol: ticker for ticker in tickers}
    result = {}
    for contract in contracts:
        row = rows.get(contract.symbol)
        result[contract.symbol] = contract.turnover(row.contracts_24h or 0.0, row.amount_24h or 0.0) if row else 0.0
    return result


def _why_not(contract: Contract, wanted: UniverseFilter, now_ms: int) -> str:
    symbol = contract.symbol
    if wanted.quote and contract.quote_coin != wanted.quote:
        return f"quoted in {contract.quote_coin}, not {wanted.quote}"
    if not contract.is_trading:
        return "not trading"
    if contract.is_hidden:
        return "hidden by the exchange"
    if contract.opening_time_ms > now_ms:
        return "trading has not begun"
    if not any(fnmatch.fnmatchcase(symbol, pattern) for pattern in wanted.include):
        return "matches no include pattern"
    for pattern in wanted.exclude:
        if fnmatch.fnmatchcase(symbol, pattern):
            return f"excluded by {pattern}"
    return ""
