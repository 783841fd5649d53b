"""``perpwatch run`` in a process of its own, as a user starts it: its memory, its processor time and its metrics."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import tomli_w
from harness import CLIENT_CORE, Flood

COMMAND = (sys.executable, "-c", "import sys; sys.argv[0] = 'perpwatch'; from perpwatch.app.cli import main; main()")
_METRIC = re.compile(r"^perpwatch_(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class Program:
    """A watch that runs."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def rss_mb(self) -> float:
        """What it holds in memory, in MB of 10^6 bytes, its libraries included."""
        return self._status_mb("VmRSS")

    def peak_mb(self) -> float:
        return self._status_mb("VmHWM")

    def _status_mb(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+)", status)[1]) * 1_024 / 1e6  # type: ignore[index]

    def cpu_s(self) -> float:
        """Processor seconds so far, of all its threads and the system's work for them."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def address(self, what: str) -> str:
        """Where it serves ``dashboard`` or ``metrics``, as its log says; empty until it does."""
        found = re.search(rf"{what} at (http\S+?)[,;]?\s", self.log.read_text())
        return found[1] if found else ""

    def metrics(self) -> dict[str, float]:
        """By name without the prefix: with their labels, as in ``contracts{state="warm"}``, and the sums over them."""
        with urllib.request.urlopen(self.address("metrics"), timeout=30) as answer:
            text = answer.read().decode()
        values: dict[str, float] = {}
        for name, labels, value in _METRIC.findall(text):
            values[name] = values.get(name, 0.0) + float(value)
            if labels:
                values[f"{name}{{{labels}}}"] = float(value)
        return values

    def wait(self, name: str, least: float, limit_s: float) -> float:
        """Wait until a metric has risen to ``least``; returns the monotonic time at which it was seen.

        Raises:
            TimeoutError: it has not, in time.
            RuntimeError: the program has ended.
        """
        until_s = time.monotonic() + limit_s
        while time.monotonic() < until_s:
            if self.process.poll() is not None:
                raise RuntimeError(f"the program ended: {self.log.read_text()[-500:]}")
            if self.address("metrics") and self.metrics().get(name, 0.0) >= least:
                return time.monotonic()
            time.sleep(0.25)
        raise TimeoutError(
            f"{name} did not reach {least:g} within {limit_s:g} s; the log ends: {self.log.read_text()[-500:]}"
        )


def flood_settings(port: int, symbols: int, requests_per_second: float, **rest: object) -> dict[str, Any]:
    """Settings for a flood server: all symbols, and dials and commands as fast as they can be."""
    return {
        "websocket": {
            "base_url": f"ws://127.0.0.1:{port}/perpwatch",
            "max_connections": max(10, symbols // 90 + 2),
            "commands_per_second": 10_000.0,
            "dials_per_second": 100.0,
        },
        "rest": {"base_url": f"http://127.0.0.1:{port}", "requests_per_second": requests_per_second} | rest,
    }


class Flow:
    """A stream in the background, in stretches, until it is left."""

    STRETCH_S = 5.0

    def __init__(self, flood: Flood, rate: int, **parameters: object) -> None:
        self._flood, self._rate, self._parameters = flood, rate, parameters
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.frames = 0
        self.late_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.is_set():
            streamed = self._flood.stream("perpwatch", self._rate, self.STRETCH_S, **self._parameters)
            self.frames += streamed.frames
            self.late_s = max(self.late_s, streamed.late_s)


@contextmanager
def watching(settings: dict[str, Any], *, core: int | None = CLIENT_CORE) -> Iterator[Program]:
    """Start ``perpwatch run`` with these settings, its store in a folder that is deleted at the end.

    Pages and metrics are served at free ports.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = {"health": {"port": 0}, "dashboard": {"port": 0}} | settings
        (folder / "perpwatch.toml").write_text(tomli_w.dumps(table))
        log = folder / "log"
        with log.open("w") as errors:
            process = subprocess.Popen([*COMMAND, "run", "--format", "log"], cwd=folder, stderr=errors, text=True)
        if core is not None and hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
            os.sched_setaffinity(process.pid, {core})
        try:
            yield Program(process, log)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
