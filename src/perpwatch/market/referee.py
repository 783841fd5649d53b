"""Quiet or broken: is a symbol silent because nobody trades, or because its stream has died?

The witness is the whole-market ticker, which travels on another connection: its 24 h volume rises with every trade. A
rise that the symbol's own stream does not answer within ``PATIENCE_MS``, although its connection has delivered later
frames, proves the stream broken. A fall proves nothing: volume of a day ago drops out of the window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from perpwatch.model import Ticker, Tickers

#: How long a candle push may take after the trade that causes it. Pushes follow trades within a fraction of a second;
#: the rest is room for a lagging connection.
PATIENCE_MS = 5_000
#: By how much a ticker row may trail the trade it counts (REST-like caching inside the exchange).
TICKER_LAG_MS = 500
#: Rises remembered per symbol. At a frame every 2 s that is more than two minutes, and a verdict on a minute is asked
#: for seconds after its end.
KEPT_RISES = 64


@dataclass(slots=True)
class _Witness:
    contracts_24h: float
    first_ms: int  # when it was first spoken of
    watch: int  # in which uninterrupted watch of the ticker stream that was said
    # The trade behind a rise happened after one ticker frame and before the next. Oldest first.
    rises: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=KEPT_RISES))


@dataclass(frozen=True, slots=True)
class Heard:
    """What a frame of the whole-market ticker said of trades."""

    since_ms: int  # the frame before, after which the trades behind the rises happened
    risen: list[str]  # symbols whose volume rose while the stream was whole
    new: list[str]  # symbols that are spoken of for the first time since the stream was interrupted


class Referee:
    """Keeps the witness of each symbol. All times are the exchange's."""

    def __init__(self) -> None:
        self.rows: dict[str, Ticker] = {}  # the newest of each symbol; kept here because each row is looked at here
        self._heard: Sequence[Ticker] = ()  # the frame before
        self._witnesses: dict[str, _Witness] = {}
        self._suspects: dict[str, int] = {}  # symbol -> start of the rise that nobody has explained yet
        self._since_ms: int | None = None
        self._watch = 0  # grows with every interruption
        self.as_of_ms = 0

    # --- What the ticker stream says -------------------------------------------------------------------------------

    def hear(self, tickers: Tickers) -> Heard:
        """Take a frame of the whole-market ticker."""
        now_ms = tickers.event_time_ms
        risen: list[str] = []
        new: list[str] = []
        if now_ms < self.as_of_ms:
            return Heard(self.as_of_ms, risen, new)  # an older picture can only mislead
        if self._since_ms is None:
            self._since_ms = now_ms
        before_ms, self.as_of_ms = self.as_of_ms, now_ms
        rows, witnesses, watch = self.rows, self._witnesses, self._watch
        rise, was_watched = (before_ms, now_ms), before_ms >= self._since_ms
        for ticker in tickers.tickers:
            symbol = ticker.symbol
            rows[symbol] = ticker
            contracts = ticker.contracts_24h
            if contracts is None:
                continue
            witness = witnesses.get(symbol)
            if witness is None:
                witnesses[symbol] = _Witness(contracts, now_ms, watch)
                new.append(symbol)
                continue
            if contracts > witness.contracts_24h and was_watched:
                witness.rises.append(rise)
                if witness.watch == watch:
                    risen.append(symbol)
                # Else it may have risen while the stream was interrupted: no proof of anything, quiet included.
            witness.contracts_24h = contracts
            if witness.watch != watch:
                witness.watch = watch
                new.append(symbol)
        # Rows that are replaced are let go here, one after the other as they lie in memory, and not between the others.
        self._heard = tickers.tickers
        return Heard(before_ms, risen, new)

    def lose(self) -> None:
        """The ticker stream was interrupted: what it would have said is not known."""
        self._since_ms = None
        self._watch += 1
        self._suspects.clear()

    def forget(self, symbol: str) -> None:
        self._witnesses.pop(symbol, None)
        self._suspects.pop(symbol, None)

    # --- Verdicts ---------------------------------------------------------------------------------------------------

    def can_judge(self, symbol: str, start_ms: int) -> bool:
        """Whether the witness has watched the symbol without a break since ``start_ms``."""
        if self._since_ms is None or self._since_ms > start_ms:
            return False
        witness = self._witnesses.get(symbol)
        return witness is not None and witness.first_ms <= start_ms

    def was_quiet(
        self, symbol: str, start_ms: int, end_ms: int, *, pushed_before_ms: int, is_pushed_after: bool
    ) -> bool:
        """No trade between two times without a push: every rise of the volume is explained by a push beside them.

        Only meaningful when :meth:`can_judge` and ``as_of_ms`` has passed ``end_ms``.

        Args:
            pushed_before_ms: when the symbol's own stream last spoke of an earlier time.
            is_pushed_after: whether it has spoken of the time that follows at once.
        """
        rises = self._witnesses[symbol].rises
        if len(rises) == KEPT_RISES and rises[0][0] > start_ms:
            return False  # too long ago
        for from_ms, to_ms in rises:
            if to_ms <= start_ms or from_ms >= end_ms:
                continue
            was_before = from_ms - TICKER_LAG_MS < start_ms and pushed_before_ms >= from_ms - TICKER_LAG_MS
            was_after = to_ms > end_ms and is_pushed_after
            if not was_before and not was_after:
                return False
        return True

    def suspect(self, symbol: str, since_ms: int) -> None:
        """The volume of a symbol rose after ``since_ms``, and its own stream has not answered yet."""
        self._suspects.setdefault(symbol, since_ms)

    def suspects(self) -> dict[str, int]:
        """Symbols whose volume rose, with the exchange time after which their own stream must have spoken."""
        return self._suspects

    def acquit(self, symbols: Iterable[str]) -> None:
        """The symbols' own streams have answered, or their silence has been dealt with."""
        for symbol in symbols:
            self._suspects.pop(symbol, None)
