"""``perpwatch rules``: look at rules before they run."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from perpwatch.app.cli_commands import Spread
from perpwatch.app.lab import LabOptions, rules_from_files, run_lab_with_progress_bar, to_text
from perpwatch.app.lab_cli import (
    PROCESSES,
    CandlesOption,
    ConfigOption,
    ProcessesOption,
    SinceOption,
    TradesOption,
    stored_past,
)
from perpwatch.app.lab_files import DAY_MS
from perpwatch.app.lab_store import StoredPast
from perpwatch.app.printing import console, print_json
from perpwatch.detect.rules import PRESETS, Rule, describe
from perpwatch.errors import StoreError
from perpwatch.store import HOUR_MS

rules_app = typer.Typer(help="Look at rules.", no_args_is_help=True)


class CheckFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


def check(
    files: Annotated[list[Path], typer.Argument(help="TOML files of rules.")],
    candles: CandlesOption = None,
    trades: TradesOption = None,
    stored: Annotated[
        bool, typer.Option(help="Say how often each would have fired in what a watch has kept, where there is a store.")
    ] = True,
    since: SinceOption = "3d",
    config: ConfigOption = None,
    format: Annotated[CheckFormat, typer.Option("--format", help="What to print.")] = CheckFormat.TEXT,
    processes: ProcessesOption = PROCESSES,
) -> None:
    """Say whether rules can be used (exit code 2 when not), what they mean, and how often each would have fired.

    That is found out in the past that a watch has kept, and in recorded files.
    """
    rules = rules_from_files(files, with_default=False)
    past = _stored_past(config, since) if stored else None
    report = None
    if candles or trades or past is not None:
        options = LabOptions(candles=candles or (), trades=trades or (), stored=past, rules=rules, processes=processes)
        report = run_lab_with_progress_bar(options)
        _tell_limits(rules, past, is_recorded=bool(candles or trades))
    if format is CheckFormat.JSON:
        found = {
            "rules": [{"name": rule.name, "text": describe(rule)} for rule in rules],
            "sets": report.sets if report is not None else [],
        }
        print_json(found)
        return
    for rule in rules:
        print(f"{rule.name}: {describe(rule)}")
    if report is not None:
        print(f"\n{to_text(report)}")
    else:
        console.print("the rules are good; --candles FOLDER says how often each would have fired", soft_wrap=True)


def _stored_past(config: Path | None, since: str) -> StoredPast | None:
    """The stored past; None where there is none, which is no fault of the rules."""
    try:
        past = stored_past(config, since)
    except StoreError as error:
        console.print(f"no stored past: {error}", markup=False, soft_wrap=True)
        return None
    if past is None:
        console.print(f"no stored past: nothing is known of the last {since}")
    return past


def _tell_limits(rules: Sequence[Rule], past: StoredPast | None, *, is_recorded: bool) -> None:
    """What the figures do not show."""
    if is_recorded and any(rule.classes for rule in rules):
        console.print("classes are not in recorded files: rules were run on all symbols that their patterns match")
    if past is not None and past.end_ms - past.start_ms <= DAY_MS:
        hours = (past.end_ms - past.start_ms) / HOUR_MS
        console.print(f"the store knows {hours:.0f} h; the first day only warms up, so nothing could be counted in it")
    unheard = sorted({one.detector for rule in rules for one in rule.conditions if not one.kind.is_on_candles})
    if unheard:
        console.print(f"{', '.join(unheard)}: what they look at is in no candle, so they could not fire here")


@rules_app.command("presets")
def presets() -> None:
    """List the rules that come with perpwatch."""
    for rule in PRESETS.values():
        print(f"{rule.name}: {describe(rule)}")


rules_app.command("check", cls=Spread)(check)
