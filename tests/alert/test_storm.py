"""A storm of alerts over real sockets: nothing is lost, nothing told twice, no limit exceeded, nobody held up."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from alert_storm import (
    GROUP,
    PERSON,
    WEBHOOK_RATE,
    Services,
    Words,
    blow,
    configured,
    letters,
    most_within,
    posted,
    read,
)

from perpwatch.app.delivery import Deliveries
from perpwatch.app.senders import senders_of
from perpwatch.feed.connection import SystemClock
from perpwatch.store import Database, Delivery, DeliveryState, Reader, Writer

#: Alerts, the seconds in which they come, and those in which all must have been told.
SHORT = (45, 3.0, 60.0)
FULL = (500, 60.0, 180.0)
WHOLE = "PERPWATCH_PROOF" in os.environ


async def weathered(services: Services, folder: Path, alerts: int, seconds: float, limit_s: float) -> list[Delivery]:
    """Tell of so many alerts, wait until all who live have been told, and return the rows of the store."""
    config = configured(services, folder).alerts
    senders = senders_of(config, folder)
    routes = {name: channel.route(config.time_zone) for name, channel in config.channels.items()}
    database = Database.open(str(folder / "store.db"))
    reader = Reader(database)
    try:
        async with Writer(database) as writer:
            deliveries = Deliveries(senders, routes, Words(), SystemClock(), random.Random(1).random, writer, reader)
            async with deliveries:
                await blow(deliveries.tell, [f"S{number:04}_USDT" for number in range(alerts)], seconds)
                async with asyncio.timeout(limit_s):
                    while any(one.waiting for one in deliveries.status() if one.name != "dead"):
                        await asyncio.sleep(0.1)
            assert await writer.flush(10.0)
            return list(reader.deliveries(0, limit=100_000))
    finally:
        database.close()


@pytest.mark.timeout(300)
async def test_a_storm_of_alerts_reaches_everybody_once_within_all_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERPWATCH_PROOF", raising=False)  # it is no setting
    alerts, seconds, limit_s = FULL if WHOLE else SHORT
    async with Services() as services:
        rows = await weathered(services, tmp_path, alerts, seconds, limit_s)
        told = {f"S{number:04}" for number in range(alerts)}

        # Nothing is lost: each alert was acknowledged on each channel, and the services have it.
        for name in ("calm", "rough", "person", "group", "mail"):
            states = [row.state for row in rows if row.channel == name]
            assert (name, states) == (name, [DeliveryState.SENT] * alerts)
        calm, rough = posted(services.calm), posted(services.rough)
        chats = services.telegram.chats
        person, group = (read(one.text for one in chats[chat].shown) for chat in (PERSON, GROUP))
        mail = read(letters(services.mail))
        for people in (person, group, mail):
            assert people.notices == alerts
            assert people.symbols.keys() <= told

        # Nothing is told twice, although some answers were lost.
        assert calm == rough == dict.fromkeys((f"{symbol}_USDT" for symbol in told), 1)
        assert len(services.rough.received) > len(services.rough.messages)
        for people in (person, group, mail):
            assert set(people.symbols.values()) == {1}

        # No limit was exceeded, as the services count.
        assert services.telegram.exceeded == []
        assert services.calm.exceeded == services.rough.exceeded == 0
        assert most_within([one.received_s for one in services.calm.received], 1.0) <= WEBHOOK_RATE
        assert most_within(services.mail.received_s, 1.0) == 1

        # Nobody is flooded: a group is told the most of it in digests.
        assert group.digests >= 1
        assert len(chats[GROUP].shown) < alerts / 2

        # A dead channel was tried all the time, and has held up nobody.
        assert len(services.dead.received) >= 2
        assert services.dead.messages == {}
        late_ms = sorted(row.latency_ms or 0 for row in rows if row.channel == "calm")
        assert late_ms[len(late_ms) // 2] < 1_000
