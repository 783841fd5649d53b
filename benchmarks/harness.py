"""Runs contenders against one flood, in turn and on the same frames, and says what came out.

Rates are frames per second of processor time of the client, all its threads and the system's work for it included: on
a machine with nothing else to do that is what a pinned core achieves, and on a busy one it is still comparable. The
rate on the clock is shown beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contender import pin
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
#: The client that is measured has the first core to itself; everything else, the other clients too, shares the second.
CLIENT_CORE, SERVER_CORE = 0, 1


@dataclass(slots=True)
class Contender:
    """Who is measured.

    Args:
        frames: of each flood that it gets; slow ones need fewer to be measured.
        tag: under which it connects, when that is not its name.
    """

    name: str
    command: Sequence[str]
    frames: int
    note: str = ""
    tag: str = ""
    results: list[dict[str, float]] = field(default_factory=list)
    failure: str = ""

    @property
    def cpu_rates(self) -> list[float]:
        return [one["frames"] / one["cpu_s"] for one in self.results]

    @property
    def wall_rates(self) -> list[float]:
        return [one["frames"] / one["wall_s"] for one in self.results]


def own(name: str, symbols: int, frames: int, note: str = "", history_minutes: int | None = None) -> Contender:
    """A contender of ``contenders.py``."""
    command = [sys.executable, str(HERE / "contenders.py"), name, "{port}", str(symbols), "{core}"]
    if history_minutes is not None:
        command.append(str(history_minutes))
    return Contender(name, command, frames, note)


@dataclass(frozen=True, slots=True)
class Streamed:
    """A stretch of steady flow."""

    frames: int
    late_s: float  # by how much the server was late at worst
    wild: list[tuple[str, int, int]]  # symbol, the push's time in ms, monotonic time of its sending in ns


class Flood:
    """The server as its client sees it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, what: str, **parameters: object) -> Any:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        limit_s = 120.0 + float(str(parameters.get("seconds", 0.0)))
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/flood/{what}?{query}", timeout=limit_s) as answer:
            return json.load(answer)

    def stream(self, tag: str, rate: int, seconds: float, **parameters: object) -> Streamed:
        """Send at a steady rate for so long; see ``Server._stream`` for the parameters."""
        told = self.ask("stream", tag=tag, rate=rate, seconds=seconds, **parameters)
        return Streamed(told["frames"], told["late_s"], [tuple(one) for one in told["wild"]])


@contextmanager
def flooding(symbols: int, rate: int = 5_000) -> Iterator[Flood]:
    """A flood server on the other core."""
    command = [sys.executable, str(HERE / "flood.py"), "--symbols", str(symbols), "--rate", str(rate)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(server.pid, {min(SERVER_CORE, (os.cpu_count() or 1) - 1)})
        yield Flood(port)
    finally:
        server.kill()
        server.wait()


@contextmanager
def started(contender: Contender, port: int, start_s: float) -> Iterator[subprocess.Popen[str]]:
    """A contender that is ready, or one with its failure noted."""
    command = [part.format(port=port, core=CLIENT_CORE) for part in contender.command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if _line(process, start_s) != "ready":
            _fail(contender, process, f"not ready within {start_s:g} s")
        yield process
    finally:
        process.kill()
        process.communicate()


def _line(process: subprocess.Popen[str], timeout_s: float) -> str:
    """The next line that is an answer of ours; empty at the end or when none comes in time."""
    assert process.stdout is not None
    until_s = time.monotonic() + timeout_s
    while (left_s := until_s - time.monotonic()) > 0:
        if select.select([process.stdout], [], [], left_s)[0]:
            line = process.stdout.readline()
            if not line or line.startswith("{") or line.strip() == "ready":
                return line.strip()
    return ""


def _fail(contender: Contender, process: subprocess.Popen[str], what: str) -> None:
    process.kill()
    _, errors = process.communicate()
    last = [line for line in errors.strip().splitlines() if line.strip()][-1:]
    contender.failure = f"{what}: {last[0].strip()}" if last else what


def race(contenders: Sequence[Contender], flood: Flood, runs: int, start_s: float = 400.0, run_s: float = 60.0) -> None:
    """Let all run in turn, ``runs`` times; the first round is for warming up and is not counted."""
    pin(SERVER_CORE)
    most = max(one.frames for one in contenders)
    with ExitStack() as stack:
        processes = {}
        for one in contenders:
            processes[one.name] = stack.enter_context(started(one, flood.port, start_s))
            _move(processes[one.name], SERVER_CORE)
        for block in range(runs + 1):
            # The whole block is made for the one who takes most of it; the others get its beginning.
            for one in sorted(contenders, key=lambda one: one.frames != most):
                if not one.failure:
                    _move(processes[one.name], CLIENT_CORE)
                    _run(one, processes[one.name], flood, block, run_s)
                    _move(processes[one.name], SERVER_CORE)


def _move(process: subprocess.Popen[str], core: int) -> None:
    """Have all threads of a process run on one core, where the system can do that: idle clients have timers, too."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended, or one of its threads
            for thread in os.listdir(f"/proc/{process.pid}/task"):
                os.sched_setaffinity(int(thread), {core})


def _run(one: Contender, process: subprocess.Popen[str], flood: Flood, block: int, run_s: float) -> None:
    tag = one.tag or one.name
    prepared = flood.ask("prepare", tag=tag, frames=one.frames, block=block)
    if not prepared["frames"]:
        _fail(one, process, "it subscribed to nothing")
        return
    assert process.stdin is not None
    process.stdin.write(f"{prepared['frames']} {prepared['bytes']}\n")
    process.stdin.flush()
    if _line(process, run_s) != "ready":
        _fail(one, process, f"not ready again within {run_s:g} s")
        return
    try:
        flood.ask("go", tag=tag)
    except OSError as error:
        _fail(one, process, f"the flood was not taken ({error})")
        return
    line = _line(process, run_s)
    if not line.startswith("{"):
        _fail(one, process, f"it did not count {prepared['frames']} frames within {run_s:g} s")
    elif block:
        one.results.append(json.loads(line))


def table(title: str, contenders: Sequence[Contender], reference: Contender, *, is_reference_better: bool) -> Table:
    """Rates, spreads and the ratio to a reference."""
    made = Table(title=title, box=None, title_justify="left")
    for column in ("", "frames/s of a core", "min - max", "µs a frame", "on the clock", "ratio", ""):
        made.add_column(column, justify="right" if column not in ("",) else "left")
    for one in contenders:
        if one.failure:
            made.add_row(one.name, "-", "", "", "", "", f"failed: {one.failure}"[:110])
            continue
        rates = one.cpu_rates
        median = statistics.median(rates)
        ratio = ""
        if reference.results:
            ratios = [
                theirs / ours if is_reference_better else ours / theirs
                for theirs, ours in zip(reference.cpu_rates, rates, strict=False)
            ]
            ratio = f"{statistics.median(ratios):.2f}"
        made.add_row(
            one.name,
            f"{median:,.0f}",
            f"{min(rates):,.0f} - {max(rates):,.0f}",
            f"{1e6 / median:.2f}",
            f"{statistics.median(one.wall_rates):,.0f}",
            ratio,
            one.note,
        )
    return made


def show(made: Table) -> None:
    Console(width=170).print(made)
