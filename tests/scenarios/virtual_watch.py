"""The whole program over a simulated exchange in virtual time, with all that it found."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perpwatch import sim
from perpwatch.alert.outcomes import Outcome
from perpwatch.alert.policy import Alert, MarketAlert, Suppressed
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import load_config
from perpwatch.app.engine import Step
from perpwatch.app.keeper import Keeper
from perpwatch.model import Batch, Contract, Signal
from perpwatch.store import Database, Reader, Writer

SEED = 7
START_MS = sim.DEFAULT_START_MS


@dataclass
class Found:
    """Everything that a person could be told, in order."""

    signals: list[Signal] = field(default_factory=list)
    alerts: list[Alert | MarketAlert] = field(default_factory=list)
    suppressed: list[Suppressed] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def take(self, step: Step) -> None:
        self.signals += step.signals
        self.alerts += step.alerts
        self.suppressed += step.suppressed
        self.outcomes += step.outcomes


@dataclass
class Live:
    """A watch in virtual time, what it found, and what it was shown."""

    found: Found = field(default_factory=Found)
    batches: list[Batch] = field(default_factory=list)
    contracts: list[Contract] = field(default_factory=list)
    bot: Bot | None = None
    keeper: Keeper | None = None

    def take(self, batch: Batch, step: Step) -> None:
        self.batches.append(batch)
        self.found.take(step)
        if self.keeper is not None:
            self.keeper.note(batch, step)


def watch(
    exchange: sim.SimulatedExchange,
    minutes: float,
    settings: dict[str, Any],
    path: Path | None = None,
    start_ms: int = START_MS,
    beside: Callable[[Bot], Coroutine[Any, Any, None]] | None = None,
) -> Live:
    """Watch an exchange; what was found is stored in ``path``, where one is given.

    It ends like a killed one: nothing is remembered but what was stored with the findings.
    """
    live = Live()

    async def run() -> None:
        clock = sim.Clock.starting_at(start_ms)
        network = sim.SimulatedNetwork(exchange, clock, seed=SEED)
        config = load_config(None, {"rest": {"history_minutes": 240}, **settings})
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(network)
            adapter, jitter = adapter_for(config), random.Random(SEED).random
            bot = live.bot = Bot(config, adapter, network.dial, network.get, clock, jitter, live.take)
            bot.on_ready = lambda: live.contracts.extend(one.contract for one in bot.engine.book.series.values())
            if path is not None:
                database = Database.open(str(path))
                stack.callback(database.close)
                writer = await stack.enter_async_context(Writer(database, is_inline=True))
                live.keeper = Keeper(bot.engine, Reader(database), writer)
                live.keeper.restore(start_ms)
                live.keeper.restore_alerts(start_ms)
                bot.engine.past = live.keeper.past
            task = asyncio.create_task(beside(bot)) if beside is not None else None
            await bot.run(minutes * 60.0)
            if task is not None:
                await task

    sim.run_virtual(run())
    return live
