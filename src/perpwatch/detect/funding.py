"""Funding that jumps: one side has become willing to pay much more than it did."""

from __future__ import annotations

from perpwatch.detect.ticker_detector import level_of, ticker_signal
from perpwatch.model import Direction, Reason, Signal, Ticker


class FundingJump:
    """A change of the funding rate since it was last told.

    Formula: fires when abs(rate - reference) > step; the reference is the first rate seen, then follows the rate at
        most ``step / 8`` per hour, so that a slow drift is not told, and is the rate at which it fired after that.
    Unit: fractions per settlement; step = 0.1 %, ten times the usual rate of 0.01 %.
    Level: by the change against the step (2 × strong, 4 × extreme). Direction: up when longs pay more.
    Cost: 0.2 µs per ticker. Warm-up: one ticker.
    False alarms: not measured, because no recording of funding rates is at hand.
    """

    name = "funding"

    def __init__(self, step: float = 0.001) -> None:
        """
        Raises:
            ValueError: not positive.
        """
        if step <= 0.0:
            raise ValueError(f"step must be positive, not {step}")
        self._step = step
        self._references: dict[str, tuple[float, int]] = {}  # rate and its time, ms

    def observe(self, ticker: Ticker, event_time_ms: int, received_time_ns: int) -> Signal | None:
        rate = ticker.funding_rate
        if rate is None:
            return None
        reference, time_ms = self._references.get(ticker.symbol, (rate, event_time_ms))
        if event_time_ms < time_ms:
            return None
        change = rate - reference
        if abs(change) <= self._step:
            drift = self._step / 8.0 * (event_time_ms - time_ms) / 3_600_000.0
            self._references[ticker.symbol] = (reference + min(max(change, -drift), drift), event_time_ms)
            return None
        self._references[ticker.symbol] = (rate, event_time_ms)
        return ticker_signal(
            self.name,
            ticker.symbol,
            ticker.last_price,
            Direction.UP if change > 0.0 else Direction.DOWN,
            level_of(abs(change) / self._step),
            abs(change),
            (
                Reason("funding_rate", 100.0 * rate, "%", f"funding {rate:+.3%} per settlement"),
                Reason("funding_change", 100.0 * change, "%", f"{reference:+.3%} before"),
            ),
            event_time_ms,
            received_time_ns,
        )

    def forget(self, symbol: str) -> None:
        self._references.pop(symbol, None)

    def take_over(self, other: FundingJump) -> None:
        """Go on with what another one has learned."""
        self._references = other._references
