"""``perpwatch rules``: look at rules before they run."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from perpwatch.app.lab import LabOptions, rules_from_files, run_lab_with_progress_bar, to_text
from perpwatch.app.lab_cli import PROCESSES, CandlesOption, ProcessesOption, Spread, TradesOption
from perpwatch.detect.rules import PRESETS, describe

rules_app = typer.Typer(help="Look at rules.", no_args_is_help=True)


class CheckFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


def check(
    files: Annotated[list[Path], typer.Argument(help="TOML files of rules.")],
    candles: CandlesOption = None,
    trades: TradesOption = None,
    format: Annotated[CheckFormat, typer.Option("--format", help="What to print.")] = CheckFormat.TEXT,
    processes: ProcessesOption = PROCESSES,
) -> None:
    """Say whether rules can be used (exit code 2 when not), what they mean, and how often each would have fired."""
    rules = rules_from_files(files, with_default=False)
    console = Console(stderr=True, highlight=False)
    report = None
    if candles or trades:
        options = LabOptions(candles=candles or (), trades=trades or (), rules=rules, processes=processes)
        report = run_lab_with_progress_bar(options)
        if any(rule.classes for rule in rules):
            console.print("classes are not in recorded files: rules were run on all symbols that their patterns match")
    if format is CheckFormat.JSON:
        found = {
            "rules": [{"name": rule.name, "text": describe(rule)} for rule in rules],
            "sets": report.sets if report is not None else [],
        }
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        return
    for rule in rules:
        print(f"{rule.name}: {describe(rule)}")
    if report is not None:
        print(f"\n{to_text(report)}")
    else:
        console.print("the rules are good; --candles FOLDER says how often each would have fired")


@rules_app.command("presets")
def presets() -> None:
    """List the rules that come with perpwatch."""
    for rule in PRESETS.values():
        print(f"{rule.name}: {describe(rule)}")


rules_app.command("check", cls=Spread)(check)
