"""What two runs found, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from perpwatch.errors import ConfigurationError
from perpwatch.feed.recording import SUFFIX, Found, RecordingFile, recording_files

SIGNALS_NAME, ALERTS_NAME = "signals.jsonl", "alerts.jsonl"

#: Together they say which finding it is; what else it has may differ between two runs.
_IDENTITY = ("rule", "detector", "symbol", "timeframe", "open_time_ms", "is_running", "direction", "time_ms", "key")


@dataclass(slots=True)
class Differences:
    """What is only in one of two runs, and what is in both with other values."""

    same: int = 0
    only_a: list[dict[str, Any]] = field(default_factory=list)
    only_b: list[dict[str, Any]] = field(default_factory=list)
    changed: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    is_order_same: bool = True

    @property
    def is_same(self) -> bool:
        """To the byte and in the same order."""
        return self.is_order_same and not (self.only_a or self.only_b or self.changed)


def read_found(path: Path) -> list[bytes]:
    """The findings of a run, one JSON object each: of a file of lines, a folder of them, or a recording.

    Raises:
        ConfigurationError: nothing of the kind.
    """
    if path.is_dir():
        files = [path / name for name in (SIGNALS_NAME, ALERTS_NAME) if (path / name).exists()]
        if files:
            return [line for file in files for line in _lines(file)]
        return _sorted_like_files(_of_recording(path))
    if path.suffix == SUFFIX:
        return _sorted_like_files(_of_recording(path))
    return _lines(path)


def _lines(path: Path) -> list[bytes]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        expected = f"a file of lines, a folder that `perpwatch replay` has written, or a recording ({error})"
        raise ConfigurationError("diff", str(path), expected) from error
    for number, line in enumerate(lines, 1):
        try:
            msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise ConfigurationError("diff", f"{path}:{number}", f"a JSON object on each line ({error})") from error
    return lines


def _of_recording(path: Path) -> Iterator[bytes]:
    for file in recording_files(path):
        for record in RecordingFile(file).records():
            if isinstance(record, Found):
                yield record.body


def _sorted_like_files(found: Iterable[bytes]) -> list[bytes]:
    """Signals first, then alerts, as a folder has them."""
    bodies = list(found)
    return [body for body in bodies if is_signal(body)] + [body for body in bodies if not is_signal(body)]


class _Kind(msgspec.Struct):
    detector: str | None = None


def is_signal(body: bytes) -> bool:
    """Whether a finding is a signal; else it is an alert."""
    return msgspec.json.decode(body, type=_Kind).detector is not None


def compare(a: Sequence[bytes], b: Sequence[bytes]) -> Differences:
    """Compare two runs, finding by finding."""
    found = Differences()
    common = Counter(a) & Counter(b)
    found.same = common.total()
    rest_a, rest_b = _without(a, common), _without(b, common)
    if not rest_a and not rest_b:
        found.is_order_same = list(a) == list(b)
        return found
    by_identity: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for value in rest_b:
        by_identity.setdefault(_identity(value), []).append(value)
    for value in rest_a:
        others = by_identity.get(_identity(value))
        if others:
            found.changed.append((value, others.pop(0)))
        else:
            found.only_a.append(value)
    found.only_b = [value for value in rest_b if any(value is other for other in by_identity[_identity(value)])]
    return found


def _without(lines: Sequence[bytes], common: Counter[bytes]) -> list[dict[str, Any]]:
    left, rest = Counter(common), []
    for line in lines:
        if left[line] > 0:
            left[line] -= 1
        else:
            rest.append(msgspec.json.decode(line, type=dict[str, Any]))
    return rest


def _identity(value: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(value.get(name) for name in _IDENTITY)


def in_words(value: dict[str, Any]) -> str:
    """A finding in one line."""
    words = [str(value[name]) for name in ("rule", "detector", "symbol", "timeframe") if value.get(name)]
    time_ms = value.get("event_time_ms") or value.get("time_ms")
    return f"{time_ms} " + " ".join(dict.fromkeys(words)) + (" running" if value.get("is_running") else "")


def changes_in_words(a: dict[str, Any], b: dict[str, Any]) -> str:
    """Which values of one finding differ."""
    names = [name for name in a | b if a.get(name) != b.get(name)]
    return "; ".join(f"{name}: {_short(a.get(name))} → {_short(b.get(name))}" for name in names)


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
