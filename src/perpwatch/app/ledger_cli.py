"""``perpwatch ledger``: what is known of every minute, which symbols are worst off, and why."""

from __future__ import annotations

import re
import time
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from perpwatch.app.config import file_in_use, load_config
from perpwatch.app.printing import ConfigOption, print_json
from perpwatch.app.store_config import GAPS_KEY
from perpwatch.errors import ConfigurationError
from perpwatch.market.ledger import Ledger
from perpwatch.model import MINUTE_MS, Trust
from perpwatch.store import EMPTY_CODE, HOUR_MS, TRUST_CODES, Reader, open_reader

#: Symbols with unknown minutes that are named.
WORST = 20


class Gap(msgspec.Struct, frozen=True):
    """A stretch of minutes about which nothing is known."""

    symbol: str
    start_ms: int
    end_ms: int
    minutes: int
    reason: str


class LedgerReport(msgspec.Struct, frozen=True):
    since_ms: int
    until_ms: int
    symbols: int
    counts: dict[str, int]  # minutes per state
    worst: dict[str, int]  # unknown minutes of the symbols that have any, most first
    gaps: list[Gap]


def ledger(
    since: Annotated[str, typer.Option(help="How far back: 30m, 6h, 2d.")] = "6h",
    symbol: Annotated[str | None, typer.Option(help="One symbol only.")] = None,
    config: ConfigOption = None,
    format: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Say what is known of the minutes since the watch of each symbol began, as the store has it."""
    if format not in ("table", "json"):
        raise typer.BadParameter("choose table or json", param_hint="--format")
    with open_reader(load_config(config).store.address(file_in_use(config))) as reader:
        report = ledger_report(reader, int(time.time() * 1_000), span_ms(since), symbol)
    if format == "json":
        print_json(report)
    else:
        _print(report, Console(highlight=False))


def span_ms(text: str) -> int:
    """Milliseconds of a span such as 30m, 6h or 2d.

    Raises:
        ConfigurationError: not such a span.
    """
    match = re.fullmatch(r"(\d+)([mhd])", text)
    if match is None or not int(match[1]):
        raise ConfigurationError("--since", text, "give a span such as 30m, 6h or 2d")
    return int(match[1]) * {"m": 1, "h": 60, "d": 1_440}[match[2]] * MINUTE_MS


def ledger_report(reader: Reader, now_ms: int, since_ms: int, symbol: str | None = None) -> LedgerReport:
    """Count what the store knows of the last ``since_ms`` ms, per symbol from its first known minute on."""
    start_ms = (now_ms - since_ms) // MINUTE_MS * MINUTE_MS
    rings = Ledger(since_ms // MINUTE_MS + 120)
    first: dict[str, int] = {}
    newest_ms = 0
    empty_is_verified = bytes(TRUST_CODES[Trust.VERIFIED] if code == EMPTY_CODE else code for code in range(256))
    for hour in reader.ledger(start_ms - HOUR_MS, now_ms + HOUR_MS, symbol):
        codes = hour.codes.translate(empty_is_verified)
        rings.restore(hour.symbol, hour.hour_ms, codes)
        known = [hour.hour_ms + minute * MINUTE_MS for minute, code in enumerate(codes) if code]
        if known:
            first.setdefault(hour.symbol, known[0])
            newest_ms = max(newest_ms, known[-1] + MINUTE_MS)
    state = reader.state(GAPS_KEY)
    reasons = msgspec.json.decode(state.value, type=dict[str, str]) if state is not None else {}
    counts = dict.fromkeys((trust.value for trust in Trust), 0)
    worst: dict[str, int] = {}
    gaps: list[Gap] = []
    for name in sorted(first):
        begin_ms = max(start_ms, first[name])
        for trust, minutes in rings.counts([name], begin_ms, newest_ms).items():
            counts[trust.value] += minutes
        for span in rings.unknown(name, begin_ms, newest_ms):
            worst[name] = worst.get(name, 0) + span.minutes
            reason = reasons.get(name, "not read back yet when the watch was last seen")
            gaps.append(Gap(name, span.start_ms, span.end_ms, span.minutes, reason))
    ranked = dict(sorted(worst.items(), key=lambda item: (-item[1], item[0])))
    return LedgerReport(start_ms, newest_ms, len(first), counts, ranked, gaps)


def _print(report: LedgerReport, console: Console) -> None:
    total = sum(report.counts.values())
    table = Table(title=f"{total:,} minutes of {report.symbols} symbols", title_justify="left", box=None)
    for column in ("state", "minutes", "share"):
        table.add_column(column, justify="left" if column == "state" else "right", header_style="dim")
    for state, minutes in report.counts.items():
        table.add_row(state, f"{minutes:,}", f"{minutes / total:.3%}" if total else "-")
    console.print(table)
    for symbol, minutes in list(report.worst.items())[:WORST]:
        reasons = {gap.reason for gap in report.gaps if gap.symbol == symbol}
        console.print(f"{symbol}: {minutes} unknown ({'; '.join(sorted(reasons))})", soft_wrap=True)
    if len(report.worst) > WORST:
        console.print(f"... and {len(report.worst) - WORST} more symbols")
