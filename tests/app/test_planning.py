"""The plan, explained: what it counts is what it would do."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from perpwatch.app.config import Config
from perpwatch.app.planning import PlannedWish, PlanReport, made_up_turnover, plan_report, print_plan


def report(count: int, **websocket: object) -> PlanReport:
    return plan_report(Config().with_overrides({"websocket": websocket}), made_up_turnover(count))


def wish(of: PlanReport, name: str) -> PlannedWish:
    return next(wish for wish in of.wishes if wish.name == name)


@pytest.mark.parametrize("count", [1, 94, 750, 949, 1061, 3000])
def test_every_symbol_of_every_wish_is_served_in_exactly_one_way(count: int) -> None:
    for one in report(count, subscription_types=["ticker", "deals", "kline_Min1", "kline_Min60"]).wishes:
        assert one.streamed + one.market_wide + one.derived + one.polled + one.unserved == count


@pytest.mark.parametrize("count", [1, 94, 750, 1061, 3000])
def test_no_limit_is_exceeded_and_no_stream_is_planned_twice(count: int) -> None:
    planned = report(count)
    streams = [stream for connection in planned.connections for stream in connection.streams]
    assert len(planned.connections) <= planned.max_connections == 10
    assert max(len(connection.streams) for connection in planned.connections) <= 95
    assert len(streams) == len(set(streams))
    assert streams.count("tickers") == 1
    candles = sum(stream.startswith("kline_Min1:") for stream in streams)
    assert candles == wish(planned, "kline_Min1").streamed
    assert candles + len(planned.polled) == count


def test_750_symbols_with_all_wishes_fit_on_8_connections() -> None:
    planned = report(750)
    assert len(planned.connections) == 8
    assert planned.polled == []
    assert wish(planned, "ticker").market_wide == 750
    assert wish(planned, "kline_Min1").streamed == 750
    assert [wish(planned, f"kline_{name}").derived for name in ("Min5", "Min15", "Min60")] == [750] * 3


def test_the_least_traded_are_read_by_rest_when_the_sockets_are_full_and_it_is_said() -> None:
    planned = report(1061)
    polled = wish(planned, "kline_Min1").polled
    assert polled == len(planned.polled) > 0
    turnover = made_up_turnover(1061)
    assert max(turnover[symbol] for symbol in planned.polled) < min(
        turnover[symbol] for symbol in turnover if symbol not in planned.polled
    )
    assert f"room for {1061 - polled} symbols" in wish(planned, "kline_Min1").why


def test_trades_take_the_room_that_candles_leave() -> None:
    trades = wish(report(750, subscription_types=["kline_Min1", "deals"]), "deals")
    assert 0 < trades.streamed < 200
    assert f"for {trades.unserved} the budget is spent" in trades.why


def test_connections_carry_about_the_same_number_of_messages() -> None:
    rates = [connection.expected_rate for connection in report(750).connections]
    assert max(rates) < 2 * min(rates)


def test_without_sockets_everything_is_polled() -> None:
    planned = plan_report(Config().with_overrides({"mode": "rest"}), made_up_turnover(100))
    assert planned.connections == []
    assert len(planned.polled) == 100
    assert wish(planned, "kline_Min1").polled == 100


def test_more_is_never_planned_than_a_connection_may_carry() -> None:
    planned = report(200, max_subscriptions_per_connection=50)
    assert planned.planned_subscriptions_per_connection == 50


def test_made_up_turnover_is_as_unequal_as_a_market() -> None:
    turnover = list(made_up_turnover(800).values())
    assert turnover == sorted(turnover, reverse=True)
    assert sum(turnover[:10]) > 0.5 * sum(turnover)


def test_the_plan_for_people_names_wishes_connections_and_what_is_polled() -> None:
    console = Console(file=StringIO(), width=160, color_system=None)
    print_plan(report(1061), console)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    for words in ("1061 symbols", "kline_Min60", "10 of 10 connections", "ws-10", "Read by REST (", "COIN1061_USDT"):
        assert words in text
