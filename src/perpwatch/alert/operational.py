"""What is wrong with the watch itself, told once when it begins and once when it is over.

:class:`OperationalWatch` is a pure state machine. It is shown a :class:`Snapshot` about once a second and reads no
clock. It promises:

* each trouble has one start and one end, and nothing in between, however often it flickers;
* a trouble that lasts less than its ``start_after_s`` is not told at all;
* what follows from a trouble that is already told is not told as well: when the exchange is gone, so are its
  connections, the coverage and the data;
* the end of a trouble that cost minutes waits until they are read back (or ``Thresholds.repair_patience_s`` have
  passed), so that it can say what became of them. Its duration does not include this wait.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from perpwatch.alert.texts import EN, Texts
from perpwatch.model import MINUTE_MS


class Trouble(enum.StrEnum):
    """What can be wrong. A trouble stands behind those that explain it."""

    UNREACHABLE = "exchange_unreachable"
    CONNECTIONS = "connections_lost"
    DELAY = "data_delayed"
    COVERAGE = "coverage_low"
    LIMIT = "subscription_limit_met"
    ERRORS = "error_rate_high"
    DRIFT = "clock_drift"
    KEEPING = "not_kept"
    CHANNELS = "channels_failing"


class Thresholds(msgspec.Struct, frozen=True):
    """From where on something is wrong."""

    unreachable_after_s: float = 15.0  # nothing heard at all; a ping is answered every 15 s at the least
    coverage: float = 0.95  # share of the watched contracts
    data_delay_s: float = 10.0
    clock_drift_s: float = 2.0
    error_rate: float = 0.2  # share of the REST requests of the last minute
    bad_frame_rate: float = 0.01  # share of the frames of the last minute
    repair_patience_s: float = 300.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The watch at one moment, in numbers. The defaults are those of a watch in which all is well."""

    now_s: float  # monotonic; every duration is a difference of these
    time_ms: int  # our wall clock, UTC, to be shown
    exchange_ms: int = 0  # the exchange's clock; 0 while it is not known
    uptime_s: float = 0.0  # since the watch began to be looked at
    silence_s: float = 0.0  # since anything at all was heard from the exchange, pongs and REST included
    data_age_s: float | None = None  # since the newest data; None before the first
    delay_s: float = 0.0  # mean, from the exchange's stamp to the end of our analysis, in the last second
    contracts_listed: int = 0
    contracts_watched: int = 0
    contracts_warm: int = 0  # whose history is loaded
    contracts_covered: int = 0  # whose candles are known good at this moment
    contracts_polled: int = 0  # read by REST, because the sockets are full
    connections: int = 0  # that there should be
    connections_open: int = 0
    connections_mute: int = 0  # without the data that they used to bring, whether open or not
    mute_s: float = 0.0  # how long the longest of them has been mute
    connection_error: str = ""  # the last one, of a connection that is down
    connection_limit: int = 0  # in force, and ...
    connection_limit_configured: int = 0
    subscription_limit: int = 0  # on one connection; in force, and ...
    subscription_limit_configured: int = 0
    streams_refused: int = 0  # that the exchange does not give
    requests: int = 0  # REST, in the last minute
    request_errors: int = 0  # of them
    requests_waiting: int = 0
    request_rate: float = 0.0  # allowed a second at present
    breakers_open: tuple[str, ...] = ()  # endpoints that are not asked because they fail
    frames: int = 0  # in the last minute
    bad_frames: int = 0  # of them
    clock_offset_s: float = 0.0  # our wall clock minus the exchange's
    not_kept: str = ""  # what cannot be written to a disk or database just now, and why; empty when all can
    channels_failing: str = ""  # which channels take no alerts just now, and why; empty when all do
    repairs_open: int = 0  # contracts with minutes to read back
    repaired_minutes: int = 0  # since the program's start
    unknown_minutes: Mapping[int, int] = {}  # how many contracts miss the minute that opens at this exchange time

    @property
    def coverage(self) -> float:
        """Share of the watched contracts whose candles are known good; 0 when none is watched."""
        return self.contracts_covered / self.contracts_watched if self.contracts_watched else 0.0

    def unknown_since(self, exchange_ms: int) -> int:
        """Missing minutes, summed over contracts, that end after an exchange time."""
        return sum(count for open_ms, count in self.unknown_minutes.items() if open_ms + MINUTE_MS > exchange_ms)


class Detail(msgspec.Struct, frozen=True):
    """One thing that is wrong, as figures that any language can put into words."""

    name: str  # of the text in :attr:`perpwatch.alert.texts.Texts.details`
    figures: dict[str, int | float | str]


class Finding(msgspec.Struct, frozen=True):
    """A trouble at one moment, and how long it has been so already where that is known."""

    details: tuple[Detail, ...]
    lasts_s: float = 0.0

    @property
    def text(self) -> str:
        return details_text(self.details)


def details_text(details: Sequence[Detail], texts: Texts = EN) -> str:
    """Details in words; one that a newer program has found is left out."""
    known = [one for one in details if one.name in texts.details]
    return "; ".join(texts.details[one.name].format(**one.figures) for one in known)


class Phase(enum.StrEnum):
    START = "start"
    END = "end"


class OperationalAlert(msgspec.Struct, frozen=True):
    """What a person is told about the watch. All times are our wall clock's."""

    key: str  # the same for the same start or end, so that it is stored and sent once
    trouble: Trouble
    phase: Phase
    time_ms: int  # when it was told
    start_ms: int  # when the trouble began
    text: str  # in English, for logs
    duration_s: float | None = None  # of the trouble; None at its start, like the following
    repaired_minutes: int | None = None  # summed over contracts; None also where the trouble costs no minutes
    unknown_minutes: int | None = None
    details: tuple[Detail, ...] = ()  # what is wrong, at the start; none at the end


class _Rule(msgspec.Struct, frozen=True):
    """How patient to be with a trouble. ``causes`` are those that explain it."""

    start_after_s: float
    end_after_s: float
    causes: tuple[Trouble, ...] = ()
    costs_minutes: bool = False


_RULES = {
    # The threshold itself is the patience.
    Trouble.UNREACHABLE: _Rule(0.0, 5.0, costs_minutes=True),
    # A lost connection is usually back within a second or two.
    Trouble.CONNECTIONS: _Rule(20.0, 5.0, (Trouble.UNREACHABLE, Trouble.DELAY), costs_minutes=True),
    # Long enough for a mute connection to be replaced, and for one that is lost to be told as that.
    Trouble.DELAY: _Rule(15.0, 10.0, (Trouble.UNREACHABLE, Trouble.CONNECTIONS, Trouble.COVERAGE), costs_minutes=True),
    # A thousand subscriptions at ten a second on each of ten connections that open one a second take 20 s.
    Trouble.COVERAGE: _Rule(60.0, 10.0, (Trouble.UNREACHABLE, Trouble.CONNECTIONS, Trouble.DELAY), costs_minutes=True),
    # A limit that was met is tried again after an hour or so, and usually met again: that is no end.
    Trouble.LIMIT: _Rule(30.0, 900.0),
    Trouble.ERRORS: _Rule(10.0, 60.0, (Trouble.UNREACHABLE,)),
    Trouble.DRIFT: _Rule(60.0, 60.0),
    # A database that was locked for a moment is no news.
    Trouble.KEEPING: _Rule(5.0, 5.0),
    # One message that is tried again is no news; a service that is restarted is back by then.
    Trouble.CHANNELS: _Rule(60.0, 5.0),
}

#: While nothing is heard for this long it cannot be told whether the exchange is gone or only what is seen of it.
HOLD_S = 3.0
#: The minute in which data came back is closed and judged this long after: its rest, and the wait for the referee.
SETTLE_S = 100.0
#: Fewer requests or frames in a minute make no rate.
LEAST_REQUESTS = 10
LEAST_FRAMES = 100


def troubles(snapshot: Snapshot, thresholds: Thresholds) -> dict[Trouble, Finding]:
    """Everything that is wrong at this moment, without regard to how long it has been so."""
    found: dict[Trouble, Finding] = {}
    one = snapshot
    if one.silence_s >= thresholds.unreachable_after_s:
        found[Trouble.UNREACHABLE] = _finding("silent", one.silence_s, seconds=one.silence_s)
    if one.connections_open < one.connections:
        down = one.connections - one.connections_open
        if one.connection_error:
            detail = _finding("down_because", down=down, connections=one.connections, error=one.connection_error)
        else:
            detail = _finding("down", down=down, connections=one.connections)
        found[Trouble.CONNECTIONS] = detail
    if one.connections_mute:
        found[Trouble.DELAY] = _finding(
            "mute", one.mute_s, mute=one.connections_mute, connections=one.connections, seconds=one.mute_s
        )
    elif one.delay_s > thresholds.data_delay_s:
        found[Trouble.DELAY] = _finding("late", seconds=one.delay_s)
    if one.contracts_watched and one.coverage < thresholds.coverage:
        # Rounded down, so that 94.99 % is not shown to be as good as a threshold of 95 %.
        percent = math.floor(one.coverage * 1_000) / 10
        least = thresholds.coverage * 100
        found[Trouble.COVERAGE] = _finding("coverage", percent=percent, contracts=one.contracts_watched, least=least)
    if limits := _limits(one):
        found[Trouble.LIMIT] = Finding(limits)
    if errors := _errors(one, thresholds):
        found[Trouble.ERRORS] = Finding(errors)
    if one.exchange_ms and abs(one.clock_offset_s) > thresholds.clock_drift_s:
        name = "ahead" if one.clock_offset_s > 0 else "behind"
        found[Trouble.DRIFT] = _finding(name, seconds=abs(one.clock_offset_s))
    if one.not_kept:
        found[Trouble.KEEPING] = _finding("not_kept", why=one.not_kept)
    if one.channels_failing:
        found[Trouble.CHANNELS] = _finding("channels", why=one.channels_failing)
    return found


def _finding(name: str, lasts_s: float = 0.0, **figures: int | float | str) -> Finding:
    return Finding((Detail(name, figures),), lasts_s)


def _limits(one: Snapshot) -> tuple[Detail, ...]:
    details = []
    for name, limit, configured in (
        ("subscriptions", one.subscription_limit, one.subscription_limit_configured),
        ("connections", one.connection_limit, one.connection_limit_configured),
    ):
        if limit < configured:
            details.append(Detail(name, {"limit": limit, "configured": configured}))
    if details and one.contracts_polled:
        details.append(Detail("polled", {"contracts": one.contracts_polled}))
    return tuple(details)


def _errors(one: Snapshot, thresholds: Thresholds) -> tuple[Detail, ...]:
    details = []
    if one.breakers_open:
        details.append(Detail("breakers", {"endpoints": ", ".join(one.breakers_open)}))
    if one.requests >= LEAST_REQUESTS and one.request_errors >= thresholds.error_rate * one.requests:
        details.append(Detail("requests", {"errors": one.request_errors, "requests": one.requests}))
    if one.frames >= LEAST_FRAMES and one.bad_frames >= thresholds.bad_frame_rate * one.frames:
        details.append(Detail("frames", {"bad": one.bad_frames, "frames": one.frames}))
    return tuple(details)


def duration_text(seconds: float) -> str:
    """A duration in its two largest units: ``3 m 12 s``."""
    whole = max(0, round(seconds))
    for length, unit, smaller, smaller_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // smaller} {smaller_unit}"
    return f"{whole} s"


@dataclass(slots=True)
class _Case:
    """A trouble that has been seen. Told when ``is_open``; over, and waiting to be told so, since ``good_s``."""

    seen_s: float  # when it was first seen
    start_s: float  # when it began
    start_ms: int
    start_exchange_ms: int
    repaired_minutes: int  # in all until then
    is_open: bool = False
    good_s: float | None = None


class OperationalWatch:
    """Turns snapshots into starts and ends.

    Cost: 10 µs per snapshot. Memory: one case per trouble.
    """

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self.thresholds = thresholds or Thresholds()
        self._cases: dict[Trouble, _Case] = {}

    def update(self, snapshot: Snapshot) -> list[OperationalAlert]:
        """Take the next snapshot; its ``now_s`` must not be before the last one's."""
        found = troubles(snapshot, self.thresholds)
        alerts: list[OperationalAlert] = []
        for trouble in Trouble:
            finding, case = found.get(trouble), self._cases.get(trouble)
            if case is not None and case.is_open:
                if self._is_over(case, trouble, snapshot, found):
                    del self._cases[trouble]
                    alerts.append(_end(case, trouble, snapshot))
            elif finding is None or self._is_explained(trouble):
                self._cases.pop(trouble, None)
            else:
                case = self._cases.setdefault(trouble, _begin(finding, snapshot))
                if self._is_due(case, trouble, snapshot):
                    case.is_open = True
                    alerts.append(_start(case, trouble, finding, snapshot))
        return alerts

    def open(self) -> dict[Trouble, int]:
        """Troubles that were told and are not over, with the time (our clock) at which each began."""
        return {trouble: case.start_ms for trouble, case in self._cases.items() if case.is_open}

    def _is_explained(self, trouble: Trouble) -> bool:
        return any(cause in self._cases and self._cases[cause].is_open for cause in _RULES[trouble].causes)

    @staticmethod
    def _is_due(case: _Case, trouble: Trouble, snapshot: Snapshot) -> bool:
        rule = _RULES[trouble]
        if Trouble.UNREACHABLE in rule.causes and snapshot.silence_s >= HOLD_S:
            return False
        return snapshot.now_s - case.seen_s >= rule.start_after_s

    def _is_over(self, case: _Case, trouble: Trouble, snapshot: Snapshot, found: Mapping[Trouble, Finding]) -> bool:
        rule = _RULES[trouble]
        if trouble in found:
            case.good_s = None
            return False
        if case.good_s is None:
            case.good_s = snapshot.now_s - (snapshot.silence_s if trouble is Trouble.UNREACHABLE else 0.0)
        good_for_s = snapshot.now_s - case.good_s
        if good_for_s < rule.end_after_s:
            return False
        if not rule.costs_minutes or good_for_s >= self.thresholds.repair_patience_s:
            return True
        is_known = snapshot.unknown_since(case.start_exchange_ms) == 0 and Trouble.COVERAGE not in found
        return is_known and good_for_s >= SETTLE_S


def _begin(finding: Finding, snapshot: Snapshot) -> _Case:
    lasts_ms = int(finding.lasts_s * 1_000)
    return _Case(
        seen_s=snapshot.now_s,
        start_s=snapshot.now_s - finding.lasts_s,
        start_ms=snapshot.time_ms - lasts_ms,
        start_exchange_ms=snapshot.exchange_ms - lasts_ms,
        repaired_minutes=snapshot.repaired_minutes,
    )


def _start(case: _Case, trouble: Trouble, finding: Finding, snapshot: Snapshot) -> OperationalAlert:
    return OperationalAlert(
        key=f"{trouble}:{case.start_ms}:{Phase.START}",
        trouble=trouble,
        phase=Phase.START,
        time_ms=snapshot.time_ms,
        start_ms=case.start_ms,
        text=f"{EN.troubles[trouble]}: {finding.text}",
        details=finding.details,
    )


def _end(case: _Case, trouble: Trouble, snapshot: Snapshot) -> OperationalAlert:
    assert case.good_s is not None, "a case ends after it has been good for a while"
    duration_s = case.good_s - case.start_s
    text = f"{EN.troubles[trouble]}: back after {duration_text(duration_s)}"
    repaired: int | None = None
    unknown: int | None = None
    if _RULES[trouble].costs_minutes:
        repaired = snapshot.repaired_minutes - case.repaired_minutes
        unknown = snapshot.unknown_since(case.start_exchange_ms)
        text += f", {repaired} {'minute' if repaired == 1 else 'minutes'} repaired, {unknown} unknown"
    return OperationalAlert(
        key=f"{trouble}:{case.start_ms}:{Phase.END}",
        trouble=trouble,
        phase=Phase.END,
        time_ms=snapshot.time_ms,
        start_ms=case.start_ms,
        text=text,
        duration_s=duration_s,
        repaired_minutes=repaired,
        unknown_minutes=unknown,
    )
