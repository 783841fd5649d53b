"""Several rules side by side: each with a policy of its own, so that one's cooldown and budget are not another's."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perpwatch.alert.policy import Alert, BudgetStatus, Held, MarketAlert, Policy, Suppressed
from perpwatch.model import MINUTE_MS, Signal


class Order(msgspec.Struct, frozen=True):
    """How a rule wants to be told."""

    rule: str
    cooldown_minutes: float = 60.0
    alerts_per_day: float | None = None
    is_tag: bool = False  # shown beside the alerts of all rules, not sent
    risk: float = 1e-4  # q that a budget starts from


class Desk:
    """Gives every signal to the policy of its rule.

    Tags of one rule stand beside the alerts of all. Everything else that is promised is what ``Policy`` promises, rule
    by rule; a person who runs two rules on the same symbols is told by both.
    """

    def __init__(self, orders: Sequence[Order], watched: int) -> None:
        """
        Args:
            watched: symbols under watch; assign the attribute when it changes.
        """
        self._watched = watched
        self._tags: set[str] = set()
        self.policies: dict[str, Policy] = {}
        self.swap(orders)

    @property
    def watched(self) -> int:
        return self._watched

    @watched.setter
    def watched(self, watched: int) -> None:
        self._watched = watched
        for policy in self.policies.values():
            policy.watched = watched

    def swap(self, orders: Sequence[Order]) -> None:
        """Other rules from now on; those that stay keep their episodes, keys and budgets."""
        policies: dict[str, Policy] = {}
        for order in orders:
            if order.is_tag:
                continue
            policy = self.policies.get(order.rule)
            if policy is None:
                policy = Policy(self._watched, order.risk, order.alerts_per_day, frozenset(), rule=order.rule)
            policy.set_budget(order.alerts_per_day)
            policy.silence_ms = round(order.cooldown_minutes * MINUTE_MS)
            policies[order.rule] = policy
        self.policies = policies
        self._tags = {order.rule for order in orders if order.is_tag}

    def offer(self, rule: str, signal: Signal) -> Alert | Held | Suppressed | None:
        """Decide about a signal of a rule; None when the rule is gone. Call :meth:`advance` first."""
        decided: Alert | Held | Suppressed | None = None
        if rule in self._tags:
            for policy in self.policies.values():
                decided = policy.note(signal)
        elif rule in self.policies:
            decided = self.policies[rule].offer(signal)
        return msgspec.structs.replace(decided, rule=rule) if isinstance(decided, Suppressed) else decided

    def advance(self, now_ms: int) -> list[Alert | MarketAlert]:
        """Time has come to ``now_ms`` (exchange)."""
        return [alert for policy in self.policies.values() for alert in policy.advance(now_ms)]

    def next_deadline_ms(self) -> int | None:
        deadlines = [policy.next_deadline_ms() for policy in self.policies.values()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def risks(self) -> dict[str, float]:
        """q that each rule with a budget should use from now on."""
        return {rule: policy.risk for rule, policy in self.policies.items() if policy.has_budget}

    def budget_status(self, now_ms: int) -> dict[str, BudgetStatus]:
        return {rule: policy.budget_status(now_ms) for rule, policy in self.policies.items()}

    def remember(self, alert: Alert) -> None:
        """Take an alert from the store as told, where no saved state survived."""
        policy = self.policies.get(alert.rule)
        if policy is not None:
            policy.remember(alert)

    def state(self) -> bytes:
        return msgspec.msgpack.encode({rule: policy.state() for rule, policy in self.policies.items()})

    def restore(self, state: bytes) -> None:
        """
        Raises:
            ValueError: the state is damaged or of another version.
        """
        try:
            saved = msgspec.msgpack.decode(state, type=dict[str, bytes])
        except msgspec.DecodeError as error:
            raise ValueError(f"saved state of the alert desk cannot be read: {error}") from error
        for rule, policy in self.policies.items():
            if rule in saved:
                policy.restore(saved[rule])
