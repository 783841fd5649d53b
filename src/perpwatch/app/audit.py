"""What people have done to a running watch, by whichever way: by API, page or chat."""

from __future__ import annotations

import logging
from collections import deque

import msgspec

logger = logging.getLogger(__name__)

#: Actions that are kept to be shown; the log has all of them.
KEPT_ACTIONS = 1_000


class ActionRecord(msgspec.Struct, frozen=True):
    """Something that somebody did to the watch, or tried to."""

    time_ms: int  # wall clock
    who: str  # the token or a session and the address it came from, or a chat
    action: str  # pause, resume, change, mute, unmute, pin, unpin, restart, test-alert
    target: str  # rule, symbol or connection
    is_done: bool
    text: str  # what changed, or why it was refused


class Audit:
    """The newest actions, oldest first."""

    def __init__(self) -> None:
        self.records: deque[ActionRecord] = deque(maxlen=KEPT_ACTIONS)

    def note(self, record: ActionRecord) -> None:
        """Keep an action, and log it; what it is about comes from outside and is quoted."""
        self.records.append(record)
        what = f"{record.action} {record.target!r}" if record.target else record.action
        outcome = "done" if record.is_done else "refused"
        logger.warning("%s: %s %s%s", record.who, what, outcome, f": {record.text}" if record.text else "")
