"""The exchange as one iterator of batches: sockets for what is new, REST for what was before or was missed.

Nobody above knows where a batch came from. Whoever consumes says what to watch (:meth:`LiveFeed.watch`), what to read
back (:meth:`LiveFeed.read`) and which stream is mute (:meth:`LiveFeed.heal`); everything comes out of the iterator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

from perpwatch.errors import ApiError, ExchangeError, RateLimited, retry_delay
from perpwatch.exchanges.adapter import Adapter, Limits
from perpwatch.feed.connection import Clock, Retries, State
from perpwatch.feed.exchange_clock import ExchangeClock
from perpwatch.feed.ladder import Ladder, Step
from perpwatch.feed.outbox import Outbox
from perpwatch.feed.plan import Mode, Service, Wish, serve
from perpwatch.feed.pool import Pool
from perpwatch.feed.ports import Dial, HttpGet
from perpwatch.feed.rest import Priority, RestClient
from perpwatch.feed.sweep import SETTLE_MS, Row, Sweep
from perpwatch.model import (
    MINUTE_MS,
    Batch,
    Candle,
    CandleHistory,
    Contract,
    Event,
    Kind,
    Stream,
    Ticker,
    Tickers,
    Timeframe,
    stream_of_candles,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Reads under way at once. The budget paces them; this only hides the latency of the answers.
READERS = 4
#: A read that failed this often is given up and reported; whoever still wants it asks again.
MAX_READ_TRIES = 6
#: Share of the latest count in a symbol's measured rate.
MEASURED_SHARE = 0.3
#: Minutes that are read again before those that are not known: one request costs the same for any number.
SWEEP_BACK_MS = 5 * MINUTE_MS
#: Reads of the sweep under way at once, and how long one waits when nothing is to be read.
SWEEPERS, SWEEP_PAUSE_S = 4, 0.05
#: The whole-market ticker is read this often, but never takes more than this share of the requests.
CYCLE_S, CYCLE_SHARE = 6.0, 0.05
#: How often streams are looked for that are down, and how long one may be down before REST takes its symbol over.
LOOK_EVERY_S, TAKE_OVER_AFTER_S = 2.0, 15.0


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """What a feed needs to know besides the exchange."""

    websocket_url: str
    rest_url: str
    limits: Limits
    subscriptions_per_connection: int  # used by the plan; below the limit, to leave room
    wishes: Sequence[Wish]
    mode: Mode = Mode.DUAL
    retries: Retries = field(default_factory=Retries)
    ticker_interval_s: float = 60.0  # between readings of the whole-market ticker by REST; 0 for none beside the sweep
    funding_interval_s: float = 300.0  # between readings of all funding rates; 0 for none
    explores_capacity: bool = False  # ask connections for more than planned, up to the limit, while symbols are polled

    @property
    def use_websocket(self) -> bool:
        return self.mode is not Mode.REST


@dataclass(order=True, slots=True)
class _Read:
    """Minutes to read back; compared by what is most urgent."""

    priority: Priority
    rank: int  # 0 is the most important symbol
    start_ms: int = field(compare=False)
    end_ms: int = field(compare=False)
    contract: Contract = field(compare=False)
    tries: int = field(compare=False, default=0)


@dataclass(frozen=True, slots=True)
class _Tail:
    """The end of an answer: up to when it told everything, and its rows of minutes that had not ended by then."""

    until_ms: int
    open_rows: tuple[Candle, ...]


class LiveFeed:
    """One exchange, live. Use as ``async with feed`` and ``async for batch in feed``."""

    def __init__(
        self,
        adapter: Adapter,
        settings: FeedSettings,
        dial: Dial,
        get: HttpGet,
        clock: Clock,
        jitter: Callable[[], float],
    ) -> None:
        self.exchange_clock = ExchangeClock()
        self._outbox = Outbox()
        self.rest = RestClient(settings.rest_url, get, clock, settings.limits.requests_per_second)
        self.pool = Pool(
            settings.websocket_url,
            adapter,
            settings.limits,
            settings.subscriptions_per_connection,
            dial,
            clock,
            jitter,
            self._deliver,
            settings.retries,
            lambda: self.now_ms() if self.exchange_clock.is_set else 0,
            turns=self._outbox.turns,
            explores=settings.explores_capacity,
        )
        self.pool.on_limit = self._serve
        self.ladder = Ladder()
        self.sweep = Sweep()
        self.taken_over: dict[str, int] = {}  # symbols whose stream is down, and up to when it told everything
        self._measured: dict[Stream, float] = {}  # messages a second, of streams that were counted
        self.service = Service({}, {}, (), ())
        self.given_up: dict[str, str] = {}  # symbols whose read failed for good, with the reason
        self._adapter = adapter
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._reads: asyncio.PriorityQueue[_Read] = asyncio.PriorityQueue()
        self._reading: dict[str, _Read] = {}
        self._contracts: dict[str, Contract] = {}
        self._turnover_24h: dict[str, float] = {}
        self._rank: dict[str, int] = {}
        self._hot: tuple[str, ...] = ()  # symbols whose trades are wanted most
        self._tasks: list[asyncio.Task[None]] = []
        self._down_since: dict[str, tuple[float, int]] = {}  # candle streams that are down: since when, in both clocks
        self._tails: dict[str, _Tail] = {}  # of the last answer about each symbol

    # --- Life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        runners = [self._read_on() for _ in range(READERS)] + [self._sweep_on() for _ in range(SWEEPERS)]
        runners += [self._hear_on(), self._look_on(), self._read_funding_on()]
        if self._settings.use_websocket:
            runners.append(self.pool.run())
        self._tasks = [asyncio.create_task(runner) for runner in runners]
        for task in self._tasks:
            task.add_done_callback(self._on_task_done)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._outbox.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._outbox.close()  # the iterator ends, and then says why

    def hand_over(self, at_once: Callable[[Batch], bool]) -> None:
        """While whoever iterates waits, have what sockets read digested by ``at_once`` from within the read.

        It returns whether it did; what it leaves comes out of the iterator, which also raises what it raises.
        """
        self._outbox.at_once = at_once

    async def __aiter__(self) -> AsyncIterator[Batch]:
        while batches := await self._outbox.take():
            for batch in batches:
                yield batch
            await asyncio.sleep(0)  # a reader that is always behind must not keep the others from running
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    # --- What there is to watch -------------------------------------------------------------------------------------

    async def load_contract(self, symbol: str) -> Contract | None:
        """One contract, also when the list does not show it; None when the exchange does not know it.

        Raises:
            ExchangeError: no usable answer, so nothing is known.
        """
        try:
            return await self.rest.fetch(self._adapter.contract(symbol), Priority.CONTROL)
        except ApiError:
            return None

    async def load_market(self) -> tuple[Sequence[Contract], Sequence[Ticker]]:
        """All contracts and the state of each, tried until the exchange answers."""
        server_ms = await self._insist(lambda: self.rest.fetch(self._adapter.server_time(), Priority.CONTROL))
        self.exchange_clock.observe(server_ms, self._clock.monotonic())
        contracts = await self._insist(lambda: self.rest.fetch(self._adapter.contracts(), Priority.CONTROL))
        tickers = await self._insist(lambda: self.rest.fetch(self._adapter.tickers(), Priority.CONTROL))
        return contracts, tickers

    async def _insist(self, fetch: Callable[[], Awaitable[T]]) -> T:
        attempt = 0
        while True:
            try:
                return await fetch()
            except ExchangeError as error:
                attempt += 1
                delay_s = retry_delay(error, attempt, self._jitter())
                if delay_s is None:
                    raise
                logger.warning("%s; next try in %.1f s", error, delay_s)
                await asyncio.sleep(delay_s)

    def watch(
        self, contracts: Sequence[Contract], turnover_24h: Mapping[str, float], pins: Collection[str] = ()
    ) -> None:
        """Watch exactly these contracts from now on; what stays is not interrupted.

        Args:
            contracts: the most important first; in this order they are given places and read back.
            pins: symbols that are read as often as the most active, where REST serves them.
        """
        before, self._contracts = self._contracts, {contract.symbol: contract for contract in contracts}
        for symbol in before.keys() - self._contracts.keys():
            self.ladder.forget(symbol)
            self._down_since.pop(symbol, None)
            self.taken_over.pop(symbol, None)
            self._tails.pop(symbol, None)
        self.given_up = {symbol: reason for symbol, reason in self.given_up.items() if symbol in self._contracts}
        self._turnover_24h = {symbol: turnover_24h.get(symbol, 0.0) for symbol in self._contracts}
        self._rank = {symbol: rank for rank, symbol in enumerate(self._contracts)}
        self.sweep.pin(pins)
        self._serve()

    def _serve(self) -> None:
        capacity = self.pool.capacity if self._settings.use_websocket else 0
        self.service = serve(self._turnover_24h, self._settings.wishes, capacity, self._hot)
        self.pool.is_short = bool(self.service.polled or self.service.untold_trades)
        self.pool.want({stream: self._measured.get(stream, rate) for stream, rate in self.service.rates.items()})
        self._choose_sweep()

    @property
    def polled(self) -> list[str]:
        """Symbols whose candles REST reads: no room on the sockets, stream refused, or taken over while it is down."""
        refused = [stream.symbol for stream in self.pool.refused if stream.kind is Kind.CANDLES]
        return list(dict.fromkeys([*self.service.polled, *refused, *self.taken_over]))

    def _choose_sweep(self) -> None:
        if self.exchange_clock.is_set:
            # Whoever has no history yet gets it from a read of its own; the sweep goes on from there.
            tails = self._tails
            known_ms = {
                symbol: max(self.taken_over.get(symbol, 0), tails[symbol].until_ms) if symbol in tails else 0
                for symbol in self.polled
                if symbol in self._contracts
            }
            self.sweep.watch(known_ms, self.now_ms())

    def follow(self, hot: Sequence[str]) -> None:
        """Subscribe the trades of these symbols before those of others, hottest first."""
        if tuple(hot) != self._hot:
            self._hot = tuple(hot)
            self._serve()

    def measured(self, rates: Mapping[str, float]) -> None:
        """Take the candle pushes a second of each symbol as they were counted, and spread the load by them."""
        for symbol, rate in rates.items():
            stream = stream_of_candles(symbol)
            before = self._measured.get(stream, rate)
            self._measured[stream] = before + MEASURED_SHARE * (rate - before)
        self._measured = {stream: rate for stream, rate in self._measured.items() if stream.symbol in self._contracts}
        self._serve()
        self.pool.handicaps.measure({one.source: one.failures for one in self.pool.status()})
        self.pool.rebalance()

    def heal(self, stream: Stream) -> None:
        """Do something about a stream that is mute although its symbol trades; see :mod:`perpwatch.feed.ladder`."""
        source = next(
            (
                one.source
                for one in self.pool.connections.values()
                if one.session is not None and stream in one.session.confirmed
            ),
            None,
        )
        if source is None:
            return  # its connection is on the way back already
        streams = len(self.pool.connections[source].wanted)
        step = self.ladder.step_for(stream.symbol, source, streams, self.now_ms())
        if step is None:
            return
        logger.warning("%s is mute on %s although there is trading: %s", stream, source, step)
        if step is Step.MOVE and not self.pool.move(stream):
            step = Step.RESUBSCRIBE  # nowhere to go
        if step is Step.RESUBSCRIBE:
            self.pool.connections[source].resubscribe(stream)
        elif step is Step.REPLACE:
            self.pool.replace_connection(source, "mute although its symbols trade")

    def healed(self, symbol: str) -> None:
        """A stream that was mute has delivered again."""
        step = self.ladder.spoke(symbol)
        if step is not None:
            logger.info("%s speaks again; what helped: %s", symbol, step)

    # --- Reading back -----------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The exchange's time."""
        return self.exchange_clock.now_ms(self._clock.monotonic())

    def read(self, symbol: str, start_ms: int, end_ms: int, priority: Priority) -> None:
        """Have minutes of a symbol read back; a request that is still queued for it is widened instead."""
        contract = self._contracts.get(symbol)
        if contract is None:
            return
        waiting = self._reading.get(symbol)
        if waiting is not None:
            waiting.start_ms, waiting.end_ms = min(waiting.start_ms, start_ms), max(waiting.end_ms, end_ms)
            return
        read = self._reading[symbol] = _Read(priority, self._rank.get(symbol, 0), start_ms, end_ms, contract)
        self._reads.put_nowait(read)

    @property
    def reads_waiting(self) -> int:
        return len(self._reading)

    async def _read_on(self) -> None:
        while True:
            read = await self._reads.get()
            if read.contract.symbol in self._contracts:
                await self._read_once(read)
            else:
                self._reading.pop(read.contract.symbol, None)

    async def _read_once(self, read: _Read) -> None:
        symbol = read.contract.symbol
        self._reading.pop(symbol, None)
        try:
            await self._fetch(read)
        except ApiError as error:
            self._give_up(symbol, error)
        except ExchangeError as error:
            await self._read_later(read, error)

    async def _fetch(self, read: _Read) -> None:
        symbol, asked_ms = read.contract.symbol, self.now_ms()
        # A history that waited long for its turn tells the minutes of the wait as well.
        end_ms = max(read.end_ms, asked_ms) if read.priority is Priority.HISTORY else read.end_ms
        # Older than this the exchange has nothing, and one answer holds no more.
        start_ms = max(read.start_ms, end_ms - self._settings.limits.max_candles_per_request * MINUTE_MS)
        request = self._adapter.candles(read.contract, Timeframe.Min1, start_ms, end_ms)
        history = await self.rest.fetch(request, read.priority)
        self.given_up.pop(symbol, None)
        until_ms = min(asked_ms - SETTLE_MS, history.complete_to_ms)
        is_joined = self.sweep.answered(symbol, history.complete_from_ms, until_ms, asked_ms)
        if is_joined and (symbol not in self._tails or until_ms > self._tails[symbol].until_ms):
            open_rows = tuple(candle for candle in history.candles[-2:] if candle.close_time_ms > until_ms)
            self._tails[symbol] = _Tail(until_ms, open_rows)
        await self._put(asked_ms, [history])

    def _give_up(self, symbol: str, error: ExchangeError) -> None:
        self.given_up[symbol] = str(error)
        logger.warning("%s: minutes cannot be read: %s", symbol, error)

    async def _read_later(self, read: _Read, error: ExchangeError) -> None:
        read.tries += 1
        if read.tries >= MAX_READ_TRIES:
            self._give_up(read.contract.symbol, error)
            return
        # The client has paused all calls already; waiting here as well would only idle a reader.
        delay_s = 0.0 if isinstance(error, RateLimited) else retry_delay(error, read.tries, self._jitter())
        self._reading.setdefault(read.contract.symbol, read)
        await asyncio.sleep(delay_s or 0.0)
        self._reads.put_nowait(read)

    # --- The sweep --------------------------------------------------------------------------------------------------

    async def _sweep_on(self) -> None:
        """Read the symbols that REST serves, whoever needs it most first."""
        while True:
            # Chosen late: what waits for its turn grows old, and another may need it more by then.
            symbol = self.sweep.next(self.now_ms()) if self.sweep and not self.rest.waiting else None
            contract = self._contracts.get(symbol) if symbol is not None else None
            if symbol is None or contract is None:
                await asyncio.sleep(SWEEP_PAUSE_S)
                continue
            now_ms, known_ms = self.now_ms(), self.sweep.known_ms(symbol)
            start_ms = known_ms - known_ms % MINUTE_MS - SWEEP_BACK_MS
            read = _Read(Priority.POLL, self._rank.get(symbol, 0), start_ms, now_ms, contract)
            try:
                await self._fetch(read)
            except ApiError as error:
                self._give_up(symbol, error)
                self.sweep.failed(symbol, self.now_ms(), is_final=True)
            except ExchangeError as error:
                logger.debug("%s: %s", symbol, error)
                self.sweep.failed(symbol, self.now_ms())

    async def _hear_on(self) -> None:
        """Read the whole-market ticker: often while the sweep must know who traded, else at the configured pace."""
        read_s = self._clock.monotonic()
        while True:
            await asyncio.sleep(max(CYCLE_S, 1.0 / (CYCLE_SHARE * self.rest.rate)))
            every_s = self._settings.ticker_interval_s
            is_due = every_s > 0.0 and self._clock.monotonic() - read_s >= every_s
            if not self.sweep and not is_due:
                continue
            read_s = self._clock.monotonic()
            asked_ms = self.now_ms()
            try:
                tickers = await self.rest.fetch(self._adapter.tickers(), Priority.CONTROL)
            except ExchangeError as error:
                logger.debug("%s", error)
                continue
            # Open interest, funding and best prices come this way alone, so the rows are of use beside the stream, too.
            events: list[Event] = [*self._infer(tickers, asked_ms), Tickers(tickers, asked_ms)]
            await self._put(asked_ms, events)

    async def _read_funding_on(self) -> None:
        """Read the funding rates of all contracts now and then, in one call."""
        while self._settings.funding_interval_s > 0.0:
            await asyncio.sleep(self._settings.funding_interval_s)
            asked_ms = self.now_ms()
            try:
                rates = await self.rest.fetch(self._adapter.funding_rates(), Priority.AUDIT)
            except ExchangeError as error:
                logger.debug("funding rates: %s", error)
            else:
                known = [rate for rate in rates if rate.symbol in self._contracts]
                await self._put(asked_ms, known)

    def _infer(self, tickers: Sequence[Ticker], asked_ms: int) -> Iterator[CandleHistory]:
        """Minutes that have ended without a trade since the last answer: reading them would tell the same again."""
        rows: dict[str, Row] = {}
        turnover: dict[str, float] = {}
        for ticker in tickers:
            contract = self._contracts.get(ticker.symbol)
            if contract is not None and ticker.contracts_24h is not None and ticker.amount_24h is not None:
                rows[ticker.symbol] = Row(ticker.contracts_24h, ticker.amount_24h, ticker.last_price)
                turnover[ticker.symbol] = contract.turnover(ticker.contracts_24h, ticker.amount_24h)
        for symbol in self.sweep.hear(rows, turnover, asked_ms, self.now_ms()):
            known_ms = self.sweep.known_ms(symbol)
            tail = self._tails.get(symbol)
            if tail is None:
                continue
            first_ms, end_ms = tail.until_ms - tail.until_ms % MINUTE_MS, known_ms - known_ms % MINUTE_MS
            if end_ms > first_ms:
                yield CandleHistory(symbol, tail.open_rows, first_ms, end_ms, is_inferred=True)
                self._tails[symbol] = _Tail(known_ms, ())

    async def _look_on(self) -> None:
        """Find candle streams that are down, and let REST take over their symbols until they are back."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._settings.mode is Mode.DUAL and self.exchange_clock.is_set:
                self._take_over()
            self._choose_sweep()

    def _take_over(self) -> None:
        confirmed = {
            stream.symbol
            for one in self.pool.connections.values()
            if one.state is State.OPEN and one.session is not None
            for stream in one.session.confirmed
            if stream.kind is Kind.CANDLES
        }
        wanted = {stream.symbol for stream in self.service.rates if stream.kind is Kind.CANDLES}
        now_s, now_ms = self._clock.monotonic(), self.now_ms()
        self._down_since = {
            symbol: self._down_since.get(symbol, (now_s, now_ms - round(LOOK_EVERY_S * 1_000)))
            for symbol in wanted - confirmed
        }
        before = len(self.taken_over)
        self.taken_over = {
            symbol: since_ms
            for symbol, (since_s, since_ms) in self._down_since.items()
            if now_s - since_s >= TAKE_OVER_AFTER_S
        }
        if len(self.taken_over) != before:
            logger.info("REST reads %d symbols whose streams are down", len(self.taken_over))

    @property
    def uses_websocket(self) -> bool:
        return self._settings.use_websocket

    def is_swept(self, symbol: str, start_ms: int) -> bool:
        """Whether the sweep will read a symbol from this time on by itself."""
        known_ms = self.sweep.known_ms(symbol)
        return known_ms > 0 and known_ms - known_ms % MINUTE_MS - SWEEP_BACK_MS <= start_ms

    def _deliver(self, batch: Batch) -> None:
        """Hand on what a connection has read."""
        if batch.watermark_ms:
            lag_ms = self.exchange_clock.observe(batch.watermark_ms, self._clock.monotonic())
            self.pool.handicaps.observe(batch.source, lag_ms)
        self._outbox.put(batch)

    async def _put(self, asked_ms: int, events: Sequence[Event]) -> None:
        """Hand on an answer, when there is room for it."""
        batch = Batch("rest", self._clock.time_ns(), asked_ms, events)
        await self._outbox.room()
        self._outbox.put(batch)
