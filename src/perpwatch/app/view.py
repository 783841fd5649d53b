"""What a person sees in the terminal: a live picture where there is one, plain lines where there is not.

Everything here goes to standard error; standard output belongs to machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import enum
import logging
from collections.abc import Iterable

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from perpwatch.app.bot import Bot
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.app.log import set_up_logging
from perpwatch.feed.connection import State
from perpwatch.feed.pool import ConnectionStatus
from perpwatch.model import Batch, Direction, Level, Signal

logger = logging.getLogger(__name__)

REFRESH_S = 0.5
MOVE_MINUTES = 5
MOVERS = 12
SIGNALS = 12

_STATE_STYLE = {State.OPEN: "green", State.DIALLING: "yellow", State.WAITING: "yellow", State.CLOSED: "red"}
_LEVEL_STYLE = {Level.NOTICE: "", Level.STRONG: "bold yellow", Level.EXTREME: "bold red"}
_ARROW = {Direction.UP: "▲", Direction.DOWN: "▼", Direction.FLAT: "·"}


class SignalFormat(enum.StrEnum):
    """How signals are shown while the watch runs."""

    AUTO = "auto"  # a live picture in a terminal, log lines elsewhere
    LOG = "log"
    JSONL = "jsonl"


class Outlet:
    """Where a running bot shows what it finds."""

    def __init__(self, config: Config, form: SignalFormat, console: Console) -> None:
        self._config = config
        self._form = form
        self._console = console
        self._is_live = form is SignalFormat.AUTO and console.is_terminal
        set_up_logging(config.logging, console if self._is_live else None)

    def on_step(self, batch: Batch, step: Step) -> None:
        for signal in step.signals:
            if self._form is SignalFormat.JSONL:
                print(msgspec.json.encode(signal).decode(), flush=True)
            elif not self._is_live:
                logger.info("%s", signal_line(signal))

    async def show(self, bot: Bot, title: str, duration_s: float | None) -> None:
        """Run the bot, with its picture or status lines beside it, until it ends."""
        logger.info("%s", title)
        beside = (
            show_live(bot, self._console, title) if self._is_live else log_status(bot, self._config.analysis_interval)
        )
        task = asyncio.create_task(beside)
        try:
            await bot.run(duration_s)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        logger.info("%s", bot.status_line())


async def show_live(bot: Bot, console: Console, title: str) -> None:
    """Redraw the picture until cancelled."""
    with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live:
        while True:
            live.update(picture(bot, title), refresh=True)
            await asyncio.sleep(REFRESH_S)


async def log_status(bot: Bot, interval_s: float) -> None:
    """Write a status line now and then until cancelled."""
    while True:
        await asyncio.sleep(interval_s)
        logger.info("%s", bot.status_line())


def signal_line(signal: Signal) -> str:
    """A signal in one line, with the numbers to check it by."""
    time = datetime.datetime.fromtimestamp(signal.event_time_ms / 1_000, datetime.UTC)
    candle = f"{signal.timeframe} {'running' if signal.is_running else 'closed'}"
    texts = ", ".join(reason.text for reason in signal.reasons if reason.text)
    return (
        f"{time:%H:%M:%S} {_ARROW[signal.direction]} {signal.symbol} {candle} {signal.level}: {texts}; "
        f"price {signal.price:g} ({signal.trust})"
    )


# --- The picture ---------------------------------------------------------------------------------------------------


def picture(bot: Bot, title: str) -> RenderableType:
    upper = Table.grid(expand=True, padding=(0, 1))
    upper.add_column(ratio=3)
    upper.add_column(ratio=2)
    upper.add_row(_connections(bot), _movers(bot))
    return Group(_header(bot, title), upper, _signals(bot.signals))


def _header(bot: Bot, title: str) -> RenderableType:
    progress, rest = bot.progress, bot.feed.rest
    market_time = datetime.datetime.fromtimestamp(bot.engine.now_ms / 1_000, datetime.UTC)
    grid = Table.grid(padding=(0, 2))
    for _ in range(4):
        grid.add_column()
    grid.add_row(
        Text("market time", "dim"),
        f"{market_time:%Y-%m-%d %H:%M:%S} UTC",
        Text("history", "dim"),
        _bar(progress.warm, progress.watched),
    )
    grid.add_row(
        Text("contracts", "dim"),
        f"{progress.watched} watched of {progress.contracts} listed",
        Text("streams up", "dim"),
        _bar(sum(series.is_up for series in bot.engine.book.series.values()), progress.watched),
    )
    missing = len(bot.engine.repairs)
    grid.add_row(
        Text("REST", "dim"),
        f"{rest.counters.requests} calls, {rest.rate:.1f}/s, {rest.counters.rate_limited} refused as too many",
        Text("to read back", "dim"),
        Text(f"{missing} symbols" if missing else "nothing", "yellow" if missing else "green"),
    )
    return Panel(grid, title=f"[bold]perpwatch[/] · {title}", title_align="left", border_style="blue")


def _bar(done: int, total: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=max(total, 1), completed=done, width=24), f"{done}/{total}")
    return grid


def _connections(bot: Bot) -> RenderableType:
    table = _table("connections", ("", "state", "streams", "data frames", "bad", "back", "last data", "last error"))
    for one in bot.feed.pool.status():
        table.add_row(
            one.source,
            Text(one.state.value, _STATE_STYLE[one.state]),
            f"{one.confirmed}/{one.wanted}",
            f"{one.data_frames:,}",
            str(one.bad_frames),
            str(one.reconnects),
            "-" if one.data_age_s is None else f"{one.data_age_s:.1f} s",
            _trouble(one),
        )
    polled = len(bot.feed.service.polled)
    if polled:
        table.add_row("rest", Text("polling", "cyan"), f"{polled}", "", "", "", "", "no room on the sockets")
    return Panel(table, border_style="dim")


def _trouble(one: ConnectionStatus) -> Text:
    if one.retry_in_s is not None:
        return Text(
            f"next try in {one.retry_in_s:.0f} s: {one.last_error}", "yellow", overflow="ellipsis", no_wrap=True
        )
    return Text(one.last_error or "", "dim", overflow="ellipsis", no_wrap=True)


def movers(bot: Bot) -> list[tuple[str, float, float]]:
    """Symbols by how far they moved in the last minutes: (symbol, fraction moved, turnover meanwhile)."""
    moves = []
    for symbol, series in bot.engine.book.series.items():
        minutes = series.minutes[-MOVE_MINUTES:]
        if not minutes or not minutes[0].open:
            continue
        running = series.running
        close = running.close if running is not None else minutes[-1].close
        turnover = sum(minute.turnover for minute in minutes)
        if running is not None:
            turnover += series.contract.turnover(running.contracts, running.amount)
        moves.append((symbol, close / minutes[0].open - 1.0, turnover))
    moves.sort(key=lambda move: (-abs(move[1]), move[0]))
    return moves[:MOVERS]


def _movers(bot: Bot) -> RenderableType:
    table = _table(f"moved most in {MOVE_MINUTES} min", ("", "move", "turnover"))
    for symbol, move, turnover in movers(bot):
        table.add_row(symbol, Text(f"{move:+.2%}", "green" if move > 0 else "red"), f"{turnover:,.0f}")
    return Panel(table, border_style="dim")


def _signals(signals: Iterable[Signal]) -> RenderableType:
    table = _table("signals", ("time", "symbol", "candle", "level", "why", "price", "data"))
    newest = list(signals)[-SIGNALS:]
    for signal in reversed(newest):
        time = datetime.datetime.fromtimestamp(signal.event_time_ms / 1_000, datetime.UTC)
        colour = {Direction.UP: "green", Direction.DOWN: "red", Direction.FLAT: ""}[signal.direction]
        table.add_row(
            f"{time:%H:%M:%S}",
            Text(f"{_ARROW[signal.direction]} {signal.symbol}", colour),
            f"{signal.timeframe}{' running' if signal.is_running else ''}",
            Text(signal.level.value, _LEVEL_STYLE[signal.level]),
            ", ".join(reason.text for reason in signal.reasons if reason.text),
            f"{signal.price:g}",
            signal.trust.value,
        )
    if not newest:
        table.add_row("", Text("none yet", "dim"), "", "", "", "", "")
    return Panel(table, border_style="dim")


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, expand=True, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, header_style="dim")
    return table
