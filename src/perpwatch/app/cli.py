"""The command line. Output for machines goes to standard output, everything else to standard error.

Exit codes: 0 all went well, also when Ctrl-C ended it; 1 the exchange could not be reached or said no; 2 the settings
or the command line cannot be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import datetime
import enum
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import tomli_w
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perpwatch.app.bot import Bot, adapter_for, universe_filter
from perpwatch.app.chaos_cli import chaos
from perpwatch.app.config import DEFAULT_FILE, Config, flat, load_config
from perpwatch.app.db import db_app
from perpwatch.app.demo import DemoOptions, demo_bot, serve_exchange
from perpwatch.app.export_cli import export_command
from perpwatch.app.health import Monitor, watch_over
from perpwatch.app.kept import kept
from perpwatch.app.lab_cli import Spread, add_lab
from perpwatch.app.ledger_cli import ledger, span_ms
from perpwatch.app.log import set_up_logging
from perpwatch.app.model_cli import model_app
from perpwatch.app.planning import LivePlan, made_up_turnover, plan_report, print_live_plan, print_plan
from perpwatch.app.recorder import recorder
from perpwatch.app.replay_cli import diff, replay
from perpwatch.app.rules_cli import rules_app
from perpwatch.app.scorecard_cli import scorecard
from perpwatch.app.view import Outlet, SignalFormat
from perpwatch.errors import ApiError, ConfigurationError, ExchangeError, StoreError
from perpwatch.exchanges.adapter import Adapter
from perpwatch.feed.connection import SystemClock, dial_with
from perpwatch.feed.rest import Priority, RestClient, http_over_network
from perpwatch.market.universe import Member, choose
from perpwatch.model import Candle, Finality, Timeframe
from perpwatch.sim.clock import ScaledLoop
from perpwatch.store import Database, Reader

app = typer.Typer(
    help="Watches every perpetual futures contract of an exchange at once, and says which one behaves unusually.\n\n"
    "Begin with `perpwatch demo`: it needs no network. Settings come from --config FILE, else from perpwatch.toml in "
    "this folder, else they are the defaults; each can also be given in the environment "
    "(PERPWATCH_WEBSOCKET__MAX_CONNECTIONS=5).",
    epilog="Output for machines goes to standard output, everything else to standard error. "
    "Exit codes: 0 fine, 1 the exchange could not be reached or said no, 2 wrong settings or usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Check or print the settings.", no_args_is_help=True)
app.add_typer(config_app, name="config")

#: For people. Machines read standard output.
console = Console(stderr=True, highlight=False)


class Format(enum.StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; perpwatch.toml in this folder when there is one.")
]
DurationOption = Annotated[
    float | None,
    typer.Option(
        "--duration", min=0.1, help="Stop after so many real seconds; without it, Ctrl-C stops.", metavar="SECONDS"
    ),
]
PairsOption = Annotated[int, typer.Option("--pairs", min=1, max=20_000, help="Contracts of the built-in exchange.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Number of the market; the same number makes the same one.")]
SpeedOption = Annotated[float, typer.Option("--speed", min=0.1, max=200, help="Market seconds in a real one.")]
FormatOption = Annotated[
    Format, typer.Option("--format", help="table is for people; json, jsonl (one object a line) and csv for machines.")
]
SignalFormatOption = Annotated[
    SignalFormat,
    typer.Option(
        "--format",
        help="auto is a live picture in a terminal and log lines elsewhere; log is always lines; jsonl prints each "
        "signal as a JSON object on standard output.",
    ),
]

DashboardOption = Annotated[bool, typer.Option("--dashboard/--no-dashboard", help="Serve pages and API.")]


def main() -> None:
    """Entry point: errors that a user can mend become one line and an exit code."""
    try:
        app()
    except ConfigurationError as error:
        console.print(f"[bold red]configuration:[/] {escape(str(error))}", markup=True, soft_wrap=True)
        sys.exit(2)
    except ExchangeError as error:
        console.print(f"[bold red]exchange:[/] {escape(str(error))}", markup=True, soft_wrap=True)
        sys.exit(1)
    except StoreError as error:
        console.print(f"[bold red]store:[/] {escape(str(error))}", markup=True, soft_wrap=True)
        sys.exit(1)


# --- Watching ------------------------------------------------------------------------------------------------------


@app.command()
def run(
    config: ConfigOption = None,
    duration: DurationOption = None,
    format: SignalFormatOption = SignalFormat.AUTO,
    dashboard: DashboardOption = True,
) -> None:
    """Watch the live exchange, or whatever websocket.base_url and rest.base_url point to.

    An exchange that cannot be reached is tried again and again, and each warning says when the next try is.
    """
    settings = _with_pages(load_config(config), dashboard)
    _run(_run_live(settings, _file_of(config), duration, format), fast=True)


@app.command()
def record(
    config: ConfigOption = None,
    duration: DurationOption = None,
    folder: Annotated[Path | None, typer.Option(help="Where to; else recording.folder of the settings.")] = None,
) -> None:
    """Watch the live exchange like `run`, and record all it sends; nothing else is kept or served.

    `perpwatch replay` runs it again. To record beside a watch, set recording.enabled.
    """
    settings = load_config(config)
    recording = {"enabled": True} | ({"folder": str(folder)} if folder is not None else {})
    quiet = {"health": {"enabled": False}, "store": {"enabled": False}, "recording": recording}
    quiet["dashboard"] = {"enabled": False}
    _run(_run_live(settings.with_overrides(quiet), _file_of(config), duration, SignalFormat.LOG), fast=True)


@app.command()
def signals(
    config: ConfigOption = None,
    duration: DurationOption = None,
    since: Annotated[
        str | None, typer.Option(help="Print those that a watch has kept since 30m, 6h, 2d ago, and end.")
    ] = None,
) -> None:
    """Watch like `run`, and print every signal as a JSON object on a line of standard output.

    The keys are the fields of perpwatch.model.Signal.
    """
    if since is not None:
        _print_kept_signals(load_config(config), _file_of(config), span_ms(since))
        return
    # It may run beside a watch that serves and keeps; this one only prints.
    quiet = {"health": {"enabled": False}, "store": {"enabled": False}, "recording": {"enabled": False}}
    quiet["dashboard"] = {"enabled": False}
    settings = load_config(config).with_overrides(quiet)
    _run(_run_live(settings, None, duration, SignalFormat.JSONL), fast=True)


@app.command()
def demo(
    config: ConfigOption = None,
    duration: DurationOption = None,
    pairs: PairsOption = 800,
    seed: SeedOption = 1,
    speed: SpeedOption = 1.0,
    format: SignalFormatOption = SignalFormat.AUTO,
    dashboard: DashboardOption = True,
) -> None:
    """Watch the built-in exchange over real local sockets; nothing leaves this machine.

    Everything but the exchange is what `run` uses. The first large move comes within half a minute of market time.
    """
    settings = _with_pages(load_config(config), dashboard)
    _run(_run_demo(settings, duration, DemoOptions(pairs, seed, speed), format), speed=speed)


@app.command()
def sim(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8700,
    pairs: PairsOption = 800,
    seed: SeedOption = 1,
    speed: SpeedOption = 1.0,
    duration: DurationOption = None,
) -> None:
    """Run the built-in exchange alone, for any client that speaks the protocol of MEXC Futures.

    Prints its addresses as one JSON object. GET /sim/truth tells the moves that are planted, GET /sim/status what has
    happened, POST /sim/faults makes things go wrong.
    """

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            try:
                server = await stack.enter_async_context(serve_exchange(DemoOptions(pairs, seed, speed, port)))
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else str(error)
                raise ConfigurationError("--port", port, f"{reason}; 0 takes a free one") from error
            print(
                msgspec.json.encode({"websocket": server.websocket_url, "rest": server.rest_url}).decode(), flush=True
            )
            console.print(
                f"{pairs} contracts at {server.websocket_url} and {server.rest_url}; Ctrl-C ends it", soft_wrap=True
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if duration is None else duration * speed):
                    await asyncio.get_running_loop().create_future()

    _run(serve(), speed=speed)


def _run(program: Coroutine[Any, Any, None], *, speed: float = 1.0, fast: bool = False) -> None:
    """Run ``program`` to its end; Ctrl-C and SIGTERM end it cleanly."""

    def loop() -> asyncio.AbstractEventLoop:
        if fast and sys.platform != "win32":
            import uvloop

            return uvloop.new_event_loop()
        if speed != 1.0:
            return ScaledLoop(speed)
        return asyncio.new_event_loop()

    async def guarded() -> None:
        task = asyncio.ensure_future(program)
        running = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            running.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(guarded())
    except BaseExceptionGroup as group:
        cause = _expected_cause(group)
        if cause is None:
            raise
        raise cause from group


def _expected_cause(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Why tasks that run together ended, when it is nothing but the exchange or a reader who has gone away."""
    others, causes = group.split((ExchangeError, BrokenPipeError))[::-1]
    if others is not None:
        return None
    cause: BaseException | None = causes
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause


def _print_kept_signals(config: Config, config_file: Path | None, since_ms: int) -> None:
    database = Database.open(config.store.address(config_file), migrate=False)
    try:
        kept_signals = Reader(database).signals(int(time.time() * 1_000) - since_ms, limit=1_000_000)
    finally:
        database.close()
    _print_rows(kept_signals, Format.JSONL)


def _with_pages(settings: Config, wanted: bool) -> Config:
    """The same settings, without the dashboard when the command line does not want it."""
    return settings if wanted else settings.with_overrides({"dashboard": {"enabled": False}})


def _file_of(config: Path | None) -> Path | None:
    """The configuration file in use; what is kept lies beside it."""
    return config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)


async def _run_live(config: Config, config_file: Path | None, duration_s: float | None, form: SignalFormat) -> None:
    outlet = Outlet(config, form, console)
    adapter = adapter_for(config)
    dial = dial_with(proxy=config.network.proxy, max_frame_bytes=adapter.limits.max_frame_bytes)
    clock = SystemClock()
    async with http_over_network(proxy=config.network.proxy) as get, contextlib.AsyncExitStack() as stack:
        recording = stack.enter_context(recorder(config, config_file, clock)) if config.recording.enabled else None
        ports = recording.ports(dial, get) if recording is not None else (dial, get)
        bot = Bot(config, adapter, *ports, clock, random.Random().random, outlet.on_step)
        if recording is not None:
            recording.attach(bot)
        title = f"{config.exchange} at {adapter.websocket_url}"
        async with (
            kept(bot, config.store, config_file),
            watch_over(bot, config.health, get) as monitor,
            pages_of(bot, monitor, config, title, config_file=config_file) as address,
        ):
            if address:
                console.print(f"dashboard at {address}", soft_wrap=True)
            await outlet.show(bot, title, duration_s)


async def _run_demo(config: Config, duration_s: float | None, options: DemoOptions, form: SignalFormat) -> None:
    outlet = Outlet(config, form, console, options.speed)
    async with serve_exchange(options) as server:
        title = f"built-in exchange at {server.websocket_url}"
        title += f", {options.speed:g} times real time" if options.speed != 1.0 else ""
        # A demonstration keeps nothing, and takes any free port: a real watch may be running beside it.
        health = config.health.model_copy(update={"port": 0})
        async with (
            demo_bot(config, server, outlet.on_step) as (bot, get),
            watch_over(bot, health, get) as monitor,
            pages_of(bot, monitor, config, title, is_demo=True, speed=options.speed) as address,
        ):
            if address:
                console.print(f"dashboard at {address}", soft_wrap=True)
            await outlet.show(bot, title, duration_s)


@contextlib.asynccontextmanager
async def pages_of(
    bot: Bot,
    monitor: Monitor,
    config: Config,
    title: str,
    *,
    config_file: Path | None = None,
    is_demo: bool = False,
    speed: float = 1.0,
) -> AsyncIterator[str]:
    """API and pages around a bot, where they are wanted; yields their address, or nothing."""
    if not config.dashboard.enabled:
        yield ""
        return
    # Only here: a watch without pages does not carry their libraries.
    from perpwatch.app.dashboard.server import dashboard

    async with dashboard(
        bot,
        monitor,
        config,
        title,
        config_file=config_file,
        has_store=not is_demo,
        may_move=is_demo,
        speed=speed,
    ) as address:
        yield address


# --- Looking things up ---------------------------------------------------------------------------------------------


@app.command("plan")
def show_plan(
    config: ConfigOption = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Plan for so many made-up contracts instead of asking the exchange.")
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Ask the running watch what its connections carry, and what it would move."),
    ] = False,
    address: Annotated[
        str | None, typer.Option("--at", help="Where it serves its health; that of the settings by default.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Print the subscription plan: which stream goes where, and what is not streamed and why."""
    settings = load_config(config)
    if live or address is not None:
        _show_live_plan(address or f"http://{settings.health.host}:{settings.health.port}", format)
        return
    turnover = made_up_turnover(count) if count is not None else asyncio.run(_ask_turnover(settings))
    report = plan_report(settings, turnover)
    match format:
        case Format.TABLE:
            print_plan(report, _stdout())
        case Format.JSON:
            _print_json(report)
        case Format.JSONL:
            _print_line(report)
        case Format.CSV:
            _print_rows(report.connections, format)


def _show_live_plan(address: str, format: Format) -> None:
    plan = asyncio.run(_ask_live_plan(address.rstrip("/")))
    match format:
        case Format.TABLE:
            print_live_plan(plan, _stdout())
        case Format.JSON:
            _print_json(plan)
        case Format.JSONL:
            _print_line(plan)
        case Format.CSV:
            _print_rows(plan.connections, format)


async def _ask_live_plan(address: str) -> LivePlan:
    async with http_over_network() as get:
        try:
            async with asyncio.timeout(10.0):
                answer = await get(f"{address}/plan", {})
            return msgspec.json.decode(answer.body, type=LivePlan)
        except (ExchangeError, TimeoutError) as error:
            expected = "the address of a running watch; it says where it serves its health when it starts"
            raise ConfigurationError("--at", address, expected) from error
        except msgspec.MsgspecError as error:
            expected = "the address of a running watch of this version; something else answers there"
            raise ConfigurationError("--at", address, expected) from error


@app.command()
def symbols(
    config: ConfigOption = None,
    format: FormatOption = Format.TABLE,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say for each why it is watched or not, with the numbers that decided.")
    ] = False,
) -> None:
    """List the exchange's contracts, pins first, then the most traded, and whether each is watched.

    What a running watch keeps because it watched it before, and how active contracts are, only that watch knows.
    """
    settings = load_config(config)

    async def ask() -> list[Member]:
        async with _rest(settings) as (rest, adapter):
            contracts = await rest.fetch(adapter.contracts(), Priority.CONTROL)
            tickers = await rest.fetch(adapter.tickers(), Priority.CONTROL)
            now_ms = await rest.fetch(adapter.server_time(), Priority.CONTROL)
            return choose(contracts, tickers, universe_filter(settings), now_ms)

    rows = [
        msgspec.structs.asdict(member.contract)
        | {
            "turnover_24h": member.turnover_24h,
            "tier": member.tier,
            "rank": member.rank,
            "age_days": member.age_days,
            "is_pinned": member.is_pinned,
            "is_watched": member.is_watched,
            "reason": member.reason,
            "explanation": member.explanation,
        }
        for member in asyncio.run(ask())
    ]
    last = ("explanation",) if explain else ("contract_size", "settle_coin", "is_watched", "reason")
    columns = ("symbol", "asset_class", "tier", "turnover_24h", *last)
    _print_rows(rows, format, columns)


@app.command()
def candles(
    symbol: Annotated[str, typer.Argument(help="For example BTC_USDT.")],
    config: ConfigOption = None,
    timeframe: Annotated[Timeframe, typer.Option(help="Length of a candle.")] = Timeframe.Min1,
    limit: Annotated[int, typer.Option(min=1, max=2_000, help="So many of the newest.")] = 20,
    format: FormatOption = Format.TABLE,
) -> None:
    """Print the newest candles of a contract, as the exchange has them; the last one is still open."""
    settings = load_config(config)

    async def ask() -> list[Candle]:
        async with _rest(settings) as (rest, adapter):
            try:
                contract = await rest.fetch(adapter.contract(symbol.upper()), Priority.CONTROL)
            except ApiError as error:
                raise ExchangeError(f"{symbol.upper()}: {error}; `perpwatch symbols` lists what there is") from error
            now_ms = await rest.fetch(adapter.server_time(), Priority.CONTROL)
            # All that one request can bring: the exchange may leave out candles without trades.
            start_ms = max(0, now_ms - adapter.limits.max_candles_per_request * timeframe.milliseconds)
            history = await rest.fetch(adapter.candles(contract, timeframe, start_ms, now_ms), Priority.CONTROL)
            newest = list(history.candles)[-limit:]
            return [_open_if_running(candle, now_ms) for candle in newest]

    columns = ("open_time_ms", "open", "high", "low", "close", "contracts", "base_volume", "turnover", "finality")
    _print_rows([msgspec.to_builtins(candle) for candle in asyncio.run(ask())], format, columns)


def _open_if_running(candle: Candle, now_ms: int) -> Candle:
    return msgspec.structs.replace(candle, finality=Finality.OPEN) if candle.close_time_ms > now_ms else candle


@config_app.command("show")
def config_show(
    config: ConfigOption = None,
    format: Annotated[
        Format, typer.Option("--format", help="table is TOML; csv has one setting a line, as key and JSON value.")
    ] = Format.TABLE,
) -> None:
    """Print every setting as it is in force; as TOML, it is a file that --config takes."""
    settings = load_config(config)
    match format:
        case Format.TABLE:
            print(tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)), end="")
        case Format.JSON:
            _print_json(settings.model_dump(mode="json"))
        case Format.JSONL:
            _print_line(settings.model_dump(mode="json"))
        case Format.CSV:
            _print_rows(
                [
                    {"key": key, "value": msgspec.json.encode(value).decode()}
                    for key, value in flat(settings.model_dump(mode="json")).items()
                ],
                format,
            )


@config_app.command("check")
def config_check(config: ConfigOption = None) -> None:
    """Say whether the settings can be used; exit code 2, with key, value and what would be right, when not."""
    load_config(config)
    console.print("the configuration is good")


@contextlib.asynccontextmanager
async def _rest(config: Config) -> AsyncIterator[tuple[RestClient, Adapter]]:
    set_up_logging(config.logging)
    adapter = adapter_for(config)
    async with http_over_network(proxy=config.network.proxy) as get:
        yield RestClient(adapter.rest_url, get, SystemClock(), adapter.limits.requests_per_second), adapter


async def _ask_turnover(config: Config) -> dict[str, float]:
    async with _rest(config) as (rest, adapter):
        contracts = await rest.fetch(adapter.contracts(), Priority.CONTROL)
        tickers = await rest.fetch(adapter.tickers(), Priority.CONTROL)
        now_ms = await rest.fetch(adapter.server_time(), Priority.CONTROL)
    members = choose(contracts, tickers, universe_filter(config), now_ms)
    return {member.contract.symbol: member.turnover_24h for member in members if member.is_watched}


# Commands that fill files of their own stand behind the others in the list.
app.command()(ledger)
app.command()(scorecard)
app.add_typer(db_app, name="db")
add_lab(app)
app.add_typer(rules_app, name="rules")
app.add_typer(model_app, name="model")
app.command()(chaos)
app.command(cls=Spread)(replay)
app.command()(diff)
app.command("export")(export_command)


# --- Printing ------------------------------------------------------------------------------------------------------


def _stdout() -> Console:
    """Standard output for people; wide where it is no terminal, so that a pipe does not fold lines."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def _print_json(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def _print_line(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")


#: Columns of words, which are read from the left.
_LEFT = ("symbol", "asset_class", "tier", "reason", "explanation")


def _print_rows(rows: Sequence[Any], format: Format, columns: Sequence[str] | None = None) -> None:
    """Print rows in one of the formats; a table shows ``columns`` only, machines get everything."""
    mappings: list[dict[str, Any]] = [msgspec.to_builtins(row) for row in rows]
    match format:
        case Format.JSON:
            _print_json(mappings)
        case Format.JSONL:
            for row in mappings:
                _print_line(row)
        case Format.CSV:
            names = list(mappings[0]) if mappings else list(columns or ())
            writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
            writer.writeheader()
            for row in mappings:
                writer.writerow(
                    {name: " ".join(value) if isinstance(value, list) else value for name, value in row.items()}
                )
        case Format.TABLE:
            table = Table(box=None, header_style="bold")
            shown = columns or list(mappings[0] if mappings else ())
            for column in shown:
                table.add_column(column, justify="left" if column in _LEFT else "right")
            for row in mappings:
                table.add_row(*(_cell(column, row[column]) for column in shown))
            _stdout().print(table)


def _cell(column: str, value: Any) -> str:
    if column.endswith("_time_ms"):
        return f"{datetime.datetime.fromtimestamp(value / 1_000, datetime.UTC):%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100_000 else f"{value:.10g}"
    return str(value)
