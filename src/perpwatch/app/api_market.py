"""The whole market as one table, a row per watched contract, shared by everybody and brought up to date once per tick.

What changes with every push (price, turnover of the running minute) is computed at each tick; what changes once a
minute is kept, and the dear part of it is renewed for some symbols at a time, so that no tick takes long.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from perpwatch.app.bot import Bot
from perpwatch.app.freshness import measure_ages
from perpwatch.app.slices import Slices, at_once
from perpwatch.market.candles import Series
from perpwatch.market.ledger import CODES
from perpwatch.model import MINUTE_MS, AssetClass, RunningCandle, Trust

#: Minutes that make up what is usual, and how many of them must be known.
USUAL_MINUTES, USUAL_NEEDED = 60, 20
#: Minutes over which moves and changes of open interest are told.
MOVES = (1, 5, 15, 60)
#: Ages are told in steps of so many seconds: a stream that delivers stands at 0 and costs no message.
AGE_STEP_S = 5
#: Ages are measured at every so-manieth tick.
AGE_TICKS = 3
#: Rows that are made without a pause; a millisecond.
SLICE = 100
#: Symbols whose usual figures are renewed in one tick; a thousand take four.
RENEWED_PER_TICK = 300

_TRUST = {code: trust for trust, code in CODES.items()}


class MarketRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One contract at one moment. A figure that is not known is null.

    ``move_N`` is the price against the close of the minute that opened N minutes before the running one. ``activity``
    is the turnover of the last sixty seconds over the mean minute of the last hour; where no stream brings the candles,
    that of the newest minute known. ``anomaly`` is the larger of
    ``activity`` and the move of one minute over the mean absolute move of a minute: how many times its usual the
    contract does just now.
    """

    symbol: str
    price: float | None  # quote coin
    move_1: float | None  # fraction
    move_5: float | None
    move_15: float | None
    move_60: float | None
    turnover_24h: float | None  # quote coin
    activity: float | None  # times the usual
    anomaly: float | None  # times the usual
    open_interest_change: float | None  # fraction, over an hour or as long as it is known
    funding_rate: float | None  # fraction per settlement
    known: float  # share of the last sixty minutes about which something is known
    trust: Trust  # of the last closed minute
    is_live: bool  # its candles are streamed at this moment
    age_s: int | None  # since the moment up to which everything about it is known, in whole steps of 5
    asset_class: AssetClass


FIELDS = MarketRow.__struct_fields__


@dataclass(slots=True)
class _Past:
    """What a symbol's closed minutes say."""

    state: tuple[int, ...] = ()  # the minute it was made in, the newest closed one, how many there were, and settling
    closes: tuple[float | None, ...] = (None,) * len(MOVES)
    last_turnover: float = 0.0
    usual_ms: int = -1
    usual_turnover: float | None = None
    usual_move: float | None = None
    known: float = 0.0
    trust: Trust = Trust.UNKNOWN
    interest: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=MOVES[-1] + 1))

    def note_interest(self, opened_ms: int, open_interest: float) -> None:
        """Keep the first open interest that is seen in a minute."""
        if not self.interest or self.interest[-1][0] != opened_ms:
            self.interest.append((opened_ms, open_interest))


class MarketTable:
    """The rows of all watched contracts, most traded first."""

    def __init__(self, bot: Bot) -> None:
        self.rows: dict[str, MarketRow] = {}
        self.updated_ms = 0  # exchange time of the rows
        self._bot = bot
        self._past: dict[str, _Past] = {}
        self._remembered_ms = -1  # the minute whose open interest is noted
        self._next = 0  # whose usual figures are renewed next
        self._ages: dict[str, int] = {}  # seconds
        self._age_ticks = AGE_TICKS  # since the ages were measured

    def remember(self) -> None:
        """Note the open interest of a new minute: all of a row that cannot be made later."""
        engine = self._bot.engine
        opened_ms = engine.now_ms - engine.now_ms % MINUTE_MS
        if opened_ms != self._remembered_ms:
            for symbol in self._past.keys() - engine.book.series.keys():
                del self._past[symbol]
            for symbol in engine.book.series:
                open_interest = engine.open_interest(symbol)
                if open_interest:
                    self._past.setdefault(symbol, _Past()).note_interest(opened_ms, open_interest)
            self._remembered_ms = opened_ms

    def update(self) -> tuple[list[MarketRow], list[str]]:
        """Bring the rows up to date.

        Returns:
            The rows that are new or changed, and the symbols that are gone.
        """
        return at_once(self.updating())

    def updating(self, ticks: int = 1) -> Slices[tuple[list[MarketRow], list[str]]]:
        """As :meth:`update`, in slices; :attr:`rows` are the old ones until it is done.

        Args:
            ticks: since the last time; what is renewed for some symbols at a tick is renewed for so many times more.
        """
        engine = self._bot.engine
        book = engine.book
        symbols = [symbol for symbol in self._bot.watched if symbol in book.series]
        yield from self._renew(symbols, ticks * RENEWED_PER_TICK)
        self._age_ticks += ticks
        if self._age_ticks >= AGE_TICKS:
            self._age_ticks = 0
            step_ms = 1_000 * AGE_STEP_S
            ages = yield from measure_ages(self._bot)
            self._ages = {symbol: AGE_STEP_S * (age // step_ms) for symbol, age in ages.items()}
        changed, rows = [], {}
        for place, symbol in enumerate(self._bot.watched, 1):
            series = book.series.get(symbol)
            if series is not None:
                row = self._row(series, engine.now_ms)
                if row != self.rows.get(symbol):
                    changed.append(row)
                rows[symbol] = row
            if place % SLICE == 0:
                yield
        gone = [symbol for symbol in self.rows if symbol not in rows]
        for symbol in self._past.keys() - rows.keys():
            del self._past[symbol]
        self.rows, self.updated_ms = rows, engine.now_ms
        return changed, gone

    def _row(self, series: Series, now_ms: int) -> MarketRow:
        symbol, contract = series.contract.symbol, series.contract
        past = self._past.get(symbol)
        if past is None:
            past = self._past[symbol] = _Past()
        minutes = series.minutes
        opened_ms = now_ms - now_ms % MINUTE_MS
        settling = series.settling
        state = opened_ms, minutes.end_ms, len(minutes), len(settling), series.next_minute_ms
        if state != past.state:
            past.state = state
            past.closes = tuple(_close_of(series, opened_ms - back * MINUTE_MS) for back in MOVES)
            last_turnover = minutes.figure("turnover", opened_ms - MINUTE_MS)
            ended = _ended(series, opened_ms - MINUTE_MS)
            if last_turnover is not None:
                past.last_turnover = last_turnover
            else:
                past.last_turnover = contract.turnover(ended.contracts, ended.amount) if ended is not None else 0.0
        ticker, running = self._bot.engine.ticker(symbol), series.running
        is_running = running is not None and running.open_time_s * 1_000 >= opened_ms
        if running is not None and is_running:
            price: float | None = running.close
            turnover = contract.turnover(running.contracts, running.amount)
        else:
            price = ticker.last_price if ticker is not None else minutes[-1].close if minutes else None
            turnover = 0.0
        moves = [price / close - 1.0 if price and close else None for close in past.closes]
        activity = None
        if past.usual_turnover and series.is_up:
            left = 1.0 - (now_ms - opened_ms) / MINUTE_MS
            activity = (turnover + left * past.last_turnover) / past.usual_turnover
        elif past.usual_turnover and minutes:
            activity = minutes[-1].turnover / past.usual_turnover  # by REST whole minutes come, and late
        anomaly = activity
        if moves[0] is not None and past.usual_move:
            anomaly = max(activity or 0.0, abs(moves[0]) / past.usual_move)
        day, interest, funding = None, None, None
        if ticker is not None:
            day = contract.turnover(ticker.contracts_24h or 0.0, ticker.amount_24h or 0.0)
            funding = ticker.funding_rate
            if ticker.open_interest:
                past.note_interest(opened_ms, ticker.open_interest)
                if past.interest[0][0] < opened_ms:
                    interest = ticker.open_interest / past.interest[0][1] - 1.0
        return MarketRow(
            symbol,
            price,
            _rounded(moves[0], 5),
            _rounded(moves[1], 5),
            _rounded(moves[2], 5),
            _rounded(moves[3], 5),
            _rounded(day, 0),
            _rounded(activity, 2),
            _rounded(anomaly, 2),
            _rounded(interest, 4),
            funding,
            past.known,
            past.trust,
            series.is_up,
            self._ages.get(symbol),
            contract.asset_class,
        )

    def _renew(self, symbols: list[str], count: int) -> Slices[None]:
        """Renew what is usual, and what is known, of some symbols whose minute is over."""
        if not symbols:
            return
        book, ledger, now_ms = self._bot.engine.book.series, self._bot.engine.ledger, self._bot.engine.now_ms
        opened_ms = now_ms - now_ms % MINUTE_MS
        start = self._next % len(symbols)
        for place, symbol in enumerate((symbols[start:] + symbols[:start])[:count], 1):
            if place % SLICE == 0:
                yield
            if symbol not in book:
                continue
            past = self._past.setdefault(symbol, _Past())
            codes = ledger.codes(symbol, opened_ms - USUAL_MINUTES * MINUTE_MS, opened_ms)
            past.known = round(1.0 - codes.count(0) / len(codes), 3)
            past.trust = _TRUST[next((code for code in codes[:-4:-1] if code), 0)]
            if past.usual_ms < opened_ms:
                minutes = book[symbol].minutes
                usual = min(len(minutes), USUAL_MINUTES)
                if usual >= USUAL_NEEDED:
                    opens, closes, turnover = (minutes.column(name, -usual) for name in ("open", "close", "turnover"))
                    past.usual_ms = opened_ms
                    past.usual_turnover = sum(turnover) / usual
                    moves = [abs(close / open_ - 1.0) for open_, close in zip(opens, closes, strict=True) if open_]
                    past.usual_move = sum(moves) / usual
        self._next = (start + count) % len(symbols)


def _ended(series: Series, open_time_ms: int) -> RunningCandle | None:
    """A minute that has ended and is not closed yet."""
    return next((one for one, _ in series.settling if one.open_time_s * 1_000 == open_time_ms), None)


def _close_of(series: Series, open_time_ms: int) -> float | None:
    """Where a minute closed, or will have closed for all that is known of it so far."""
    close = series.minutes.figure("close", open_time_ms)
    if close is not None:
        return close
    ended = _ended(series, open_time_ms)
    if ended is not None:
        return ended.close
    # Nothing was pushed for it, and whether that means that nobody traded is not decided yet.
    is_open = series.is_up and series.next_minute_ms <= open_time_ms == series.minutes.end_ms
    return series.minutes[-1].close if series.minutes and is_open else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
