"""How commands print: tables for people, JSON and CSV for machines, and the options that choose."""

from __future__ import annotations

import csv
import datetime
import enum
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

#: For people. Machines read standard output.
console = Console(stderr=True, highlight=False)


class Format(enum.StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; perpwatch.toml in this folder when there is one.")
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="table is for people; json, jsonl (one object a line) and csv for machines.")
]


def stdout() -> Console:
    """Standard output for people; wide where it is no terminal, so that a pipe does not fold lines."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def print_json(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def print_line(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")


#: Columns of words, which are read from the left.
_LEFT = ("symbol", "asset_class", "tier", "reason", "explanation")


def print_rows(rows: Sequence[Any], format: Format, columns: Sequence[str] | None = None) -> None:
    """Print rows in one of the formats; a table shows ``columns`` only, machines get everything."""
    mappings: list[dict[str, Any]] = [msgspec.to_builtins(row) for row in rows]
    match format:
        case Format.JSON:
            print_json(mappings)
        case Format.JSONL:
            for row in mappings:
                print_line(row)
        case Format.CSV:
            names = list(mappings[0]) if mappings else list(columns or ())
            writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
            writer.writeheader()
            for row in mappings:
                writer.writerow(
                    {name: " ".join(value) if isinstance(value, list) else value for name, value in row.items()}
                )
        case Format.TABLE:
            table = Table(box=None, header_style="bold")
            shown = columns or list(mappings[0] if mappings else ())
            for column in shown:
                table.add_column(column, justify="left" if column in _LEFT else "right")
            for row in mappings:
                table.add_row(*(_cell(column, row[column]) for column in shown))
            stdout().print(table)


def _cell(column: str, value: Any) -> str:
    if column.endswith("_time_ms"):
        return f"{datetime.datetime.fromtimestamp(value / 1_000, datetime.UTC):%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100_000 else f"{value:.10g}"
    return str(value)
