"""What to ask of the exchange, and on which connection. Pure: wishes in, decisions out.

Two questions are answered here, one after the other.

:func:`serve` turns a wish (symbols x kinds) into streams, in the cheapest honest way: one whole-market ticker for all
tickers; one Min1 candle stream per symbol, from which all longer timeframes are rolled up; trades for the symbols of
the highest turnover, or whatever is hot, while the budget lasts. What does not fit is served by REST, and said so.

:func:`plan` spreads streams over connections. It never moves what can stay, so that a small change of the wish is a
small change of the wire, and it looks only at its arguments, so that calling it again after its actions were carried
out gives none.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from perpwatch.model import Kind, Stream, Timeframe, stream_of_candles

#: Messages a second that the whole-market ticker brings (about one frame every two seconds).
TICKERS_RATE = 0.5
#: Messages a second of the stream that announces new and changed contracts.
CONTRACTS_RATE = 0.05
#: Pushes a second of one symbol never exceed this: the exchange merges what happens at once.
MAX_SYMBOL_RATE = 4.0
#: Quote coin that one message stands for: the mean size of a batch of trades, for want of a measurement.
TURNOVER_PER_MESSAGE = 2_000.0
#: Connections are drained and closed only when the streams would fill what remains to less than this share.
CONSOLIDATE_BELOW = 0.7


class Mode(enum.StrEnum):
    """Which of the two paths to the exchange are used, and for what."""

    WEBSOCKET = "websocket"  # sockets carry; REST reads the past, what was missed, and what has no room on the sockets
    REST = "rest"  # REST alone
    DUAL = "dual"  # sockets carry; REST audits with what is left, and takes over what is down


class Way(enum.StrEnum):
    """How a wish is served."""

    STREAMED = "streamed"  # by a stream of its own
    MARKET_WIDE = "market_wide"  # by the one stream that covers all symbols
    DERIVED = "derived"  # rolled up here from the Min1 candles
    POLLED = "polled"  # read by REST, because the subscription budget is spent
    UNSERVED = "unserved"  # not at all: no budget, and not worth a poll


class Wish(msgspec.Struct, frozen=True):
    """One of the words a user may put into ``subscription_types``."""

    name: str
    kind: Kind
    timeframe: Timeframe | None = None


def parse_wish(name: str) -> Wish:
    """A subscription type by its name: ticker, deals, kline_Min1, kline_Min5, kline_Min15, kline_Min60.

    Raises:
        ValueError: no such type; the text lists those that exist.
    """
    if name in _WISHES:
        return _WISHES[name]
    raise ValueError(f"unknown subscription type {name!r}; choose from {', '.join(_WISHES)}")


_WISHES = {
    "ticker": Wish("ticker", Kind.TICKERS),
    "deals": Wish("deals", Kind.TRADES),
    **{
        f"kline_{timeframe.value}": Wish(f"kline_{timeframe.value}", Kind.CANDLES, timeframe)
        for timeframe in (Timeframe.Min1, Timeframe.Min5, Timeframe.Min15, Timeframe.Min60)
    },
}
WISH_NAMES = tuple(_WISHES)


class Service(msgspec.Struct, frozen=True):
    """What :func:`serve` decided.

    ``rates`` holds every stream to subscribe with its expected messages a second, most important first. ``ways``
    counts, per wish, the symbols served in each way. ``polled`` are the symbols whose candles REST must read.
    """

    rates: dict[Stream, float]
    ways: dict[str, dict[Way, int]]
    polled: tuple[str, ...]
    untold_trades: tuple[str, ...]  # symbols whose trades were wished for and found no room
    trade_places: int = 0  # subscriptions that are left for trades


def expected_rate(stream: Stream, turnover_24h: float) -> float:
    """Messages a second to expect, until measured, for a symbol with this daily turnover (quote coin)."""
    if stream.kind is Kind.TICKERS:
        return TICKERS_RATE
    if stream.kind is Kind.CONTRACTS:
        return CONTRACTS_RATE
    return min(MAX_SYMBOL_RATE, 0.001 + turnover_24h / 86_400 / TURNOVER_PER_MESSAGE)


def serve(
    turnover_24h: Mapping[str, float],
    wishes: Sequence[Wish],
    capacity: int,
    hot: Sequence[str] = (),
) -> Service:
    """Choose streams that serve ``wishes`` for all symbols of ``turnover_24h`` within ``capacity`` subscriptions.

    Args:
        turnover_24h: the most important symbol first; the last are left without a place when they do not all fit.
        hot: symbols whose trades are wanted most, hottest first; the others follow.
    """
    symbols = list(turnover_24h)
    count = len(symbols)
    rates: dict[Stream, float] = {}
    ways: dict[str, dict[Way, int]] = {}
    room = capacity
    # The whole-market ticker is always taken: it is also the witness that tells a quiet symbol from a broken stream.
    if symbols and room:
        rates[Stream(Kind.TICKERS)] = TICKERS_RATE
        room -= 1
    candle_wishes = [wish for wish in wishes if wish.kind is Kind.CANDLES]
    streamed = symbols[:room] if candle_wishes else []
    polled = tuple(symbols[len(streamed) :]) if candle_wishes else ()
    for symbol in streamed:
        stream = stream_of_candles(symbol)
        rates[stream] = expected_rate(stream, turnover_24h[symbol])
    room -= len(streamed)
    for wish in wishes:
        match wish.kind:
            case Kind.TICKERS:
                ways[wish.name] = _counted(**{Way.MARKET_WIDE if capacity else Way.POLLED: count})
            case Kind.CANDLES:
                way = Way.STREAMED if wish.timeframe is Timeframe.Min1 else Way.DERIVED
                ways[wish.name] = _counted(**{way: len(streamed), Way.POLLED: len(polled)})
    places = max(0, room)
    by_heat = list(dict.fromkeys([*(symbol for symbol in hot if symbol in turnover_24h), *symbols]))
    trades: list[str] = []
    for wish in wishes:
        if wish.kind is Kind.TRADES:
            trades = by_heat[:places]
            for symbol in trades:
                stream = Stream(Kind.TRADES, symbol)
                rates[stream] = expected_rate(stream, turnover_24h[symbol])
            ways[wish.name] = _counted(**{Way.STREAMED: len(trades), Way.UNSERVED: count - len(trades)})
    # Listings are also found by reading the list now and then, so their stream takes only a place that nobody wants.
    if len(rates) < capacity and symbols:
        rates[Stream(Kind.CONTRACTS)] = CONTRACTS_RATE
    wants_trades = any(wish.kind is Kind.TRADES for wish in wishes)
    untold = tuple(by_heat[len(trades) :]) if wants_trades else ()
    return Service(rates, ways, polled, untold, places if wants_trades else 0)


def _counted(**counts: int) -> dict[Way, int]:
    return {way: counts.get(way, 0) for way in Way}


# --- Connections ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection as the plan sees it: its name and every stream it has or has been asked for."""

    source: str
    streams: Sequence[Stream]


@dataclass(frozen=True, slots=True)
class Action:
    """What one connection should change; ``opens`` and ``closes`` say when it begins or ends with this."""

    source: str
    subscribe: tuple[Stream, ...] = ()
    unsubscribe: tuple[Stream, ...] = ()
    opens: bool = False
    closes: bool = False


@dataclass(slots=True)
class _Load:
    """A connection while the plan is being made."""

    source: str
    streams: dict[Stream, float]
    rate: float
    is_new: bool = False
    added: dict[Stream, None] = field(default_factory=dict)
    removed: dict[Stream, None] = field(default_factory=dict)

    def add(self, stream: Stream, rate: float) -> None:
        self.streams[stream] = rate
        self.rate += rate
        if stream in self.removed:
            del self.removed[stream]
        else:
            self.added[stream] = None

    def remove(self, stream: Stream) -> None:
        self.rate -= self.streams.pop(stream)
        if stream in self.added:
            del self.added[stream]
        else:
            self.removed[stream] = None


def plan(
    wanted: Mapping[Stream, float],
    connections: Sequence[Connected],
    *,
    max_connections: int,
    per_connection: int,
) -> list[Action]:
    """What each connection should do so that every wanted stream is on exactly one of them.

    Streams go to the least loaded connection (by expected messages a second) that has room, busiest stream first.

    Args:
        wanted: streams with expected messages a second, most important first: when they do not all fit, the last are
            left out.
        connections: those that exist, oldest first.
        max_connections: never exceeded, unless more exist already; the surplus is drained and closed.
        per_connection: never exceeded, also not for a moment: a connection that must give up streams does so first.
    """
    capacity = max_connections * per_connection
    rates = dict(list(wanted.items())[:capacity]) if len(wanted) > capacity else dict(wanted)
    loads = _keep(rates, connections, max_connections, per_connection)
    have = {stream for load in loads for stream in load.streams}
    homeless = [stream for stream in rates if stream not in have]
    _open_enough(loads, len(rates), max_connections, per_connection)
    _spread(homeless, rates, loads, per_connection)
    _consolidate(loads, rates, per_connection)
    kept = {load.source for load in loads}
    actions = [
        Action(connection.source, unsubscribe=tuple(connection.streams), closes=True)
        for connection in connections
        if connection.source not in kept
    ]
    actions += [
        Action(
            load.source,
            subscribe=tuple(load.added),
            unsubscribe=tuple(load.removed),
            opens=load.is_new,
            closes=not load.streams,
        )
        for load in loads
        if load.added or load.removed or (not load.streams and not load.is_new)
    ]
    return actions


def _keep(
    rates: Mapping[Stream, float], connections: Sequence[Connected], max_connections: int, per_connection: int
) -> list[_Load]:
    """The connections that may stay, with those of their streams that are still wanted, once each, within the limit."""
    loads = []
    seen: set[Stream] = set()
    for connection in connections[:max_connections]:
        load = _Load(connection.source, {}, 0.0)
        for stream in connection.streams:
            if stream in rates and stream not in seen and len(load.streams) < per_connection:
                seen.add(stream)
                load.streams[stream] = rates[stream]
                load.rate += rates[stream]
            else:
                load.removed[stream] = None
        loads.append(load)
    return loads


def _open_enough(loads: list[_Load], streams: int, max_connections: int, per_connection: int) -> None:
    used = {load.source for load in loads}
    number = 1
    while len(loads) < min(max_connections, -(-streams // per_connection)):
        while f"ws-{number}" in used:
            number += 1
        used.add(f"ws-{number}")
        loads.append(_Load(f"ws-{number}", {}, 0.0, is_new=True))


def _spread(homeless: list[Stream], rates: Mapping[Stream, float], loads: list[_Load], per_connection: int) -> None:
    for stream in sorted(homeless, key=lambda stream: (-rates[stream], stream)):
        open_loads = [load for load in loads if len(load.streams) < per_connection]
        lightest = min(open_loads, key=lambda load: (load.rate, len(load.streams), load.source))
        lightest.add(stream, rates[stream])


def _consolidate(loads: list[_Load], rates: Mapping[Stream, float], per_connection: int) -> None:
    """Drain connections that are not needed by a wide margin, the emptiest first."""
    live = [load for load in loads if load.streams]
    total = sum(len(load.streams) for load in live)
    while len(live) > 1 and total <= CONSOLIDATE_BELOW * per_connection * (len(live) - 1):
        emptiest = min(live, key=lambda load: (len(load.streams), load.rate, load.source))
        live.remove(emptiest)
        streams = list(emptiest.streams)
        for stream in streams:
            emptiest.remove(stream)
        _spread(streams, rates, live, per_connection)
