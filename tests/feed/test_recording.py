"""Recordings survive being cut, damaged, and disks that are full or slow."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard

from perpwatch.errors import ConfigurationError
from perpwatch.exchanges.mexc.codec import decode
from perpwatch.feed.recording import (
    INDEX_NAME,
    Began,
    FileInfo,
    Lost,
    Record,
    RecordingFile,
    RecordingTrouble,
    RecordingWriter,
    Taken,
    Watched,
    batch_of,
    file_info,
    pack,
    recording_files,
    taken,
)
from perpwatch.model import (
    Batch,
    CandleHistory,
    Contract,
    Event,
    Gap,
    Kind,
    Side,
    Stream,
    StreamUp,
    Ticker,
    Tickers,
    Trade,
    Trades,
)

T0_NS = 1_760_000_000_000_000_000
PUSH = (
    b'{"channel":"push.deal","data":[{"M":1,"O":3,"T":2,"p":%d.5,"t":1646999591755,"v":32}],'
    b'"symbol":"BTC_USDT","ts":1646999591755}'
)
BEGAN = Began(T0_NS, "0", "mexc", b"{}", is_start=True, contracts=[], up=[])


def read(path: Path) -> list[Record]:
    return [record for file in recording_files(path) for record in RecordingFile(file).records()]


def a_record(number: int, frames: int = 20) -> Taken:
    pushes = [PUSH % (number * frames + one) for one in range(frames)]
    return Taken(T0_NS + number * 1_000_000, "ws-1", number, pushes, [], [])


def test_every_kind_of_event_comes_back_as_it_was() -> None:
    stream = Stream(Kind.CANDLES, "BTC_USDT", "Min1")
    frame = PUSH % 7
    events = [
        StreamUp(stream, "ws-1", 5),
        decode(frame),
        Gap(stream, "ws-1", 5, None, "lost"),
        Trades("BTC_USDT", [Trade(1.5, 2.0, Side.BUY, 3, "x")], 4),
        Tickers([Ticker(symbol="BTC_USDT", last_price=1.25, funding_rate=None)], 9),
        CandleHistory("BTC_USDT", [], 1, 2),
    ]
    batch = Batch("ws-1", 77, 88, events, [b"", frame], [b'{"channel":"pong","data":1}'])  # type: ignore[arg-type]
    again = batch_of(taken(batch), decode)
    assert list(again.events) == events
    assert (again.source, again.received_time_ns, again.watermark_ms) == ("ws-1", 77, 88)
    assert list(again.asides) == list(batch.asides)


def test_what_an_adapter_made_of_a_word_is_kept_as_the_word() -> None:
    deal = decode(PUSH % 7)
    assert type(deal) is not Trades
    (event,) = batch_of(taken(Batch("ws-1", 1, 1, [deal])), decode).events  # type: ignore[list-item]
    assert type(event) is Trades
    assert [(trade.price, trade.contracts, trade.side) for trade in event.trades] == [(7.5, 32.0, Side.SELL)]


def test_a_recording_is_read_as_it_was_written_and_unpacked_by_zstd_itself(tmp_path: Path) -> None:
    records = [a_record(number) for number in range(50)]
    with RecordingWriter(tmp_path, BEGAN) as writer:
        for record in records:
            writer.put(record)
    assert read(tmp_path) == [BEGAN, *records]
    assert writer.counters.frames == 1_000
    (path,) = recording_files(tmp_path)
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True) as unpacked:
        assert unpacked.read().count(b"push.deal") == 1_000


@pytest.fixture
def a_file(tmp_path: Path) -> Path:
    path = tmp_path / "one.pwrec"
    path.write_bytes(
        pack([BEGAN], 0) + b"".join(pack([a_record(2 * n, 2), a_record(2 * n + 1, 2)], n) for n in range(5))
    )
    return path


def test_a_file_cut_at_any_byte_is_whole_up_to_the_last_chunk_before_it(a_file: Path) -> None:
    content, whole = a_file.read_bytes(), read(a_file)
    ends = [chunk.offset + chunk.length for chunk in RecordingFile(a_file).chunks()]
    for length in range(len(content) + 1):
        a_file.write_bytes(content[:length])
        file = RecordingFile(a_file)
        found = list(file.records())
        chunks = sum(end <= length for end in ends)
        assert found == whole[: max(0, 2 * chunks - 1)]
        lost = length - max([0, *(end for end in ends if end <= length)])
        assert sum(damage.length for damage in file.damages) == lost
        assert all("cut off" in damage.reason for damage in file.damages)


def test_damage_in_the_midst_costs_one_chunk_and_is_told(a_file: Path) -> None:
    content, whole = bytearray(a_file.read_bytes()), read(a_file)
    third = list(RecordingFile(a_file).chunks())[2]
    for place in range(third.offset + 8, third.offset + third.length):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        a_file.write_bytes(damaged)
        file = RecordingFile(a_file)
        assert list(file.records()) == whole[:3] + whole[5:]
        assert [(damage.offset, damage.length) for damage in file.damages] == [(third.offset, third.length)]


def test_what_is_no_recording_and_what_is_newer_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "notes.pwrec"
    path.write_bytes(b"Dear diary, today the market was quiet." * 3)
    with pytest.raises(ConfigurationError, match="`perpwatch record` has written"):
        RecordingFile(path)
    newer = bytearray(pack([BEGAN], 0))
    newer[12] = 9
    path.write_bytes(newer)
    with pytest.raises(ConfigurationError, match="this file has 9"):
        RecordingFile(path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigurationError, match="it holds none"):
        recording_files(empty)
    with pytest.raises(ConfigurationError, match="file or folder"):
        recording_files(tmp_path / "nowhere")


def test_files_are_closed_by_size_and_each_says_how_things_stood(tmp_path: Path) -> None:
    contract = Contract("BTC_USDT", "BTC", "USDT", "USDT", 1.0)
    up, down = (Stream(Kind.CANDLES, symbol, "Min1") for symbol in ("BTC_USDT", "ETH_USDT"))
    with RecordingWriter(tmp_path, BEGAN, file_bytes=2_000) as writer:
        writer.put(Watched(T0_NS, 5, [contract]))
        told: list[Event] = [StreamUp(up, "ws-1", 7), StreamUp(down, "ws-1", 7), Gap(down, "ws-1", 8, None, "lost")]
        writer.put(taken(Batch("ws-1", T0_NS, 9, told)))
        for number in range(40):
            writer.put(a_record(number + 10, 100))
            if number % 10 == 9:
                _until_written(writer)
    files = recording_files(tmp_path)
    assert len(files) > 1
    first, *later = [next(RecordingFile(path).records()) for path in files]
    assert first == BEGAN
    for began in later:
        assert isinstance(began, Began)
        assert (began.is_start, list(began.contracts)) == (False, [contract])
        assert [(one.stream, one.source) for one in began.up] == [(up, "ws-1")]
        assert began.up[0].event_time_ms == began.now_ms > 9
    index = [msgspec.json.decode(line, type=FileInfo) for line in (tmp_path / INDEX_NAME).read_bytes().splitlines()]
    assert [info.name for info in index] == [path.name for path in files]
    (tmp_path / INDEX_NAME).unlink()
    assert [file_info(path) for path in files] == index


def test_the_oldest_files_go_when_all_are_too_large(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path, BEGAN, file_bytes=1_000, keep_bytes=5_000) as writer:
        for number in range(60):
            writer.put(a_record(number, 100))
            _until_written(writer)
    files = recording_files(tmp_path)
    assert writer.counters.files > len(files) > 1
    assert sum(path.stat().st_size for path in files[:-1]) <= 5_000


def test_a_window_reads_only_the_chunks_that_touch_it(a_file: Path) -> None:
    found = list(RecordingFile(a_file).records(T0_NS + 4_000_000, T0_NS + 6_000_000))
    assert [record.watermark_ms for record in found if isinstance(record, Taken)] == [4, 5]


class _Slow(RecordingWriter):
    """A writer whose disk stands still until it is let go."""

    is_stuck = True

    def _append(self, records: object) -> None:
        while self.is_stuck and self.counters.files:
            time.sleep(0.01)
        super()._append(records)  # type: ignore[arg-type]


def test_a_slow_disk_costs_neither_time_nor_memory_and_what_is_missing_is_marked(tmp_path: Path) -> None:
    troubles: list[RecordingTrouble] = []
    recovered: list[RecordingTrouble] = []
    writer = _Slow(
        tmp_path, BEGAN, max_waiting_bytes=200_000, on_trouble=troubles.append, on_recovered=recovered.append
    )
    with writer:
        began_s = time.monotonic()
        for number in range(200):
            writer.put(a_record(number))
        assert time.monotonic() - began_s < 1.0
        assert writer.waiting_bytes <= 200_000
        assert writer.counters.lost > 0
        writer.is_stuck = False
        _until_written(writer)
        writer.put(a_record(200))
    assert len(troubles) == len(recovered) == 1
    records = read(tmp_path)
    (lost,) = [record for record in records if isinstance(record, Lost)]
    kept = [record.watermark_ms for record in records if isinstance(record, Taken)]
    assert lost.records == writer.counters.lost == 201 - len(kept)
    assert (lost.time_ns, lost.until_ns) == (T0_NS + len(kept[:-1]) * 1_000_000, T0_NS + 199 * 1_000_000)
    assert records[-2:] == [lost, a_record(200)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_told_and_nothing_is_lost_that_memory_holds(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perpwatch.feed.recording.RETRY_S", 0.1)
    troubles: list[RecordingTrouble] = []
    ballast = small_disk / "ballast"
    with RecordingWriter(small_disk, BEGAN, on_trouble=troubles.append) as writer:
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
        for number in range(50):
            writer.put(a_record(number, 200))
        _until(lambda: bool(troubles))
        assert troubles[0].reason == "No space left on device"
        ballast.unlink()
        _until_written(writer)
        _until(lambda: writer.trouble is None)
    (path,) = recording_files(small_disk)
    file = RecordingFile(path)
    assert [record.watermark_ms for record in file.records() if isinstance(record, Taken)] == list(range(50))
    assert file.damages == []


def _until_written(writer: RecordingWriter) -> None:
    writer._wake.set()
    _until(lambda: writer.waiting_bytes == 0)


def _until(condition: object, seconds: float = 10.0) -> None:
    until_s = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until_s, "it never happened"
        time.sleep(0.005)
