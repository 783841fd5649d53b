"""Runs every benchmark that has a claim, and writes what came out to RESULTS.md beside it.

    make bench            or: python benchmarks/run_all.py [--runs 5]

All together are given 14 minutes; a script that fails, or for which no time is left, is shown as such.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from harness import HERE

SCRIPTS = ("minute.py", "stages.py", "engine.py", "peers.py")
LIBRARIES = ("picows", "msgspec", "uvloop", "aiohttp", "numpy")
LIMIT_S = 840.0


def processor() -> str:
    """The name of the processor, where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def result(script: str, runs: int, left_s: float) -> str:
    """What a benchmark printed, or why there is nothing."""
    command = [sys.executable, str(HERE / script), "--runs", str(runs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=left_s)
    except subprocess.TimeoutExpired:
        return f"not finished in the {left_s:.0f} s that were left"
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['no word of why'])[-1]}"
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    text = (
        "# Results of the last run\n\n"
        f"Written by `make bench` on {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {runs} runs of each.\n\n"
        f"Machine: {processor()}, {os.cpu_count()} cores, {platform.system()}, load {load} at the start (other work on "
        "the machine widens the spreads; compare ratios).\n"
        f"Python {platform.python_version()}, {versions}.\n"
    )
    until_s = time.monotonic() + LIMIT_S
    for script in SCRIPTS:
        print(f"{script} ...", file=sys.stderr, flush=True)
        found = result(script, runs, max(1.0, until_s - time.monotonic()))
        print(found, file=sys.stderr, flush=True)
        text += f"\n## {script}\n\n```\n{found}\n```\n"
    (HERE / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
