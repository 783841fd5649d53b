"""Runs every benchmark that has a claim, and writes what came out to RESULTS.md beside it.

    make bench            or: python benchmarks/run_all.py [--runs 5] [--only engine.py minute.py]

All together are given 14 and a half minutes; a script that fails, or for which no time is left, is shown as such. What
takes longer is run by hand: ``memory.py`` with five days, ``growth.py`` with 10,000 symbols, ``startup.py`` with the
whole market, ``soak.py``, ``week.py``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness import HERE

#: With what each is told besides the number of runs, to be done in minutes.
SCRIPTS = {
    "engine.py": "",
    "minute.py": "",
    "peers.py": "",
    "latency.py": "--seconds 8",
    "stages.py": "--symbols 400",
    "memory.py": "--days 1.375 --minutes 1",
    "growth.py": "--symbols 100 800 2000",
    "startup.py": "--symbols 300",
    "card.py": "",
}
LIBRARIES = ("picows", "msgspec", "uvloop", "aiohttp", "numpy")
LIMIT_S = 870.0


def processor() -> str:
    """The name of the processor, where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def peers() -> list[str]:
    """The other programs and their versions."""
    lines = (HERE / "peers.txt").read_text().splitlines()
    return [line.replace("==", " ") for line in lines if line and not line.startswith("#")]


def result(script: str, arguments: list[str], left_s: float) -> str:
    """What a benchmark printed, or why there is nothing."""
    # In a group of its own: what it has started ends with it.
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, errors = process.communicate(timeout=left_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"not finished in the {left_s:.0f} s that were left"
    if process.returncode:
        return f"failed: {(errors.strip().splitlines() or ['no word of why'])[-1]}"
    return "\n".join(line.rstrip() for line in printed.strip().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(SCRIPTS), default=list(SCRIPTS), metavar="SCRIPT")
    options = parser.parse_args()
    runs = options.runs
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    text = (
        "# Results of the last run\n\n"
        f"Written by `make bench` on {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {runs} runs of each.\n\n"
        f"Machine: {processor()}, {os.cpu_count()} cores, {platform.system()}, load {load} at the start (other work on "
        "the machine widens the spreads; compare ratios).\n"
        f"Python {platform.python_version()}, {versions}.\nPeers: {', '.join(peers())}.\n"
    )
    until_s = time.monotonic() + LIMIT_S
    for script in options.only:
        arguments = ["--runs", str(runs), *SCRIPTS[script].split()]
        print(f"{script} {' '.join(arguments)} ...", file=sys.stderr, flush=True)
        began_s = time.monotonic()
        found = result(script, arguments, max(1.0, until_s - began_s))
        took_s = time.monotonic() - began_s
        print(found, f"({took_s:.0f} s)", sep="\n", file=sys.stderr, flush=True)
        command = " ".join(["python", f"benchmarks/{script}", *arguments])
        text += f"\n## {script}\n\n`{command}`, {took_s:.0f} s\n\n```\n{found}\n```\n"
        (HERE / "RESULTS.md").write_text(text)  # after each: what there is counts, also when somebody ends it


if __name__ == "__main__":
    main()
