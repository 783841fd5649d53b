"""How fast we may act: a token bucket that is told the time.

One bucket is shared by everything in the process that costs the exchange the same thing (dials, REST calls), so that
many parts that are each polite do not together become a storm.
"""

from __future__ import annotations


class Budget:
    """A rate with room for a short burst.

    Args:
        rate: how many a second, greater than 0.
        burst: how many at once after a quiet spell, at least 1.
    """

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"a budget needs a rate above 0 and a burst of at least 1, not {rate} and {burst}")
        self.rate = rate
        self.burst = burst
        self._free_at_s = float("-inf")  # when the debt of all that was taken is paid

    def take(self, now_s: float, cost: float = 1.0) -> float:
        """Reserve a turn; returns the seconds to wait before using it."""
        ready_s = max(self._free_at_s, now_s - (self.burst - 1.0) / self.rate)
        self._free_at_s = ready_s + cost / self.rate
        return max(0.0, ready_s - now_s)

    def wait(self, now_s: float) -> float:
        """Seconds until a turn would be free, without taking it."""
        return max(0.0, self._free_at_s - now_s)

    def pause(self, until_s: float) -> None:
        """No turn before ``until_s``: the other side asked us to stop."""
        self._free_at_s = max(self._free_at_s, until_s)
