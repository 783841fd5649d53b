"""What was found, as cards and markers show it: each signal once, whether it was told, why not, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perpwatch.alert.outcomes import HIT_HORIZON, Outcome
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.app.api_hub import Hub, decoded_alert, key_of
from perpwatch.app.view import alert_line
from perpwatch.model import Signal

#: How far back the store is asked for what a page shows at first.
RECALLED_MS = 2 * 86_400_000


@dataclass(frozen=True, slots=True)
class Finding:
    """A signal, or an alert about the whole market."""

    key: object
    time_ms: int
    signal: Signal | None  # None for the whole market
    is_alert: bool
    is_again: bool = False  # an alert because its volume has doubled since the last
    text: str = ""  # of an alert about the market
    silence: str = ""  # why a signal was not told
    outcome: Outcome | None = None

    @property
    def came_of_it(self) -> str:
        """What came of an alert, in words; empty where that is not known yet."""
        if self.outcome is None:
            return ""
        for one in self.outcome.after:
            if one.minutes == HIT_HORIZON:
                verdict = {True: "went on", False: "did not go on", None: ""}[self.outcome.is_hit]
                return f"{verdict}: {one.forward:+.2%} its way after 1 h, {one.best:+.2%} at best"
        return "nobody saw what came of it: the data has a gap"


class Findings:
    """What was found in a contract, or in all of them; what an earlier run found is read from the store once.

    Args:
        symbol: None for all contracts.
        limit: so many are shown at most.
    """

    def __init__(self, hub: Hub, symbol: str | None, limit: int) -> None:
        self._hub = hub
        self._symbol = symbol
        self._limit = limit
        self._earlier_signals: Sequence[Signal] = ()
        self._earlier_alerts: Sequence[Alert | MarketAlert] = ()
        self._version: object = None
        self._found: list[Finding] = []

    async def recall(self) -> None:
        hub, symbol = self._hub, self._symbol
        since_ms = hub.started_ms - RECALLED_MS
        self._earlier_signals = await hub.read(lambda one: one.signals(since_ms, symbol, self._limit)) or ()
        stored = await hub.read(lambda one: one.alerts(since_ms, symbol, self._limit)) or ()
        self._earlier_alerts = [alert for one in stored if (alert := decoded_alert(one.body)) is not None]
        self._version = None

    def newest(self) -> list[Finding]:
        """All there is to show, oldest first; the same list as long as nothing has changed."""
        bot, outcomes = self._hub.bot, self._hub.outcomes
        last = bot.alerts[-1].key if bot.alerts else ""
        version = bot.engine.signals, last, len(outcomes), next(reversed(outcomes), "")
        if version != self._version:
            self._version, self._found = version, self._all()
        return self._found

    def _all(self) -> list[Finding]:
        hub, symbol = self._hub, self._symbol
        found: dict[object, Finding] = {}
        told: set[object] = set()
        for alert in {one.key: one for one in (*self._earlier_alerts, *hub.bot.alerts)}.values():
            if isinstance(alert, MarketAlert):
                told |= {key_of(one.signal) for one in alert.alerts}
                if symbol is None:
                    found[alert.key] = Finding(alert.key, alert.time_ms, None, True, text=alert_line(alert))
            elif symbol is None or alert.symbol == symbol:
                key = key_of(alert.signal)
                outcome = hub.outcomes.get(alert.key)
                found[key] = Finding(
                    key, alert.time_ms, alert.signal, True, is_again=alert.escalation > 0, outcome=outcome
                )
        for signal in (*self._earlier_signals, *hub.bot.signals):
            key = key_of(signal)
            if key not in found and (symbol is None or signal.symbol == symbol):
                silence = hub.silence_of(signal) or ("told as part of the whole market" if key in told else "")
                found[key] = Finding(key, signal.event_time_ms, signal, False, silence=silence)
        return sorted(found.values(), key=lambda one: one.time_ms)[-self._limit :]
