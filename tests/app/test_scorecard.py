"""The scorecard as people read it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest
from typer import Typer
from typer.testing import CliRunner

from perpwatch.alert.outcomes import DAY_MS, Excursion, Outcome
from perpwatch.app.scorecard import scorecard_of, scorecard_text
from perpwatch.app.scorecard_cli import scorecard
from perpwatch.model import MINUTE_MS, Direction
from perpwatch.store import Alerted, AlertOutcome, Database, Writer

START_MS = 1_617_580_800_000


def outcome(number: int, hit: bool) -> Outcome:
    def after(good: bool) -> tuple[Excursion, ...]:
        return tuple(Excursion(minutes, 0.01, 0.05 if good else 0.0, -0.02) for minutes in (5, 15, 60, 240))

    time_ms = START_MS + number * 60 * MINUTE_MS
    return Outcome(
        str(number), "default", "ABC_USDT", time_ms, Direction.UP, 1.0, 0.001, after(hit), (after(number < 5),)
    )


def test_stored_outcomes_become_lines_and_damaged_ones_are_left_out() -> None:
    bodies = [msgspec.json.encode(outcome(number, number % 2 == 0)) for number in range(20)]
    rows = scorecard_of([*bodies, b"damaged"], START_MS + 20 * 60 * MINUTE_MS)
    assert [(row.days, row.alerts, row.hits, row.lift) for row in rows] == [(7, 20, 10, 2.0), (30, 20, 10, 2.0)]
    lines = scorecard_text(rows).splitlines()
    assert len(lines) == 4
    assert "50%" in lines[2]
    assert "25%" in lines[2]
    assert "+1.00%" in lines[2]


def test_a_rule_without_judged_alerts_is_shown_with_dashes() -> None:
    rows = scorecard_of([msgspec.json.encode(outcome(0, True))], START_MS + 60 * 24 * 60 * MINUTE_MS)
    assert scorecard_text(rows).splitlines()[2].split() == ["default", "7", "0", "0", "-", "-", "-", "-", "-"]


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def settings(tmp_path: Path) -> Path:
    """A store with twenty outcomes of yesterday, one of last year, and alerts that are still being followed."""
    now_ms = int(time.time() * 1_000)
    kept = [
        msgspec.structs.replace(outcome(number, number % 2 == 0), time_ms=now_ms - DAY_MS - number * 60 * MINUTE_MS)
        for number in range(20)
    ]
    kept.append(msgspec.structs.replace(outcome(20, True), time_ms=now_ms - 365 * DAY_MS))
    alerts = [Alerted(one.key, one.time_ms, one.symbol, b"{}") for one in kept]
    alerts += [Alerted("open", now_ms - 60_000, "ABC_USDT", b"{}"), Alerted("market", now_ms - 60_000, "", b"{}")]
    database = Database.open(f"sqlite:///{tmp_path}/perpwatch.db")
    async with Writer(database) as writer:
        writer.put_now(*alerts)
        writer.put_now(*(AlertOutcome(one.key, one.time_ms, one.symbol, msgspec.json.encode(one)) for one in kept))
    database.close()
    (tmp_path / "perpwatch.toml").write_text("")
    return tmp_path / "perpwatch.toml"


def run(*words: object) -> tuple[str, str]:
    app = Typer()
    app.command()(scorecard)
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_the_scorecard_of_the_store_is_printed(settings: Path) -> None:
    printed, told = run("--config", settings)
    assert [line.split()[:5] for line in printed.splitlines()[2:]] == [
        ["default", "7", "20", "20", "50%"],
        ["default", "30", "20", "20", "50%"],
    ]
    assert "still being followed: 1 of the alerts" in told


def test_the_scorecard_is_there_for_programs_over_any_span(settings: Path) -> None:
    card = json.loads(run("--config", settings, "--format", "json", "--days", 1, "--days", 400)[0])
    assert card["waiting"] == 1
    assert [(row["days"], row["alerts"], row["hits"]) for row in card["rows"]] == [(1, 0, 0), (400, 21, 11)]
    assert card["rows"][1]["lift_low"] < card["rows"][1]["lift"] < card["rows"][1]["lift_high"]


async def test_a_store_without_outcomes_says_when_there_will_be_some(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/perpwatch.db")
    database.close()
    (tmp_path / "perpwatch.toml").write_text("")
    printed, told = run("--config", tmp_path / "perpwatch.toml")
    assert printed == ""
    assert "judged four hours after" in told
