"""``perpwatch plan``, ``symbols`` and ``candles``: what the exchange has, and what would be asked of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import msgspec
import typer

from perpwatch.app.config import Config, load_config
from perpwatch.app.configured import adapter_for, universe_filter
from perpwatch.app.log import set_up_logging
from perpwatch.app.planning import LivePlan, PlanReport, made_up_turnover, plan_report, print_live_plan, print_plan
from perpwatch.app.printing import (
    ConfigOption,
    Format,
    FormatOption,
    print_json,
    print_line,
    print_rows,
    stdout,
)
from perpwatch.errors import ApiError, ConfigurationError, ExchangeError
from perpwatch.exchanges.adapter import Adapter
from perpwatch.feed.connection import SystemClock
from perpwatch.feed.rest import Priority, RestClient, http_over_network
from perpwatch.market.universe import Member, choose
from perpwatch.model import Candle, Finality, Timeframe


def plan(
    config: ConfigOption = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Plan for so many made-up contracts instead of asking the exchange.")
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Ask the running watch what its connections carry, and what it would move."),
    ] = False,
    address: Annotated[
        str | None, typer.Option("--at", help="Where it serves its health; that of the settings by default.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Print the subscription plan: which stream goes where, and what is not streamed and why."""
    settings = load_config(config)
    if live or address is not None:
        address = address or f"http://{settings.health.host}:{settings.health.port}"
        live_plan = asyncio.run(_ask_live_plan(address.rstrip("/")))
        _print(live_plan, format, lambda: print_live_plan(live_plan, stdout()))
        return
    turnover = made_up_turnover(count) if count is not None else asyncio.run(_ask_turnover(settings))
    report = plan_report(settings, turnover)
    _print(report, format, lambda: print_plan(report, stdout()))


def _print(plan: PlanReport | LivePlan, format: Format, print_tables: Callable[[], None]) -> None:
    match format:
        case Format.TABLE:
            print_tables()
        case Format.JSON:
            print_json(plan)
        case Format.JSONL:
            print_line(plan)
        case Format.CSV:
            print_rows(plan.connections, format)


async def _ask_live_plan(address: str) -> LivePlan:
    async with http_over_network() as get:
        try:
            async with asyncio.timeout(10.0):
                answer = await get(f"{address}/plan", {})
            return msgspec.json.decode(answer.body, type=LivePlan)
        except (ExchangeError, TimeoutError) as error:
            expected = "the address of a running watch; it says where it serves its health when it starts"
            raise ConfigurationError("--at", address, expected) from error
        except msgspec.MsgspecError as error:
            expected = "the address of a running watch of this version; something else answers there"
            raise ConfigurationError("--at", address, expected) from error


def symbols(
    config: ConfigOption = None,
    format: FormatOption = Format.TABLE,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say for each why it is watched or not, with the numbers that decided.")
    ] = False,
) -> None:
    """List the exchange's contracts, pins first, then the most traded, and whether each is watched.

    What a running watch keeps because it watched it before, and how active contracts are, only that watch knows.
    """
    settings = load_config(config)

    async def ask() -> list[Member]:
        async with _rest(settings) as (rest, adapter):
            contracts = await rest.fetch(adapter.contracts(), Priority.CONTROL)
            tickers = await rest.fetch(adapter.tickers(), Priority.CONTROL)
            now_ms = await rest.fetch(adapter.server_time(), Priority.CONTROL)
            return choose(contracts, tickers, universe_filter(settings), now_ms)

    rows = [
        msgspec.structs.asdict(member.contract)
        | {
            "turnover_24h": member.turnover_24h,
            "tier": member.tier,
            "rank": member.rank,
            "age_days": member.age_days,
            "is_pinned": member.is_pinned,
            "is_watched": member.is_watched,
            "reason": member.reason,
            "explanation": member.explanation,
        }
        for member in asyncio.run(ask())
    ]
    last = ("explanation",) if explain else ("contract_size", "settle_coin", "is_watched", "reason")
    columns = ("symbol", "asset_class", "tier", "turnover_24h", *last)
    print_rows(rows, format, columns)


def candles(
    symbol: Annotated[str, typer.Argument(help="For example BTC_USDT.")],
    config: ConfigOption = None,
    timeframe: Annotated[Timeframe, typer.Option(help="Length of a candle.")] = Timeframe.Min1,
    limit: Annotated[int, typer.Option(min=1, max=2_000, help="So many of the newest.")] = 20,
    format: FormatOption = Format.TABLE,
) -> None:
    """Print the newest candles of a contract, as the exchange has them; the last one is still open."""
    settings = load_config(config)

    async def ask() -> list[Candle]:
        async with _rest(settings) as (rest, adapter):
            try:
                contract = await rest.fetch(adapter.contract(symbol.upper()), Priority.CONTROL)
            except ApiError as error:
                raise ExchangeError(f"{symbol.upper()}: {error}; `perpwatch symbols` lists what there is") from error
            now_ms = await rest.fetch(adapter.server_time(), Priority.CONTROL)
            # All that one request can bring: the exchange may leave out candles without trades.
            start_ms = max(0, now_ms - adapter.limits.max_candles_per_request * timeframe.milliseconds)
            history = await rest.fetch(adapter.candles(contract, timeframe, start_ms, now_ms), Priority.CONTROL)
            newest = list(history.candles)[-limit:]
            return [_open_if_running(candle, now_ms) for candle in newest]

    columns = ("open_time_ms", "open", "high", "low", "close", "contracts", "base_volume", "turnover", "finality")
    print_rows([msgspec.to_builtins(candle) for candle in asyncio.run(ask())], format, columns)


def _open_if_running(candle: Candle, now_ms: int) -> Candle:
    return msgspec.structs.replace(candle, finality=Finality.OPEN) if candle.close_time_ms > now_ms else candle


@contextlib.asynccontextmanager
async def _rest(config: Config) -> AsyncIterator[tuple[RestClient, Adapter]]:
    set_up_logging(config.logging)
    adapter = adapter_for(config)
    async with http_over_network(proxy=config.network.proxy) as get:
        yield RestClient(adapter.rest_url, get, SystemClock(), adapter.limits.requests_per_second), adapter


async def _ask_turnover(config: Config) -> dict[str, float]:
    async with _rest(config) as (rest, adapter):
        contracts = await rest.fetch(adapter.contracts(), Priority.CONTROL)
        tickers = await rest.fetch(adapter.tickers(), Priority.CONTROL)
        now_ms = await rest.fetch(adapter.server_time(), Priority.CONTROL)
    members = choose(contracts, tickers, universe_filter(config), now_ms)
    return {member.contract.symbol: member.turnover_24h for member in members if member.is_watched}
