"""Composition: a feed, an engine, and whoever wants to know.

:class:`Bot` is the program without its terminal. It owns no sockets and no clock; it is handed a ``dial``, a ``get``
and a clock, and so runs the same way live, against the local simulator, and in virtual time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.analysis import Analysis
from perpwatch.app.audit import Audit
from perpwatch.app.config import Config, load_config
from perpwatch.app.configured import adapter_for, universe_filter
from perpwatch.app.engine import Command, Engine, Mute, Step, SwapRules, Teach, Watch
from perpwatch.app.freshness import status_text
from perpwatch.app.messages import Dispatcher, Message, messages_of
from perpwatch.app.rules_file import RuleSources
from perpwatch.detect.rules import Rule
from perpwatch.detect.score import Scorer, read_model, shipped_model_text
from perpwatch.errors import ConfigurationError, ExchangeError
from perpwatch.exchanges.adapter import Adapter
from perpwatch.feed.connection import Clock, Retries, State, SystemClock, dial_with
from perpwatch.feed.heat import HotSet, heat
from perpwatch.feed.live import FeedSettings, LiveFeed
from perpwatch.feed.plan import Mode, parse_wish
from perpwatch.feed.ports import Dial, HttpGet
from perpwatch.feed.rest import Priority, http_over_network
from perpwatch.market.repair import REST_SETTLE_MS
from perpwatch.market.universe import Member, choose, turnovers
from perpwatch.model import (
    MINUTE_MS,
    Batch,
    Contract,
    ContractUpdate,
    Event,
    Kind,
    Signal,
    Stream,
    Ticker,
    stream_of_candles,
)

__all__ = ["AsyncMexcAnalysisBot", "Bot", "adapter_for"]

logger = logging.getLogger(__name__)

#: How often missing minutes are looked at.
REPAIR_EVERY_S = 1.0
#: How often silent failures are looked for; many times the two seconds between frames of the whole-market ticker.
LOOK_AGAIN_S = 30.0
#: Reads that may wait at once; beyond, repairs stay where they are merged and sorted.
MAX_READS_WAITING = 200
#: How often the rates of streams are measured and their connections balanced.
MEASURE_EVERY_S = 300.0
#: How often announced changes and unknown symbols are looked at.
LISTINGS_EVERY_S = 5.0
#: How often the trades subscriptions follow what happens, and over which minutes that is measured.
HEAT_EVERY_S, HEAT_MINUTES = 60.0, 5
MINUTES_A_DAY = 1_440
#: How often files of rules are looked at.
RULES_EVERY_S = 1.0
#: Signals, and alerts, that are kept at hand.
KEPT_FINDINGS = 1_000
#: Unknown symbols asked for by name at once; each costs a call.
STRANGERS_AT_ONCE = 5

#: Stands in for a contract that is no longer listed.
_GONE = Contract("", "", "", "", 0.0, is_trading=False)


def shipped_scorer() -> Scorer:
    """The score that comes with the program; without a usable model nothing is scored, and everything else works."""
    text = shipped_model_text()
    if text is None:
        return Scorer(None)
    try:
        return Scorer(read_model(text))
    except ConfigurationError as error:
        logger.warning("alerts have no score: %s", error)
        return Scorer(None)


def feed_settings(config: Config, adapter: Adapter) -> FeedSettings:
    websocket = config.websocket
    return FeedSettings(
        websocket_url=adapter.websocket_url,
        rest_url=adapter.rest_url,
        limits=adapter.limits,
        subscriptions_per_connection=websocket.planned_subscriptions_per_connection,
        wishes=[parse_wish(name) for name in websocket.subscription_types],
        mode=config.mode,
        ticker_interval_s=config.rest.ticker_interval,
        funding_interval_s=config.rest.funding_interval,
        explores_capacity=websocket.explore_capacity,
        retries=Retries(first_s=websocket.reconnect_delay, max_attempts=websocket.max_reconnect_attempts),
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the start has come."""

    contracts: int  # that the exchange lists
    watched: int
    warm: int  # whose history is loaded


class Pace(Protocol):
    """Whoever keeps what a bot finds, and may be full."""

    @property
    def has_room(self) -> bool: ...

    async def room(self) -> None:
        """Wait until there is room."""
        ...


class Bot:
    """Watches a market until told to stop.

    Args:
        jitter: random numbers in [0, 1) for back-off.
        on_step: told every batch and what it led to, in order.
        symbols: watch these instead of what the configured universe chooses.
    """

    def __init__(
        self,
        config: Config,
        adapter: Adapter,
        dial: Dial,
        get: HttpGet,
        clock: Clock,
        jitter: Callable[[], float],
        on_step: Callable[[Batch, Step], None] = lambda batch, step: None,
        *,
        symbols: Sequence[str] | None = None,
    ) -> None:
        self.config = config
        self.adapter = adapter
        self.clock = clock
        self._rule_sources = RuleSources(config)
        self.engine = Engine(
            Analysis(self._rule_sources.read(), shipped_scorer()),
            config.timeframes,
            is_intrabar=config.websocket.enable_real_time_analysis,
        )
        self.feed = LiveFeed(adapter, feed_settings(config, adapter), dial, get, clock, jitter)
        self.members: list[Member] = []
        self.signals: list[Signal] = []  # the newest, bounded
        self.alerts: list[Alert | MarketAlert] = []  # the newest, bounded
        self.audit = Audit()
        self.on_step = on_step
        self.pace: Pace | None = None  # of whoever keeps the batches
        self.on_command: Callable[[Command], None] = lambda command: None  # told what the engine is told, just before
        # Who writes what is found to a disk or database, and what is wrong with that; "" when nothing is.
        self.keepers: dict[str, Callable[[], str]] = {}
        self.on_ready: Callable[[], None] = lambda: None  # called when the market is known and the watch begins
        self.pinned = dict.fromkeys(config.universe.pins)  # symbols that are watched and served before all others
        self._symbols = symbols
        self._hot = HotSet(config.websocket.hot_moves_per_minute)
        self._untaught: dict[str, None] = {}  # symbols whose past new detectors have not seen
        self._changed: dict[str, Contract] = {}  # announced by the exchange, not taken over yet
        self._next_opening_ms: int | None = None  # when trading of a listed contract begins
        self._ghosts: dict[str, None] = {}  # symbols that tickers name and the exchange does not know
        self._contracts: dict[str, Contract] = {}
        self._rest_tickers: list[Ticker] = []
        self._rank: dict[str, int] = {}
        self._stopped = asyncio.Event()

    # --- Life -------------------------------------------------------------------------------------------------------

    async def run(self, duration_s: float | None = None) -> None:
        """Watch until :meth:`stop`, or for so many seconds.

        Raises:
            ExchangeError: something that trying again cannot mend.
        """
        try:
            async with asyncio.timeout(duration_s), asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch())
                await self._stopped.wait()
                watching.cancel()
        except TimeoutError:
            if duration_s is None:
                raise

    def stop(self) -> None:
        """End :meth:`run` soon."""
        self._stopped.set()

    async def _watch(self) -> None:
        async with self.feed:
            contracts, tickers = await self.feed.load_market()
            chosen = self._choose(contracts, tickers)
            unlisted = self.watch(chosen if self._symbols is None else self._symbols)
            if unlisted:
                logger.warning("the exchange does not list %s", ", ".join(unlisted))
            self.on_ready()
            runners = [self._digest(), self._repair(), self._follow_listings(), self._follow_rules(), self._measure()]
            if "deals" in self.config.websocket.subscription_types:
                runners.append(self._follow_heat())
            if self.config.mode is Mode.DUAL and self.config.rest.audit_share:
                runners.append(self._audit())
            await _first_of(*runners)

    async def _digest(self) -> None:
        self.feed.hand_over(self._take_at_once)
        async for batch in self.feed:
            self._take(batch)
            for _ in self.engine.warming():
                await asyncio.sleep(0)  # sockets are read meanwhile
            if self.pace is not None:
                await self.pace.room()

    def _take_at_once(self, batch: Batch) -> bool:
        """Take what is only to be analysed: a history wants to be learned, too, and a full keeper to be waited for."""
        if batch.source == "rest" or not (self.pace is None or self.pace.has_room):
            return False
        self._take(batch)
        return True

    def _take(self, batch: Batch) -> None:
        """Analyse a batch and pass on what it led to."""
        step = self.engine.take(batch)
        for symbol in step.outcome.broken:
            self.feed.heal(stream_of_candles(symbol))
        for symbol in step.outcome.healed:
            self.feed.healed(symbol)
        for event in step.events:
            if isinstance(event, ContractUpdate):
                self._changed[event.contract.symbol] = event.contract
        for signal in step.signals:
            self._hot.signalled(signal.symbol, signal.event_time_ms)
        self.tell(batch, step)

    def tell(self, batch: Batch, step: Step) -> None:
        """Keep what was found at hand, and pass it on."""
        if step.signals:
            self.signals.extend(step.signals)
            del self.signals[:-KEPT_FINDINGS]
        if step.alerts:
            self.alerts.extend(step.alerts)
            del self.alerts[:-KEPT_FINDINGS]
        self.on_step(batch, step)

    # --- Listings ---------------------------------------------------------------------------------------------------

    def _choose(self, contracts: Sequence[Contract], tickers: Sequence[Ticker]) -> list[str]:
        """Take over what the exchange lists; returns the symbols of the configured universe."""
        self._contracts = {contract.symbol: contract for contract in contracts}
        self._rest_tickers = list(tickers)
        now_ms = self.feed.now_ms()
        self.members = choose(
            contracts,
            tickers,
            dataclasses.replace(universe_filter(self.config), pins=tuple(self.pinned)),
            now_ms,
            self.engine.book.series.keys(),
            self.engine.activity.shares(),
        )
        openings = [contract.opening_time_ms for contract in contracts if contract.opening_time_ms > now_ms]
        self._next_opening_ms = min(openings, default=None)
        return [member.contract.symbol for member in self.members if member.is_watched]

    async def _follow_listings(self) -> None:
        """Begin and end the watch of contracts as the exchange lists, changes and delists them."""
        listed_s = self.clock.monotonic()
        while True:
            await asyncio.sleep(LISTINGS_EVERY_S)
            strangers = [
                symbol for symbol in self.engine.tickers if symbol not in self._contracts and symbol not in self._ghosts
            ]
            is_due = self.clock.monotonic() - listed_s >= self.config.rest.contracts_interval
            try:
                if is_due:
                    listed_s = self.clock.monotonic()
                    await self._read_listings()
                elif self._changed or strangers:
                    await self._take_changes(strangers)
                elif self._next_opening_ms is not None and self.feed.now_ms() >= self._next_opening_ms:
                    self._rewatch([*self._contracts.values()], self._rest_tickers)
            except ExchangeError as error:
                logger.warning("listings could not be read: %s", error)

    async def _read_listings(self) -> None:
        contracts, tickers = await self.feed.load_market()
        listed = {contract.symbol for contract in contracts}
        # The list is not complete: some contracts that trade are only told when asked for by name.
        for symbol in [symbol for symbol in self._contracts if symbol not in listed]:
            contract = await self.feed.load_contract(symbol)
            if contract is None:
                logger.info("%s is no longer listed", symbol)
            else:
                contracts = [*contracts, contract]
        self._ghosts.clear()
        self._rewatch(contracts, tickers)

    async def _take_changes(self, strangers: Sequence[str]) -> None:
        """Contracts that the exchange announced, and symbols that tickers name and the list does not."""
        changed, self._changed = self._changed, {}
        for symbol in strangers[:STRANGERS_AT_ONCE]:
            if symbol not in changed:
                contract = await self.feed.load_contract(symbol)
                if contract is None:
                    self._ghosts[symbol] = None
                else:
                    changed[symbol] = contract
        if any(self._contracts.get(symbol) != contract for symbol, contract in changed.items()):
            self._rewatch([*(self._contracts | changed).values()], self._rest_tickers)

    def _rewatch(self, contracts: Sequence[Contract], tickers: Sequence[Ticker]) -> None:
        listed_before = set(self._contracts)
        chosen = self._choose(contracts, tickers)
        now_ms = self.feed.now_ms()
        listed: list[Event] = [
            ContractUpdate(contract, now_ms) for contract in contracts if contract.symbol not in listed_before
        ]
        if listed:
            # Before it is watched, because what is watched is not new to the rules.
            self._take(Batch("rest", self.clock.time_ns(), 0, listed))
        if self._symbols is not None:
            chosen = [symbol for symbol in self.watched if self._contracts.get(symbol, _GONE).is_trading]
        before = set(self.watched)
        for symbol in chosen:
            if symbol not in before:
                logger.info("%s is watched from now on", symbol)
        for member in self.members:
            if member.contract.symbol in before and member.reason:
                logger.info("%s is watched no longer: %s", member.contract.symbol, member.reason)
        self.watch(chosen)

    # --- Rules ------------------------------------------------------------------------------------------------------

    @property
    def analysis(self) -> Analysis:
        return self.engine.analysis

    def swap_rules(self, rules: Sequence[Rule]) -> list[str]:
        """Put other rules in force, at once, and say what changed; what was learned and told is kept.

        Raises:
            ConfigurationError: they cannot be used, and nothing has changed.
        """
        changes = self._command(SwapRules(tuple(rules)))
        self._untaught = dict.fromkeys(self.engine.warm)
        return changes

    def silence(self, rules: Collection[str], symbols: Collection[str]) -> None:
        """Tell nothing of these rules and symbols from now on, and of no others; they go on to be judged."""
        self._command(Mute(tuple(sorted(rules)), tuple(sorted(symbols))))

    def _command(self, command: Command) -> list[str]:
        self.on_command(command)
        return self.engine.obey(command)

    async def _follow_rules(self) -> None:
        """Exchange the rules when their files change, and teach new detectors one symbol after the other."""
        while True:
            await asyncio.sleep(RULES_EVERY_S)
            try:
                rules = self._rule_sources.changed()
                for line in self.swap_rules(rules) if rules is not None else ():
                    logger.info("rules: %s", line)
            except ConfigurationError as error:
                logger.error("the rules stay as they were: %s", error)
            while self._untaught:
                self._command(Teach(self._untaught.popitem()[0]))
                await asyncio.sleep(0)  # a thousand symbols take seconds, and the watch goes on meanwhile

    # --- Repair and audit -------------------------------------------------------------------------------------------

    async def _repair(self) -> None:
        next_look_s = self.clock.monotonic() + LOOK_AGAIN_S
        while True:
            await asyncio.sleep(REPAIR_EVERY_S)
            if self.clock.monotonic() >= next_look_s:
                next_look_s = self.clock.monotonic() + LOOK_AGAIN_S
                self._look_again()
            if self.feed.reads_waiting < MAX_READS_WAITING:
                for span in self.engine.due_repairs(self._rank, self.feed.is_swept):
                    self.feed.read(span.symbol, span.start_ms, span.end_ms, Priority.REPAIR)

    def _look_again(self) -> None:
        """What fails without a word: a ticker topic that died on a living connection, a history that was given up."""
        heard_ms = self.engine.referee.as_of_ms
        if heard_ms and self.engine.now_ms - heard_ms > LOOK_AGAIN_S * 1_000:
            self.feed.heal(Stream(Kind.TICKERS))
        start_ms, end_ms = self.engine.history_window_ms(self.config.rest.history_minutes)
        for symbol in [symbol for symbol in self.feed.given_up if symbol not in self.engine.warm]:
            self.feed.read(symbol, start_ms, end_ms, Priority.HISTORY)

    async def _measure(self) -> None:
        """Count what each stream really brings, so that connections are loaded by it."""
        counted: dict[str, int] = {}
        while True:
            await asyncio.sleep(MEASURE_EVERY_S)
            pushes = {symbol: series.pushes for symbol, series in self.engine.book.series.items() if series.is_up}
            self.feed.measured(
                {
                    symbol: (count - counted[symbol]) / MEASURE_EVERY_S
                    for symbol, count in pushes.items()
                    if symbol in counted
                }
            )
            counted = pushes

    async def _follow_heat(self) -> None:
        """Have the trades of those symbols subscribed in which most is happening."""
        while True:
            await asyncio.sleep(HEAT_EVERY_S)
            turnover = turnovers(self._contracts.values(), self._rest_tickers)
            since_ms = self.engine.now_ms - (HEAT_MINUTES + 1) * MINUTE_MS
            heats: dict[str, float] = {}
            for symbol, series in self.engine.book.series.items():
                lately = series.minutes.column("turnover", series.minutes.place(since_ms + 1))
                heats[symbol] = heat(sum(lately), turnover.get(symbol, 0.0) * HEAT_MINUTES / MINUTES_A_DAY)
            places = self.feed.service.trade_places
            self.feed.follow(self._hot.choose(heats, tuple(self.pinned), places, self.engine.now_ms))

    async def _audit(self) -> None:
        """Read closed minutes of one symbol after the other back by REST, for ever, and compare.

        One request tells all minutes since the last audit of the symbol, so that in time every minute is verified.
        """
        share = self.config.rest.audit_share
        audited_ms: dict[str, int] = {}
        while True:
            for symbol in self.watched:
                await asyncio.sleep(1.0 / (share * self.config.rest.requests_per_second))
                series = self.engine.book.series.get(symbol)
                if self.feed.reads_waiting or series is None or not series.minutes or symbol in self.feed.sweep:
                    continue  # history, repairs and what has no stream come first
                kept_ms = series.minutes[0].open_time_ms
                start_ms = max(audited_ms.get(symbol, 0), series.watched_since_ms, kept_ms)
                end_ms = self.feed.now_ms() - REST_SETTLE_MS
                # The newest minutes are looked at once more next time, when REST has surely settled.
                if end_ms < start_ms + MINUTE_MS:
                    continue
                audited_ms[symbol] = end_ms - end_ms % MINUTE_MS - 2 * MINUTE_MS
                self.feed.read(symbol, start_ms, end_ms, Priority.AUDIT)
            await asyncio.sleep(0.1)

    def gap_reasons(self) -> dict[str, str]:
        """Why minutes of symbols are missing just now."""
        missing = {span.symbol for span in self.engine.repairs.open()}
        reasons = {symbol: self.engine.gap_reasons.get(symbol, "not proven quiet") for symbol in sorted(missing)}
        return reasons | {symbol: f"cannot be read: {reason}" for symbol, reason in self.feed.given_up.items()}

    @property
    def progress(self) -> Progress:
        return Progress(contracts=len(self.members), watched=len(self._rank), warm=len(self.engine.warm))

    def status_line(self) -> str:
        """The state of the watch in one line."""
        progress, status = self.progress, self.feed.pool.status()
        return (
            f"watching {progress.watched} contracts: {sum(one.state is State.OPEN for one in status)}/{len(status)} "
            f"connections, {self.engine.coverage():.1%} of the candle streams up, {progress.warm} warm, "
            f"{status_text(self)}, {self.engine.book.counters.pushes} candle pushes, {self.engine.signals} signals, "
            f"{self.engine.alerts} alerts, "
            f"{len(self.engine.repairs)} symbols with minutes to read back"
        )

    # --- What is watched --------------------------------------------------------------------------------------------

    @property
    def watched(self) -> list[str]:
        """Symbols: pins first, then the most traded."""
        return list(self._rank)

    def watch(self, symbols: Sequence[str]) -> list[str]:
        """Watch exactly these from now on; others that are watched already are not interrupted by it.

        Returns:
            Those of them that the exchange does not list.
        """
        contracts = [self._contracts[symbol] for symbol in symbols if symbol in self._contracts]
        turnover = turnovers(contracts, self._rest_tickers)
        pins = {symbol: place for place, symbol in enumerate(self.pinned)}
        contracts.sort(key=lambda one: (pins.get(one.symbol, len(pins)), -turnover[one.symbol], one.symbol))
        new = [contract.symbol for contract in contracts if contract.symbol not in self.engine.book.series]
        self._rank = {contract.symbol: rank for rank, contract in enumerate(contracts)}
        self._command(Watch(self.feed.now_ms(), contracts))
        self.feed.watch(contracts, turnover, tuple(self.pinned))
        start_ms, end_ms = self.engine.history_window_ms(self.config.rest.history_minutes)
        for symbol in new:
            self.feed.read(symbol, start_ms, end_ms, Priority.HISTORY)
        return [symbol for symbol in symbols if symbol not in self._contracts]

    def pin(self, symbol: str) -> None:
        """Serve a watched symbol before all others, as if it were the most traded."""
        self.pinned[symbol] = None
        self.watch(self.watched)

    def unpin(self, symbol: str) -> None:
        self.pinned.pop(symbol, None)
        self.watch(self.watched)


async def _first_of(*runners: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends, then end the others; an error of any of them is raised."""
    tasks = [asyncio.create_task(runner) for runner in runners]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class AsyncMexcAnalysisBot:
    """The bot under the name and with the arguments of the brief.

    Override ``_handle_kline_message``, ``_handle_ticker_message``, ``_handle_deals_message`` or ``_handle_signal``,
    plain or ``async``, to be told what happens.

    Args:
        timeframes: candles to analyse, for example ``["Min1", "Min5"]``.
        analysis_interval: seconds between status lines in the log.
        enable_websocket: False reads everything by REST (``mode = "rest"``); True is refused with that mode.
        config: settings to start from instead of the file and the environment.
    """

    def __init__(
        self,
        timeframes: Sequence[str] | None = None,
        analysis_interval: float | None = None,
        enable_websocket: bool | None = None,
        config: Config | None = None,
    ) -> None:
        overrides: dict[str, Any] = {}
        if timeframes is not None:
            overrides["timeframes"] = list(timeframes)
        if analysis_interval is not None:
            overrides["analysis_interval"] = analysis_interval
        if enable_websocket is not None:
            # True asks for sockets in whatever mode is configured, and is refused where that is REST alone.
            overrides["websocket"] = {"enabled": enable_websocket}
            if not enable_websocket:
                overrides["mode"] = Mode.REST
        self.config = load_config(None, overrides) if config is None else config.with_overrides(overrides)
        self.bot: Bot | None = None
        self._stopped = False
        self._dispatcher = Dispatcher(
            {
                "kline_*": self._handle_kline_message,
                "ticker": self._handle_ticker_message,
                "deals": self._handle_deals_message,
            }
        )

    async def run_async(self) -> None:
        """Watch until :meth:`stop`.

        Raises:
            ExchangeError: something that trying again cannot mend.
        """
        adapter = adapter_for(self.config)
        dial = dial_with(proxy=self.config.network.proxy, max_frame_bytes=adapter.limits.max_frame_bytes)
        async with http_over_network(proxy=self.config.network.proxy) as get:
            self.bot = Bot(self.config, adapter, dial, get, SystemClock(), random.Random().random, self._on_step)
            if self._stopped:
                return
            beside = [asyncio.create_task(self._dispatcher.run()), asyncio.create_task(self._report(self.bot))]
            try:
                await self.bot.run()
            finally:
                for task in beside:
                    task.cancel()

    def stop(self) -> None:
        """End :meth:`run_async` soon."""
        self._stopped = True
        if self.bot is not None:
            self.bot.stop()

    def _handle_kline_message(self, message: Message) -> Any:
        """A candle moved; ``message.channel`` says which timeframe."""

    def _handle_ticker_message(self, message: Message) -> Any:
        """The state of a contract changed."""

    def _handle_deals_message(self, message: Message) -> Any:
        """Trades happened; only when ``deals`` is among the subscription types."""

    def _handle_signal(self, signal: Signal) -> Any:
        """Something unusual was found."""

    def _on_step(self, batch: Batch, step: Step) -> None:
        assert self.bot is not None
        for message in messages_of(batch, self.bot.engine.book, frozenset(self.config.websocket.subscription_types)):
            self._dispatcher.put(message)
        for signal in step.signals:
            self._dispatcher.call(self._handle_signal, signal)

    async def _report(self, bot: Bot) -> None:
        while True:
            await asyncio.sleep(self.config.analysis_interval)
            logger.info("%s", bot.status_line())
