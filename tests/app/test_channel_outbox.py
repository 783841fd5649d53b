"""What is sent next on a channel, and what becomes of what was sent."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.routing import QuietHours, Route
from perpwatch.app import channel_outbox as outbox
from perpwatch.app.channel_outbox import ChannelOutbox, Job
from perpwatch.errors import DeliveryFailed, DeliveryRefused
from perpwatch.model import Level
from perpwatch.store import Delivery, DeliveryState

#: 2026-11-25 12:00 UTC
NOON = 1_795_608_000_000
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000


def notice(number: int, kind: NoticeKind = NoticeKind.ALERT, time_ms: int = NOON, thread: str = "") -> Notice:
    key = f"{kind}:{number}"
    return Notice(
        key=key,
        thread=thread or key,
        kind=kind,
        time_ms=time_ms,
        level=Level.STRONG,
        received_time_ns=time_ms * 1_000_000,
    )


class Channel:
    """An outbox with its store, which knows the last word about every row."""

    def __init__(self, route: Route = Route(), *, can_edit: bool = True) -> None:  # noqa: B008 - it is frozen
        self.box = ChannelOutbox("phone", route, can_edit=can_edit)
        self.rows: dict[str, Delivery] = {}

    def put(self, rows: list[Delivery]) -> list[Delivery]:
        self.rows |= {row.key: row for row in rows}
        return rows

    def accept(self, one: Notice, now_ms: int | None = None) -> list[Delivery]:
        return self.put(self.box.accept(one, msgspec.json.encode(one), now_ms or one.time_ms))

    def job(self, now_ms: int) -> Job:
        job = self.box.next(now_ms)
        assert isinstance(job, Job)
        return job

    def begin(self, now_ms: int) -> tuple[Job, Job]:
        job = self.job(now_ms)
        begun = self.box.begin(job)
        self.put([*begun.rows])
        return job, begun

    def send(self, now_ms: int, receipt: str = "r") -> list[str]:
        """Send the next message; returns the keys of what it tells."""
        _, begun = self.begin(now_ms)
        self.put(self.box.sent(begun, begun.receipt or receipt, now_ms))
        return [row.key for row in begun.rows]

    def fail(self, now_ms: int, error: DeliveryFailed | None = None, jitter: float = 1.0) -> list[str]:
        job, begun = self.begin(now_ms)
        self.put(self.box.failed(begun, error or DeliveryFailed("HTTP 503", may_be_shown=False), job, now_ms, jitter))
        return [row.key for row in begun.rows]

    def refuse(self, now_ms: int) -> None:
        _, begun = self.begin(now_ms)
        self.put(self.box.refused(begun, DeliveryRefused("no such chat")))

    def states(self) -> dict[str, str]:
        return {key: row.state.value for key, row in self.rows.items()}

    def restarted(self, now_ms: int) -> Channel:
        """As after a crash: only what was put survives."""
        again = Channel(self.box.route, can_edit=self.box._can_edit)
        again.rows = dict(self.rows)
        again.put(again.box.restore(sorted(self.rows.values(), key=lambda row: row.time_ms), now_ms))
        return again


# --- In order, and once --------------------------------------------------------------------------------------------


def test_notices_are_sent_one_by_one_in_their_order_and_their_latency_is_kept() -> None:
    channel = Channel()
    for number in range(3):
        channel.accept(notice(number))
    assert [channel.send(NOON + 250 * (number + 1), f"r{number}") for number in range(3)] == [
        ["alert:0"],
        ["alert:1"],
        ["alert:2"],
    ]
    assert channel.box.next(NOON + SECOND) is None
    row = channel.rows["alert:2"]
    assert (row.state, row.attempts, row.receipt, row.sent_ms, row.latency_ms) == (
        DeliveryState.SENT,
        1,
        "r2",
        NOON + 750,
        750,
    )


def test_the_same_notice_is_accepted_once_also_after_a_restart() -> None:
    channel = Channel()
    channel.accept(notice(1))
    assert channel.accept(notice(1)) == []
    channel.send(NOON)
    assert channel.accept(notice(1)) == []
    assert channel.restarted(NOON + MINUTE).accept(notice(1)) == []


def test_a_notice_that_is_not_for_the_channel_leaves_no_row() -> None:
    channel = Channel(Route(level=Level.EXTREME))
    assert channel.accept(notice(1)) == []
    assert channel.box.next(NOON) is None


def test_an_attempt_that_may_have_been_shown_is_known_after_a_crash_and_goes_by_itself() -> None:
    channel = Channel()
    for number in range(outbox.FLOOD_NOTICES + 5):
        channel.accept(notice(number))
    channel.job(NOON)  # a digest, which nobody began
    calm = channel.restarted(NOON + SECOND)
    assert len(calm.job(NOON + SECOND).rows) == outbox.FLOOD_NOTICES + 5

    single = Channel()
    single.accept(notice(100))
    single.begin(NOON)  # killed before the answer
    for number in range(outbox.FLOOD_NOTICES + 5):
        single.accept(notice(number))
    again = single.restarted(NOON + SECOND)
    assert again.rows["alert:100"].is_doubtful
    digest = again.job(NOON + SECOND)
    assert "alert:100" not in [row.key for row in digest.rows]
    again.send(NOON + SECOND)
    assert again.send(NOON + SECOND) == ["alert:100"]


def test_a_digest_that_may_have_been_shown_is_sent_again_as_it_was() -> None:
    channel = Channel()
    for number in range(30):
        channel.accept(notice(number))
    _, begun = channel.begin(NOON)
    for number in range(30, 60):
        channel.accept(notice(number))
    again = channel.restarted(NOON + SECOND).job(NOON + SECOND)
    assert (again.digest, [row.key for row in again.rows]) == (begun.digest, [row.key for row in begun.rows])


# --- Editing -------------------------------------------------------------------------------------------------------


def test_escalations_and_developments_take_the_place_of_the_first_message() -> None:
    channel = Channel()
    channel.accept(notice(1))
    channel.accept(notice(1, NoticeKind.UPDATE, thread="alert:1"))  # before the first is sent
    assert channel.send(NOON, "r1") == ["alert:1"]
    channel.accept(notice(2, thread="alert:1"))
    assert (channel.job(NOON).receipt, channel.send(NOON)) == ("r1", ["alert:2"])
    assert (channel.job(NOON).receipt, channel.send(NOON)) == ("r1", ["alert:1:update"])
    later = channel.restarted(NOON + HOUR)
    later.accept(notice(3, NoticeKind.UPDATE, thread="alert:1"))
    assert later.job(NOON + HOUR).receipt == "r1"


def test_only_the_newest_development_is_told_and_one_that_comes_meanwhile_is_not_lost() -> None:
    channel = Channel()
    channel.accept(notice(1))
    channel.send(NOON)
    for number in range(5):
        channel.accept(notice(number, NoticeKind.UPDATE, thread="alert:1", time_ms=NOON + number))
    job, begun = channel.begin(NOON)
    assert [one.key for one in job.notices] == ["update:4"]
    channel.accept(notice(9, NoticeKind.UPDATE, thread="alert:1"))
    assert channel.box.sent(begun, "r", NOON) == []  # the store knows the newer one, which waits
    assert [one.key for one in channel.job(NOON).notices] == ["update:9"]
    assert channel.rows["alert:1:update"].state is DeliveryState.PENDING


def test_a_channel_that_cannot_edit_shows_escalations_as_messages_and_no_developments() -> None:
    channel = Channel(can_edit=False)
    channel.accept(notice(1))
    channel.send(NOON)
    assert channel.accept(notice(1, NoticeKind.UPDATE, thread="alert:1")) == []
    channel.accept(notice(2, thread="alert:1"))
    assert channel.job(NOON).receipt == ""


def test_what_was_not_shown_here_has_no_developments() -> None:
    channel = Channel(Route(alerts_per_hour=1))
    channel.accept(notice(1))
    assert channel.accept(notice(2))[0].state is DeliveryState.SUPPRESSED
    assert channel.accept(notice(1, NoticeKind.UPDATE, thread="alert:2")) == []
    channel.accept(notice(2, NoticeKind.UPDATE, thread="alert:1"))
    channel.refuse(NOON)
    assert channel.states() == {"alert:1": "failed", "alert:2": "suppressed", "alert:1:update": "suppressed"}
    assert len(channel.box) == 0


def test_an_escalation_whose_message_is_gone_is_told_anew_and_a_development_is_not() -> None:
    channel = Channel()
    channel.accept(notice(1))
    channel.send(NOON)
    channel.accept(notice(2, thread="alert:1"))
    channel.refuse(NOON)
    assert channel.job(NOON).receipt == ""
    assert channel.send(NOON, "new") == ["alert:2"]
    channel.accept(notice(1, NoticeKind.UPDATE, thread="alert:1"))
    assert channel.job(NOON).receipt == "new"
    channel.refuse(NOON)
    assert channel.states()["alert:1:update"] == "suppressed"
    assert channel.accept(notice(2, NoticeKind.UPDATE, thread="alert:1")) == []


# --- Too much, and quiet hours --------------------------------------------------------------------------------------


def test_a_backlog_becomes_one_digest_and_a_few_do_not() -> None:
    channel = Channel()
    for number in range(outbox.BACKLOG_NOTICES + 1):
        channel.accept(notice(number))
    assert channel.job(NOON + outbox.BACKLOG_MS - 1).digest == ""
    job = channel.job(NOON + outbox.BACKLOG_MS)
    assert (len(job.rows), bool(job.digest)) == (outbox.BACKLOG_NOTICES + 1, True)
    channel.send(NOON + outbox.BACKLOG_MS, "digest")
    assert {row.digest for row in channel.rows.values()} == {job.digest}
    # What a digest told is not changed by what comes later.
    assert channel.accept(notice(9, NoticeKind.UPDATE, thread="alert:1")) == []
    channel.accept(notice(9, thread="alert:1"))
    assert channel.job(NOON + MINUTE).receipt == ""


def test_a_flood_is_a_digest_at_once() -> None:
    channel = Channel()
    for number in range(outbox.FLOOD_NOTICES + 1):
        channel.accept(notice(number))
    assert len(channel.job(NOON).rows) == outbox.FLOOD_NOTICES + 1


def test_what_comes_in_quiet_hours_is_told_at_their_end_in_one_digest_and_a_message_may_change_meanwhile() -> None:
    channel = Channel(Route(quiet_hours=QuietHours.parse("12:00-13:00"), alerts_per_hour=3))
    channel.accept(notice(0, time_ms=NOON - SECOND))
    channel.send(NOON - SECOND)
    for number in (1, 2, 3):
        channel.accept(notice(number, time_ms=NOON + number * MINUTE))
    channel.accept(notice(4, time_ms=NOON + 30 * MINUTE, thread="alert:0"))
    assert channel.send(NOON + 30 * MINUTE) == ["alert:4"]  # an edit wakes nobody
    assert channel.box.next(NOON + 31 * MINUTE) == NOON + HOUR
    assert channel.send(NOON + HOUR) == ["alert:1", "alert:2", "alert:3"]
    assert [channel.rows[f"alert:{number}"].latency_ms for number in (1, 4)] == [None, 0]
    # They did not cost anything of what the day allows.
    assert channel.accept(notice(5, time_ms=NOON + HOUR))[0].state is DeliveryState.PENDING


def test_one_notice_of_the_quiet_hours_is_told_by_itself_and_a_test_does_not_wait() -> None:
    channel = Channel(Route(quiet_hours=QuietHours.parse("12:00-13:00")))
    channel.accept(notice(1))
    channel.accept(notice(2, NoticeKind.TEST))
    assert channel.send(NOON) == ["test:2"]
    assert channel.job(NOON + HOUR).digest == ""


def test_what_is_over_the_budget_is_suppressed_with_its_reason_and_troubles_are_told_all_the_same() -> None:
    channel = Channel(Route(alerts_per_hour=2))
    for number in range(3):
        channel.accept(notice(number))
    assert channel.rows["alert:2"].why == "over the channel's budget: 2 of 2 alerts in the last hour"
    assert channel.accept(notice(1, NoticeKind.OPERATIONAL))[0].state is DeliveryState.PENDING
    channel.send(NOON)
    again = channel.restarted(NOON + MINUTE)
    assert again.accept(notice(7, time_ms=NOON + MINUTE))[0].state is DeliveryState.SUPPRESSED
    # An escalation of what is shown changes that message, and costs nothing.
    assert again.accept(notice(8, thread="alert:0", time_ms=NOON + MINUTE))[0].state is DeliveryState.PENDING


def test_beyond_a_bound_the_oldest_that_waits_is_let_go_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 3)
    channel = Channel()
    for number in range(4):
        channel.accept(notice(number))
    assert channel.states() == {
        "alert:0": "suppressed",
        "alert:1": "pending",
        "alert:2": "pending",
        "alert:3": "pending",
    }
    assert channel.rows["alert:0"].why == "more than 3 notices were waiting"


# --- Failures ------------------------------------------------------------------------------------------------------


def test_a_failure_is_tried_again_later_and_says_why() -> None:
    channel = Channel()
    channel.accept(notice(1))
    channel.fail(NOON)
    row = channel.rows["alert:1"]
    assert (row.state, row.why, row.attempts, row.is_doubtful) == (DeliveryState.PENDING, "HTTP 503", 1, False)
    assert channel.box.next(NOON) == NOON + SECOND
    channel.fail(NOON + SECOND, DeliveryFailed("too many", retry_after_s=40.0))
    assert channel.box.next(NOON + SECOND) == NOON + 41 * SECOND
    assert channel.send(NOON + 41 * SECOND) == ["alert:1"]
    row = channel.rows["alert:1"]
    assert (row.state, row.why, row.attempts) == (DeliveryState.SENT, "", 3)


def test_after_an_outage_there_is_one_digest_of_all_that_surely_was_not_shown() -> None:
    channel = Channel()
    now_ms = NOON
    for number in range(100):
        channel.accept(notice(number, time_ms=now_ms))
        if isinstance(channel.box.next(now_ms), Job):
            channel.fail(now_ms)
        now_ms += MINUTE
    while not isinstance(due := channel.box.next(now_ms), Job):
        assert due is not None
        now_ms = due
    assert now_ms < NOON + 101 * MINUTE  # the pause after a failure is short
    assert len(channel.send(now_ms)) == 100
    assert set(channel.states().values()) == {"sent"}


def test_a_message_that_always_fails_does_not_hold_up_the_others() -> None:
    channel = Channel()
    channel.accept(notice(0))
    now_ms, sent = NOON, list[str]()
    for number in range(1, 50):
        channel.accept(notice(number, time_ms=now_ms))
        waited_ms = 0
        while f"alert:{number}" not in sent:
            due = channel.box.next(now_ms)
            if isinstance(due, Job):
                if due.rows[0].key == "alert:0" or due.digest:
                    channel.fail(now_ms, DeliveryFailed("no answer"))
                else:
                    sent += channel.send(now_ms)
            else:
                assert due is not None
                waited_ms += due - now_ms
                now_ms = due
        assert waited_ms <= 3 * outbox.CHANNEL_CAP_S * SECOND
        now_ms += MINUTE
    assert channel.states()["alert:0"] == "pending"
    assert len(sent) == 49


def test_a_refused_message_failed_and_the_next_one_goes_on() -> None:
    channel = Channel()
    for number in (1, 2):
        channel.accept(notice(number))
    channel.refuse(NOON)
    row = channel.rows["alert:1"]
    assert (row.state, row.why, row.attempts) == (DeliveryState.FAILED, "no such chat", 1)
    assert channel.send(NOON) == ["alert:2"]


def test_what_could_not_be_sent_for_a_day_is_given_up_and_can_be_taken_up_again() -> None:
    channel = Channel()
    channel.accept(notice(1))
    channel.fail(NOON + outbox.GIVE_UP_MS - 1)
    channel.fail(NOON + outbox.GIVE_UP_MS + MINUTE)
    row = channel.rows["alert:1"]
    assert (row.state, row.why, row.attempts) == (DeliveryState.FAILED, "given up after 24 h: HTTP 503", 2)
    channel.box.adopt(replace(row, state=DeliveryState.PENDING, attempts=0, why=""))
    assert channel.send(NOON + 26 * HOUR) == ["alert:1"]


def test_a_development_without_its_message_is_not_taken_up_again() -> None:
    channel = Channel()
    orphan = Delivery(channel="phone", key="alert:1:update", thread="alert:1", kind="update", time_ms=NOON, body=b"{}")
    (row,) = channel.box.adopt(orphan)
    assert (row.state, len(channel.box)) == (DeliveryState.SUPPRESSED, 0)


def test_what_an_old_run_left_is_tried_before_it_is_given_up() -> None:
    channel = Channel()
    for number in range(10):
        channel.accept(notice(number))
    later = channel.restarted(NOON + 5 * 24 * HOUR)
    assert len(later.send(NOON + 5 * 24 * HOUR)) == 10
