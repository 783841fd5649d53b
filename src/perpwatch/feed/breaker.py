"""A circuit breaker that is told the time: stop asking who does not answer, then ask once, carefully.

Closed lets everything through. ``threshold`` failures in a row open it for a while that doubles each time. Then it is
half-open: one try is let through; success closes it, failure opens it for longer.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class BreakerState(enum.StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Breaker:
    threshold: int = 5
    first_open_s: float = 5.0
    max_open_s: float = 60.0
    failures: int = 0  # in a row
    times_opened: int = 0  # since it was last closed
    open_until_s: float = 0.0
    last_reason: str = ""
    _is_trying: bool = False

    def state(self, now_s: float) -> BreakerState:
        if self.times_opened == 0:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self.open_until_s else BreakerState.HALF_OPEN

    def allows(self, now_s: float) -> bool:
        """Whether a try may be made now. In half-open this takes the one try there is."""
        state = self.state(now_s)
        if state is BreakerState.HALF_OPEN and not self._is_trying:
            self._is_trying = True
            return True
        return state is BreakerState.CLOSED

    def succeed(self) -> None:
        self.failures = self.times_opened = 0
        self._is_trying = False

    def fail(self, now_s: float, reason: str) -> None:
        self.failures += 1
        self.last_reason = reason
        if self._is_trying or (self.times_opened == 0 and self.failures >= self.threshold):
            self._is_trying = False
            self.open_until_s = now_s + min(self.max_open_s, self.first_open_s * 2.0 ** min(self.times_opened, 16))
            self.times_opened += 1

    def give_back(self) -> None:
        """A try that was let through was not made after all."""
        self._is_trying = False
