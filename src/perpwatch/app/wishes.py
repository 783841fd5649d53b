"""What people have asked of a running watch and expect to hold: symbols muted for a while, budgets of rules.

Every wish goes through the bot's commands, so that a recording holds it, and is remembered over a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from perpwatch.app.api_actions import Actions
from perpwatch.app.bot import Bot
from perpwatch.app.keeper import Keeper
from perpwatch.detect.rules import Rule
from perpwatch.errors import ConfigurationError, StoreError

logger = logging.getLogger(__name__)

#: Under this key the store remembers them.
WISHES_KEY = "wishes"
LOOK_EVERY_S = 1.0
#: What "less" and "more" start from where a rule has no budget and has told less than this in a day.
LEAST_TOLD = 10
#: Alerts a day between which "less" and "more" move.
FEWEST, MOST = 1.0, 1_000.0


class _Budget(msgspec.Struct, frozen=True):
    wanted: float | None  # alerts a day; None for no limit
    instead_of: float | None  # what the settings said then


class _State(msgspec.Struct):
    mutes: dict[str, int] = {}
    budgets: dict[str, _Budget] = {}


class Wishes:
    """Mutes with an end, and budgets.

    A budget holds until the settings or somebody else give the rule another one; a mute until its end, or until
    somebody lifts it.

    Args:
        keeper: None where nothing is kept.
    """

    def __init__(self, bot: Bot, keeper: Keeper | None = None) -> None:
        self._bot = bot
        self._keeper = keeper
        self._actions = Actions(bot)
        self._state = _State()

    @property
    def mutes(self) -> Mapping[str, int | None]:
        """Muted symbols, by name, and when each is heard again, in ms of our wall clock; None for never."""
        return {symbol: self._state.mutes.get(symbol) for symbol in sorted(self._bot.analysis.muted)}

    @property
    def rules(self) -> list[Rule]:
        """The rules in force that tell something by themselves."""
        return [rule for rule in self._bot.analysis.rules.rules if not rule.is_tag]

    def told_24h(self, rule: str) -> int:
        """Alerts that a rule has told in the last 24 hours."""
        status = self._bot.analysis.desk.budget_status(self._bot.engine.now_ms).get(rule)
        return status.told_24h if status is not None else 0

    # --- What is asked ----------------------------------------------------------------------------------------------

    def mute(self, symbol: str, for_ms: int, who: str) -> int:
        """Tell nothing of a contract for so long; returns until when.

        Raises:
            ConfigurationError: it is not watched.
        """
        self._actions.mute(symbol, who)
        until_ms = self._state.mutes[symbol] = self._now_ms() + for_ms
        self._remember()
        return until_ms

    def unmute(self, symbol: str, who: str) -> None:
        """
        Raises:
            ConfigurationError: it is not watched.
        """
        self._actions.unmute(symbol, who)
        self._state.mutes.pop(symbol, None)
        self._remember()

    def budget(self, name: str, alerts_per_day: float | None, who: str) -> None:
        """Have a rule tell about so many alerts a day, the rarest ones; None takes its budget away.

        Raises:
            ConfigurationError: there is no such rule, or it tells nothing by itself.
        """
        rule = next((one for one in self.rules if one.name == name), None)
        if rule is None:
            raise ConfigurationError("rule", name, f"one of {', '.join(one.name for one in self.rules)}")
        self._actions.change_rule(replace(rule, alerts_per_day=alerts_per_day), who)
        before = self._state.budgets.get(name)
        instead_of = before.instead_of if before is not None else rule.alerts_per_day
        self._state.budgets[name] = _Budget(alerts_per_day, instead_of)
        self._remember()

    def budget_all(self, alerts_per_day: float | None, who: str) -> None:
        """Share a budget out evenly among all rules."""
        rules = self.rules
        for rule in rules:
            self.budget(rule.name, alerts_per_day and alerts_per_day / len(rules), who)

    def shift(self, name: str, factor: float, who: str) -> tuple[float | None, float]:
        """Have a rule tell less or more than it does; returns its budget before and now, in alerts a day.

        Raises:
            ConfigurationError: there is no such rule.
        """
        before = next((one.alerts_per_day for one in self.rules if one.name == name), None)
        present = before if before is not None else max(self.told_24h(name), LEAST_TOLD)
        wanted = min(max(present * factor, FEWEST), MOST)
        self.budget(name, wanted, who)
        return before, wanted

    # --- Time, and restarts -----------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Take up what an earlier run was asked; before anything is watched."""
        if self._keeper is None:
            return
        try:
            kept = self._keeper.recall(WISHES_KEY)
            if kept is None:
                return
            self._state = msgspec.json.decode(kept, type=_State)
        except (StoreError, msgspec.MsgspecError) as error:
            logger.warning("what people have asked for earlier cannot be read: %s", error)
            return
        self._silence({*self._bot.analysis.muted, *self._state.mutes})
        self.look()

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self.look()
            except ConfigurationError as error:
                logger.error("a budget cannot be held: %s", error)

    def look(self) -> None:
        """End the mutes whose time has come, and hold budgets against rules that were read again."""
        before = msgspec.json.encode(self._state)
        muted, now_ms = self._bot.analysis.muted, self._now_ms()
        for symbol, until_ms in list(self._state.mutes.items()):
            if symbol not in muted:  # somebody else has lifted it
                del self._state.mutes[symbol]
            elif until_ms <= now_ms:
                del self._state.mutes[symbol]
                self._silence(self._bot.analysis.muted - {symbol})
                logger.info("%s is told of again", symbol)
        self._hold_budgets()
        if msgspec.json.encode(self._state) != before:
            self._remember()

    def _hold_budgets(self) -> None:
        rules = {rule.name: rule for rule in self._bot.analysis.rules.rules}
        changed = dict[str, Rule]()
        for name, budget in list(self._state.budgets.items()):
            rule = rules.get(name)
            if rule is None or rule.alerts_per_day == budget.wanted:
                continue  # a rule that is not there now may come back
            if rule.alerts_per_day == budget.instead_of:
                changed[name] = replace(rule, alerts_per_day=budget.wanted)
            else:
                del self._state.budgets[name]
        if changed:
            self._bot.swap_rules([changed.get(name, rule) for name, rule in rules.items()])

    def _silence(self, symbols: set[str] | frozenset[str]) -> None:
        self._bot.silence(self._bot.analysis.paused, symbols)

    def _remember(self) -> None:
        if self._keeper is not None:
            self._keeper.remember(WISHES_KEY, msgspec.json.encode(self._state), self._now_ms())

    def _now_ms(self) -> int:
        return self._bot.clock.time_ns() // 1_000_000
