"""Questions to a watch and its answers, in virtual time."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import string
import zoneinfo
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from rich.console import Console
from watched_bots import run_watched

from perpwatch.alert.buttons import Act, Buttons, Press, reference
from perpwatch.alert.notice import NoticeKind
from perpwatch.alert.policy import Alert
from perpwatch.alert.routing import Route
from perpwatch.alert.senders.console import ConsoleSender
from perpwatch.alert.spelling import html
from perpwatch.alert.turns import Turns
from perpwatch.app.alerts_config import AlertsConfig
from perpwatch.app.card_maker import card_maker_of
from perpwatch.app.command_texts import COMMAND_TEXTS, EN, RU
from perpwatch.app.commands import Commands
from perpwatch.app.delivery import Deliveries
from perpwatch.app.health import Monitor
from perpwatch.app.wishes import Wishes
from perpwatch.figures import NO_BREAK
from perpwatch.model import MINUTE_MS

CONTRACTS = 15
ZONE = zoneinfo.ZoneInfo("Europe/Berlin")
BUTTONS = Buttons("secret", "en")
Visitor = Callable[[Commands, Wishes, Monitor], Awaitable[None]]


def ask(visitor: Visitor, *, language: str = "en", minutes: float = 3.5) -> None:
    """Let somebody ask a watch of a small market, in which BTC_USDT rises, after so many minutes."""

    async def visit(monitor: Monitor) -> None:
        wishes = Wishes(monitor.bot)
        turns = Turns.unlimited()
        senders = {name: ConsoleSender(Console(file=io.StringIO()), turns) for name in ("phone", "log")}
        routes = {"phone": Route(kinds=frozenset({NoticeKind.ALERT})), "log": Route(kinds=frozenset())}
        cards = card_maker_of(monitor.bot, None, AlertsConfig())
        deliveries = Deliveries(senders, routes, cards, monitor.bot.clock, lambda: 0.5)
        commands = Commands(monitor.bot, wishes, BUTTONS, language, ZONE, monitor=monitor, deliveries=deliveries)
        await asyncio.sleep((minutes - 0.5) * 60.0)
        await visitor(commands, wishes, monitor)

    run_watched(minutes, contracts=CONTRACTS, visitor=visit, pump_at_s=100.0)


async def lines(commands: Commands, text: str) -> list[str]:
    command, _, argument = text.partition(" ")
    card = (await commands.answer(command, argument, "somebody")).card
    return [text.replace(NO_BREAK, " ") for text in (card.title, *card.lines, card.footer) if text]


def test_the_state_of_the_watch_is_told_with_its_channels() -> None:
    async def visitor(commands: Commands, wishes: Wishes, monitor: Monitor) -> None:
        told = await lines(commands, "status")
        assert told[0] == "✓ All is well"
        assert told[1] == f"{CONTRACTS} contracts watched, {CONTRACTS} known good at this moment"
        assert told[2].startswith("newest data ")
        assert told[3].endswith("connections open, 0 contracts read by REST")
        assert told[4].startswith("alerts in 24 h: 1, ")
        assert told[5:7] == ["phone: 0 sent, 0 waiting, 0 failed", "log: 0 sent, 0 waiting, 0 failed"]
        assert told[-1].startswith("running for 3 min")

    ask(visitor)


def test_a_contract_is_found_by_what_people_call_it_and_shown_with_its_last_alerts() -> None:
    async def visitor(commands: Commands, wishes: Wishes, monitor: Monitor) -> None:
        (alert,) = (one for one in monitor.bot.alerts if isinstance(one, Alert))
        for name in ("BTC_USDT", "btc", "$BTC", "btcusdt", "BTC/USDT"):
            answer = await commands.answer("symbol", name, "somebody")
            assert answer.card.title.startswith("BTC_USDT ")
            assert answer.card.url == "https://www.mexc.com/futures/BTC_USDT"
            assert f"1{NO_BREAK}min: " in answer.card.lines[0]
            assert answer.card.lines[-1].endswith(f" /why_{reference(alert.key)}")
            assert [button.text for row in answer.buttons for button in row] == ["🔕 1 h", "🔕 24 h"]
        assert await lines(commands, "symbol NO_SUCH_COIN") == ["No watched contract is called NO_SUCH_COIN."]
        assert await lines(commands, "symbol") == ["Say which: /symbol BTC"]
        ((letter, count),) = Counter(symbol[0] for symbol in monitor.bot.watched).most_common(1)
        assert count > 1
        begin = [symbol for symbol in monitor.bot.watched if symbol.startswith(letter)]
        assert await lines(commands, f"symbol {letter.lower()}") == [f"Which one? {', '.join(begin)}"]
        wishes.mute("BTC_USDT", 60 * MINUTE_MS, "somebody")
        answer = await commands.answer("symbol", "btc", "somebody")
        assert "BTC_USDT: until " in "\n".join(answer.card.lines)
        assert [button.text for row in answer.buttons for button in row] == ["🔔 BTC_USDT"]

    ask(visitor)


def test_every_number_behind_an_alert_is_told_on_request() -> None:
    async def visitor(commands: Commands, wishes: Wishes, monitor: Monitor) -> None:
        (alert,) = (one for one in monitor.bot.alerts if isinstance(one, Alert))
        told = "\n".join(await lines(commands, f"why {reference(alert.key).upper()}"))
        for reason in alert.signal.reasons:
            assert f"\n{reason.name} = {reason.value:.6g} {reason.unit}".rstrip() in told
        assert "its usual move" in told
        assert "Rule default, detector rarity, candle Min1 of " in told
        assert "it would come by chance in 0.01 % of all minutes" in told
        assert await lines(commands, f"why_{reference(alert.key)}") == told.split("\n")
        assert await lines(commands, "why aaaaaaaa") == ["No alert of the last 7 days has the ID aaaaaaaa."]
        assert (await lines(commands, "why"))[0].startswith("Say which: /why ID")

    ask(visitor)


def test_budgets_and_rules_are_told_and_changed() -> None:
    async def visitor(commands: Commands, wishes: Wishes, monitor: Monitor) -> None:
        assert (await lines(commands, "rules"))[:2] == ["Rules in force", "default, alerts in 24 h: 1"]
        assert "budget 40 a day" not in "\n".join(await lines(commands, "budget"))
        assert await lines(commands, "budget 40") == [
            "Budget",
            "default: about 40 alerts a day from now on, the rarest ones, on all channels",
        ]
        assert "default, alerts in 24 h: 1, budget 40 a day" in await lines(commands, "rules")
        assert (await lines(commands, "budget default 12,5"))[1].startswith("default: about 12.5 alerts a day")
        assert await lines(commands, "budget off") == ["Budget", "default: no limit from now on"]
        assert await lines(commands, "budget nothing 5") == ["There is no rule nothing; there are: default"]
        here = await commands.answer("budget", "here 7", "somebody", ["log"])
        assert here.card.lines == ("log: at most 7 alerts a day in this chat",)
        assert (
            "log: at most 7 alerts a day in this chat"
            in (await commands.answer("budget", "", "somebody", ["log"])).card.lines
        )
        here = await commands.answer("budget", "here off", "somebody", ["log", "phone"])
        assert here.card.lines == ("log: all alerts in this chat", "phone: all alerts in this chat")
        assert await lines(commands, "budget here 7") == ["Nothing is told in this chat."]
        for nonsense in ("many", "0", "-3", "nan", "1e9", "default", "default many"):
            assert (await lines(commands, f"budget {nonsense}"))[0].startswith("Say how many alerts a day"), nonsense
        assert {rule.alerts_per_day for rule in monitor.bot.analysis.rules.rules} == {None}

    ask(visitor)


def test_buttons_mute_unmute_and_move_budgets() -> None:
    async def visitor(commands: Commands, wishes: Wishes, monitor: Monitor) -> None:
        assert await lines(commands, "mutes") == ["Nothing is muted."]
        said = await commands.press(Press(Act.MUTE_HOUR, "BTC_USDT"), "somebody")
        assert said.startswith("BTC_USDT is muted until ")
        await commands.press(Press(Act.MUTE_DAY, "ETH_USDT"), "somebody")
        answer = await commands.answer("mutes", "", "somebody")
        assert [line.split(":")[0] for line in answer.card.lines] == ["BTC_USDT", "ETH_USDT"]
        pressed = BUTTONS.press(answer.buttons[0][0].data)
        assert pressed == Press(Act.UNMUTE, "BTC_USDT")
        assert await commands.press(pressed, "somebody") == "BTC_USDT is told of again"
        assert monitor.bot.analysis.muted == {"ETH_USDT"}
        assert (
            await commands.press(Press(Act.LESS, "default"), "somebody")
            == "default: about 5 alerts a day from now on (before: –)"
        )
        assert (
            await commands.press(Press(Act.MORE, "default"), "somebody")
            == "default: about 10 alerts a day from now on (before: 5)"
        )
        assert "rule = 'gone'" in await commands.press(Press(Act.LESS, "gone"), "somebody")
        assert "symbol = 'GONE_USDT'" in await commands.press(Press(Act.MUTE_DAY, "GONE_USDT"), "somebody")
        assert await commands.press(Press(Act.WRONG, "aaaaaaaa"), "somebody") == EN.not_kept

    ask(visitor)


@pytest.mark.parametrize("language", ["en", "ru"])
def test_every_command_of_the_help_is_answered_in_its_language_and_fits_a_message(language: str) -> None:
    async def visitor(commands: Commands, wishes: Wishes, monitor: Monitor) -> None:
        words = COMMAND_TEXTS[language]
        assert set(words.commands) == {"status", "top", "symbol", "rules", "mutes", "budget", "why", "help"}
        for command in (*words.commands, "start", "nonsense", "x" * 300, "symbol " + "x" * 5_000, "why " + "<b>" * 999):
            name, _, argument = command.partition(" ")
            answer = await commands.answer(name, argument, "somebody")
            assert answer.card.title
            assert len(html(answer.card, 4_096)) <= 4_096
            russian = any("а" <= letter <= "я" for letter in "\n".join([answer.card.title, *answer.card.lines]).lower())
            assert russian == (language == "ru"), answer.card
        top = await lines(commands, "top")
        assert len(top) == 11
        assert "BTC_USDT +" in top[1]

    ask(visitor, language=language)


def test_both_languages_have_the_same_words_to_fill_in() -> None:
    def holes(value: object) -> object:
        if isinstance(value, dict):
            return {key: holes(one) for key, one in value.items()}
        return sorted(name for _, name, _, _ in string.Formatter().parse(str(value)) if name)

    english, russian = dataclasses.asdict(EN), dataclasses.asdict(RU)
    assert {key: holes(value) for key, value in english.items()} == {
        key: holes(value) for key, value in russian.items()
    }
    assert all(3 <= len(words) <= 256 for one in (EN, RU) for words in one.commands.values()), "what Telegram takes"
