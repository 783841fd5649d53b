"""``perpwatch export``: what is kept, as Parquet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from perpwatch.app.config import file_in_use, load_config
from perpwatch.app.export import What, export
from perpwatch.app.ledger_cli import span_ms
from perpwatch.app.printing import ConfigOption, console
from perpwatch.store import open_reader


def export_command(
    what: Annotated[What, typer.Argument(help="What of it.")],
    to_parquet: Annotated[Path, typer.Option(help="Folder; a file for each UTC day is written below it.")],
    since: Annotated[str, typer.Option(help="How far back: 30m, 6h, 2d; whole days are written.")] = "1d",
    config: ConfigOption = None,
) -> None:
    """Write what is kept as Parquet files, one a day, for DuckDB, Polars and pandas.

    May run while the watch does, as often as one likes: days that are there are replaced.
    """
    now_ms = int(time.time() * 1_000)
    rows = 0
    with open_reader(load_config(config).store.address(file_in_use(config))) as reader:
        for one in export(reader, what, now_ms - span_ms(since), now_ms, to_parquet):
            rows += one.rows
            print(f"{one.path}  {one.rows} rows")
    if not rows:
        console.print(f"nothing is kept of the last {since}")
