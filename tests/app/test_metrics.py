"""What Prometheus is told: every name documented, no symbol, and numbers that agree with the program's own."""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from watched_bots import event, run_watched

from perpwatch.alert.routing import Route
from perpwatch.alert.senders.console import ConsoleSender
from perpwatch.alert.turns import Turns
from perpwatch.app.alerts_config import AlertsConfig
from perpwatch.app.card_maker import card_maker_of
from perpwatch.app.delivery import Deliveries
from perpwatch.app.health import Monitor
from perpwatch.app.histogram import Histogram
from perpwatch.app.messages import Dispatcher
from perpwatch.app.metrics import REASONS, reason_class
from perpwatch.errors import ConnectionFailed, ConnectionLost, ExchangeError, StaleConnection
from perpwatch.model import Trust
from perpwatch.sim import Faults

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(perpwatch_\w+)` \| (counter|gauge|histogram) \| ([\w, ]*)\| (.+) \|$", re.MULTILINE)


def scraped(monitor: Monitor) -> dict[str, Metric]:
    """Families of a scrape, by the name that their samples carry."""
    body, content_type = monitor.metrics.render()
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(body.decode())
    return {f"{one.name}_total" if one.type == "counter" else one.name: one for one in families}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """One number of a scrape."""
    family_name = re.sub(r"_(count|sum|bucket)$", "", name)
    [found] = [
        sample.value for sample in families[family_name].samples if sample.name == name and sample.labels == labels
    ]
    return found


def total(families: dict[str, Metric], name: str) -> float:
    return sum(sample.value for sample in families[name].samples)


def visited_after(second: float, faults: Faults | None = None, minutes: float | None = None) -> Iterator[Monitor]:
    """The monitor of a bot that has run for so long, while it runs."""
    seen: list[Monitor] = []

    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(second)
        seen.append(monitor)

    run_watched(minutes or second / 60 + 0.1, faults, visitor=visit)
    return iter(seen)


# --- The page ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the process's own numbers exist on Linux only")
def test_the_page_names_every_metric_with_its_type_and_labels_and_no_other() -> None:
    pages: list[dict[str, Metric]] = []

    async def visit(monitor: Monitor) -> None:
        senders = {"terminal": ConsoleSender(Console(file=io.StringIO()), Turns.unlimited())}
        cards = card_maker_of(monitor.bot, None, AlertsConfig())
        monitor.metrics.deliveries = Deliveries(senders, {"terminal": Route()}, cards, monitor.bot.clock, lambda: 0.5)
        await asyncio.sleep(100)
        pages.append(scraped(monitor))
        assert [(one.name, one.waiting) for one in monitor.report().channels] == [("terminal", 0)]

    run_watched(2, pump_at_s=60, visitor=visit)
    [families] = pages
    documented = {
        name: (kind, frozenset(label.strip() for label in labels.split(",") if label.strip()))
        for name, kind, labels, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))
    }
    told = {
        name: (family.type, frozenset(label for sample in family.samples for label in sample.labels) - {"le"})
        for name, family in families.items()
    }
    assert told == documented
    assert all(family.documentation for family in families.values())


def test_no_page_ever_contains_a_symbol() -> None:
    faults = Faults(
        malformed=0.001,
        refuse_subscriptions=0.05,
        rest_html=0.05,
        events=(
            event(60, "silence", "kline:BTC_USDT", 60),
            event(90, "drop_abrupt", "all"),
            event(100, "rest_html", lasts_s=30),
            event(130, "delisting", "ETH_USDT"),
        ),
    )
    checked = 0

    async def visit(monitor: Monitor) -> None:
        nonlocal checked
        for _ in range(20):
            await asyncio.sleep(11)
            body, _ = monitor.metrics.render()
            for symbol in [*monitor.bot.watched, "ETH_USDT"]:
                assert symbol.encode() not in body
                assert symbol.partition("_")[0].encode() + b"_" not in body
                checked += 1
            assert len(body.splitlines()) < 600

    run_watched(4, faults, visitor=visit)
    assert checked > 500


def test_a_scraper_that_asks_for_open_metrics_gets_it() -> None:
    pages: list[tuple[bytes, str]] = []

    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(30)
        pages.append(monitor.metrics.render("application/openmetrics-text; version=1.0.0"))

    run_watched(1, visitor=visit)
    [(body, content_type)] = pages
    assert content_type.startswith("application/openmetrics-text")
    families = open_metrics_families(body.decode())  # type: ignore[no-untyped-call]  # the library has no types here
    assert "perpwatch_batches" in {one.name for one in families}


def test_two_bots_have_two_registries() -> None:
    batches: list[float] = []

    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(20)
        batches.append(value(scraped(monitor), "perpwatch_batches_total"))

    run_watched(0.5, visitor=visit)
    run_watched(0.5, visitor=visit)
    assert batches[0] == batches[1] > 0


# --- The numbers ---------------------------------------------------------------------------------------------------


def test_numbers_agree_with_the_program() -> None:
    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(5)
        early = scraped(monitor)
        assert value(early, "perpwatch_contracts", state="watched") == 40
        await asyncio.sleep(235)
        families, bot, metrics = scraped(monitor), monitor.bot, monitor.metrics
        status = bot.feed.pool.status()
        assert value(families, "perpwatch_connections", state="open") == len(status) == 3
        for one in status:
            frames = value(families, "perpwatch_connection_frames_total", connection=one.source)
            assert frames == one.frames > 0
            assert value(families, "perpwatch_subscriptions", connection=one.source, state="confirmed") == one.wanted
        assert value(families, "perpwatch_coverage_ratio") == 1.0
        assert value(families, "perpwatch_limit", limit="subscriptions_per_connection") == 15
        assert value(families, "perpwatch_candle_pushes_total") == bot.engine.book.counters.pushes > 1_000
        # Of four minutes the first was seen in part, and the last is only just being closed.
        finals = {
            finality: value(families, "perpwatch_candle_finals_total", timeframe="Min1", finality=finality)
            for finality in ("successor", "clock", "rest")
        }
        assert finals["successor"] + finals["clock"] >= 80
        assert value(families, "perpwatch_minutes_repaired_total") == metrics.minutes_repaired
        # Four minutes have ended; the first belongs to the history of most contracts, where nobody asks.
        assert 40 * 3 <= total(families, "perpwatch_ledger_minutes") <= 40 * 4
        assert value(families, "perpwatch_ledger_minutes", trust=Trust.UNKNOWN) == 0
        assert value(families, "perpwatch_gap_minutes") == 0
        assert value(families, "perpwatch_rest_requests_total") == bot.feed.rest.counters.requests > 40
        assert value(families, "perpwatch_breaker_state", endpoint="kline") == 0
        assert value(families, "perpwatch_silence_seconds") < 3
        assert value(families, "perpwatch_data_age_seconds") < 3

    run_watched(4.1, visitor=visit)


def test_latency_is_what_the_network_adds_to_its_least_and_the_offset_is_that_least() -> None:
    [monitor] = visited_after(120)
    latency = monitor.metrics.feed_latency
    # Frames travel for 20 to 80 ms and are carried away every 100 ms, so they are 20 to 180 ms old.
    assert 0.03 < latency.sum / latency.count < 0.1
    assert dict(latency.buckets())["0.25"] == latency.count > 1_000
    offset_s = monitor.metrics.clock_offset_s()
    assert offset_s is not None
    assert 0.02 <= offset_s < 0.05
    assert monitor.metrics.queue_time.sum == 0.0, "virtual time stands still while the program works"
    assert monitor.metrics.loop_lag.count >= 119


def test_latency_does_not_depend_on_our_wall_clock() -> None:
    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(110)
        latency = monitor.metrics.feed_latency
        assert dict(latency.buckets())["0.25"] == latency.count > 1_000
        offset_s = monitor.metrics.clock_offset_s()
        assert offset_s is not None
        assert -3599.98 <= offset_s < -3599.9

    run_watched(2, visitor=visit, drift=(30.0, -3_600.0))


def test_signals_are_counted_by_rule_with_their_latency() -> None:
    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(150)
        families = scraped(monitor)
        signals = value(families, "perpwatch_signals_total", rule="default")
        assert signals == monitor.bot.engine.signals > 0
        assert value(families, "perpwatch_signal_latency_seconds_count") == signals

    run_watched(3, visitor=visit, pump_at_s=60)


def test_failures_of_connections_are_counted_by_reason() -> None:
    faults = Faults(
        drop_hang_up="1001",
        events=(
            event(60, "drop", "connection:1"),
            event(90, "drop_abrupt", "connection:2"),
            event(120, "half_open", "connection:3"),
            event(300, "exchange_down", lasts_s=20),
        ),
    )

    async def visit(monitor: Monitor) -> None:
        await asyncio.sleep(290)
        families = scraped(monitor)
        before = {reason: value(families, "perpwatch_connection_failures_total", reason=reason) for reason in REASONS}
        assert before == dict.fromkeys(REASONS, 0) | {"mute": 1, "broken": 1, "closed": 1}
        assert total(families, "perpwatch_connection_reconnects_total") == 3
        await asyncio.sleep(100)
        families = scraped(monitor)
        # Two failures of one connection within a second count as the later one.
        assert value(families, "perpwatch_connection_failures_total", reason="broken") > 1
        assert value(families, "perpwatch_connection_failures_total", reason="unreachable") >= 3
        failures = sum(one.failures for one in monitor.bot.feed.pool.status())
        assert total(families, "perpwatch_connection_failures_total") == failures

    run_watched(7, faults, visitor=visit)


def test_what_a_dispatcher_leaves_out_is_shown() -> None:
    async def visit(monitor: Monitor) -> None:
        dispatcher = monitor.metrics.dispatcher = Dispatcher({})
        dispatcher.conflated, dispatcher.delivered = 7, 12
        families = scraped(monitor)
        assert value(families, "perpwatch_handler_messages_total", result="conflated") == 7
        assert value(families, "perpwatch_handler_messages_total", result="delivered") == 12

    run_watched(0.1, visitor=visit)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionFailed("wss://x", "no answer within 10 s"), "unreachable"),
        (ConnectionFailed("wss://x", "too many connections", status=429), "refused"),
        (StaleConnection(35.0, "answer to our pings"), "mute"),
        (ConnectionLost("mute although open"), "mute"),
        (ConnectionLost("renewed before its time ended"), "renewed"),
        (ConnectionLost("the line broke"), "broken"),
        (ConnectionLost("closed by the server", 1001), "closed"),
        (ExchangeError("anything"), "other"),
    ],
)
def test_every_failure_has_a_reason(error: ExchangeError, reason: str) -> None:
    assert reason_class(error) == reason
    assert reason in REASONS


def test_a_histogram_counts_values_up_to_and_with_each_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 2.0):
        histogram.observe(seconds)
    assert histogram.buckets() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert histogram.count == 4
    assert histogram.sum == pytest.approx(2.65)
