"""Which contracts are watched."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from perpwatch.market.universe import UniverseFilter, choose, turnovers
from perpwatch.model import Contract, Ticker

NOW_MS = 1_791_201_600_000
BTC = Contract("BTC_USDT", "BTC", "USDT", "USDT", 0.0001)
ETH = Contract("ETH_USDT", "ETH", "USDT", "USDT", 0.01)
RIF = Contract("RIF_USDT", "RIF", "USDT", "USDT", 10.0)
COIN = Contract("BTC_USD", "BTC", "USD", "BTC", 100.0)
TICKERS = [
    Ticker("ETH_USDT", 4_000.0, contracts_24h=1.0, amount_24h=5_000_000.0),
    Ticker("BTC_USDT", 80_000.0, contracts_24h=2.0, amount_24h=9_000_000.0),
    Ticker("BTC_USD", 80_000.0, contracts_24h=2_000.0, amount_24h=2.5),
    Ticker("GONE_USDT", 1.0, amount_24h=1e12),
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
