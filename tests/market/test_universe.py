"""Which contracts are watched."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from perpwatch.market.universe import UniverseFilter, choose, turnovers
from perpwatch.model import AssetClass, Contract, Ticker

NOW_MS = 1_791_201_600_000
BTC = Contract("BTC_USDT", "BTC", "USDT", "USDT", 0.0001)
ETH = Contract("ETH_USDT", "ETH", "USDT", "USDT", 0.01)
RIF = Contract("RIF_USDT", "RIF", "USDT", "USDT", 10.0)
COIN = Contract("BTC_USD", "BTC", "USD", "BTC", 100.0)
TICKERS = [
    Ticker(symbol="ETH_USDT", last_price=4_000.0, contracts_24h=1.0, amount_24h=5_000_000.0),
    Ticker(symbol="BTC_USDT", last_price=80_000.0, contracts_24h=2.0, amount_24h=9_000_000.0),
    Ticker(symbol="BTC_USD", last_price=80_000.0, contracts_24h=2_000.0, amount_24h=2.5),
    Ticker(symbol="GONE_USDT", last_price=1.0, amount_24h=1e12),
]


def verdicts(contracts: list[Contract], wanted: UniverseFilter) -> list[tuple[str, str]]:
    return [(member.contract.symbol, member.reason) for member in choose(contracts, TICKERS, wanted, NOW_MS)]


def test_the_most_traded_come_first_and_an_untraded_one_is_not_gone() -> None:
    assert verdicts([RIF, ETH, BTC], UniverseFilter()) == [("BTC_USDT", ""), ("ETH_USDT", ""), ("RIF_USDT", "")]


def test_turnover_is_in_quote_coin_also_where_amounts_are_not() -> None:
    assert turnovers([BTC, COIN, RIF], TICKERS) == {"BTC_USDT": 9e6, "BTC_USD": 200_000.0, "RIF_USDT": 0.0}


@pytest.mark.parametrize(
    ("contract", "wanted", "reason"),
    [
        (COIN, UniverseFilter(), "quoted in USD, not USDT"),
        (COIN, UniverseFilter(quote=""), ""),
        (replace(BTC, is_trading=False), UniverseFilter(), "not trading"),
        (replace(BTC, is_hidden=True), UniverseFilter(), "hidden by the exchange"),
        (replace(BTC, opening_time_ms=NOW_MS + 1), UniverseFilter(), "trading has not begun"),
        (replace(BTC, opening_time_ms=NOW_MS), UniverseFilter(), ""),
        (BTC, UniverseFilter(include=["ETH_*"]), "matches no include pattern"),
        (BTC, UniverseFilter(include=["B*"], exclude=["*TC_USDT"]), "excluded by *TC_USDT"),
        (BTC, UniverseFilter(include=["btc_*"]), "matches no include pattern"),
    ],
)
def test_a_contract_that_is_left_out_says_why(contract: Contract, wanted: UniverseFilter, reason: str) -> None:
    assert verdicts([contract], wanted) == [(contract.symbol, reason)]


def test_a_limit_counts_only_those_that_would_be_watched() -> None:
    wanted = UniverseFilter(exclude=["BTC_*"], limit=1)
    assert verdicts([BTC, ETH, RIF], wanted) == [
        ("BTC_USDT", "excluded by BTC_*"),
        ("ETH_USDT", ""),
        ("RIF_USDT", "not among the 1 most traded"),
    ]


def watch(
    contracts: list[Contract], wanted: UniverseFilter, before: list[str], turnover: dict[str, float]
) -> list[str]:
    tickers = [Ticker(symbol=symbol, last_price=1.0, amount_24h=amount) for symbol, amount in turnover.items()]
    return [one.contract.symbol for one in choose(contracts, tickers, wanted, NOW_MS, before) if one.is_watched]


def test_a_contract_at_the_edge_of_a_turnover_does_not_come_and_go() -> None:
    wanted = UniverseFilter(minimum_turnover_24h=1_000.0)
    watched: list[str] = []
    seen = []
    for turnover in (999.0, 1_000.0, 990.0, 1_010.0, 801.0, 799.0, 900.0):
        watched = watch([ETH], wanted, watched, {"ETH_USDT": turnover})
        seen.append(bool(watched))
    assert seen == [False, True, True, True, True, False, False]


def test_the_last_place_is_lost_only_to_one_who_trades_a_quarter_more() -> None:
    wanted = UniverseFilter(limit=1)
    assert watch([ETH, RIF], wanted, ["RIF_USDT"], {"ETH_USDT": 120.0, "RIF_USDT": 100.0}) == ["RIF_USDT"]
    assert watch([ETH, RIF], wanted, ["RIF_USDT"], {"ETH_USDT": 126.0, "RIF_USDT": 100.0}) == ["ETH_USDT"]
    assert watch([ETH, RIF], wanted, [], {"ETH_USDT": 120.0, "RIF_USDT": 100.0}) == ["ETH_USDT"]


def test_a_pin_is_first_and_in_whatever_the_filters_say_while_it_trades() -> None:
    wanted = UniverseFilter(minimum_turnover_24h=6e6, limit=2, pins=["RIF_USDT"])
    members = choose([BTC, ETH, RIF], TICKERS, wanted, NOW_MS)
    assert [(one.contract.symbol, one.is_watched) for one in members] == [
        ("RIF_USDT", True),
        ("BTC_USDT", True),
        ("ETH_USDT", False),
    ]
    assert members[0].explanation == "in: pinned, rank 3 with 0 in 24 h (dust)"
    assert members[2].explanation == "out: traded 5,000,000 in 24 h, 6,000,000 are asked for"
    [paused] = choose([replace(RIF, is_trading=False)], TICKERS, wanted, NOW_MS)
    assert paused.reason == "not trading"


GOLD = replace(RIF, symbol="GOLD_USDT", asset_class=AssetClass.METAL, opening_time_ms=NOW_MS - 2 * 86_400_000)


@pytest.mark.parametrize(
    ("wanted", "activity", "reason"),
    [
        (UniverseFilter(classes=[AssetClass.COIN, AssetClass.FX]), {}, "of class metal, not coin or fx"),
        (UniverseFilter(exclude_classes=[AssetClass.METAL]), {}, "of class metal, which is excluded"),
        (UniverseFilter(minimum_age_days=3), {}, "listed 2.0 days ago, 3 are asked for"),
        (UniverseFilter(minimum_age_days=2), {}, ""),
        (UniverseFilter(minimum_activity=0.5), {}, ""),  # not known yet
        (
            UniverseFilter(minimum_activity=0.5),
            {"GOLD_USDT": 0.25},
            "traded in 25% of the last hour's minutes, 50% are asked for",
        ),
        (UniverseFilter(minimum_activity=0.5), {"GOLD_USDT": 0.5}, ""),
    ],
)
def test_class_age_and_activity_decide_with_their_numbers(
    wanted: UniverseFilter, activity: dict[str, float], reason: str
) -> None:
    [member] = choose([GOLD], [], wanted, NOW_MS, (), activity)
    assert member.reason == reason


def test_who_stays_only_because_it_was_there_is_said_to_be_on_the_edge() -> None:
    wanted = UniverseFilter(minimum_turnover_24h=5.5e6)
    [member] = choose([ETH], TICKERS, wanted, NOW_MS, ["ETH_USDT"])
    assert member.explanation == (
        "in: rank 1 with 5,000,000 in 24 h (liquid), on the edge, and stays because it was watched before"
    )
