"""``perpwatch replay`` and ``perpwatch diff`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_replay import virtual_watch
from typer.testing import CliRunner, Result

from perpwatch.app.cli import app
from perpwatch.errors import ConfigurationError
from perpwatch.feed.recording import RecordingFile, recording_files


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    assert virtual_watch(folder, 4.0).found
    return folder


def test_a_replay_is_written_told_and_no_different_from_its_recording(recording: Path, tmp_path: Path) -> None:
    result = run("replay", recording, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "to the byte, what the recorded watch found" in result.output
    lines = (tmp_path / "out" / "signals.jsonl").read_bytes().splitlines()
    assert len(lines) > 1
    assert all(json.loads(line)["symbol"] for line in lines)
    same = run("diff", recording, tmp_path / "out")
    assert (same.exit_code, same.stdout.split(":")[0]) == (0, "the same, to the byte")


def test_a_window_tells_what_the_whole_tells_of_it(recording: Path, tmp_path: Path) -> None:
    run("replay", recording, "--out", tmp_path / "all")
    lines = (tmp_path / "all" / "signals.jsonl").read_bytes().splitlines()
    middle_ms = json.loads(lines[len(lines) // 2])["received_time_ns"] // 1_000_000
    run("replay", recording, "--to", middle_ms, "--out", tmp_path / "before")
    run("replay", recording, "--from", middle_ms, "--out", tmp_path / "after")
    before, after = ((tmp_path / name / "signals.jsonl").read_bytes().splitlines() for name in ("before", "after"))
    assert before + after == lines
    assert before
    assert after


def test_differences_are_named_and_give_exit_code_1(recording: Path, tmp_path: Path) -> None:
    run("replay", recording, "--out", tmp_path / "a")
    lines = (tmp_path / "a" / "signals.jsonl").read_bytes().splitlines()
    changed = json.loads(lines[1]) | {"strength": 99.5}
    other = tmp_path / "b.jsonl"
    other.write_bytes(b"\n".join([*lines[2:], json.dumps(changed).encode()]))
    result = run("diff", tmp_path / "a" / "signals.jsonl", other)
    assert result.exit_code == 1
    assert f"{len(lines) - 2} the same, 1 changed, 1 only in" in result.stdout
    assert f"- {json.loads(lines[0])['event_time_ms']}" in result.stdout
    assert "→ 99.5" in result.stdout
    other.write_bytes(b"\n".join(reversed(lines)))
    assert "in another order" in run("diff", tmp_path / "a" / "signals.jsonl", other).stdout


def test_a_cut_recording_is_replayed_as_far_as_it_goes(recording: Path, tmp_path: Path) -> None:
    (whole,) = recording_files(recording)
    cut = tmp_path / whole.name
    chunks = list(RecordingFile(whole).chunks())
    cut.write_bytes(whole.read_bytes()[: chunks[-3].offset + 100])
    result = run("replay", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "cut off in a chunk" in result.output
    assert "cut off in a chunk" in run("replay", tmp_path, "--list").output


def test_a_recording_without_its_beginning_goes_on_from_how_things_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perpwatch.feed.recording.CHUNK_BYTES", 50_000)  # files are closed between chunks
    virtual_watch(tmp_path, 6.0, {"detection": {"window": 2}, "recording": {"file_megabytes": 0.3}})
    files = recording_files(tmp_path)
    assert len(files) > 3
    files[0].unlink()
    files[1].unlink()
    result = run("replay", tmp_path, "--out", tmp_path / "out")
    assert "begins in the midst of a watch" in result.output
    lines = (tmp_path / "out" / "signals.jsonl").read_bytes().splitlines()
    assert lines
    assert {json.loads(line)["trust"] for line in lines} == {"streamed"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("replay", "nowhere"), "file or folder"),
        (("replay", "{recording}", "--speed", "fast"), "max, or a number above 0"),
        (("replay", "{recording}", "--from", "yesterday"), "ISO or epoch"),
        (("diff", "nowhere", "{recording}"), "a file of lines"),
    ],
)
def test_bad_input_is_explained(recording: Path, arguments: tuple[str, ...], expected: str) -> None:
    result = run(*(argument.format(recording=recording) for argument in arguments))
    assert isinstance(result.exception, ConfigurationError)
    assert expected in str(result.exception)
