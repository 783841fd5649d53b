"""``perpwatch alerts chats``: the numbers that settings of Telegram need, and that Telegram itself does not show."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from perpwatch.alert.spelling import cleaned
from perpwatch.app.alerts_config import read_secret
from perpwatch.app.printing import console
from perpwatch.app.runner import run_program
from perpwatch.errors import ConfigurationError, DeliveryError, DeliveryRefused

#: How long Telegram keeps a question open, and the pause after one that failed.
POLL_S, PAUSE_S = 10, 2.0


class Seen(msgspec.Struct, frozen=True):
    """Where somebody has written."""

    chat: int
    topic: int | None
    user: int
    chat_name: str
    user_name: str

    def __str__(self) -> str:
        topic = f", topic = {self.topic}" if self.topic is not None else ""
        return f"chat = {self.chat}{topic}  ({self.chat_name}); user {self.user} ({self.user_name})"


def chats(
    token_file: Annotated[Path | None, typer.Option(help="File with the bot's token.")] = None,
    token_env: Annotated[str | None, typer.Option(help="Variable of the environment with the token.")] = None,
    base_url: Annotated[str, typer.Option(help="Another Bot API.")] = "https://api.telegram.org",
    proxy: Annotated[str | None, typer.Option(help="http, socks4 or socks5 address.")] = None,
    duration: Annotated[float | None, typer.Option(min=0.1, help="Stop after so many seconds.")] = None,
) -> None:
    """Print the numbers of chats, topics and people, as they write to a bot of Telegram; Ctrl-C ends it.

    In a group write a command, such as /start: bots are not shown anything else. Not while a watch uses the same token.
    """
    token = read_secret("--token", str(token_file) if token_file is not None else None, token_env, Path())
    run_program(print_chats(token, base_url, proxy, duration))


async def print_chats(token: str, base_url: str, proxy: str | None, duration_s: float | None) -> None:
    """Print each chat, topic and person once, until cancelled or for so many seconds.

    Raises:
        ConfigurationError: the token is none, or Telegram does not know it.
    """
    # Only here: the library is large.
    from aiogram.methods import GetUpdates

    from perpwatch.alert.senders.telegram import TelegramBot

    try:
        bot = TelegramBot(token, base_url=base_url, proxy=proxy)
    except ValueError as error:
        raise ConfigurationError("--token", "(not shown)", str(error)) from None
    console.print("Write /start to the bot, or in a group or topic that it is in; Ctrl-C ends this.")
    end_s = time.monotonic() + duration_s if duration_s is not None else float("inf")
    known: set[Seen] = set()
    offset: int | None = None
    try:
        while (left_s := end_s - time.monotonic()) > 0.0:
            poll = GetUpdates(offset=offset, timeout=round(min(POLL_S, left_s)), allowed_updates=["message"])
            try:
                updates = await bot.call(poll, timeout_s=POLL_S + 15.0)
            except DeliveryRefused as refused:
                raise ConfigurationError("--token", "(not shown)", str(refused)) from None
            except DeliveryError as error:
                console.print(f"Telegram is not heard: {error}; trying again", soft_wrap=True, markup=False)
                await asyncio.sleep(PAUSE_S)
                continue
            for update in updates:
                offset = update["update_id"] + 1
                seen = _seen(update.get("message", {}))
                if seen is not None and seen not in known:
                    known.add(seen)
                    print(seen, flush=True)
    finally:
        await bot.close()


def _seen(message: Any) -> Seen | None:
    try:
        chat, user = message["chat"], message["from"]
        topic = message["message_thread_id"] if message.get("is_topic_message") else None
        # Strangers choose these names, and a terminal obeys some characters.
        names = (cleaned(str(name)) for name in (chat.get("title") or "private", user.get("first_name", "")))
        return Seen(chat["id"], topic, user["id"], *names)
    except (KeyError, TypeError, AttributeError):
        return None
