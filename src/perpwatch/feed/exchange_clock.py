"""The exchange's time, from the times its frames carry and our monotonic clock. Our wall clock has no say in it.

A frame arrives later than it was sent, never earlier, so the largest difference (exchange time minus our monotonic
time) seen within a window is the one with the least delay; latency is what a frame shows above it. Two windows overlap,
so that a drifting clock is followed and a single quick frame does not rule for ever.
"""

from __future__ import annotations

WINDOW_S = 300.0


class ExchangeClock:
    """An estimate that only says something after the first :meth:`observe`."""

    def __init__(self) -> None:
        self._now = self._before = float("-inf")  # largest difference in ms, in this window and the one before
        self._window_ends_s = float("-inf")

    @property
    def is_set(self) -> bool:
        return self._now > float("-inf") or self._before > float("-inf")

    def observe(self, exchange_ms: int, now_s: float) -> float:
        """Take the time of a frame that was just received; returns its latency in ms above the least delay seen."""
        if now_s >= self._window_ends_s:
            self._before, self._now = self._now, float("-inf")
            self._window_ends_s = now_s + WINDOW_S
        difference = exchange_ms - now_s * 1_000.0
        if difference > self._now:
            self._now = difference
        return max(self._now, self._before) - difference

    def now_ms(self, now_s: float) -> int:
        """The exchange's time, at most the least network delay behind.

        Raises:
            RuntimeError: nothing was observed yet.
        """
        if not self.is_set:
            raise RuntimeError("the exchange's time is not known before its first frame")
        return int(max(self._now, self._before) + now_s * 1_000.0)
