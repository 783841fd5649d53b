"""Alerts on their way to chats: real stores, real sockets, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

import cards
from perpwatch.alert.card import Card, card_of, digest_of
from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.operational import OperationalAlert, Phase, Trouble
from perpwatch.alert.routing import Route
from perpwatch.alert.senders.telegram import TelegramBot, TelegramSender
from perpwatch.app import delivery
from perpwatch.app.channel_outbox import Job
from perpwatch.app.delivery import Deliveries, Stage, end_orphans
from perpwatch.app.notices import operational_notice
from perpwatch.feed.connection import SystemClock
from perpwatch.sim.bot_api import BotApiServer, Chat, Fault, Refused
from perpwatch.store import Database, Delivery, DeliveryState, Reader, Writer


def notice(number: int, text: str = "exchange unreachable") -> Notice:
    now_ms = time.time_ns() // 1_000_000
    key = f"exchange_unreachable:{number}:start"
    return operational_notice(
        OperationalAlert(key, Trouble.UNREACHABLE, Phase.START, now_ms, now_ms, f"{text} {number}")
    )


class Clock:
    """One that is set by hand."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def time_ns(self) -> int:
        return round(self.seconds * 1e9)


class TextCards:
    """Cards without pictures."""

    async def make(self, notices: Sequence[Notice], *, with_picture: bool) -> Card:
        return card_of(notices[0]) if len(notices) == 1 else digest_of(notices)


@contextlib.asynccontextmanager
async def store(path: Path) -> AsyncIterator[tuple[Writer, Reader]]:
    database = Database.open(str(path))
    async with Writer(database) as writer:
        yield writer, Reader(database)
    database.close()


@contextlib.asynccontextmanager
async def chat_of(api: BotApiServer, chat_id: int, timeout_s: float = 2.0) -> AsyncIterator[TelegramSender]:
    bot = TelegramBot(api.token, base_url=api.url, timeout_s=timeout_s)
    yield TelegramSender(bot, str(chat_id))
    await bot.close()


def deliveries_to(senders: dict[str, TelegramSender], **more: object) -> Deliveries:
    routes = {name: Route() for name in senders}
    return Deliveries(senders, routes, TextCards(), SystemClock(), lambda: 0.5, **more)  # type: ignore[arg-type]


async def until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.005)


def texts(chat: Chat) -> list[str]:
    return [message.text for message in chat.shown]


async def test_what_is_told_is_shown_in_the_chat_and_kept_as_sent_with_its_latency(tmp_path: Path) -> None:
    async with BotApiServer() as api, store(tmp_path / "db") as (writer, reader), chat_of(api, 7) as sender:
        chat = api.add_chat(7)
        async with deliveries_to({"phone": sender}, writer=writer, reader=reader) as deliveries:
            one = notice(1)
            deliveries.tell(one)
            assert [row.state for row in reader.deliveries()] in ([], [DeliveryState.PENDING])
            await until(lambda: len(chat.shown) == 1)
            await until(lambda: deliveries.status()[0].sent == 1)
            assert await writer.flush(5.0)
            assert "Exchange unreachable 1" in texts(chat)[0]
            (row,) = reader.deliveries()
            assert (row.channel, row.key, row.state, row.attempts) == ("phone", one.key, DeliveryState.SENT, 1)
            assert row.latency_ms is not None
            assert 0 <= row.latency_ms < 5_000
            status = deliveries.status()[0]
            assert status.latency_s == pytest.approx(row.latency_ms / 1_000)
            deliveries.tell(one)
            assert deliveries.status()[0].waiting == 0  # told once


async def test_a_channel_that_hangs_or_refuses_delays_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "DRAIN_S", 0.1)
    async with (
        BotApiServer() as good,
        BotApiServer() as bad,
        store(tmp_path / "db") as (writer, reader),
        chat_of(good, 7) as phone,
        chat_of(bad, 8, timeout_s=30.0) as hanging,
        chat_of(bad, 9) as gone,
    ):
        chat = good.add_chat(7)
        bad.add_chat(8)
        bad.add_chat(9).refusal = Refused(403, "Forbidden: bot was blocked by the user")
        bad.faults.append(Fault.SILENT)
        senders = {"hanging": hanging, "gone": gone, "phone": phone}
        async with deliveries_to(senders, writer=writer, reader=reader) as deliveries:
            began_s = time.monotonic()
            deliveries.tell(notice(1))
            await until(lambda: len(chat.shown) == 1)
            assert time.monotonic() - began_s < 5.0
            await until(lambda: deliveries.status()[1].failed == 1)
            deliveries.tell(notice(2))
            await until(lambda: len(chat.shown) == 2)
            by_name = {one.name: one for one in deliveries.status()}
            assert by_name["hanging"].waiting == 2
            assert "blocked" in by_name["gone"].error
            assert await writer.flush(5.0)
            failed = reader.deliveries(states=[DeliveryState.FAILED])
            assert {(row.channel, row.attempts) for row in failed} == {("gone", 1)}


async def test_an_outage_is_outlived_and_the_next_start_sends_what_is_left(tmp_path: Path) -> None:
    async with BotApiServer() as api, store(tmp_path / "db") as (writer, reader):
        chat = api.add_chat(7)
        api.fault_shares = {Fault.BROKEN: 1.0}
        async with chat_of(api, 7) as sender, deliveries_to({"phone": sender}, writer=writer, reader=reader) as first:
            first.tell(notice(1))
            await until(lambda: bool(first.status()[0].error))
        assert [row.state for row in reader.deliveries()] == [DeliveryState.PENDING]
        api.fault_shares = {}
        async with chat_of(api, 7) as sender:
            again = deliveries_to({"phone": sender}, writer=writer, reader=reader)
            again.restore()
            assert again.status()[0].waiting == 1
            async with again:
                await until(lambda: len(chat.shown) == 1)
        assert await writer.flush(5.0)
        assert [row.state for row in reader.deliveries()] == [DeliveryState.SENT]


async def test_leaving_sends_what_can_be_sent(tmp_path: Path) -> None:
    async with BotApiServer() as api, store(tmp_path / "db") as (writer, reader), chat_of(api, 7) as sender:
        chat = api.add_chat(7)
        async with deliveries_to({"phone": sender}, writer=writer, reader=reader) as deliveries:
            deliveries.tell(notice(1))
        assert len(chat.shown) == 1
        assert await writer.flush(5.0)
        assert [row.state for row in reader.deliveries()] == [DeliveryState.SENT]


async def test_a_service_that_asks_for_a_long_pause_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    async with BotApiServer() as api, store(tmp_path / "db") as (writer, reader), chat_of(api, 7) as sender:
        chat = api.add_chat(7)
        api.faults.append(Fault.TOO_MANY)
        api.retry_after_s = 600
        async with deliveries_to({"phone": sender}, writer=writer, reader=reader) as deliveries:
            deliveries.tell(notice(1))
            await until(lambda: bool(deliveries.status()[0].error))
            deliveries.tell(notice(2))
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 2.0
        assert chat.shown == []
        assert await writer.flush(5.0)
        assert [row.state for row in reader.deliveries()] == [DeliveryState.PENDING] * 2


async def test_a_failed_notice_that_somebody_makes_pending_again_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "LOOK_EVERY_S", 0.05)
    async with BotApiServer() as api, store(tmp_path / "db") as (writer, reader), chat_of(api, 7) as sender:
        chat = api.add_chat(7)
        chat.refusal = Refused(403, "Forbidden: bot was blocked by the user")
        async with deliveries_to({"phone": sender}, writer=writer, reader=reader) as deliveries:
            deliveries.tell(notice(1))
            await until(lambda: deliveries.status()[0].failed == 1)
            chat.refusal = None
            assert await writer.flush(5.0)
            (failed,) = reader.deliveries(states=[DeliveryState.FAILED])
            async with store(tmp_path / "db") as (other, _):  # as another process does
                other.put_now(replace(failed, state=DeliveryState.PENDING, attempts=0, why=""))
            await until(lambda: len(chat.shown) == 1)
            await asyncio.sleep(0.2)  # some more looks
            assert len(chat.shown) == 1


async def test_a_store_that_cannot_be_written_stops_no_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "COMMIT_WAIT_S", 0.2)
    async with BotApiServer() as api, store(tmp_path / "db") as (writer, reader), chat_of(api, 7) as sender:
        chat = api.add_chat(7)
        other = sqlite3.connect(tmp_path / "db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        async with deliveries_to({"phone": sender}, writer=writer, reader=reader) as deliveries:
            deliveries.tell(notice(1))
            await until(lambda: len(chat.shown) == 1, 3.0)
            other.execute("ROLLBACK")
            other.close()
            await until(lambda: deliveries.status()[0].sent == 1)
            assert await writer.flush(10.0)
        assert [row.state for row in reader.deliveries()] == [DeliveryState.SENT]


async def test_without_a_store_alerts_are_sent_all_the_same_and_a_card_that_fails_is_a_plain_one() -> None:
    class NoCards:
        async def make(self, notices: Sequence[Notice], *, with_picture: bool) -> Card:
            raise ValueError("no ink")

    stages: list[Stage] = []

    def on_stage(channel: str, stage: Stage, job: Job | None) -> None:
        stages.append(stage)

    async with BotApiServer() as api, chat_of(api, 7) as sender:
        chat = api.add_chat(7)
        routes = {"phone": Route()}
        async with Deliveries(
            {"phone": sender}, routes, NoCards(), SystemClock(), lambda: 0.5, on_stage=on_stage
        ) as deliveries:
            deliveries.restore()
            deliveries.tell(notice(1))
            await until(lambda: deliveries.status()[0].sent == 1)
        assert "unreachable" in texts(chat)[0]
    assert stages == list(Stage)


async def test_figures_without_an_end_are_told_all_the_same(tmp_path: Path) -> None:
    endless = cards.notice(cards.alert(cards.signal("ZERO_USDT", strength=math.inf, reasons=()), ratio=math.inf))
    async with BotApiServer() as api, store(tmp_path / "db") as (writer, reader), chat_of(api, 7) as sender:
        chat = api.add_chat(7)
        async with deliveries_to({"phone": sender}, writer=writer, reader=reader) as deliveries:
            deliveries.tell(endless)
            deliveries.tell(notice(1))
            await until(lambda: deliveries.status()[0].sent == 2)
    assert "ZERO" in texts(chat)[0]


async def test_a_row_that_cannot_be_read_fails_and_the_others_are_sent(tmp_path: Path) -> None:
    async with BotApiServer() as api, store(tmp_path / "db") as (writer, reader), chat_of(api, 7) as sender:
        chat = api.add_chat(7)
        now_ms = time.time_ns() // 1_000_000
        writer.put_now(
            Delivery(channel="phone", key="a", thread="a", kind="alert", time_ms=now_ms, body=b"{}"),
            Delivery(channel="pager", key="a", thread="a", kind="alert", time_ms=now_ms, body=b"{}"),
        )
        assert await writer.flush(5.0)
        deliveries = deliveries_to({"phone": sender}, writer=writer, reader=reader)
        deliveries.restore()
        async with deliveries:
            deliveries.tell(notice(1))
            await until(lambda: len(chat.shown) == 1)
        assert await writer.flush(5.0)
        states = {(row.channel, row.key[0]): row.state for row in reader.deliveries()}
        assert states == {
            ("phone", "a"): DeliveryState.FAILED,
            ("pager", "a"): DeliveryState.PENDING,  # its channel may come back
            ("phone", "e"): DeliveryState.SENT,
        }


async def test_what_waits_for_a_channel_that_is_gone_ends_after_a_day(tmp_path: Path) -> None:
    async with store(tmp_path / "db") as (writer, reader):
        now_ms = 1_791_201_600_000
        day_ms = 86_400_000
        row = Delivery(channel="gone", key="old", thread="old", kind="alert", time_ms=now_ms - day_ms)
        held = replace(row, key="held", not_before_ms=now_ms - day_ms + 1)  # by quiet hours
        told = replace(row, key="told", state=DeliveryState.SENT)
        writer.put_now(row, held, told, replace(row, channel="phone"))
        assert await writer.flush(5.0)
        end_orphans(reader, writer, ["phone"], now_ms)
        assert await writer.flush(5.0)
        assert {(one.channel, one.key, one.state, one.why) for one in reader.deliveries()} == {
            ("gone", "old", DeliveryState.SUPPRESSED, "its channel is no longer configured"),
            ("gone", "held", DeliveryState.PENDING, ""),
            ("gone", "told", DeliveryState.SENT, ""),
            ("phone", "old", DeliveryState.PENDING, ""),
        }


async def test_a_budget_that_is_set_survives_a_restart(tmp_path: Path) -> None:
    async with BotApiServer() as api, store(tmp_path / "db") as (writer, reader), chat_of(api, 7) as sender:
        for budget in (5, None):
            deliveries_to({"phone": sender}, writer=writer, reader=reader).set_budget("phone", budget)
            assert await writer.flush(5.0)
            again = deliveries_to({"phone": sender}, writer=writer, reader=reader)
            again.restore()
            assert again.budget("phone") == budget


def test_what_was_lost_is_a_trouble_for_five_minutes() -> None:
    clock = Clock()
    deliveries = Deliveries({}, {}, TextCards(), clock, lambda: 0.5)
    assert deliveries.trouble() == ""
    deliveries.lose("an alert", KeyError("BEAT_USDT"))
    clock.seconds = 299.0
    assert deliveries.trouble() == "1 could not be told by an error of perpwatch: KeyError: 'BEAT_USDT'"
    clock.seconds = 300.0
    assert (deliveries.trouble(), deliveries.lost) == ("", 1)


def test_each_kind_of_notice_about_the_watch_is_a_message_of_its_own() -> None:
    one = notice(1)
    assert (one.kind, one.thread) == (NoticeKind.OPERATIONAL, one.key)
