"""The subscription plan, explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.table import Table

from perpwatch.app.config import Config
from perpwatch.app.configured import limits_of
from perpwatch.feed.plan import Mode, Way, parse_wish, plan, serve
from perpwatch.model import Kind, Stream

if TYPE_CHECKING:
    from perpwatch.app.bot import Bot

#: Turnover of the most traded contract in quote coin a day, and how it falls off with the rank (a power law). Chosen to
#: resemble a futures market: about half of all turnover in the first ten contracts, a few thousand a day in the last.
LARGEST_TURNOVER = 3e9
TURNOVER_EXPONENT = 1.6


class PlannedConnection(msgspec.Struct, frozen=True):
    id: str
    streams: list[str]
    expected_rate: float  # messages a second


class PlannedWish(msgspec.Struct, frozen=True):
    """How many symbols of one subscription type are served in which way."""

    name: str
    streamed: int
    market_wide: int
    derived: int
    polled: int
    unserved: int
    why: str


class PlanReport(msgspec.Struct, frozen=True):
    symbols: int
    max_connections: int
    max_subscriptions_per_connection: int
    planned_subscriptions_per_connection: int
    connections: list[PlannedConnection]
    wishes: list[PlannedWish]
    polled: list[str]  # symbols whose candles are read by REST, most traded first


class LiveConnection(msgspec.Struct, frozen=True):
    """What one connection of a running watch carries."""

    id: str
    state: str
    streams: int  # confirmed
    wanted: int
    rate: float  # messages a second, as measured; as expected where nothing was measured yet
    lag_ms: float  # mean of its frames above the quickest
    handicap: float  # how much heavier a load weighs on it than on its peers
    reconnects: int


class LiveMove(msgspec.Struct, frozen=True):
    """What the next rebalancing would move."""

    stream: str
    source: str
    target: str
    rate: float


class LivePlan(msgspec.Struct, frozen=True):
    connections: list[LiveConnection]
    moves: list[LiveMove]
    rebalanced: int  # streams moved since the start
    polled: list[str]  # symbols whose candles are read by REST
    hot: list[str]  # symbols whose trades are subscribed, hottest first


def live_plan(bot: Bot) -> LivePlan:
    """What the connections of a running watch carry just now, and what would be moved to balance them."""
    pool = bot.feed.pool
    return LivePlan(
        connections=[
            LiveConnection(
                one.source,
                one.state.value,
                one.confirmed,
                one.wanted,
                round(one.expected_rate, 3),
                round(one.lag_ms, 1),
                round(one.handicap, 3),
                one.reconnects,
            )
            for one in pool.status()
        ],
        moves=[LiveMove(str(move.stream), move.source, move.target, round(move.rate, 3)) for move in pool.moves()],
        rebalanced=pool.rebalanced,
        polled=list(bot.feed.polled),
        hot=[stream.symbol for stream in bot.feed.service.rates if stream.kind is Kind.TRADES],
    )


def print_live_plan(plan: LivePlan, console: Console) -> None:
    """The same for people."""
    table = Table(title="connections", title_justify="left", title_style="bold", box=None)
    for column in ("connection", "state", "streams", "messages/s", "lag", "handicap", "reconnects"):
        table.add_column(column, justify="left" if column in ("connection", "state") else "right", header_style="dim")
    for one in plan.connections:
        streams = f"{one.streams}/{one.wanted}"
        lag, handicap = f"{one.lag_ms:.0f} ms", f"{one.handicap:.2f}"
        table.add_row(one.id, one.state, streams, f"{one.rate:.1f}", lag, handicap, str(one.reconnects))
    console.print(table)
    console.print(f"\n{plan.rebalanced} streams were moved so far; rebalancing now would move:", end=" ")
    moves = [f"{move.stream} ({move.rate:.1f}/s) from {move.source} to {move.target}" for move in plan.moves]
    console.print("\n  ".join(["", *moves]) if moves else "nothing", soft_wrap=True)
    for title, symbols in (("Read by REST", plan.polled), ("Trades subscribed", plan.hot)):
        if symbols:
            console.print(f"\n{title} ({len(symbols)}): {', '.join(symbols)}", soft_wrap=True)


def made_up_turnover(count: int) -> dict[str, float]:
    """Contracts that do not exist, with a turnover as unequal as on a real market."""
    return {f"COIN{rank:04}_USDT": LARGEST_TURNOVER / rank**TURNOVER_EXPONENT for rank in range(1, count + 1)}


def plan_report(config: Config, turnover_24h: Mapping[str, float]) -> PlanReport:
    """What would be subscribed where, for symbols with this turnover."""
    limits = limits_of(config)
    per_connection = min(config.websocket.planned_subscriptions_per_connection, limits.max_subscriptions_per_connection)
    capacity = limits.max_connections * per_connection if config.mode is not Mode.REST else 0
    service = serve(turnover_24h, [parse_wish(name) for name in config.websocket.subscription_types], capacity)
    actions = plan(service.rates, [], max_connections=limits.max_connections, per_connection=per_connection)
    return PlanReport(
        symbols=len(turnover_24h),
        max_connections=limits.max_connections,
        max_subscriptions_per_connection=limits.max_subscriptions_per_connection,
        planned_subscriptions_per_connection=per_connection,
        connections=[
            PlannedConnection(
                action.source,
                [str(stream) for stream in action.subscribe],
                round(sum(service.rates[stream] for stream in action.subscribe), 3),
            )
            for action in actions
        ],
        wishes=[
            PlannedWish(
                name,
                ways[Way.STREAMED],
                ways[Way.MARKET_WIDE],
                ways[Way.DERIVED],
                ways[Way.POLLED],
                ways[Way.UNSERVED],
                _why(name, ways, service.rates),
            )
            for name, ways in service.ways.items()
        ],
        polled=list(service.polled),
    )


def _why(name: str, ways: Mapping[Way, int], rates: Mapping[Stream, float]) -> str:
    wish = parse_wish(name)
    if wish.kind is Kind.TICKERS:
        return "one subscription brings the tickers of all symbols" if ways[Way.MARKET_WIDE] else "no socket is allowed"
    if wish.kind is Kind.TRADES:
        rest = f"; for {ways[Way.UNSERVED]} the budget is spent" if ways[Way.UNSERVED] else ""
        return f"the most traded symbols, in the room that candles leave{rest}"
    text = "one subscription a symbol" if ways[Way.STREAMED] else "rolled up here from the Min1 candles, exactly"
    if ways[Way.POLLED]:
        candles = sum(stream.kind is Kind.CANDLES for stream in rates)
        text += f"; sockets have room for {candles} symbols, the less traded rest is read by REST"
    return text


def print_plan(report: PlanReport, console: Console) -> None:
    """The plan for people."""
    wishes = Table(title=f"{report.symbols} symbols", title_justify="left", title_style="bold", box=None)
    for column in ("wish", "streamed", "market-wide", "derived", "polled", "unserved", "why"):
        wishes.add_column(column, justify="left" if column in ("wish", "why") else "right", header_style="dim")
    for wish in report.wishes:
        counts = (wish.streamed, wish.market_wide, wish.derived, wish.polled, wish.unserved)
        wishes.add_row(wish.name, *(str(count) if count else "-" for count in counts), wish.why)
    console.print(wishes)
    connections = Table(
        title=f"{len(report.connections)} of {report.max_connections} connections, planned to carry "
        f"{report.planned_subscriptions_per_connection} of {report.max_subscriptions_per_connection} subscriptions",
        title_justify="left",
        title_style="bold",
        box=None,
    )
    for column in ("connection", "streams", "messages/s", "first streams"):
        connections.add_column(
            column, justify="left" if column in ("connection", "first streams") else "right", header_style="dim"
        )
    for connection in report.connections:
        first = ", ".join(connection.streams[:3]) + (" ..." if len(connection.streams) > 3 else "")
        connections.add_row(connection.id, str(len(connection.streams)), f"{connection.expected_rate:.1f}", first)
    console.print()
    console.print(connections)
    if report.polled:
        console.print(f"\nRead by REST ({len(report.polled)}): {', '.join(report.polled)}", soft_wrap=True)
