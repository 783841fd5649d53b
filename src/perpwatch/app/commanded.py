"""A bot that people may command: what they have asked of it holds, and chats that can ask are heard, around one run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from perpwatch.app.alerts_config import AlertsConfig, TelegramChannel
from perpwatch.app.bot import Bot
from perpwatch.app.delivery import Deliveries
from perpwatch.app.health import Monitor
from perpwatch.app.keeper import Keeper
from perpwatch.app.wishes import Wishes


@contextlib.asynccontextmanager
async def commanded(
    bot: Bot,
    config: AlertsConfig,
    monitor: Monitor | None = None,
    keeper: Keeper | None = None,
    deliveries: Deliveries | None = None,
) -> AsyncIterator[Wishes]:
    """Let people command ``bot`` while this is entered, beginning with what they asked for earlier.

    Args:
        deliveries: to the channels, some of which hear; None where nobody is told anything.
    """
    wishes = Wishes(bot, keeper)
    wishes.restore()
    looking = asyncio.create_task(wishes.run())
    try:
        async with contextlib.AsyncExitStack() as stack:
            if deliveries is not None and _may_anybody_command(config):
                # Only here: it carries a large library, which a watch without Telegram does not need.
                from perpwatch.app.telegram_commands import telegram_commands

                hearing = telegram_commands(bot, wishes, config, deliveries, monitor=monitor, keeper=keeper)
                await stack.enter_async_context(hearing)
            yield wishes
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def _may_anybody_command(config: AlertsConfig) -> bool:
    return any(isinstance(channel, TelegramChannel) and channel.users for channel in config.channels.values())
