"""In how many minutes of the last hour a contract traded."""

from __future__ import annotations

import random

from perpwatch.market.activity import Activity
from perpwatch.market.referee import Referee
from perpwatch.model import MINUTE_MS, Ticker, Tickers

T0_MS = 1_791_201_600_000


def frame(minute: float, **volumes: float) -> Tickers:
    rows = [Ticker(symbol=symbol, last_price=1.0, contracts_24h=volume) for symbol, volume in volumes.items()]
    return Tickers(rows, T0_MS + int(minute * MINUTE_MS))


def test_minutes_in_which_the_volume_rose_are_counted_once_each() -> None:
    activity = Activity()
    activity.hear(frame(0, A=100.0, B=100.0, C=100.0))
    for minute in range(1, 61):
        # A trades twice in every second minute, B only loses what a day ago was traded, C says nothing at all.
        traded = minute // 2
        activity.hear(frame(minute, A=100.0 + traded, B=100.0 - minute))
        activity.hear(frame(minute + 0.5, A=100.5 + traded, B=99.9 - minute))
    shares = activity.shares()
    assert shares["B"] == shares["C"] == 0.0
    assert shares["A"] == 1.0
    assert activity.shares()["A"] == 1.0
    activity.hear(frame(90.5, D=1.0))
    assert activity.shares()["A"] == 30 / 60


def test_nothing_is_said_before_a_whole_hour_or_after_an_interruption() -> None:
    activity = Activity()
    for minute in range(60):
        activity.hear(frame(minute, A=100.0 + minute))
    assert activity.shares() == {}
    activity.hear(frame(60, A=200.0))
    assert activity.shares() == {"A": 1.0}
    activity.lose()
    activity.hear(frame(61, A=300.0))
    assert activity.shares() == {}


def test_an_older_frame_changes_nothing() -> None:
    activity = Activity()
    activity.hear(frame(5, A=100.0))
    activity.hear(frame(4, A=50.0))
    activity.hear(frame(65, A=100.0))
    assert activity.shares() == {"A": 0.0}


def test_what_the_referee_heard_says_the_same_as_the_frames() -> None:
    chance, referee = random.Random(1), Referee()
    by_frames, by_ear = Activity(), Activity()
    volumes = dict.fromkeys("ABCDE", 100.0)
    for number in range(400):
        minute = number / 4
        if number == 150:
            for one in (by_frames, by_ear, referee):
                one.lose()
        rows = {symbol: volume for symbol, volume in volumes.items() if chance.random() < 0.6}
        tickers = frame(minute, **rows)
        by_frames.hear(tickers)
        by_ear.note(referee.hear(tickers), tickers.event_time_ms)
        assert by_ear.shares() == by_frames.shares()
        for place, symbol in enumerate(volumes):
            if chance.random() < 0.02 * 4**place:
                volumes[symbol] += chance.choice((-1.0, 1.0))
    assert 0.0 < by_ear.shares()["A"] < by_ear.shares()["E"]


def test_nothing_the_referee_heard_is_said_after_an_interruption() -> None:
    referee, activity = Referee(), Activity()
    for minute in range(3):
        tickers = frame(minute, A=100.0 + minute)
        activity.note(referee.hear(tickers), tickers.event_time_ms)
    activity.lose()
    for minute in range(3, 64):
        activity.hear(frame(minute, B=1.0))
    assert activity.shares() == {"B": 0.0}
