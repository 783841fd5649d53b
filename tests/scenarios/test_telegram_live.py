"""A whole watch over real sockets, its store, and a chat in which people are told and answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from local_exchange import Local, local_exchange, until
from perpwatch.alert.buttons import reference
from perpwatch.app.api_actions import Actions
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.commanded import commanded
from perpwatch.app.health import watch_over
from perpwatch.app.kept import kept
from perpwatch.app.telling import telling
from perpwatch.feed.connection import SystemClock, dial_with
from perpwatch.feed.rest import http_over_network
from perpwatch.sim.bot_api import BotApiServer
from perpwatch.store import Database, DeliveryState, Reader

USER, GROUP = 77, -1001234567890


@contextlib.asynccontextmanager
async def running(local: Local, api: BotApiServer, folder: Path) -> AsyncIterator[Bot]:
    """The watch as ``perpwatch run`` puts it together, without its terminal."""
    channels = {
        "phone": {"type": "telegram", "token_file": "token", "chat": USER, "users": [USER], "base_url": api.url},
        "group": {"type": "telegram", "token_file": "token", "chat": GROUP, "topic": 5, "base_url": api.url},
    }
    config = local.config.with_overrides({"alerts": {"channels": channels}, "health": {"port": 0}})
    file = folder / "perpwatch.toml"
    dial = dial_with(proxy=None, max_frame_bytes=1 << 20)
    async with http_over_network() as get:
        bot = Bot(config, adapter_for(config), dial, get, SystemClock(), random.random)
        async with (
            kept(bot, config.store, file) as keeper,
            watch_over(bot, config.health, get) as monitor,
            telling(bot, config, monitor, keeper, file) as deliveries,
            commanded(bot, config.alerts, monitor, keeper, deliveries),
        ):
            watching = asyncio.create_task(bot.run())
            await until(lambda: bool(bot.engine.warm), 20.0)
            yield bot
            bot.stop()
            await watching


def files_with(text: str, folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if text.encode() in file.read_bytes()]


@pytest.mark.timeout(90)
async def test_an_alert_arrives_its_buttons_act_and_a_restart_repeats_and_forgets_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with BotApiServer() as api, local_exchange(6) as local:
        (tmp_path / "token").write_text(api.token)
        api.add_chat(USER)
        api.add_chat(GROUP, topics=[5])
        phone, group = api.chats[USER], api.chats[GROUP]
        async with running(local, api, tmp_path) as bot:
            alert = Actions(bot).test_alert("a test")
            await until(lambda: bool(phone.shown and group.shown), 20.0)
            message = phone.shown[0]
            assert group.shown[0].thread_id == 5
            assert message.text.endswith(f"/why_{reference(alert.key)}")
            api.press(USER, USER, message.message_id, message.button("🔕 24 h")["callback_data"])
            await until(lambda: bot.analysis.muted == {alert.symbol})
            api.say(USER, USER, "/status")
            await until(lambda: len(phone.shown) == 2, 20.0)
            assert "phone: 1 sent, 0 waiting, 0 failed, " in phone.shown[1].text
        assert api.exceeded == []
        database = Database.open(str(tmp_path / "perpwatch.db"))
        rows = Reader(database).deliveries()
        database.close()
        assert {(row.channel, row.key, row.state) for row in rows} == {
            (name, alert.key, DeliveryState.SENT) for name in ("phone", "group")
        }
        async with running(local, api, tmp_path) as bot:
            assert bot.analysis.muted == {alert.symbol}
            api.say(USER, USER, "/mutes")
            await until(lambda: len(phone.shown) == 3, 20.0)
            assert phone.shown[2].text.startswith(f"Muted\n{alert.symbol}: until ")
            assert len(group.shown) == 1
            secret = api.token.partition(":")[2]
            assert secret not in str(bot.config.model_dump(mode="json"))
        assert secret not in caplog.text
        assert files_with(secret, tmp_path) == ["token"]
