"""The laboratory from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_lab import DAY, write_candles
from typer.testing import CliRunner

from perpwatch.app.cli import app
from perpwatch.app.config import Config
from perpwatch.app.lab_cli import rules_named
from perpwatch.app.rules_file import RuleSources
from perpwatch.errors import ConfigurationError

SETS = {
    "name",
    "symbols",
    "days",
    "alerts",
    "alerts_per_day_per_750",
    "market_alerts",
    "events_total",
    "events_found_window",
    "events_found_3min",
    "latency_s_median",
    "other_alerts_per_coin_day",
}
ALERTS = {"symbol", "time_ms", "timeframe", "direction", "level", "reasons"}
QUIET = '[rules.quiet]\ndetector = "rarity"\nrisk = 1e-5\nmove = 6.0\n'


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_has_sets_and_alerts_and_options_take_several_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_candles(tmp_path / name, "AAA_USDT", 2 * DAY, 1, burst_at=[2000])
        write_candles(tmp_path / name, "BBB_USDT", 2 * DAY, 2)
    (tmp_path / "labels.csv").write_text("symbol,time\nAAA,2021-04-06 09:20:00\n")
    labels = ("--labels", tmp_path / "labels.csv")
    words = ("--candles", tmp_path / "one", tmp_path / "two", *labels, "--format", "json", "--processes", 1)
    report = json.loads(run("lab", *words))
    assert [row["name"] for row in report["sets"]] == ["one", "two"]
    assert set(report["sets"][0]) >= SETS
    assert set(report["alerts"][0]) >= ALERTS
    assert report["sets"][0]["events_found_3min"] == 1
    reasons = {reason["name"]: reason for reason in report["alerts"][0]["reasons"]}
    assert {"move", "move_ratio", "turnover_ratio", "score", "trust"} <= set(reasons)
    assert reasons["turnover_ratio"]["value"] > 10


def test_rules_are_files_or_presets_and_the_page_is_written(tmp_path: Path) -> None:
    write_candles(tmp_path / "set", "AAA_USDT", 2 * DAY, 1, burst_at=[2000])
    (tmp_path / "quiet.toml").write_text(QUIET)
    page = tmp_path / "report.html"
    words = ("--candles", tmp_path / "set", "--rules", tmp_path / "quiet.toml", "breakout", "--html", page)
    text = run("lab", *words, "--processes", 1)
    assert [line.split()[1] for line in text.splitlines()[2:]] == ["default", "quiet", "breakout"]
    assert page.read_text().startswith("<!doctype html>")
    assert run("lab", "--candles", tmp_path / "set", "--format", "html", "--processes", 1).count("<svg") >= 2


def test_what_is_neither_file_nor_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="one of the presets default, quiet"):
        rules_named(["loud"])
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(QUIET)
    with pytest.raises(ConfigurationError, match="a name of its own"):
        rules_named([str(tmp_path / "a.toml"), str(tmp_path / "b.toml")])


def test_rules_are_checked_and_measured(tmp_path: Path) -> None:
    write_candles(tmp_path / "set", "AAA_USDT", 2 * DAY, 1, burst_at=[2000])
    path = tmp_path / "rules.toml"
    path.write_text(QUIET)
    assert run("rules", "check", path) == "quiet: rarity (risk 1e-05, move 6.0)\n"
    measured = run("rules", "check", path, "--candles", tmp_path / "set", "--processes", 1)
    assert "quiet" in measured.splitlines()[-1]
    found = json.loads(run("rules", "check", path, "--candles", tmp_path / "set", "--format", "json", "--processes", 1))
    assert [row["rule"] for row in found["sets"]] == ["quiet"]
    path.write_text(QUIET.replace("move", "mvoe"))
    with pytest.raises(ConfigurationError, match=r"rules\.quiet\.mvoe"):
        run("rules", "check", path)
    assert "plain_pump: threshold" in run("rules", "presets")


def test_a_file_of_rules_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(QUIET)
    file = RuleSources(Config().with_overrides({"detection": {"rules": [str(path)]}}))
    assert [rule.name for rule in file.read()] == ["quiet"]
    assert file.changed() is None
    path.write_text(QUIET.replace("quiet", "calm"))
    changed = file.changed()
    assert changed is not None
    assert changed[0].name == "calm"
    path.write_text("nonsense")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        file.changed()
    assert file.changed() is None  # told once
    path.unlink()
    assert file.changed() is None
    with pytest.raises(ConfigurationError, match="that can be read"):
        file.read()
