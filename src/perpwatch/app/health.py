"""Is the watch well? Judged once a second, told over HTTP, to people as alerts, and to a dead-man's switch.

:func:`watch_over` puts all of it around a bot. The judgement itself is :func:`judge`, a function of a
:class:`~perpwatch.alert.operational.Snapshot`; :class:`Monitor` takes the snapshots.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web

from perpwatch.alert.operational import (
    OperationalAlert,
    OperationalWatch,
    Phase,
    Snapshot,
    Thresholds,
    Trouble,
    troubles,
)
from perpwatch.app.bot import Bot
from perpwatch.app.configured import limits_of
from perpwatch.app.deadman import DeadMansSwitch
from perpwatch.app.delivery import ChannelStatus
from perpwatch.app.engine import Step
from perpwatch.app.health_config import HealthConfig
from perpwatch.app.memory import pauses_told
from perpwatch.app.metrics import Metrics, coverage_of
from perpwatch.app.planning import live_plan
from perpwatch.errors import ConfigurationError
from perpwatch.feed.breaker import BreakerState
from perpwatch.feed.connection import State
from perpwatch.feed.pool import ConnectionStatus
from perpwatch.feed.ports import HttpGet
from perpwatch.model import Batch

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
#: Error rates are those of so many seconds.
RATE_WINDOW_S = 60.0
#: Missing minutes are counted this often: each of them is looked up in the ledger.
COUNT_UNKNOWN_EVERY_S = 5.0
#: From connecting to the first candles takes seconds; a start that takes longer than this is a failure.
START_GRACE_S = 60.0

# --- The judgement -------------------------------------------------------------------------------------------------


class Status(enum.StrEnum):
    OK = "ok"
    DEGRADED = "degraded"  # it watches, but not everything or not well
    DOWN = "down"  # it sees nothing


class ContractsHealth(msgspec.Struct, frozen=True):
    listed: int
    watched: int
    warm: int  # whose history is loaded, so that detectors may speak
    covered: int  # whose candles are known good at this moment
    polled: int  # read by REST


class ConnectionsHealth(msgspec.Struct, frozen=True):
    wanted: int
    open: int
    mute: int  # without the data they used to bring, whether open or not
    last_error: str  # of one that is down


class DataHealth(msgspec.Struct, frozen=True):
    silence_s: float  # since anything at all was heard
    age_s: float | None  # since the newest data
    delay_s: float  # from the exchange's stamp to the end of the analysis


class RepairsHealth(msgspec.Struct, frozen=True):
    open: int  # contracts with minutes to read back
    unknown_minutes: int  # missing now, summed over contracts
    repaired_minutes: int  # since start


class RestHealth(msgspec.Struct, frozen=True):
    requests: int  # in the last minute
    errors: int  # of them
    waiting: int
    rate: float  # allowed a second
    breakers_open: tuple[str, ...]


class TroubleHealth(msgspec.Struct, frozen=True):
    trouble: Trouble
    since_ms: int


class Health(msgspec.Struct, frozen=True):
    """What ``/healthz`` says."""

    status: Status
    can_see: bool  # at least something of the market, at this moment
    reasons: tuple[str, ...]  # why it is not ok
    notes: tuple[str, ...]  # what is worth knowing and no reason to worry
    time_ms: int
    uptime_s: float
    coverage: float
    clock_offset_s: float | None  # our wall clock minus the exchange's; None before its first word
    contracts: ContractsHealth
    connections: ConnectionsHealth
    data: DataHealth
    repairs: RepairsHealth
    rest: RestHealth
    alerts: tuple[TroubleHealth, ...]  # operational alerts that are open
    channels: tuple[ChannelStatus, ...] = ()  # where alerts are sent


def judge(snapshot: Snapshot, thresholds: Thresholds, open_alerts: Mapping[Trouble, int] | None = None) -> Health:
    """What a snapshot means. ``open_alerts`` are shown as they are."""
    one = snapshot
    found = troubles(one, thresholds)
    limit = found.pop(Trouble.LIMIT, None)
    is_starting = one.uptime_s < START_GRACE_S
    reasons = [f"{trouble.value.replace('_', ' ')}: {finding.text}" for trouble, finding in found.items()]
    blindness = _blindness(one, thresholds, found)
    if blindness:
        reasons.insert(0, f"starting: {blindness}" if is_starting else blindness)
    if one.contracts_warm < thresholds.coverage * one.contracts_watched:
        reasons.append(f"history of {one.contracts_warm} of {one.contracts_watched} contracts is loaded")
    is_down = Trouble.UNREACHABLE in found or (bool(blindness) and not is_starting)
    notes = [limit.text] if limit is not None else []
    if one.contracts_polled:
        notes.append(f"{one.contracts_polled} contracts are read by REST")
    if one.streams_refused:
        notes.append(f"{one.streams_refused} streams are not given by the exchange")
    return Health(
        status=Status.DOWN if is_down else Status.DEGRADED if reasons else Status.OK,
        can_see=not blindness and Trouble.UNREACHABLE not in found,
        reasons=tuple(reasons),
        notes=tuple(notes),
        time_ms=one.time_ms,
        uptime_s=round(one.uptime_s, 3),
        coverage=round(one.coverage, 4),
        clock_offset_s=round(one.clock_offset_s, 4) if one.exchange_ms else None,
        contracts=ContractsHealth(
            one.contracts_listed, one.contracts_watched, one.contracts_warm, one.contracts_covered, one.contracts_polled
        ),
        connections=ConnectionsHealth(
            one.connections, one.connections_open, one.connections_mute, one.connection_error
        ),
        data=DataHealth(
            round(one.silence_s, 3),
            round(one.data_age_s, 3) if one.data_age_s is not None else None,
            round(one.delay_s, 3),
        ),
        repairs=RepairsHealth(one.repairs_open, sum(one.unknown_minutes.values()), one.repaired_minutes),
        rest=RestHealth(
            one.requests, one.request_errors, one.requests_waiting, round(one.request_rate, 3), one.breakers_open
        ),
        alerts=tuple(TroubleHealth(trouble, since_ms) for trouble, since_ms in (open_alerts or {}).items()),
    )


def _blindness(one: Snapshot, thresholds: Thresholds, found: Mapping[Trouble, object]) -> str:
    """Why nothing of the market is seen; empty when something is."""
    if Trouble.UNREACHABLE in found:
        return ""  # says it all
    if not one.contracts_listed:
        return "the market is not known yet"
    if not one.contracts_watched:
        return "no contract is watched"
    if not one.contracts_covered:
        return "no contract has live candles"
    # A line that is cut is dialled anew within a second or two, which is no blindness.
    if one.connections and (one.data_age_s is None or one.data_age_s > thresholds.data_delay_s):
        return "no connection delivers data"
    return ""


# --- Snapshots -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Counts:
    """What error rates are made of, at one moment."""

    now_s: float
    requests: int
    request_errors: int
    frames: int
    bad_frames: int


class _Pace:
    """How often a connection brings data, learned from itself, whichever socket it has."""

    FORGETS_S = 300.0
    LEARNS_S = 60.0
    #: A silence in which so many frames would have come is none by chance, however bursty the market.
    MISSED_FRAMES = 20.0

    def __init__(self, frames: int, now_s: float) -> None:
        self._frames = frames
        self._now_s = now_s
        self._data_s = now_s
        self._known_s = 0.0
        self._rate = 0.0  # frames a second

    def observe(self, frames: int, now_s: float) -> None:
        step_s = now_s - self._now_s
        if step_s <= 0.0:
            return
        if frames != self._frames:
            self._data_s = now_s
        self._known_s += step_s
        # The mean of all at first, then of the recent past.
        weight = -math.expm1(-step_s / min(self.FORGETS_S, self._known_s))
        self._rate += weight * (max(0, frames - self._frames) / step_s - self._rate)
        self._frames, self._now_s = frames, now_s

    def mute_s(self) -> float:
        """For how long it has brought nothing, when that is no chance; else 0."""
        silence_s = self._now_s - self._data_s
        is_mute = self._known_s >= self.LEARNS_S and silence_s * self._rate >= self.MISSED_FRAMES
        return silence_s if is_mute else 0.0


class Monitor:
    """Looks at a bot every second, and tells troubles to ``on_alert``, which must not wait."""

    def __init__(
        self,
        bot: Bot,
        metrics: Metrics,
        thresholds: Thresholds,
        on_alert: Callable[[OperationalAlert], None] = lambda alert: None,
    ) -> None:
        self.bot = bot
        self.metrics = metrics
        self.watch = OperationalWatch(thresholds)
        self.server: HealthServer | None = None  # where the report is served
        self.on_alert = on_alert
        self._started_s = bot.clock.monotonic()
        self._counts: deque[_Counts] = deque()
        self._paces: dict[str, _Pace] = {}
        self._delays = (0.0, 0)
        self._unknown: dict[int, int] = {}
        self._unknown_s = float("-inf")
        self._newest: Snapshot | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LOOK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)
            self.metrics.loop_lag.observe(max(0.0, loop.time() - due_s))
            self.look()

    def look(self) -> Snapshot:
        """Take a snapshot and tell what it means."""
        self._newest = snapshot = self._take()
        self.metrics.note_failures()
        if snapshot.exchange_ms:
            self.metrics.clock_offset.observe(snapshot.clock_offset_s)
        alerts = self.watch.update(snapshot)
        self.metrics.open_troubles = tuple(self.watch.open())
        for alert in alerts:
            self.metrics.note_operational(alert)
            logger.log(logging.WARNING if alert.phase is Phase.START else logging.INFO, "%s", alert.text)
            self.on_alert(alert)
        return snapshot

    def report(self) -> Health:
        """The judgement of the present."""
        newest = self._newest
        if newest is None or self.bot.clock.monotonic() - newest.now_s > 2 * LOOK_EVERY_S:
            newest = self.look()
        health = judge(newest, self.watch.thresholds, self.watch.open())
        deliveries = self.metrics.deliveries
        channels = tuple(deliveries.status()) if deliveries is not None else ()
        return msgspec.structs.replace(health, channels=channels)

    def _take(self) -> Snapshot:
        bot, metrics = self.bot, self.metrics
        feed, rest, pool = bot.feed, bot.feed.rest, bot.feed.pool
        now_s = bot.clock.monotonic()
        status = pool.status()
        coverage = coverage_of(bot)
        before = self._count(now_s, status)
        mute = self._mute(now_s, status)
        offset_s = metrics.clock_offset_s()
        configured = limits_of(bot.config)
        planned = bot.config.websocket.planned_subscriptions_per_connection
        return Snapshot(
            now_s=now_s,
            time_ms=bot.clock.time_ns() // 1_000_000,
            exchange_ms=feed.now_ms() if offset_s is not None else 0,
            uptime_s=now_s - self._started_s,
            silence_s=now_s - metrics.heard_s,
            data_age_s=now_s - metrics.data_s if metrics.data_s is not None else None,
            delay_s=self._mean_delay_s(),
            contracts_listed=bot.progress.contracts,
            contracts_watched=coverage.watched,
            contracts_warm=len(bot.engine.warm),
            contracts_covered=coverage.covered,
            contracts_polled=coverage.polled,
            connections=len(status),
            connections_open=sum(one.state is State.OPEN for one in status),
            connections_mute=len(mute),
            mute_s=max(mute, default=0.0),
            connection_error=next(
                (f"{one.source}: {one.last_error}" for one in status if one.state is not State.OPEN and one.last_error),
                "",
            ),
            connection_limit=pool.max_connections,
            connection_limit_configured=configured.max_connections,
            subscription_limit=pool.per_connection,
            subscription_limit_configured=min(planned, configured.max_subscriptions_per_connection),
            streams_refused=len(pool.refused),
            requests=rest.counters.requests - before.requests,
            request_errors=_request_errors(bot) - before.request_errors,
            requests_waiting=rest.waiting,
            request_rate=rest.rate,
            breakers_open=tuple(
                endpoint for endpoint in rest.breakers if rest.breaker_state(endpoint) is not BreakerState.CLOSED
            ),
            # Counters of a connection that was closed are gone with it.
            frames=max(0, sum(one.frames for one in status) - before.frames),
            bad_frames=max(0, sum(one.bad_frames for one in status) - before.bad_frames),
            clock_offset_s=offset_s or 0.0,
            not_kept="; ".join(f"{name}: {text}" for name, what in bot.keepers.items() if (text := what())),
            channels_failing=metrics.deliveries.trouble() if metrics.deliveries is not None else "",
            repairs_open=len(bot.engine.repairs),
            repaired_minutes=metrics.minutes_repaired,
            unknown_minutes=self._count_unknown(now_s),
        )

    def _count(self, now_s: float, status: Iterable[ConnectionStatus]) -> _Counts:
        """Note the counters of now; returns those of a minute ago, or of the start."""
        frames = sum(one.frames for one in status)
        bad_frames = sum(one.bad_frames for one in status)
        requests = self.bot.feed.rest.counters.requests
        self._counts.append(_Counts(now_s, requests, _request_errors(self.bot), frames, bad_frames))
        while self._counts[0].now_s < now_s - RATE_WINDOW_S:
            self._counts.popleft()
        return self._counts[0]

    def _mute(self, now_s: float, status: Iterable[ConnectionStatus]) -> list[float]:
        """For how long, in seconds, each connection that should have brought data has brought none."""
        paces, self._paces = self._paces, {}
        silences: list[float] = []
        for one in status:
            pace = self._paces[one.source] = paces.get(one.source) or _Pace(one.data_frames, now_s)
            pace.observe(one.data_frames, now_s)
            mute_s = pace.mute_s()
            if mute_s > self.watch.thresholds.data_delay_s:
                silences.append(mute_s)
        return silences

    def _mean_delay_s(self) -> float:
        (sum_before, count_before), self._delays = self._delays, (self.metrics.delay_s, self.metrics.delays)
        count = self.metrics.delays - count_before
        return (self.metrics.delay_s - sum_before) / count if count else 0.0

    def _count_unknown(self, now_s: float) -> dict[int, int]:
        if now_s - self._unknown_s >= COUNT_UNKNOWN_EVERY_S:
            self._unknown, self._unknown_s = self.metrics.unknown_minutes(), now_s
        return self._unknown


def _request_errors(bot: Bot) -> int:
    """Requests without an answer that makes sense. A "no such contract" does make sense, and is asked for often."""
    counters = bot.feed.rest.counters
    return counters.failures + counters.rate_limited


# --- HTTP ----------------------------------------------------------------------------------------------------------


class HealthServer:
    """``/metrics`` for Prometheus, ``/healthz`` for everybody, ``/plan`` for ``perpwatch plan --live``.

    Use as ``async with``.

    Args:
        report: the judgement of the moment.
        port: 0 takes a free one; the attribute says which.
    """

    def __init__(self, report: Callable[[], Health], metrics: Metrics, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._report = report
        self._metrics = metrics
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        """
        Raises:
            ConfigurationError: the port is taken, or the host is none of this machine's.
        """
        application = web.Application()
        application.router.add_get("/metrics", self._get_metrics)
        application.router.add_get("/healthz", self._get_health)
        application.router.add_get("/plan", self._get_plan)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
        except OSError as error:
            await runner.cleanup()
            raise _cannot_listen(self.host, self.port, error) from error
        self._runner = runner
        self.port = runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def _get_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _get_plan(self, _request: web.Request) -> web.Response:
        body = msgspec.json.format(msgspec.json.encode(live_plan(self._metrics.bot)), indent=2)
        return web.Response(body=body, content_type="application/json")

    async def _get_health(self, _request: web.Request) -> web.Response:
        health = self._report()
        body = msgspec.json.format(msgspec.json.encode(health), indent=2)
        status = 503 if health.status is Status.DOWN else 200
        return web.Response(status=status, body=body, content_type="application/json")


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        expected = f"another program listens there on {host}; choose another port, 0 for a free one, or health.enabled"
        return ConfigurationError("health.port", port, f"{expected} = false")
    if error.errno == errno.EACCES:
        return ConfigurationError("health.port", port, "not allowed to this user; choose one above 1023")
    return ConfigurationError("health.host", host, f"cannot be listened on: {error.strerror or error}")


# --- All together --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def watch_over(
    bot: Bot,
    config: HealthConfig,
    get: HttpGet,
    on_alert: Callable[[OperationalAlert], None] = lambda alert: None,
) -> AsyncIterator[Monitor]:
    """Measure, judge and serve ``bot`` as long as the block lasts; to be entered before it runs.

    Args:
        get: reaches the dead-man's switch.
        on_alert: told every operational alert; must not wait.
    Raises:
        ConfigurationError: the port cannot be had.
    """
    metrics = Metrics(bot)
    monitor = Monitor(bot, metrics, config.thresholds(), on_alert)
    told = bot.on_step

    def on_step(batch: Batch, step: Step) -> None:
        metrics.take(batch, step)
        told(batch, step)

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(pauses_told(metrics.gc_pause.observe))
        if config.enabled:
            server = HealthServer(monitor.report, metrics, config.host, config.port)
            monitor.server = await stack.enter_async_context(server)
            logger.info("health at %s/healthz, metrics at %s/metrics", server.url, server.url)
        tasks = [asyncio.create_task(monitor.run())]
        if (url := config.dead_man_url) is not None:
            switch = DeadMansSwitch(url, config.dead_man_interval, get, lambda: monitor.report().can_see, metrics.pings)
            tasks.append(asyncio.create_task(switch.run()))
        for task in tasks:
            task.add_done_callback(_log_failure)
        bot.on_step = on_step
        try:
            yield monitor
        finally:
            bot.on_step = told
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    """Our own failure must not go unnoticed, and must not end the watch."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the health monitor failed", exc_info=error)
