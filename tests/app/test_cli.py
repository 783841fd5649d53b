"""The command line as a user or a script meets it: its two outputs and its exit code.

What ends by itself is called in this process, because starting one costs more than all the rest; what is interrupted,
piped or drawn gets a process of its own.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from logging_afterwards import same_logging_afterwards

from perpwatch.app import cli
from perpwatch.app.config import Config
from perpwatch.app.planning import PlannedConnection, PlannedWish, PlanReport
from perpwatch.model import Candle, Contract, Signal

COMMAND = (sys.executable, "-c", "from perpwatch.app.cli import main; main()")
#: Nobody listens on port 1, and a refusal comes at once.
NOWHERE = {
    "PERPWATCH_WEBSOCKET__BASE_URL": "ws://127.0.0.1:1/edge",
    "PERPWATCH_REST__BASE_URL": "http://127.0.0.1:1",
    "PERPWATCH_HEALTH__PORT": "0",  # tests run side by side
    "PERPWATCH_DASHBOARD__ENABLED": "false",
}


@dataclass(frozen=True, slots=True)
class Done:
    returncode: object
    stdout: str
    stderr: str


class Call(Protocol):
    def __call__(self, *arguments: object, **variables: str) -> Done: ...


@pytest.fixture
def perpwatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Runs a command to its end, in a folder without settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("PERPWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object, **variables: str) -> Done:
        capfd.readouterr()
        with monkeypatch.context() as context:
            context.setattr(sys, "argv", ["perpwatch", *map(str, arguments)])
            for name, value in variables.items():
                context.setenv(name, value)
            code: object = 0
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
        printed = capfd.readouterr()
        return Done(code, printed.out, printed.err)

    with same_logging_afterwards():
        yield call


def environment(**variables: str) -> dict[str, str]:
    ours = ("PERPWATCH_", "COLUMNS", "LINES")
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(ours)} | variables


@contextlib.contextmanager
def running(*arguments: object, **variables: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=environment(**variables),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def exchange() -> Iterator[dict[str, str]]:
    """A built-in exchange in a process of its own, and the variables that point to it."""
    with running("sim", "--port", 0, "--pairs", 40) as process:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        yield {
            "PERPWATCH_WEBSOCKET__BASE_URL": addresses["websocket"],
            "PERPWATCH_REST__BASE_URL": addresses["rest"],
            "PERPWATCH_HEALTH__PORT": "0",  # tests run side by side
            "PERPWATCH_DASHBOARD__ENABLED": "false",
            "PERPWATCH_STORE__ENABLED": "false",
        }
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=2) == 0


def fields(struct_type: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(struct_type)]


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- Looking things up ---------------------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_codes(perpwatch: Call) -> None:
    done = perpwatch("--help")
    assert done.returncode == 0
    for word in ("run", "demo", "sim", "plan", "symbols", "candles", "signals", "config", "Exit codes"):
        assert word in done.stdout


def test_symbols_as_json_have_the_fields_of_a_contract_and_the_verdict(
    perpwatch: Call, exchange: dict[str, str]
) -> None:
    done = perpwatch("symbols", "--format", "json", **exchange)
    rows = json.loads(done.stdout)
    assert (done.returncode, done.stderr, len(rows)) == (0, "", 40)
    verdict = ["turnover_24h", "tier", "rank", "age_days", "is_pinned", "is_watched", "reason", "explanation"]
    assert list(rows[0]) == [*fields(Contract), *verdict]
    turnover = [row["turnover_24h"] for row in rows]
    assert turnover == sorted(turnover, reverse=True)


def test_symbols_say_why_one_is_not_watched(perpwatch: Call, exchange: dict[str, str]) -> None:
    done = perpwatch("symbols", "--format", "jsonl", PERPWATCH_UNIVERSE__EXCLUDE="BTC_*", **exchange)
    bitcoin = next(row for row in json_lines(done.stdout) if row["symbol"] == "BTC_USDT")
    assert (bitcoin["is_watched"], bitcoin["reason"]) == (False, "excluded by BTC_*")


def test_candles_as_json_lines_have_the_fields_of_a_candle_and_the_last_is_open(
    perpwatch: Call, exchange: dict[str, str]
) -> None:
    done = perpwatch("candles", "btc_usdt", "--limit", 5, "--format", "jsonl", **exchange)
    rows = json_lines(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert [list(row) for row in rows] == [fields(Candle)] * 5
    assert [row["finality"] for row in rows] == ["rest"] * 4 + ["open"]
    times = [row["open_time_ms"] for row in rows]
    assert times == list(range(times[0], times[0] + 5 * 60_000, 60_000))


def test_candles_as_csv_carry_the_same_and_as_a_table_are_for_people(perpwatch: Call, exchange: dict[str, str]) -> None:
    done = perpwatch("candles", "ETH_USDT", "--timeframe", "Min60", "--limit", 3, "--format", "csv", **exchange)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == fields(Candle)
    assert [row["timeframe"] for row in rows] == ["Min60"] * 3
    table = perpwatch("candles", "ETH_USDT", "--limit", 3, **exchange)
    assert table.stdout.splitlines()[0].split()[:2] == ["open_time_ms", "open"]
    assert len(table.stdout.splitlines()) == 4


def test_candles_of_an_unknown_contract_are_one_line_of_error(perpwatch: Call, exchange: dict[str, str]) -> None:
    done = perpwatch("candles", "NOPE_USDT", **exchange)
    assert (done.returncode, done.stdout) == (1, "")
    assert "NOPE_USDT" in done.stderr
    assert "perpwatch symbols" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_plan_as_json_gives_connections_and_how_each_wish_is_served(perpwatch: Call) -> None:
    done = perpwatch("plan", "--count", 750, "--format", "json")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(report) == fields(PlanReport)
    assert list(report["connections"][0]) == fields(PlannedConnection)
    assert list(report["wishes"][0]) == fields(PlannedWish)
    served = {wish["name"]: wish for wish in report["wishes"]}
    assert served["ticker"]["market_wide"] == 750
    assert served["kline_Min1"]["streamed"] == 750
    assert [served[f"kline_{name}"]["derived"] for name in ("Min5", "Min15", "Min60")] == [750] * 3
    assert max(len(connection["streams"]) for connection in report["connections"]) <= 95


def test_plan_without_a_count_asks_the_exchange(perpwatch: Call, exchange: dict[str, str]) -> None:
    report = json.loads(perpwatch("plan", "--format", "jsonl", **exchange).stdout)
    assert report["symbols"] == 40
    assert "kline_Min1:BTC_USDT" in report["connections"][0]["streams"]


def test_plan_for_people_says_why(perpwatch: Call) -> None:
    done = perpwatch("plan", "--count", 1061)
    assert "read by REST" in done.stdout
    assert "Read by REST (" in done.stdout


# --- What goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("symbols",), ("candles", "BTC_USDT"), ("plan",)])
def test_a_question_to_an_unreachable_exchange_is_one_line_with_address_and_reason(
    perpwatch: Call, command: tuple[str, ...]
) -> None:
    done = perpwatch(*command, **NOWHERE)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "http://127.0.0.1:1/" in done.stderr
    assert "Connect call failed" in done.stderr


def test_a_watch_of_an_unreachable_exchange_warns_with_address_and_next_try_until_its_time_is_over(
    perpwatch: Call,
) -> None:
    started_s = time.monotonic()
    done = perpwatch("run", "--duration", 2, **NOWHERE)
    assert time.monotonic() - started_s < 6
    assert (done.returncode, done.stdout) == (0, "")
    assert "http://127.0.0.1:1/" in done.stderr
    assert "next try in" in done.stderr
    assert "Traceback" not in done.stderr


def test_sockets_that_cannot_be_opened_warn_with_address_and_next_try(
    perpwatch: Call, exchange: dict[str, str]
) -> None:
    unreachable = exchange | {"PERPWATCH_WEBSOCKET__BASE_URL": "ws://127.0.0.1:1/edge"}
    done = perpwatch("run", "--duration", 2, **unreachable)
    assert done.returncode == 0
    assert "ws-1: cannot connect to ws://127.0.0.1:1/edge" in done.stderr
    assert "next try in" in done.stderr
    assert "0/1 connections" in done.stderr.splitlines()[-1]


def test_a_connection_that_may_give_up_ends_the_watch_with_one_line(perpwatch: Call, exchange: dict[str, str]) -> None:
    unreachable = exchange | {"PERPWATCH_WEBSOCKET__BASE_URL": "ws://127.0.0.1:1/edge"}
    done = perpwatch("run", "--duration", 20, PERPWATCH_WEBSOCKET__MAX_RECONNECT_ATTEMPTS="2", **unreachable)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("exchange: cannot connect to ws://127.0.0.1:1/edge")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("config", "check"), ("run",), ("plan",), ("demo",), ("signals",)])
def test_wrong_settings_end_every_command_with_code_2(perpwatch: Call, command: tuple[str, ...]) -> None:
    Path("perpwatch.toml").write_text("[websocket]\nmax_connections = '[red]'", encoding="utf-8")
    done = perpwatch(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("configuration: websocket.max_connections = '[red]': should be a valid integer")


@pytest.mark.parametrize(
    "arguments",
    [
        ("candles", "BTC_USDT", "--timeframe", "Min2"),
        ("candles",),
        ("run", "--duration", "0"),
        ("demo", "--pairs", "0"),
        ("plan", "--count", "none"),
        ("symbols", "--format", "xml"),
        ("watch",),
    ],
)
def test_wrong_usage_ends_with_code_2(perpwatch: Call, arguments: tuple[str, ...]) -> None:
    done = perpwatch(*arguments)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_port_that_is_taken_is_said_in_one_line(perpwatch: Call, exchange: dict[str, str]) -> None:
    port = exchange["PERPWATCH_REST__BASE_URL"].rpartition(":")[2]
    done = perpwatch("sim", "--port", port, "--pairs", 5)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"configuration: --port = {port}: Address already in use; 0 takes a free one\n"


# --- Settings ------------------------------------------------------------------------------------------------------


def test_config_check_speaks_to_people_only(perpwatch: Call) -> None:
    done = perpwatch("config", "check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "the configuration is good\n")


def test_config_show_prints_a_file_that_can_be_used(perpwatch: Call) -> None:
    shown = perpwatch("config", "show", PERPWATCH_WEBSOCKET__MAX_CONNECTIONS="3").stdout
    assert tomllib.loads(shown)["websocket"]["max_connections"] == 3
    Path("copy.toml").write_text(shown, encoding="utf-8")
    again = perpwatch("config", "show", "--config", "copy.toml").stdout
    assert again == shown


def test_config_show_as_json_has_every_setting(perpwatch: Call) -> None:
    shown = json.loads(perpwatch("config", "show", "--format", "json").stdout)
    assert list(shown) == list(Config.model_fields)
    assert shown["network"] == {"proxy": None}


# --- Watching ------------------------------------------------------------------------------------------------------


def test_demo_finds_its_first_move_within_half_a_minute_of_market_time(perpwatch: Call) -> None:
    started_ms = time.time() * 1_000
    done = perpwatch("demo", "--pairs", 40, "--speed", 10, "--duration", 4, "--format", "jsonl")
    signals = json_lines(done.stdout)
    assert done.returncode == 0
    assert [list(one) for one in signals] == [fields(Signal)] * len(signals)
    assert signals[0]["event_time_ms"] - started_ms < 30_000
    assert {"move", "turnover_ratio"} <= {reason["name"] for reason in signals[0]["reasons"]}
    # What is said last describes the watch, not what was left of it when all was closed.
    assert "1/1 connections, 100.0% of the candle streams up" in done.stderr.splitlines()[-1]


def test_demo_ends_after_its_duration_in_real_seconds_and_logs_plainly_without_a_terminal(perpwatch: Call) -> None:
    started_s = time.monotonic()
    done = perpwatch("demo", "--pairs", 20, "--speed", 20, "--duration", 2)
    assert 2.0 <= time.monotonic() - started_s < 7.0
    assert (done.returncode, done.stdout) == (0, "")
    assert "\x1b" not in done.stderr
    assert "built-in exchange at ws://127.0.0.1:" in done.stderr
    assert "BTC_USDT Min1 running" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_ends_cleanly_within_2_s_of_being_told(number: signal.Signals) -> None:
    with running("demo", "--pairs", 30) as process:
        assert process.stderr is not None
        assert any("built-in exchange" in process.stderr.readline() for _ in range(3))
        time.sleep(2.0)  # into the midst of connecting and reading history
        told_s = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - told_s < 2.0
        rest = process.stderr.read()
        assert "watching 30 contracts: 1/1 connections" in rest.splitlines()[-1]
        assert "Traceback" not in rest


def test_run_and_signals_end_cleanly_within_2_s_of_ctrl_c(exchange: dict[str, str]) -> None:
    for command in ("run", "signals"):
        with running(command, **exchange) as process:
            assert process.stderr is not None
            assert any("mexc at ws://127.0.0.1:" in process.stderr.readline() for _ in range(3))
            time.sleep(0.8)
            told_s = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - told_s < 2.0
            assert "Traceback" not in process.stderr.read()


def test_a_reader_who_goes_away_is_no_reason_for_a_traceback() -> None:
    with running("demo", "--pairs", 20, "--speed", 20, "--duration", 15, "--format", "jsonl") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith('{"detector"')
        process.stdout.close()
        rest = process.stderr.read()
        process.wait(timeout=20)
        assert "Traceback" not in rest


def test_demo_in_a_terminal_draws_a_picture() -> None:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    drawn = b""
    with subprocess.Popen(
        [*COMMAND, "demo", "--pairs", "20", "--speed", "20", "--duration", "6"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd="/",
        env=environment(TERM="xterm"),
    ) as process:
        os.close(terminal)
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            ready, _, _ = select.select([controller], [], [], 0.5)
            try:
                drawn += os.read(controller, 65_536) if ready else b""
            except OSError:
                break  # the other side has closed
        assert process.wait(timeout=5) == 0
    os.close(controller)
    text = drawn.decode()
    for words in ("perpwatch", "connections", "moved most", "signals", "BTC_USDT", "20/20"):
        assert words in text
    assert "\x1b[?25h" in text  # the cursor is back
