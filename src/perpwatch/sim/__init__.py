"""An exchange of our own: a market, the protocol over it, and everything that can go wrong, all from one seed.

It replaces the socket and the clock and nothing above them. :class:`SimulatedNetwork` serves it from memory in virtual
time, :class:`SimulatorServer` on real sockets.
"""

from __future__ import annotations

from collections.abc import Iterable

from perpwatch.sim.clock import Clock, ScaledLoop, VirtualTimeLoop, run_scaled, run_virtual
from perpwatch.sim.exchange import Closing, Counters, Session, SimulatedExchange, Topic
from perpwatch.sim.faults import FaultEvent, Faults
from perpwatch.sim.market import (
    DEFAULT_START_MS,
    MarketCandle,
    MarketTrade,
    Pump,
    SimulatedMarket,
    demo_pumps,
)
from perpwatch.sim.network import REST_URL, WEBSOCKET_URL, HttpAnswer, MemorySocket, SimulatedNetwork
from perpwatch.sim.rest import Answer
from perpwatch.sim.server import SimulatorServer


def build(
    seed: int,
    contracts: int = 800,
    start_ms: int = DEFAULT_START_MS,
    *,
    faults: Faults | None = None,
    pumps: Iterable[Pump] = (),
    pumps_per_hour: float = 0.0,
    activity: float = 1.0,
    quiet_share: float = 0.15,
    coin_margined: int = 0,
) -> SimulatedExchange:
    """An exchange with a market of its own; see :class:`SimulatedMarket` for the arguments."""
    market = SimulatedMarket(
        seed,
        contracts,
        start_ms,
        pumps=pumps,
        pumps_per_hour=pumps_per_hour,
        activity=activity,
        quiet_share=quiet_share,
        coin_margined=coin_margined,
    )
    return SimulatedExchange(market, faults, seed)


__all__ = [
    "DEFAULT_START_MS",
    "REST_URL",
    "WEBSOCKET_URL",
    "Answer",
    "Clock",
    "Closing",
    "Counters",
    "FaultEvent",
    "Faults",
    "HttpAnswer",
    "MarketCandle",
    "MarketTrade",
    "MemorySocket",
    "Pump",
    "ScaledLoop",
    "Session",
    "SimulatedExchange",
    "SimulatedMarket",
    "SimulatedNetwork",
    "SimulatorServer",
    "Topic",
    "VirtualTimeLoop",
    "build",
    "demo_pumps",
    "run_scaled",
    "run_virtual",
]
