"""A watch that tells alerts and is killed at a named step, as a process of its own.

Run as a program it forks one watch per line read (a :class:`Life` as JSON) and tells its process id, and then how it
ended: ``0``, or ``-9`` when it was killed. Forking saves the seconds that starting Python and its libraries takes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401 - so that the forks need not import it

import cards
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.alert.routing import Route
from perpwatch.app import service_senders, telegram_senders  # noqa: F401
from perpwatch.app.alerts_config import AlertsConfig
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.card_maker import card_maker_of
from perpwatch.app.channel_outbox import Job
from perpwatch.app.config import Config
from perpwatch.app.delivery import Deliveries, Stage
from perpwatch.app.engine import Step
from perpwatch.app.kept import kept
from perpwatch.app.senders import senders_of
from perpwatch.app.store_config import StoreConfig
from perpwatch.app.telling import Teller
from perpwatch.errors import ConnectionFailed
from perpwatch.feed.connection import SystemClock
from perpwatch.feed.ports import HttpAnswer, Socket
from perpwatch.model import Batch
from perpwatch.store import Delivery


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the program."""

    folder: str  # with the database
    channels: dict[str, dict[str, str]]
    environment: dict[str, str]  # with the secrets
    symbols: list[str] = []  # of the alerts to tell at once; none when only what is left over is to be told
    time_ms: int = 0
    escalation: int = 0
    dies_at: str = ""


async def live(life: Life) -> None:
    def die_at(step: str) -> None:
        if step == life.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_stage(channel: str, stage: Stage, job: Job | None) -> None:
        die_at(f"{stage}:{channel}")

    config = Config()
    alerts = AlertsConfig.model_validate({"channels": life.channels})
    bot = Bot(config, adapter_for(config), _nowhere, _nothing, SystemClock(), random.Random(1).random)
    store = StoreConfig(url=f"sqlite:///{life.folder}/perpwatch.db")
    async with kept(bot, store, None) as keeper:
        assert keeper is not None
        deliveries = Deliveries(
            senders_of(alerts, Path(life.folder)),
            dict.fromkeys(alerts.channels, Route()),
            card_maker_of(bot, keeper.reader, alerts),
            bot.clock,
            random.Random().random,
            keeper.writer,
            keeper.reader,
            on_stage,
        )
        deliveries.restore()
        teller = Teller(bot, deliveries)
        teller.restore(keeper)

        def beside(alert: Alert | MarketAlert) -> Sequence[Delivery]:
            rows = teller.alert(alert)
            die_at("accepted")
            return rows

        keeper.beside = beside
        async with deliveries:
            if life.symbols:
                signals = [cards.signal(symbol, event_time_ms=life.time_ms) for symbol in life.symbols]
                alerts_found: list[Alert | MarketAlert] = [
                    cards.alert(one, escalation=life.escalation, start_ms=life.time_ms) for one in signals
                ]
                die_at("found")
                bot.tell(Batch("test", 0, 0, ()), Step(alerts=alerts_found))
                die_at("put")
                if life.dies_at == "stored":
                    await keeper.writer.flush(10.0)
                    die_at("stored")
            async with asyncio.timeout(20.0):
                while any(channel.waiting for channel in deliveries.status()):
                    await asyncio.sleep(0.002)
            await keeper.writer.flush(10.0)
            die_at("kept")


async def _nowhere(url: str) -> Socket:
    raise ConnectionFailed(url, "nobody is there")


async def _nothing(url: str, parameters: Mapping[str, str | int]) -> HttpAnswer:
    raise AssertionError("nothing is read")


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            one = msgspec.json.decode(line, type=Life)
            os.environ.update(one.environment)
            asyncio.run(live(one))
            os._exit(0)
        os.write(1, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())
