"""Alerts on their way to people: one task for each channel, so that none waits for another or holds up the watch.

What is to be told is accepted without waiting (:meth:`Deliveries.offer`), and stored by whoever offers it, together
with the alert itself. From there each channel goes through the same stages (:class:`Stage`). Before a message leaves,
its rows are on disk with the attempt counted; after the channel has acknowledged it they are put again as sent. So a
program that dies in between tells each notice after its next start, at most once more than needed, and under the same
keys, by which a channel that can recognises the repetition. A store in trouble delays alerts by two seconds and stops
none.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import msgspec

from perpwatch.alert.card import Card, card_of, digest_of
from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.routing import Route
from perpwatch.alert.senders.sender import Sender
from perpwatch.app.channel_outbox import GIVE_UP_MS, ChannelOutbox, Job
from perpwatch.app.histogram import Histogram
from perpwatch.errors import DeliveryFailed, DeliveryRefused, StoreError
from perpwatch.feed.connection import Clock
from perpwatch.store import Delivery, DeliveryState, Reader, State, Writer
from perpwatch.store.finite_json import finite_json

logger = logging.getLogger(__name__)

#: How long a message waits to be stored before it is sent anyway.
COMMIT_WAIT_S = 2.0
#: A sender that does not come back for so long has hung; it waits for its turns within.
SEND_LIMIT_S = 900.0
#: What leaving waits for the messages that can still be sent.
DRAIN_S = 5.0
#: How often rows are looked for that somebody has made pending again.
LOOK_EVERY_S = 5.0
#: Channels look at the clock at least so often, because clocks are set.
LONGEST_SLEEP_S = 60.0
#: So far back messages can still be changed.
RESTORED_MS = 48 * 3_600_000
#: No service counts calls for longer.
COUNTED_MS = 60_000
#: Rows read at the start, and at each look.
MOST_ROWS = 100_000
#: For so long after a notice was lost it is a trouble of the watch, so that it is told even when the next ones arrive.
LOST_SHOWN_S = 300.0
#: Seconds from the signal to the acknowledgement.
LATENCY_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)


class Stage(enum.StrEnum):
    """How far a message has come. A program may die between any two of them."""

    TURN = "turn"  # the channel takes another message
    CHOSEN = "chosen"  # what it tells is decided
    MADE = "made"  # its card is made
    BEGUN = "begun"  # the attempt is on its way to the store
    COMMITTED = "committed"  # and there
    ANSWERED = "answered"  # the channel has acknowledged it, or not
    SETTLED = "settled"  # what became of it is on its way to the store


class MakeCard(Protocol):
    """Writes a message, and draws its picture off the event loop."""

    async def make(self, notices: Sequence[Notice], *, with_picture: bool) -> Card:
        """One notice by itself, several as a digest."""
        ...


@dataclass(slots=True)
class ChannelCounters:
    """All since start."""

    settled: Counter[DeliveryState] = field(default_factory=Counter)  # notices
    failures: int = 0  # attempts that failed or were refused
    latency: Histogram = field(default_factory=lambda: Histogram(LATENCY_S))


class ChannelStatus(msgspec.Struct, frozen=True):
    """How alerts arrive on one channel. Counts are of notices, since the program's start."""

    name: str
    waiting: int
    sent: int
    suppressed: int
    failed: int  # for good
    error: str  # what the last attempt ended with; empty when it went well
    latency_s: float | None  # mean, from the signal to the acknowledgement; None before the first


class _Channel:
    def __init__(self, sender: Sender, outbox: ChannelOutbox) -> None:
        self.sender = sender
        self.outbox = outbox
        self.counters = ChannelCounters()
        self.wake = asyncio.Event()
        self.is_paused = False  # waits for its turn, with nothing under way
        self.finished: set[str] = set()  # keys that were settled since the last look began


class Deliveries:
    """All channels. Use as ``async with``: within it messages are sent.

    Args:
        senders, routes: by the name of the channel.
        writer, reader: of the store; None keeps what waits in memory only.
        jitter: random numbers in [0, 1), for pauses.
        on_stage: told channel, stage and message as it goes on; must not wait.
    Attributes:
        lost: notices that an error of ours kept from every channel.
    """

    def __init__(
        self,
        senders: Mapping[str, Sender],
        routes: Mapping[str, Route],
        cards: MakeCard,
        clock: Clock,
        jitter: Callable[[], float],
        writer: Writer | None = None,
        reader: Reader | None = None,
        on_stage: Callable[[str, Stage, Job | None], None] = lambda channel, stage, job: None,
    ) -> None:
        self._channels = {
            name: _Channel(sender, ChannelOutbox(name, routes[name], can_edit=sender.can_edit))
            for name, sender in senders.items()
        }
        self._cards = cards
        self._clock = clock
        self._jitter = jitter
        self._writer = writer
        self._reader = reader
        self._on_stage = on_stage
        self._serving: list[asyncio.Task[None]] = []  # in the order of the channels
        self._looking: asyncio.Task[None] | None = None
        self._is_draining = False
        self.lost = 0
        self._lost_s = 0.0
        self._lost_why = ""

    # --- In ---------------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Take up what an earlier run has left; once, before anything is offered.

        Raises:
            StoreError: the store cannot be read.
        """
        if self._reader is None:
            return
        now_ms = self._now_ms()
        recent = self._reader.deliveries(now_ms - RESTORED_MS, limit=MOST_ROWS)
        older = self._reader.deliveries(0, [DeliveryState.PENDING], limit=MOST_ROWS, until_ms=now_ms - RESTORED_MS)
        for name, channel in self._channels.items():
            rows, unreadable = _readable(row for row in older + recent if row.channel == name)
            _recall_calls(channel.sender, rows, now_ms)
            self._put(channel, unreadable + channel.outbox.restore(rows, now_ms))
            if len(channel.outbox):
                logger.info("%d notices of an earlier run wait for %s", len(channel.outbox), name)
            budget = self._reader.state(_budget_key(name))
            if budget is not None:
                channel.outbox.allowance.per_day = budget.decode()

    def offer(self, notice: Notice) -> list[Delivery]:
        """Take a notice for every channel that wants it; never waits.

        Returns:
            Rows for the store, to be put there at once, in the same unit as what the notice is about.
        """
        rows: list[Delivery] = []
        body, now_ms = b"", self._now_ms()
        for channel in self._channels.values():
            body = body or finite_json(notice)
            accepted = channel.outbox.accept(notice, body, now_ms)
            if accepted:
                rows += accepted
                self._count(channel, accepted)
                channel.wake.set()
        return rows

    def tell(self, notice: Notice) -> None:
        """Offer a notice that stands for itself, and store it."""
        rows = self.offer(notice)
        if self._writer is not None:
            self._writer.put_now(*rows)

    def lose(self, what: str, error: Exception) -> None:
        """Something could not be offered, by an error of ours: it is logged, counted, and a trouble for a while."""
        logger.error("%s could not be told", what, exc_info=error)
        self.lost += 1
        self._lost_s = self._clock.monotonic()
        self._lost_why = f"{type(error).__name__}: {error}"

    # --- Looking ----------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return list(self._channels)

    def sender(self, name: str) -> Sender:
        return self._channels[name].sender

    def counters(self, name: str) -> ChannelCounters:
        return self._channels[name].counters

    def status(self) -> list[ChannelStatus]:
        """Every channel, in the order of the configuration."""
        return [self._status(name, channel) for name, channel in self._channels.items()]

    def trouble(self) -> str:
        """Which channels take nothing just now, what was lost of late, and why; empty when all is well."""
        troubles = [f"{one.name}: {one.error}" for one in self.status() if one.error]
        if self.lost and self._clock.monotonic() - self._lost_s < LOST_SHOWN_S:
            troubles.append(f"{self.lost} could not be told by an error of perpwatch: {self._lost_why}")
        return "; ".join(troubles)

    @staticmethod
    def _status(name: str, channel: _Channel) -> ChannelStatus:
        counters, latency = channel.counters, channel.counters.latency
        return ChannelStatus(
            name,
            len(channel.outbox),
            counters.settled[DeliveryState.SENT],
            counters.settled[DeliveryState.SUPPRESSED],
            counters.settled[DeliveryState.FAILED],
            channel.outbox.error,
            round(latency.sum / latency.count, 3) if latency.count else None,
        )

    def budget(self, name: str) -> int | None:
        """Alerts a day that a channel shows; None for all."""
        return self._channels[name].outbox.allowance.per_day

    def set_budget(self, name: str, alerts_per_day: int | None) -> None:
        """Another budget for a channel, also after the next start."""
        self._channels[name].outbox.allowance.per_day = alerts_per_day
        if self._writer is not None:
            self._writer.put_now(State.of(_budget_key(name), alerts_per_day, self._now_ms()))

    # --- Life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        for name, channel in self._channels.items():
            self._serving.append(asyncio.create_task(self._serve(name, channel), name=f"alerts-{name}"))
        if self._reader is not None and self._writer is not None and self._channels:
            self._looking = asyncio.create_task(self._look(self._reader, self._writer))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what can be sent now; the rest waits in the store for the next start."""
        self._is_draining = True
        tasks = [*self._serving, *([self._looking] if self._looking is not None else [])]
        for task, channel in zip(self._serving, self._channels.values(), strict=True):
            channel.wake.set()
            if channel.is_paused and channel.sender.turns.wait_s(channel.sender.destination) > DRAIN_S:
                task.cancel()  # a service that asks for a long pause does not hold up the exit
        try:
            if self._serving:
                await asyncio.wait(self._serving, timeout=DRAIN_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for name, channel in self._channels.items():
                if len(channel.outbox):
                    where = "in the store for the next start" if self._writer is not None else "for nobody any more"
                    logger.warning("%d notices for %s wait %s", len(channel.outbox), name, where)
                with contextlib.suppress(Exception):
                    await channel.sender.close()

    # --- A channel --------------------------------------------------------------------------------------------------

    async def _serve(self, name: str, channel: _Channel) -> None:
        while True:
            try:
                if await self._serve_next(name, channel):
                    return
            except Exception:
                # Whatever is wrong with one message or channel of ours, the next one must not wait for it.
                logger.exception("the channel %s stumbled", name)
                await asyncio.sleep(1.0)

    async def _serve_next(self, name: str, channel: _Channel) -> bool:
        """Send one message or wait for one; True when nothing is left to do."""
        outbox, sender = channel.outbox, channel.sender
        channel.wake.clear()
        due = outbox.next(self._now_ms())
        if not isinstance(due, Job):
            if self._is_draining:
                return True
            sleep_s = LONGEST_SLEEP_S if due is None else min((due - self._now_ms()) / 1_000, LONGEST_SLEEP_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.001, sleep_s)):
                    await channel.wake.wait()
            return False
        if self._is_draining and sender.turns.wait_s(sender.destination) > DRAIN_S:
            return True
        channel.is_paused = True
        await sender.turns.ready(sender.destination)
        channel.is_paused = False
        self._on_stage(name, Stage.TURN, None)
        job = outbox.next(self._now_ms())  # what came meanwhile belongs to it
        if isinstance(job, Job):
            await self._send(name, channel, job)
        return False

    async def _send(self, name: str, channel: _Channel, job: Job) -> None:
        outbox, stage = channel.outbox, self._on_stage
        stage(name, Stage.CHOSEN, job)
        notices = job.notices
        card = await self._card(notices, with_picture=channel.sender.takes_pictures)
        stage(name, Stage.MADE, job)
        begun = outbox.begin(job)
        self._put(channel, begun.rows)
        stage(name, Stage.BEGUN, begun)
        await self._commit()
        stage(name, Stage.COMMITTED, begun)
        rows: Sequence[Delivery]
        try:
            async with asyncio.timeout(SEND_LIMIT_S):
                receipt = await self._call(channel.sender, begun, card, notices)
        except DeliveryRefused as error:
            logger.error("%s refuses %s: %s", name, _named(begun), error.reason)
            rows = self._refuse(channel, begun, error)
        except DeliveryFailed as error:
            rows = self._fail(name, channel, begun, job, error)
        except TimeoutError:
            rows = self._fail(name, channel, begun, job, DeliveryFailed(f"no answer within {SEND_LIMIT_S:.0f} s"))
        except Exception as error:
            # Ours; the same again would end the same way, and `perpwatch alerts retry` can ask for it.
            logger.exception("%s cannot send %s", name, _named(begun))
            rows = self._refuse(channel, begun, DeliveryRefused(f"an error of perpwatch: {type(error).__name__}"))
        else:
            rows = outbox.sent(begun, receipt, self._now_ms())
        stage(name, Stage.ANSWERED, begun)
        self._put(channel, rows)
        self._count(channel, rows)
        stage(name, Stage.SETTLED, begun)

    async def _card(self, notices: Sequence[Notice], *, with_picture: bool) -> Card:
        try:
            return await self._cards.make(notices, with_picture=with_picture)
        except Exception:
            # A plain message is worth more than none.
            logger.exception("the card of %s cannot be made as it should be", notices[0].key)
            return card_of(notices[0]) if len(notices) == 1 else digest_of(notices)

    @staticmethod
    async def _call(sender: Sender, job: Job, card: Card, notices: Sequence[Notice]) -> str:
        if not job.receipt:
            return await sender.send(card, notices)
        await sender.edit(job.receipt, card, notices)
        return job.receipt

    @staticmethod
    def _refuse(channel: _Channel, job: Job, error: DeliveryRefused) -> list[Delivery]:
        channel.counters.failures += 1
        return channel.outbox.refused(job, error)

    def _fail(self, name: str, channel: _Channel, job: Job, before: Job, error: DeliveryFailed) -> list[Delivery]:
        channel.counters.failures += 1
        # The first failure in a row is news, the others are the same again.
        level = logging.DEBUG if channel.outbox.failures else logging.WARNING
        logger.log(level, "%s did not take %s: %s; it is tried again", name, _named(job), error.reason)
        return channel.outbox.failed(job, error, before, self._now_ms(), self._jitter())

    # --- The store --------------------------------------------------------------------------------------------------

    def _put(self, channel: _Channel, rows: Sequence[Delivery]) -> None:
        channel.finished.update(row.key for row in rows if row.state is not DeliveryState.PENDING)
        if self._writer is not None:
            self._writer.put_now(*rows)

    async def _commit(self) -> None:
        """Wait until what was put is on disk, unless the disk is in trouble."""
        if self._writer is not None and self._writer.trouble is None:
            await self._writer.flush(COMMIT_WAIT_S)

    async def _look(self, reader: Reader, writer: Writer) -> None:
        """Take up rows that another process, or a person, has made pending again."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for channel in self._channels.values():
                channel.finished.clear()
            if writer.trouble is not None or not await writer.flush(COMMIT_WAIT_S):
                continue  # what the store says may be old
            try:
                rows = await asyncio.to_thread(
                    reader.deliveries, 0, [DeliveryState.PENDING], self.names, limit=MOST_ROWS
                )
            except StoreError as error:
                logger.warning("the outbox cannot be read: %s", error)
                continue
            readable, unreadable = _readable(rows)
            writer.put_now(*unreadable)
            for row in readable:
                channel = self._channels[row.channel]
                if row.key not in channel.outbox and row.key not in channel.finished:
                    self._put(channel, channel.outbox.adopt(row))
                    channel.wake.set()

    def _count(self, channel: _Channel, rows: Sequence[Delivery]) -> None:
        for row in rows:
            if row.state is not DeliveryState.PENDING:
                channel.counters.settled[row.state] += 1
                if row.latency_ms is not None:
                    channel.counters.latency.observe(row.latency_ms / 1_000)

    def _now_ms(self) -> int:
        return self._clock.time_ns() // 1_000_000


def end_orphans(reader: Reader, writer: Writer, channels: Collection[str], now_ms: int) -> None:
    """Settle what has waited for a day for a channel that is no longer among these; what is younger may still be told.

    Raises:
        StoreError: the store cannot be read.
    """
    waiting = Counter[str]()
    for row in reader.deliveries(0, [DeliveryState.PENDING], limit=MOST_ROWS):
        if row.channel in channels:
            continue
        if now_ms - max(row.time_ms, row.not_before_ms) < GIVE_UP_MS:
            waiting[row.channel] += 1
        else:
            why = "its channel is no longer configured"
            writer.put_now(msgspec.structs.replace(row, state=DeliveryState.SUPPRESSED, why=why, not_before_ms=0))
    for name, count in waiting.items():
        logger.warning("%d notices wait for the channel %s, which is not configured", count, name)


def _readable(rows: Iterable[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
    """Rows as they are, and those that wait and can never be told: another version may have written them."""
    readable, unreadable = list[Delivery](), list[Delivery]()
    for row in rows:
        try:
            if row.state is DeliveryState.PENDING:
                Job((row,)).notices  # noqa: B018 - it is read to see whether it can be
            readable.append(row)
        except msgspec.MsgspecError as error:
            why = f"it cannot be read: {error}"
            unreadable.append(msgspec.structs.replace(row, state=DeliveryState.FAILED, why=why))
    return readable, unreadable


def _recall_calls(sender: Sender, rows: Iterable[Delivery], now_ms: int) -> None:
    """The service still counts what an earlier run has just sent, or was sending when it died."""
    calls = {
        row.digest or row.key: row.sent_ms or now_ms
        for row in rows
        if now_ms - row.sent_ms < COUNTED_MS or (row.attempts and row.state is DeliveryState.PENDING)
    }
    for sent_ms in calls.values():
        sender.turns.recall(sender.destination, max(0, now_ms - sent_ms) / 1_000)


def _budget_key(name: str) -> str:
    return f"alerts.budget.{name}"


def _named(job: Job) -> str:
    """A message in a log line; by its keys, which hold no secret."""
    first = job.rows[0]
    kind = NoticeKind(first.kind)
    return f"a digest of {len(job.rows)} notices" if job.digest else f"the {kind} notice {first.key}"
