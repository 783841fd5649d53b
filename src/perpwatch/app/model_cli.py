"""``perpwatch model``: train the score, and look at the one in use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from perpwatch.app.cli_commands import Spread
from perpwatch.app.lab_cli import CandlesOption, LabelsOption, TradesOption
from perpwatch.app.printing import console
from perpwatch.app.training import Trained, TrainOptions, to_file, train
from perpwatch.detect.score import Model, read_model, shipped_model_text
from perpwatch.errors import ConfigurationError

model_app = typer.Typer(help="Train the score, or look at it.", no_args_is_help=True)

OutputOption = Annotated[Path | None, typer.Option("--output", help="Where to write the model; nowhere when left out.")]


def train_model(
    trades: TradesOption = None,
    candles: CandlesOption = None,
    labels: LabelsOption = None,
    output: OutputOption = None,
    forest: Annotated[bool, typer.Option("--forest", help="A random forest, the challenger.")] = False,
) -> None:
    """Train the score on labelled pumps and ordinary markets, and say what it is worth on events it has not seen."""
    options = TrainOptions(trades=trades or (), candles=candles or (), labels=labels, is_forest=forest)
    if not options.trades:
        raise ConfigurationError("--trades", "", "at least one folder of tapes with labelled pumps")
    trained = _with_progress_bar(options)
    print(trained.table)
    if output is not None:
        try:
            output.write_bytes(to_file(trained.model))
        except OSError as error:
            raise ConfigurationError("--output", str(output), f"a file that can be written ({error})") from error
        console.print(f"the model is in {output}")


def _with_progress_bar(options: TrainOptions) -> Trained:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=1.0)

        def show(done: float, total: float, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        return train(options, show)


@model_app.command("show")
def show(
    file: Annotated[Path | None, typer.Argument(help="A model file; the shipped one when left out.")] = None,
) -> None:
    """Print what a model was trained on, and what it found."""
    text = file.read_bytes() if file is not None and file.is_file() else shipped_model_text()
    if text is None or (file is not None and not file.is_file()):
        raise ConfigurationError("model", str(file or "shipped"), "a model file; train one with: perpwatch model train")
    try:
        model = read_model(text)
    except ValueError as error:
        raise ConfigurationError("model", str(file or "shipped"), str(error)) from error
    sys.stdout.write(model_text(model))


def model_text(model: Model) -> str:
    """What a model was trained on and what it found."""
    lines = [
        f"{model.kind}, {len(model.features)} features, {model.positives} positive of {model.rows:,} minutes",
        f"trained on {', '.join(model.sources)}",
        f"data {model.data_hash}",
    ]
    lines += [
        f"{split.name}: {budget.found}/{budget.events} found at {budget.alerts_per_day_per_750:g} alerts a day per 750"
        for split in model.splits
        for budget in split.budgets
    ]
    return "\n".join(lines) + "\n"


model_app.command("train", cls=Spread)(train_model)
