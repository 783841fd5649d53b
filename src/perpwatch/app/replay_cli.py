"""``perpwatch replay`` and ``perpwatch diff``: the past again, and what two pasts differ in."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from perpwatch.app.config import Config, file_in_use, load_config
from perpwatch.app.differences import (
    ALERTS_NAME,
    SIGNALS_NAME,
    changes_in_words,
    compare,
    in_words,
    is_signal,
    read_found,
)
from perpwatch.app.engine import Engine, Step
from perpwatch.app.history import HistoryFeed, read_history, stored_history
from perpwatch.app.lab_cli import CandlesOption, TradesOption
from perpwatch.app.lab_files import parse_time_ms
from perpwatch.app.ledger_cli import span_ms
from perpwatch.app.printing import console
from perpwatch.app.recorder import EngineSettings, found_in
from perpwatch.app.replay import Past, Replay, Replayed, engine_of, span_of
from perpwatch.app.rules_file import RuleSources
from perpwatch.detect.rules import Rule
from perpwatch.errors import ConfigurationError
from perpwatch.exchanges.mexc.codec import decode
from perpwatch.feed.recording import RecordingFile, file_info, recording_files
from perpwatch.model import Batch
from perpwatch.store import open_reader

#: Differences that are shown; the counts are of all.
SHOWN = 20


def replay(
    path: Annotated[
        Path | None, typer.Argument(help="A recording: its folder, or one of its files.", metavar="FILE|FOLDER")
    ] = None,
    candles: CandlesOption = None,
    trades: TradesOption = None,
    stored: Annotated[
        str | None, typer.Option(help="Instead of a recording, the candles of the store since 6h, 2d ago.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Tell what is found from then on (ISO or epoch, UTC).", metavar="TIME")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="End there.", metavar="TIME")] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            help="Rules (TOML) instead of those of the recorded watch; on candles and trades, of the settings.",
            metavar="FILE",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file with the settings, for candles and trades.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help=f"Folder for {SIGNALS_NAME} and {ALERTS_NAME}; files of this name are replaced.")
    ] = Path("replay"),
    speed: Annotated[
        str, typer.Option(help="max, or market seconds in a real one: 1 is as it was, 60 a minute in a second.")
    ] = "max",
    list_: Annotated[bool, typer.Option("--list", help="Only list the files, with times and sizes.")] = False,
) -> None:
    """Run a recording, or candles and trades of the past, through the engine, and write what is found.

    Of a recording with its own rules it also says whether that is what the recorded watch found; exit code 1 when not.
    """
    is_history = bool(candles or trades or stored)
    if is_history == (path is not None):
        raise ConfigurationError("replay", path and str(path), "a recording, or --candles, --trades or --stored")
    from_ns, to_ns, pace = _time_ns("--from", from_), _time_ns("--to", to), _speed(speed)
    if path is None:
        settings, file = load_config(config), file_in_use(config)
        with past_feed(candles or [], trades or [], stored, settings, file) as feed:
            past = Past(feed, past_engine(settings, rules, is_intrabar=bool(trades)), from_ns=from_ns, to_ns=to_ns)
            with _Output(out) as output:
                past.on_step = output.on_step
                took_s = run_through(past.steps(), feed.start_ms * 1_000_000, feed.end_ms * 1_000_000, pace)
        _tell(past.result, took_s, out)
        return
    if list_:
        _list(recording_files(path))
        return
    files = recording_files(path)
    with _Output(out) as output:
        pass_ = Replay(files, decode, output.on_step, from_ns=from_ns, to_ns=to_ns, rules=_rules(rules))
        first_ns, last_ns = span_of(map(RecordingFile, files))
        took_s = run_through(pass_.steps(), first_ns, min(last_ns, to_ns or last_ns), pace)
    _tell(pass_.result, took_s, out)
    if pass_.result.differing:
        raise typer.Exit(1)


def run_through(steps: Iterator[int], first_ns: int, last_ns: int, pace: float | None) -> float:
    """Go through everything, with a bar; returns the seconds it took."""
    began_s, shown_s = time.monotonic(), 0.0
    with _progress() as bar:
        task = bar.add_task("replaying", total=max(last_ns - first_ns, 1))
        for now_ns in steps:
            _keep_pace(pace, (now_ns - first_ns) / 1e9, began_s)
            if time.monotonic() - shown_s > 0.1:
                shown_s = time.monotonic()
                bar.update(task, completed=now_ns - first_ns)
        bar.update(task, completed=max(last_ns - first_ns, 1))
    return time.monotonic() - began_s


@contextlib.contextmanager
def past_feed(
    candles: Sequence[Path], trades: Sequence[Path], stored: str | None, settings: Config, file: Path | None
) -> Iterator[HistoryFeed]:
    """What the options ask for: folders, or the store as far back as ``stored`` says.

    Raises:
        ConfigurationError: both, or something that cannot be used.
        StoreError: the store cannot be read.
    """
    if stored is None:
        yield read_history(candles, trades)
        return
    if candles or trades:
        raise ConfigurationError("--stored", stored, "the store alone, or --candles and --trades")
    now_ms = int(time.time() * 1_000)
    with open_reader(settings.store.address(file)) as reader:
        yield stored_history(reader, now_ms - span_ms(stored), now_ms)


def past_engine(config: Config, rules: Path | None, *, is_intrabar: bool) -> Engine:
    """A fresh engine as configured, with the rules of a file where one is named."""
    settings = EngineSettings.of(config)
    # A candle that is only known whole would be judged as running and, a moment later, as closed.
    settings = msgspec.structs.replace(settings, is_intrabar=is_intrabar and settings.is_intrabar)
    return engine_of(settings, _rules(rules))


def _tell(result: Replayed, took_s: float, out: Path) -> None:
    for text in dict.fromkeys(result.missing):
        console.print(f"[yellow]missing:[/] {text}", soft_wrap=True)
    if result.unreadable:
        console.print(f"[yellow]{result.unreadable} frames are no longer understood[/]")
    console.print(
        f"{_clock(result.first_ns)} to {_clock(result.last_ns)} UTC: {result.frames or result.events:,} "
        f"{'frames' if result.frames else 'events'} in {took_s:.1f} s, "
        f"{result.seconds / max(took_s, 1e-9):,.0f} times as fast as they came",
        soft_wrap=True,
    )
    console.print(f"{result.signals} signals and {result.alerts} alerts in {out}", soft_wrap=True)
    if result.differing:
        console.print(f"[bold red]{result.differing} of {result.compared} findings are not what the watch found[/]")
        for text in result.differences:
            console.print(text, markup=False, soft_wrap=True)
    elif result.compared:
        console.print(f"all {result.compared} are, to the byte, what the recorded watch found")


def _list(files: list[Path]) -> None:
    for path in files:
        file = RecordingFile(path)
        info = file_info(path)
        times = f"{_clock(info.first_ns)} to {_clock(info.last_ns)}"
        print(f"{path.name}  {times} UTC  {info.records:>10,} records  {info.bytes / 1e6:>10.2f} MB")
        for _ in file.chunks():
            pass
        for damage in file.damages:
            console.print(f"[yellow]missing:[/] {damage}", soft_wrap=True)


class _Output:
    """The two files of a run; as a context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._signals: BinaryIO
        self._alerts: BinaryIO

    def __enter__(self) -> _Output:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._signals = self._stack.enter_context((self._folder / SIGNALS_NAME).open("wb"))
            self._alerts = self._stack.enter_context((self._folder / ALERTS_NAME).open("wb"))
        except OSError as error:
            raise ConfigurationError("--out", str(self._folder), f"a folder to write to ({error})") from error
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def on_step(self, batch: Batch, step: Step) -> None:
        for body in found_in(step):
            (self._signals if is_signal(body) else self._alerts).write(body + b"\n")


def diff(
    a: Annotated[Path, typer.Argument(help="A folder of `perpwatch replay`, a .jsonl file, or a recording.")],
    b: Annotated[Path, typer.Argument(help="The other.")],
) -> None:
    """Show which signals and alerts two runs differ in; exit code 1 when they do."""
    found = compare(read_found(a), read_found(b))
    if found.is_same:
        print(f"the same, to the byte: {found.same} findings")
        return
    if not found.is_order_same:
        print(f"the same {found.same} findings in another order")
        raise typer.Exit(1)
    print(
        f"{found.same} the same, {len(found.changed)} changed, {len(found.only_a)} only in {a}, "
        f"{len(found.only_b)} only in {b}"
    )
    for mark, values in (("-", found.only_a), ("+", found.only_b)):
        for value in values[:SHOWN]:
            print(f"{mark} {in_words(value)}")
        _more(len(values))
    for before, after in found.changed[:SHOWN]:
        print(f"~ {in_words(before)}: {changes_in_words(before, after)}")
    _more(len(found.changed))
    raise typer.Exit(1)


def _more(count: int) -> None:
    if count > SHOWN:
        print(f"  and {count - SHOWN} more")


def _rules(path: Path | None) -> Sequence[Rule] | None:
    if path is None:
        return None
    return RuleSources(Config.model_construct().with_overrides({"detection": {"rules": [str(path)]}})).read()


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.0 < speed < float("inf"):
        raise ConfigurationError("--speed", text, "max, or a number above 0")
    return speed


def _keep_pace(speed: float | None, market_s: float, began_s: float) -> None:
    if speed is not None:
        ahead_s = market_s / speed - (time.monotonic() - began_s)
        if ahead_s > 0.0:
            time.sleep(ahead_s)


def _time_ns(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_time_ms(text) * 1_000_000
    except ValueError as error:
        raise ConfigurationError(option, text, f"a UTC time, ISO or epoch ({error})") from error


def _clock(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}"


@contextlib.contextmanager
def _progress() -> Iterator[Progress | Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        yield progress
