"""Two minutes of the built-in exchange and frames of the real one, kept here, are replayed to what is known of them.

When a change of detectors or rules is meant to change what is found, ``python tests/app/test_replay_recorded.py``
writes the findings anew, and the difference of ``tests/recordings/minutes.jsonl`` is what has changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from perpwatch.app.engine import Step
from perpwatch.app.recorder import EngineSettings, found_in
from perpwatch.app.replay import Replay
from perpwatch.detect.rules import DEFAULT_RULES
from perpwatch.errors import ProtocolError
from perpwatch.exchanges.mexc.codec import decode
from perpwatch.feed.recording import Began, Record, Taken, Watched, pack, recording_files
from perpwatch.model import ANALYSED_TIMEFRAMES, Batch, CandleUpdate, Contract, Tickers, Trades

ROOT = Path(__file__).parents[2]
MINUTES = ROOT / "tests" / "recordings" / "minutes.pwrec"
KNOWN = MINUTES.with_suffix(".jsonl")
SHIPPED = ROOT / "tests" / "frames" / "mexc" / "recorded.jsonl"
#: Frames whose source states no licence; beside the repository where they may be used and not shipped.
UNSHIPPED = ROOT.parent / "shared" / "data" / "frames_mexc" / "mexc_frames.jsonl"
#: Of the kept watch: a little of everything that a file of 200 kB can hold.
SETTINGS = {
    "rest": {"history_minutes": 60, "audit_share": 0.0},
    "websocket": {"subscription_types": ["ticker", "kline_Min1"], "real_time_volume_threshold": 1.0},
    "detection": {"thresholds": {"Min1": 1.0, "Min5": 1.0, "Min15": 1.0}},
    "recording": {"rest_bodies": False},
}


def found_again(path: Path) -> tuple[Replay, list[bytes]]:
    found: list[bytes] = []

    def on_step(batch: Batch, step: Step) -> None:
        found.extend(found_in(step))

    replay = Replay(recording_files(path), decode, on_step)
    replay.run()
    return replay, found


def test_the_kept_minutes_are_replayed_to_their_known_signals_and_alerts() -> None:
    replay, found = found_again(MINUTES)
    known = KNOWN.read_bytes().splitlines()
    assert len(known) > 5
    assert found == known
    assert replay.result.missing == []
    assert 140 < replay.result.seconds < 150


def test_another_process_with_another_hash_seed_finds_the_same(tmp_path: Path) -> None:
    program = "import sys; from perpwatch.app.cli import main; sys.argv[0] = 'perpwatch'; main()"
    command = [sys.executable, "-c", program, "replay", str(MINUTES), "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True)
    lines = [(tmp_path / name).read_bytes().splitlines() for name in ("signals.jsonl", "alerts.jsonl")]
    known = KNOWN.read_bytes().splitlines()
    assert lines == [
        [line for line in known if line.startswith(b'{"detector"')],
        [line for line in known if line.startswith(b'{"key"')],
    ]


@pytest.mark.parametrize("path", [SHIPPED, UNSHIPPED], ids=["shipped", "unshipped"])
def test_frames_of_the_real_exchange_are_replayed_and_say_nothing_unusual(path: Path, tmp_path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    frames: list[tuple[int, bytes]] = []
    symbols: set[str] = set()
    for line in path.read_text("utf-8").splitlines():
        frame = json.loads(line)["raw"].encode()
        try:
            message = decode(frame)
        except ProtocolError:
            continue
        match message:
            case CandleUpdate(candle=candle):
                symbols.add(candle.symbol)
            case Trades(symbol=symbol):
                symbols.add(symbol)
            case Tickers(tickers=tickers):
                symbols.update(ticker.symbol for ticker in tickers)
            case _:
                continue
        frames.append((message.event_time_ms, frame))
    frames.sort()
    contracts = [Contract(one, one.split("_")[0], one.split("_")[1], "USDT", 1.0) for one in sorted(symbols)]
    settings = msgspec.json.encode(EngineSettings(tuple(ANALYSED_TIMEFRAMES), True, tuple(DEFAULT_RULES)))
    records: list[Record] = [
        Began(frames[0][0] * 1_000_000, "0", "mexc", settings, is_start=True),
        Watched(frames[0][0] * 1_000_000, frames[0][0], contracts),
        *(Taken(time_ms * 1_000_000, "ws-1", time_ms, [frame]) for time_ms, frame in frames),
    ]
    (tmp_path / "real.pwrec").write_bytes(pack(records, 0))
    replay, found = found_again(tmp_path)
    assert found == []
    assert (replay.result.frames, replay.result.events, replay.result.unreadable) == (len(frames), len(frames), 0)
    assert replay.engine is not None
    assert replay.engine.book.counters.pushes > 0 or not any(b"kline" in frame for _, frame in frames)


def _renew() -> None:
    """Record the minutes once more when they are not there, and write down what is found in it."""
    if not MINUTES.exists():
        from test_replay import virtual_watch

        with tempfile.TemporaryDirectory() as folder:
            virtual_watch(Path(folder), 2.4, SETTINGS, pairs=6, activity=8.0)
            shutil.copy(recording_files(Path(folder))[0], MINUTES)
    KNOWN.write_bytes(b"".join(line + b"\n" for line in found_again(MINUTES)[1]))


if __name__ == "__main__":
    _renew()
