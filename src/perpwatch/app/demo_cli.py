"""``perpwatch demo`` and ``sim``: the built-in exchange, watched or alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Annotated

import msgspec
import typer

from perpwatch.app.alerts_config import LOCAL_CHANNELS
from perpwatch.app.config import Config, load_config
from perpwatch.app.demo import DemoOptions, demo_bot, serve_exchange
from perpwatch.app.health import watch_over
from perpwatch.app.memory import tended
from perpwatch.app.printing import ConfigOption, console
from perpwatch.app.runner import run_program
from perpwatch.app.telling import telling
from perpwatch.app.view import Outlet, SignalFormat
from perpwatch.app.watch_cli import DashboardOption, DurationOption, SignalFormatOption, pages_of, with_pages
from perpwatch.errors import ConfigurationError
from perpwatch.sim.clock import ScaledLoop

PairsOption = Annotated[int, typer.Option("--pairs", min=1, max=20_000, help="Contracts of the built-in exchange.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Number of the market; the same number makes the same one.")]
SpeedOption = Annotated[float, typer.Option("--speed", min=0.1, max=200, help="Market seconds in a real one.")]


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
    settings = with_pages(load_config(config), dashboard)
    run_program(_run_demo(settings, duration, DemoOptions(pairs, seed, speed), format), lambda: _loop(speed))


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

    run_program(serve(), lambda: _loop(speed))


def _loop(speed: float) -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop() if speed == 1.0 else ScaledLoop(speed)


def without_people(config: Config) -> Config:
    """The same settings without the channels that reach beyond this machine: a market that is made up is no news."""
    local = {name: one for name, one in config.alerts.channels.items() if isinstance(one, LOCAL_CHANNELS)}
    return config.model_copy(update={"alerts": config.alerts.model_copy(update={"channels": local})})


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
            telling(bot, without_people(config), monitor, None, None),
            pages_of(bot, monitor, config, title, is_demo=True, speed=options.speed) as address,
            tended(bot),
        ):
            if address:
                console.print(f"dashboard at {address}", soft_wrap=True)
            await outlet.show(bot, title, duration_s)
