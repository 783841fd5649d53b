"""A rule tried on the past that a watch has kept, in a process of its own so that the feed does not feel it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from perpwatch.app.api_records import RuleTrial
from perpwatch.detect.rules import Hours, Join, Rule
from perpwatch.errors import ConfigurationError

#: The last day is counted; the one before it warms up.
SPAN = "2d"
MAX_SECONDS = 180.0

NOTHING_KEPT = "a rule is tried on the past that a watch has kept, and nothing is kept here"

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class TrialRunning(Exception):
    """One rule is tried at a time, because it takes a processor."""

    def __str__(self) -> str:
        return "another rule is being tried; this takes a while, try again when it is done"


def to_toml(rule: Rule) -> str:
    """The rule as a file of rules has it."""
    default = Rule(rule.name, rule.conditions)
    table: dict[str, Any] = {}
    for field in rule.__struct_fields__:
        value = getattr(rule, field)
        if field in ("name", "conditions", "join", "at_least", "is_tag") or value == getattr(default, field):
            continue
        if field == "schedule":
            table[field] = [_hours(one) for one in value]
        else:
            table[field] = msgspec.to_builtins(value)
    if rule.join is not Join.ALL:
        table["join"] = f"at least {rule.at_least}" if rule.join is Join.AT_LEAST else rule.join.value
    if rule.is_tag:
        table["tag"] = True
    table["conditions"] = []
    for condition in rule.conditions:
        one: dict[str, Any] = {"detector": condition.detector, **msgspec.to_builtins(condition.settings)}
        if condition.where:
            one["where"] = [str(comparison) for comparison in condition.where]
        if condition.times > 1:
            one["times"] = condition.times
        table["conditions"].append(one)
    return tomli_w.dumps({"rules": {rule.name: table}})


def _hours(hours: Hours) -> str:
    days = ",".join(_DAYS[day] for day in hours.days)
    return f"{days} {hours.start // 60:02}:{hours.start % 60:02}-{hours.end // 60:02}:{hours.end % 60:02}"


async def try_rule(rule: Rule, config_file: Path | None) -> RuleTrial:
    """How often a rule would have told something in the last day.

    Raises:
        ConfigurationError: nothing can be said, and why.
    """
    with tempfile.TemporaryDirectory(prefix="perpwatch-") as folder:
        file = Path(folder) / "rule.toml"
        file.write_text(to_toml(rule), encoding="utf-8")
        command = [sys.executable, "-c", "from perpwatch.app.cli import main; main()"]
        command += ["rules", "check", str(file), "--since", SPAN, "--format", "json", "--processes", "1"]
        command += ["--config", str(config_file)] if config_file is not None else []
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=_step_back if sys.platform != "win32" else None,
        )
        try:
            async with asyncio.timeout(MAX_SECONDS):
                printed, errors = await process.communicate()
        except TimeoutError:
            raise ConfigurationError("rule", rule.name, f"a rule that can be tried in {MAX_SECONDS:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    said = errors.decode(errors="replace").strip()
    if process.returncode != 0:
        raise ConfigurationError("rule", rule.name, said[-300:] or "a rule that can be used")
    sets = msgspec.json.decode(printed)["sets"]
    if not sets:
        raise ConfigurationError("rule", rule.name, said[-300:] or "a watch that has kept something")
    one = sets[0]
    if not one["days"]:
        raise ConfigurationError("rule", rule.name, "more than a day of kept past: the first day only warms up")
    return RuleTrial(rule.name, one["days"], one["alerts"], one["told"], round(one["told"] / one["days"], 1))


def _step_back() -> None:
    os.nice(10)
