"""A bot whose findings are kept: the store, its writer and what is remembered over a restart, around one run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from perpwatch.app.bot import Bot
from perpwatch.app.engine import Step
from perpwatch.app.keeper import DESK_KEY, Keeper
from perpwatch.app.store_config import GAPS_KEY, StoreConfig
from perpwatch.feed.pool import LearnedLimit
from perpwatch.model import Batch
from perpwatch.store import Database, Reader, Trouble, Writer

logger = logging.getLogger(__name__)

#: Under this key the store remembers what the next start wants to know.
LIMIT_KEY = "limits.subscriptions"


@contextlib.asynccontextmanager
async def kept(bot: Bot, config: StoreConfig, config_file: Path | None) -> AsyncIterator[Keeper | None]:
    """Keep what ``bot`` finds while this is entered, and give it back what an earlier run knew.

    Raises:
        StoreError: the store cannot be opened.
        ConfigurationError: its address is none.
    """
    if not config.enabled:
        yield None
        return
    database = Database.open(config.address(config_file))
    try:
        async with Writer(
            database, max_waiting=config.max_waiting, on_trouble=_tell_trouble, on_recovered=_tell_recovery
        ) as writer:
            keeper = Keeper(bot.engine, Reader(database), writer, is_history_kept=config.history)
            _restore(bot, keeper)
            tell = bot.on_step

            def on_step(batch: Batch, step: Step) -> None:
                keeper.note(batch, step)
                tell(batch, step)

            bot.on_step, bot.pace = on_step, keeper
            bot.keepers["store"] = lambda: writer.trouble.text if writer.trouble is not None else ""
            chores = asyncio.create_task(_chores(bot, keeper, writer, config))
            try:
                yield keeper
            finally:
                chores.cancel()
                bot.on_step, bot.pace, bot.engine.past = tell, None, None
                keeper.finish()
                _remember(bot, keeper)
    finally:
        database.close()


def _restore(bot: Bot, keeper: Keeper) -> None:
    now_ms = bot.clock.time_ns() // 1_000_000
    restored = keeper.restore(now_ms)
    keeper.restore_alerts(now_ms)
    bot.engine.past = keeper.past
    if restored.minutes:
        logger.info("%d minutes of %d symbols are known from before", restored.minutes, restored.symbols)
    learned = keeper.recall(LIMIT_KEY)
    if learned is not None:
        try:
            bot.feed.pool.remember(msgspec.json.decode(learned, type=LearnedLimit))
        except msgspec.MsgspecError as error:
            logger.warning("the remembered subscription limit cannot be read: %s", error)


async def _chores(bot: Bot, keeper: Keeper, writer: Writer, config: StoreConfig) -> None:
    """Once a minute what must survive a crash is remembered; now and then what is too old is deleted."""
    next_cleaning_s = bot.clock.monotonic() + config.cleaning_interval
    while True:
        await asyncio.sleep(60.0)
        _remember(bot, keeper)
        await keeper.write_histories(bot.clock.time_ns() // 1_000_000)
        if bot.clock.monotonic() >= next_cleaning_s:
            next_cleaning_s = bot.clock.monotonic() + config.cleaning_interval
            writer.clean(config.kept(), bot.engine.now_ms)


def _remember(bot: Bot, keeper: Keeper) -> None:
    now_ms = bot.engine.now_ms
    learned = bot.feed.pool.learned
    if learned is not None:
        keeper.remember(LIMIT_KEY, msgspec.json.encode(learned), now_ms)
    keeper.remember(DESK_KEY, bot.analysis.desk.state(), now_ms)
    keeper.remember(GAPS_KEY, msgspec.json.encode(bot.gap_reasons()), now_ms)


def _tell_trouble(trouble: Trouble) -> None:
    if trouble.kind == "rejected":
        logger.error("a record cannot be stored and is left out: %s", trouble.text)
    else:
        logger.error("nothing can be stored: %s; trying again, and keeping everything in memory", trouble.text)


def _tell_recovery(trouble: Trouble, seconds: float) -> None:
    logger.warning("the store works again after %.0f s (%s); nothing was lost", seconds, trouble.text)
