"""Troubles of the watch are told once when they begin and once when they are over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpwatch.alert.operational import (
    SETTLE_S,
    OperationalAlert,
    OperationalWatch,
    Phase,
    Snapshot,
    Thresholds,
    Trouble,
    duration_text,
    troubles,
)
from perpwatch.model import MINUTE_MS

NOON_MS = 1_791_201_600_000
#: A watch in which all is well.
WELL = {
    "contracts_listed": 900,
    "contracts_watched": 800,
    "contracts_warm": 800,
    "contracts_covered": 800,
    "connections": 10,
    "connections_open": 10,
    "connection_limit": 10,
    "connection_limit_configured": 10,
    "subscription_limit": 95,
    "subscription_limit_configured": 95,
}


def at(second: float, **numbers: Any) -> Snapshot:
    """A snapshot so many seconds after noon; our clock and the exchange's agree."""
    time_ms = NOON_MS + int(second * 1_000)
    return Snapshot(**{"now_s": 5_000.0 + second, "time_ms": time_ms, "exchange_ms": time_ms, **WELL, **numbers})


def told(watch: OperationalWatch, snapshots: Iterable[Snapshot]) -> list[tuple[float, str]]:
    """What the watch says: (seconds after noon, text)."""
    return [
        ((alert.time_ms - NOON_MS) / 1_000, alert.text) for snapshot in snapshots for alert in watch.update(snapshot)
    ]


def outage(start_s: int, end_s: int, until_s: int, **after: Any) -> Iterable[Snapshot]:
    """The exchange is gone between two times; once it is back there is what ``after`` says."""
    for second in range(until_s):
        if start_s <= second < end_s:
            yield at(second, silence_s=float(second - start_s), connections_open=0, contracts_covered=0)
        else:
            yield at(second, **(after if second >= end_s else {}))


def test_a_good_watch_says_nothing() -> None:
    assert told(OperationalWatch(), (at(second) for second in range(600))) == []


def test_an_outage_is_one_start_and_one_end_with_its_duration_and_what_became_of_the_minutes() -> None:
    watch = OperationalWatch()
    assert told(watch, outage(30, 222, 600, repaired_minutes=41)) == [
        (45.0, "exchange unreachable: nothing heard for 15 s"),
        (222.0 + SETTLE_S, "exchange unreachable: back after 3 m 12 s, 41 minutes repaired, 0 unknown"),
    ]
    assert watch.open() == {}


def test_what_cannot_be_kept_is_told_and_a_short_lock_is_not() -> None:
    full = "store: database or disk is full"
    seconds = [at(second, not_kept=full if 10 <= second < 12 or 30 <= second < 90 else "") for second in range(120)]
    assert told(OperationalWatch(), seconds) == [
        (35.0, f"nothing is kept: {full}; tried again and again, with everything kept in memory"),
        (95.0, "nothing is kept: back after 1 m 0 s"),
    ]


def test_a_channel_that_fails_for_a_minute_is_told_and_one_failure_is_not() -> None:
    gone = "phone: Forbidden: bot was blocked by the user"
    seconds = [
        at(second, channels_failing=gone if 10 <= second < 40 or 60 <= second < 150 else "") for second in range(180)
    ]
    assert told(OperationalWatch(), seconds) == [
        (120.0, f"alerts do not arrive: {gone}"),
        (155.0, "alerts do not arrive: back after 1 m 30 s"),
    ]


def test_start_and_end_name_when_the_trouble_began_and_have_keys_of_their_own() -> None:
    watch = OperationalWatch()
    start, end = [alert for snapshot in outage(30, 222, 600) for alert in watch.update(snapshot)]
    assert start.start_ms == end.start_ms == NOON_MS + 30_000
    assert (start.phase, start.duration_s, start.repaired_minutes, start.unknown_minutes) == (
        Phase.START,
        None,
        None,
        None,
    )
    assert (end.phase, end.duration_s, end.repaired_minutes, end.unknown_minutes) == (Phase.END, 192.0, 0, 0)
    assert start.key == f"exchange_unreachable:{NOON_MS + 30_000}:start"
    assert end.key == f"exchange_unreachable:{NOON_MS + 30_000}:end"
    assert msgspec.json.decode(msgspec.json.encode(end), type=OperationalAlert) == end


def test_the_end_waits_for_repairs_and_for_the_coverage() -> None:
    missing = {NOON_MS: 3, NOON_MS + MINUTE_MS: 800}
    watch = OperationalWatch()
    assert len(told(watch, outage(30, 90, 91))) == 1
    assert told(watch, (at(second, unknown_minutes=missing) for second in range(91, 250))) == []
    assert told(watch, (at(second, contracts_covered=400) for second in range(250, 260))) == []
    assert told(watch, [at(260, repaired_minutes=1)]) == [
        (260.0, "exchange unreachable: back after 1 m 0 s, 1 minute repaired, 0 unknown")
    ]


def test_minutes_that_were_missing_before_do_not_keep_an_end_waiting() -> None:
    long_missing = {NOON_MS - MINUTE_MS: 7}
    texts = told(OperationalWatch(), outage(30, 60, 300, unknown_minutes=long_missing))
    assert texts[-1] == (60.0 + SETTLE_S, "exchange unreachable: back after 30 s, 0 minutes repaired, 0 unknown")


def test_patience_with_repairs_has_an_end() -> None:
    missing = {NOON_MS + MINUTE_MS: 12}
    watch = OperationalWatch(Thresholds(repair_patience_s=120.0))
    assert told(watch, outage(30, 90, 400, unknown_minutes=missing))[1:] == [
        (210.0, "exchange unreachable: back after 1 m 0 s, 0 minutes repaired, 12 unknown")
    ]


def test_a_trouble_that_flickers_is_one_trouble() -> None:
    def flickering() -> Iterable[Snapshot]:
        for second in range(900):
            is_down = 100 <= second < 400 and second % 40 < 30
            yield at(second, connections_open=8 if is_down else 10)

    assert told(OperationalWatch(), flickering()) == [
        # The first ten seconds are forgotten when it comes back; from second 120 on it is down 30 of 40 seconds.
        (140.0, "connections lost: 2 of 10 down"),
        (390.0 + SETTLE_S, "connections lost: back after 4 m 30 s, 0 minutes repaired, 0 unknown"),
    ]


def test_a_connection_that_comes_back_soon_is_not_told() -> None:
    snapshots = (at(second, connections_open=9 if 100 <= second < 119 else 10) for second in range(300))
    assert told(OperationalWatch(), snapshots) == []


def test_what_an_outage_explains_is_not_told_as_well() -> None:
    def with_everything() -> Iterable[Snapshot]:
        for one in outage(30, 400, 900):
            is_down = one.silence_s > 0
            yield msgspec.structs.replace(one, breakers_open=("kline",) if is_down else ())

    assert [text.partition(":")[0] for _, text in told(OperationalWatch(), with_everything())] == [
        "exchange unreachable",
        "exchange unreachable",
    ]


def test_consequences_wait_while_it_is_unclear_whether_the_exchange_is_gone() -> None:
    watch = OperationalWatch(Thresholds(unreachable_after_s=120.0))
    assert told(watch, outage(30, 400, 401)) == [(150.0, "exchange unreachable: nothing heard for 120 s")]


def test_a_trouble_that_outlives_its_cause_is_told_after_it() -> None:
    def half_back() -> Iterable[Snapshot]:
        yield from outage(30, 90, 90)
        for second in range(90, 500):
            yield at(second, connections_open=5, contracts_covered=400)

    assert told(OperationalWatch(), half_back()) == [
        (45.0, "exchange unreachable: nothing heard for 15 s"),
        (390.0, "exchange unreachable: back after 1 m 0 s, 0 minutes repaired, 0 unknown"),
        (410.0, "connections lost: 5 of 10 down"),
    ]


def test_a_silent_connection_is_told_with_the_time_since_its_last_data() -> None:
    def silent() -> Iterable[Snapshot]:
        for second in range(400):
            is_mute = 110 <= second < 200
            yield at(second, connections_mute=int(is_mute), mute_s=second - 100.0 if is_mute else 0.0)

    assert told(OperationalWatch(), silent()) == [
        (125.0, "data delayed: 1 of 10 connections silent for up to 25 s"),
        (200.0 + SETTLE_S, "data delayed: back after 1 m 40 s, 0 minutes repaired, 0 unknown"),
    ]


def test_a_limit_is_told_once_also_when_it_is_tried_and_met_again() -> None:
    limited = {"subscription_limit": 30, "connection_limit": 8, "contracts_polled": 560}

    def tried_every_hour() -> Iterable[Snapshot]:
        for second in range(10_000):
            yield at(second, **(limited if second >= 10 and second % 3_600 >= 10 else {}))

    watch = OperationalWatch()
    assert told(watch, tried_every_hour()) == [
        (
            40.0,
            "subscription limit met: the exchange takes 30 subscriptions on a connection, not 95; "
            "it allows 8 connections, not 10; 560 contracts are read by REST instead",
        )
    ]
    assert told(watch, (at(second) for second in range(10_000, 12_000))) == [
        (10_900.0, "subscription limit met: back after 2 h 46 m")
    ]


def test_troubles_that_cost_no_minutes_end_without_counting_them() -> None:
    snapshots = (at(second, clock_offset_s=-2.5 if 10 <= second < 100 else 0.1) for second in range(400))
    assert told(OperationalWatch(), snapshots) == [
        (70.0, "clock drifts: ours is 2.5 s behind the exchange's; is time synchronisation running?"),
        (160.0, "clock drifts: back after 1 m 30 s"),
    ]


@pytest.mark.parametrize(
    ("numbers", "trouble", "text"),
    [
        ({"delay_s": 12.34}, Trouble.DELAY, "data is 12.3 s old when it is judged"),
        (
            {"contracts_covered": 759},
            Trouble.COVERAGE,
            "94.8 % of 800 contracts are known good, less than 95 %",
        ),
        (
            {"connections_open": 9, "connection_error": "ws-3: no answer within 10 s"},
            Trouble.CONNECTIONS,
            "1 of 10 down: ws-3: no answer within 10 s",
        ),
        (
            {"requests": 100, "request_errors": 20},
            Trouble.ERRORS,
            "20 of 100 REST requests of the last minute failed",
        ),
        (
            {"frames": 5_000, "bad_frames": 60, "breakers_open": ("kline", "ping")},
            Trouble.ERRORS,
            "REST fails repeatedly: kline, ping; 60 of 5000 frames of the last minute were unreadable",
        ),
        ({"clock_offset_s": 3.0}, Trouble.DRIFT, "ours is 3.0 s ahead of the exchange's"),
    ],
)
def test_what_is_wrong_is_said_with_its_numbers(numbers: dict[str, Any], trouble: Trouble, text: str) -> None:
    found = troubles(at(0, **numbers), Thresholds())
    assert list(found) == [trouble]
    assert found[trouble].text.startswith(text)


@pytest.mark.parametrize(
    "numbers",
    [
        {"contracts_watched": 0, "contracts_covered": 0, "connections": 0, "connections_open": 0},  # at the start
        {"contracts_covered": 760},
        {"requests": 9, "request_errors": 9},  # too few to make a rate
        {"frames": 99, "bad_frames": 99},
        {"exchange_ms": 0, "clock_offset_s": 100.0},  # nothing is known of the exchange's clock
        {"delay_s": 10.0, "silence_s": 14.9, "clock_offset_s": -2.0},
    ],
)
def test_what_is_not_wrong(numbers: dict[str, Any]) -> None:
    assert troubles(at(0, **numbers), Thresholds()) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 m 0 s"),
        (192.0, "3 m 12 s"),
        (3_599.9, "1 h 0 m"),
        (7_530.0, "2 h 5 m"),
        (100_000.0, "1 d 3 h"),
    ],
)
def test_durations_are_written_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


FLICKER = st.lists(
    st.tuples(
        st.integers(1, 200),  # seconds for which it stays so
        st.sampled_from(
            (
                {},
                {"silence_s": 20.0},
                {"connections_open": 3},
                {"connections_mute": 1, "mute_s": 30.0},
                {"contracts_covered": 10},
                {"subscription_limit": 20},
                {"breakers_open": ("kline",)},
                {"clock_offset_s": 9.0},
                {"silence_s": 20.0, "connections_open": 0, "contracts_covered": 0, "breakers_open": ("ping",)},
            )
        ),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(FLICKER)
def test_starts_and_ends_take_turns_whatever_happens(story: list[tuple[int, dict[str, Any]]]) -> None:
    watch, second = OperationalWatch(), 0
    alerts: list[OperationalAlert] = []
    for length, numbers in [*story, (1_000, {})]:
        for _ in range(length):
            alerts += watch.update(at(second, **numbers))
            second += 1
    assert watch.open() == {}
    for trouble in Trouble:
        phases = [alert.phase for alert in alerts if alert.trouble is trouble]
        assert phases == [Phase.START, Phase.END] * (len(phases) // 2)
    for alert in alerts:
        assert alert.start_ms <= alert.time_ms
        assert alert.duration_s is None or 0.0 <= alert.duration_s <= second
    assert len({alert.key for alert in alerts}) == len(alerts)
