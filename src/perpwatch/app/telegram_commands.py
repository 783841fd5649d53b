"""Commands and buttons in Telegram: hears what people write and press, lets the listed ones through, and answers.

One task for each bot asks for updates (long polls), acts on each at once and has its answer sent beside, so that a busy
chat holds up nobody. What was heard is remembered before it is done: after a crash nothing is done twice, at most the
last press is lost, and its person sees that no answer came.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from aiogram.methods import AnswerCallbackQuery, GetMe, GetUpdates, SendMessage, SetMyCommands
from aiogram.types import BotCommand, CallbackQuery, InlineKeyboardMarkup, LinkPreviewOptions, Message, Update
from pydantic import ValidationError

from perpwatch.alert.buttons import keyboard
from perpwatch.alert.senders.telegram import TelegramBot, TelegramSender
from perpwatch.alert.spelling import TELEGRAM_MESSAGE, html
from perpwatch.app.alerts_config import AlertsConfig
from perpwatch.app.bot import Bot
from perpwatch.app.commands import Answer, Commands
from perpwatch.app.delivery import Deliveries
from perpwatch.app.health import Monitor
from perpwatch.app.keeper import Keeper
from perpwatch.app.wishes import Wishes
from perpwatch.errors import DeliveryError, DeliveryRefused, StoreError, retry_delay

logger = logging.getLogger(__name__)

#: What is heard at all.
KINDS = ["message", "callback_query"]
#: How long the service keeps a question for updates open, and what an answer may take beyond it.
POLL_S, POLL_GRACE_S = 25, 15.0
#: Pause after a question that was refused: another program uses the token, or it is not valid.
REFUSED_PAUSE_S, LONGEST_PAUSE_S = 60.0, 30.0
#: A command that was written so long ago is not answered: whoever wrote it does not wait any more.
OLD_S = 600
#: After a week without updates Telegram numbers them anew, so that what was heard last says nothing any more.
NUMBERS_HOLD_S = 6 * 86_400.0
#: Answers on their way at once; more are left out, because nobody can read them.
MOST_ANSWERS = 50
#: What pops up when a button was pressed holds so many characters.
POPUP_LENGTH = 200
#: Strangers that are remembered, so that each is named in the log once.
MOST_STRANGERS = 1_000


@contextlib.asynccontextmanager
async def telegram_commands(
    bot: Bot,
    wishes: Wishes,
    config: AlertsConfig,
    deliveries: Deliveries,
    *,
    monitor: Monitor | None = None,
    keeper: Keeper | None = None,
) -> AsyncIterator[None]:
    """Take the commands of every bot of Telegram among the channels whose users may command, while this is entered."""
    channels: dict[TelegramBot, dict[str, TelegramSender]] = {}
    for name in deliveries.names:
        sender = deliveries.sender(name)
        if isinstance(sender, TelegramSender) and sender.bot.users:
            channels.setdefault(sender.bot, {})[name] = sender
    listeners = []
    for telegram, senders in channels.items():
        commands = Commands(
            bot,
            wishes,
            telegram.buttons,
            config.language,
            config.zone,
            monitor=monitor,
            keeper=keeper,
            deliveries=deliveries,
        )
        listeners.append(asyncio.create_task(Listener(telegram, commands, senders, keeper).run()))
    try:
        yield
    finally:
        for task in listeners:
            task.cancel()
        for result in await asyncio.gather(*listeners, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("commands of Telegram were no longer heard: %r", result)


class _Heard(msgspec.Struct, frozen=True):
    """The last update that was taken."""

    number: int = 0
    time_s: float = 0.0  # our wall clock

    def next_number(self, now_s: float) -> int | None:
        """What to ask for; None for whatever there is."""
        return self.number + 1 if now_s - self.time_s < NUMBERS_HOLD_S else None


class Listener:
    """Hears one bot.

    Args:
        senders: its channels, by name.
        keeper: remembers what was heard; None forgets it with the program.
    """

    def __init__(
        self,
        telegram: TelegramBot,
        commands: Commands,
        senders: Mapping[str, TelegramSender],
        keeper: Keeper | None = None,
    ) -> None:
        self._telegram = telegram
        self._commands = commands
        self._senders = senders
        self._keeper = keeper
        self._key = f"telegram.{telegram.id}.heard"
        self._username = ""
        self._strangers: set[int] = set()
        self._answers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Hear and answer until cancelled; no failure ends it."""
        try:
            while True:
                try:
                    await self._hear()
                except Exception:  # ours, and people still want to be heard
                    logger.exception("the hearing of Telegram stumbled")
                    await asyncio.sleep(REFUSED_PAUSE_S)
        finally:
            for answer in self._answers:
                answer.cancel()
            await asyncio.gather(*self._answers, return_exceptions=True)

    async def _hear(self) -> None:
        heard = self._recall()
        failures, told = 0, ""
        while True:
            if not self._username:
                await self._introduce()
            try:
                updates = await self._telegram.call(
                    GetUpdates(offset=heard.next_number(time.time()), timeout=POLL_S, allowed_updates=KINDS),
                    timeout_s=POLL_S + POLL_GRACE_S,
                )
            except DeliveryError as error:
                failures += 1
                if error.reason != told:
                    told = error.reason
                    logger.warning("commands of Telegram are not heard: %s; trying again and again", error)
                await asyncio.sleep(self._pause_s(error, failures))
                continue
            if failures:
                logger.info("commands of Telegram are heard again")
            failures, told = 0, ""
            for raw in updates if isinstance(updates, list) else ():
                if (number := _number_of(raw)) is not None:
                    heard = _Heard(number, time.time())
                    self._remember(heard)
                    await self._take(raw)

    async def _introduce(self) -> None:
        """Learn the bot's name, and show people what there is; without either it works, too."""
        menu = [BotCommand(command=name, description=words) for name, words in self._commands.words.commands.items()]
        try:
            me = await self._telegram.call(GetMe())
            self._username = str(me.get("username", "")).lower() if isinstance(me, dict) else ""
            await self._telegram.call(SetMyCommands(commands=menu))
        except DeliveryError as error:
            logger.debug("Telegram shows no menu of commands: %s", error)

    def _pause_s(self, error: DeliveryError, failures: int) -> float:
        if isinstance(error, DeliveryRefused):
            return REFUSED_PAUSE_S
        # At least a second: a service that answers at once with an error is asked no faster than one that hangs.
        return max(1.0, retry_delay(error, failures, random.random(), cap_s=LONGEST_PAUSE_S) or 0.0)

    # --- One update -------------------------------------------------------------------------------------------------

    async def _take(self, raw: Any) -> None:
        try:
            update = Update.model_validate(raw, context={"bot": self._telegram.aiogram})
            if update.message is not None:
                await self._take_message(update.message)
            elif update.callback_query is not None:
                await self._take_press(update.callback_query)
        except ValidationError as error:
            logger.warning("an update of Telegram cannot be read: %d errors", error.error_count())
        except DeliveryError as error:
            logger.warning("Telegram did not take an answer: %s", error)
        except Exception:  # whatever is wrong with one command, the others are heard
            logger.exception("a command of Telegram failed")

    async def _take_message(self, message: Message) -> None:
        parts = (message.text or "").split(maxsplit=1)
        if not parts or not parts[0].startswith("/") or message.from_user is None:
            return
        command, _, addressee = parts[0][1:].partition("@")
        if addressee and addressee.lower() != self._username:
            return  # another bot of the group is meant
        if not self._may_command(message.from_user.id) or time.time() - message.date.timestamp() > OLD_S:
            return
        argument = parts[1].strip() if len(parts) > 1 else ""
        here = self._channels_at(str(message.chat.id), message.message_thread_id if message.is_topic_message else None)
        answer = await self._commands.answer(command.lower(), argument, _who(message.from_user.id), here)
        self._send(answer, message)

    def _channels_at(self, chat: str, thread_id: int | None) -> list[str]:
        """The channels that tell a topic; where none does, those that tell its chat."""
        places = {name: sender.thread_id for name, sender in self._senders.items() if sender.destination == chat}
        return [name for name, place in places.items() if place == thread_id] or list(places)

    async def _take_press(self, query: CallbackQuery) -> None:
        if not self._may_command(query.from_user.id):
            return
        press = self._telegram.buttons.press(query.data or "")
        if press is None:
            text = self._commands.words.stale_button
        else:
            text = await self._commands.press(press, _who(query.from_user.id))
        try:
            await self._telegram.call(AnswerCallbackQuery(callback_query_id=query.id, text=text[:POPUP_LENGTH]))
        except DeliveryRefused as refused:
            # Pressed while nobody listened; it is done, and nobody looks any more.
            logger.info("a press came late: %s", refused)

    def _may_command(self, user: int) -> bool:
        if user in self._telegram.users:
            return True
        if user not in self._strangers and len(self._strangers) < MOST_STRANGERS:
            self._strangers.add(user)
            logger.warning("the user %d of Telegram is not among those who may command, and is ignored", user)
        return False

    # --- Answers ----------------------------------------------------------------------------------------------------

    def _send(self, answer: Answer, to: Message) -> None:
        """Have an answer sent when its chat's turn has come."""
        if len(self._answers) >= MOST_ANSWERS:
            logger.warning("an answer in Telegram is left out: %d others wait", len(self._answers))
            return
        rows = [row for row in answer.buttons if row]
        method = SendMessage(
            chat_id=to.chat.id,
            message_thread_id=to.message_thread_id if to.is_topic_message else None,
            text=html(answer.card, TELEGRAM_MESSAGE),
            link_preview_options=LinkPreviewOptions(is_disabled=True),
            reply_markup=InlineKeyboardMarkup.model_validate(keyboard(rows)) if rows else None,
        )
        task = asyncio.create_task(self._deliver(method, str(to.chat.id)))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _deliver(self, method: SendMessage, chat: str) -> None:
        for attempt in (1, 2, 3):
            try:
                await self._telegram.call(method, chat=chat)
                return
            except DeliveryError as error:
                pause_s = retry_delay(error, attempt, random.random())
                if pause_s is None or attempt == 3:
                    logger.warning("Telegram did not take an answer: %s", error)
                    return
                await asyncio.sleep(pause_s)

    # --- What was heard ---------------------------------------------------------------------------------------------

    def _recall(self) -> _Heard:
        if self._keeper is None:
            return _Heard()
        try:
            kept = self._keeper.recall(self._key)
            return msgspec.json.decode(kept, type=_Heard) if kept is not None else _Heard()
        except (StoreError, msgspec.MsgspecError) as error:
            logger.warning("which commands of Telegram were done cannot be read: %s", error)
            return _Heard()

    def _remember(self, heard: _Heard) -> None:
        if self._keeper is not None:
            self._keeper.remember(self._key, msgspec.json.encode(heard), round(heard.time_s * 1_000))


def _number_of(raw: Any) -> int | None:
    number = raw.get("update_id") if isinstance(raw, dict) else None
    return number if isinstance(number, int) else None


def _who(user: int) -> str:
    return f"telegram user {user}"
