"""The API of a watch that keeps what it finds: alerts with what became of them on each channel, page by page."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
import schemathesis
from api_questions import ask_everything
from msgspec.json import encode

from perpwatch.alert.policy import Alert
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import load_config
from perpwatch.app.dashboard.server import dashboard
from perpwatch.app.engine import Step
from perpwatch.app.health import watch_over
from perpwatch.app.health_config import HealthConfig
from perpwatch.errors import ConfigurationError
from perpwatch.model import Batch, Direction, Level, Reason, Signal, Timeframe, Trust
from perpwatch.sim import DEFAULT_START_MS, Clock, SimulatedNetwork, build
from perpwatch.store import Alerted, Database, Delivery, DeliveryState, Writer

ALERTS = 5


def alert(number: int) -> Alert:
    time_ms = DEFAULT_START_MS + number * 60_000
    signal = Signal(
        detector="rarity",
        symbol=("BTC_USDT", "ETH_USDT")[number % 2],
        timeframe=Timeframe.Min1,
        open_time_ms=time_ms - time_ms % 60_000,
        direction=Direction.UP,
        level=Level.STRONG,
        price=1.5,
        strength=20.0,
        is_running=True,
        trust=Trust.STREAMED,
        reasons=(Reason("turnover_ratio", 20.0, "x", "volume 20 × its usual"),),
        event_time_ms=time_ms,
        received_time_ns=time_ms * 1_000_000,
    )
    return Alert(f"alert:{number}", signal, time_ms, time_ms, 0, 20.0, 1e-4, rule="default")


def deliveries(one: Alert) -> list[Delivery]:
    def row(channel: str, state: DeliveryState, **more: Any) -> Delivery:
        return Delivery(
            channel=channel, key=one.key, thread=one.key, kind="alert", time_ms=one.time_ms, state=state, **more
        )

    return [
        row("phone", DeliveryState.SENT, sent_ms=one.time_ms + 300, latency_ms=280, attempts=1, receipt="17"),
        row("desk", DeliveryState.FAILED, why="HTTP 410: gone", attempts=3),
    ]


@contextlib.asynccontextmanager
async def api_of(settings: dict[str, Any], found: Step | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """A way to the API of a watch that has not begun, and may have found something all the same."""
    config = load_config(None, {"dashboard": {"port": 0}} | settings)
    clock = Clock.starting_at(DEFAULT_START_MS)
    async with SimulatedNetwork(build(1, 5), clock, seed=1) as network:
        bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(1).random)
        async with (
            watch_over(bot, HealthConfig(enabled=False), network.get) as monitor,
            dashboard(bot, monitor, config, "a test") as url,
            aiohttp.ClientSession(url + "/api/v1/") as session,
        ):
            if found is not None:
                bot.tell(Batch("test", clock.time_ns(), 0, ()), found)
            yield session


async def test_alerts_say_what_became_of_them_on_each_channel(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    database = Database.open(str(path))
    alerts = [alert(number) for number in range(ALERTS)]
    async with Writer(database) as writer:
        for one in alerts:
            await writer.put(Alerted(one.key, one.time_ms, one.symbol, encode(one)), *deliveries(one))
        assert await writer.flush(10.0)
    database.close()
    async with api_of({"store": {"url": f"sqlite:///{path}"}}) as session:

        async def get(path: str) -> Any:
            async with session.get(path) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        found = await get("alerts")
        assert [one["key"] for one in found] == [one.key for one in alerts]
        for one in found:
            states = {each["channel"]: each for each in one["deliveries"]}
            assert (states["phone"]["state"], states["phone"]["latency_ms"]) == ("sent", 280)
            assert (states["desk"]["state"], states["desk"]["why"]) == ("failed", "HTTP 410: gone")
            assert states["desk"]["sent_ms"] is None
        # Page by page, backwards, each alert once.
        pages: list[str] = []
        until = ""
        while page := await get(f"alerts?limit=2{until}"):
            pages = [one["key"] for one in page] + pages
            until = f"&until_ms={page[0]['time_ms']}"
        assert pages == [one.key for one in alerts]
        assert [one["key"] for one in await get("alerts?symbol=ETH_USDT")] == ["alert:1", "alert:3"]
        failed = await get("deliveries?state=failed")
        assert [(one["key"], one["channel"]) for one in failed] == [(one.key, "desk") for one in alerts]
        assert len(await get("deliveries?channel=phone&state=sent&state=pending")) == ALERTS
        assert await get("channels") == []


async def test_what_is_kept_and_at_hand_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    database = Database.open(str(path))
    alerts = [alert(number) for number in range(ALERTS)]
    async with Writer(database) as writer:
        for one in alerts[:-1]:
            await writer.put(one.signal, Alerted(one.key, one.time_ms, one.symbol, encode(one)))
        assert await writer.flush(10.0)
    database.close()
    found = Step(signals=[one.signal for one in alerts[2:]], alerts=list(alerts[2:]))
    async with api_of({"store": {"url": f"sqlite:///{path}"}}, found) as session:
        async with session.get("signals") as answer:
            assert [one["event_time_ms"] for one in await answer.json()] == [one.time_ms for one in alerts]
        async with session.get("alerts") as answer:
            assert [one["key"] for one in await answer.json()] == [one.key for one in alerts]


async def test_every_answer_about_what_is_kept_is_what_the_document_says(tmp_path: Path) -> None:
    path = tmp_path / "kept.db"
    Database.open(str(path)).close()
    found = Step(signals=[alert(0).signal], alerts=[alert(0)])
    async with api_of({"store": {"url": f"sqlite:///{path}"}}, found) as session:
        async with session.get("openapi.json") as answer:
            address = str(answer.url)

        def ask() -> Counter[int]:
            document = schemathesis.openapi.from_url(address)
            kept = document.include(path_regex="/(signals|alerts|outcomes|deliveries|channels|scorecard)$")
            with requests.Session() as ours:
                return ask_everything(kept, lambda path: ours)

        asked = await asyncio.to_thread(ask)
    assert asked.keys() == {200}
    assert asked.total() > 20


async def test_elsewhere_everything_needs_the_token_and_what_is_open_ends_with_the_session() -> None:
    token = "a-token-nobody-would-guess"
    everywhere = {"host": "0.0.0.0", "port": 0, "token": token, "refresh_interval": 0.2}
    async with api_of({"store": {"enabled": False}, "dashboard": everywhere}) as session, asyncio.timeout(10):
        for path in ("status", "events", "openapi.json"):
            async with session.get(path) as answer:
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await session.ws_connect("pulse")
        async with session.get("status", headers={"Authorization": f"Bearer {token}"}) as answer:
            assert answer.status == 200
        ours = {"Origin": f"https://{answer.url.host}:{answer.url.port}"}
        async with session.post("login", json={"token": token}, headers=ours) as answer:
            assert "Secure" in answer.headers["Set-Cookie"]  # the browser came by HTTPS, through a proxy
            cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        async with (
            session.ws_connect("pulse", headers=cookie) as pulse,
            session.ws_connect("pulse", headers={"Authorization": f"Bearer {token}"}) as other,
        ):
            assert (await pulse.receive_json())["type"] == (await other.receive_json())["type"] == "pulse"
            async with session.post("logout", headers=cookie | ours) as answer:
                assert answer.status == 200
            while (last := await pulse.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert (pulse.close_code, last.extra) == (1008, "the session has ended")
            assert (await other.receive_json())["type"] == "pulse"


async def test_what_is_not_kept_is_said_so() -> None:
    async with api_of({"store": {"enabled": False}}) as session, session.get("deliveries") as answer:
        assert answer.status == 409
        assert "nothing is kept here" in (await answer.json())["detail"]


async def test_a_second_watch_with_pages_is_refused_and_the_first_goes_on() -> None:
    async with api_of({"store": {"enabled": False}}) as session:
        with pytest.raises(ConfigurationError, match="another watch of this process has pages"):
            async with api_of({"store": {"enabled": False}}):
                pass
        async with session.get("status") as answer:
            assert answer.status == 200
    async with api_of({"store": {"enabled": False}}) as session, session.get("status") as answer:
        assert answer.status == 200
