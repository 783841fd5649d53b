"""A bot under watch, in virtual time against the simulated exchange."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from perpwatch.alert.operational import OperationalAlert
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.health import Monitor, watch_over
from perpwatch.app.health_config import HealthConfig
from perpwatch.feed.connection import Clock as AnyClock
from perpwatch.sim import DEFAULT_START_MS, Clock, FaultEvent, Faults, Pump, SimulatedNetwork, build, run_virtual

#: A small market, so that it needs several connections they are small as well.
SETTINGS: dict[str, Any] = {
    "rest": {"history_minutes": 120},
    "websocket": {"planned_subscriptions_per_connection": 15},
}

#: Called beside the bot; what it waits for is market time.
Visitor = Callable[[Monitor], Awaitable[None]]


async def _nobody(_monitor: Monitor) -> None:
    pass


class DriftingClock:
    """Market time with a wall clock that is wrong by ``offset_s`` from ``after_s`` on."""

    def __init__(self, clock: Clock, after_s: float, offset_s: float) -> None:
        self._clock = clock
        self._wrong_from_s = clock.monotonic() + after_s
        self._offset_s = offset_s

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def time_ns(self) -> int:
        is_wrong = self._clock.monotonic() >= self._wrong_from_s
        return self._clock.time_ns() + (int(self._offset_s * 1e9) if is_wrong else 0)


def event(second: float, kind: Any, target: str = "", lasts_s: float = 0.0) -> FaultEvent:
    """Something that goes wrong so many seconds after the start."""
    return FaultEvent(DEFAULT_START_MS + int(second * 1_000), kind, target, int(lasts_s * 1_000))


def run_watched(
    minutes: float,
    faults: Faults | None = None,
    *,
    contracts: int = 40,
    settings: dict[str, Any] | None = None,
    health: HealthConfig | None = None,
    visitor: Visitor = _nobody,
    drift: tuple[float, float] | None = None,
    pump_at_s: float | None = None,
    changes: Sequence[tuple[float, Faults]] = (),
) -> list[OperationalAlert]:
    """Watch a market for so many minutes of its time; returns what was told about the watch.

    Args:
        drift: our wall clock is wrong from a second on, by so many seconds.
        pump_at_s: BTC_USDT rises from this second on.
        changes: other faults instead, each from a second on.
    """

    async def run() -> list[OperationalAlert]:
        pumps = [Pump(DEFAULT_START_MS + int(pump_at_s * 1_000), "BTC_USDT")] if pump_at_s is not None else []
        exchange = build(3, contracts, faults=faults, activity=2.0, pumps=pumps)
        market_clock = Clock.starting_at(DEFAULT_START_MS)
        clock: AnyClock = market_clock if drift is None else DriftingClock(market_clock, *drift)
        for second, others in changes:
            asyncio.get_running_loop().call_later(second, exchange.set_faults, others)
        config = Config().with_overrides(SETTINGS if settings is None else settings)
        alerts: list[OperationalAlert] = []
        async with SimulatedNetwork(exchange, market_clock, seed=3) as network:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(1).random)
            # Nothing real may be listened to in virtual time.
            calm = health or HealthConfig(enabled=False)
            async with watch_over(bot, calm, network.get, alerts.append) as monitor:
                visit = asyncio.ensure_future(visitor(monitor))
                await bot.run(minutes * 60.0)
                assert visit.done(), "the visitor stayed longer than the bot ran"
                await visit
        return alerts

    return run_virtual(run())


def at_second(alert: OperationalAlert) -> float:
    """When an alert was told, in seconds after the start."""
    return (alert.time_ms - DEFAULT_START_MS) / 1_000
