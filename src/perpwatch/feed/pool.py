"""Runs the connections, carries out the plan, and learns what the exchange does not say about its limits."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from perpwatch.errors import ConnectionFailed
from perpwatch.exchanges.adapter import Adapter, Limits
from perpwatch.feed.budget import Budget
from perpwatch.feed.connection import Clock, Connection, Retries, Sink, State
from perpwatch.feed.handicap import Handicaps
from perpwatch.feed.outbox import Turns
from perpwatch.feed.plan import Action, Connected, plan
from perpwatch.feed.ports import Dial
from perpwatch.feed.session import WINDOW
from perpwatch.model import Batch, Event, Kind, Stream, StreamUp, Trade, Trades

logger = logging.getLogger(__name__)

#: How often the pool looks at refusals and cut connections.
LOOK_EVERY_S = 1.0
#: Refusals below this many streams on a socket are not taken for a limit: no exchange allows so few.
LEAST_LIMIT = 10
#: Refused dials in a row, while other connections are open, that make a limit of connections.
REFUSED_DIALS_MAKE_LIMIT = 3


#: Capacity is explored by so many subscriptions at a time, so often, and only while all that was asked for is there.
EXPLORE_STEP, EXPLORE_EVERY_S = 5, 600.0
#: A connection is relieved when it carries so many times the mean, and so many messages a second more than the least;
#: so many streams are moved at a time.
HEAVY, HEAVY_BY, MOVES_AT_ONCE = 1.5, 2.0, 10
#: A connection is mute when it brings nothing for the time in which so many messages were usual, and at least so long.
MUTE_MESSAGES, MUTE_S = 30.0, 10.0
#: Share of the latest second in a connection's usual rate: a memory of about three minutes.
RATE_MEMORY = 0.005
#: Share of the planned rate that a connection is credited with before its own is known; the plan only guesses.
PLANNED_SHARE = 0.1
#: A limit that was met is tried again after this time: it may have been a mood.
FORGIVE_AFTER_S = 3_600.0
#: Trades that were under way on the old connection may still arrive this long after a move.
OVERLAP_S = 10.0
#: Without a free place, a connection is renewed so many seconds into a minute: what it misses is in the next pushes.
RENEW_AT_SECOND = 5
#: Connections of one age are renewed up to this share of the lifetime earlier, so that they do not all go at once.
LIFETIME_SPREAD = 0.2


@dataclass(slots=True)
class _Overlap:
    """The trades of one symbol while two connections deliver them."""

    until_s: float | None = None  # None while the move is under way
    seen: set[object] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """One connection at one moment, for people and metrics."""

    source: str
    state: State
    confirmed: int
    wanted: int
    frames: int
    data_frames: int
    bad_frames: int
    unanswered: int
    refusals: int
    reconnects: int
    failures: int  # since start
    last_error: str | None
    data_age_s: float | None  # None before the first data of the present socket
    retry_in_s: float | None
    expected_rate: float  # messages a second
    lag_ms: float  # mean of its frames above the quickest
    handicap: float  # how much heavier a load weighs on it than on its peers


class Move(msgspec.Struct, frozen=True):
    """A stream that another connection should carry."""

    stream: Stream
    source: str
    target: str
    rate: float  # messages a second


class LearnedLimit(msgspec.Struct, frozen=True):
    """How many subscriptions a connection was found to take, and when (our clock, ms)."""

    subscriptions: int
    learned_ms: int


class Pool:
    """All WebSocket connections to one exchange.

    Args:
        per_connection: subscriptions the plan puts on one socket, at most the exchange's limit.
    """

    def __init__(
        self,
        url: str,
        adapter: Adapter,
        limits: Limits,
        per_connection: int,
        dial: Dial,
        clock: Clock,
        jitter: Callable[[], float],
        sink: Sink,
        retries: Retries,
        exchange_now_ms: Callable[[], int] = lambda: 0,
        *,
        turns: Turns,
        explores: bool = False,
    ) -> None:
        self.per_connection = min(per_connection, limits.max_subscriptions_per_connection)
        self.max_connections = limits.max_connections
        self.configured = (self.per_connection, self.max_connections)
        self._limited_s: float | None = None  # when a limit was last lowered
        self.learned: LearnedLimit | None = None  # the last limit that was met
        self.is_short = False  # there are streams that would be taken if there were room
        self._explores = explores
        self._turns = turns
        self._explored_s = clock.monotonic()
        self.connections: dict[str, Connection] = {}
        self.rates: dict[Stream, float] = {}
        self.refused: dict[Stream, str] = {}  # streams the exchange does not give, with its reason
        self._url = url
        self._adapter = adapter
        self._limits = limits
        self._dial = dial
        self._clock = clock
        self._jitter = jitter
        self._sink = sink
        self._retries = retries
        self._exchange_now_ms = exchange_now_ms
        self.handicaps = Handicaps()
        self._dials = Budget(limits.dials_per_second, burst=2.0)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._moving: dict[Stream, tuple[str, str]] = {}  # stream -> (old, new) until the new one is confirmed
        self._overlaps: dict[str, _Overlap] = {}
        self._lifetimes: dict[str, float] = {}  # seconds after which each connection is renewed
        self._usual: dict[str, tuple[int, float]] = {}  # data frames counted so far, and usual messages a second
        self.rebalanced = 0  # streams that were moved because their connection carried too much
        self.renewed = 0  # connections that were replaced before their time ended
        self.duplicate_trades = 0
        self._looked_at: dict[str, int] = {}  # sessions of each connection whose end has been looked at
        self._cut_counts: dict[str, int] = {}  # streams that a connection had when it was cut in the midst of asking
        self.on_limit: Callable[[], None] = lambda: None  # called when a limit was met and lowered

    @property
    def capacity(self) -> int:
        """Streams that fit."""
        return self.max_connections * self.per_connection

    # --- Life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep all connections alive until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._replan()
                while True:
                    await asyncio.sleep(LOOK_EVERY_S)
                    self._learn()
                    self._replace_the_mute()
                    self._renew_the_old()
                    self._forgive()
                    self._explore()
        finally:
            self._group = None
            self._tasks.clear()

    def want(self, rates: Mapping[Stream, float]) -> None:
        """Replace what should be streamed; connections of streams that stay are not touched."""
        self.refused = {stream: reason for stream, reason in self.refused.items() if stream in rates}
        self.rates = {stream: rate for stream, rate in rates.items() if stream not in self.refused}
        if self._group is not None:
            self._replan()

    # --- The plan ---------------------------------------------------------------------------------------------------

    def actions(self) -> list[Action]:
        """What would have to change now; empty when all is as it should be."""
        # When some have to go, those that are open stay: one that is refused could not take over before they have gone.
        connections = sorted(self.connections.values(), key=lambda connection: connection.state is not State.OPEN)
        have = [Connected(connection.source, tuple(connection.wanted)) for connection in connections]
        for stream, (old, _) in self._moving.items():
            have = [
                Connected(one.source, tuple(s for s in one.streams if s != stream)) if one.source == old else one
                for one in have
            ]
        return plan(self.rates, have, max_connections=self.max_connections, per_connection=self.per_connection)

    def _replan(self) -> None:
        actions = self.actions()
        arriving = {stream: action.source for action in actions for stream in action.subscribe}
        for action in actions:
            if action.opens:
                self._open(action.source)
        for action in actions:
            for stream in action.unsubscribe:
                self._take_off(stream, action.source, arriving.get(stream))
        for action in actions:
            for stream in action.subscribe:
                self._redirect(stream, action.source)
            if action.subscribe:
                self.connections[action.source].subscribe(action.subscribe)
        for source in [action.source for action in actions if action.closes]:
            self._close_if_empty(source)

    def _take_off(self, stream: Stream, source: str, new: str | None) -> None:
        """End ``stream`` on a connection, at once or when ``new`` has confirmed it: make before break."""
        connection = self.connections[source]
        if stream in self._moving:
            # It is on its way to this connection, where the plan no longer wants it; the old one still delivers it.
            connection.unsubscribe([stream])
            if new is None:
                self._finish_move(stream)
        elif new is not None and connection.session is not None and stream in connection.session.confirmed:
            self._begin_move(stream, source, new)
        else:
            connection.unsubscribe([stream])

    def _begin_move(self, stream: Stream, old: str, new: str) -> None:
        self._moving[stream] = old, new
        if stream.kind is Kind.TRADES:
            self._overlaps[stream.symbol] = _Overlap()

    def _redirect(self, stream: Stream, new: str) -> None:
        if stream in self._moving:
            old, _ = self._moving[stream]
            if old == new:
                del self._moving[stream]
            else:
                self._moving[stream] = old, new

    def _finish_move(self, stream: Stream) -> None:
        old, _ = self._moving.pop(stream)
        if stream.symbol in self._overlaps and stream.kind is Kind.TRADES:
            self._overlaps[stream.symbol].until_s = self._clock.monotonic() + OVERLAP_S
        if old in self.connections:
            self.connections[old].unsubscribe([stream])
            self._close_if_empty(old)

    def _open(self, source: str) -> None:
        assert self._group is not None
        connection = self.connections[source] = Connection(
            source,
            self._url,
            self._adapter,
            self._limits,
            self._dial,
            self._clock,
            self._dials,
            self._jitter,
            self._deliver,
            self._retries,
            self._turns,
            self._exchange_now_ms,
        )
        self._tasks[source] = self._group.create_task(connection.run(), name=source)

    def _close_if_empty(self, source: str) -> None:
        connection = self.connections.get(source)
        if connection is not None and not connection.wanted:
            del self.connections[source]
            self._looked_at.pop(source, None)
            self._cut_counts.pop(source, None)
            self._lifetimes.pop(source, None)
            self._usual.pop(source, None)
            self._tasks.pop(source).cancel()

    def _deliver(self, batch: Batch) -> None:
        if self._moving:
            for event in batch.events:
                if isinstance(event, StreamUp) and self._moving.get(event.stream, ("", ""))[1] == batch.source:
                    self._finish_move(event.stream)
        if self._overlaps:
            batch = self._without_duplicates(batch)
        self._sink(batch)

    def _without_duplicates(self, batch: Batch) -> Batch:
        """Drop trades that the other connection of a move has delivered already."""
        now_s = self._clock.monotonic()
        for symbol in [symbol for symbol, one in self._overlaps.items() if one.until_s and one.until_s < now_s]:
            del self._overlaps[symbol]
        kept: list[Event] = []
        frames: list[bytes] = []
        for event, frame in itertools.zip_longest(batch.events, batch.frames, fillvalue=b""):
            assert not isinstance(event, bytes), "a batch has no more frames than events"
            if isinstance(event, Trades) and event.symbol in self._overlaps:
                seen = self._overlaps[event.symbol].seen
                new = [trade for trade in event.trades if _key(trade) not in seen]
                seen.update(_key(trade) for trade in new)
                self.duplicate_trades += len(event.trades) - len(new)
                if not new:
                    continue
                if len(new) < len(event.trades):
                    event, frame = replace(event, trades=new), b""  # no longer what the frame says
            kept.append(event)
            frames.append(frame)
        return replace(batch, events=kept, frames=frames)

    # --- Balance ----------------------------------------------------------------------------------------------------

    def rebalance(self) -> int:
        """Carry out :meth:`moves`, make before break; returns how many. One thing at a time: not while others move."""
        moves = self.moves()
        for move in moves:
            self._begin_move(move.stream, move.source, move.target)
            self.connections[move.target].subscribe([move.stream])
        if moves:
            self.rebalanced += len(moves)
            logger.info("moving %d streams to lighter connections", len(moves))
        return len(moves)

    def moves(self) -> list[Move]:
        """Streams that the heaviest connections should give to the lightest.

        Loads are the sums of the rates that :meth:`want` was told last, so whoever measures them decides; they weigh
        more on a connection with a handicap.
        """
        moves: list[Move] = []
        if self._moving or len(self.connections) < 2:
            return moves
        weights = {source: self.handicaps.of(source) for source in self.connections}
        loads = {source: weight * self._rate_on(source) for source, weight in weights.items()}
        rooms = {
            source: self.per_connection - len(connection.wanted)
            for source, connection in self.connections.items()
            if connection.state is State.OPEN
        }
        mean = sum(loads.values()) / len(loads)
        while len(moves) < MOVES_AT_ONCE:
            heavy = max(loads, key=lambda source: (loads[source], source))
            with_room = [source for source, room in rooms.items() if room > 0]
            light = min(with_room, key=lambda source: (loads[source], source), default=heavy)
            excess = loads[heavy] - loads[light]
            if loads[heavy] <= HEAVY * mean or excess <= HEAVY_BY:
                break
            taken = {move.stream for move in moves}
            stream = self._fitting(self.connections[heavy], excess / (weights[heavy] + weights[light]), taken)
            if stream is None:
                break
            rate = self.rates[stream]
            loads[heavy] -= weights[heavy] * rate
            loads[light] += weights[light] * rate
            rooms[light] -= 1
            moves.append(Move(stream, heavy, light, rate))
        return moves

    def _rate_on(self, source: str) -> float:
        return sum(self.rates.get(stream, 0.0) for stream in self.connections[source].wanted)

    def _fitting(self, connection: Connection, rate: float, taken: Collection[Stream]) -> Stream | None:
        """The confirmed stream whose rate comes closest to what is too much, without exceeding it."""
        session = connection.session
        if session is None:
            return None
        fitting = [
            stream
            for stream in session.confirmed
            if stream not in self._moving and stream not in taken and 0.0 < self.rates.get(stream, 0.0) <= rate
        ]
        return max(fitting, key=lambda stream: (self.rates[stream], stream), default=None)

    # --- Silence ----------------------------------------------------------------------------------------------------

    def _replace_the_mute(self) -> None:
        """Dial anew where pongs come and data does not, judged by what the connection itself usually brings."""
        now_s = self._clock.monotonic()
        for source, connection in self.connections.items():
            session, frames = connection.session, connection.counters().data_frames
            if session is None or not session.confirmed:
                continue
            planned = PLANNED_SHARE * sum(self.rates.get(stream, 0.0) for stream in session.confirmed)
            counted, rate = self._usual.get(source, (frames, planned))
            rate += RATE_MEMORY * (frames - counted - rate)
            self._usual[source] = frames, rate
            silence_s = now_s - max(session.last_data_s, session.opened_s)
            if silence_s > MUTE_S and silence_s * rate > MUTE_MESSAGES:
                logger.warning("%s brings pongs and no data for %.0f s: dialling anew", source, silence_s)
                connection.restart("mute although open")

    # --- Renewal ----------------------------------------------------------------------------------------------------

    def _renew_the_old(self) -> None:
        """Replace the oldest connection whose time is about to end, one at a time."""
        if self._moving:
            return
        now_s = self._clock.monotonic()
        for connection in self.connections.values():
            if connection.state is State.OPEN and connection.opened_s is not None:
                lifetime_s = self._lifetimes.setdefault(
                    connection.source,
                    self._limits.connection_lifetime_s * (1.0 - LIFETIME_SPREAD * self._jitter()),
                )
                if now_s - connection.opened_s >= lifetime_s:
                    self._renew(connection)
                    return

    def _renew(self, connection: Connection) -> None:
        """Make before break where there is a place for one more connection."""
        if len(self.connections) < self.max_connections:
            self.renewed += 1
            logger.info("%s: its time ends; another connection takes over", connection.source)
            self._hand_over(connection)
        elif 0 <= self._clock.time_ns() // 1_000_000_000 % 60 - RENEW_AT_SECOND < 5:
            self.renewed += 1
            self._lifetimes.pop(connection.source, None)
            connection.restart("renewed before its time ended")

    def _hand_over(self, old: Connection) -> None:
        number = 1
        while f"ws-{number}" in self.connections:
            number += 1
        new = f"ws-{number}"
        self._open(new)
        streams = tuple(old.wanted)
        for stream in streams:
            if old.session is not None and stream in old.session.confirmed:
                self._begin_move(stream, old.source, new)
            else:
                old.unsubscribe([stream])
        self.connections[new].subscribe(streams)

    def replace_connection(self, source: str, reason: str) -> None:
        """Give up the present socket of a connection and dial anew; its neighbours are not touched."""
        if source in self.connections:
            self.connections[source].restart(reason)

    def move(self, stream: Stream) -> bool:
        """Move a stream to another connection with room; False when there is none."""
        old = next((one for one in self.connections.values() if stream in one.wanted), None)
        others = [
            one
            for one in self.connections.values()
            if one is not old and one.state is State.OPEN and len(one.wanted) < self.per_connection
        ]
        if old is None or not others or stream in self._moving:
            return False
        new = min(others, key=lambda one: (len(one.wanted), one.source))
        old.unsubscribe([stream])
        new.subscribe([stream])
        return True

    # --- Limits that nobody told us ---------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Lower a limit that was met, instead of running into it again and again."""
        limit = self.per_connection
        changed = False
        for connection in list(self.connections.values()):
            session = connection.session
            if session is not None and session.rejected:
                changed = True
                for stream, reason in list(session.rejected.items()):
                    stays = self._moving.pop(stream, ("", ""))[1] == connection.source  # where it was, and works
                    if stream.symbol and stream.symbol in reason and not stays:
                        self.refused[stream] = reason
                        self.rates.pop(stream, None)
                        logger.warning("the exchange does not give %s: %s", stream, reason)
                    elif len(session.confirmed) >= LEAST_LIMIT:
                        limit = min(limit, len(session.confirmed))
                    elif not stays:
                        self.refused[stream] = reason
                        self.rates.pop(stream, None)
                        logger.error("%s could not be subscribed: %s", stream, reason)
                    connection.unsubscribe([stream])
            limit = min(limit, self._limit_by_cut(connection))
        self._learn_connections()
        if limit < self.per_connection:
            logger.warning(
                "the exchange takes %d subscriptions on a connection, not %d: planning anew", limit, self.per_connection
            )
            self.per_connection = limit
            self._limited_s = self._clock.monotonic()
            self.learned = LearnedLimit(limit, self._clock.time_ns() // 1_000_000)
            self.on_limit()
            changed = True
        if changed:
            self._replan()

    def remember(self, learned: LearnedLimit) -> None:
        """Begin with a limit that was learned before; what is configured is never exceeded.

        Without exploring it counts only as long as it would without the restart: until it is forgiven.
        """
        self.learned = learned
        age_s = self._clock.time_ns() / 1e9 - learned.learned_ms / 1e3
        if self._explores:
            self.per_connection = min(learned.subscriptions, self._limits.max_subscriptions_per_connection)
        elif 0.0 <= age_s < FORGIVE_AFTER_S:
            self.per_connection = min(learned.subscriptions, self.per_connection)
            self._limited_s = self._clock.monotonic() - age_s

    def _explore(self) -> None:
        """Ask connections for a little more, when there is more to ask for and no limit is known."""
        now_s = self._clock.monotonic()
        most = self._limits.max_subscriptions_per_connection
        if self.learned is not None:
            most = min(most, self.learned.subscriptions)
        is_settled = all(one.session is not None and not one.session.pending for one in self.connections.values())
        if (
            self._explores
            and self.is_short
            and is_settled
            and self.per_connection < most
            and now_s - self._explored_s >= EXPLORE_EVERY_S
        ):
            self._explored_s = now_s
            self.per_connection = min(most, self.per_connection + EXPLORE_STEP)
            logger.info("exploring: %d subscriptions a connection", self.per_connection)
            self.on_limit()

    def _forgive(self) -> None:
        """Go back to the configured limits an hour after one was met; if it still stands it is met once more."""
        if self._explores:
            return  # what was learned by exploring stands until it is explored anew
        if self._limited_s is not None and self._clock.monotonic() - self._limited_s >= FORGIVE_AFTER_S:
            self._limited_s = None
            self.per_connection, self.max_connections = self.configured
            logger.info("trying the configured limits again: %d subscriptions on %d connections", *self.configured)
            self.on_limit()
            self._replan()

    def _limit_by_cut(self, connection: Connection) -> int:
        """The count at which one connection is cut time after time while it subscribes."""
        source = connection.source
        if connection.sessions_ended == self._looked_at.get(source, 0):
            return self.per_connection
        self._looked_at[source] = connection.sessions_ended
        before, count = self._cut_counts.pop(source, None), connection.confirmed_at_end
        if not connection.pending_at_end or count < LEAST_LIMIT:
            return self.per_connection
        if before is None or abs(before - count) > WINDOW:
            # Once is no limit: an outage cuts everybody in the midst of whatever they do.
            self._cut_counts[source] = count
            return self.per_connection
        return min(before, count)

    def _learn_connections(self) -> None:
        open_now = sum(connection.state is State.OPEN for connection in self.connections.values())
        for connection in self.connections.values():
            error = connection.last_error
            if (
                open_now
                and connection.failures >= REFUSED_DIALS_MAKE_LIMIT
                and isinstance(error, ConnectionFailed)
                and error.status in (403, 429)
                and open_now < self.max_connections
            ):
                logger.warning("the exchange allows %d connections, not %d", open_now, self.max_connections)
                self.max_connections = open_now
                self._limited_s = self._clock.monotonic()
                self.on_limit()
                self._replan()
                return

    # --- For people -------------------------------------------------------------------------------------------------

    def status(self) -> list[ConnectionStatus]:
        now_s = self._clock.monotonic()
        return [self._status(connection, now_s) for connection in self.connections.values()]

    def _status(self, connection: Connection, now_s: float) -> ConnectionStatus:
        session, counters = connection.session, connection.counters()
        last_data_s = session.last_data_s if session is not None else 0.0
        return ConnectionStatus(
            source=connection.source,
            state=connection.state,
            confirmed=connection.confirmed,
            wanted=len(connection.wanted),
            frames=counters.frames,
            data_frames=counters.data_frames,
            bad_frames=counters.bad_frames,
            unanswered=counters.unanswered,
            refusals=counters.refusals,
            reconnects=connection.reconnects,
            failures=connection.total_failures,
            last_error=str(connection.last_error) if connection.last_error is not None else None,
            data_age_s=now_s - last_data_s if last_data_s else None,
            retry_in_s=max(0.0, connection.retry_at_s - now_s) if connection.retry_at_s is not None else None,
            expected_rate=self._rate_on(connection.source),
            lag_ms=self.handicaps.lag_ms(connection.source),
            handicap=self.handicaps.of(connection.source),
        )


def _key(trade: Trade) -> object:
    """What makes a trade itself: its id, or everything about it where the exchange gives none."""
    if trade.trade_id is not None:
        return trade.trade_id
    return trade.event_time_ms, trade.price, trade.contracts, trade.side
