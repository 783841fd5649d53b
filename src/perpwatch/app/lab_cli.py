"""``perpwatch lab``: rules measured on recorded markets, from the command line."""

from __future__ import annotations

import enum
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from perpwatch.app.config import file_in_use, load_config
from perpwatch.app.lab import LabOptions, LabReport, rules_from_files, run_lab_with_progress_bar, to_json, to_text
from perpwatch.app.lab_store import StoredPast
from perpwatch.app.ledger_cli import span_ms
from perpwatch.app.printing import console
from perpwatch.detect.rules import PRESETS, Rule
from perpwatch.errors import ConfigurationError


class LabFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"
    HTML = "html"


CandlesOption = Annotated[
    list[Path] | None, typer.Option("--candles", help="Folders of candle files, one file per symbol.")
]
TradesOption = Annotated[list[Path] | None, typer.Option("--trades", help="Folders of trade tapes, one symbol a file.")]
LabelsOption = Annotated[Path | None, typer.Option("--labels", help="CSV of events: a symbol and a UTC time.")]
RulesOption = Annotated[
    list[str] | None,
    typer.Option("--rules", help=f"TOML files of rules, or names of presets: {', '.join(PRESETS)}."),
]
SinceOption = Annotated[
    str,
    typer.Option("--since", help="How far back the stored past is walked through: 12h, 3d. Its first day warms up."),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with the settings, which say where the store is.")
]
ProcessesOption = Annotated[int, typer.Option("--processes", min=1, max=64, help="So many at once.")]
PROCESSES = min(os.cpu_count() or 1, 64)


def lab(
    candles: CandlesOption = None,
    trades: TradesOption = None,
    labels: LabelsOption = None,
    rules: RulesOption = None,
    intrabar: Annotated[bool, typer.Option("--intrabar", help="Judge running candles, at every batch of trades.")] = (
        False
    ),
    stored: Annotated[bool, typer.Option("--stored", help="Run on what a watch has kept, too.")] = False,
    since: SinceOption = "7d",
    config: ConfigOption = None,
    budget: Annotated[float | None, typer.Option(min=0.1, help="Alerts a day; moves the risk to meet it.")] = None,
    scaled: Annotated[bool, typer.Option("--scaled", help="The budget is for 750 symbols.")] = False,
    outcomes: Annotated[bool, typer.Option(help="Say what came of the alerts, against random moments.")] = True,
    format: Annotated[LabFormat, typer.Option("--format", help="What to print.")] = LabFormat.TEXT,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report as one page, too.")] = None,
    processes: ProcessesOption = PROCESSES,
) -> None:
    """Say what rules would have alerted on recorded markets, which pumps they saw and what came of their alerts."""
    past = stored_past(config, since) if stored else None
    if stored and past is None:
        raise ConfigurationError("--since", since, "a span of which the store knows something")
    options = LabOptions(
        candles=candles or (),
        trades=trades or (),
        stored=past,
        labels=labels,
        rules=rules_named(rules or []),
        is_intrabar=intrabar,
        budget=budget,
        is_budget_scaled=scaled,
        has_outcomes=outcomes,
        processes=processes,
    )
    report = run_lab_with_progress_bar(options)
    match format:
        case LabFormat.TEXT:
            print(to_text(report))
        case LabFormat.JSON:
            sys.stdout.buffer.write(to_json(report) + b"\n")
        case LabFormat.HTML:
            print(_page(report, options.rules))
    if html is not None:
        try:
            html.write_text(_page(report, options.rules), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError("--html", str(html), f"a file that can be written ({error})") from error
        console.print(f"the report is in {html}", soft_wrap=True)


def stored_past(config: Path | None, since: str) -> StoredPast | None:
    """What the configured store knows of the last time; None when it knows nothing.

    Raises:
        StoreError: there is no store, or it cannot be read.
        ConfigurationError: wrong settings, or no span.
    """
    settings = load_config(config)
    file = file_in_use(config)
    now_ms = int(time.time() * 1_000)
    return StoredPast.of(settings.store.address(file), now_ms - span_ms(since), now_ms)


def rules_named(words: list[str]) -> list[Rule]:
    """Rules from files and presets by name, beside the default.

    Raises:
        ConfigurationError: neither a preset nor a file, or a wrong rule.
    """
    presets = [PRESETS[word] for word in words if word in PRESETS]
    paths = [Path(word) for word in words if word not in PRESETS]
    for path in paths:
        if not path.is_file():
            raise ConfigurationError("--rules", str(path), f"a TOML file, or one of the presets {', '.join(PRESETS)}")
    rules = rules_from_files(paths)
    named = {rule.name for rule in rules}
    return rules + list({preset.name: preset for preset in presets if preset.name not in named}.values())


def _page(report: LabReport, rules: Sequence[Rule]) -> str:
    from perpwatch.app.lab_page import to_html  # matplotlib is slow to import

    return to_html(report, rules)
