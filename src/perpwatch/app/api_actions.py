"""What a person may do to a running watch, from the API, a page or a chat.

Each action, and each that was refused, is logged and kept with the bot, with who asked for it and when.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from perpwatch.alert.policy import Alert
from perpwatch.app.analysis import TEST
from perpwatch.app.audit import ActionRecord
from perpwatch.app.bot import Bot
from perpwatch.app.engine import Step
from perpwatch.detect.rules import Rule
from perpwatch.errors import ConfigurationError
from perpwatch.model import MINUTE_MS, Batch, Direction, Level, Reason, Signal, Timeframe, Trust


class Unknown(ConfigurationError):
    """No rule, contract or connection of this name is there."""


class Actions:
    """Changes a bot; every method raises :class:`Unknown` for what it does not know.

    Args:
        time_ns: the wall clock.
    """

    def __init__(self, bot: Bot, time_ns: Callable[[], int] = time.time_ns) -> None:
        self._bot = bot
        self._time_ns = time_ns

    def pause(self, rule: str, who: str) -> None:
        """Let a rule find and learn, and tell nothing."""
        with self._noted(who, "pause", rule):
            self._rule(rule)
            self._bot.silence({*self._bot.analysis.paused, rule}, self._bot.analysis.muted)

    def resume(self, rule: str, who: str) -> None:
        """Let a paused rule tell again."""
        with self._noted(who, "resume", rule):
            self._rule(rule)
            self._bot.silence(self._bot.analysis.paused - {rule}, self._bot.analysis.muted)

    def mute(self, symbol: str, who: str) -> None:
        """Tell nothing of a contract, until it is unmuted or the program ends."""
        with self._noted(who, "mute", symbol):
            self._symbol(symbol)
            self._bot.silence(self._bot.analysis.paused, {*self._bot.analysis.muted, symbol})

    def unmute(self, symbol: str, who: str) -> None:
        """Tell of a muted contract again."""
        with self._noted(who, "unmute", symbol):
            self._symbol(symbol)
            self._bot.silence(self._bot.analysis.paused, self._bot.analysis.muted - {symbol})

    def pin(self, symbol: str, who: str) -> None:
        """Serve a contract before all others: on the sockets, and when minutes are read back."""
        with self._noted(who, "pin", symbol):
            self._symbol(symbol)
            self._bot.pin(symbol)

    def unpin(self, symbol: str, who: str) -> None:
        """Serve a pinned contract by its turnover again."""
        with self._noted(who, "unpin", symbol):
            self._symbol(symbol)
            self._bot.unpin(symbol)

    def restart_connection(self, source: str, who: str) -> None:
        """Give up the socket of a connection and dial anew; its minutes are read back."""
        with self._noted(who, "restart", source):
            pool = self._bot.feed.pool
            if source not in pool.connections:
                raise Unknown("connection", source, f"one of {', '.join(pool.connections) or 'none'}")
            pool.replace_connection(source, "renewed by hand")

    def test_alert(self, who: str) -> Alert:
        """Tell an alert that no market made, on every way that real ones take."""
        with self._noted(who, "test-alert", ""):
            return self._test_alert()

    def change_rule(self, rule: Rule, who: str) -> list[str]:
        """Put a changed rule in force, until its file is changed or the program ends; returns what changed."""
        with self._noted(who, "change", rule.name) as said:
            self._rule(rule.name)
            rules = [rule if one.name == rule.name else one for one in self._bot.analysis.rules.rules]
            said += self._bot.swap_rules(rules)
            return said

    def _test_alert(self) -> Alert:
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
        return alert

    def _rule(self, name: str) -> None:
        names = [rule.name for rule in self._bot.analysis.rules.rules]
        if name not in names:
            raise Unknown("rule", name, f"one of {', '.join(names)}")

    def _symbol(self, symbol: str) -> None:
        if symbol not in self._bot.engine.book.series:
            raise Unknown("symbol", symbol, "a contract that is watched")

    @contextlib.contextmanager
    def _noted(self, who: str, action: str, target: str) -> Iterator[list[str]]:
        """Keep and log what is done in the block; what the block adds to the list belongs to it."""
        said: list[str] = []
        try:
            yield said
        except ConfigurationError as error:
            self._bot.audit.note(ActionRecord(self._now_ms(), who, action, target, False, str(error)))
            raise
        self._bot.audit.note(ActionRecord(self._now_ms(), who, action, target, True, "; ".join(said)))

    def _now_ms(self) -> int:
        return self._time_ns() // 1_000_000
