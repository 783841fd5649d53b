"""The other end of the wire: sessions, subscriptions, pushes, limits and faults, without sockets and without a clock.

A transport connects a :class:`Session`, hands it what the client says, lets time pass with
:meth:`SimulatedExchange.advance` and carries away what the session has to say. Time passes in steps of 50 ms whatever
the transport asks for, so the same seed and the same commands at the same times give the same bytes.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

import msgspec

from perpwatch.errors import ConnectionFailed
from perpwatch.model import MINUTE_MS, Timeframe
from perpwatch.sim import frames
from perpwatch.sim.book import Book, Change
from perpwatch.sim.faults import MALFORMED, FaultEvent, Faults, HangUp, Refusal
from perpwatch.sim.frames import Spelling
from perpwatch.sim.market import Listing, MarketCandle, MarketTrade, Pump, SimulatedMarket, bucket_start
from perpwatch.sim.rest import Answer, RestDesk

STEP_MS = 50
TICKERS_MS = 2_000
TICKER_MS = 1_000
KLINE_MS = 250  # between two pushes of one candle: about four a second
DEALS_MS = 100
DEPTH_MS = 200
DEPTH_FULL_MS = 300
QUIET_DEPTH_FULL_MS = 5_000
REFERENCE_MS = 1_000
FUNDING_MS = 60_000
TIMERS_MS = 500

HEARTBEAT_TEXT = "more than 60 seconds no response, close the channel"
INTERVAL_TEXT = "Not support interval"
LIMIT_TEXT = "Subscription limit exceeded"
COMMANDS_TEXT = "Requests are too frequent"
REFUSED_TEXT = "Subscription failed"
PARAMETER_TEXT = "Parameter error"

_SYMBOL_CHANNELS = frozenset(
    ("ticker", "deal", "depth", "depth.full", "depth.step", "kline", "funding.rate", "index.price", "fair.price")
)
_MARKET_CHANNELS = frozenset(("tickers", "contract", "event.contract"))
_REFERENCE_CHANNELS = frozenset(("funding.rate", "index.price", "fair.price"))
_FULL_LIMITS = (5, 10, 20, 50)


class Topic(msgspec.Struct, frozen=True, gc=False):
    """What one subscription asks for."""

    channel: str
    symbol: str = ""
    parameter: str = ""

    def is_hit_by(self, target: str) -> bool:
        """Whether a fault aimed at ``target`` (a symbol, a channel, or both) concerns this topic."""
        return target in ("", "all", self.symbol, self.channel, f"{self.channel}:{self.symbol}")


TICKERS = Topic("tickers")


@dataclass(frozen=True, slots=True)
class Closing:
    """How the server hangs up. ``code`` is None for a close frame without status."""

    code: int | None
    is_abrupt: bool = False

    @property
    def seen_code(self) -> int:
        """The code the client's library reports."""
        return 1006 if self.is_abrupt else 1005 if self.code is None else self.code


_CLOSINGS: dict[HangUp, Closing] = {
    "1001": Closing(1001),
    "1005": Closing(None),
    "abrupt": Closing(None, is_abrupt=True),
}


@dataclass(eq=False, slots=True)
class Session:
    """One client's connection as the exchange sees it. Transports use ``receive``, ``take`` and ``closing``."""

    exchange: SimulatedExchange
    number: int
    opened_ms: int
    last_ping_ms: int
    random: Random
    topics: dict[Topic, None] = field(default_factory=dict)
    closing: Closing | None = None  # set once the server has hung up
    half_open_until_ms: float = 0.0  # nothing is said before
    max_topics: int = 0
    max_commands_per_second: int = 0
    commands: int = 0
    _outbox: list[bytes] = field(default_factory=list)
    _delayed: list[tuple[int, int, bytes]] = field(default_factory=list)
    _sequence: int = 0
    _recent_commands: deque[int] = field(default_factory=deque)

    def receive(self, text: str | bytes, now_ms: int) -> None:
        """The client said something."""
        if self.closing is None:
            self.exchange.receive(self, text, now_ms)

    def take(self) -> list[bytes]:
        """What is to be sent, in order. Frames that :func:`~perpwatch.sim.frames.is_binary` travel as binary."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def say(self, frame: bytes, now_ms: int) -> None:
        if self.closing is None and now_ms >= self.half_open_until_ms:
            self._outbox.append(frame)

    def say_later(self, frame: bytes, due_ms: int) -> None:
        self._sequence += 1
        heapq.heappush(self._delayed, (due_ms, self._sequence, frame))

    def say_due(self, now_ms: int) -> None:
        while self._delayed and self._delayed[0][0] <= now_ms:
            self.say(heapq.heappop(self._delayed)[2], now_ms)

    def count_command(self, now_ms: int) -> int:
        """Note one command; how many there were within the last second."""
        recent = self._recent_commands
        recent.append(now_ms)
        while recent[0] <= now_ms - 1_000:
            recent.popleft()
        self.commands += 1
        self.max_commands_per_second = max(self.max_commands_per_second, len(recent))
        return len(recent)


@dataclass(slots=True)
class Counters:
    """What has happened so far."""

    connections: int = 0  # accepted
    max_connections: int = 0  # open at once
    refused_dials: int = 0
    dial_times_ms: list[int] = field(default_factory=list)  # accepted or not
    max_subscriptions: int = 0  # of one connection
    max_commands_per_second: int = 0  # of one connection
    commands: int = 0
    unknown_commands: int = 0
    frames: int = 0  # data frames before faults, one for each subscriber
    heartbeat_closes: int = 0
    events: int = 0  # dated faults that took place


@dataclass(slots=True)
class _Desk:
    """What is pending for one symbol that somebody watches."""

    listing: Listing
    klines: list[Topic] = field(default_factory=list)
    others: dict[str, list[Topic]] = field(default_factory=dict)  # by channel
    deals: list[MarketTrade] = field(default_factory=list)
    has_traded: bool = False  # since the last kline push
    is_ticker_due: bool = False
    is_depth_due: bool = False
    is_full_due: bool = False
    next_kline_ms: int = 0
    next_ticker_ms: int = 0
    next_full_ms: int = 0
    rollups: dict[Timeframe, tuple[int, MarketCandle | None]] = field(default_factory=dict)
    last_klines: dict[Topic, tuple[int, bytes]] = field(default_factory=dict)  # open time and frame


@dataclass(frozen=True, slots=True)
class _Silence:
    target: str
    until_ms: float


class SimulatedExchange:
    """An exchange over ``market``.

    Args:
        market: what is traded; the exchange is the only one who advances it.
        faults: how it misbehaves; can be replaced while it runs, see :meth:`set_faults`.
        seed: of the faults; the market has its own.
    """

    def __init__(self, market: SimulatedMarket, faults: Faults | None = None, seed: int = 0) -> None:
        self.market = market
        self.faults = Faults()
        self.counters = Counters()
        self.now_ms = market.now_ms
        self.rest = RestDesk(self, Random(f"rest {seed}"))
        self.sessions: list[Session] = []
        self._seed = seed
        self._random = Random(f"exchange {seed}")
        self._step_ms = market.now_ms // STEP_MS * STEP_MS
        self._subscribers: dict[Topic, dict[Session, None]] = {}
        self._desks: dict[str, _Desk] = {}
        self._active: dict[str, None] = {}  # desks with something pending
        self._changed: dict[int, None] = {}  # rows of the market that tickers owe
        self._fresh: list[tuple[Session, Topic]] = []  # subscribed since the last step
        self._references: dict[Topic, None] = {}  # subscribed topics that are pushed by the clock
        self._books: dict[str, Book] = {}
        self._silences: list[_Silence] = []
        self._events: list[tuple[int, int, FaultEvent]] = []
        self._event_number = 0
        self._down_until_ms = 0.0
        self._hanging_up_until_ms = 0.0
        self._is_plain = True
        self.set_faults(faults or Faults())

    # Faults

    def set_faults(self, faults: Faults) -> None:
        """Replace the faults; dated events that are new are scheduled, those known stay as they are."""
        known = set(self.faults.events)
        self.faults = faults
        for event in faults.events:
            if event not in known:
                self.schedule(event)
        self._judge()

    def schedule(self, event: FaultEvent) -> None:
        """Let ``event`` happen at its time, or at the next step when that has passed."""
        self._event_number += 1
        heapq.heappush(self._events, (event.at_ms, self._event_number, event))

    @property
    def is_down(self) -> bool:
        return self.now_ms < self._down_until_ms

    # Connections

    def connect(self, now_ms: int, url: str = "/edge") -> Session:
        """A client dials.

        Raises:
            ConnectionFailed: the exchange is down, has too many connections or moved; a closed line has no ``status``.
        """
        self.counters.dial_times_ms.append(now_ms)
        if now_ms < self._down_until_ms:
            self.counters.refused_dials += 1
            raise ConnectionFailed(url, "connection refused")
        if urlsplit(url).path == "/ws":
            # The address of before 2024 redirects to a page.
            raise ConnectionFailed(url, "HTTP 301", status=301)
        limit = self.faults.max_connections
        if limit is not None and len(self.sessions) >= limit:
            self.counters.refused_dials += 1
            match self.faults.dial_refusal:
                case "close":
                    raise ConnectionFailed(url, "closed before the upgrade")
                case "403":
                    raise ConnectionFailed(url, "HTTP 403", status=403)
                case "429":
                    raise ConnectionFailed(url, "HTTP 429", status=429, retry_after_s=float(self.faults.retry_after_s))
        counters = self.counters
        counters.connections += 1
        number = counters.connections
        session = Session(self, number, now_ms, now_ms, Random(f"session {self._seed} {number}"))
        self.sessions.append(session)
        counters.max_connections = max(counters.max_connections, len(self.sessions))
        return session

    def disconnect(self, session: Session) -> None:
        """The line to the client is gone, whoever ended it."""
        if session.closing is None:
            session.closing = Closing(1000)
        self._forget(session)

    # Commands

    def receive(self, session: Session, text: str | bytes, now_ms: int) -> None:
        """Obey or refuse one frame of a client. What is not a known command is met with silence."""
        counters = self.counters
        counters.commands += 1
        recent = session.count_command(now_ms)
        counters.max_commands_per_second = max(counters.max_commands_per_second, recent)
        if now_ms < self._hanging_up_until_ms:
            self._hang_up(session, "1001")
            return
        limit = self.faults.max_commands_per_second
        if limit is not None and recent > limit:
            self._refuse(session, self.faults.limit_refusal, COMMANDS_TEXT, now_ms)
            return
        try:
            command = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            counters.unknown_commands += 1
            return
        method = command.get("method") if isinstance(command, dict) else None
        if not isinstance(method, str):
            counters.unknown_commands += 1
            return
        if method == "ping":
            session.last_ping_ms = now_ms
            session.say(frames.pong(now_ms), now_ms)
            return
        verb, _, channel = method.partition(".")
        if verb not in ("sub", "unsub") or channel not in _SYMBOL_CHANNELS | _MARKET_CHANNELS:
            counters.unknown_commands += 1
            return
        parameters = command.get("param")
        parameters = parameters if isinstance(parameters, dict) else {}
        if verb == "unsub":
            self._unsubscribe(session, channel, parameters, now_ms)
        else:
            self._subscribe(session, channel, parameters, now_ms)

    # Time

    def advance(self, now_ms: int) -> None:
        """Let the market and all timers run up to ``now_ms``, in whole steps; sessions then have something to say."""
        while self._step_ms + STEP_MS <= now_ms:
            self._step_ms += STEP_MS
            self._step(self._step_ms)
        self.now_ms = max(self.now_ms, now_ms)

    def get(self, path: str, params: dict[str, str], now_ms: int) -> Answer:
        """Answer a REST call. ``path`` begins with ``/api/v1/contract/``."""
        self.advance(now_ms)
        return self.rest.get(path, params, now_ms)

    def book(self, listing: Listing) -> Book:
        """The order book of a contract, made when it is first asked for."""
        book = self._books.get(listing.symbol)
        if book is None:
            each = listing.instrument
            book = Book(Random(f"book {self._seed} {each.key}"), each.price_scale, each.key)
            book.move(listing.last_price)
            self._books[listing.symbol] = book
        return book

    def silenced(self) -> list[str]:
        """Targets whose data is held back at the moment."""
        return [silence.target for silence in self._silences]

    # Subscriptions

    def _subscribe(self, session: Session, channel: str, parameters: dict[str, Any], now_ms: int) -> None:
        faults = self.faults
        parameter = ""
        symbol = parameters.get("symbol")
        if channel in _MARKET_CHANNELS:
            symbol = ""
        elif not isinstance(symbol, str) or not symbol:
            session.say(frames.error(PARAMETER_TEXT, now_ms), now_ms)
            if faults.hang_up_without_symbol:
                self._hang_up(session, "1005")
            return
        elif self.market.listing(symbol) is None:
            session.say(frames.error(f"Contract [{symbol}] not exists", now_ms), now_ms)
            return
        match channel:
            case "kline":
                parameter = str(parameters.get("interval", ""))
                if parameter not in Timeframe.__members__:
                    session.say(frames.error(INTERVAL_TEXT, now_ms), now_ms)
                    return
            case "depth.full":
                limit = parameters.get("limit", 20)
                if limit not in _FULL_LIMITS:
                    session.say(frames.error(PARAMETER_TEXT, now_ms), now_ms)
                    return
                parameter = str(limit)
            case "depth.step":
                parameter = str(parameters.get("step", ""))
                if not _is_positive_number(parameter):
                    session.say(frames.error(PARAMETER_TEXT, now_ms), now_ms)
                    return
            case "deal" | "depth":
                parameter = "each" if parameters.get("compress") is False else ""
            case _:
                pass
        topic = Topic(channel, symbol, parameter)
        if topic not in session.topics:
            if faults.max_subscriptions is not None and len(session.topics) >= faults.max_subscriptions:
                self._refuse(session, faults.limit_refusal, LIMIT_TEXT, now_ms)
                return
            if faults.refuse_subscriptions and session.random.random() < faults.refuse_subscriptions:
                self._refuse(session, faults.refusal, REFUSED_TEXT, now_ms)
                return
            self._enter(session, topic)
        session.say(frames.acknowledgement(f"sub.{channel}", now_ms), now_ms)

    def _enter(self, session: Session, topic: Topic) -> None:
        session.topics[topic] = None
        session.max_topics = max(session.max_topics, len(session.topics))
        self.counters.max_subscriptions = max(self.counters.max_subscriptions, len(session.topics))
        subscribers = self._subscribers.setdefault(topic, {})
        subscribers[session] = None
        self._fresh.append((session, topic))
        listing = self.market.listing(topic.symbol) if topic.symbol else None
        if len(subscribers) > 1 or listing is None:
            return
        desk = self._desks.get(topic.symbol)
        if desk is None:
            desk = self._desks[topic.symbol] = _Desk(listing)
        if topic.channel == "kline":
            # A new subscriber hears nothing before the next trade.
            desk.has_traded = desk.has_traded and bool(desk.klines)
            desk.klines.append(topic)
        else:
            desk.others.setdefault(topic.channel, []).append(topic)
        if topic.channel in _REFERENCE_CHANNELS:
            self._references[topic] = None

    def _unsubscribe(self, session: Session, channel: str, parameters: dict[str, Any], now_ms: int) -> None:
        symbol = "" if channel in _MARKET_CHANNELS else str(parameters.get("symbol", ""))
        interval = parameters.get("interval") if channel == "kline" else None
        for topic in list(session.topics):
            if topic.channel == channel and topic.symbol == symbol and interval in (None, topic.parameter):
                self._leave(session, topic)
        if self.faults.acknowledge_unsubscribe:
            session.say(frames.acknowledgement(f"unsub.{channel}", now_ms), now_ms)

    def _leave(self, session: Session, topic: Topic) -> None:
        session.topics.pop(topic, None)
        subscribers = self._subscribers.get(topic, {})
        subscribers.pop(session, None)
        if subscribers:
            return
        self._subscribers.pop(topic, None)
        self._references.pop(topic, None)
        desk = self._desks.get(topic.symbol)
        if desk is None:
            return
        topics = desk.klines if topic.channel == "kline" else desk.others.get(topic.channel, [])
        if topic in topics:
            topics.remove(topic)
        if not desk.klines and not any(desk.others.values()):
            del self._desks[topic.symbol]
            self._active.pop(topic.symbol, None)

    def _refuse(self, session: Session, refusal: Refusal, text: str, now_ms: int) -> None:
        match refusal:
            case "error":
                session.say(frames.error(text, now_ms), now_ms)
            case "close":
                self._hang_up(session, "1005")
            case "silence":
                pass

    def _hang_up(self, session: Session, how: HangUp) -> None:
        if session.closing is None:
            session.closing = _CLOSINGS[how]
        self._forget(session)

    def _forget(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.remove(session)
        for topic in list(session.topics):
            self._leave(session, topic)

    # One step

    def _step(self, now_ms: int) -> None:
        self.now_ms = now_ms
        market = self.market
        if now_ms % MINUTE_MS == 0:
            # The last trades of a minute are pushed as such before the next one begins.
            self._note(market.advance(now_ms - 1))
            self._flush_desks(now_ms, is_minute_end=True)
            self._note(market.advance(now_ms))
            self._changed.update(dict.fromkeys(market.rows_that_lost_volume()))
        else:
            self._note(market.advance(now_ms))
        while self._events and self._events[0][0] <= now_ms:
            self._happen(heapq.heappop(self._events)[2], now_ms)
        if self._fresh:
            self._greet(now_ms)
        if self._active:
            self._flush_desks(now_ms, is_minute_end=False)
        if now_ms % TICKERS_MS == 0:
            self._push_tickers(now_ms)
        if now_ms % REFERENCE_MS == 0:
            self._push_references(now_ms)
        if now_ms % TIMERS_MS == 0:
            self._run_timers(now_ms)
        for session in self.sessions:
            session.say_due(now_ms)

    def _note(self, trades: list[MarketTrade]) -> None:
        desks, changed, has_tickers = self._desks, self._changed, TICKERS in self._subscribers
        listing_of = self.market.listing
        for trade in trades:
            desk = desks.get(trade.symbol)
            if desk is None:
                if has_tickers and (listing := listing_of(trade.symbol)) is not None:
                    changed[listing.index] = None
                continue
            changed[desk.listing.index] = None
            desk.has_traded = desk.is_ticker_due = desk.is_depth_due = desk.is_full_due = True
            if "deal" in desk.others:
                desk.deals.append(trade)
            self._active[trade.symbol] = None

    def _greet(self, now_ms: int) -> None:
        """Give new subscribers the current picture on those channels that begin with one."""
        fresh, self._fresh = self._fresh, []
        first: bytes | None = None
        for session, topic in fresh:
            if topic not in session.topics:
                continue
            if topic.channel == "tickers":
                if first is None:
                    first = self._all_tickers(now_ms)
                self._deliver(session, topic, first, now_ms)
            elif topic.channel == "depth.full":
                desk = self._desks[topic.symbol]
                desk.is_full_due, desk.next_full_ms = True, now_ms
                self._active[topic.symbol] = None

    def _flush_desks(self, now_ms: int, *, is_minute_end: bool) -> None:
        for symbol in list(self._active):
            desk = self._desks[symbol]
            if desk.has_traded and desk.klines and (is_minute_end or now_ms >= desk.next_kline_ms):
                self._push_klines(desk, now_ms - is_minute_end)
            if is_minute_end:
                continue
            if desk.deals and now_ms % DEALS_MS == 0:
                self._push_deals(desk, now_ms)
            if desk.others and self._flush_others(desk, now_ms):
                continue
            if not desk.deals and (not desk.has_traded or not desk.klines):
                self._active.pop(symbol, None)

    def _flush_others(self, desk: _Desk, now_ms: int) -> bool:
        """Push what is due on the slower channels; whether something still waits."""
        others, symbol = desk.others, desk.listing.symbol
        if desk.is_ticker_due and others.get("ticker") and now_ms >= desk.next_ticker_ms:
            desk.is_ticker_due = False
            desk.next_ticker_ms = now_ms + TICKER_MS
            frame = frames.ticker(desk.listing, self.market.day(desk.listing), now_ms)
            self._publish(Topic("ticker", symbol), frame, now_ms)
        if desk.is_depth_due and now_ms % DEPTH_MS == 0 and (others.get("depth") or others.get("depth.step")):
            desk.is_depth_due = False
            self._push_depth(desk, now_ms)
        if others.get("depth.full") and (
            (desk.is_full_due and now_ms >= desk.next_full_ms) or now_ms >= desk.next_full_ms + QUIET_DEPTH_FULL_MS
        ):
            desk.is_full_due = False
            desk.next_full_ms = now_ms + DEPTH_FULL_MS
            self._push_full_depth(desk, now_ms)
        return bool(
            others.get("depth.full")
            or (desk.is_ticker_due and others.get("ticker"))
            or (desk.is_depth_due and (others.get("depth") or others.get("depth.step")))
            or desk.deals
            or (desk.has_traded and desk.klines)
        )

    # Pushes

    def _spelling(self) -> Spelling:
        odd = self.faults.odd_numbers
        return frames.odd_spelling(self._random) if odd and self._random.random() < odd else frames.plain

    def _push_klines(self, desk: _Desk, now_ms: int) -> None:
        listing, faults = desk.listing, self.faults
        desk.has_traded = False
        running = listing.running(self.market.minute)
        if running is None:
            return
        desk.next_kline_ms = now_ms + KLINE_MS
        scale, symbol = listing.instrument.price_scale, listing.symbol
        for topic in desk.klines:
            timeframe = Timeframe(topic.parameter)
            candle = running if timeframe is Timeframe.Min1 else self._rolled(desk, timeframe, running)
            if faults.shrink and self._random.random() < faults.shrink:
                candle = msgspec.structs.replace(
                    candle, contracts=candle.contracts * 9 // 10, amount=round(candle.amount * 0.9, 6)
                )
            open_time = candle.open_time_ms // 1_000
            in_milliseconds = faults.milliseconds and self._random.random() < faults.milliseconds
            frame = frames.kline(
                symbol,
                timeframe.value,
                candle.open_time_ms if in_milliseconds else open_time,
                candle,
                scale,
                now_ms,
                self._spelling(),
            )
            self._publish(topic, frame, now_ms)
            if faults.late:
                previous = desk.last_klines.get(topic)
                if previous and previous[0] < open_time and self._random.random() < faults.late:
                    self._publish(topic, previous[1], now_ms)
                desk.last_klines[topic] = (open_time, frame)

    def _rolled(self, desk: _Desk, timeframe: Timeframe, running: MarketCandle) -> MarketCandle:
        """The running candle of a longer timeframe: its closed minutes, kept for the minute, and the running one."""
        minute = self.market.minute
        cached = desk.rollups.get(timeframe)
        if cached is None or cached[0] != minute:
            first = bucket_start(minute, timeframe)
            closed = self.market.columns(desk.listing.symbol, Timeframe.Min1, first, minute - 1)
            cached = (minute, _combined(closed.candles(), first))
            desk.rollups[timeframe] = cached
        before = cached[1]
        if before is None:
            return msgspec.structs.replace(running, open_time_ms=bucket_start(minute, timeframe) * MINUTE_MS)
        return _joined(before, running)

    def _push_deals(self, desk: _Desk, now_ms: int) -> None:
        listing, trades = desk.listing, desk.deals
        desk.deals = []
        symbol, scale = listing.symbol, listing.instrument.price_scale
        for topic in desk.others["deal"]:
            spell = self._spelling()
            if self.faults.deals_as_object:
                for trade in trades:
                    frame = frames.deal_as_object(symbol, trade, scale, now_ms, spell)
                    self._publish(topic, frame, now_ms)
            elif topic.parameter:
                for trade in trades:
                    self._publish(topic, frames.deals(symbol, (trade,), scale, now_ms, spell), now_ms)
            else:
                self._publish(topic, frames.deals(symbol, trades, scale, now_ms, spell), now_ms)

    def _push_depth(self, desk: _Desk, now_ms: int) -> None:
        listing, symbol = desk.listing, desk.listing.symbol
        book = self.book(listing)
        change = book.move(listing.last_price)
        for topic in desk.others.get("depth", ()):
            if topic.parameter:
                for fields in _single_changes(change, now_ms):
                    self._publish(topic, frames.pushed("depth", symbol, fields, now_ms), now_ms)
            else:
                fields = {
                    "cts": now_ms,
                    "asks": change.asks,
                    "bids": change.bids,
                    "end": change.version,
                    "begin": change.first_version,
                    "version": change.version,
                }
                self._publish(topic, frames.pushed("depth", symbol, fields, now_ms), now_ms)
        for topic in desk.others.get("depth.step", ()):
            asks, bids = book.grouped(float(topic.parameter))
            best_asks, best_bids = book.top(1)
            fields = {
                "askMarketLevelPrice": best_asks[0][0],
                "asks": asks,
                "bidMarketLevelPrice": best_bids[0][0],
                "bids": bids,
                "ct": now_ms,
                "version": book.version,
            }
            self._publish(topic, frames.pushed("depth.step", symbol, fields, now_ms), now_ms)

    def _push_full_depth(self, desk: _Desk, now_ms: int) -> None:
        book = self.book(desk.listing)
        if not desk.others.get("depth"):
            # Otherwise the changes would miss a move of the book.
            book.move(desk.listing.last_price)
        for topic in desk.others["depth.full"]:
            asks, bids = book.top(int(topic.parameter))
            fields = {"cts": now_ms, "asks": asks, "bids": bids, "version": book.version}
            self._publish(topic, frames.pushed("depth.full", desk.listing.symbol, fields, now_ms), now_ms)

    def _all_tickers(self, now_ms: int) -> bytes:
        rows = [frames.tickers_row(each, self.market.day(each), now_ms) for each in self.market.listings()]
        return frames.tickers(rows + frames.ghost_rows(now_ms), now_ms)

    def _push_tickers(self, now_ms: int) -> None:
        topic = TICKERS
        changed, self._changed = self._changed, {}
        if topic not in self._subscribers:
            return
        market = self.market
        # Index prices move without trades too; an eighth of the contracts shows it each time.
        turn = now_ms // TICKERS_MS % 8
        rows = [
            frames.tickers_row(each, market.day(each), now_ms)
            for each in market.listings()
            if each.index in changed or each.index % 8 == turn
        ]
        if rows:
            self._publish(topic, frames.tickers(rows, now_ms), now_ms)

    def _push_references(self, now_ms: int) -> None:
        for topic in list(self._references):
            listing = self._desks[topic.symbol].listing
            fields: dict[str, Any] = {"symbol": topic.symbol}
            match topic.channel:
                case "index.price":
                    fields["price"] = frames.index_price(listing, now_ms)
                case "fair.price":
                    fields["price"] = frames.fair_price(listing, now_ms)
                case _:
                    if now_ms % FUNDING_MS:
                        continue
                    fields["rate"] = frames.funding_rate(listing, now_ms)
                    fields["nextSettleTime"] = frames.next_settlement_ms(now_ms)
            self._publish(topic, frames.pushed(topic.channel, topic.symbol, fields, now_ms), now_ms)

    def _push_contract(self, record: dict[str, Any], now_ms: int) -> None:
        frame = frames.pushed("contract", record["symbol"], record, now_ms)
        self._publish(Topic("contract"), frame, now_ms)

    # Delivery

    def _publish(self, topic: Topic, frame: bytes, now_ms: int) -> None:
        subscribers = self._subscribers.get(topic)
        if not subscribers:
            return
        self.counters.frames += len(subscribers)
        if self._is_plain:
            for session in subscribers:
                session._outbox.append(frame)
            return
        for session in subscribers:
            self._deliver(session, topic, frame, now_ms)

    def _deliver(self, session: Session, topic: Topic, frame: bytes, now_ms: int) -> None:
        """Send one data frame to one client, unless or in the way that a fault wants."""
        for silence in self._silences:
            if silence.target == f"connection:{session.number}" or topic.is_hit_by(silence.target):
                return
        faults, random = self.faults, session.random
        if not faults.touches_frames:
            session.say(frame, now_ms)
            return
        if faults.lose and random.random() < faults.lose:
            return
        if faults.malformed and random.random() < faults.malformed:
            frame = frames.malformed(frame, random.choice(MALFORMED), now_ms)
        if faults.gzip and random.random() < faults.gzip:
            frame = frames.compressed(frame)
        if faults.reorder and random.random() < faults.reorder:
            session.say_later(frame, now_ms + random.randrange(STEP_MS, max(STEP_MS, faults.reorder_ms) + 1))
            return
        session.say(frame, now_ms)
        if faults.duplicate and random.random() < faults.duplicate:
            session.say(frame, now_ms)

    def _judge(self) -> None:
        """Whether frames can go out without a second look."""
        self._is_plain = (
            not self.faults.touches_frames
            and not self._silences
            and not any(session.half_open_until_ms for session in self.sessions)
        )

    # Timers and dated events

    def _run_timers(self, now_ms: int) -> None:
        faults = self.faults
        for session in list(self.sessions):
            if now_ms < session.half_open_until_ms:
                continue
            if now_ms - session.last_ping_ms > faults.heartbeat_timeout_s * 1_000:
                self.counters.heartbeat_closes += 1
                session.say(frames.error(HEARTBEAT_TEXT, now_ms), now_ms)
                self._hang_up(session, faults.heartbeat_hang_up)
            elif self._is_cut(session, now_ms):
                self._hang_up(session, faults.drop_hang_up)
            elif session.half_open_until_ms and now_ms >= session.half_open_until_ms:
                session.half_open_until_ms = 0.0
                self._judge()
        if self._silences:
            self._silences = [silence for silence in self._silences if now_ms < silence.until_ms]
            self._judge()

    def _is_cut(self, session: Session, now_ms: int) -> bool:
        faults = self.faults
        if faults.lifetime_s is not None and now_ms - session.opened_ms >= faults.lifetime_s * 1_000:
            return True
        hazard = faults.drops_per_hour * TIMERS_MS / 3_600_000
        return bool(hazard) and session.random.random() < hazard

    def _happen(self, event: FaultEvent, now_ms: int) -> None:
        self.counters.events += 1
        market, target = self.market, event.target
        until_ms = now_ms + event.duration_ms if event.duration_ms else float("inf")
        match event.kind:
            case "drop" | "drop_abrupt":
                for session in self._hit(target):
                    self._hang_up(session, "abrupt" if event.kind == "drop_abrupt" else self.faults.drop_hang_up)
            case "half_open":
                for session in self._hit(target):
                    session.half_open_until_ms = until_ms
            case "silence":
                self._silences.append(_Silence(target, until_ms))
            case "lost_topic":
                for session in self.sessions:
                    for topic in [topic for topic in session.topics if topic.is_hit_by(target)]:
                        self._leave(session, topic)
            case "exchange_down":
                self._down_until_ms = until_ms
                for session in list(self.sessions):
                    self._hang_up(session, "abrupt")
            case "hang_up":
                self._hanging_up_until_ms = until_ms
                for session in list(self.sessions):
                    self._hang_up(session, "1001")
            case "rest_510" | "rest_html" | "rest_timeout":
                self.rest.storm(event.kind, until_ms)
            case "listing":
                if market.listing(target) is None:
                    self._push_contract(frames.contract_record(market.list_contract(target)), now_ms)
            case "pump":
                if market.listing(target) is not None:
                    length_ms = event.duration_ms or 90_000
                    market.plant(Pump(now_ms, target, length_ms, event.value, event.volume_multiple))
            case _:
                listed = market.listing(target)
                if listed is not None:
                    self._change_contract(event, listed, now_ms)
        self._judge()

    def _change_contract(self, event: FaultEvent, listed: Listing, now_ms: int) -> None:
        market, symbol = self.market, event.target
        match event.kind:
            case "delisting":
                listing = market.delist(symbol)
                # Offline: the last thing heard of it.
                self._push_contract(frames.contract_record(listing) | {"state": 3}, now_ms)
                self._abandon(symbol)
            case "rename":
                if market.listing(event.text) is not None:
                    return
                old = frames.contract_record(listed) | {"state": 3}
                listing = market.rename(symbol, event.text)
                self._push_contract(old, now_ms)
                self._push_contract(frames.contract_record(listing), now_ms)
                self._abandon(symbol)
            case "contract_size":
                listing = market.set_contract_size(symbol, event.value)
                self._push_contract(frames.contract_record(listing) | {"contractSize": event.value}, now_ms)
            case "state":
                listing = market.set_state(symbol, int(event.value))
                self._push_contract(frames.contract_record(listing), now_ms)
            case _:
                pass

    def _abandon(self, symbol: str) -> None:
        """Nothing more is pushed for a symbol; its subscribers hear nothing about it."""
        self._active.pop(symbol, None)
        desk = self._desks.pop(symbol, None)
        if desk is None:
            return
        for topic in [*desk.klines, *(topic for topics in desk.others.values() for topic in topics)]:
            self._subscribers.pop(topic, None)
            self._references.pop(topic, None)

    def _hit(self, target: str) -> Iterator[Session]:
        """Open sessions that a fault aimed at ``target`` concerns: all, one by number, or those watching a symbol."""
        for session in list(self.sessions):
            if target in ("", "all", f"connection:{session.number}") or any(
                topic.is_hit_by(target) for topic in session.topics
            ):
                yield session

    def status(self) -> dict[str, Any]:
        """Counters and open connections, for people and tests."""
        return {
            "now_ms": self.now_ms,
            "contracts": len(self.market.symbols),
            "connections": [
                {
                    "number": session.number,
                    "subscriptions": len(session.topics),
                    "max_subscriptions": session.max_topics,
                    "commands": session.commands,
                    "max_commands_per_second": session.max_commands_per_second,
                }
                for session in self.sessions
            ],
            "counters": self.counters,
            "rest": self.rest.counters,
            "faults": self.faults,
        }


def _is_positive_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _single_changes(change: Change, now_ms: int) -> Iterator[dict[str, Any]]:
    version = change.first_version
    for level in change.asks:
        yield {"cts": now_ms, "asks": [level], "bids": [], "version": version}
        version += 1
    for level in change.bids:
        yield {"cts": now_ms, "asks": [], "bids": [level], "version": version}
        version += 1


def _combined(candles: list[MarketCandle], first_minute: int) -> MarketCandle | None:
    """Successive candles as one that opens at ``first_minute``."""
    if not candles:
        return None
    whole = msgspec.structs.replace(candles[0], open_time_ms=first_minute * MINUTE_MS)
    for candle in candles[1:]:
        whole = _joined(whole, candle)
    return whole


def _joined(before: MarketCandle, after: MarketCandle) -> MarketCandle:
    return MarketCandle(
        before.open_time_ms,
        before.open,
        max(before.high, after.high),
        min(before.low, after.low),
        after.close,
        before.contracts + after.contracts,
        round(before.amount + after.amount, 6),
        before.real_open,
        max(before.real_high, after.real_high),
        min(before.real_low, after.real_low),
        after.real_close,
    )
