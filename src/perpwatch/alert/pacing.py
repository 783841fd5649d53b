"""How fast a service of messages may be called, as the service itself counts.

:class:`Pacer` is a pure state machine; time is an argument. A call reaches the service at some moment between its
sending and its answer, and only the service knows when. So a call under way counts against every limit, and once it is
answered it counts as if it had arrived at that very moment: whatever the network does, the service never counts more
than is allowed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

#: Destinations of whose calls nothing counts any more are forgotten once there are so many of them.
MAX_IDLE_DESTINATIONS = 1_000


class Limit(msgspec.Struct, frozen=True):
    """At most so many calls within any so many seconds."""

    calls: int
    seconds: float


class Call(msgspec.Struct, frozen=True):
    """One call under way."""

    number: int
    destination: str


@dataclass(slots=True)
class _Record:
    """What counts against some limits, all of them together."""

    limits: tuple[Limit, ...]
    under_way: int = 0
    answered_s: deque[float] = field(default_factory=deque)  # oldest first, as far as any limit looks back
    held_until_s: float = -math.inf

    def free_at_s(self) -> float:
        """From when on one more call is allowed; ``inf`` while an answer must come first."""
        free_s = self.held_until_s
        for limit in self.limits:
            # The newest answer among those that must have become too old to count.
            place = len(self.answered_s) - (limit.calls - self.under_way)
            if limit.calls <= self.under_way:
                return math.inf
            if place >= 0:
                free_s = max(free_s, self.answered_s[place] + limit.seconds)
        return free_s

    def note(self, answered_s: float) -> None:
        if not self.limits:
            return
        if self.answered_s and answered_s < self.answered_s[-1]:
            self.answered_s = deque(sorted([*self.answered_s, answered_s]))
        else:
            self.answered_s.append(answered_s)
        # The most calls that a limit looks back at: older ones decide nothing.
        if len(self.answered_s) > max(limit.calls for limit in self.limits):
            self.answered_s.popleft()

    def is_idle(self, now_s: float) -> bool:
        longest_s = max((limit.seconds for limit in self.limits), default=0.0)
        is_counted = bool(self.answered_s) and now_s < self.answered_s[-1] + longest_s
        return not self.under_way and not is_counted and now_s >= self.held_until_s


class Pacer:
    """Keeps the limits of one service: those of all calls together, and those of each destination.

    Cost: 2 µs a call. Memory: the answers that still count.
    """

    def __init__(self, service: Sequence[Limit], limits_of: Callable[[str], Sequence[Limit]]) -> None:
        """
        Args:
            service: what all calls together must keep.
            limits_of: what the calls to one destination must keep, by its name.
        """
        self._limits_of = limits_of
        self._service = _Record(tuple(service))
        self._destinations: dict[str, _Record] = {}
        self._calls = 0

    def free_at_s(self, destination: str) -> float:
        """From when on a call is allowed, as far as is known now; ``inf`` while an answer must come first."""
        record = self._destinations.get(destination)
        free_s = record.free_at_s() if record is not None else -math.inf
        return max(free_s, self._service.free_at_s())

    def begin(self, destination: str, now_s: float) -> Call:
        """A call is being sent; only when :meth:`free_at_s` allows it."""
        assert now_s >= self.free_at_s(destination), f"{destination} is called too early"
        for record in (self._record(destination, now_s), self._service):
            record.under_way += 1
        self._calls += 1
        return Call(self._calls, destination)

    def end(self, call: Call, now_s: float) -> None:
        """A call was answered, or given up for good; to be told of each call once."""
        for record in (self._destinations[call.destination], self._service):
            record.under_way -= 1
            record.note(now_s)

    def recall(self, destination: str, answered_s: float) -> None:
        """A call of an earlier run was answered then; the service still counts it."""
        for record in (self._record(destination, answered_s), self._service):
            record.note(answered_s)

    def hold(self, destination: str, now_s: float, retry_after_s: float, *, is_whole_service: bool = False) -> None:
        """The service asked for a pause. Asked so for a second destination meanwhile, it means all of them."""
        until_s = now_s + retry_after_s
        is_second = any(
            now_s < record.held_until_s for name, record in self._destinations.items() if name != destination
        )
        record = self._destinations.get(destination)
        if record is not None:
            record.held_until_s = max(record.held_until_s, until_s)
        if is_whole_service or is_second:
            self._service.held_until_s = max(self._service.held_until_s, until_s)

    def _record(self, destination: str, now_s: float) -> _Record:
        record = self._destinations.get(destination)
        if record is None:
            if len(self._destinations) >= MAX_IDLE_DESTINATIONS:
                self._forget(now_s)
            record = self._destinations[destination] = _Record(tuple(self._limits_of(destination)))
        return record

    def _forget(self, now_s: float) -> None:
        for name in [name for name, record in self._destinations.items() if record.is_idle(now_s)]:
            del self._destinations[name]
