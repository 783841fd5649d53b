"""Quiet or broken: is a symbol silent because nobody trades, or because its stream has died?

The witness is the whole-market ticker, which travels on another connection: its 24 h volume rises with every trade. A
rise that the symbol's own stream does not answer within ``PATIENCE_MS``, although its connection has delivered later
frames, proves the stream broken. A fall proves nothing: volume of a day ago drops out of the window.
"""

from __future__ import annotations

from dataclasses import dataclass

from perpwatch.model import Tickers

#: How long a candle push may take after the trade that causes it. Pushes follow trades within a fraction of a second;
#: the rest is room for a lagging connection.
PATIENCE_MS = 5_000
#: By how much a ticker row may trail the trade it counts (REST-like caching inside the exchange).
TICKER_LAG_MS = 500


@dataclass(slots=True)
class _Witness:
    contracts_24h: float
    rise_from_ms: int = 0  # the trade behind the last rise happened after this ticker frame ...
    rise_to_ms: int = 0  # ... and before this one; 0 while none was seen


class Referee:
    """Keeps the witness of each symbol. All times are the exchange's."""

    def __init__(self) -> None:
        self._witnesses: dict[str, _Witness] = {}
        self._suspects: dict[str, int] = {}  # symbol -> start of the rise that nobody has explained yet
        self._since_ms: int | None = None
        self.as_of_ms = 0

    # --- What the ticker stream says -------------------------------------------------------------------------------

    def hear(self, tickers: Tickers) -> None:
        """Take a frame of the whole-market ticker."""
        now_ms = tickers.event_time_ms
        if now_ms < self.as_of_ms:
            return  # an older picture can only mislead
        if self._since_ms is None:
            self._since_ms = now_ms
        before_ms, self.as_of_ms = self.as_of_ms, now_ms
        witnesses, suspects = self._witnesses, self._suspects
        for ticker in tickers.tickers:
            contracts = ticker.contracts_24h
            if contracts is None:
                continue
            witness = witnesses.get(ticker.symbol)
            if witness is None:
                witnesses[ticker.symbol] = _Witness(contracts)
            else:
                if contracts > witness.contracts_24h and before_ms >= self._since_ms:
                    witness.rise_from_ms, witness.rise_to_ms = before_ms, now_ms
                    suspects.setdefault(ticker.symbol, before_ms)
                witness.contracts_24h = contracts

    def lose(self) -> None:
        """The ticker stream was interrupted: what it would have said is not known."""
        self._since_ms = None
        self._suspects.clear()

    def forget(self, symbol: str) -> None:
        self._witnesses.pop(symbol, None)
        self._suspects.pop(symbol, None)

    # --- Verdicts ---------------------------------------------------------------------------------------------------

    def can_judge(self, symbol: str, start_ms: int) -> bool:
        """Whether the witness has watched the symbol without a break since ``start_ms``, or will have."""
        return self._since_ms is not None and self._since_ms <= start_ms and symbol in self._witnesses

    def was_quiet(self, symbol: str, start_ms: int, end_ms: int, last_push_ms: int) -> bool:
        """No trade between the two times that the symbol's own stream, last heard at ``last_push_ms``, has not told.

        Only meaningful when :meth:`can_judge` and ``as_of_ms`` has passed ``end_ms``.
        """
        witness = self._witnesses[symbol]
        happened = witness.rise_to_ms > start_ms and witness.rise_from_ms < end_ms
        return not happened or last_push_ms >= witness.rise_from_ms - TICKER_LAG_MS

    def suspects(self) -> dict[str, int]:
        """Symbols whose volume rose, with the exchange time after which their own stream must have spoken."""
        return self._suspects

    def acquit(self, symbol: str) -> None:
        """The symbol's own stream has answered, or its silence has been dealt with."""
        self._suspects.pop(symbol, None)
