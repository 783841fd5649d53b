"""Health, alerts about the watch, and the dead-man's switch: the real bot while things go wrong, in virtual time.

The pages themselves are fetched over real sockets of this machine.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from watched_bots import at_second, event, run_watched

from perpwatch.alert.operational import OperationalAlert, Phase, Snapshot, Thresholds, Trouble, duration_text
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.deadman import DeadMansSwitch
from perpwatch.app.demo import at_addresses
from perpwatch.app.engine import Step
from perpwatch.app.health import Health, HealthServer, Monitor, Status, judge, watch_over
from perpwatch.app.health_config import HealthConfig
from perpwatch.app.metrics import Metrics
from perpwatch.errors import ConfigurationError, RequestFailed
from perpwatch.feed.connection import SystemClock, dial_with
from perpwatch.feed.rest import http_over_network
from perpwatch.model import Batch
from perpwatch.sim import DEFAULT_START_MS, Clock, Faults, HttpAnswer, SimulatorServer, build, run_virtual

NOW: dict[str, Any] = {
    "now_s": 5_000.0,
    "time_ms": 1_791_201_600_000,
    "exchange_ms": 1_791_201_600_000,
    "uptime_s": 600.0,
}
WELL: dict[str, Any] = NOW | {
    "contracts_listed": 900,
    "contracts_watched": 800,
    "contracts_warm": 800,
    "contracts_covered": 800,
    "connections": 10,
    "connections_open": 10,
    "data_age_s": 0.1,
}


def said(alerts: list[OperationalAlert]) -> list[tuple[Trouble, Phase]]:
    return [(alert.trouble, alert.phase) for alert in alerts]


# --- The judgement -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "status", "can_see", "reason"),
    [
        ({}, Status.OK, True, ""),
        ({"connections_open": 9}, Status.DEGRADED, True, "connections lost: 1 of 10 down"),
        ({"contracts_covered": 400}, Status.DEGRADED, True, "coverage low: 50 % of 800 contracts"),
        ({"contracts_warm": 400}, Status.DEGRADED, True, "history of 400 of 800 contracts is loaded"),
        ({"clock_offset_s": 5.0}, Status.DEGRADED, True, "clock drift: ours is 5.0 s ahead"),
        ({"breakers_open": ("kline",)}, Status.DEGRADED, True, "error rate high: REST fails repeatedly: kline"),
        (
            {"connections_mute": 10, "mute_s": 30.0, "data_age_s": 30.0},
            Status.DOWN,
            False,
            "no connection delivers data",
        ),
        ({"connections_open": 0, "data_age_s": 2.0}, Status.DEGRADED, True, "connections lost: 10 of 10 down"),
        ({"contracts_covered": 0}, Status.DOWN, False, "no contract has live candles"),
        ({"contracts_listed": 0, "contracts_watched": 0}, Status.DOWN, False, "the market is not known yet"),
        ({"silence_s": 20.0}, Status.DOWN, False, "exchange unreachable: nothing heard for 20 s"),
        ({"contracts_covered": 0, "uptime_s": 9.0}, Status.DEGRADED, False, "starting: no contract has live candles"),
        ({"connections": 0, "connections_open": 0, "contracts_polled": 800, "data_age_s": None}, Status.OK, True, ""),
    ],
)
def test_a_snapshot_is_judged(numbers: dict[str, Any], status: Status, can_see: bool, reason: str) -> None:
    health = judge(Snapshot(**(WELL | numbers)), Thresholds())
    assert (health.status, health.can_see) == (status, can_see)
    assert (health.reasons[0] if health.reasons else "").startswith(reason)
    assert bool(health.reasons) == (status is not Status.OK)


def test_a_limit_that_was_met_is_worth_a_note_and_no_reason() -> None:
    limited = WELL | {"subscription_limit": 30, "subscription_limit_configured": 95, "contracts_polled": 500}
    health = judge(Snapshot(**limited), Thresholds(), {Trouble.LIMIT: 1_791_201_600_000})
    assert health.status is Status.OK
    assert health.notes[0].startswith("the exchange takes 30 subscriptions on a connection, not 95")
    assert [one.trouble for one in health.alerts] == [Trouble.LIMIT]


def test_health_survives_json() -> None:
    health = judge(Snapshot(**WELL), Thresholds(), {Trouble.DRIFT: 1})
    assert msgspec.json.decode(msgspec.json.encode(health), type=Health) == health


# --- The real bot while things go wrong ----------------------------------------------------------------------------


def test_three_minutes_without_an_exchange_are_one_start_and_one_end() -> None:
    seen: dict[str, Health] = {}

    async def visit(monitor: Monitor) -> None:
        for name, wait_s in (("before", 190), ("during", 110), ("after", 260)):
            await asyncio.sleep(wait_s)
            seen[name] = monitor.report()

    alerts = run_watched(10.5, Faults(events=(event(200, "exchange_down", lasts_s=180),)), visitor=visit)
    assert said(alerts) == [(Trouble.UNREACHABLE, Phase.START), (Trouble.UNREACHABLE, Phase.END)]
    start, end = alerts
    assert 214 <= at_second(start) <= 217
    assert end.start_ms == start.start_ms
    assert end.duration_s is not None
    # The way back is tried again at most half a minute after it is free.
    assert 180 <= end.duration_s <= 212
    assert end.repaired_minutes is not None
    assert end.repaired_minutes >= 3 * 40
    assert end.unknown_minutes == 0
    back = f"exchange unreachable: back after {duration_text(end.duration_s)}"
    assert end.text == f"{back}, {end.repaired_minutes} minutes repaired, 0 unknown"
    assert {name: (health.status, health.can_see) for name, health in seen.items()} == {
        "before": (Status.OK, True),
        "during": (Status.DOWN, False),
        "after": (Status.OK, True),
    }
    assert seen["during"].reasons[0].startswith("exchange unreachable: nothing heard for 1")
    assert [one.trouble for one in seen["during"].alerts] == [Trouble.UNREACHABLE]


def test_an_exchange_that_is_not_there_at_the_start_is_told() -> None:
    health: list[Health] = []

    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(80)
        health.append(monitor.report())

    alerts = run_watched(5, Faults(events=(event(-1, "exchange_down", lasts_s=100),)), visitor=visit)
    assert said(alerts) == [(Trouble.UNREACHABLE, Phase.START), (Trouble.UNREACHABLE, Phase.END)]
    assert health[0].status is Status.DOWN
    assert health[0].contracts.listed == 0


def test_connections_that_are_lost_for_a_moment_are_not_told() -> None:
    assert run_watched(6, Faults(events=(event(120, "drop_abrupt", "all"), event(200, "drop", "connection:5")))) == []


def test_silent_connections_are_told_although_they_answer_pings() -> None:
    health: list[Health] = []

    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(240)
        health.append(monitor.report())

    alerts = run_watched(9, Faults(events=(event(200, "silence", "all", 120),)), visitor=visit)
    assert said(alerts) == [(Trouble.DELAY, Phase.START), (Trouble.DELAY, Phase.END)]
    start, end = alerts
    assert start.text.startswith("data delayed: 3 of 3 connections silent for up to 2")
    # From the last data on.
    assert 198 <= (start.start_ms - DEFAULT_START_MS) / 1_000 <= 203
    assert end.duration_s is not None
    assert 118 <= end.duration_s <= 160
    assert end.unknown_minutes == 0
    assert (health[0].status, health[0].can_see) == (Status.DOWN, False)
    assert health[0].data.silence_s < 20


def test_connections_that_stay_away_are_told_with_the_reason() -> None:
    health: list[Health] = []

    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(250)
        health.append(monitor.report())

    crowded = Faults(max_connections=1, dial_refusal="close", events=(event(150, "drop_abrupt", "all"),))
    alerts = run_watched(9, changes=[(150, crowded), (300, Faults())], visitor=visit)
    assert said(alerts) == [(Trouble.CONNECTIONS, Phase.START), (Trouble.CONNECTIONS, Phase.END)]
    start, end = alerts
    assert start.text.startswith("connections lost: 2 of 3 down: ws-")
    assert "cannot connect to wss://" in start.text
    assert 169 <= at_second(start) <= 173
    assert end.duration_s is not None
    assert 150 <= end.duration_s <= 180
    assert end.unknown_minutes == 0
    assert (health[0].status, health[0].can_see) == (Status.DEGRADED, True)
    assert health[0].connections.open == 1


def test_a_limit_that_is_met_is_told_once() -> None:
    health: list[Health] = []

    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(170)
        health.append(monitor.report())

    alerts = run_watched(3, Faults(max_subscriptions=20, max_connections=2), contracts=60, settings={}, visitor=visit)
    assert said(alerts) == [(Trouble.LIMIT, Phase.START)]
    assert alerts[0].text.startswith("subscription limit met: the exchange takes 20 subscriptions on a connection")
    assert "it allows 2 connections, not 10" in alerts[0].text
    assert health[0].status is Status.OK
    # What has no room on the sockets is read by REST, and covered.
    assert health[0].contracts.polled > 15
    assert health[0].coverage == 1.0


def test_an_interface_that_fails_is_told_while_the_sockets_go_on() -> None:
    alerts = run_watched(9, Faults(events=(event(150, "rest_html", lasts_s=120),)))
    assert said(alerts) == [(Trouble.ERRORS, Phase.START), (Trouble.ERRORS, Phase.END)]
    assert "REST fails repeatedly: kline" in alerts[0].text
    assert alerts[1].duration_s is not None
    # The breaker tries again at most a minute after the fault has ended.
    assert 110 <= alerts[1].duration_s <= 190


def test_a_stream_of_rubbish_is_told() -> None:
    alerts = run_watched(4, Faults(malformed=0.05))
    assert (Trouble.ERRORS, Phase.START) in said(alerts)
    assert "frames of the last minute were unreadable" in alerts[0].text


def test_a_wall_clock_that_is_wrong_is_told_and_changes_no_duration() -> None:
    alerts = run_watched(5, drift=(100.0, 7.5))
    assert said(alerts) == [(Trouble.DRIFT, Phase.START)]
    assert alerts[0].text.startswith("clock drifts: ours is 7.5 s ahead of the exchange's")


def test_a_watch_by_rest_alone_is_well() -> None:
    health: list[Health] = []

    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(290)
        health.append(monitor.report())

    settings = {"rest": {"history_minutes": 120}, "mode": "rest"}
    assert run_watched(5, settings=settings, contracts=12, visitor=visit) == []
    assert (health[0].status, health[0].can_see) == (Status.OK, True)
    assert health[0].connections.wanted == 0


def test_the_bot_is_left_as_it_was() -> None:
    def on_step(_batch: Batch, _step: Step) -> None:
        pass

    async def watch() -> None:
        config = Config()
        bot = Bot(config, adapter_for(config), dial_with(), _unasked, SystemClock(), random.random, on_step)
        async with watch_over(bot, HealthConfig(enabled=False), _unasked):
            assert bot.on_step is not on_step
        assert bot.on_step is on_step

    run_virtual(watch())


async def _unasked(url: str, params: Mapping[str, str | int]) -> HttpAnswer:
    raise AssertionError(f"{url} must not be asked")


# --- The dead-man's switch -----------------------------------------------------------------------------------------


def test_the_dead_mans_switch_is_pinged_while_the_market_is_seen_and_never_while_blind() -> None:
    url = "https://example.org/ping/secret"
    pings: list[float] = []
    blind = event(200, "exchange_down", lasts_s=180)

    async def watch() -> Counter[str]:
        results = Counter[str]()
        loop = asyncio.get_running_loop()

        async def get(asked: str, params: Mapping[str, str | int]) -> HttpAnswer:
            assert (asked, params) == (url, {})
            pings.append(loop.time())
            return HttpAnswer(200, b"OK")

        def can_see() -> bool:
            return not 216 <= loop.time() <= 390

        switch = DeadMansSwitch(url, 30.0, get, can_see, results)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(blind.duration_ms / 1_000 + 420):
                await switch.run()
        return results

    results = run_virtual(watch())
    assert pings == [*range(0, 216, 30), *range(390 + 30, 600, 30)]
    assert results == {"ok": len(pings), "withheld": 6}


def test_a_whole_bot_withholds_its_pings_during_an_outage() -> None:
    counts: list[dict[str, int]] = []

    async def visit(monitor: Monitor) -> None:
        for second in (190, 190, 180):
            await asyncio.sleep(second)
            counts.append(dict(monitor.metrics.pings))

    health = HealthConfig(enabled=False, dead_man_url="https://example.org/ping", dead_man_interval=10.0)
    # The simulated network serves any address; what it answers to this one is no success, but it was asked.
    run_watched(10, Faults(events=(event(200, "exchange_down", lasts_s=180),)), health=health, visitor=visit)
    before, during, after = counts
    assert before["withheld"] == 1, "only the first look, before anything was connected"
    assert before["failed"] == 18
    assert during["withheld"] - before["withheld"] in (17, 18)
    assert after["withheld"] - during["withheld"] <= 2
    assert after["failed"] - during["failed"] >= 16


def test_failing_pings_are_logged_once_per_change(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[HttpAnswer | Exception | None] = [
        HttpAnswer(200, b""),
        HttpAnswer(500, b""),
        RequestFailed("https://example.org/secret", "the name does not resolve; is there a network?"),
        None,  # no answer at all
        HttpAnswer(204, b""),
        HttpAnswer(200, b""),
    ]

    async def watch() -> Counter[str]:
        results, turn = Counter[str](), iter(answers)

        async def get(_url: str, _params: Mapping[str, str | int]) -> HttpAnswer:
            answer = next(turn)
            if answer is None:
                await asyncio.Event().wait()
            if isinstance(answer, Exception):
                raise answer
            assert answer is not None
            return answer

        switch = DeadMansSwitch("https://example.org/secret", 60.0, get, lambda: True, results)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(350):
                await switch.run()
        return results

    with caplog.at_level(logging.INFO, "perpwatch.app.deadman"):
        assert run_virtual(watch()) == {"ok": 3, "failed": 3}
    assert [record.getMessage() for record in caplog.records] == [
        "the dead-man's switch at example.org cannot be reached: HTTP 500",
        "the dead-man's switch at example.org is reached again",
    ]


# --- Over real sockets ---------------------------------------------------------------------------------------------


async def test_the_pages_are_served_beside_a_real_watch() -> None:
    exchange = build(1, 12)
    clock = Clock.starting_at(exchange.market.start_ms)
    async with (
        asyncio.timeout(40),
        SimulatorServer(exchange, clock) as simulator,
        http_over_network() as get,
        aiohttp.ClientSession() as http,
    ):
        config = at_addresses(Config(), simulator.websocket_url, simulator.rest_url)
        bot = Bot(config, adapter_for(config), dial_with(), get, clock, random.Random(1).random)
        async with watch_over(bot, HealthConfig(port=0), get) as monitor:
            assert monitor.server is not None
            assert monitor.server.host == "127.0.0.1"
            running = asyncio.create_task(bot.run())
            while True:
                async with http.get(f"{monitor.server.url}/healthz") as answer:
                    health = await answer.json()
                    assert answer.status == 200, health
                if health["status"] == "ok":
                    break
                await asyncio.sleep(0.2)
            assert health["contracts"]["watched"] == 12
            assert health["coverage"] == 1.0
            async with http.get(f"{monitor.server.url}/metrics") as answer:
                text = await answer.text()
                assert answer.status == 200
                assert answer.headers["Content-Type"].startswith("text/plain; version=")
            families = {family.name: family for family in text_string_to_metric_families(text)}
            assert families["perpwatch_coverage_ratio"].samples[0].value == 1.0
            assert not any(symbol in text for symbol in bot.watched)
            async with http.get(f"{monitor.server.url}/else") as answer:
                assert answer.status == 404
            bot.stop()
            await running
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"{monitor.server.url}/healthz")


def _server(health: Health, host: str, port: int) -> HealthServer:
    config = Config()
    bot = Bot(config, adapter_for(config), dial_with(), _unasked, SystemClock(), random.random)
    return HealthServer(lambda: health, Metrics(bot), host, port)


async def test_a_watch_that_is_down_answers_503() -> None:
    health = judge(Snapshot(**(WELL | {"silence_s": 20.0})), Thresholds())
    async with (
        _server(health, "127.0.0.1", 0) as server,
        aiohttp.ClientSession() as http,
        http.get(f"{server.url}/healthz") as answer,
    ):
        assert answer.status == 503
        assert answer.content_type == "application/json"
        assert json.loads(await answer.text())["status"] == "down"


async def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = Config()
        bot = Bot(config, adapter_for(config), dial_with(), _unasked, SystemClock(), random.random)
        with pytest.raises(ConfigurationError, match=r"another program listens there") as caught:
            async with watch_over(bot, HealthConfig(port=port), _unasked):
                pass
    assert (caught.value.key, caught.value.value) == ("health.port", port)


async def test_a_host_that_is_not_ours_is_said() -> None:
    with pytest.raises(ConfigurationError) as caught:
        # An address of the documentation range, which no machine has.
        async with _server(judge(Snapshot(**WELL), Thresholds()), "192.0.2.1", 0):
            pass
    assert caught.value.key == "health.host"


def test_a_store_that_cannot_be_written_is_told_and_so_is_its_recovery() -> None:
    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(60)
        monitor.bot.keepers["store"] = lambda: "database or disk is full"
        await asyncio.sleep(30)
        monitor.bot.keepers["store"] = lambda: ""

    alerts = [alert for alert in run_watched(2, visitor=visit) if alert.trouble is Trouble.KEEPING]
    assert [(alert.phase, alert.text.partition(";")[0]) for alert in alerts] == [
        (Phase.START, "nothing is kept: store: database or disk is full"),
        (Phase.END, "nothing is kept: back after 30 s"),
    ]


# --- The configuration ---------------------------------------------------------------------------------------------


def test_the_configuration_gives_the_thresholds() -> None:
    thresholds = HealthConfig(coverage_threshold=0.8, data_delay_s=3.0).thresholds()
    assert (thresholds.coverage, thresholds.data_delay_s) == (0.8, 3.0)
    assert HealthConfig().thresholds() == Thresholds()


@pytest.mark.parametrize(
    "values", [{"port": 70_000}, {"coverage_threshold": 1.5}, {"dead_man_url": "example.org"}, {"prot": 1}]
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        HealthConfig.model_validate(values)
