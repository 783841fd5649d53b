"""``kill -9`` between every pair of steps from a signal to a person: nothing is lost, and nothing is shown twice.

Each step is a point at which a process of its own kills itself, or is killed by the service that it calls. After its
next start every alert that was accepted (is in the store) has been shown on each channel: once where the channel
recognises a repetition (a webhook by its key, Telegram where a message is edited), at most twice where it cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import mortal_alerts
import msgspec
import pytest
from aiohttp import web
from mortal_alerts import Life

from perpwatch.app.channel_outbox import FLOOD_NOTICES
from perpwatch.app.delivery import Stage
from perpwatch.sim.bot_api import BotApiServer, Chat
from perpwatch.sim.webhook import WebhookServer
from perpwatch.store import Database, Delivery, DeliveryState, Reader

SECRET = "a secret of the webhook of these tests"
CHANNELS = ("phone", "robot")
#: Until the rows are written nothing is accepted; then each channel goes its way by itself.
BEFORE = ("found", "accepted", "put", "stored")
#: ``asked`` is killed when the service has got the request and done nothing, ``shown`` when it has done it.
ON_A_CHANNEL = (*Stage, "asked", "shown")
POINTS = (*BEFORE, *(f"{stage}:{channel}" for channel in CHANNELS for stage in ON_A_CHANNEL), "kept")
EDITED = tuple(f"{stage}:phone" for stage in ON_A_CHANNEL)
#: Before these it is not certain that all of it has been accepted.
ON_A_DIGEST = (Stage.COMMITTED, Stage.ANSWERED, Stage.SETTLED, "asked", "shown")
#: From here on a message of the phone may have been shown without anybody having written it down. How far the phone is
#: while the other channel is killed at a step of its own is chance.
MAY_BE_TWICE = {
    *(f"{step}:phone" for step in ("shown", Stage.ANSWERED, Stage.SETTLED)),
    *(f"{step}:robot" for step in ON_A_CHANNEL),
    "stored",
}


@dataclass
class Deadly:
    """Stands before a service, passes requests on, and kills whoever calls at a moment that was chosen."""

    target: str
    calls: str = ""  # only paths that end so
    dies_at: str = ""  # asked or shown; then once
    child: int = 0  # the process that is meant
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Deadly]:
        application = web.Application()
        async with aiohttp.ClientSession(auto_decompress=False) as session:

            async def pass_on(request: web.Request) -> web.Response:
                body, is_meant = await request.read(), request.path.lower().endswith(self.calls)
                headers = {name: value for name, value in request.headers.items() if name != "Host"}
                if is_meant and self.dies_at == "asked":
                    self._kill()
                    return web.Response(status=500)
                async with session.request(
                    request.method, f"{self.target}{request.path_qs}", data=body, headers=headers
                ) as answer:
                    content = await answer.read()
                if is_meant and self.dies_at == "shown":
                    self._kill()
                return web.Response(status=answer.status, body=content, content_type=answer.content_type)

            application.router.add_route("*", "/{path:.*}", pass_on)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            try:
                yield self
            finally:
                await runner.cleanup()

    def _kill(self) -> None:
        self.dies_at = ""
        os.kill(self.child, signal.SIGKILL)


class Lives:
    """Runs one process after the other."""

    def __init__(self, phone: Deadly, robot: Deadly, token: str) -> None:
        self.phone, self.robot = phone, robot
        self._environment = {"TOKEN": token, "SECRET": SECRET}
        self._zygote: asyncio.subprocess.Process | None = None

    @contextlib.asynccontextmanager
    async def possible(self) -> AsyncIterator[Lives]:
        self._zygote = await asyncio.create_subprocess_exec(
            *(sys.executable, mortal_alerts.__file__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        try:
            yield self
        finally:
            self._zygote.kill()
            await self._zygote.wait()

    async def live(self, folder: Path, chat: int, dies_at: str = "", **alert: object) -> int:
        """Returns how it ended: 0 or -9."""
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        step, _, channel = dies_at.partition(":")
        for name, service in (("phone", self.phone), ("robot", self.robot)):
            service.dies_at = step if channel == name and step in ("asked", "shown") else ""
        channels = {
            "phone": {"type": "telegram", "token_env": "TOKEN", "chat": str(chat), "base_url": self.phone.url},
            "robot": {"type": "webhook", "secret_env": "SECRET", "url": f"{self.robot.url}/alerts"},
        }
        life = Life(
            folder=str(folder),
            channels=channels,
            environment=self._environment,
            dies_at=dies_at,
            **alert,  # type: ignore[arg-type]
        )
        self._zygote.stdin.write(msgspec.json.encode(life) + b"\n")
        self.phone.child = self.robot.child = int(await self._read())
        return int(await self._read())

    async def _read(self) -> bytes:
        assert self._zygote is not None
        assert self._zygote.stdout is not None
        return await asyncio.wait_for(self._zygote.stdout.readline(), 40.0)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[tuple[Lives, BotApiServer, WebhookServer]]:
    async with BotApiServer(is_strict=False) as api, WebhookServer(SECRET) as webhook:
        phone = Deadly(api.url, calls="sendmessage")
        robot = Deadly(f"http://127.0.0.1:{webhook.port}")
        async with phone.serving(), robot.serving(), Lives(phone, robot, api.token).possible() as lives:
            yield lives, api, webhook


def prepare(folder: Path) -> None:
    """A store without rows; copied, because to make one takes as long as a life."""
    template = folder.parent / "template.db"
    if not template.exists():
        Database.open(str(template)).close()
    folder.mkdir()
    shutil.copy(template, folder / "perpwatch.db")


def outbox(folder: Path) -> tuple[list[str], list[Delivery]]:
    """Keys of the alerts that were accepted, and the rows of the outbox."""
    database = Database.open(str(folder / "perpwatch.db"))
    try:
        reader = Reader(database)
        return [one.key for one in reader.alerts()], reader.deliveries()
    finally:
        database.close()


@pytest.mark.timeout(240)
async def test_an_alert_that_was_accepted_is_shown_on_each_channel_wherever_the_program_was_killed(
    tmp_path: Path,
) -> None:
    accepted_at: list[str] = []
    async with world() as (lives, api, webhook):
        for number, point in enumerate(POINTS):
            chat, symbol, folder = api.add_chat(1_000 + number), f"P{number:02}_USDT", tmp_path / f"{number}"
            prepare(folder)
            now_ms = time.time_ns() // 1_000_000
            died = await lives.live(folder, chat.chat_id, point, symbols=[symbol], time_ms=now_ms)
            assert died == -signal.SIGKILL, f"{point} was not met"
            assert await lives.live(folder, chat.chat_id) == 0, point
            accepted, rows = outbox(folder)
            ids = [one for one in webhook.messages if f":{symbol}:" in one]
            assert [row.state for row in rows] == [DeliveryState.SENT] * 2 * len(accepted), point
            assert len(ids) == len(accepted), point
            assert_shown(chat, len(accepted), point)
            accepted_at += [point] if accepted else []
    # What is not in the store was not accepted; from then on it always is.
    assert not {"found", "accepted"} & {*accepted_at}
    assert {*POINTS} - {"found", "accepted", "put", "turn:phone", "turn:robot"} <= {
        *accepted_at,
        # Killed while the rows were on their way to the disk.
        *(f"{step}:{channel}" for step in (Stage.CHOSEN, Stage.MADE, Stage.BEGUN) for channel in CHANNELS),
    }


def assert_shown(chat: Chat, times: int, point: str) -> None:
    shown = len(chat.shown)
    most = 2 * times if point in MAY_BE_TWICE else times
    assert times <= shown <= most, f"killed at {point}: shown {shown} times"


@pytest.mark.timeout(240)
async def test_an_escalation_changes_the_message_once_wherever_the_program_was_killed(tmp_path: Path) -> None:
    async with world() as (lives, api, webhook):
        lives.phone.calls = "editmessagetext"
        for number, point in enumerate(EDITED):
            chat, symbol, folder = api.add_chat(1_000 + number), f"E{number:02}_USDT", tmp_path / f"{number}"
            prepare(folder)
            now_ms = time.time_ns() // 1_000_000
            assert await lives.live(folder, chat.chat_id, symbols=[symbol], time_ms=now_ms) == 0
            more = {"symbols": [symbol], "time_ms": now_ms, "escalation": 1}
            assert await lives.live(folder, chat.chat_id, point, **more) == -signal.SIGKILL, f"{point} was not met"
            assert await lives.live(folder, chat.chat_id) == 0, point
            accepted, rows = outbox(folder)
            assert {row.state for row in rows} == {DeliveryState.SENT}, point
            assert len([one for one in webhook.messages if f":{symbol}:" in one]) == len(accepted), point
            (message,) = chat.shown
            assert (message.edits > 0) == (len(accepted) == 2), point


@pytest.mark.timeout(240)
async def test_a_digest_is_shown_once_with_all_it_tells_wherever_the_program_was_killed(tmp_path: Path) -> None:
    async with world() as (lives, api, webhook):
        for number, point in enumerate(f"{step}:{channel}" for channel in CHANNELS for step in ON_A_DIGEST):
            chat, folder = api.add_chat(1_000 + number), tmp_path / f"{number}"
            symbols = [f"D{number:02}N{one}_USDT" for one in range(FLOOD_NOTICES + 1)]
            prepare(folder)
            now_ms = time.time_ns() // 1_000_000
            died = await lives.live(folder, chat.chat_id, point, symbols=symbols, time_ms=now_ms)
            assert died == -signal.SIGKILL, f"{point} was not met"
            assert await lives.live(folder, chat.chat_id) == 0, point
            accepted, rows = outbox(folder)
            assert len(accepted) == len(symbols), point
            assert {row.state for row in rows} == {DeliveryState.SENT}, point
            messages = [one for one in webhook.messages.values() if one["notices"][0]["symbol"] in symbols]
            assert [len(one["notices"]) for one in messages] == [len(symbols)], point
            assert_shown(chat, 1, point)
