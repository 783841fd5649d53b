"""Telegram: one bot, and its chats and topics as channels.

:class:`TelegramBot` makes calls of the Bot API with aiogram's words and says what became of them in ours: every way in
which a call can fail is a :class:`~perpwatch.errors.DeliveryError` without the token in it. :class:`TelegramSender`
shows cards in one chat.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiogram import Bot
from aiogram.client.default import DefaultBotProperties
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.enums import ParseMode
from aiogram.methods import (
    EditMessageCaption,
    EditMessageMedia,
    EditMessageText,
    SendMessage,
    SendPhoto,
    TelegramMethod,
)
from aiogram.types import BufferedInputFile, InlineKeyboardMarkup, InputMediaPhoto, LinkPreviewOptions
from aiogram.utils.token import TokenValidationError
from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

from perpwatch.alert.buttons import Buttons, keyboard, reference
from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice
from perpwatch.alert.pacing import Limit, Pacer
from perpwatch.alert.spelling import TELEGRAM_CAPTION, TELEGRAM_MESSAGE, html
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryFailed, DeliveryRefused

logger = logging.getLogger(__name__)

BASE_URL = "https://api.telegram.org"
#: Of a call that is not a long poll; a picture takes a second on a poor line.
TIMEOUT_S = 20.0
#: An answer is a few kilobytes, a hundred updates are a few hundred.
MAX_ANSWER_BYTES = 16 * 2**20
#: Pause after a refusal that names no time.
DEFAULT_PAUSE_S = 5.0

_PROXY_ERRORS = (ProxyError, ProxyConnectionError, ProxyTimeoutError)
#: Before there was a connection.
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.InvalidURL, *_PROXY_ERRORS)

#: "Avoid sending more than one message per second in a single chat", "not more than 20 messages per minute" in a group,
#: "no more than 30 messages per second" in all (https://core.telegram.org/bots/faq). Edits are counted like messages.
BOT_LIMITS = (Limit(30, 1.0),)
CHAT_LIMITS = (Limit(1, 1.0),)
GROUP_LIMITS = (Limit(1, 1.0), Limit(20, 60.0))


def telegram_turns(monotonic: Callable[[], float] = time.monotonic) -> Turns:
    """The turns of one bot; destinations are the ids of chats, of which groups and channels are negative or names."""
    return Turns(
        Pacer(BOT_LIMITS, lambda chat: GROUP_LIMITS if chat.startswith(("-", "@")) else CHAT_LIMITS), monotonic
    )


class _ChatMoved(Exception):
    """A group has become a supergroup and has another id now."""

    def __init__(self, chat_id: int) -> None:
        super().__init__(chat_id)
        self.chat_id = chat_id


class TelegramBot:
    """One token at one Bot API; shared by all of its chats.

    Args:
        token: as BotFather gives it.
        language: of its buttons and answers: ``en`` or ``ru``.
        users: ids of the people who may command it, and press its buttons; with none it takes no commands.
        base_url: without ``/bot``.
        proxy: http, socks4 or socks5.
        turns: of this bot.
    Raises:
        ValueError: the token or the proxy cannot be one; without them in it.
    """

    def __init__(
        self,
        token: str,
        *,
        language: str = "en",
        users: Collection[int] = (),
        base_url: str = BASE_URL,
        proxy: str | None = None,
        turns: Turns | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.language = language
        self.users = frozenset(users)
        self.buttons = Buttons(token, language, can_act=bool(self.users))
        self.turns = turns if turns is not None else telegram_turns()
        self._timeout_s = timeout_s
        self._secret = token.partition(":")[2]
        try:
            self._session = _Session(proxy=proxy, api=TelegramAPIServer.from_base(base_url))
        except ValueError:
            raise ValueError("give a proxy as an address like socks5://host:port") from None
        try:
            self.aiogram = Bot(token, self._session, DefaultBotProperties(parse_mode=ParseMode.HTML))
        except TokenValidationError:
            raise ValueError("give a token as BotFather does, like 123456789:AA...") from None
        self._moved: dict[str, str] = {}  # chats that have another id now

    @property
    def id(self) -> int:
        """The bot's own user id; no secret."""
        return self.aiogram.id

    async def call(self, method: TelegramMethod[Any], *, chat: str = "", timeout_s: float | None = None) -> Any:
        """Make a call, after its turn where it is one to a chat; returns the result as the Bot API spells it.

        Args:
            chat: its id or name; a chat that has moved is followed.
        Raises:
            DeliveryFailed, DeliveryRefused
        """
        if not chat:
            return await self._ask(method, timeout_s)
        if chat in self._moved:
            method = method.model_copy(update={"chat_id": self._moved[chat]})
        try:
            async with self.turns.turn(chat):
                return await self._ask(method, timeout_s)
        except _ChatMoved as moved:
            self._moved[chat] = str(moved.chat_id)
            logger.warning("the chat %s has become the supergroup %d; put that into the settings", chat, moved.chat_id)
        method = method.model_copy(update={"chat_id": self._moved[chat]})
        try:
            async with self.turns.turn(chat):
                return await self._ask(method, timeout_s)
        except _ChatMoved:
            raise DeliveryFailed(f"the chat {chat} moves again and again") from None

    async def close(self) -> None:
        await self._session.close()

    async def _ask(self, method: TelegramMethod[Any], timeout_s: float | None) -> Any:
        try:
            status, body = await self._session.post(self.aiogram, method, timeout_s or self._timeout_s)
        except TimeoutError:
            raise DeliveryFailed(f"no answer within {timeout_s or self._timeout_s:g} s") from None
        # Their texts may hold the address, and with it the token; so may what they were caused by.
        except (aiohttp.ClientError, *_PROXY_ERRORS, OSError, ValueError) as error:
            text = self._cleaned(f"{type(error).__name__}: {error}")
            raise DeliveryFailed(text, may_be_shown=not isinstance(error, _NEVER_SENT)) from None
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except msgspec.MsgspecError:
            raise DeliveryFailed(f"HTTP {status}, and no answer of a Bot API") from None
        if answer.ok:
            return answer.result
        raise self._error(status, answer)

    def _error(self, status: int, answer: _Answer) -> Exception:
        """What a refusal means for whoever has something to deliver."""
        text = self._cleaned(f"{answer.error_code or status}: {answer.description}")
        if status in (401, 404):
            text += " (the Bot API does not know this token)"
        if answer.parameters.migrate_to_chat_id is not None:
            return _ChatMoved(answer.parameters.migrate_to_chat_id)
        if status == 429 or answer.parameters.retry_after is not None:
            pause_s = float(answer.parameters.retry_after or DEFAULT_PAUSE_S)
            return DeliveryFailed(text, retry_after_s=pause_s, may_be_shown=False)
        # Besides errors of the server: 409 is another program that asks for updates with this token.
        if status >= 500 or status in (408, 409):
            return DeliveryFailed(text, may_be_shown=False)
        return DeliveryRefused(text)

    def _cleaned(self, text: str) -> str:
        return text.replace(self._secret, "***")[:300] if self._secret else text[:300]


class _Parameters(msgspec.Struct):
    retry_after: float | None = None
    migrate_to_chat_id: int | None = None


class _Answer(msgspec.Struct):
    ok: bool
    result: Any = None
    error_code: int = 0
    description: str = ""
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


class _Session(AiohttpSession):
    """aiogram's session, for answers as they are: one that it cannot read must not make a sent message a failed one."""

    async def post(self, bot: Bot, method: TelegramMethod[Any], timeout_s: float) -> tuple[int, bytes]:
        """HTTP status and body.

        Raises:
            TimeoutError, aiohttp.ClientError, OSError, ValueError: any of them with the token in its text.
        """
        session = await self.create_session()
        url = self.api.api_url(token=bot.token, method=method.__api_method__)
        form = self.build_form_data(bot, method)
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        # A redirect would carry the token to wherever it points.
        async with session.post(url, data=form, timeout=timeout, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(65_536):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise ValueError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            return response.status, bytes(body)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class TelegramSender:
    """Cards in one chat, or one topic of it.

    Args:
        chat: its id, negative for groups, or the ``@name`` of a public one.
        thread_id: the topic of a forum.
        is_silent: messages arrive without a sound.
        chart_url: where the chart opens, with ``{symbol}`` in it; empty for the page that the card names.
    """

    can_edit = True
    takes_pictures = True

    def __init__(
        self,
        bot: TelegramBot,
        chat: str,
        thread_id: int | None = None,
        *,
        is_silent: bool = False,
        chart_url: str = "",
    ) -> None:
        self.destination = chat
        self.turns = bot.turns
        self.bot = bot
        self.thread_id = thread_id
        self._is_silent = is_silent
        self._chart_url = chart_url

    async def send(self, card: Card, notices: Sequence[Notice]) -> str:
        if card.picture is not None:
            try:
                return await self._send(
                    SendPhoto(
                        chat_id=self.destination,
                        message_thread_id=self.thread_id,
                        photo=BufferedInputFile(card.picture, "chart.png"),
                        caption=self._text(card, notices, TELEGRAM_CAPTION),
                        disable_notification=self._is_silent or None,
                        reply_markup=self._keyboard(card, notices),
                    )
                )
            except DeliveryRefused as refused:
                if not _is_about_the_picture(refused):
                    raise
                logger.warning("%s shows no pictures: %s", self.destination, refused)
        return await self._send(
            SendMessage(
                chat_id=self.destination,
                message_thread_id=self.thread_id,
                text=self._text(card, notices, TELEGRAM_MESSAGE),
                link_preview_options=LinkPreviewOptions(is_disabled=True),
                disable_notification=self._is_silent or None,
                reply_markup=self._keyboard(card, notices),
            )
        )

    async def edit(self, receipt: str, card: Card, notices: Sequence[Notice]) -> None:
        message = _Receipt.read(receipt)
        buttons = self._keyboard(card, notices)
        where: dict[str, Any] = {"chat_id": message.chat, "message_id": message.message_id, "reply_markup": buttons}
        if not message.has_picture:
            text = self._text(card, notices, TELEGRAM_MESSAGE)
            await self._edit(
                EditMessageText(text=text, link_preview_options=LinkPreviewOptions(is_disabled=True), **where)
            )
            return
        caption = self._text(card, notices, TELEGRAM_CAPTION)
        if card.picture is not None:
            photo = BufferedInputFile(card.picture, "chart.png")
            media = InputMediaPhoto(media=photo, caption=caption, parse_mode=ParseMode.HTML)
            try:
                await self._edit(EditMessageMedia(media=media, **where))
                return
            except DeliveryRefused as refused:
                if not _is_about_the_picture(refused):
                    raise
                logger.warning("%s keeps the picture it shows: %s", self.destination, refused)
        await self._edit(EditMessageCaption(caption=caption, **where))

    async def close(self) -> None:
        """Close the bot's sockets; other chats of it may go on, and open them again."""
        await self.bot.close()

    async def _send(self, method: SendMessage | SendPhoto) -> str:
        result = await self.bot.call(method, chat=self.destination)
        try:
            sent = msgspec.convert(result, _Sent)
        except msgspec.ValidationError as error:
            # It was taken, so another try would show it twice.
            logger.warning("%s: a message that was sent cannot be edited later: %s", self.destination, error)
            return ""
        return _Receipt(str(sent.chat.id), sent.message_id, isinstance(method, SendPhoto)).write()

    async def _edit(self, method: EditMessageText | EditMessageCaption | EditMessageMedia) -> None:
        try:
            await self.bot.call(method, chat=self.destination)
        except DeliveryRefused as refused:
            if "message is not modified" not in refused.reason:
                raise

    def _text(self, card: Card, notices: Sequence[Notice], limit: int) -> str:
        if not self.bot.buttons.can_act or len(notices) != 1 or notices[0].alert is None:
            return html(card, limit)
        why = f"\n/why_{reference(notices[0].alert.key)}"
        return html(card, limit - len(why)) + why

    def _keyboard(self, card: Card, notices: Sequence[Notice]) -> InlineKeyboardMarkup | None:
        url = card.url
        if self._chart_url and len(notices) == 1 and notices[0].symbol:
            url = self._chart_url.replace("{symbol}", notices[0].symbol)
        # Telegram takes no message with a link to this machine alone.
        if "." not in (urlsplit(url).hostname or ""):
            url = ""
        rows = self.bot.buttons.of(notices, url)
        return InlineKeyboardMarkup.model_validate(keyboard(rows)) if rows else None


class _ChatId(msgspec.Struct):
    id: int


class _Sent(msgspec.Struct):
    message_id: int
    chat: _ChatId


class _Receipt(msgspec.Struct, frozen=True):
    """Where a message is."""

    chat: str
    message_id: int
    has_picture: bool

    def write(self) -> str:
        return f"{self.chat}/{self.message_id}{'/photo' if self.has_picture else ''}"

    @classmethod
    def read(cls, receipt: str) -> _Receipt:
        """
        Raises:
            DeliveryRefused: it is none.
        """
        chat, _, rest = receipt.partition("/")
        number, _, kind = rest.partition("/")
        if not number.isdecimal():
            raise DeliveryRefused(f"{receipt!r} names no message of Telegram")
        return cls(chat, int(number), kind == "photo")


def _is_about_the_picture(refused: DeliveryRefused) -> bool:
    """Whether the same without a picture may be taken: one that cannot be read, or a chat without the right to any."""
    return any(word in refused.reason.lower() for word in ("photo", "image"))
