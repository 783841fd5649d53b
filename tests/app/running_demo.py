"""A demonstration in a process of its own, with its dashboard: a whole market, a whole watch, real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOKEN = "a-token-nobody-would-guess"
PAIRS = 60


@dataclass(frozen=True, slots=True)
class Demo:
    url: str  # of the dashboard
    exchange: str  # of the exchange's REST
    process: subprocess.Popen[str]
    log: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def truth(self, path: str) -> Any:
        for _ in range(20):
            with urllib.request.urlopen(f"{self.exchange}/api/v1/contract/{path}", timeout=10) as answer:
                said = json.load(answer)
            if said["success"]:
                return said["data"]
            time.sleep(0.5)  # the bot and we share one budget
        pytest.fail(f"the exchange does not answer: {said}")

    def pumps(self) -> Any:
        """The moves that the exchange has planted, and will."""
        with urllib.request.urlopen(f"{self.exchange}/sim/truth", timeout=10) as answer:
            return json.load(answer)

    def act(self, action: str, token: str = TOKEN) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/v1/actions/{action}", method="POST", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextlib.contextmanager
def running_demo(folder: Path, **settings: str) -> Iterator[Demo]:
    """A demonstration that knows the first histories; ``settings`` go on top of those of all tests."""
    log = folder / "log"
    ours = {
        "PERPWATCH_HEALTH__PORT": "0",
        "PERPWATCH_DASHBOARD__PORT": "0",
        "PERPWATCH_DASHBOARD__TOKEN": TOKEN,
        "PERPWATCH_REST__REQUESTS_PER_SECOND": "8",
        "PERPWATCH_REST__TICKER_INTERVAL": "2",
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("PERPWATCH_")}
    command = [sys.executable, "-c", "from perpwatch.app.cli import main; main()"]
    command += ["demo", "--pairs", str(PAIRS), "--format", "log", "--duration", "600"]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stderr=errors, env=others | ours | settings, cwd=folder, text=True)
        try:
            deadline_s = time.monotonic() + 40
            while True:
                text = log.read_text()
                url, exchange = (
                    re.search(r"dashboard at (http\S+)", text),
                    re.search(r"exchange at ws(://\S+)/edge", text),
                )
                if url and exchange:
                    break
                assert time.monotonic() < deadline_s, text
                assert process.poll() is None, text
                time.sleep(0.1)
            one = Demo(url[1], f"http{exchange[1]}", process, log)
            while (
                one.get("/api/v1/status")["health"]["contracts"]["warm"] < 10
                or one.get("/api/v1/symbols?limit=1")["rows"][0]["turnover_24h"] is None
            ):
                assert time.monotonic() < deadline_s, one.get("/api/v1/status")
                time.sleep(0.2)
            yield one
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(20)
