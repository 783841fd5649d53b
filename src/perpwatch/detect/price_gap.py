"""A price that leaves its own anchor: the last trade against the fair price, and the spread."""

from __future__ import annotations

from dataclasses import dataclass, field

from perpwatch.detect.statistics import RollingMean
from perpwatch.detect.ticker_detector import level_of, ticker_signal
from perpwatch.model import Direction, Reason, Signal, Ticker

#: Tickers remembered, and needed.
WINDOW, MINIMUM = 720, 60


@dataclass(slots=True)
class _Measure:
    """One non-negative figure of one symbol."""

    usual: RollingMean = field(default_factory=lambda: RollingMean(WINDOW))
    lowest: float = 0.0  # since it fired; 0 before


@dataclass(slots=True)
class _Book:
    gap: _Measure = field(default_factory=_Measure)
    spread: _Measure = field(default_factory=_Measure)
    time_ms: int = 0


class PriceGap:
    """Last price away from the fair price, or a wide spread, each against what is usual for the symbol.

    Formula: gap = last / fair - 1 (index where no fair price is given), spread = (ask - bid) / mid; fires when the
        figure exceeds max(k · its mean over the last 720 tickers, floor); k = 8, floors 0.5 % and 0.3 %.
        Having fired, it fires again when the figure is twice its lowest since then.
        What fires is not learned.
    Level: by the figure against what was needed (2 × strong, 4 × extreme).
    Cost: 0.6 µs per ticker, 6 kB per symbol. Warm-up: 60 tickers, two minutes at MEXC's pace.
    False alarms: not measured, because no recording of fair prices is at hand.
    """

    name = "price_gap"

    def __init__(self, times: float = 8.0, gap_floor: float = 0.005, spread_floor: float = 0.003) -> None:
        """
        Raises:
            ValueError: not positive.
        """
        if min(times, gap_floor, spread_floor) <= 0.0:
            raise ValueError(f"all must be positive, not {times}, {gap_floor}, {spread_floor}")
        self._times = times
        self._gap_floor = gap_floor
        self._spread_floor = spread_floor
        self._books: dict[str, _Book] = {}

    def observe(self, ticker: Ticker, event_time_ms: int, received_time_ns: int) -> Signal | None:
        book = self._books.get(ticker.symbol)
        if book is None:
            book = self._books[ticker.symbol] = _Book()
        if event_time_ms < book.time_ms:
            return None
        book.time_ms = event_time_ms
        gap_text, gap, gap_excess = "", 0.0, 0.0
        anchor = ticker.fair_price or ticker.index_price
        if anchor and ticker.last_price > 0.0:
            gap = ticker.last_price / anchor - 1.0
            gap_excess = self._excess(book.gap, abs(gap), self._gap_floor)
            gap_text = f"last price {gap:+.2%} from {'fair' if ticker.fair_price else 'index'} price"
        spread, spread_excess = 0.0, 0.0
        if ticker.best_bid and ticker.best_ask and ticker.best_ask >= ticker.best_bid:
            spread = 2.0 * (ticker.best_ask - ticker.best_bid) / (ticker.best_ask + ticker.best_bid)
            spread_excess = self._excess(book.spread, spread, self._spread_floor)
        excess = max(gap_excess, spread_excess)
        if excess <= 1.0:
            return None
        reasons = []
        if gap_excess > 1.0:
            reasons.append(Reason("price_gap", 100.0 * gap, "%", gap_text))
        if spread_excess > 1.0:
            reasons.append(Reason("spread", 100.0 * spread, "%", f"spread {spread:.2%}"))
        is_spread_first = spread_excess > gap_excess
        return ticker_signal(
            self.name,
            ticker.symbol,
            ticker.last_price,
            Direction.FLAT if gap_excess <= 1.0 else Direction.UP if gap > 0.0 else Direction.DOWN,
            level_of(excess),
            excess,
            tuple(reversed(reasons)) if is_spread_first else tuple(reasons),
            event_time_ms,
            received_time_ns,
        )

    def forget(self, symbol: str) -> None:
        self._books.pop(symbol, None)

    def take_over(self, other: PriceGap) -> None:
        """Go on with what another one has learned."""
        self._books = other._books

    def _excess(self, measure: _Measure, value: float, floor: float) -> float:
        """How many times what is needed; at most 1 while it may not fire."""
        if measure.usual.count < MINIMUM:
            measure.usual.push(value)
            return 0.0
        excess = value / max(self._times * measure.usual.mean, floor)
        if excess <= 1.0:
            measure.usual.push(value)
            measure.lowest = min(measure.lowest, value)
            return 0.0
        if measure.lowest and value < 2.0 * measure.lowest:
            measure.lowest = min(measure.lowest, value)
            return 0.0
        measure.lowest = value
        return excess
