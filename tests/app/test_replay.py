"""What a watch has recorded is found again, to the byte, and a cut recording as far as it goes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from perpwatch.app.api_actions import Actions
from perpwatch.app.bot import Bot, adapter_for
from perpwatch.app.config import Config
from perpwatch.app.demo import at_addresses
from perpwatch.app.engine import Step
from perpwatch.app.keeper import Keeper
from perpwatch.app.recorder import found_in, recorder
from perpwatch.app.replay import Replay, Replayed
from perpwatch.app.wishes import Wishes
from perpwatch.exchanges.mexc.codec import decode
from perpwatch.feed.connection import dial_with
from perpwatch.feed.recording import Body, Changed, Found, Line, RecordingFile, Taken, recording_files
from perpwatch.feed.rest import http_over_network
from perpwatch.model import Batch
from perpwatch.sim import DEFAULT_START_MS, Clock, Faults, SimulatedNetwork, build, run_scaled, run_virtual
from perpwatch.sim.server import SimulatorServer
from perpwatch.store import Database, Reader, Writer

OVERRIDES = {
    "rest": {"history_minutes": 120},
    "websocket": {"subscription_types": ["ticker", "kline_Min1", "deals"], "real_time_volume_threshold": 1.5},
    "detection": {"rules": ["volume_ratio"], "minimum_turnover": 0.0, "thresholds": {"Min1": 1.5, "Min5": 1.5}},
}


@dataclass
class Watch:
    """What a watch found, and where it was recorded."""

    folder: Path
    found: list[bytes] = field(default_factory=list)
    batches: int = 0

    def on_step(self, batch: Batch, step: Step) -> None:
        self.batches += 1
        self.found += found_in(step)

    def replayed(self, **options: object) -> tuple[Replayed, list[bytes]]:
        again = Watch(self.folder)
        replay = Replay(recording_files(self.folder), decode, again.on_step, **options)  # type: ignore[arg-type]
        return replay.run(), again.found


ONE_RULE = """
[rules.first]
[[rules.first.conditions]]
detector = "volume_ratio"
thresholds = { Min1 = 1.5 }
running_threshold = 1.5
minimum_turnover = 0.0
"""
ANOTHER_RULE = ONE_RULE.replace("first", "second").replace("1.5", "2.0")


@contextlib.asynccontextmanager
async def kept_inline(bot: Bot, config: Config) -> AsyncIterator[None]:
    """As ``kept`` does, without the thread that virtual time cannot wait for."""
    database = Database.open(config.store.url)
    async with Writer(database, is_inline=True) as writer:
        keeper = Keeper(bot.engine, Reader(database), writer)
        now_ms = bot.clock.time_ns() // 1_000_000
        keeper.restore(now_ms)
        keeper.restore_alerts(now_ms)
        bot.engine.past = keeper.past
        tell = bot.on_step

        def on_step(batch: Batch, step: Step) -> None:
            keeper.note(batch, step)
            tell(batch, step)

        bot.on_step = on_step
        yield
        keeper.finish()
        keeper.remember("alerts.desk", bot.analysis.desk.state(), bot.engine.now_ms)
    database.close()


def virtual_watch(
    folder: Path,
    minutes: float = 6.0,
    settings: Mapping[str, Any] | None = None,
    *,
    faults: Faults | None = None,
    pairs: int = 30,
    activity: float = 20.0,
    at_half: Callable[[Bot], object] = lambda bot: None,
    is_kept: bool = False,
    start_ms: int = DEFAULT_START_MS,
) -> Watch:
    """A market in virtual time, recorded."""
    watch = Watch(folder)
    config = Config().with_overrides(OVERRIDES).with_overrides(settings or {})
    config = config.with_overrides({"recording": {"folder": str(folder)}})

    async def run() -> None:
        clock = Clock.starting_at(start_ms)
        exchange = build(3, pairs, DEFAULT_START_MS, activity=activity, faults=faults)
        network = SimulatedNetwork(exchange, clock, seed=3)
        async with network:
            with recorder(config, None, clock) as recording:
                dial, get = recording.ports(network.dial, network.get)
                bot = Bot(config, adapter_for(config), dial, get, clock, random.Random(3).random, watch.on_step)
                recording.attach(bot)
                asyncio.get_running_loop().call_later(minutes * 30.0, at_half, bot)
                async with kept_inline(bot, config) if is_kept else contextlib.nullcontext():
                    await bot.run(minutes * 60.0)

    run_virtual(run())
    return watch


def test_a_watch_over_real_sockets_and_its_replay_find_the_same_to_the_byte(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "recording")

    async def run() -> None:
        exchange = build(5, 60, DEFAULT_START_MS, activity=30.0, faults=Faults(drops_per_hour=60, late=0.02))
        clock = Clock.starting_at(DEFAULT_START_MS)
        async with SimulatorServer(exchange, clock) as server, http_over_network() as get:
            config = at_addresses(Config(), server.websocket_url, server.rest_url)
            config = config.with_overrides(OVERRIDES | {"recording": {"folder": str(watch.folder)}})
            with recorder(config, None, clock) as recording:
                dial, recorded_get = recording.ports(dial_with(), get)
                bot = Bot(
                    config, adapter_for(config), dial, recorded_get, clock, random.Random(1).random, watch.on_step
                )
                recording.attach(bot)
                running = asyncio.create_task(bot.run())
                async with asyncio.timeout(1_000):  # market seconds
                    while len(watch.found) < 20:
                        await asyncio.sleep(1.0)
                bot.stop()
                await running

    run_scaled(run(), 30.0)
    result, found = watch.replayed()
    assert found == watch.found
    assert (result.batches, result.differing, result.missing) == (watch.batches, 0, [])
    assert result.compared == len(watch.found)


FAULTS = Faults(reorder=0.01, late=0.02, drops_per_hour=60, malformed=0.001, duplicate=0.01)


def test_rules_that_are_swapped_and_taught_while_it_runs_are_replayed(tmp_path: Path) -> None:
    rules = tmp_path / "mine.toml"
    rules.write_text(ONE_RULE)

    def swap(bot: Bot) -> None:
        rules.write_text(ONE_RULE + ANOTHER_RULE)

    watch = virtual_watch(tmp_path / "recording", 8.0, {"detection": {"rules": [str(rules)]}}, at_half=swap)
    result, found = watch.replayed()
    assert found == watch.found
    assert (result.differing, result.compared) == (0, len(found))
    of_rules = {rule for body in found for rule in (b"first", b"second") if b'"rule":"%b"' % rule in body}
    assert of_rules == {b"first", b"second"}
    assert any(b'"signal":{' in body for body in found), "alerts are found again, too"


def test_rules_and_contracts_that_are_silenced_while_it_runs_stay_silent_in_the_replay(tmp_path: Path) -> None:
    rules = tmp_path / "mine.toml"
    rules.write_text(ONE_RULE + ANOTHER_RULE)

    def silence(bot: Bot) -> None:
        Actions(bot).pause("first", "somebody")
        Actions(bot).test_alert("somebody")  # no market made it, so it is no part of a recording

    watch = virtual_watch(tmp_path / "recording", 8.0, {"detection": {"rules": [str(rules)]}}, at_half=silence)
    by_hand = [body for body in watch.found if b'"rule":"test"' in body]
    assert len(by_hand) == 1
    result, found = watch.replayed()
    assert found == [body for body in watch.found if body not in by_hand]
    assert (result.differing, result.compared) == (0, len(found))


def test_what_people_ask_of_a_watch_while_it_runs_is_asked_again_in_the_replay(tmp_path: Path) -> None:
    rules = tmp_path / "mine.toml"
    rules.write_text(ONE_RULE.replace("[rules.first]", "[rules.first]\ncooldown_minutes = 1"))
    asked: list[object] = []
    began_ms = DEFAULT_START_MS + 150_000

    def ask(bot: Bot) -> None:
        wishes = Wishes(bot)
        for symbol in bot.watched:
            wishes.mute(symbol, 60_000, "somebody")  # which ends while it runs
        wishes.budget("first", 500.0, "somebody")
        asked.append(asyncio.ensure_future(wishes.run()))

    settings = {"detection": {"rules": [str(rules)]}}
    watch = virtual_watch(tmp_path / "recording", 5.0, settings, at_half=ask, pairs=14)
    result, found = watch.replayed()
    assert found == watch.found
    assert (result.differing, result.compared) == (0, len(found))
    alerts = [msgspec.json.decode(body)["time_ms"] for body in found if b'"signal":{' in body]
    signals = [msgspec.json.decode(body)["event_time_ms"] for body in found if body.startswith(b'{"detector"')]
    assert any(began_ms < time_ms < began_ms + 60_000 for time_ms in signals)
    assert not any(began_ms < time_ms < began_ms + 60_000 for time_ms in alerts)
    assert max(alerts) > began_ms + 60_000


def test_what_an_earlier_run_knew_is_part_of_the_recording(tmp_path: Path) -> None:
    store = {"url": f"sqlite:///{tmp_path}/perpwatch.db"}
    settings: dict[str, Any] = {"store": store, "rest": {"history_minutes": 60}}
    virtual_watch(tmp_path / "first", 3.0, settings, is_kept=True)
    watch = virtual_watch(tmp_path / "second", 6.0, settings, is_kept=True, start_ms=DEFAULT_START_MS + 200_000)
    records = [one for path in recording_files(watch.folder) for one in RecordingFile(path).records()]
    known = {one.what: one.body for one in records if isinstance(one, Changed)}
    assert {*known} >= {"ledger", "desk", "past"}
    assert len(known["ledger"]) > 1_000
    result, found = watch.replayed()
    assert found == watch.found
    assert (result.differing, result.missing) == (0, [])
    assert found


def test_gaps_repairs_and_unreadable_frames_are_replayed_as_they_were(tmp_path: Path) -> None:
    watch = virtual_watch(tmp_path, faults=FAULTS)
    result, found = watch.replayed()
    assert found == watch.found
    assert result.differing == 0
    records = [record for path in recording_files(tmp_path) for record in RecordingFile(path).records()]
    told = [one.name for record in records if isinstance(record, Taken) for one in record.told]
    assert {"StreamUp", "Gap", "CandleHistory"} <= {*told}
    whats = [record.what for record in records if isinstance(record, Line)]
    assert {"dialled", "opened", "sent", "closed"} <= {*whats}
    assert any(
        b"ping" in frame or b"pong" in frame
        for record in records
        if isinstance(record, Taken)
        for frame in record.asides
    )
    assert any(isinstance(record, Body) and record.status == 200 for record in records)
    assert sum(isinstance(record, Found) for record in records) == len(watch.found) > 0
