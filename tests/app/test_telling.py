"""From what a bot finds to what a receiver gets: alerts, how they went on, crowds, troubles, tests."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import cards
from local_exchange import until
from perpwatch.alert.operational import OperationalAlert, Phase, Trouble
from perpwatch.alert.outcomes import Excursion, Outcome
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app import telling as module
from perpwatch.app.analysis import TEST
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Step
from perpwatch.app.health import Monitor, watch_over
from perpwatch.app.health_config import HealthConfig
from perpwatch.app.kept import kept
from perpwatch.app.painter import Painter
from perpwatch.app.store_config import StoreConfig
from perpwatch.app.telling import telling
from perpwatch.errors import ConnectionFailed
from perpwatch.feed.connection import SystemClock
from perpwatch.feed.ports import HttpAnswer, Socket
from perpwatch.figures import NO_BREAK
from perpwatch.model import MINUTE_MS, AssetClass, Batch, Candle, Contract, Direction, Finality, Level, Timeframe, Trust
from perpwatch.sim.bot_api import BotApiServer
from perpwatch.sim.webhook import WebhookServer
from perpwatch.store import Database, Delivery, DeliveryState, Reader, Writer

SECRET = "a secret of the webhook of these tests"


async def nowhere(url: str) -> Socket:
    raise ConnectionFailed(url, "nobody is there")


async def nothing(url: str, parameters: Mapping[str, str | int]) -> HttpAnswer:
    raise AssertionError("nothing is read")


class Watch:
    """A bot that is told what it finds."""

    def __init__(self, bot: Bot, monitor: Monitor, reader: Reader | None, webhook: WebhookServer) -> None:
        self.bot = bot
        self.monitor = monitor
        self.reader = reader
        self.webhook = webhook

    def find(self, *alerts: Alert | MarketAlert, **found: Any) -> None:
        step = Step(alerts=list(alerts))
        step.outcome.closed += found.pop("closed", ())
        for name, value in found.items():
            getattr(step, name).extend(value)
        self.bot.tell(Batch("a", 0, 0, ()), step)

    async def messages(self, count: int) -> list[Any]:
        await until(lambda: len(self.webhook.messages) >= count)
        assert len(self.webhook.messages) == count
        return list(self.webhook.messages.values())


@contextlib.asynccontextmanager
async def watch(
    folder: Path, webhook: WebhookServer, *, is_kept: bool = True, **channel: object
) -> AsyncIterator[Watch]:
    robot = {
        "type": "webhook",
        "url": webhook.url,
        "secret_env": "SECRET",
        "updates": True,
        "requests_per_second": 1000,
    }
    if "type" not in channel:
        channel = robot | channel
    config = Config().with_overrides(
        {"alerts": {"channels": {"receiver": channel}}, "universe": {"pins": ["BEAT_USDT"]}}
    )
    bot = Bot(config, adapter_for(config), nowhere, nothing, SystemClock(), random.Random(1).random)
    bot.engine.watch([Contract("BEAT_USDT", "BEAT", "USDT", "USDT", 1.0, asset_class=AssetClass.STOCK)])
    store = StoreConfig(enabled=is_kept, url=f"sqlite:///{folder}/perpwatch.db")
    async with (
        kept(bot, store, None) as keeper,
        watch_over(bot, HealthConfig(enabled=False), nothing) as monitor,
        telling(bot, config, monitor, keeper, None),
    ):
        yield Watch(bot, monitor, keeper.reader if keeper is not None else None, webhook)
        if keeper is not None:
            assert await keeper.writer.flush(10.0)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


def alert(symbol: str = "BEAT_USDT", *, escalation: int = 0, **changes: Any) -> Alert:
    now_ms = time.time_ns() // 1_000_000
    minute_ms = now_ms - now_ms % MINUTE_MS
    seen: dict[str, Any] = {
        "event_time_ms": now_ms,
        "received_time_ns": now_ms * 1_000_000,
        "open_time_ms": minute_ms,
        "price": 100.0,
    }
    return cards.alert(cards.signal(symbol, **seen | changes), escalation=escalation, start_ms=minute_ms)


def minute(one: Alert, number: int, close: float) -> Candle:
    open_time_ms = one.signal.open_time_ms + number * MINUTE_MS
    figures: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close"), close)
    figures |= dict.fromkeys(("contracts", "base_volume", "turnover"), 1.0)
    figures |= {"finality": Finality.SUCCESSOR, "trust": Trust.STREAMED}
    return Candle(one.symbol, Timeframe.Min1, open_time_ms, **figures)


@pytest.mark.parametrize("is_kept", [True, False])
async def test_an_episode_is_one_thread_from_its_first_alert_to_its_outcome(tmp_path: Path, is_kept: bool) -> None:
    async with WebhookServer(SECRET) as webhook, watch(tmp_path, webhook, is_kept=is_kept) as watched:
        first, second = alert(), alert(escalation=1)
        watched.find(first)
        (told,) = await watched.messages(1)
        assert (told["id"], told["follows"]) == (first.key, None)
        (notice,) = told["notices"]
        assert {key: notice[key] for key in ("kind", "symbol", "level", "thread", "rule")} == {
            "kind": "alert",
            "symbol": "BEAT_USDT",
            "level": "strong",
            "thread": first.key,
            "rule": "default",
        }
        watched.find(second)
        watched.find(closed=[minute(first, 1, 110.0)])
        escalation, developed = (await watched.messages(3))[1:]
        assert [one["notices"][0]["thread"] for one in (escalation, developed)] == [first.key] * 2
        assert developed["follows"] is not None
        assert developed["notices"][0]["development"]["change"] == pytest.approx(0.1)
        after = (Excursion(60, 0.05, 0.2, -0.01),)
        outcome = Outcome(first.key, "default", "BEAT_USDT", first.time_ms, Direction.UP, 100.0, 0.001, after, ())
        watched.find(outcomes=[outcome])
        last = (await watched.messages(4))[-1]
        assert last["notices"][0]["development"]["is_over"] is True


async def test_a_chat_shows_an_episode_as_one_message_whose_picture_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with BotApiServer() as api, WebhookServer(SECRET) as unused:
        monkeypatch.setenv("TOKEN", api.token)
        # A machine that is busy with other tests may take longer than a person should wait.
        monkeypatch.setattr(module, "Painter", lambda: Painter(deadline_s=30.0))
        chat = api.add_chat(77)
        telegram: dict[str, Any] = {"type": "telegram", "token_env": "TOKEN", "chat": 77, "base_url": api.url}
        async with watch(tmp_path, unused, **telegram) as watched:
            first = alert()
            minutes = watched.bot.engine.book.series["BEAT_USDT"].minutes
            for number in range(-60, 0):
                minutes.append(minute(first, number, 98.0 + number % 2))
            minutes.append(minute(first, 0, 100.0))
            watched.find(first)
            await until(lambda: len(chat.messages) == 1, 20.0)
            (message,) = chat.messages
            told, picture = message.text, message.photo
            assert told.startswith(f"▲▲ BEAT +6.04{NO_BREAK}% in 1{NO_BREAK}min, vol 12.6×\nPrice +6.04")
            assert picture is not None
            minutes.append(minute(first, 1, 110.0))
            watched.find(closed=[minutes[-1]])
            await until(lambda: message.edits == 1, 20.0)
            assert message.text.startswith(f"▲▲ BEAT +6.04{NO_BREAK}% → +16.6{NO_BREAK}%")
            later = message.photo
            assert later not in (None, picture)
            after = (Excursion(60, 0.05, 0.2, -0.01),)
            watched.find(
                outcomes=[Outcome(first.key, "default", "BEAT_USDT", 0, Direction.UP, 100.0, 0.001, after, ())]
            )
            await until(lambda: message.edits == 2, 20.0)
            assert f"Within the hour +20.0{NO_BREAK}% at best, −1.00{NO_BREAK}% at worst" in message.text
            assert len(chat.messages) == 1
        assert api.exceeded == []


async def test_a_restart_goes_on_with_open_episodes_and_tells_nothing_again(tmp_path: Path) -> None:
    first = alert()
    async with WebhookServer(SECRET) as webhook:
        async with watch(tmp_path, webhook) as watched:
            watched.find(first)
            await watched.messages(1)
        async with watch(tmp_path, webhook) as watched:
            watched.find(closed=[minute(first, 1, 110.0)])
            developed = (await watched.messages(2))[1]
            assert developed["notices"][0]["thread"] == first.key
            assert watched.reader is not None
        assert len(webhook.received) == 2


async def test_crowds_troubles_and_tests_have_a_kind_of_their_own(tmp_path: Path) -> None:
    async with WebhookServer(SECRET) as webhook, watch(tmp_path, webhook, pinned_only=True) as watched:
        some = tuple(alert(symbol, level=Level.EXTREME) for symbol in ("A_USDT", "BEAT_USDT"))
        now_ms = some[0].time_ms
        watched.find(alert("A_USDT"))  # is not pinned
        watched.find(MarketAlert("m:1", now_ms, now_ms, some, 800, 1e-4, "default"))
        watched.monitor.on_alert(OperationalAlert("t:1", Trouble.DRIFT, Phase.START, now_ms, now_ms, "clock drifts"))
        watched.find(replace(alert("A_USDT"), key="test:1", rule=TEST))
        messages = {one["notices"][0]["kind"]: one for one in await watched.messages(3)}
        assert messages.keys() == {"market", "operational", "test"}
        assert messages["market"]["notices"][0]["level"] == "extreme"
        assert messages["market"]["notices"][0]["symbol"] in ("", None)


@pytest.mark.parametrize("is_kept", [True, False])
async def test_an_alert_that_cannot_be_told_is_counted_and_a_trouble_and_the_watch_goes_on(
    tmp_path: Path, is_kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebhookServer(SECRET) as webhook, watch(tmp_path, webhook, is_kept=is_kept) as watched:
        # A detector of somebody's own may give a level that there is not.
        wrong: Any = "overwhelming"
        good = alert("A_USDT")
        watched.find(alert(level=wrong), good)
        (told,) = await watched.messages(1)
        assert told["id"] == good.key
        watched.find(closed=[minute(good, 1, 110.0)])
        await watched.messages(2)
        assert "perpwatch_notices_lost_total 1.0" in watched.monitor.metrics.render()[0].decode()
        watched.monitor.look()
        (trouble,) = (one for one in watched.monitor.report().reasons if one.startswith("channels failing"))
        assert "1 could not be told by an error of perpwatch: " in trouble
        assert caplog.text.count("could not be told") == 1
        if watched.reader is not None:
            await until(lambda: watched.reader is None or len(watched.reader.alerts()) == 2)


async def test_each_alert_has_its_row_in_the_very_transaction_that_stores_it(tmp_path: Path) -> None:
    async with WebhookServer(SECRET) as webhook, watch(tmp_path, webhook, classes=["stock"]) as watched:
        # The first is of a stock, nothing is known of the second.
        watched.find(alert(), alert("A_USDT"))
        await watched.messages(2)
        assert watched.reader is not None
        reader = watched.reader
        await until(lambda: len(reader.deliveries(states=[DeliveryState.SENT])) == 2)
        assert {row.key for row in reader.deliveries()} == {one.key for one in reader.alerts()}


async def test_a_start_settles_what_has_waited_long_for_a_channel_that_is_gone(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/perpwatch.db")
    async with Writer(database) as writer:
        writer.put_now(Delivery(channel="gone", key="a:1", thread="a:1", kind="alert", time_ms=MINUTE_MS))
        assert await writer.flush(10.0)
    database.close()
    async with WebhookServer(SECRET) as webhook, watch(tmp_path, webhook) as watched:
        assert watched.reader is not None
        reader = watched.reader
        await until(lambda: [row.state for row in reader.deliveries()] == [DeliveryState.SUPPRESSED])


async def test_without_channels_nothing_is_told_and_everything_else_goes_on(tmp_path: Path) -> None:
    config = Config()
    bot = Bot(config, adapter_for(config), nowhere, nothing, SystemClock(), random.Random(1).random)
    store = StoreConfig(url=f"sqlite:///{tmp_path}/perpwatch.db")
    async with (
        kept(bot, store, None) as keeper,
        watch_over(bot, HealthConfig(enabled=False), nothing) as monitor,
        telling(bot, config, monitor, keeper, None) as deliveries,
    ):
        assert deliveries is None
        bot.tell(Batch("a", 0, 0, ()), Step(alerts=[alert()]))
        assert keeper is not None
        assert await keeper.writer.flush(10.0)
        assert (len(keeper.reader.alerts()), keeper.reader.deliveries()) == (1, [])
