"""What a person sees in the terminal: a live picture where there is one, plain lines where there is not.

Everything here goes to standard error; standard output belongs to machines.
"""

from __future__ import annotations

import asyncio
import datetime
import enum
import logging
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.bot import Bot
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.app.freshness import ages_text, freshness_of, served_by_rest
from perpwatch.app.log import set_up_logging
from perpwatch.feed.connection import State
from perpwatch.feed.pool import ConnectionStatus
from perpwatch.model import MINUTE_MS, Batch, Direction, Level, Signal

logger = logging.getLogger(__name__)

REFRESH_S = 0.5  # real seconds
MOVE_MINUTES = 5
#: Rows of each kind in a terminal that is high enough, and the least in one that is not.
MOST_ROWS, LEAST_ROWS = 12, 3
#: Columns below which there is no room for connections and moves beside each other.
NARROW = 110
#: Contracts named in an alert about the whole market.
MARKET_NAMES = 5
#: Lines of the picture that are not rows: borders, titles and the header.
FRAME_LINES = 15

_STATE_STYLE = {State.OPEN: "green", State.DIALLING: "yellow", State.WAITING: "yellow", State.CLOSED: "red"}
_LEVEL_STYLE = {Level.NOTICE: "", Level.STRONG: "bold yellow", Level.EXTREME: "bold red"}
ALERT_COLUMNS = ("time", "symbol", "candle", "level", "why", "price", "data")
_ARROW = {Direction.UP: "▲", Direction.DOWN: "▼", Direction.FLAT: "·"}


class SignalFormat(enum.StrEnum):
    """How signals are shown while the watch runs."""

    AUTO = "auto"  # a live picture in a terminal, log lines elsewhere
    LOG = "log"
    JSONL = "jsonl"


class Outlet:
    """Where a running bot shows what it finds.

    Args:
        speed: market seconds in a real one. What people see is paced in real seconds.
    """

    def __init__(self, config: Config, form: SignalFormat, console: Console, speed: float = 1.0) -> None:
        self._config = config
        self._form = form
        self._console = console
        self._speed = speed
        self._is_live = form is SignalFormat.AUTO and console.is_terminal
        set_up_logging(config.logging, console if self._is_live else None)

    def on_step(self, batch: Batch, step: Step) -> None:
        if self._form is SignalFormat.JSONL:
            for signal in step.signals:
                print(msgspec.json.encode(signal).decode(), flush=True)
        elif not self._is_live:
            for alert in step.alerts:
                logger.info("%s", alert_line(alert))

    async def show(self, bot: Bot, title: str, duration_s: float | None) -> None:
        """Run the bot, with its picture or status lines beside it, until it ends or for so many real seconds."""
        logger.info("%s", title)
        running = asyncio.create_task(bot.run())
        beside = asyncio.create_task(
            show_live(bot, self._console, title, REFRESH_S * self._speed)
            if self._is_live
            else log_status(bot, self._config.analysis_interval * self._speed)
        )
        try:
            await asyncio.wait(
                [running, beside], timeout=duration_s and duration_s * self._speed, return_when="FIRST_COMPLETED"
            )
        finally:
            last = bot.status_line()  # while the connections are still open
            bot.stop()
            await _end(beside)
            await _end(running)
            logger.info("%s", last)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel, wait until everything is freed, and pass on what went wrong before."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def show_live(bot: Bot, console: Console, title: str, every_s: float = REFRESH_S) -> None:
    """Redraw the picture until cancelled."""
    with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live:
        while True:
            live.update(picture(bot, title, console.width, console.height), refresh=True)
            await asyncio.sleep(every_s)


async def log_status(bot: Bot, interval_s: float) -> None:
    """Write a status line now and then until cancelled."""
    while True:
        await asyncio.sleep(interval_s)
        logger.info("%s", bot.status_line())


def alert_line(alert: Alert | MarketAlert) -> str:
    """An alert in one line; of a whole market with the contracts that stand out most."""
    if isinstance(alert, Alert):
        return signal_line(alert.signal) + (" - again, because its volume has doubled" if alert.escalation else "")
    time = datetime.datetime.fromtimestamp(alert.time_ms / 1_000, datetime.UTC)
    return f"{time:%H:%M:%S} ◆ the market: {_crowd(alert)}"


def _crowd(alert: MarketAlert) -> str:
    first = ", ".join(dict.fromkeys(one.symbol for one in alert.alerts[:MARKET_NAMES]))
    return f"{alert.symbols} of {alert.watched} contracts at once, first {first}"


def signal_line(signal: Signal) -> str:
    """A signal in one line, with the numbers to check it by."""
    time = datetime.datetime.fromtimestamp(signal.event_time_ms / 1_000, datetime.UTC)
    candle = f"{signal.timeframe} {'running' if signal.is_running else 'closed'}"
    texts = ", ".join(reason.text for reason in signal.reasons if reason.text)
    return (
        f"{time:%H:%M:%S} {_ARROW[signal.direction]} {signal.symbol} {candle} {signal.level}: {texts}; "
        f"price {signal.price:.10g} ({signal.trust})"
    )


# --- The picture ---------------------------------------------------------------------------------------------------


def picture(bot: Bot, title: str, width: int = 160, height: int = 50) -> RenderableType:
    """The whole watch at one moment, for a terminal of this size; alerts are what a small one keeps."""
    status = bot.feed.pool.status()
    room = height - FRAME_LINES
    if width < NARROW:
        return Group(_header(bot, title, status, is_narrow=True), _alerts(bot.alerts, _rows(room), is_narrow=True))
    beside = max(len(status) + len(served_by_rest(bot)), LEAST_ROWS)
    movers = _rows(max(beside, room // 2))
    upper = Table.grid(expand=True, padding=(0, 1))
    upper.add_column(ratio=3)
    upper.add_column(ratio=2)
    upper.add_row(_connections(bot, status), _movers(bot, movers))
    alerts = _alerts(bot.alerts, _rows(room - max(beside, movers)), is_narrow=False)
    return Group(_header(bot, title, status, is_narrow=False), alerts, upper)


def _rows(room: int) -> int:
    return min(max(room, LEAST_ROWS), MOST_ROWS)


def _header(bot: Bot, title: str, status: Sequence[ConnectionStatus], *, is_narrow: bool) -> RenderableType:
    progress, rest = bot.progress, bot.feed.rest
    now = f"{datetime.datetime.fromtimestamp(bot.engine.now_ms / 1_000, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    missing, fresh = len(bot.engine.repairs), freshness_of(bot)
    facts: list[tuple[str, RenderableType]] = [
        ("market time", now if bot.engine.now_ms else "not known yet"),
        ("history", _bar(progress.warm, progress.watched)),
        ("contracts", f"{progress.watched} watched of {progress.contracts} listed"),
        ("streams up", _bar(sum(series.is_up for series in bot.engine.book.series.values()), progress.watched)),
        (
            "REST",
            f"{rest.counters.requests} calls, {rest.rate:.1f}/s, {rest.counters.rate_limited} refused as too many",
        ),
        ("to read back", Text(f"{missing} symbols" if missing else "nothing", "yellow" if missing else "green")),
        ("data age", ages_text(fresh.all) if fresh.all.symbols else "not known yet"),
        (f"of the {fresh.hot.symbols} most active", ages_text(fresh.hot) if fresh.hot.symbols else "not known yet"),
    ]
    if is_narrow:
        is_open = sum(one.state is State.OPEN for one in status)
        facts.append(("connections", f"{is_open} of {len(status)} open"))
    pairs = 1 if is_narrow else 2
    grid = Table.grid(padding=(0, 2))
    for start in range(0, len(facts), pairs):
        cells: list[RenderableType] = []
        for name, value in facts[start : start + pairs]:
            cells += [Text(name, "dim"), value]
        grid.add_row(*cells)
    return Panel(grid, title=f"[bold]perpwatch[/] · {escape(title)}", title_align="left", border_style="blue")


def _bar(done: int, total: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=max(total, 1), completed=done, width=24), f"{done}/{total}")
    return grid


def _connections(bot: Bot, status: Iterable[ConnectionStatus]) -> RenderableType:
    table = _table("connections", ("", "state", "streams", "data frames", "bad", "back", "last data", "last error"))
    for one in status:
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
    for reason, count in served_by_rest(bot).items():
        table.add_row("rest", Text("reading", "cyan"), f"{count}", "", "", "", "", reason)
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
    since_ms = bot.engine.now_ms - (MOVE_MINUTES + 1) * MINUTE_MS  # that many closed minutes, besides the running one
    for symbol, series in bot.engine.book.series.items():
        first = series.minutes.place(since_ms + 1)
        if first == len(series.minutes) or not (open_ := series.minutes[first].open):
            continue
        running = series.running
        close = running.close if running is not None else series.minutes[-1].close
        turnover = sum(series.minutes.column("turnover", first))
        if running is not None:
            turnover += series.contract.turnover(running.contracts, running.amount)
        moves.append((symbol, close / open_ - 1.0, turnover))
    moves.sort(key=lambda move: (-abs(move[1]), move[0]))
    return moves


def _movers(bot: Bot, rows: int) -> RenderableType:
    table = _table(f"moved most in {MOVE_MINUTES} min", ("", "move", "turnover"))
    for symbol, move, turnover in movers(bot)[:rows]:
        table.add_row(symbol, Text(f"{move:+.2%}", "green" if move > 0 else "red"), f"{turnover:,.0f}")
    return Panel(table, border_style="dim")


def _alerts(alerts: Sequence[Alert | MarketAlert], rows: int, *, is_narrow: bool) -> RenderableType:
    columns = ("time", "symbol", "candle", "why") if is_narrow else ALERT_COLUMNS
    table = _table("alerts", columns)
    newest = alerts[-rows:]
    for alert in reversed(newest):
        cells = _alert_cells(alert) if isinstance(alert, Alert) else _market_cells(alert)
        table.add_row(*(cells[column] for column in columns))
    if not newest:
        table.add_row("", Text("none yet", "dim"))
    return Panel(table, border_style="dim")


def _alert_cells(alert: Alert) -> dict[str, RenderableType]:
    signal = alert.signal
    time = datetime.datetime.fromtimestamp(signal.event_time_ms / 1_000, datetime.UTC)
    colour = {Direction.UP: "green", Direction.DOWN: "red", Direction.FLAT: ""}[signal.direction]
    return {
        "time": f"{time:%H:%M:%S}",
        "symbol": Text(f"{_ARROW[signal.direction]} {signal.symbol}", colour),
        "candle": str(signal.timeframe),
        "level": Text(signal.level.value, _LEVEL_STYLE[signal.level]),
        "why": ", ".join(reason.text for reason in signal.reasons if reason.text),
        "price": f"{signal.price:.10g}",
        "data": signal.trust.value,
    }


def _market_cells(alert: MarketAlert) -> dict[str, RenderableType]:
    time = datetime.datetime.fromtimestamp(alert.time_ms / 1_000, datetime.UTC)
    return {
        "time": f"{time:%H:%M:%S}",
        "symbol": Text("◆ the market", "bold"),
        "candle": "",
        "level": "",
        "why": _crowd(alert),
        "price": "",
        "data": "",
    }


def _table(title: str, columns: Iterable[str]) -> Table:
    """A table whose last words give way first when there is no room."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, expand=True, padding=(0, 1, 0, 0))
    for column in columns:
        ratio = 1 if column in ("why", "last error", "turnover") else None
        table.add_column(column, no_wrap=True, header_style="dim", ratio=ratio)
    return table
