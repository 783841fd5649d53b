"""``perpwatch run``, ``record`` and ``signals``: a watch that goes on until somebody ends it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer

from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.commanded import commanded
from perpwatch.app.config import Config, file_in_use, load_config
from perpwatch.app.health import Monitor, watch_over
from perpwatch.app.kept import kept
from perpwatch.app.ledger_cli import span_ms
from perpwatch.app.memory import tended
from perpwatch.app.printing import ConfigOption, Format, console, print_rows
from perpwatch.app.recorder import recorder
from perpwatch.app.runner import run_program
from perpwatch.app.senders import load_libraries
from perpwatch.app.telling import telling
from perpwatch.app.view import Outlet, SignalFormat
from perpwatch.feed.connection import SystemClock, dial_with
from perpwatch.feed.rest import http_over_network
from perpwatch.store import open_reader

DurationOption = Annotated[
    float | None,
    typer.Option(
        "--duration", min=0.1, help="Stop after so many real seconds; without it, Ctrl-C stops.", metavar="SECONDS"
    ),
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


def run(
    config: ConfigOption = None,
    duration: DurationOption = None,
    format: SignalFormatOption = SignalFormat.AUTO,
    dashboard: DashboardOption = True,
) -> None:
    """Watch the live exchange, or whatever websocket.base_url and rest.base_url point to.

    An exchange that cannot be reached is tried again and again, and each warning says when the next try is.
    """
    settings = with_pages(load_config(config), dashboard)
    run_program(_run_live(settings, file_in_use(config), duration, format), _fast_loop)


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
    quiet = {name: {"enabled": False} for name in ("alerts", "dashboard", "health", "store")} | {"recording": recording}
    run_program(_run_live(settings.with_overrides(quiet), file_in_use(config), duration, SignalFormat.LOG), _fast_loop)


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
        _print_kept_signals(load_config(config), file_in_use(config), span_ms(since))
        return
    # It may run beside a watch that serves and keeps; this one only prints.
    quiet = {name: {"enabled": False} for name in ("alerts", "dashboard", "health", "recording", "store")}
    settings = load_config(config).with_overrides(quiet)
    run_program(_run_live(settings, None, duration, SignalFormat.JSONL), _fast_loop)


def _fast_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


def _print_kept_signals(config: Config, config_file: Path | None, since_ms: int) -> None:
    with open_reader(config.store.address(config_file)) as reader:
        kept_signals = reader.signals(int(time.time() * 1_000) - since_ms, limit=1_000_000)
    print_rows(kept_signals, Format.JSONL)


def with_pages(settings: Config, wanted: bool) -> Config:
    """The same settings, without the dashboard when the command line does not want it."""
    return settings if wanted else settings.with_overrides({"dashboard": {"enabled": False}})


async def _run_live(config: Config, config_file: Path | None, duration_s: float | None, form: SignalFormat) -> None:
    load_libraries(config.alerts)
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
            kept(bot, config.store, config_file) as keeper,
            watch_over(bot, config.health, get) as monitor,
            telling(bot, config, monitor, keeper, config_file) as deliveries,
            commanded(bot, config.alerts, monitor, keeper, deliveries),
            pages_of(bot, monitor, config, title, config_file=config_file) as address,
            tended(bot),
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
