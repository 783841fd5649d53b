"""Connections that lag or fail more than their peers, in one number each. Pure: whoever measures tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

#: So much more lag than its peers weighs as much as twice the load.
LAG_MS = 500.0
#: What each failure beyond those of its peers adds.
PER_FAILURE = 0.25
#: The most that lag, and that failures, add to 1.
MOST = 1.0
#: Share of what was before in what is known now; a failure is half forgotten after one interval.
MEMORY = 0.5


@dataclass(slots=True)
class _Source:
    lag_ms: float = 0.0
    failures: float = 0.0  # lately; older ones weigh less
    counted: int | None = None  # failures since start, at the last measurement
    total_ms: float = 0.0
    frames: int = 0


class Handicaps:
    """How much heavier a load weighs on each connection than it would on its peers; 1 for an ordinary one."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}

    def observe(self, source: str, lag_ms: float) -> None:
        """A frame of ``source`` came so much later than the quickest."""
        one = self._sources.setdefault(source, _Source())
        one.total_ms += lag_ms
        one.frames += 1

    def measure(self, failures: Mapping[str, int]) -> None:
        """End an interval. ``failures`` counts those since the start, of every connection there is."""
        self._sources = {source: self._sources.get(source, _Source()) for source in failures}
        for source, count in failures.items():
            one = self._sources[source]
            if one.frames:
                lag_ms = one.total_ms / one.frames
                one.lag_ms = lag_ms if one.counted is None else MEMORY * one.lag_ms + (1.0 - MEMORY) * lag_ms
            new = count - one.counted if one.counted is not None else 0
            one.failures = MEMORY * one.failures + new
            one.counted, one.total_ms, one.frames = count, 0.0, 0

    def lag_ms(self, source: str) -> float:
        """Mean lag of its frames in the last intervals."""
        one = self._sources.get(source)
        return one.lag_ms if one else 0.0

    def of(self, source: str) -> float:
        """At least 1."""
        one = self._sources.get(source)
        if one is None or len(self._sources) < 2:
            return 1.0
        peers = [other for name, other in self._sources.items() if name != source]
        lag = (one.lag_ms - median(peer.lag_ms for peer in peers)) / LAG_MS
        failures = PER_FAILURE * (one.failures - median(peer.failures for peer in peers))
        return 1.0 + min(MOST, max(0.0, lag)) + min(MOST, max(0.0, failures))
