"""Filters, quiet hours and allowances of channels."""

from __future__ import annotations

import datetime
import zoneinfo

import pytest
from msgspec.structs import replace

from perpwatch.alert.notice import Notice, NoticeKind
from perpwatch.alert.policy import Alert, MarketAlert
from perpwatch.alert.routing import Allowance, QuietHours, Route
from perpwatch.model import AssetClass, Direction, Level, Signal, Timeframe, Trust

SIGNAL = Signal(
    detector="rarity",
    symbol="BTC_USDT",
    timeframe=Timeframe.Min1,
    open_time_ms=0,
    direction=Direction.UP,
    level=Level.STRONG,
    price=1.0,
    strength=20.0,
    is_running=False,
    trust=Trust.STREAMED,
    reasons=(),
    event_time_ms=60_000,
    received_time_ns=0,
)
ALERT = Notice(
    key="a:1",
    thread="a:1",
    kind=NoticeKind.ALERT,
    time_ms=60_000,
    level=Level.STRONG,
    rule="default",
    symbol="BTC_USDT",
    asset_class=AssetClass.COIN,
)
CROWD = replace(
    ALERT,
    kind=NoticeKind.MARKET,
    symbol="",
    asset_class=None,
    market=MarketAlert(
        "m:1",
        0,
        0,
        tuple(Alert(symbol, replace(SIGNAL, symbol=symbol), 0, 0, 0, 2.0, 1e-4) for symbol in ("ETH_USDT", "SOL_USDT")),
        800,
        1e-4,
    ),
)


@pytest.mark.parametrize(
    ("route", "refusal"),
    [
        (Route(), ""),
        (Route(kinds=frozenset({NoticeKind.OPERATIONAL})), "it takes no alert notices"),
        (Route(rules=("volume*",)), "the rule default is none of volume*"),
        (Route(rules=("volume*", "def*")), ""),
        (Route(level=Level.EXTREME), "its level strong is below extreme"),
        (Route(level=Level.STRONG), ""),
        (Route(classes=frozenset({AssetClass.STOCK, AssetClass.METAL})), "it is about none of metal, stock"),
        (Route(classes=frozenset({AssetClass.COIN})), ""),
        (Route(symbols=("ETH_*", "SOL_*")), "the symbol is none of ETH_*, SOL_*"),
        (Route(symbols=("B?C_*",)), ""),
        (Route(pinned_only=True), "it is about no pinned symbol"),
    ],
)
def test_a_channel_says_why_a_notice_is_not_for_it(route: Route, refusal: str) -> None:
    assert route.refusal(ALERT) == refusal


def test_a_crowd_is_for_whoever_wants_one_of_its_symbols() -> None:
    assert Route(symbols=("SOL_*",)).refusal(CROWD) == ""
    assert Route(symbols=("BTC_*",)).refusal(CROWD) == "the symbol is none of BTC_*"
    assert Route(classes=frozenset({AssetClass.STOCK})).refusal(CROWD) == ""


def test_filters_of_the_market_do_not_hold_back_what_is_about_the_watch_and_nothing_holds_back_a_test() -> None:
    strict = Route(rules=("x",), level=Level.EXTREME, symbols=("X",), pinned_only=True)
    operational = replace(ALERT, kind=NoticeKind.OPERATIONAL, symbol="", rule="", level=Level.NOTICE)
    assert strict.refusal(operational) == ""
    assert Route(kinds=frozenset()).refusal(replace(ALERT, kind=NoticeKind.TEST)) == ""


def local(text: str, zone: str = "Europe/Berlin") -> int:
    when = datetime.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone))
    return round(when.timestamp() * 1_000)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-11-24T22:59:59", None),
        ("2026-11-24T23:00:00", "2026-11-25T07:00:00"),
        ("2026-11-25T00:00:00", "2026-11-25T07:00:00"),
        ("2026-11-25T06:59:59", "2026-11-25T07:00:00"),
        ("2026-11-25T07:00:00", None),
        # The night in which clocks are put forward is an hour shorter, and ends at seven all the same.
        ("2026-03-28T23:30:00", "2026-03-29T07:00:00"),
    ],
)
def test_quiet_hours_end_by_the_local_clock(now: str, end: str | None) -> None:
    hours = QuietHours.parse("23:00-07:00", "Europe/Berlin")
    assert hours.end_ms(local(now)) == (local(end) if end is not None else None)


def test_quiet_hours_may_lie_within_a_day() -> None:
    hours = QuietHours.parse("9:30 - 17:00")
    assert hours.end_ms(local("2026-11-25T12:00:00", "UTC")) == local("2026-11-25T17:00:00", "UTC")
    assert hours.end_ms(local("2026-11-25T18:00:00", "UTC")) is None


@pytest.mark.parametrize("text", ["", "23-07", "24:00-07:00", "23:60-07:00", "07:00-07:00", "23:00-07:00 CET"])
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"give hours like|same time"):
        QuietHours.parse(text)


def test_an_allowance_counts_the_last_hour_and_the_last_day() -> None:
    allowance = Allowance(per_hour=2, per_day=3)
    minute = 60_000
    for now_ms in (0, minute):
        assert allowance.refusal(now_ms) == ""
        allowance.spend(now_ms)
    assert allowance.refusal(2 * minute) == "over the channel's budget: 2 of 2 alerts in the last hour"
    assert allowance.refusal(60 * minute) == ""  # the first one is an hour old
    allowance.spend(60 * minute)
    assert allowance.refusal(200 * minute) == "over the channel's budget: 3 of 3 alerts in the last day"
    assert allowance.refusal(1_440 * minute) == ""
    allowance.per_hour = allowance.per_day = None
    assert allowance.refusal(200 * minute) == ""
