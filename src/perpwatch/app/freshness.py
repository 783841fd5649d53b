"""How old the data of each symbol is, whichever path it came by, and why some symbols live on REST.

The age of a symbol is the time since the last moment up to which everything about it is known: by a stream, what its
connection has delivered; by REST, what was read or what the whole-market ticker has proven quiet.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from perpwatch.app.engine import Engine
from perpwatch.app.slices import Slices, at_once
from perpwatch.feed.live import LiveFeed
from perpwatch.feed.sweep import ACTIVE_MS, HOT, Ages, ages_of
from perpwatch.model import MINUTE_MS

#: Symbols that are measured without a pause; a millisecond.
SLICE = 250


class Watch(Protocol):
    """What is looked at: a bot."""

    engine: Engine
    feed: LiveFeed


class Freshness(msgspec.Struct, frozen=True):
    """Ages of the data of all watched symbols, of those that traded lately, and of the most active of them."""

    all: Ages
    active: Ages  # traded within the last ten minutes
    hot: Ages  # the 100 of them with the largest turnover


def ages_ms(watch: Watch) -> dict[str, int]:
    """The age of the data of each watched symbol, in ms; one that nothing is known of is left out."""
    return at_once(measure_ages(watch))


def measure_ages(watch: Watch) -> Slices[dict[str, int]]:
    """As :func:`ages_ms`, in slices."""
    engine, feed = watch.engine, watch.feed
    if not feed.exchange_clock.is_set:
        return {}
    now_ms = feed.now_ms()
    by_rest = feed.sweep.ages_ms(now_ms)
    ages = {}
    for place, (symbol, series) in enumerate(list(engine.book.series.items()), 1):
        known_ms = engine.book.known_until_ms(series)
        if known_ms or symbol in by_rest:
            by_stream = now_ms - known_ms if known_ms else by_rest[symbol]
            ages[symbol] = max(0, min(by_stream, by_rest.get(symbol, by_stream)))
        if place % SLICE == 0:
            yield
    return ages


def freshness_of(watch: Watch) -> Freshness:
    """The ages at this moment."""
    return at_once(measure_freshness(watch))


def measure_freshness(watch: Watch) -> Slices[Freshness]:
    """As :func:`freshness_of`, in slices."""
    ages = yield from measure_ages(watch)
    series, since_ms = watch.engine.book.series, watch.engine.now_ms - ACTIVE_MS
    turnover: dict[str, float] = {}
    activity: dict[str, float] = {}
    for place, symbol in enumerate(ages, 1):
        minutes = series[symbol].minutes if symbol in series else None
        lately = minutes.column("turnover", minutes.place(since_ms - MINUTE_MS + 1)) if minutes is not None else ()
        turnover[symbol] = sum(lately)
        told = watch.feed.sweep.activity(symbol)
        activity[symbol] = told if told is not None else turnover[symbol] / ACTIVE_MS * 1_000
        if place % SLICE == 0:
            yield
    active = sorted((symbol for symbol in ages if turnover[symbol]), key=lambda symbol: (-activity[symbol], symbol))
    return Freshness(
        ages_of(ages.values()),
        ages_of(ages[symbol] for symbol in active),
        ages_of(ages[symbol] for symbol in active[:HOT]),
    )


def polled_by_reason(feed: LiveFeed) -> dict[str, int]:
    """How many symbols REST reads because there is no room for a stream, because it is down, or refused."""
    without_room, down = len(feed.service.polled), len(feed.taken_over)
    return {"no_room": without_room, "taken_over": down, "refused": len(feed.polled) - down - without_room}


def served_by_rest(watch: Watch) -> dict[str, int]:
    """How many symbols REST reads, by reason in words; reasons that do not occur are left out."""
    no_room = "no room on the sockets" if watch.feed.uses_websocket else "no sockets are used"
    words = {"no_room": no_room, "taken_over": "stream is down", "refused": "stream is refused"}
    return {words[reason]: count for reason, count in polled_by_reason(watch.feed).items() if count}


def ages_text(ages: Ages) -> str:
    """Ages in a few words."""
    return f"{ages.median_s:.0f} s median, {ages.p95_s:.0f} s p95, {ages.worst_s:.0f} s worst"


def status_text(watch: Watch) -> str:
    """Who is read by REST, and how old the data is, as a part of a status line."""
    by_rest = [f"{count} read by REST ({reason})" for reason, count in served_by_rest(watch).items()]
    return ", ".join([*by_rest, f"data {ages_text(ages_of(ages_ms(watch).values()))}"])
