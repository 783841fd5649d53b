"""What a person may do to a running watch, from the API or a page: each action is logged with who asked for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from perpwatch.alert.policy import Alert
from perpwatch.app.analysis import TEST
from perpwatch.app.bot import Bot
from perpwatch.app.engine import Step
from perpwatch.detect.rules import Rule
from perpwatch.errors import ConfigurationError
from perpwatch.model import MINUTE_MS, Batch, Direction, Level, Reason, Signal, Timeframe, Trust

logger = logging.getLogger(__name__)


class Actions:
    """Changes a bot; every method raises ``ConfigurationError`` for what it does not know.

    Args:
        time_ns: the wall clock.
    """

    def __init__(self, bot: Bot, time_ns: Callable[[], int] = time.time_ns) -> None:
        self._bot = bot
        self._time_ns = time_ns

    def pause(self, rule: str, who: str) -> None:
        """Let a rule find and learn, and tell nothing."""
        self._rule(rule)
        self._silence({*self._bot.analysis.paused, rule}, self._bot.analysis.muted)
        self._log(who, "paused the rule %s", rule)

    def resume(self, rule: str, who: str) -> None:
        self._rule(rule)
        self._silence(self._bot.analysis.paused - {rule}, self._bot.analysis.muted)
        self._log(who, "resumed the rule %s", rule)

    def mute(self, symbol: str, who: str) -> None:
        """Tell nothing of a contract, until it is unmuted or the program ends."""
        self._symbol(symbol)
        self._silence(self._bot.analysis.paused, {*self._bot.analysis.muted, symbol})
        self._log(who, "muted %s", symbol)

    def unmute(self, symbol: str, who: str) -> None:
        self._symbol(symbol)
        self._silence(self._bot.analysis.paused, self._bot.analysis.muted - {symbol})
        self._log(who, "unmuted %s", symbol)

    def pin(self, symbol: str, who: str) -> None:
        """Serve a contract before all others: on the sockets, and when minutes are read back."""
        self._symbol(symbol)
        self._bot.pin(symbol)
        self._log(who, "pinned %s", symbol)

    def unpin(self, symbol: str, who: str) -> None:
        self._symbol(symbol)
        self._bot.unpin(symbol)
        self._log(who, "unpinned %s", symbol)

    def restart_connection(self, source: str, who: str) -> None:
        """Give up the socket of a connection and dial anew; its minutes are read back."""
        pool = self._bot.feed.pool
        if source not in pool.connections:
            raise ConfigurationError("connection", source, f"one of {', '.join(pool.connections) or 'none'}")
        pool.replace_connection(source, "renewed by hand")
        self._log(who, "restarted the connection %s", source)

    def test_alert(self, who: str) -> Alert:
        """Tell an alert that no market made, on every way that real ones take."""
        now_ns = self._time_ns()
        now_ms = self._bot.engine.now_ms or now_ns // 1_000_000
        symbol = next(iter(self._bot.watched), "TEST")
        text = "a test alert, sent by hand: nothing has happened"
        signal = Signal(
            detector=TEST,
            symbol=symbol,
            timeframe=Timeframe.Min1,
            open_time_ms=now_ms - now_ms % MINUTE_MS,
            direction=Direction.FLAT,
            level=Level.NOTICE,
            price=0.0,
            strength=0.0,
            is_running=True,
            trust=Trust.STREAMED,
            reasons=(Reason(TEST, 1.0, "", text),),
            event_time_ms=now_ms,
            received_time_ns=now_ns,
            rule=TEST,
        )
        alert = Alert(f"{TEST}:{now_ns}", signal, now_ms, now_ms, 0, 0.0, 0.0, rule=TEST)
        self._bot.tell(Batch(TEST, now_ns, 0, ()), Step(alerts=[alert]))
        self._log(who, "sent a test alert")
        return alert

    def change_rule(self, rule: Rule, who: str) -> list[str]:
        """Put a changed rule in force, until its file is changed or the program ends; returns what changed."""
        self._rule(rule.name)
        rules = [rule if one.name == rule.name else one for one in self._bot.analysis.rules.rules]
        changes = self._bot.swap_rules(rules)
        self._log(who, "changed the rule %s: %s", rule.name, "; ".join(changes))
        return changes

    def _silence(self, rules: Collection[str], symbols: Collection[str]) -> None:
        self._bot.silence(rules, symbols)

    def _rule(self, name: str) -> None:
        names = [rule.name for rule in self._bot.analysis.rules.rules]
        if name not in names:
            raise ConfigurationError("rule", name, f"one of {', '.join(names)}")

    def _symbol(self, symbol: str) -> None:
        if symbol not in self._bot.engine.book.series:
            raise ConfigurationError("symbol", symbol, "a contract that is watched")

    def _log(self, who: str, text: str, *values: object) -> None:
        logger.warning(f"%s {text}", who, *values)  # noqa: G004 - the text is one of the constants above
