"""Cards in chats, over real sockets against the Bot API of our own."""

from __future__ import annotations

import asyncio
import io
import logging
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from perpwatch.alert.buttons import MAX_DATA_BYTES, Act, Buttons, Press, reference
from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.policy import Alert
from perpwatch.alert.senders.telegram import TelegramBot, TelegramSender, telegram_turns
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryError, DeliveryFailed, DeliveryRefused
from perpwatch.model import Direction, Level, Reason, Signal, Timeframe, Trust
from perpwatch.sim.bot_api import BotApiServer, Fault, Refused
from perpwatch.sim.clock import run_scaled

USER, GROUP = 77, -1001234567890
CARD = Card(
    "▲ MOG +4.4 % in 1 min",
    ("volume 12.6 × its one-day mean", "the rarest minute in 11 days"),
    "streamed · 16 ms",
    "https://www.mexc.com/futures/MOG_USDT",
)


def notice(symbol: str = "MOG_USDT", rule: str = "default", kind: NoticeKind = NoticeKind.ALERT) -> Notice:
    signal = Signal(
        detector="rarity",
        symbol=symbol,
        timeframe=Timeframe.Min1,
        open_time_ms=1_764_000_000_000,
        direction=Direction.UP,
        level=Level.STRONG,
        price=1.25,
        strength=3.0,
        is_running=True,
        trust=Trust.STREAMED,
        reasons=(Reason("move", 4.4, "%", "+4.40 % in 1 min"),),
        event_time_ms=1_764_000_030_000,
        received_time_ns=1_764_000_030_016_000_000,
        rule=rule,
    )
    key = f"{rule}/rarity:{symbol}:Min1:1764000000000:0"
    alert = Alert(key, signal, signal.event_time_ms, signal.event_time_ms, 0, 12.6, 1e-4, rule=rule)
    return Notice(
        key=key, thread=key, kind=kind, time_ms=alert.time_ms, level=signal.level, rule=rule, symbol=symbol, alert=alert
    )


def png(width: int = 60, height: int = 40, colour: str = "green") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


@asynccontextmanager
async def telegram(
    *,
    timeout_s: float = 5.0,
    turns: Turns | None = None,
    server: BotApiServer | None = None,
    language: str = "en",
    users: Sequence[int] = (USER,),
) -> AsyncIterator[tuple[BotApiServer, TelegramBot]]:
    """A Bot API with a person and a forum, and a bot without limits of its own."""
    async with server or BotApiServer(is_strict=False) as api:
        api.add_chat(USER)
        api.add_chat(GROUP, topics=[5, 9])
        bot = TelegramBot(
            api.token,
            language=language,
            users=users,
            base_url=api.url,
            turns=turns or Turns.unlimited(),
            timeout_s=timeout_s,
        )
        try:
            yield api, bot
        finally:
            await bot.close()


def sender(bot: TelegramBot, chat: int = USER, thread_id: int | None = None) -> TelegramSender:
    return TelegramSender(bot, str(chat), thread_id)


# --- Messages ---------------------------------------------------------------------------------------------------------


async def test_a_card_is_one_message_with_its_reasons_buttons_and_a_link_to_the_chart() -> None:
    async with telegram() as (api, bot):
        receipt = await sender(bot).send(CARD, [notice()])
        (message,) = api.chats[USER].shown
        assert message.text.startswith("▲ MOG +4.4 % in 1 min\nvolume 12.6 × its one-day mean\nthe rarest minute")
        assert message.text.endswith(f"\n/why_{reference(notice().key)}")
        assert message.html.startswith("<b>▲ MOG")
        words = [[button["text"] for button in row] for row in message.buttons]
        assert words == [["🔕 1 h", "🔕 24 h"], ["➖ Less of this", "➕ More of this", "👎 Wrong"], ["📈 Open chart"]]
        assert message.button("📈 Open chart")["url"] == CARD.url
        assert receipt == f"{USER}/{message.message_id}"


async def test_a_picture_goes_up_with_the_card_as_its_caption_however_long_the_card_is() -> None:
    long = Card("title", tuple(f"reason {number} " + "x" * 90 for number in range(40)), "footer", CARD.url, png())
    async with telegram() as (api, bot):
        await sender(bot).send(long, [notice()])
        (message,) = api.chats[USER].shown
        assert message.photo == png()
        assert 800 < len(message.text) <= 1_024
        assert message.text.startswith("title\nreason 0")
        assert "footer" in message.text
        assert "/why_" in message.text


async def test_a_development_edits_the_message_and_the_same_edit_twice_does_no_harm() -> None:
    async with telegram() as (api, bot):
        channel = sender(bot, GROUP, 5)
        receipt = await channel.send(CARD, [notice()])
        later = Card("▲ MOG +4.4 % -> +14 %", CARD.lines, CARD.footer, CARD.url)
        await channel.edit(receipt, later, [notice()])
        await channel.edit(receipt, later, [notice()])
        (message,) = api.chats[GROUP].shown
        assert message.text.startswith("▲ MOG +4.4 % -> +14 %")
        assert message.buttons[0][0]["text"] == "🔕 1 h", "an edit keeps the buttons"
        assert (message.edits, message.thread_id) == (1, 5)


async def test_the_caption_of_a_picture_is_edited_with_or_without_a_new_picture() -> None:
    async with telegram() as (api, bot):
        channel = sender(bot)
        receipt = await channel.send(Card("first", picture=png()), [notice()])
        (message,) = api.chats[USER].shown
        await channel.edit(receipt, Card("second"), [notice()])
        assert (message.text.split("\n")[0], message.photo) == ("second", png())
        await channel.edit(receipt, Card("third", picture=png(colour="red")), [notice()])
        assert (message.text.split("\n")[0], message.photo) == ("third", png(colour="red"))


async def test_a_picture_that_is_refused_leaves_the_words() -> None:
    async with telegram() as (api, bot):
        await sender(bot).send(Card("words", picture=png(9_000, 2)), [notice()])
        await sender(bot).send(Card("more words", picture=b"no picture"), [notice()])
        assert [message.photo for message in api.chats[USER].shown] == [None, None]
        assert [message.text.split("\n")[0] for message in api.chats[USER].shown] == ["words", "more words"]


async def test_a_digest_has_no_buttons_but_the_link_and_where_nobody_may_command_there_are_none_either() -> None:
    async with telegram() as (api, bot):
        await sender(bot).send(CARD, [notice(), notice("PEPE_USDT")])
        (message,) = api.chats[USER].shown
        assert [[button["text"] for button in row] for row in message.buttons] == [["📈 Open chart"]]
        assert "/why" not in message.text
    async with telegram(users=()) as (api, bot):
        await sender(bot).send(CARD, [notice()])
        (message,) = api.chats[USER].shown
        assert [[button["text"] for button in row] for row in message.buttons] == [["📈 Open chart"]]
        assert "/why" not in message.text


async def test_a_link_that_telegram_would_refuse_is_left_out_and_the_message_arrives() -> None:
    async with telegram(language="ru") as (api, bot):
        local = TelegramSender(bot, str(USER), chart_url="http://localhost:8765/symbol/{symbol}")
        await local.send(Card("title"), [notice()])
        linked = TelegramSender(bot, str(USER), chart_url="https://pages.example.org/{symbol}")
        await linked.send(Card("title"), [notice()])
        first, second = api.chats[USER].shown
        assert [len(row) for row in first.buttons] == [2, 3]
        assert second.button("📈 Открыть график")["url"] == "https://pages.example.org/MOG_USDT"


any_text = st.text(st.characters(exclude_categories=[]), max_size=200)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(any_text, min_size=1, max_size=5), any_text, st.text(max_size=200))  # a symbol is always Unicode
def test_no_text_of_the_exchange_breaks_a_message(lines: list[str], title: str, symbol: str) -> None:
    async def show() -> None:
        async with telegram() as (api, bot):
            card = Card(f"title {title}", tuple(lines), f"<b>&amp;{title}", CARD.url, link=symbol)
            await sender(bot).send(card, [notice(symbol or "?")])
            (message,) = api.chats[USER].shown
            assert "<b>&amp;" in message.text, "what looks like marks is shown as it is"

    asyncio.run(show())


# --- Failures ---------------------------------------------------------------------------------------------------------


async def test_what_telegram_will_always_refuse_is_refused_with_its_words() -> None:
    async with telegram() as (api, bot):
        api.chats[USER].refusal = Refused(403, "Forbidden: bot was blocked by the user")
        with pytest.raises(DeliveryRefused, match="403: Forbidden: bot was blocked by the user"):
            await sender(bot).send(CARD, [notice()])
        with pytest.raises(DeliveryRefused, match="chat not found"):
            await sender(bot, 4_711).send(CARD, [notice()])
        with pytest.raises(DeliveryRefused, match="message thread not found"):
            await sender(bot, GROUP, 6).send(CARD, [notice()])


async def test_a_message_that_somebody_deleted_is_refused_when_it_is_edited() -> None:
    async with telegram() as (api, bot):
        receipt = await sender(bot).send(CARD, [notice()])
        api.delete(USER, api.chats[USER].shown[0].message_id)
        with pytest.raises(DeliveryRefused, match="message to edit not found"):
            await sender(bot).edit(receipt, Card("later"), [notice()])
        with pytest.raises(DeliveryRefused, match="names no message"):
            await sender(bot).edit("what is this?", Card("later"), [notice()])


async def test_too_many_requests_says_how_long_to_wait_and_everybody_waits() -> None:
    async with telegram() as (api, bot):
        api.faults.append(Fault.TOO_MANY)
        api.retry_after_s = 2
        with pytest.raises(DeliveryFailed, match="429") as failed:
            await sender(bot).send(CARD, [notice()])
        assert failed.value.retry_after_s == 2.0
        assert not failed.value.may_be_shown
        assert 1.0 < bot.turns.wait_s(str(USER)) <= 2.0
        assert bot.turns.wait_s(str(GROUP)) == 0.0


@pytest.mark.parametrize(
    ("fault", "words", "may_be_shown"),
    [
        (Fault.BROKEN, "500: Internal Server Error", False),
        (Fault.BAD_GATEWAY, "HTTP 502, and no answer of a Bot API", True),
        (Fault.RESET, "disconnected", True),
        (Fault.LOST_ANSWER, "disconnected", True),
        (Fault.SILENT, "no answer within 0.3 s", True),
    ],
)
async def test_what_may_pass_is_worth_another_try(fault: Fault, words: str, may_be_shown: bool) -> None:
    async with telegram(timeout_s=0.3) as (api, bot):
        api.faults.append(fault)
        with pytest.raises(DeliveryFailed, match=words) as failed:
            await sender(bot).send(CARD, [notice()])
        assert failed.value.may_be_shown == may_be_shown
        await sender(bot).send(CARD, [notice()])
        assert len(api.chats[USER].shown) == (2 if fault is Fault.LOST_ANSWER else 1)


async def test_a_group_that_becomes_a_supergroup_is_followed(caplog: pytest.LogCaptureFixture) -> None:
    async with telegram() as (api, bot):
        api.add_chat(-55, kind="group")
        new = api.move(-55, -100_555)
        channel = sender(bot, -55)
        receipt = await channel.send(CARD, [notice()])
        await channel.edit(receipt, Card("later"), [notice()])
        await channel.send(CARD, [notice()])
        assert [message.text.split("\n")[0] for message in new.shown] == ["later", CARD.title]
        assert [call.status for call in api.received] == [400, 200, 200, 200], "asked at the old address once"
        assert "the chat -55 has become the supergroup -100555" in caplog.text


async def test_the_token_is_in_no_error_and_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("aiogram").setLevel(logging.DEBUG)
    async with telegram(timeout_s=0.3) as (api, bot):
        secret = api.token.partition(":")[2]
        errors: list[DeliveryError] = []

        async def fail(one: TelegramBot) -> None:
            with pytest.raises(DeliveryError) as failed:
                await sender(one).send(CARD, [notice()])
            errors.append(failed.value)

        for fault in Fault:
            api.faults.append(fault)
            await fail(bot)
        api.chats[USER].refusal = Refused(400, f"Bad Request: https://api.telegram.org/bot{api.token}/x is wrong")
        await fail(bot)
        for url in ("http://127.0.0.1:9", "http://no-such-host.invalid", "http://[::1", "http://127.0.0.1:99999"):
            other = TelegramBot(api.token, base_url=url, turns=Turns.unlimited(), timeout_s=2.0)
            await fail(other)
            await other.close()
        wrong = TelegramBot("1:wrong-but-secret", base_url=api.url, turns=Turns.unlimited())
        with pytest.raises(DeliveryRefused, match="does not know this token"):
            await sender(wrong).send(CARD, [notice()])
        await wrong.close()
        with pytest.raises(ValueError, match="give a token as BotFather does") as unusable:
            TelegramBot(f"{secret} with spaces")
        assert len(errors) == len(Fault) + 5
        assert [one.may_be_shown for one in errors[-4:] if isinstance(one, DeliveryFailed)] == [False] * 4
        for error in [*errors, unusable.value]:
            assert secret not in "".join(traceback.format_exception(error))
            assert secret not in repr(error)
        assert secret not in repr(vars(bot).keys()) + repr(bot)
    assert secret not in caplog.text


# --- Limits -----------------------------------------------------------------------------------------------------------


def test_channels_that_share_a_bot_keep_its_limits_as_telegram_counts_them() -> None:
    async def storm() -> BotApiServer:
        clock = asyncio.get_running_loop().time
        server = BotApiServer(monotonic=clock)
        async with telegram(turns=telegram_turns(clock), server=server, timeout_s=300.0) as (api, bot):
            people = [api.add_chat(1_000 + number).chat_id for number in range(40)]
            channels = [sender(bot, GROUP, 5), sender(bot, GROUP, 9), *(sender(bot, person) for person in people)]

            async def tell(channel: TelegramSender, times: int) -> None:
                for _ in range(times):
                    await channel.send(CARD, [notice()])

            await asyncio.gather(*(tell(channel, 11 if place < 2 else 2) for place, channel in enumerate(channels)))
            return api

    api = run_scaled(storm(), 20.0)
    assert api.exceeded == []
    assert {call.status for call in api.received} == {200}
    assert len(api.chats[GROUP].shown) == 22
    times_s = [message.received_s for message in api.chats[GROUP].shown]
    assert 60.0 <= times_s[20] - times_s[0] < 100.0, "the 21st of a group waits until a minute is over"


# --- Buttons ----------------------------------------------------------------------------------------------------------


def test_a_press_comes_back_as_it_was_made_and_nobody_else_can_make_one() -> None:
    buttons = Buttons("the secret", "en")
    data = buttons.data(Act.MUTE_DAY, "MOG_USDT")
    assert buttons.press(data) == Press(Act.MUTE_DAY, "MOG_USDT")
    assert Buttons("the secret", "ru").press(data) == Press(Act.MUTE_DAY, "MOG_USDT"), "it outlives a restart"
    assert Buttons("another", "en").press(data) is None
    for forged in (data.replace("MOG", "PEPE"), data.replace("d:", "h:"), "d:MOG_USDT:", "", ":::", "d:MOG_USDT:ééé"):
        assert buttons.press(forged) is None


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=40))
def test_data_of_buttons_always_fits(symbol: str, rule: str) -> None:
    buttons = Buttons("secret", "en")
    for row in buttons.of([notice(symbol, rule)]):
        for button in row:
            assert len(button.data.encode()) <= MAX_DATA_BYTES
            assert buttons.press(button.data) is not None
