"""People in chats, and what a watch does for them: over real sockets against the Bot API of our own."""

from __future__ import annotations

import contextlib
import datetime
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_exchange import until
from perpwatch.alert.buttons import Act, reference
from perpwatch.alert.routing import Route
from perpwatch.alert.senders.telegram import TelegramBot, TelegramSender
from perpwatch.alert.turns import Turns
from perpwatch.app.alerts_config import AlertsConfig
from perpwatch.app.api_actions import Actions
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.card_maker import card_maker_of
from perpwatch.app.config import Config
from perpwatch.app.delivery import Deliveries
from perpwatch.app.engine import Watch
from perpwatch.app.keeper import Keeper
from perpwatch.app.telegram_commands import telegram_commands
from perpwatch.app.wishes import Wishes
from perpwatch.feed.connection import SystemClock
from perpwatch.model import Contract
from perpwatch.sim.bot_api import BotApiServer, Fault, SentMessage
from perpwatch.store import Database, Reader, Writer

USER, STRANGER, GROUP = 77, 99, -1001234567890


@dataclass
class Scene:
    api: BotApiServer
    bot: Bot
    telegram: TelegramBot
    wishes: Wishes
    reader: Reader

    def said(self, chat: int = USER) -> list[SentMessage]:
        return self.api.chats[chat].shown

    async def answer_to(
        self, text: str, user: int = USER, chat: int = USER, thread_id: int | None = None
    ) -> SentMessage:
        """Somebody writes, and the bot answers."""
        before = len(self.said(chat))
        self.api.say(user, chat, text, thread_id)
        await until(lambda: len(self.said(chat)) > before)
        return self.said(chat)[-1]

    async def popup_of(self, data: str, user: int = USER, chat: int = USER) -> str:
        """Somebody presses a button below the last message, and something pops up."""
        query = self.api.press(user, chat, self.said(chat)[-1].message_id, data)
        await until(lambda: query in self.api.answered_queries)
        return str(self.api.answered_queries[query]["text"])


@contextlib.asynccontextmanager
async def scene(folder: Path, api: BotApiServer, language: str = "en") -> AsyncIterator[Scene]:
    """A watch of two contracts that no market reaches, its store, and its bot in Telegram."""

    async def nowhere(*_: object) -> object:
        raise AssertionError("nothing is to be asked of the market")

    config = Config()
    database = Database.open(str(folder / "watch.db"))
    async with Writer(database) as writer:
        reader = Reader(database)
        bot = Bot(config, adapter_for(config), nowhere, nowhere, SystemClock(), random.random)  # type: ignore[arg-type]
        contracts = [Contract(symbol, symbol[:3], "USDT", "USDT", 1.0) for symbol in ("BTC_USDT", "MOG_USDT")]
        bot.engine.obey(Watch(bot.clock.time_ns() // 1_000_000, contracts))
        keeper = Keeper(bot.engine, reader, writer)
        wishes = Wishes(bot, keeper)
        wishes.restore()
        telegram = TelegramBot(
            api.token, language=language, users=[USER], base_url=api.url, turns=Turns.unlimited(), timeout_s=5.0
        )
        senders = {"phone": TelegramSender(telegram, str(USER))}
        senders |= {f"topic-{topic}": TelegramSender(telegram, str(GROUP), topic) for topic in (5, 9)}
        alerts = AlertsConfig.model_validate({"language": language, "time_zone": "Europe/Berlin"})
        routes = dict.fromkeys(senders, Route())
        deliveries = Deliveries(
            senders, routes, card_maker_of(bot, reader, alerts), bot.clock, random.random, writer, reader
        )
        async with telegram_commands(bot, wishes, alerts, deliveries, keeper=keeper):
            yield Scene(api, bot, telegram, wishes, reader)
        await telegram.close()
    database.close()


@contextlib.asynccontextmanager
async def telegram() -> AsyncIterator[BotApiServer]:
    async with BotApiServer(is_strict=False) as api:
        api.add_chat(USER)
        api.add_chat(GROUP, topics=[5, 9])
        yield api


async def test_listed_people_are_answered_where_they_ask_and_others_are_ignored_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with telegram() as api, scene(tmp_path, api) as one:
        assert (await one.answer_to("/help")).text.startswith("perpwatch: commands\n/status – ")
        for _ in range(2):
            api.say(STRANGER, GROUP, "/status", 9)
        api.say(USER, GROUP, "/status@some_other_bot", 9)
        api.say(USER, GROUP, "no command", 9)
        answer = await one.answer_to("/RULES@Perpwatch_test_bot", chat=GROUP, thread_id=9)
        assert answer.text.startswith("Rules in force\ndefault, alerts in 24 h: 0")
        assert (answer.thread_id, len(one.said(GROUP))) == (9, 1)
        assert (await one.answer_to("/symbol <b>&", chat=GROUP)).text == "No watched contract is called <b>&."
        told = (await one.answer_to("/budget here 9", chat=GROUP, thread_id=9)).text
        assert told == "Budget\ntopic-9: at most 9 alerts a day in this chat"
        assert len((await one.answer_to("/budget here off", chat=GROUP)).text.split("\n")) == 3, "of both topics"
        assert api.commands[0]["command"] == "status"
    assert [record.getMessage() for record in caplog.records] == [
        "the user 99 of Telegram is not among those who may command, and is ignored"
    ]


async def test_a_press_mutes_says_so_and_holds_over_a_restart(tmp_path: Path) -> None:
    async with telegram() as api:
        async with scene(tmp_path, api) as one:
            message = await one.answer_to("/symbol mog")
            said = await one.popup_of(message.button("🔕 24 h")["callback_data"])
            assert said.startswith("MOG_USDT is muted until ")
            assert one.bot.analysis.muted == {"MOG_USDT"}
            until_ms = one.wishes.mutes["MOG_USDT"]
        async with scene(tmp_path, api) as one:
            assert one.wishes.mutes == {"MOG_USDT": until_ms}
            message = await one.answer_to("/mutes")
            assert until_ms is not None
            zone = datetime.timezone(datetime.timedelta(hours=1))  # Berlin in November
            time = datetime.datetime.fromtimestamp(until_ms / 1_000, zone)
            assert message.text.split("\n")[1].startswith(f"MOG_USDT: until {time:%Y-%m-%d}") or time.month != 11
            assert await one.popup_of(message.button("🔔 MOG_USDT")["callback_data"]) == "MOG_USDT is told of again"
            assert one.wishes.mutes == {}


async def test_a_press_is_done_once_although_the_program_ended_before_telegram_knew(tmp_path: Path) -> None:
    async with telegram() as api:
        async with scene(tmp_path, api) as one:
            await one.answer_to("/budget 40")
            api.faulty, api.faults = {"getupdates"}, type(api.faults)([Fault.SILENT])  # it never gets to ask again
            said = await one.popup_of(one.telegram.buttons.data(Act.MORE, "default"))
            assert said == "default: about 80 alerts a day from now on (before: 40)"
        api.faults.clear()
        async with scene(tmp_path, api) as one:
            await one.answer_to("/rules")
            assert [rule.alerts_per_day for rule in one.bot.analysis.rules.rules] == [80.0, None]


async def test_a_wrong_alert_is_kept_as_a_label_and_shown_with_its_reasons(tmp_path: Path) -> None:
    async with telegram() as api, scene(tmp_path, api, "ru") as one:
        alert = Actions(one.bot).test_alert("somebody")
        await one.answer_to("/help")
        said = await one.popup_of(one.telegram.buttons.data(Act.WRONG, reference(alert.key)))
        assert said == "Отмечено: сигнал ошибочный. Метка сохранена."
        await until(lambda: bool(one.reader.labels()))
        (label,) = one.reader.labels()
        assert (label.alert_key, label.who, label.label) == (alert.key, "telegram user 77", "wrong")
        answer = await one.answer_to(f"/why_{reference(alert.key)}")
        assert "оценки людей: wrong (telegram user 77)" in answer.text


async def test_forged_presses_and_those_of_strangers_do_nothing(tmp_path: Path) -> None:
    async with telegram() as api, scene(tmp_path, api) as one:
        await one.answer_to("/help")
        good = one.telegram.buttons.data(Act.MUTE_DAY, "BTC_USDT")
        ignored = api.press(STRANGER, USER, one.said()[-1].message_id, good)
        for forged in (good.replace("BTC", "MOG"), good[:-1], "d:BTC_USDT", "nonsense"):
            assert (await one.popup_of(forged)).startswith("This button is of another bot")
        assert one.bot.analysis.muted == frozenset()
        assert ignored not in api.answered_queries


async def test_commands_are_heard_again_after_failures_and_updates_that_mean_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with telegram() as api:
        api.faulty = {"getupdates"}
        api.faults.extend([Fault.BROKEN, Fault.BROKEN, Fault.RESET])
        async with scene(tmp_path, api) as one:
            api.push({"message": {"text": "/status"}})
            api.push({"something_new": {}})
            assert (await one.answer_to("/help")).text.startswith("perpwatch: commands")
    told = [record.getMessage() for record in caplog.records]
    assert sum("500: Internal Server Error; trying again" in line for line in told) == 1, "said once, tried on"
    assert sum("an update of Telegram cannot be read" in line for line in told) == 1


async def test_two_programs_with_one_token_are_told_of_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    async with telegram() as api, scene(tmp_path, api), scene(tmp_path / "other", api):
        await until(lambda: "make sure that only one bot instance is running" in caplog.text)
