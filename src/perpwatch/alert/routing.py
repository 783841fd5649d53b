"""Which notice goes to which channel, and when: filters, quiet hours and allowances.

Pure: time is an argument, in milliseconds of the wall clock.
"""

from __future__ import annotations

import datetime
import fnmatch
import functools
import re
import zoneinfo
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.model import AssetClass, Level

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

_KINDS_OF_MARKET = (NoticeKind.ALERT, NoticeKind.MARKET)


class QuietHours(msgspec.Struct, frozen=True):
    """Hours of each day in which a channel stays silent, by the clock of a time zone."""

    start_minute: int  # of the local day
    end_minute: int  # exclusive; before the start when midnight lies between
    time_zone: str = "UTC"  # a name of the IANA database

    @classmethod
    def parse(cls, text: str, time_zone: str = "UTC") -> QuietHours:
        """
        Args:
            text: ``23:00-07:00``.
        Raises:
            ValueError: that is no span of hours.
        """
        found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)", text.strip())
        if found is None:
            raise ValueError("give hours like 23:00-07:00")
        start_hour, start_minute, end_hour, end_minute = map(int, found.groups())
        start, end = start_hour * 60 + start_minute, end_hour * 60 + end_minute
        if start == end:
            raise ValueError("they begin and end at the same time; leave them out to have none")
        return cls(start, end, time_zone)

    def end_ms(self, now_ms: int) -> int | None:
        """When the quiet hours that hold ``now_ms`` end; None outside of them."""
        zone = zoneinfo.ZoneInfo(self.time_zone)
        now = datetime.datetime.fromtimestamp(now_ms / 1_000, zone)
        minute = now.hour * 60 + now.minute
        is_over_midnight = self.end_minute < self.start_minute
        is_before_end = minute < self.end_minute
        if is_over_midnight:
            is_quiet = minute >= self.start_minute or is_before_end
        else:
            is_quiet = self.start_minute <= minute and is_before_end
        if not is_quiet:
            return None
        day = now.date() if is_before_end else now.date() + datetime.timedelta(days=1)
        end = datetime.datetime.combine(day, datetime.time(*divmod(self.end_minute, 60)), zone)
        # Where clocks are put back the hour comes twice, and the first one may be over.
        return max(round(end.timestamp() * 1_000), now_ms + 1)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel wants to be told."""

    kinds: frozenset[NoticeKind] = frozenset(NoticeKind)
    rules: tuple[str, ...] = ("*",)  # patterns, of which a rule's name must match one
    level: Level = Level.NOTICE  # the least
    classes: frozenset[AssetClass] = frozenset()  # all when empty
    symbols: tuple[str, ...] = ("*",)  # patterns
    pinned_only: bool = False
    quiet_hours: QuietHours | None = None
    alerts_per_hour: int | None = None
    alerts_per_day: int | None = None

    def refusal(self, notice: Notice) -> str:
        """Why a notice is not for this channel; empty when it is.

        An alert about many symbols at once is for a channel that wants one of them. Tests are for everybody, and how an
        episode went on is for those who were told of it, which whoever keeps the messages knows.
        """
        kind = notice.kind
        if kind is NoticeKind.TEST:
            return ""
        if kind not in self.kinds:
            return f"it takes no {kind} notices"
        if kind not in _KINDS_OF_MARKET:
            return ""
        if notice.level.rank < self.level.rank:
            return f"its level {notice.level} is below {self.level}"
        if notice.rule and not _matches(notice.rule, self.rules):
            return f"the rule {notice.rule} is none of {', '.join(self.rules)}"
        if self.classes and not self.classes.intersection(_classes(notice)):
            return f"it is about none of {', '.join(sorted(self.classes))}"
        if self.pinned_only and not notice.is_pinned:
            return "it is about no pinned symbol"
        if not any(_matches(symbol, self.symbols) for symbol in _symbols(notice)):
            return f"the symbol is none of {', '.join(self.symbols)}"
        return ""

    def quiet_until_ms(self, now_ms: int) -> int | None:
        """Until when nothing may be shown; None when it may."""
        return self.quiet_hours.end_ms(now_ms) if self.quiet_hours is not None else None


def _symbols(notice: Notice) -> Iterator[str]:
    if notice.market is None:
        yield notice.symbol
    else:
        yield from (alert.symbol for alert in notice.market.alerts)


def _classes(notice: Notice) -> Iterable[AssetClass]:
    # The classes of a crowd are not told one by one; it is for everybody.
    return (notice.asset_class,) if notice.asset_class is not None else tuple(AssetClass)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return _compiled(patterns).fullmatch(name) is not None


@functools.lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)))


class Allowance:
    """How many alerts a channel may still show; counted over the last hour and the last day.

    What the limits are may change at any time.
    """

    def __init__(self, per_hour: int | None = None, per_day: int | None = None) -> None:
        self.per_hour = per_hour
        self.per_day = per_day
        self._spent_ms: deque[int] = deque()

    def refusal(self, now_ms: int) -> str:
        """Why one more would be too many; empty when it would not."""
        self._forget(now_ms)
        for limit, length_ms, word in ((self.per_hour, HOUR_MS, "hour"), (self.per_day, DAY_MS, "day")):
            if limit is None or len(self._spent_ms) < limit:
                continue
            # The oldest of the newest that use up the limit.
            if limit == 0 or self._spent_ms[-limit] > now_ms - length_ms:
                spent = sum(time_ms > now_ms - length_ms for time_ms in self._spent_ms)
                return f"over the channel's budget: {spent} of {limit} alerts in the last {word}"
        return ""

    def spend(self, now_ms: int) -> None:
        """One more is shown."""
        self._spent_ms.append(now_ms)

    def _forget(self, now_ms: int) -> None:
        while self._spent_ms and self._spent_ms[0] <= now_ms - DAY_MS:
            self._spent_ms.popleft()
