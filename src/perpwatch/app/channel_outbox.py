"""What waits on one channel, and what is to be sent next.

:class:`ChannelOutbox` is synchronous and deterministic: time is an argument, in milliseconds of the wall clock. It
answers with the rows as they have become; whoever drives it stores and sends. It promises:

* a notice is accepted once, and shown once: what may have been shown already is only ever sent again under the same
  keys, by itself or in the very same digest;
* an escalation or a development of an episode takes the place of the message that told it, where the channel can;
* what has waited too long for too many others, or for the end of quiet hours, is told in one digest;
* a message that fails again and again does not hold up those behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from perpwatch.alert.notice import Notice, NoticeKind, key_of_message
from perpwatch.alert.routing import DAY_MS, Allowance, Route
from perpwatch.errors import DeliveryError, DeliveryFailed, DeliveryRefused, retry_delay
from perpwatch.store import Delivery, DeliveryState

#: More than so many notices that have waited for so long are a backlog, and so are many more at once.
BACKLOG_NOTICES, BACKLOG_MS, FLOOD_NOTICES = 5, 10_000, 20
#: A notice is given up when it could not be sent for so long.
GIVE_UP_MS = DAY_MS
#: The longest pause of a channel after a failure, and of one message that fails while others do not.
CHANNEL_CAP_S, MESSAGE_CAP_S = 15.0, 300.0
#: So often a message is tried before others may go first.
ATTEMPTS_IN_ORDER = 3
#: Notices that may wait; beyond, the oldest is told no more.
MOST_WAITING = 10_000
#: Keys that are remembered as accepted, and threads whose message can be edited.
MOST_KNOWN = 20_000

_COUNTED = (NoticeKind.ALERT, NoticeKind.MARKET)
_NOT_HERE = "the alert it belongs to is not shown here by itself"
_NOTICE = msgspec.json.Decoder(Notice)


@dataclass(frozen=True, slots=True)
class Job:
    """One message to send."""

    rows: tuple[Delivery, ...]  # what it tells, oldest first
    digest: str = ""  # its key, where it tells several
    receipt: str = ""  # of the message whose place it takes; empty for a new one

    @property
    def notices(self) -> list[Notice]:
        return [_NOTICE.decode(row.body) for row in self.rows]


class ChannelOutbox:
    """The notices of one channel that are not settled, oldest first."""

    def __init__(self, name: str, route: Route, *, can_edit: bool) -> None:
        self.name = name
        self.route = route
        self.allowance = Allowance(route.alerts_per_hour, route.alerts_per_day)
        self.failures = 0  # attempts in a row that failed
        self.error = ""  # what the last of them ended with; empty when it did not fail
        self._can_edit = can_edit
        self._waiting: dict[str, Delivery] = {}
        self._receipts: dict[str, str] = {}  # of the messages that can be edited, by thread
        self._known: dict[str, None] = {}  # keys that were accepted
        self._paused_until_ms = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    # --- In ---------------------------------------------------------------------------------------------------------

    def restore(self, rows: Iterable[Delivery], now_ms: int) -> list[Delivery]:
        """Take the rows of the last days from the store, oldest first, as they were left; returns those that change."""
        counted: set[str] = set()
        for row in rows:
            self._known[row.key] = None
            if row.state is DeliveryState.PENDING:
                self._waiting[row.key] = row
            elif row.state is DeliveryState.SENT and row.receipt and not row.digest:
                self._receipts[row.thread] = row.receipt
            is_told = row.state in (DeliveryState.PENDING, DeliveryState.SENT)
            # One message for each thread, as far as it was told by itself.
            if is_told and row.kind in _COUNTED and row.thread not in counted and not self._is_held(row):
                counted.add(row.thread)
                if row.time_ms > now_ms - DAY_MS:
                    self.allowance.spend(row.time_ms)
        return self._trim() + self._drop_homeless(row.thread for row in list(self._waiting.values()))

    def accept(self, notice: Notice, body: bytes, now_ms: int) -> list[Delivery]:
        """Take a notice; returns the rows that have changed, none when it is not for this channel.

        Args:
            body: the notice as JSON.
        """
        row = Delivery(
            channel=self.name,
            key=notice.key,
            thread=notice.thread,
            kind=notice.kind.value,
            time_ms=notice.time_ms,
            symbol=notice.symbol,
            rule=notice.rule,
            body=body,
        )
        if notice.kind is NoticeKind.UPDATE:
            return self._accept_update(row)
        if row.key in self._known or self.route.refusal(notice):
            return []
        self._known[row.key] = None
        quiet_until_ms = self.route.quiet_until_ms(now_ms) if notice.kind is not NoticeKind.TEST else None
        if self._edits(row):
            quiet_until_ms = None  # nobody is woken by a message that changes
        elif notice.kind in _COUNTED and quiet_until_ms is None:
            if why := self.allowance.refusal(now_ms):
                return [replace(row, state=DeliveryState.SUPPRESSED, why=why)]
            self.allowance.spend(now_ms)
        row = replace(row, not_before_ms=quiet_until_ms or 0)
        self._waiting[row.key] = row
        return [row, *self._trim()]

    def _accept_update(self, row: Delivery) -> list[Delivery]:
        if not self._can_edit or NoticeKind.UPDATE not in self.route.kinds:
            return []
        if row.thread not in self._receipts and not self._waits(row.thread):
            return []  # it is not told here, or in a digest
        # One row for all developments of a thread: only the newest is worth telling.
        row = replace(row, key=f"{row.thread}:{NoticeKind.UPDATE}")
        self._waiting[row.key] = row
        return [row]

    def adopt(self, row: Delivery) -> list[Delivery]:
        """Take a row that somebody else has made pending again; returns the rows that change by it."""
        self._known[row.key] = None
        self._waiting[row.key] = row
        return self._drop_homeless([row.thread])

    def _trim(self) -> list[Delivery]:
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        while len(self._receipts) > MOST_KNOWN:
            del self._receipts[next(iter(self._receipts))]
        dropped = []
        while len(self._waiting) > MOST_WAITING:
            row = self._waiting.pop(next(iter(self._waiting)))
            why = f"more than {MOST_WAITING} notices were waiting; {row.why}".removesuffix("; ")
            dropped.append(replace(row, state=DeliveryState.SUPPRESSED, why=why))
        return dropped

    # --- Out --------------------------------------------------------------------------------------------------------

    def next(self, now_ms: int) -> Job | int | None:
        """The message to send now; else the time at which to ask again, None while nothing waits."""
        if not self._waiting:
            return None
        if now_ms < self._paused_until_ms:
            return self._paused_until_ms
        ready = [row for row in self._waiting.values() if row.not_before_ms <= now_ms and self._has_place(row)]
        if not ready:
            later = [row.not_before_ms for row in self._waiting.values() if row.not_before_ms > now_ms]
            return min(later, default=None)
        for row in ready:
            if row.digest:  # it was begun, and goes on as it was
                return Job(tuple(one for one in self._waiting.values() if one.digest == row.digest), row.digest)
        backlog = [row for row in self._waiting.values() if self._may_be_merged(row, now_ms)]
        if self._is_backlog(backlog, now_ms):
            return Job(tuple(backlog), key_of_message([row.key for row in backlog]))
        first = min(ready, key=lambda row: (row.kind == NoticeKind.UPDATE, row.attempts // ATTEMPTS_IN_ORDER))
        return Job((first,), receipt=self._receipts[first.thread] if self._edits(first) else "")

    def _has_place(self, row: Delivery) -> bool:
        """A development waits for the message that it changes."""
        return row.kind != NoticeKind.UPDATE or row.thread in self._receipts

    def _may_be_merged(self, row: Delivery, now_ms: int) -> bool:
        is_message = row.kind not in (NoticeKind.UPDATE, NoticeKind.TEST) and not self._edits(row)
        # One that failed before need not wait when there is something to send together with others.
        is_due = row.not_before_ms <= now_ms or row.attempts > 0
        return is_message and is_due and not row.is_doubtful

    def _is_backlog(self, rows: Sequence[Delivery], now_ms: int) -> bool:
        if len(rows) < 2:
            return False
        if len(rows) > FLOOD_NOTICES or sum(map(self._is_held, rows)) >= 2:
            return True
        return len(rows) > BACKLOG_NOTICES and now_ms - rows[0].time_ms >= BACKLOG_MS

    def _is_held(self, row: Delivery) -> bool:
        """It had to wait for the end of quiet hours."""
        return self.route.quiet_until_ms(row.time_ms) is not None

    def _edits(self, row: Delivery) -> bool:
        return self._can_edit and row.kind in (NoticeKind.ALERT, NoticeKind.UPDATE) and row.thread in self._receipts

    def _waits(self, thread: str) -> bool:
        return any(row.thread == thread and row.kind != NoticeKind.UPDATE for row in self._waiting.values())

    # --- What became of it ------------------------------------------------------------------------------------------

    def begin(self, job: Job) -> Job:
        """The message is about to be sent; the rows of the answer must be stored before."""
        is_doubtful = not job.receipt  # to edit twice does no harm
        rows = []
        for row in job.rows:
            begun = replace(
                row, attempts=row.attempts + 1, digest=job.digest, is_doubtful=row.is_doubtful or is_doubtful
            )
            if self._waiting.get(row.key) is row:
                self._waiting[row.key] = begun
            rows.append(begun)
        return Job(tuple(rows), job.digest, job.receipt)

    def sent(self, job: Job, receipt: str, now_ms: int) -> list[Delivery]:
        """The channel has acknowledged a message that was begun."""
        settled = []
        for row in job.rows:
            # An edit wakes nobody, so it does not wait for the end of quiet hours.
            latency_ms = self._latency_ms(row, now_ms) if job.receipt or not self._is_held(row) else None
            settled += self._settle(
                row, state=DeliveryState.SENT, why="", receipt=receipt, sent_ms=now_ms, latency_ms=latency_ms
            )
            if receipt and not job.digest:
                self._receipts[row.thread] = receipt
        self._recover()
        return settled + self._drop_homeless(row.thread for row in job.rows)

    def failed(self, job: Job, error: DeliveryFailed, before: Job, now_ms: int, jitter: float) -> list[Delivery]:
        """It could not be sent now; it is tried again unless it is too old.

        Args:
            before: the job as it was before :meth:`begin`.
            jitter: a random number in [0, 1).
        """
        self.failures += 1
        self.error = error.reason
        self._paused_until_ms = now_ms + _delay_ms(error, self.failures, jitter, CHANNEL_CAP_S)
        changed = []
        for row, old in zip(job.rows, before.rows, strict=True):
            if now_ms - self._since_ms(row) >= GIVE_UP_MS:
                why = f"given up after {GIVE_UP_MS // 3_600_000} h: {error.reason}"
                changed += self._settle(row, state=DeliveryState.FAILED, why=why)
            elif self._waiting.get(row.key) is row:
                again = replace(
                    row,
                    why=error.reason,
                    not_before_ms=now_ms + _delay_ms(error, row.attempts, jitter, MESSAGE_CAP_S),
                    # What surely was not shown may be told in another way.
                    is_doubtful=row.is_doubtful if error.may_be_shown else old.is_doubtful,
                    digest=row.digest if error.may_be_shown else old.digest,
                )
                self._waiting[row.key] = again
                changed.append(again)
        return changed + self._drop_homeless(row.thread for row in job.rows)

    def refused(self, job: Job, error: DeliveryRefused) -> list[Delivery]:
        """The channel will not take it. What was to change a message that is gone is told anew."""
        self.error = error.reason
        if job.receipt:
            (row,) = job.rows
            self._receipts.pop(row.thread, None)
            if row.kind != NoticeKind.UPDATE:
                if self._waiting.get(row.key) is row:
                    self._waiting[row.key] = row = replace(row, why=error.reason)
                return [row]
            why = f"its message cannot be changed: {error.reason}"
            return self._settle(row, state=DeliveryState.SUPPRESSED, why=why)
        failed = [one for row in job.rows for one in self._settle(row, state=DeliveryState.FAILED, why=error.reason)]
        self._recover()
        self.error = error.reason
        return failed + self._drop_homeless(row.thread for row in job.rows)

    def _recover(self) -> None:
        """The channel answers: what waits for it need wait no longer."""
        if self.failures:
            for key, row in self._waiting.items():
                if row.attempts:
                    self._waiting[key] = replace(row, not_before_ms=0)
        self.failures, self.error, self._paused_until_ms = 0, "", 0

    def _settle(self, row: Delivery, **changes: object) -> list[Delivery]:
        if self._waiting.get(row.key) is not row:
            return []  # a newer development has taken its place meanwhile
        del self._waiting[row.key]
        return [replace(row, not_before_ms=0, **changes)]

    def _drop_homeless(self, threads: Iterable[str]) -> list[Delivery]:
        """Developments of these whose alert is not shown as a message of its own."""
        dropped: list[Delivery] = []
        for thread in sorted({*threads} - self._receipts.keys()):
            update = self._waiting.get(f"{thread}:{NoticeKind.UPDATE}")
            if update is not None and not self._waits(thread):
                dropped += self._settle(update, state=DeliveryState.SUPPRESSED, why=_NOT_HERE)
        return dropped

    def _since_ms(self, row: Delivery) -> int:
        return max(row.time_ms, self.route.quiet_until_ms(row.time_ms) or 0)

    def _latency_ms(self, row: Delivery, now_ms: int) -> int | None:
        """None where it was not urgent."""
        received_ns = _NOTICE.decode(row.body).received_time_ns
        if not received_ns or row.kind == NoticeKind.UPDATE:
            return None
        return max(0, now_ms - received_ns // 1_000_000)


def _delay_ms(error: DeliveryError, attempt: int, jitter: float, cap_s: float) -> int:
    return round((retry_delay(error, attempt, jitter, cap_s=cap_s) or 0.0) * 1_000)
