"""Recordings: everything that came from the exchange, in the order in which it was digested, so that it can be again.

A recording is a folder of files, or one of them. A file is a row of *chunks*; a chunk is a second or so of the watch:

* a zstd *skippable frame* that holds the chunk's header: when it begins and ends, how many records it has, how long its
  body is, and checksums of both. Whoever looks for a time reads headers only;
* a zstd frame, with zstd's own checksum, that holds the records as one msgpack list.

So ``zstd -dc FILE`` unpacks a recording with no help of ours, a file may be cut at any byte and is whole up to the last
chunk before the cut, and what is damaged in the middle costs one chunk. Finished files are listed in ``index.jsonl``
beside them; that list only saves reading headers and may be deleted.

Every file begins with a :class:`Began`, so that each can be read alone. What the records mean is said at each of them.

:class:`RecordingWriter` never makes its caller wait: records go into a bounded queue, and a thread packs and writes
them. When the disk is full or too slow, what does not fit is left out, loudly, and a :class:`Lost` stands in its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import struct
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
import zstandard

from perpwatch import model
from perpwatch.errors import ConfigurationError, ConnectionFailed, RequestFailed
from perpwatch.feed.ports import Dial, HttpAnswer, HttpGet, Socket
from perpwatch.model import Batch, Contract, Event, Gap, Stream, StreamUp

logger = logging.getLogger(__name__)

SUFFIX = ".pwrec"
INDEX_NAME = "index.jsonl"
#: Version of the format that is written; older ones are read, newer ones are refused.
VERSION = 1

#: A chunk is closed after so many seconds or bytes of records, whichever comes first.
CHUNK_S = 1.0
CHUNK_BYTES = 4 * 1024 * 1024
#: zstd's own default: the next level costs half as much again and saves a twentieth.
COMPRESSION_LEVEL = 3
#: How long a disk that refused is left alone.
RETRY_S = 5.0


# --- Records ---------------------------------------------------------------------------------------------------------


class Began(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The first record of every file: who records what, with which settings."""

    time_ns: int  # our clock
    program: str  # perpwatch's version
    exchange: str
    settings: bytes  # what decides what is found, in the watch's words; nothing secret
    is_start: bool  # False for files that go on where another ended; the following says how things stood then
    now_ms: int = 0  # the exchange's time
    contracts: Sequence[Contract] = ()  # watched
    up: Sequence[StreamUp] = ()  # streams that were up, from the last word of their source on


class Watched(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """From here on exactly these contracts are watched."""

    time_ns: int
    now_ms: int  # the exchange's time as the watch knew it
    contracts: Sequence[Contract]


class Told(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An event that the feed itself put between those that came in frames: ``place`` is its index in the batch."""

    place: int
    name: str  # class in perpwatch.model
    body: bytes  # msgpack


class Taken(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A batch that was digested: frames as the exchange sent them, and what the feed said beside them."""

    received_time_ns: int
    source: str
    watermark_ms: int
    frames: Sequence[bytes]  # one for each event; empty where a Told has it
    told: Sequence[Told] = ()
    asides: Sequence[bytes] = ()  # frames without data: answers, pongs, what could not be understood


class Line(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Something happened to a socket. ``socket`` counts dials; ``what`` is dialled, opened, failed, sent or closed."""

    time_ns: int
    socket: int
    what: str
    detail: bytes = b""  # the address, the frame that was sent, or the reason


class Body(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The answer to a REST call, as received; ``status`` is 0 and ``body`` the reason when there was none."""

    time_ns: int  # when it came
    asked_ns: int
    url: str
    params: Mapping[str, str | int]
    status: int
    body: bytes


class Found(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What the watch found at this point, a signal or an alert, as JSON."""

    time_ns: int
    body: bytes


class Changed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The watch was given something else than data: ``what`` names it, ``body`` is its value in the watch's words.

    ``settings`` replaces those of :class:`Began`.
    """

    time_ns: int
    what: str
    body: bytes


class Lost(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Records are missing here, because the disk did not take them."""

    time_ns: int
    until_ns: int
    records: int
    reason: str


#: The name of a change of settings.
SETTINGS = "settings"

Record = Began | Watched | Taken | Line | Body | Found | Changed | Lost

_RECORDS = msgspec.msgpack.Decoder(list[Record])
_ENCODER = msgspec.msgpack.Encoder()
_EVENTS: dict[str, type[Any]] = {one.__name__: one for one in get_args(Event)}


def time_of(record: Record) -> int:
    """When it happened, nanoseconds of our clock."""
    return record.received_time_ns if isinstance(record, Taken) else record.time_ns


def taken(batch: Batch) -> Taken:
    """A batch as a record."""
    frames = list(batch.frames)
    frames += [b""] * (len(batch.events) - len(frames))
    told = [_told(place, batch.events[place]) for place, frame in enumerate(frames) if not frame]
    return Taken(batch.received_time_ns, batch.source, batch.watermark_ms, frames, told, list(batch.asides))


def batch_of(record: Taken, decode: Callable[[bytes], Any]) -> Batch:
    """The batch again, decoded anew.

    Args:
        decode: the adapter's; what it returns None for is left out.
    Raises:
        ProtocolError: a frame that this program does not understand and the one that recorded it did.
    """
    decoded: list[Event | None] = [decode(frame) if frame else None for frame in record.frames]
    for one in record.told:
        decoded[one.place] = _event(one)
    events = [event for event in decoded if event is not None]
    return Batch(record.source, record.received_time_ns, record.watermark_ms, events, record.frames, record.asides)


def _told(place: int, event: Event) -> Told:
    """An event in the words of the model, whatever an adapter made of them."""
    kind = next(one for one in type(event).__mro__ if one in _EVENTS.values())
    return Told(place, kind.__name__, _ENCODER.encode(event if _is_plain(event, kind) else _plain(event)))


def _is_plain(event: Event, kind: type[Any]) -> bool:
    # A history is long, and its candles are the model's: looking at each would take longer than writing them.
    return type(event) is kind and isinstance(event, StreamUp | Gap | model.CandleHistory)


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        kind: type[msgspec.Struct] = next(one for one in type(value).__mro__ if one.__module__ == model.__name__)
        fields = {name: _plain(getattr(value, name)) for name in kind.__struct_fields__}
        # A class that is written as a list is read as one.
        return list(fields.values()) if kind.__struct_config__.array_like else fields
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _event(told: Told) -> Event:
    event: Event = msgspec.msgpack.decode(told.body, type=_EVENTS[told.name])
    return event


# --- Files -----------------------------------------------------------------------------------------------------------

#: Skippable frame: magic number of the kind and length; then mark, version, checksum and length of the body, number of
#: records, first and last time (ns), number of the chunk; then the checksum of all that.
_SKIPPABLE, _HEADER, _CHECKSUM = struct.Struct("<II"), struct.Struct("<4sHIIIqqI"), struct.Struct("<I")
_MAGIC, _MARK = 0x184D2A5C, b"PWRC"
_HEAD_BYTES = _SKIPPABLE.size + _HEADER.size + _CHECKSUM.size


@dataclass(frozen=True, slots=True)
class ChunkInfo:
    """Where a chunk lies in its file."""

    offset: int  # of its header
    length: int  # header and body
    records: int
    first_ns: int
    last_ns: int


def pack(records: Sequence[Record], number: int) -> bytes:
    """A chunk of at least one record."""
    body = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True).compress(_ENCODER.encode(records))
    times = [time_of(record) for record in records]
    header = _SKIPPABLE.pack(_MAGIC, _HEADER.size + _CHECKSUM.size) + _HEADER.pack(
        _MARK, VERSION, zlib.crc32(body), len(body), len(records), min(times), max(times), number & 0xFFFFFFFF
    )
    return header + _CHECKSUM.pack(zlib.crc32(header)) + body


@dataclass(slots=True)
class Damage:
    """What of a file could not be read."""

    path: Path
    offset: int
    length: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.length} bytes at {self.offset} cannot be read: {self.reason}"


class RecordingFile:
    """One file of a recording, for reading. ``damages`` is complete when everything has been read.

    Raises:
        ConfigurationError: no such file, or no recording.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damages: list[Damage] = []
        try:
            self.size = path.stat().st_size
            with path.open("rb") as file:
                begin = file.read(_HEAD_BYTES)
        except OSError as error:
            raise ConfigurationError("recording", str(path), f"a file that can be read ({error})") from error
        if len(begin) >= _SKIPPABLE.size + 6:
            magic, _ = _SKIPPABLE.unpack_from(begin)
            mark, version = struct.unpack_from("<4sH", begin, _SKIPPABLE.size)
            if magic != _MAGIC or mark != _MARK:
                raise ConfigurationError("recording", str(path), "a file that `perpwatch record` has written")
            if version > VERSION:
                expected = f"format {VERSION} or older; this file has {version}, use the perpwatch that wrote it"
                raise ConfigurationError("recording", str(path), expected)

    def chunks(self) -> Iterator[ChunkInfo]:
        """All whole chunks, by their headers alone."""
        with self.path.open("rb") as file:
            for info, _ in self._chunks(file, has_bodies=False):
                yield info

    def records(self, from_ns: int | None = None, to_ns: int | None = None) -> Iterator[Record]:
        """Records in order; with a window, all of every chunk that touches it."""
        with self.path.open("rb") as file:
            for info, body in self._chunks(file, has_bodies=True, from_ns=from_ns, to_ns=to_ns):
                try:
                    unpacked = zstandard.ZstdDecompressor().decompress(body)
                    yield from _RECORDS.decode(unpacked)
                except (zstandard.ZstdError, msgspec.MsgspecError) as error:
                    self.damages.append(Damage(self.path, info.offset, info.length, str(error)))

    def _chunks(
        self, file: Any, *, has_bodies: bool, from_ns: int | None = None, to_ns: int | None = None
    ) -> Iterator[tuple[ChunkInfo, bytes]]:
        self.damages = []
        offset = 0
        while offset < self.size:
            file.seek(offset)
            head = file.read(_HEAD_BYTES)
            if len(head) < _HEAD_BYTES:
                self._note(offset, self.size - offset, "cut off in a header")
                return
            mark, _, checksum, length, records, first_ns, last_ns, _ = _HEADER.unpack_from(head, _SKIPPABLE.size)
            (told,) = _CHECKSUM.unpack_from(head, _HEAD_BYTES - _CHECKSUM.size)
            if mark != _MARK or told != zlib.crc32(head[: -_CHECKSUM.size]):
                found = self._next_header(file, offset + 1)
                self._note(offset, found - offset, "a header is damaged")
                offset = found
                continue
            info = ChunkInfo(offset, _HEAD_BYTES + length, records, first_ns, last_ns)
            if offset + info.length > self.size:
                self._note(offset, self.size - offset, f"cut off in a chunk of {records} records")
                return
            is_outside = (from_ns is not None and last_ns < from_ns) or (to_ns is not None and first_ns >= to_ns)
            if not has_bodies:
                yield info, b""
            elif not is_outside:
                body = file.read(length)
                if zlib.crc32(body) == checksum:
                    yield info, body
                else:
                    self._note(offset, info.length, f"a chunk of {records} records is damaged")
            offset += info.length

    def _next_header(self, file: Any, offset: int) -> int:
        """Where the next chunk seems to begin; the end of the file when none does."""
        begin = _SKIPPABLE.pack(_MAGIC, _HEADER.size + _CHECKSUM.size) + _MARK
        file.seek(offset)
        tail = b""
        while block := file.read(1 << 20):
            place: int = (tail + block).find(begin)
            if place >= 0:
                return offset - len(tail) + place
            offset += len(block)
            tail = (tail + block)[-len(begin) + 1 :]
        return self.size

    def _note(self, offset: int, length: int, reason: str) -> None:
        self.damages.append(Damage(self.path, offset, length, reason))


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file of a recording in one line: the words of ``index.jsonl``."""

    name: str
    bytes: int
    chunks: int
    records: int
    first_ns: int
    last_ns: int


def recording_files(path: Path) -> list[Path]:
    """The files of a recording in order: those of a folder, or the one that is named.

    Raises:
        ConfigurationError: there is none.
    """
    if path.is_dir():
        files = sorted(path.glob(f"*{SUFFIX}"))
        if not files:
            raise ConfigurationError("recording", str(path), f"a folder with {SUFFIX} files; it holds none")
        return files
    if not path.exists():
        raise ConfigurationError("recording", str(path), "a file or folder that `perpwatch record` has written")
    return [path]


def file_info(path: Path) -> FileInfo:
    """What a file holds: from the index beside it when the file is as long as it says, else from its headers."""
    size = path.stat().st_size
    for info in _read_index(path.parent):
        if info.name == path.name and info.bytes == size:
            return info
    chunks = list(RecordingFile(path).chunks())
    return FileInfo(
        path.name,
        size,
        len(chunks),
        sum(chunk.records for chunk in chunks),
        min((chunk.first_ns for chunk in chunks), default=0),
        max((chunk.last_ns for chunk in chunks), default=0),
    )


def _read_index(folder: Path) -> list[FileInfo]:
    try:
        lines = (folder / INDEX_NAME).read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError):  # the last line may be cut
            found.append(msgspec.json.decode(line, type=FileInfo))
    return found


# --- Writing ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class RecordingCounters:
    """Totals since the start; read by other threads, written by one each."""

    records: int = 0  # written
    frames: int = 0
    raw_bytes: int = 0  # of frames and bodies, as received
    written_bytes: int = 0
    lost: int = 0  # records that the disk did not take
    files: int = 0
    busy_s: float = 0.0  # CPU time of the writing thread


@dataclass(frozen=True, slots=True)
class RecordingTrouble:
    """The disk does not take what comes."""

    reason: str
    lost: int  # records so far


class RecordingWriter:
    """Writes records to files of a folder, by a thread of its own. Use as a context.

    Args:
        file_bytes: a file is closed when it has grown so large ...
        file_s: ... or so old.
        keep_bytes: the oldest files are deleted when all together are larger; 0 keeps everything.
        max_waiting_bytes: what may wait in memory; beyond, records are left out until half of it has been written.
        on_trouble: called from the writing thread, once each time trouble begins.
        on_recovered: called likewise when it is over.
    Raises on entering:
        ConfigurationError: the folder cannot be made or written.
    """

    def __init__(
        self,
        folder: Path,
        began: Began,
        *,
        file_bytes: int = 256 * 1024 * 1024,
        file_s: float = 3_600.0,
        keep_bytes: int = 0,
        max_waiting_bytes: int = 64 * 1024 * 1024,
        on_trouble: Callable[[RecordingTrouble], None] = lambda trouble: None,
        on_recovered: Callable[[RecordingTrouble], None] = lambda trouble: None,
    ) -> None:
        self.folder = folder
        self.counters = RecordingCounters()
        self.trouble: RecordingTrouble | None = None
        self.waiting_bytes = 0
        self._began = began
        self._file_bytes = file_bytes
        self._file_s = file_s
        self._keep_bytes = keep_bytes
        self._max_waiting_bytes = max_waiting_bytes
        self._on_trouble = on_trouble
        self._on_recovered = on_recovered
        self._lock = threading.Lock()
        self._waiting: list[Record] = []
        self._lost: Lost | None = None  # what is being left out now
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._write_on, name="recording", daemon=True)
        self._file: Any = None
        self._path = folder
        self._info = FileInfo("", 0, 0, 0, 0, 0)
        self._opened_s = 0.0
        self._contracts: Sequence[Contract] = ()  # watched, as far as it is written
        self._up: dict[Stream, StreamUp] = {}
        self._watermarks: dict[str, int] = {}

    def __enter__(self) -> RecordingWriter:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._finish_cut_files()
            self._open()
        except OSError as error:
            raise ConfigurationError("recording.folder", str(self.folder), f"a folder to write to ({error})") from error
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_closing = True
        self._wake.set()
        self._thread.join()

    # --- From the loop ------------------------------------------------------------------------------------------------

    def put(self, record: Record) -> None:
        """Hand over a record; never waits, never raises."""
        size = _size(record)
        with self._lock:
            if self._lost is not None and self.waiting_bytes > self._max_waiting_bytes // 2:
                is_lost = True
            else:
                is_lost = self.waiting_bytes + size > self._max_waiting_bytes
            if is_lost:
                now_ns = time_of(record)
                lost = self._lost or Lost(now_ns, now_ns, 0, "the disk is too slow or full")
                self._lost = msgspec.structs.replace(lost, until_ns=now_ns, records=lost.records + 1)
                self.counters.lost += 1
                return
            if self._lost is not None:
                self._waiting.append(self._lost)
                self._lost = None
            self._waiting.append(record)
            self.waiting_bytes += size
            is_much = self.waiting_bytes >= CHUNK_BYTES
        if is_much:
            self._wake.set()

    # --- The thread ---------------------------------------------------------------------------------------------------

    def _write_on(self) -> None:
        while not self._is_closing:
            self._wake.wait(CHUNK_S)
            self._wake.clear()
            self._write_waiting()
            self.counters.busy_s = time.thread_time()
        self._write_waiting(is_last=True)
        with self._lock:
            if self._lost is not None:
                self._waiting.append(self._lost)
        self._write_waiting(is_last=True)
        with contextlib.suppress(OSError):
            self._close()
        if self._waiting:
            logger.error("%d records were not written before the end", len(self._waiting))

    def _write_waiting(self, *, is_last: bool = False) -> None:
        while True:
            with self._lock:
                records, size = _first(self._waiting)
                if self._lost is not None and self.trouble is None:
                    self._begin_trouble(self._lost.reason)
            if not records:
                return
            if not self._written(records, is_last=is_last):
                return
            with self._lock:
                del self._waiting[: len(records)]
                self.waiting_bytes -= size
                is_over = self._lost is None
            if self.trouble is not None and is_over:
                trouble, self.trouble = self.trouble, None
                self._on_recovered(dataclasses.replace(trouble, lost=self.counters.lost))

    def _written(self, records: list[Record], *, is_last: bool) -> bool:
        """Write a chunk; when the disk refuses, wait a while and report False, with the file as it was."""
        try:
            if self._file is None or self._is_full():
                self._close()
                self._open()
            self._append(records)
        except OSError as error:
            if self.trouble is None:
                self._begin_trouble(os.strerror(error.errno) if error.errno else str(error))
            if not is_last:
                self._wait(RETRY_S)
            return False
        for record in records:
            if isinstance(record, Watched):
                self._contracts = record.contracts
            elif isinstance(record, Changed) and record.what == SETTINGS:
                self._began = msgspec.structs.replace(self._began, settings=record.body)
            elif isinstance(record, Taken):
                self._follow(record)
            self.counters.raw_bytes += _size(record)
        self.counters.records += len(records)
        return True

    def _follow(self, record: Taken) -> None:
        """Remember how things stand, for the beginning of the next file."""
        self.counters.frames += len(record.frames) - len(record.told) + len(record.asides)
        if record.source != "rest":
            self._watermarks[record.source] = record.watermark_ms or self._watermarks.get(record.source, 0)
        for told in record.told:
            if told.name not in ("StreamUp", "Gap"):
                continue
            event = _event(told)
            if isinstance(event, StreamUp):
                self._up[event.stream] = event
            elif isinstance(event, Gap) and event.end_time_ms is None:
                self._up.pop(event.stream, None)

    def _append(self, records: Sequence[Record]) -> None:
        chunk = pack(records, self._info.chunks)
        try:
            rest = memoryview(chunk)
            while rest:  # a disk that is nearly full takes a part, and refuses the next
                rest = rest[self._file.write(rest) :]
        except OSError:
            # A part may have been written; a reader would take it for damage.
            with contextlib.suppress(OSError):
                self._file.truncate(self._info.bytes)
                self._file.seek(self._info.bytes)
            raise
        times = [time_of(record) for record in records]
        info = self._info
        self._info = FileInfo(
            info.name,
            info.bytes + len(chunk),
            info.chunks + 1,
            info.records + len(records),
            min([*times, info.first_ns] if info.chunks else times),
            max([*times, info.last_ns]),
        )
        self.counters.written_bytes += len(chunk)

    def _wait(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while not self._is_closing and time.monotonic() < until_s:
            time.sleep(0.1)

    def _begin_trouble(self, reason: str) -> None:
        self.trouble = RecordingTrouble(reason, self.counters.lost)
        self._on_trouble(self.trouble)

    def _is_full(self) -> bool:
        return self._info.bytes >= self._file_bytes or time.monotonic() - self._opened_s >= self._file_s

    def _open(self) -> None:
        began = self._began
        if self.counters.files:
            now_ms = max(self._watermarks.values(), default=0)
            began = msgspec.structs.replace(
                began,
                time_ns=self._info.last_ns,
                is_start=False,
                now_ms=now_ms,
                contracts=self._contracts,
                up=[
                    StreamUp(stream, up.source, max(up.event_time_ms, self._watermarks.get(up.source, 0)))
                    for stream, up in self._up.items()
                ],
            )
        moment = datetime.fromtimestamp(began.time_ns / 1e9, UTC)
        number = 0
        while (path := self.folder / f"{moment:%Y%m%dT%H%M%S}-{number:03}{SUFFIX}").exists():
            number += 1
        self._file = path.open("xb", buffering=0)
        self._path, self._info, self._opened_s = path, FileInfo(path.name, 0, 0, 0, 0, 0), time.monotonic()
        try:
            self._append([began])
        except OSError:
            self._file.close()
            self._file = None
            path.unlink(missing_ok=True)
            raise
        self.counters.files += 1
        self._delete_oldest()

    def _close(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        file.close()
        with (self.folder / INDEX_NAME).open("ab") as index:
            index.write(msgspec.json.encode(self._info) + b"\n")

    def _finish_cut_files(self) -> None:
        """Put files into the index that an earlier run could not: it was killed."""
        known = {info.name for info in _read_index(self.folder)}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path.name not in known:
                with (self.folder / INDEX_NAME).open("ab") as index:
                    index.write(msgspec.json.encode(file_info(path)) + b"\n")

    def _delete_oldest(self) -> None:
        if not self._keep_bytes:
            return
        files = sorted(self.folder.glob(f"*{SUFFIX}"))
        total = sum(path.stat().st_size for path in files)
        for path in files[:-1]:
            if total <= self._keep_bytes:
                break
            total -= path.stat().st_size
            path.unlink()
            logger.info("%s was deleted: the recording is larger than it may be", path.name)


def _first(waiting: list[Record]) -> tuple[list[Record], int]:
    """As many records as make a chunk, and their size."""
    size = 0
    for count, record in enumerate(waiting, start=1):
        size += _size(record)
        if size >= CHUNK_BYTES:
            return waiting[:count], size
    return list(waiting), size


def _size(record: Record) -> int:
    """Bytes of memory, about."""
    match record:
        case Taken(frames=frames, told=told, asides=asides):
            return (
                100
                + sum(map(len, frames))
                + 33 * len(frames)
                + sum(len(one.body) for one in told)
                + sum(map(len, asides))
            )
        case Body(body=body) | Found(body=body) | Changed(body=body):
            return 200 + len(body)
        case Watched(contracts=contracts) | Began(contracts=contracts):
            return 100 + 300 * len(contracts)
    return 200


# --- At the ports ----------------------------------------------------------------------------------------------------


class _RecordedSocket:
    """A socket whose words are written down; what it hears is recorded where it is digested."""

    def __init__(self, socket: Socket, number: int, writer: RecordingWriter, time_ns: Callable[[], int]) -> None:
        self._socket = socket
        self._number = number
        self._writer = writer
        self._time_ns = time_ns
        self._is_closed = False

    @property
    def on_read(self) -> Callable[[], None]:
        return self._socket.on_read

    @on_read.setter
    def on_read(self, take: Callable[[], None]) -> None:
        self._socket.on_read = take

    def take(self) -> list[bytes]:
        return self._socket.take()

    async def receive(self) -> list[bytes]:
        return await self._socket.receive()

    def send(self, payload: bytes) -> None:
        self._writer.put(Line(self._time_ns(), self._number, "sent", payload))
        self._socket.send(payload)

    async def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._writer.put(Line(self._time_ns(), self._number, "closed"))
        await self._socket.close()


def recorded_dial(dial: Dial, writer: RecordingWriter, time_ns: Callable[[], int]) -> Dial:
    """The same way to sockets; every dial, its end, and what is sent are recorded."""
    count = 0

    async def recorded(url: str) -> Socket:
        nonlocal count
        count += 1
        number = count
        writer.put(Line(time_ns(), number, "dialled", url.encode()))
        try:
            socket = await dial(url)
        except ConnectionFailed as error:
            writer.put(Line(time_ns(), number, "failed", str(error).encode()))
            raise
        writer.put(Line(time_ns(), number, "opened"))
        return _RecordedSocket(socket, number, writer, time_ns)

    return recorded


def recorded_get(get: HttpGet, writer: RecordingWriter, time_ns: Callable[[], int]) -> HttpGet:
    """The same way to HTTP; every answer is recorded as it came."""

    def recorded(url: str, params: Mapping[str, str | int]) -> Awaitable[HttpAnswer]:
        return ask(url, params)

    async def ask(url: str, params: Mapping[str, str | int]) -> HttpAnswer:
        asked_ns = time_ns()
        try:
            answer = await get(url, params)
        except RequestFailed as error:
            writer.put(Body(time_ns(), asked_ns, url, params, 0, str(error).encode()))
            raise
        writer.put(Body(time_ns(), asked_ns, url, params, answer.status, answer.body))
        return answer

    return recorded
