"""New contracts: the one thing about them that is known before they trade."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from perpwatch.detect.ticker_detector import ticker_signal
from perpwatch.model import ContractUpdate, Direction, Level, Reason, Signal


class NewListing:
    """A contract that was not there before.

    Formula: fires once for each symbol that :meth:`know` and earlier updates have not named and that is not hidden.
    Level: notice. Cost: a set look-up. Warm-up: :meth:`know` with the symbols of the first contract list.
    False alarms: none by construction; a contract that was delisted and comes back is not new.
    """

    name = "new_listing"

    def __init__(self) -> None:
        self._known: set[str] = set()

    def know(self, symbols: Iterable[str]) -> None:
        """These are not new."""
        self._known.update(symbols)

    def observe(self, update: ContractUpdate, received_time_ns: int) -> Signal | None:
        contract = update.contract
        if contract.symbol in self._known or contract.is_hidden:
            return None
        self._known.add(contract.symbol)
        opening = datetime.fromtimestamp(contract.opening_time_ms / 1000.0, UTC) if contract.opening_time_ms else None
        when = f"trades from {opening:%Y-%m-%d %H:%M} UTC" if opening else "trades now"
        reasons = (Reason("opening_time", float(contract.opening_time_ms), "ms", f"new contract, {when}"),)
        return ticker_signal(
            self.name,
            contract.symbol,
            0.0,
            Direction.FLAT,
            Level.NOTICE,
            1.0,
            reasons,
            update.event_time_ms,
            received_time_ns,
        )

    def take_over(self, other: NewListing) -> None:
        """Go on with what another one knows."""
        self._known = other._known
