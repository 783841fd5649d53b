"""What is to be told to people, whatever the channel.

Notices of one *thread* are about one thing: an episode of a symbol, a crowd, a trouble of the watch. A channel that can
edit shows a thread as one message; the others show each notice that is worth a message of its own.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence

import msgspec

from perpwatch.alert.operational import OperationalAlert
from perpwatch.alert.outcomes import Outcome
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.model import AssetClass, Level


class NoticeKind(enum.StrEnum):
    ALERT = "alert"  # about one symbol
    MARKET = "market"  # about many at once
    UPDATE = "update"  # how an episode went on, or how it ended; only channels that can edit show it
    OPERATIONAL = "operational"  # about the watch itself
    TEST = "test"  # asked for by a person, to see that a channel works


class Development(msgspec.Struct, frozen=True):
    """How an episode went on after its first alert. All figures are since that alert."""

    time_ms: int  # exchange time of the newest minute in it
    price: float
    change: float  # price against the alert's; a fraction
    best: float  # the furthest the price went in the alert's direction, after a fall too a positive fraction
    peak_ratio: float  # the highest turnover ratio of any signal of the episode; 0 when none was measured
    is_over: bool = False  # nothing more will be told
    outcome: Outcome | None = None  # what came of it; at the end, where the market was known


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to tell, once on each channel. What it is about is the field that is not None."""

    key: str  # names it for ever: the same key is shown once on a channel
    thread: str  # the key of the first notice about the same thing
    kind: NoticeKind
    time_ms: int  # exchange time at which it was decided; our wall clock's for an operational one
    level: Level
    rule: str = ""
    symbol: str = ""  # empty when it is about no single symbol
    asset_class: AssetClass | None = None
    is_pinned: bool = False
    #: When what it tells was received, in ns of our wall clock; latency is counted from here. 0 when it is not urgent.
    received_time_ns: int = 0
    alert: Alert | None = None
    development: Development | None = None  # stands beside the alert that began the episode
    market: MarketAlert | None = None
    operational: OperationalAlert | None = None


def highest_level(notices: Sequence[Notice]) -> Level:
    """Of the message that tells these: that of the most unusual one."""
    return max((one.level for one in notices), key=lambda level: level.rank)


def message_key(notices: Sequence[Notice]) -> str:
    """Names the message that tells these notices: the key of the only one, or one for the digest of several.

    It depends on what is told and not on the order, so that a digest sent again after a restart has the same.
    """
    return key_of_message([one.key for one in notices])


def key_of_message(keys: Sequence[str]) -> str:
    """The same, by the keys of what it tells."""
    if len(keys) == 1:
        return keys[0]
    text = "\n".join(sorted(keys))
    return f"digest:{hashlib.sha256(text.encode()).hexdigest()[:32]}"
