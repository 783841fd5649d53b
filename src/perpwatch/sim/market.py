"""What happens on the simulated market: trades, the candles they make, and the pumps hidden among them.

Synchronous and a pure function of its seed. Every contract has random streams of its own and is generated a minute at
a time, so what it does depends neither on the other contracts nor on how often :meth:`SimulatedMarket.advance` is
called. What happened before the start is generated backwards, a day of candles at a time, when somebody asks.

Because a minute is known as a whole when it begins, the running candle after each of its trades is computed in one go;
a contract that nobody watches costs nothing more.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from perpwatch.model import MINUTE_MS, Timeframe
from perpwatch.sim.universe import Instrument, generator, instrument, universe

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DAY_MINUTES = 1_440
RETENTION_MINUTES = 30 * DAY_MINUTES
#: 2026-10-05 12:00:00 UTC, a Monday.
DEFAULT_START_MS = 1_791_201_600_000

# The activity of a contract wanders: its logarithm is an autoregression, minute by minute.
_MEMORY = 0.8
_RESTLESSNESS = 0.35
_QUIET_RESTLESSNESS = 0.8
_QUIET_BELOW_TRADES_PER_MINUTE = 0.1
_KERNEL = _MEMORY ** np.arange(24)
# Trades come in clusters: one order meets several others within milliseconds.
_CLUSTER_MS = 60.0
_SIZE_SPREAD = 1.1  # standard deviation of the logarithm of a trade's size

# How busy a minute of the day is against the average: most at 14:00 UTC, least at 02:00.
_SEASONS = 1.0 + 0.5 * np.sin((np.arange(DAY_MINUTES) / DAY_MINUTES - 1 / 3) * 2 * np.pi)

_PUMP_FILLS_PER_MINUTE = (90.0, 900.0)
_PUMP_TAKER_SHARE = 0.85
_PUMP_KEPT = 0.6  # of the move, after it has settled
_PUMP_DECAY = 3.0  # lengths of the pump in which the return falls to a third
_PUMP_FORGOTTEN = 30  # lengths after which nothing of the return is left to see
_RECENT_TRADES = 100
_HISTORY_DAYS_CACHED = 1_000

# Names of the random streams of a contract; 1 is its instrument.
_LIVE, _HISTORY, _PUMP = 2, 3, 4


class Pump(msgspec.Struct, frozen=True, order=True):
    """A planted move: the ground truth a detector is judged by.

    ``size`` is the fraction the price gains at the peak, below 0 for a dump; ``volume_multiple`` says how many times
    the contract's usual turnover changes hands meanwhile.
    """

    start_ms: int
    symbol: str
    duration_ms: int = 90_000
    size: float = 0.08
    volume_multiple: float = 40.0

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.duration_ms


class MarketTrade(msgspec.Struct, frozen=True, gc=False):
    """One execution on the simulated exchange."""

    symbol: str
    time_ms: int
    price: float
    contracts: int
    side: int  # the taker's: 1 buyer, 2 seller
    trade_id: int  # rising within a symbol


class MarketCandle(msgspec.Struct, frozen=True, gc=False):
    """A candle as the exchange knows it; ``amount`` is in settle coin."""

    open_time_ms: int
    open: float
    high: float
    low: float
    close: float
    contracts: int
    amount: float
    real_open: float
    real_high: float
    real_low: float
    real_close: float


@dataclass(frozen=True, slots=True)
class Columns:
    """Candles as equally long columns, oldest first. ``minute`` is the open time in minutes since the epoch."""

    minute: Integers
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    contracts: Integers
    amount: Floats
    real_open: Floats
    real_high: Floats
    real_low: Floats
    real_close: Floats

    def __len__(self) -> int:
        return len(self.minute)

    def between(self, first_minute: int, last_minute: int) -> Columns:
        """The rows that open within the two minutes, both included."""
        start, stop = np.searchsorted(self.minute, (first_minute, last_minute + 1))
        return self.take(slice(int(start), int(stop)))

    def take(self, rows: slice) -> Columns:
        return Columns(*(getattr(self, name)[rows] for name in _COLUMN_NAMES))

    def candles(self) -> list[MarketCandle]:
        columns = (getattr(self, name).tolist() for name in _COLUMN_NAMES)
        return [MarketCandle(minute * MINUTE_MS, *rest) for minute, *rest in zip(*columns, strict=True)]

    @staticmethod
    def joined(parts: Sequence[Columns]) -> Columns:
        return Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMN_NAMES))


_COLUMN_NAMES = tuple(Columns.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class DayStatistics:
    """The last 1,440 whole minutes and the running one. Contracts move only with trades or at a minute's end."""

    contracts: int
    amount: float
    high: float
    low: float
    open: float  # the price a day ago


@dataclass(slots=True)
class _Minute:
    """All trades of one contract in one minute, and the running candle after each of them."""

    times: list[int]
    prices: list[float]
    contracts: list[int]
    sides: list[int]
    total_contracts: list[int]
    total_amount: list[float]
    highs: list[float]
    lows: list[float]


_SILENT_MINUTE = _Minute([], [], [], [], [], [], [], [])


@dataclass(slots=True)
class Listing:
    """One contract on the market. ``position`` counts the trades of the running minute that have happened."""

    instrument: Instrument
    index: int  # row in the day's matrices
    random: np.random.Generator
    listed_minute: int
    last_price: float
    previous_close: float  # of the last minute that traded
    base_log_price: float  # without the pumps
    position: int = 0
    last_trade_ms: int = 0
    mood: float = 0.0
    trades: _Minute = field(default_factory=lambda: _SILENT_MINUTE)
    pumps: list[Pump] = field(default_factory=list)
    recent: deque[MarketTrade] = field(default_factory=lambda: deque(maxlen=_RECENT_TRADES))
    has_history: bool = True
    next_contract_size: float = 0.0
    closed_minutes: array[int] = field(default_factory=lambda: array("q"))
    closed_rows: array[float] = field(default_factory=lambda: array("d"))  # ten numbers a minute, order of Columns
    history_starts: list[float] = field(default_factory=list)  # log price at the begin of each day, newest first

    @property
    def symbol(self) -> str:
        return self.instrument.symbol

    def running(self, minute: int) -> MarketCandle | None:
        """The candle of the running minute so far, None before its first trade."""
        if not self.position:
            return None
        trades, last = self.trades, self.position - 1
        high, low, close = trades.highs[last], trades.lows[last], trades.prices[last]
        open_ = self.previous_close
        return MarketCandle(
            minute * MINUTE_MS,
            open_,
            max(open_, high),
            min(open_, low),
            close,
            trades.total_contracts[last],
            trades.total_amount[last],
            trades.prices[0],
            high,
            low,
            close,
        )


class SimulatedMarket:
    """Contracts that trade, from ``start_ms`` on and as far back as the exchange's history reaches.

    Args:
        seed: everything follows from it.
        contracts: how many USDT contracts are listed.
        start_ms: where the market stands before the first :meth:`advance`.
        pumps: planted moves; more can be added with :meth:`plant`.
        pumps_per_hour: planted moves drawn from the seed, over all contracts.
        activity: scales the number of trades and the turnover of every contract.
        quiet_share: of the contracts below the top, how many trade only a few times an hour.
        coin_margined: how many coin-margined contracts are listed besides.
    """

    def __init__(
        self,
        seed: int,
        contracts: int = 800,
        start_ms: int = DEFAULT_START_MS,
        *,
        pumps: Iterable[Pump] = (),
        pumps_per_hour: float = 0.0,
        activity: float = 1.0,
        quiet_share: float = 0.15,
        coin_margined: int = 0,
    ) -> None:
        self.seed = seed
        self.start_ms = start_ms
        self.now_ms = start_ms
        self.pumps_per_hour = pumps_per_hour
        self._activity = activity
        self._first_minute = start_ms // MINUTE_MS
        self._minute = self._first_minute
        self._generated_minute = self._first_minute - 1
        self._listings: dict[str, Listing] = {}
        self._rows: list[Listing] = []  # by index; contracts that left keep theirs
        self._pumps: list[Pump] = []
        self._pump_hour = start_ms // 3_600_000 - 1  # drawn up to and including this hour
        self._history: OrderedDict[tuple[int, int], Columns] = OrderedDict()
        self._order_time: list[int] = []
        self._order_listing: list[int] = []
        self._order_trade: list[int] = []
        self._cursor = 0

        for each in universe(seed, contracts, quiet_share, coin_margined):
            self._add(each, self._first_minute, has_history=True)
        self._day = _Day(len(self._rows), [row.last_price for row in self._rows])
        for row in self._rows:
            self._day.load(row.index, self._history_day(row, 0), self._first_minute)
        self._history.clear()
        self._day.refresh()
        for pump in pumps:
            self.plant(pump)
        self._begin_minute()
        self.advance(start_ms)

    # What is there

    @property
    def minute(self) -> int:
        """The running minute, counted from the epoch."""
        return self._minute

    @property
    def symbols(self) -> list[str]:
        """Listed contracts, most traded first, newly listed last."""
        return list(self._listings)

    @property
    def pumps(self) -> list[Pump]:
        """The ground truth: planted moves, past and known future, by time."""
        return sorted(self._pumps)

    def listing(self, symbol: str) -> Listing | None:
        return self._listings.get(symbol)

    def listings(self) -> Iterable[Listing]:
        return self._listings.values()

    def running(self, symbol: str) -> MarketCandle | None:
        """The candle of the running minute so far, None before its first trade."""
        return self._listings[symbol].running(self._minute)

    def day(self, listing: Listing) -> DayStatistics:
        """24 h statistics, as tickers show them."""
        day, row, last = self._day, listing.index, listing.position - 1
        if last < 0:
            return DayStatistics(
                day.contracts[row], round(day.amounts[row], 6), day.highs[row], day.lows[row], day.opens[row]
            )
        trades = listing.trades
        return DayStatistics(
            day.contracts[row] + trades.total_contracts[last],
            round(day.amounts[row] + trades.total_amount[last], 6),
            max(day.highs[row], trades.highs[last]),
            min(day.lows[row], trades.lows[last]),
            day.opens[row],
        )

    def rows_that_lost_volume(self) -> list[int]:
        """Indices of contracts whose 24 h volume fell when the running minute began."""
        return self._day.changed

    # Candles

    def truth(self, symbol: str, *, with_history: bool = False) -> list[MarketCandle]:
        """The closed Min1 candles that REST would give, minutes without trades left out.

        From the minute of ``start_ms`` on, or from 30 days before now ``with_history``.
        """
        first = self._minute - RETENTION_MINUTES if with_history else self._first_minute
        return self.columns(symbol, Timeframe.Min1, first, self._minute - 1).candles()

    def columns(self, symbol: str, timeframe: Timeframe, first_minute: int, last_minute: int) -> Columns:
        """Candles that open within two minutes (both included), the running one last; none older than 30 days."""
        listing = self._listings[symbol]
        first = max(bucket_start(first_minute, timeframe), self._minute - RETENTION_MINUTES)
        if timeframe is Timeframe.Min1:
            return self._minutes(listing, first, last_minute)
        last = min(self._minute, last_minute + timeframe.minutes + DAY_MINUTES)
        return rolled_up(self._minutes(listing, first, last), timeframe).between(first_minute, last_minute)

    # Time

    def advance(self, to_ms: int) -> list[MarketTrade]:
        """Let time pass up to and including ``to_ms``; the trades of it, by time.

        Raises:
            ValueError: ``to_ms`` lies in the past.
        """
        if to_ms < self.now_ms:
            raise ValueError(f"the market stands at {self.now_ms}, cannot go back to {to_ms}")
        trades: list[MarketTrade] = []
        while (self._minute + 1) * MINUTE_MS <= to_ms:
            self._dispatch(len(self._order_time), trades)
            self._end_minute()
            self._minute += 1
            self._begin_minute()
        self._dispatch(bisect_right(self._order_time, to_ms, lo=self._cursor), trades)
        self.now_ms = to_ms
        return trades

    # What the operator of the exchange does

    def plant(self, pump: Pump) -> Pump:
        """Add a planned move; one that should have begun is moved to the next minute. Returns what will happen.

        Raises:
            KeyError: no such contract.
        """
        listing = self._listings[pump.symbol]
        # Minutes are generated when they begin, so the running one can no longer be changed.
        earliest_ms = (self._generated_minute + 1) * MINUTE_MS
        if pump.start_ms < earliest_ms:
            pump = msgspec.structs.replace(pump, start_ms=earliest_ms)
        listing.pumps.append(pump)
        self._pumps.append(pump)
        return pump

    def list_contract(self, symbol: str, rank: int = 200, price: float = 0.0) -> Listing:
        """Open a new contract; it trades from the next minute on."""
        if symbol in self._listings:
            raise ValueError(f"{symbol} is listed already")
        new = instrument(self.seed, symbol, rank, price=price)
        new.contract_id = 10_000 + len(self._rows)
        new.opening_time_ms = (self._minute + 1) * MINUTE_MS
        new.is_new = True
        listing = self._add(new, self._minute + 1, has_history=False)
        self._day.append(listing.last_price)
        return listing

    def delist(self, symbol: str) -> Listing:
        """Close a contract at once; its trades end here."""
        listing = self._listings.pop(symbol)
        self._stop(listing)
        return listing

    def set_state(self, symbol: str, state: int) -> Listing:
        """Enable (0) or pause (4) a contract, or set another state of the wire; only 0 trades, from the next minute."""
        listing = self._listings[symbol]
        listing.instrument.state = state
        if state:
            self._stop(listing)
        return listing

    def rename(self, symbol: str, new_symbol: str) -> Listing:
        """Give a contract another name; it goes on trading as if nothing had happened."""
        if new_symbol in self._listings:
            raise ValueError(f"{new_symbol} is listed already")
        listing = self._listings.pop(symbol)
        listing.instrument.symbol = new_symbol
        listing.instrument.base_coin, listing.instrument.quote_coin = new_symbol.rsplit("_", 1)
        self._listings[new_symbol] = listing
        return listing

    def set_contract_size(self, symbol: str, contract_size: float) -> Listing:
        """Change what one contract is worth, from the next minute on."""
        listing = self._listings[symbol]
        listing.next_contract_size = contract_size
        return listing

    # Minutes

    def _add(self, each: Instrument, minute: int, *, has_history: bool) -> Listing:
        listing = Listing(
            instrument=each,
            index=len(self._rows),
            random=generator(self.seed, each.key, _LIVE),
            listed_minute=minute,
            last_price=each.first_price,
            previous_close=each.first_price,
            base_log_price=math.log(each.first_price),
            has_history=has_history,
        )
        self._rows.append(listing)
        self._listings[each.symbol] = listing
        return listing

    def _stop(self, listing: Listing) -> None:
        """Cut the running minute after the trades that have happened."""
        cut, trades = listing.position, listing.trades
        if cut:
            listing.trades = _Minute(*(getattr(trades, name)[:cut] for name in _Minute.__dataclass_fields__))
        else:
            listing.trades = _SILENT_MINUTE

    def _dispatch(self, end: int, trades: list[MarketTrade]) -> None:
        rows, order_listing, order_trade = self._rows, self._order_listing, self._order_trade
        first_id = self._minute * 100_000
        for place in range(self._cursor, end):
            listing = rows[order_listing[place]]
            number = order_trade[place]
            minute = listing.trades
            if number >= len(minute.times):
                continue  # the contract was stopped
            listing.position = number + 1
            listing.last_price = price = minute.prices[number]
            listing.last_trade_ms = time_ms = minute.times[number]
            trade = MarketTrade(
                listing.instrument.symbol,
                time_ms,
                price,
                minute.contracts[number],
                minute.sides[number],
                first_id + number,
            )
            listing.recent.append(trade)
            trades.append(trade)
        self._cursor = end

    def _end_minute(self) -> None:
        minute, day = self._minute, self._day
        for listing in self._rows:
            candle = listing.running(minute)
            if candle is None:
                continue
            _, *numbers = msgspec.structs.astuple(candle)
            listing.closed_minutes.append(minute)
            listing.closed_rows.extend(numbers)
            day.put(listing.index, minute, candle)
            listing.previous_close = candle.close
            listing.position = 0
            listing.trades = _SILENT_MINUTE
        day.close(minute)

    def _begin_minute(self) -> None:
        self._draw_pumps()
        minute, times, counts = self._minute, [], []
        owners: list[int] = []
        factor = float(_SEASONS[minute % DAY_MINUTES]) * self._activity
        for listing in self._listings.values():
            if listing.next_contract_size:
                listing.instrument.contract_size, listing.next_contract_size = listing.next_contract_size, 0.0
            if listing.instrument.state or listing.listed_minute > minute:
                continue
            drawn = self._draw_minute(listing, minute, factor)
            if drawn is not None:
                times.append(drawn)
                counts.append(len(drawn))
                owners.append(listing.index)
        self._cursor = 0
        self._generated_minute = minute
        if not times:
            self._order_time, self._order_listing, self._order_trade = [], [], []
            return
        all_times = np.concatenate(times)
        order = np.argsort(all_times, kind="stable")
        self._order_time = all_times[order].tolist()
        self._order_listing = np.repeat(owners, counts)[order].tolist()
        self._order_trade = np.concatenate([np.arange(count) for count in counts])[order].tolist()

    def _draw_pumps(self) -> None:
        """Draw the planted moves of the hour that begins, so that the truth is known before it happens."""
        hour = self._minute // 60
        while self._pump_hour < hour:
            self._pump_hour += 1
            if not self.pumps_per_hour:
                continue
            random = generator(self.seed, _PUMP, self._pump_hour)
            # Contracts without history have just been listed; a pump on them could not be told from their opening.
            symbols = [each.symbol for each in self._listings.values() if each.has_history]
            for _ in range(random.poisson(self.pumps_per_hour)):
                pump = draw_pump(random, symbols, self._pump_hour * 3_600_000 + int(random.integers(0, 3_600_000)))
                if pump.start_ms >= self._minute * MINUTE_MS:
                    self._listings[pump.symbol].pumps.append(pump)
                    self._pumps.append(pump)

    def _draw_minute(self, listing: Listing, minute: int, factor: float) -> Integers | None:
        """Fill ``listing.trades``; the times of the trades, or None for a silent minute."""
        each, random = listing.instrument, listing.random
        rate = each.trades_per_minute
        restlessness = _QUIET_RESTLESSNESS if rate < _QUIET_BELOW_TRADES_PER_MINUTE else _RESTLESSNESS
        listing.mood = _MEMORY * listing.mood + restlessness * random.standard_normal()
        count = int(random.poisson(rate * factor * math.exp(listing.mood - _mean_correction(restlessness))))
        begin_ms = minute * MINUTE_MS
        for pump in [each for each in listing.pumps if each.end_ms + _PUMP_FORGOTTEN * each.duration_ms < begin_ms]:
            listing.base_log_price += math.log1p(pump.size) * _PUMP_KEPT
            listing.pumps.remove(pump)
        pumps = [pump for pump in listing.pumps if pump.start_ms < begin_ms + MINUTE_MS]
        if not count and not any(pump.end_ms > begin_ms for pump in pumps):
            return None

        clusters = 1 + count * 2 // 5
        centres = random.random(clusters) * MINUTE_MS
        spread = random.exponential(_CLUSTER_MS, count)
        times = np.sort(np.minimum(centres[random.integers(0, clusters, count)] + spread, MINUTE_MS - 1))
        # Over a day the steps of all trades add up to the contract's volatility.
        steps = random.standard_normal(count) * (each.volatility / math.sqrt(max(rate, 0.2)))
        logs = listing.base_log_price + np.cumsum(steps)
        sizes = random.lognormal(-(_SIZE_SPREAD**2) / 2, _SIZE_SPREAD, count)
        notional = sizes * (each.turnover_per_day / (DAY_MINUTES * rate))
        is_buy = random.random(count) < np.where(steps > 0, 0.75, 0.25)
        if pumps:
            times, logs, notional, is_buy = self._with_pumps(listing, minute, pumps, times, logs, notional, is_buy)
            if not len(times):
                return None
        if count:
            listing.base_log_price += float(steps.sum())

        prices = np.maximum(np.round(np.exp(logs), each.price_scale), each.price_unit)
        size = each.contract_size
        worth = np.full_like(prices, size) if each.is_coin_margined else prices * size
        contracts = np.maximum(np.rint(notional / worth), 1).astype(np.int64)
        amounts = contracts * size / prices if each.is_coin_margined else contracts * prices * size
        times_ms = begin_ms + times.astype(np.int64)
        listing.position = 0
        listing.trades = _Minute(
            times_ms.tolist(),
            prices.tolist(),
            contracts.tolist(),
            np.where(is_buy, 1, 2).tolist(),
            np.cumsum(contracts).tolist(),
            np.round(np.cumsum(amounts), _amount_decimals(each)).tolist(),
            np.maximum.accumulate(prices).tolist(),
            np.minimum.accumulate(prices).tolist(),
        )
        return times_ms

    def _with_pumps(
        self,
        listing: Listing,
        minute: int,
        pumps: list[Pump],
        times: Floats,
        logs: Floats,
        notional: Floats,
        is_buy: npt.NDArray[np.bool_],
    ) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
        """The trades of a minute with those that pumps add, at the prices they lead to."""
        each, begin_ms = listing.instrument, minute * MINUTE_MS
        all_times, all_notional, all_buys = [times], [notional], [is_buy]
        for pump in pumps:
            first = max(0, pump.start_ms - begin_ms)
            last = min(MINUTE_MS, pump.end_ms - begin_ms)
            if last <= first:
                continue
            # A stream of its own, so that a pump leaves the other trades of the contract as they were.
            random = generator(self.seed, each.key, _PUMP, pump.start_ms, minute)
            fills = min(
                max(each.trades_per_minute * pump.volume_multiple, _PUMP_FILLS_PER_MINUTE[0]), _PUMP_FILLS_PER_MINUTE[1]
            )
            turnover = each.turnover_per_day * self._activity / DAY_MINUTES * pump.volume_multiple
            count = int(random.poisson(fills * (last - first) / MINUTE_MS))
            all_times.append(first + random.random(count) * (last - first - 1))
            all_notional.append(random.exponential(turnover / fills, count))
            all_buys.append((random.random(count) < _PUMP_TAKER_SHARE) == (pump.size > 0))
        merged = np.concatenate(all_times)
        order = np.argsort(merged, kind="stable")
        merged = merged[order]
        before = np.searchsorted(times, merged, side="right")
        merged_logs = np.concatenate(([listing.base_log_price], logs))[before]
        for pump in pumps:
            merged_logs = merged_logs + _pump_offset(pump, begin_ms + merged)
        return merged, merged_logs, np.concatenate(all_notional)[order], np.concatenate(all_buys)[order]

    # History

    def _minutes(self, listing: Listing, first: int, last: int) -> Columns:
        """Min1 candles from history, the closed minutes since the start, and the running one."""
        parts: list[Columns] = []
        if listing.has_history and first < self._first_minute:
            oldest = (self._first_minute - 1 - first) // DAY_MINUTES
            newest = max(0, (self._first_minute - 1 - last) // DAY_MINUTES)
            parts = [self._history_day(listing, day) for day in range(oldest, newest - 1, -1)]
        if last >= self._first_minute:
            parts.append(_closed(listing, first))
            running = listing.running(self._minute)
            if running is not None:
                parts.append(_columns([running]))
        if not parts:
            return _columns([])
        return Columns.joined(parts).between(first, last)

    def _history_day(self, listing: Listing, day: int) -> Columns:
        """The candles of one day before the start, 0 being the last one."""
        cached = self._history.get((listing.index, day))
        if cached is not None:
            self._history.move_to_end((listing.index, day))
            return cached
        starts = listing.history_starts
        for missing in range(len(starts), day):
            self._history_day(listing, missing)
        each = listing.instrument
        end_log = starts[day - 1] if day else math.log(each.first_price)
        columns, start_log = _draw_day(
            each,
            generator(self.seed, each.key, _HISTORY, day),
            self._first_minute - (day + 1) * DAY_MINUTES,
            end_log,
            self._activity,
        )
        if len(starts) == day:
            starts.append(start_log)
        self._history[(listing.index, day)] = columns
        if len(self._history) > _HISTORY_DAYS_CACHED:
            self._history.popitem(last=False)
        return columns


def draw_pump(random: np.random.Generator, symbols: Sequence[str], start_ms: int) -> Pump:
    """A planted move on any of ``symbols``: 3 to 25 % in a minute or two at 20 to 80 times the usual turnover."""
    size = math.exp(random.uniform(math.log(0.03), math.log(0.25)))
    return Pump(
        start_ms,
        symbols[int(random.integers(0, len(symbols)))],
        duration_ms=int(random.integers(60_000, 120_000)),
        size=round(size if random.random() < 0.7 else -size / (1 + size), 4),
        volume_multiple=round(float(random.uniform(20.0, 80.0)), 1),
    )


def demo_pumps(market: SimulatedMarket, hours: float = 24.0) -> list[Pump]:
    """Moves for a demonstration: one 12 s after the start on a much traded contract, then one every 20 to 40 s.

    They are meant for another market with the seed, contracts and start of ``market``: one that runs already can no
    longer change its first minute.
    """
    random = generator(market.seed, _PUMP, 1)
    symbols = market.symbols
    time_ms = market.start_ms + 12_000
    first = draw_pump(random, symbols[:20], time_ms)
    pumps = [msgspec.structs.replace(first, size=max(abs(first.size), 0.06), duration_ms=60_000)]
    while time_ms < market.start_ms + hours * 3_600_000:
        time_ms += int(random.integers(20_000, 40_001))
        pumps.append(draw_pump(random, symbols[:200], time_ms))
    return pumps


def rolled_up(minutes: Columns, timeframe: Timeframe) -> Columns:
    """Min1 candles combined into longer ones; weeks begin on Monday, months on the first, all in UTC."""
    if not len(minutes):
        return minutes
    buckets = _buckets(minutes.minute, timeframe)
    begins = np.flatnonzero(np.concatenate(([True], buckets[1:] != buckets[:-1])))
    ends = np.concatenate((begins[1:], [len(buckets)])) - 1
    return Columns(
        buckets[begins],
        minutes.open[begins],
        np.maximum.reduceat(minutes.high, begins),
        np.minimum.reduceat(minutes.low, begins),
        minutes.close[ends],
        np.add.reduceat(minutes.contracts, begins),
        np.round(np.add.reduceat(minutes.amount, begins), 6).astype(np.float64),
        minutes.real_open[begins],
        np.maximum.reduceat(minutes.real_high, begins),
        np.minimum.reduceat(minutes.real_low, begins),
        minutes.real_close[ends],
    )


class _Day:
    """What the last 1,440 minutes of every contract add up to; one row a contract, one column a minute of the day."""

    def __init__(self, rows: int, prices: list[float]) -> None:
        self._contracts = np.zeros((rows, DAY_MINUTES), np.int64)
        self._amounts = np.zeros((rows, DAY_MINUTES))
        self._highs = np.full((rows, DAY_MINUTES), -np.inf)
        self._lows = np.full((rows, DAY_MINUTES), np.inf)
        self._closes = np.repeat(np.asarray(prices)[:, None], DAY_MINUTES, axis=1)
        self._last_closes = np.asarray(prices, float)
        self._next: dict[int, MarketCandle] = {}
        self._oldest_column = 0
        self.contracts: list[int] = []
        self.amounts: list[float] = []
        self.highs: list[float] = []
        self.lows: list[float] = []
        self.opens: list[float] = []
        self.changed: list[int] = []

    def load(self, row: int, day: Columns, first_minute: int) -> None:
        """The day before ``first_minute``, all of it."""
        self._oldest_column = first_minute % DAY_MINUTES
        if not len(day):
            return
        at = day.minute % DAY_MINUTES
        self._contracts[row, at] = day.contracts
        self._amounts[row, at] = day.amount
        self._highs[row, at] = day.real_high
        self._lows[row, at] = day.real_low
        minutes = np.arange(first_minute - DAY_MINUTES, first_minute)
        latest = np.searchsorted(day.minute, minutes, side="right") - 1
        closes = np.where(latest < 0, day.open[0], day.close[latest])
        self._closes[row, minutes % DAY_MINUTES] = closes
        self._last_closes[row] = day.close[-1]

    def put(self, row: int, minute: int, candle: MarketCandle) -> None:
        """Note the candle of a minute that :meth:`close` will close."""
        self._next[row] = candle

    def close(self, minute: int) -> None:
        """Let ``minute`` enter and the one a day before it fall out."""
        column = minute % DAY_MINUTES
        self.changed = np.flatnonzero(self._contracts[:, column]).tolist()
        self._contracts[:, column] = 0
        self._amounts[:, column] = 0.0
        self._highs[:, column] = -np.inf
        self._lows[:, column] = np.inf
        for row, candle in self._next.items():
            self._contracts[row, column] = candle.contracts
            self._amounts[row, column] = candle.amount
            self._highs[row, column] = candle.real_high
            self._lows[row, column] = candle.real_low
            self._last_closes[row] = candle.close
        self._closes[:, column] = self._last_closes
        self._next = {}
        self._oldest_column = (minute + 1) % DAY_MINUTES
        self.refresh()

    def append(self, price: float) -> None:
        """A contract was listed."""
        self._contracts = np.vstack((self._contracts, np.zeros((1, DAY_MINUTES), np.int64)))
        self._amounts = np.vstack((self._amounts, np.zeros((1, DAY_MINUTES))))
        self._highs = np.vstack((self._highs, np.full((1, DAY_MINUTES), -np.inf)))
        self._lows = np.vstack((self._lows, np.full((1, DAY_MINUTES), np.inf)))
        self._closes = np.vstack((self._closes, np.full((1, DAY_MINUTES), price)))
        self._last_closes = np.append(self._last_closes, price)
        self.refresh()

    def refresh(self) -> None:
        highs, lows = self._highs.max(axis=1), self._lows.min(axis=1)
        has_traded = np.isfinite(highs)
        self.highs = np.where(has_traded, highs, self._last_closes).tolist()
        self.lows = np.where(has_traded, lows, self._last_closes).tolist()
        self.contracts = self._contracts.sum(axis=1).tolist()
        self.amounts = self._amounts.sum(axis=1).tolist()
        self.opens = self._closes[:, self._oldest_column].tolist()


def _draw_day(
    each: Instrument, random: np.random.Generator, first_minute: int, end_log: float, activity: float
) -> tuple[Columns, float]:
    """A day of candles that ends at the log price ``end_log``, and the log price it begins with.

    Drawn candle by candle instead of trade by trade: history only has to look right and to fit at its ends.
    """
    minutes = np.arange(first_minute, first_minute + DAY_MINUTES)
    rate = each.trades_per_minute
    restlessness = _QUIET_RESTLESSNESS if rate < _QUIET_BELOW_TRADES_PER_MINUTE else _RESTLESSNESS
    noise = random.standard_normal(DAY_MINUTES + len(_KERNEL) - 1) * restlessness
    mood = np.convolve(noise, _KERNEL, "valid") - _mean_correction(restlessness)
    seasons = _SEASONS[minutes % DAY_MINUTES]
    counts = random.poisson(rate * activity * seasons * np.exp(mood))
    has_traded = counts > 0

    returns = random.standard_normal(DAY_MINUTES) * each.volatility * np.sqrt(counts / max(rate, 0.2))
    path = np.concatenate(([0.0], np.cumsum(returns)))
    logs = end_log - (path[-1] - path)
    scale = each.price_scale
    # Opens and closes are the same rounded numbers, so that a candle opens exactly where the last one closed.
    bounds = np.maximum(np.round(np.exp(logs), scale), each.price_unit)
    opens, closes = bounds[:-1][has_traded], bounds[1:][has_traded]
    traded_logs, count = logs[1:][has_traded], int(has_traded.sum())
    width = each.volatility * 0.5
    first_logs = logs[:-1][has_traded] + random.standard_normal(count) * width * 0.3
    tops = np.maximum(first_logs, traded_logs) + np.abs(random.standard_normal(count)) * width
    bottoms = np.minimum(first_logs, traded_logs) - np.abs(random.standard_normal(count)) * width
    real_open, real_high, real_low = (
        np.maximum(np.round(np.exp(each_log), scale), each.price_unit) for each_log in (first_logs, tops, bottoms)
    )
    real_high = np.maximum.reduce((real_high, real_open, closes))
    real_low = np.minimum.reduce((real_low, real_open, closes))

    mean = np.clip((real_open + real_high + real_low + closes) / 4, real_low, real_high)
    spread = random.lognormal(0.0, 0.4, count)
    notional = each.turnover_per_day / (DAY_MINUTES * rate) * counts[has_traded] * spread
    worth = each.contract_size if each.is_coin_margined else mean * each.contract_size
    contracts = np.maximum(np.rint(notional / worth), 1).astype(np.int64)
    amount = contracts * each.contract_size / mean if each.is_coin_margined else contracts * each.contract_size * mean
    return (
        Columns(
            minutes[has_traded],
            opens,
            np.maximum(real_high, opens),
            np.minimum(real_low, opens),
            closes,
            contracts,
            np.round(amount, _amount_decimals(each)),
            real_open,
            real_high,
            real_low,
            closes,
        ),
        float(logs[0]),
    )


def _closed(listing: Listing, first_minute: int) -> Columns:
    """The closed candles since the start that open at ``first_minute`` or later."""
    start = bisect_left(listing.closed_minutes, first_minute)
    width = len(_COLUMN_NAMES) - 1
    table = np.array(listing.closed_rows[start * width :]).reshape(-1, width).T
    minutes = np.array(listing.closed_minutes[start:], np.int64)
    return _from_table(minutes, table)


def _columns(candles: Sequence[MarketCandle]) -> Columns:
    rows = [msgspec.structs.astuple(candle) for candle in candles]
    table = np.array(rows, float).reshape(-1, len(_COLUMN_NAMES)).T
    minutes = (table[0] / MINUTE_MS).astype(np.int64)
    return _from_table(minutes, table[1:])


def _from_table(minutes: Integers, table: Floats) -> Columns:
    open_, high, low, close, contracts, amount, *real = table
    return Columns(minutes, open_, high, low, close, contracts.astype(np.int64), amount, *real)


def _buckets(minutes: Integers, timeframe: Timeframe) -> Integers:
    """The open minute of the ``timeframe`` candle that each minute belongs to."""
    if timeframe is Timeframe.Month1:
        days = (minutes // DAY_MINUTES).astype("datetime64[D]")
        return days.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) * DAY_MINUTES
    # The epoch was a Thursday; weeks begin on Monday.
    shift = 3 * DAY_MINUTES if timeframe is Timeframe.Week1 else 0
    length = timeframe.minutes
    return (minutes + shift) // length * length - shift


def bucket_start(minute: int, timeframe: Timeframe) -> int:
    """The open minute of the ``timeframe`` candle that ``minute`` belongs to."""
    return int(_buckets(np.array([minute], np.int64), timeframe)[0])


def _mean_correction(restlessness: float) -> float:
    """What to take from the mood so that activity averages to 1: half its variance."""
    return restlessness**2 / (1 - _MEMORY**2) / 2


def _amount_decimals(each: Instrument) -> int:
    return 10 if each.is_coin_margined else 6


def _pump_offset(pump: Pump, times_ms: Floats) -> Floats:
    """What a pump adds to the log price: a fast rise, then a return by 40 % over several times its length."""
    peak = math.log1p(pump.size)
    progress = np.clip((times_ms - pump.start_ms) / pump.duration_ms, 0.0, 1.0)
    after = np.maximum(times_ms - pump.end_ms, 0.0) / (_PUMP_DECAY * pump.duration_ms)
    return peak * (1 - (1 - progress) ** 2) * (_PUMP_KEPT + (1 - _PUMP_KEPT) * np.exp(-after))
