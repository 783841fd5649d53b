"""What to do about a stream that is mute although its symbol trades: the gentlest step first.

One mute symbol is asked for again, then moved to another connection, then its connection is replaced. When a good part
of one connection is mute at once, the connection is the cause and is replaced at once. Each step gets time to work, and
the step after which the symbol spoke again is counted, so that one can see what helps.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Step(enum.StrEnum):
    """Rungs of the ladder, lowest first."""

    RESUBSCRIBE = "resubscribe"
    MOVE = "move"
    REPLACE = "replace"


_RUNGS = tuple(Step)

#: A step is given this long before the next one is tried.
STEP_MS = 20_000
#: A symbol that has been well for this long starts at the lowest rung again.
WELL_MS = 300_000
#: So many of a connection's symbols, and at least this share, mute within STEP_MS: the connection is the cause.
CROWD, CROWD_SHARE = 3, 0.2


@dataclass(slots=True)
class _Case:
    step: int
    at_ms: int


@dataclass(slots=True)
class Ladder:
    """Decides about every mute symbol; all times are the exchange's."""

    helped: dict[Step, int] = field(default_factory=lambda: dict.fromkeys(Step, 0))
    _cases: dict[str, _Case] = field(default_factory=dict)
    _mute: dict[str, dict[str, int]] = field(default_factory=dict)  # source -> symbol -> since when
    _replaced_ms: dict[str, int] = field(default_factory=dict)

    def step_for(self, symbol: str, source: str, streams: int, now_ms: int) -> Step | None:
        """What to do about ``symbol``, which was found mute on ``source`` of so many streams; None to wait."""
        case = self._cases.get(symbol)
        if case is None or now_ms - case.at_ms > WELL_MS:
            case = self._cases[symbol] = _Case(-1, 0)
        if now_ms - self._replaced_ms.get(source, -WELL_MS) < STEP_MS:
            return None  # the connection is being replaced already
        mute = self._mute.setdefault(source, {})
        mute[symbol] = now_ms
        for other in [other for other, since_ms in mute.items() if now_ms - since_ms > STEP_MS]:
            del mute[other]
        if len(mute) >= max(CROWD, CROWD_SHARE * streams):
            case.step = len(_RUNGS) - 1
        elif case.step >= 0 and now_ms - case.at_ms < STEP_MS:
            return None
        else:
            case.step = min(case.step + 1, len(_RUNGS) - 1)
        case.at_ms = now_ms
        step = _RUNGS[case.step]
        if step is Step.REPLACE:
            self._replaced_ms[source] = now_ms
            mute.clear()
        return step

    def spoke(self, symbol: str) -> Step | None:
        """The symbol's stream has delivered again; returns the step that helped, None when it had none."""
        case = self._cases.get(symbol)
        for mute in self._mute.values():
            mute.pop(symbol, None)
        if case is None or case.step < 0:
            return None
        step = _RUNGS[case.step]
        self.helped[step] += 1
        return step

    def forget(self, symbol: str) -> None:
        self._cases.pop(symbol, None)
        for mute in self._mute.values():
            mute.pop(symbol, None)
