"""``perpwatch db``: what is in the store, bringing it up to date, and whether it is sound."""

from __future__ import annotations

import datetime
import enum
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perpwatch.app.config import file_in_use, load_config
from perpwatch.app.printing import console, print_json
from perpwatch.app.store_config import StoreConfig
from perpwatch.errors import StoreError
from perpwatch.store import Database
from perpwatch.store.maintenance import Contents, Findings, check, contents

db_app = typer.Typer(help="Look at what is kept.", no_args_is_help=True)

#: Symbols named for each kind of finding; the rest is counted.
NAMED_SYMBOLS = 10


class Format(enum.StrEnum):
    TABLE = "table"
    JSON = "json"


ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="TOML; default: perpwatch.toml, if any.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="Another database than the configured one.")]
FormatOption = Annotated[Format, typer.Option("--format")]


@db_app.command("info")
def db_info(config: ConfigOption = None, url: UrlOption = None, format: FormatOption = Format.TABLE) -> None:
    """Say where the store is, how large, and what is in it."""
    with _opened(config, url, migrate=False) as database:
        found = contents(database)
    if format is Format.JSON:
        print_json(found)
    else:
        _print_contents(found)


@db_app.command("migrate")
def db_migrate(config: ConfigOption = None, url: UrlOption = None) -> None:
    """Make the store, or bring it up to date."""
    with _opened(config, url, migrate=True) as database:
        _stdout().print(f"{database.name} has schema {database.revision()}")


@db_app.command("check")
def db_check(config: ConfigOption = None, url: UrlOption = None, format: FormatOption = Format.TABLE) -> None:
    """Look at every page and every minute; exit code 1 when something is wrong.

    Gaps, minutes about which nobody knows anything, are told and are no fault of the store.
    """
    with _opened(config, url, migrate=False) as database:
        findings = check(database)
    if format is Format.JSON:
        print_json(findings)
    else:
        _print_findings(findings)
    if not findings.is_clean:
        raise typer.Exit(1)


@contextmanager
def _opened(config_file: Path | None, url: str | None, *, migrate: bool) -> Iterator[Database]:
    """The store; what is wrong with it is one line and exit code 1."""
    try:
        database = Database.open(_address(config_file, url), migrate=migrate)
        try:
            yield database
        finally:
            database.close()
    except StoreError as error:
        console.print(f"[bold red]store:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error


def _address(config_file: Path | None, url: str | None) -> str:
    if url is not None:
        return url
    config = load_config(config_file)
    store: StoreConfig = getattr(config, "store", StoreConfig())
    return store.address(file_in_use(config_file))


# --- Printing ------------------------------------------------------------------------------------------------------


def _print_contents(found: Contents) -> None:
    out = _stdout()
    out.print(f"{found.name}: schema {found.revision}, {found.bytes / 1e6:,.1f} MB")
    tables = Table(box=None, header_style="bold")
    tables.add_column("table")
    tables.add_column("rows", justify="right")
    for name, rows in found.rows.items():
        tables.add_row(name, f"{rows:,}")
    out.print(tables)
    if found.candles:
        candles = Table(box=None, header_style="bold")
        for column in ("candles", "rows", "first", "last"):
            candles.add_column(column, justify="left" if column == "candles" else "right")
        for one in found.candles:
            candles.add_row(one.timeframe.value, f"{one.rows:,}", _utc(one.first_ms), _utc(one.last_ms))
        out.print(candles)


def _print_findings(findings: Findings) -> None:
    out = _stdout()
    for problem in findings.problems:
        out.print(f"[red]{problem}[/red]")
    for counter, text in (
        (findings.lost, "minutes are known to the ledger and have no candle"),
        (findings.unledgered, "candles are not known to the ledger"),
        (findings.gaps, "minutes are unknown"),
    ):
        if counter:
            out.print(f"{counter.total():,} {text}: {_most(counter)}")
    known = findings.minutes - findings.gaps.total()
    share = f" ({known / findings.minutes:.3%})" if findings.minutes else ""
    out.print(f"{known:,} of {findings.minutes:,} minutes are known{share}")
    out.print("the store is sound" if findings.is_clean else "[red]the store is not sound[/red]")


def _most(counter: Counter[str]) -> str:
    named = [f"{symbol} {count:,}" for symbol, count in counter.most_common(NAMED_SYMBOLS)]
    if len(counter) > NAMED_SYMBOLS:
        named.append(f"and {len(counter) - NAMED_SYMBOLS} more symbols")
    return ", ".join(named)


def _utc(time_ms: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time_ms / 1_000, datetime.UTC):%Y-%m-%d %H:%M}"


def _stdout() -> Console:
    """Standard output for people; wide where it is no terminal, so that a pipe does not fold lines."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
