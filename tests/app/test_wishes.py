"""What people ask of a watch holds: until its end, against others, over a restart, and in a recording."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from perpwatch import sim
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.engine import Command, Mute, SwapRules
from perpwatch.app.keeper import Keeper
from perpwatch.app.wishes import Wishes
from perpwatch.errors import ConfigurationError
from perpwatch.model import MINUTE_MS
from perpwatch.store import Database, Reader, State, Writer

HOUR_MS = 60 * MINUTE_MS
Visitor = Callable[[Bot, Wishes], Awaitable[None]]


def watch(visitor: Visitor, folder: Path, start_ms: int = sim.DEFAULT_START_MS, **settings: object) -> None:
    """Run a bot in virtual time, with a store in the folder, until the visitor leaves."""

    async def run() -> None:
        clock = sim.Clock.starting_at(start_ms)
        network = sim.SimulatedNetwork(sim.build(3, 10, start_ms, activity=2.0), clock, seed=3)
        config = Config().with_overrides({"rest": {"history_minutes": 60}, **settings})
        database = Database.open(str(folder / "watch.db"))
        async with network, Writer(database, is_inline=True) as writer:
            bot = Bot(config, adapter_for(config), network.dial, network.get, clock, random.Random(1).random)
            wishes = Wishes(bot, Keeper(bot.engine, Reader(database), writer))
            wishes.restore()

            async def stay() -> None:
                await asyncio.sleep(30.0)
                await visitor(bot, wishes)
                bot.stop()

            looking = asyncio.create_task(wishes.run())
            await asyncio.gather(bot.run(), stay())
            looking.cancel()
        database.close()

    sim.run_virtual(run())


def budgets(bot: Bot) -> dict[str, float | None]:
    return {rule.name: rule.alerts_per_day for rule in bot.analysis.rules.rules if not rule.is_tag}


def test_a_mute_ends_by_itself_and_every_wish_is_a_command_of_the_engine(tmp_path: Path) -> None:
    commands: list[Command] = []

    async def visitor(bot: Bot, wishes: Wishes) -> None:
        bot.on_command = commands.append
        wishes.mute("BTC_USDT", 3 * MINUTE_MS, "somebody")
        wishes.mute("ETH_USDT", HOUR_MS, "somebody")
        await asyncio.sleep(175.0)
        assert list(wishes.mutes) == ["BTC_USDT", "ETH_USDT"]
        await asyncio.sleep(10.0)
        assert bot.analysis.muted == {"ETH_USDT"}
        wishes.unmute("ETH_USDT", "somebody")
        assert wishes.mutes == {}
        wishes.budget("default", 40.0, "somebody")
        told = [one for one in commands if isinstance(one, Mute | SwapRules)]
        assert [one.symbols for one in told if isinstance(one, Mute)] == [
            ("BTC_USDT",),
            ("BTC_USDT", "ETH_USDT"),
            ("ETH_USDT",),
            (),
        ]
        assert isinstance(told[-1], SwapRules)

    watch(visitor, tmp_path)


def test_a_mute_survives_a_restart_and_no_longer_than_it_was_meant_to(tmp_path: Path) -> None:
    until = dict[str, int]()

    async def mute(bot: Bot, wishes: Wishes) -> None:
        until["BTC_USDT"] = wishes.mute("BTC_USDT", HOUR_MS, "somebody")
        assert until["BTC_USDT"] == bot.clock.time_ns() // 1_000_000 + HOUR_MS

    async def still_muted(bot: Bot, wishes: Wishes) -> None:
        assert wishes.mutes == until

    async def heard_again(bot: Bot, wishes: Wishes) -> None:
        assert bot.analysis.muted == frozenset()

    watch(mute, tmp_path)
    watch(still_muted, tmp_path, sim.DEFAULT_START_MS + 50 * MINUTE_MS)
    watch(heard_again, tmp_path, sim.DEFAULT_START_MS + 61 * MINUTE_MS)


def test_what_somebody_else_has_lifted_or_muted_is_theirs(tmp_path: Path) -> None:
    async def visitor(bot: Bot, wishes: Wishes) -> None:
        wishes.mute("BTC_USDT", MINUTE_MS, "somebody")
        bot.silence([], ["ETH_USDT"])  # as the pages do
        await asyncio.sleep(2.0)
        assert wishes.mutes == {"ETH_USDT": None}
        await asyncio.sleep(70.0)
        assert wishes.mutes == {"ETH_USDT": None}

    watch(visitor, tmp_path)


def test_less_and_more_move_the_budget_of_a_rule_from_what_it_tells(tmp_path: Path) -> None:
    async def visitor(bot: Bot, wishes: Wishes) -> None:
        assert wishes.shift("default", 0.5, "somebody") == (None, 5.0)
        assert wishes.shift("default", 0.5, "somebody") == (5.0, 2.5)
        assert wishes.shift("default", 2.0, "somebody") == (2.5, 5.0)
        for _ in range(20):
            wishes.shift("default", 0.5, "somebody")
        assert budgets(bot) == {"default": 1.0}, "never to nothing: that is what pausing is for"
        wishes.budget_all(None, "somebody")
        assert budgets(bot) == {"default": None}
        with pytest.raises(ConfigurationError, match="one of default"):
            wishes.shift("build_up", 2.0, "somebody")

    watch(visitor, tmp_path)


def test_a_budget_for_all_rules_is_shared_out(tmp_path: Path) -> None:
    async def visitor(bot: Bot, wishes: Wishes) -> None:
        wishes.budget_all(30.0, "somebody")
        assert budgets(bot) == {"default": 15.0, "quiet": 15.0}

    watch(visitor, tmp_path, detection={"rules": ["default", "quiet", "build_up"]})


def test_a_budget_holds_when_rules_are_read_again_and_over_a_restart_until_the_settings_say_otherwise(
    tmp_path: Path,
) -> None:
    async def wish(bot: Bot, wishes: Wishes) -> None:
        asked = bot.analysis.rules.rules
        wishes.budget("default", 40.0, "somebody")
        bot.swap_rules(asked)  # as when their file was saved
        await asyncio.sleep(2.0)
        assert budgets(bot) == {"default": 40.0}

    async def holds(bot: Bot, wishes: Wishes) -> None:
        assert budgets(bot) == {"default": 40.0}

    async def gives_way(bot: Bot, wishes: Wishes) -> None:
        assert budgets(bot) == {"default": 90.0}
        bot.swap_rules([replace(rule, alerts_per_day=None) for rule in bot.analysis.rules.rules])
        await asyncio.sleep(2.0)
        assert budgets(bot) == {"default": None}, "a wish that gave way is forgotten"

    watch(wish, tmp_path)
    watch(holds, tmp_path)
    watch(gives_way, tmp_path, detection={"alerts_per_day": 90})


def test_wishes_that_cannot_be_read_are_said_and_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def nobody(bot: Bot, wishes: Wishes) -> None:
        assert wishes.mutes == {}

    async def mute(bot: Bot, wishes: Wishes) -> None:
        wishes.mute("BTC_USDT", HOUR_MS, "somebody")

    watch(mute, tmp_path)
    database = Database.open(str(tmp_path / "watch.db"))

    async def damage() -> None:
        async with Writer(database, is_inline=True) as writer:
            writer.put_now(State("wishes", b'{"mutes": []', 1))

    sim.run_virtual(damage())
    database.close()
    watch(nobody, tmp_path)
    assert "what people have asked for earlier cannot be read" in caplog.text
