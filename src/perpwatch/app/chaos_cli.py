"""``perpwatch chaos``: seeded trials on all cores, their sum, and the seeds that failed."""

from __future__ import annotations

import concurrent.futures
import logging
import multiprocessing
import os
from collections import Counter
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perpwatch.app.chaos import Verdict, draw_trial, run_trial
from perpwatch.app.printing import console, print_json


class Summary(msgspec.Struct):
    """What many trials came to."""

    seeds: int
    first_seed: int
    faults: dict[str, int]  # injected, by kind
    minutes_checked: int
    wrong: int
    unknown: int
    unexplained: int
    failed_seeds: list[int]
    violations: list[str]  # of the failed seeds, each with its seed


def chaos(
    seeds: Annotated[int, typer.Option(min=1, help="Trials to run.")] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first; a failing one is repeated by it.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes at once.")] = max(1, os.cpu_count() or 1),
    format: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
) -> None:
    """Prove the watch in virtual time: draw a market and faults per seed, and compare what was said with the truth.

    Exit code 1 when a seed fails. Repeat one with --seeds 1 --first-seed N.
    """
    if format not in ("text", "json"):
        raise typer.BadParameter("choose text or json", param_hint="--format")
    summary = run_many(range(first_seed, first_seed + seeds), workers)
    if format == "json":
        print_json(summary)
    else:
        _print(summary, Console(highlight=False))
    if summary.failed_seeds:
        raise typer.Exit(1)


def run_many(seeds: range, workers: int) -> Summary:
    """Run a trial per seed, several at once."""
    verdicts: list[Verdict] = []
    # Spawned, not forked: a trial must not inherit anything that another left behind.
    context = multiprocessing.get_context("spawn")
    columns = (
        TextColumn("chaos"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[bad]}"),
    )
    with (
        concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_quieten) as pool,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("", total=len(seeds), bad="")
        for verdict in pool.map(judge_seed, seeds):
            verdicts.append(verdict)
            failed = [str(one.seed) for one in verdicts if not one.is_good]
            progress.update(task, advance=1, bad=f"failed: {', '.join(failed)}" if failed else "")
    return summed(verdicts)


def _quieten() -> None:
    """In a worker: troubles of the watch are what a trial is made of, and no news."""
    logging.getLogger("perpwatch").setLevel(logging.CRITICAL)


def judge_seed(seed: int) -> Verdict:
    """The verdict of one seed; a crash is a violation like any other."""
    try:
        return run_trial(draw_trial(seed))
    except Exception as error:
        return Verdict(seed, violations=[f"the program ended with {error!r}"])


def summed(verdicts: list[Verdict]) -> Summary:
    faults = Counter[str]()
    for verdict in verdicts:
        faults.update(verdict.faults)
    failed = [verdict for verdict in verdicts if not verdict.is_good]
    return Summary(
        seeds=len(verdicts),
        first_seed=verdicts[0].seed,
        faults=dict(sorted(faults.items())),
        minutes_checked=sum(verdict.minutes_checked for verdict in verdicts),
        wrong=sum(verdict.wrong for verdict in verdicts),
        unknown=sum(verdict.unknown for verdict in verdicts),
        unexplained=sum(verdict.unexplained for verdict in verdicts),
        failed_seeds=[verdict.seed for verdict in failed],
        violations=[f"seed {verdict.seed}: {text}" for verdict in failed for text in verdict.violations[:10]],
    )


def _print(summary: Summary, console: Console) -> None:
    kinds = ", ".join(f"{kind} {count}" for kind, count in summary.faults.items())
    console.print(f"seeds run          {summary.seeds} (from {summary.first_seed})")
    console.print(f"faults injected    {sum(summary.faults.values())}: {kinds}", soft_wrap=True)
    console.print(f"minutes checked    {summary.minutes_checked:,}")
    console.print(f"wrong              {summary.wrong}")
    console.print(f"unknown            {summary.unknown}")
    console.print(f"unexplained        {summary.unexplained}")
    for violation in summary.violations:
        console.print(f"  {violation}", soft_wrap=True, markup=False)
    for seed in summary.failed_seeds:
        console.print(f"repeat: perpwatch chaos --seeds 1 --first-seed {seed}")
    console.print("[green]good[/]" if not summary.failed_seeds else "[red]failed[/]")
