"""``perpwatch alerts``, and a watch that tells: real processes, a local exchange, a local Bot API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import typer

from local_exchange import until
from perpwatch.alert.senders.webhook_message import schema_text
from perpwatch.app import alerts_cli
from perpwatch.app.alerts_cli import list_deliveries, retry, try_channels
from perpwatch.app.config_cli import config_check
from perpwatch.app.printing import Format
from perpwatch.errors import ConfigurationError, StoreError
from perpwatch.sim import Clock, Pump, build
from perpwatch.sim.bot_api import BotApiServer, Refused
from perpwatch.sim.server import SimulatorServer
from perpwatch.store import DeliveryState

COMMAND = (sys.executable, "-c", "from perpwatch.app.cli import main; main()")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without settings, and an environment without variables of ours."""
    for name in [name for name in os.environ if name.upper().startswith("PERPWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chat(api: BotApiServer, number: int, **more: object) -> dict[str, object]:
    return {"type": "telegram", "token_env": "TOKEN", "chat": str(number), "base_url": api.url, **more}


def write_settings(channels: dict[str, dict[str, object]], **tables: dict[str, Any]) -> None:
    settings = tables | {"alerts": {"channels": channels}, "health": {"port": 0}, "dashboard": {"enabled": False}}
    Path("perpwatch.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")


async def call(command: Callable[..., None], *arguments: object, **options: object) -> int:
    """Run a command in a thread, because it has a loop of its own; returns its exit code."""
    try:
        await asyncio.to_thread(command, *arguments, **options)
    except typer.Exit as end:
        return end.exit_code
    return 0


@contextlib.asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A watch of its own, which is ended as by Ctrl-C."""
    process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stderr=asyncio.subprocess.PIPE)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        _, error = await asyncio.wait_for(process.communicate(), 20.0)
        assert (process.returncode, "Traceback" in error.decode()) == (0, False), error.decode()
        assert os.environ["TOKEN"].partition(":")[2] not in error.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def lively_exchange() -> AsyncIterator[dict[str, Any]]:
    """An exchange on which much is traded at once, and the settings that watch it."""
    now_ms = time.time_ns() // 1_000_000
    pumps = [
        Pump(now_ms + second * 1_000, symbol, 600_000, volume_multiple=120.0)
        for second, symbol in ((1, "BTC_USDT"), (1, "ETH_USDT"))
    ]
    exchange = build(1, 4, now_ms, quiet_share=0.0, pumps=pumps)
    async with SimulatorServer(exchange, Clock.starting_at(exchange.market.start_ms)) as server:
        yield {
            "websocket": {
                "base_url": server.websocket_url,
                "commands_per_second": 100,
                "real_time_volume_threshold": 1.0,
            },
            "rest": {"base_url": server.rest_url, "history_minutes": 60},
            "detection": {"rules": ["volume_ratio"], "minimum_turnover": 0},
        }


# --- Test ----------------------------------------------------------------------------------------------------------


async def test_a_test_goes_through_each_channel_and_says_what_happened(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with BotApiServer() as api:
        monkeypatch.setenv("TOKEN", api.token)
        api.add_chat(7)
        api.add_chat(8).refusal = Refused(403, "Forbidden: bot was blocked by the user")
        quiet = chat(api, 7, quiet_hours="00:00-23:59", level="extreme")
        write_settings({"phone": quiet, "gone": chat(api, 8), "terminal": {"type": "console"}})
        assert await call(try_channels, format=Format.JSON) == 1
        printed = capfd.readouterr()
        results = {one["channel"]: one for one in json.loads(printed.out)}
        assert {name: one["answer"] for name, one in results.items()} == {
            "phone": "acknowledged",
            "gone": "refused",
            "terminal": "acknowledged",
        }
        assert "blocked" in results["gone"]["what"]
        assert "Test" in printed.err  # the terminal's
        assert "test" in api.chats[7].shown[0].text.lower()
        assert await call(try_channels, channel=["phone"]) == 0
        assert len(api.chats[7].shown) == 2
        assert api.token.partition(":")[2] not in printed.out + printed.err


def test_settings_that_cannot_be_used_are_refused_with_what_would_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no channel is configured"):
        try_channels()
    write_settings({"phone": {"type": "telegram", "token_env": "TOKEN", "chat": "7"}})
    for command in (try_channels, config_check):
        with pytest.raises(ConfigurationError, match="no such variable in the environment"):
            command()
    monkeypatch.setenv("TOKEN", "1:abc")
    config_check()
    with pytest.raises(ConfigurationError, match="one of phone"):
        try_channels(channel=["fone"])
    with pytest.raises(StoreError, match="no such file yet"):
        list_deliveries()
    write_settings({}, store={"enabled": False})
    with pytest.raises(ConfigurationError, match="only known where it is kept"):
        list_deliveries()


def test_the_schema_of_webhooks_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    alerts_cli.schema()
    assert capfd.readouterr().out == schema_text()


# --- A watch that tells ----------------------------------------------------------------------------------------------


async def test_a_watch_tells_its_alerts_and_what_failed_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def listed(**options: object) -> dict[tuple[str, str], dict[str, Any]]:
        capfd.readouterr()
        assert await call(list_deliveries, format=Format.JSON, **options) == 0
        return {(row["channel"], row["key"]): row for row in json.loads(capfd.readouterr().out)}

    async with lively_exchange() as settings, BotApiServer() as api:
        monkeypatch.setenv("TOKEN", api.token)
        phone, gone = api.add_chat(7), api.add_chat(8)
        gone.refusal = Refused(403, "Forbidden: bot was blocked by the user")
        write_settings({"phone": chat(api, 7, kinds=["alert"]), "gone": chat(api, 8, kinds=["alert"])}, **settings)
        async with running("run"):
            await until(lambda: len(phone.shown) >= 2, 40.0)
        before = await listed()
        sent = {key: row for key, row in before.items() if row["state"] == "sent"}
        failed = {key: row for key, row in before.items() if row["state"] == "failed"}
        assert {channel for channel, _ in sent} == {"phone"}
        assert {channel for channel, _ in failed} == {"gone"}
        assert len(sent) == len(phone.shown) == len(failed)
        assert all(0 <= row["latency_ms"] < 20_000 for row in sent.values())
        assert await listed(state=[DeliveryState.FAILED]) == failed
        assert await call(list_deliveries, channel=["gone"]) == 0
        shown = capfd.readouterr().out
        assert "blocked" in shown
        assert f"gone: {len(failed)} failed" in shown

        with pytest.raises(ConfigurationError, match="the key of a notice that failed"):
            await call(retry, ["nothing"])
        assert await call(retry, channel=["gone"]) == 0
        assert f"{len(failed)} are tried again" in capfd.readouterr().err
        gone.refusal = None
        async with running("run"):
            await until(lambda: len(gone.shown) >= len(failed), 40.0)
        after = await listed()
        assert {after[key]["state"] for key in failed} == {"sent"}
        # What was told is not told again.
        assert {key: after[key] for key in sent} == sent


async def test_commands_that_only_look_and_a_market_that_is_made_up_tell_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with lively_exchange() as settings, BotApiServer() as api:
        monkeypatch.setenv("TOKEN", api.token)
        api.add_chat(7)
        write_settings({"phone": chat(api, 7)}, **settings)
        for arguments in (("signals",), ("demo", "--pairs", "10", "--speed", "20", "--format", "jsonl")):
            process = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stdout=asyncio.subprocess.PIPE)
            assert process.stdout is not None
            assert b"detector" in await asyncio.wait_for(process.stdout.readline(), 40.0)
            await asyncio.sleep(0.3)
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.communicate(), 20.0)
        assert api.received == []
