"""Runs a recording through the engine again, under the recorded clock.

The same batches in the same order give the same steps: what a recorded watch found and what its replay finds are equal
to the byte, and :attr:`Replayed.differences` says where they are not, which is what a change of the program or of the
rules does. Time is what the records say; nothing waits unless it is asked to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from perpwatch.app.analysis import Analysis
from perpwatch.app.bot import shipped_scorer
from perpwatch.app.engine import Engine, Mute, Step, SwapRules, Teach, Watch
from perpwatch.app.history import HistoryFeed
from perpwatch.app.recorder import DESK, LEDGER, MUTE, PAST, TEACH, EngineSettings, LedgerPart, PastPart, found_in
from perpwatch.detect.rules import Rule
from perpwatch.errors import ConfigurationError, ProtocolError
from perpwatch.exchanges.adapter import Message
from perpwatch.feed.recording import (
    SETTINGS,
    Began,
    Changed,
    Found,
    Lost,
    Record,
    RecordingFile,
    Taken,
    Watched,
    batch_of,
    recording_files,
    time_of,
)
from perpwatch.model import Batch, Candle, CandleHistory, StreamUp, Timeframe

#: Differences that are kept for telling; all are counted.
TOLD_DIFFERENCES = 20


@dataclass(slots=True)
class Replayed:
    """What a replay went through and what came of it. Times are of the recording, nanoseconds."""

    batches: int = 0
    frames: int = 0
    events: int = 0
    signals: int = 0
    alerts: int = 0
    first_ns: int = 0
    last_ns: int = 0
    runs: int = 0  # starts of the watch
    unreadable: int = 0  # frames that this program does not understand and the recording one did
    missing: list[str] = field(default_factory=list)  # what the recording lacks, in words
    compared: int = 0  # findings of the recorded watch that were compared
    differing: int = 0
    differences: list[str] = field(default_factory=list)  # the first of them, in words

    @property
    def seconds(self) -> float:
        """Length of what was replayed."""
        return (self.last_ns - self.first_ns) / 1e9


class Replay:
    """One pass over a recording.

    Args:
        files: in order; see :func:`perpwatch.feed.recording.recording_files`.
        decode: of the adapter of the exchange that was recorded.
        on_step: told every batch and what it led to, in order, within the window.
        from_ns: before it everything is digested, so that detectors know the past, and nothing is told.
        to_ns: where to end.
        rules: rules to use instead of those of the recorded watch. What is found is then not compared with what it
            found.
    """

    def __init__(
        self,
        files: Sequence[Path],
        decode: Callable[[bytes], Message],
        on_step: Callable[[Batch, Step], None] = lambda batch, step: None,
        *,
        from_ns: int | None = None,
        to_ns: int | None = None,
        rules: Sequence[Rule] | None = None,
    ) -> None:
        self.result = Replayed()
        self.engine: Engine | None = None
        self._files = [RecordingFile(path) for path in files]
        self._decode = decode
        self._on_step = on_step
        self._from_ns = from_ns
        self._to_ns = to_ns
        self._rules = rules
        self._past: dict[tuple[str, Timeframe, int, int], list[Candle]] = {}
        self._expected: list[bytes] | None = None  # what this program has found in the last batch, to be compared

    @classmethod
    def of(cls, path: Path, decode: Callable[[bytes], Message]) -> Replay:
        """Of a file or folder, as it was.

        Raises:
            ConfigurationError: no recording.
        """
        return cls(recording_files(path), decode)

    def run(self) -> Replayed:
        """Replay everything.

        Raises:
            ConfigurationError: settings of the recorded watch that this program cannot use.
        """
        for _ in self.steps():
            pass
        return self.result

    def steps(self) -> Iterator[int]:
        """Replay record by record; yields the time that is reached, for whoever sets the pace."""
        for record in self._records():
            now_ns = time_of(record)
            if self._to_ns is not None and now_ns >= self._to_ns:
                break
            self._take(record, now_ns)
            yield now_ns
        self._compare_rest()

    def _records(self) -> Iterator[Record]:
        for number, file in enumerate(self._files):
            for record in file.records(to_ns=self._to_ns):
                # How things stand is news only at a beginning, or where what was before is not there.
                if not isinstance(record, Began) or record.is_start or number == 0:
                    yield record
            self.result.missing += map(str, file.damages)

    def _take(self, record: Record, now_ns: int) -> None:
        match record:
            case Taken():
                self._digest(self._decoded(record))
            case Watched():
                self._running().obey(Watch(record.now_ms, record.contracts))
            case Found():
                self._compare(record)
            case Began():
                self._begin(record)
            case Changed():
                self._change(record)
            case Lost():
                lasted_s = (record.until_ns - record.time_ns) / 1e9
                text = f"{record.records} records of {lasted_s:.1f} s were not recorded: {record.reason}"
                self.result.missing.append(text)
        result = self.result
        result.first_ns = min(result.first_ns or now_ns, now_ns)
        result.last_ns = max(result.last_ns, now_ns)

    # --- How the watch stood ------------------------------------------------------------------------------------------

    def _begin(self, began: Began) -> None:
        self._compare_rest()
        self.result.runs += 1
        self.engine = engine_of(_settings(began.settings), self._rules)
        self._past.clear()
        self.engine.past = lambda *asked: self._past.pop(asked, [])
        if began.is_start:
            return
        self.result.missing.append("the recording begins in the midst of a watch: detectors learn from what follows")
        self.engine.obey(Watch(began.now_ms, began.contracts))
        # Its history is in a file that is not there; an empty one says that what follows is all there will be.
        unknown = [CandleHistory(one.symbol, (), began.now_ms, began.now_ms) for one in began.contracts]
        self._digest(Batch("rest", began.time_ns, began.now_ms, unknown))
        for source, up in itertools.groupby(sorted(began.up, key=_source_of), key=_source_of):
            self._digest(Batch(source, began.time_ns, 0, list(up)))

    def _change(self, record: Changed) -> None:
        engine = self._running()
        if record.what == LEDGER:
            for part in msgspec.msgpack.decode(record.body, type=list[LedgerPart]):
                engine.ledger.restore(part.symbol, part.start_ms, part.codes)
        elif record.what == PAST:
            # Recorded behind the batch that brought the history, and asked for before the next one is taken.
            past = msgspec.msgpack.decode(record.body, type=PastPart)
            self._past[past.symbol, past.timeframe, past.start_ms, past.end_ms] = past.candles
        elif record.what == TEACH:
            engine.obey(Teach(record.body.decode()))
        elif record.what == MUTE and self._rules is None:
            engine.obey(msgspec.json.decode(record.body, type=Mute))
        elif record.what == DESK and self._rules is None:
            engine.analysis.desk.restore(record.body)
        elif record.what == SETTINGS and self._rules is None:
            engine.obey(SwapRules(_settings(record.body).rules))

    def _running(self) -> Engine:
        if self.engine is None:
            expected = "a recording whose first file is whole; what the watch was like is not known"
            raise ConfigurationError("recording", str(self._files[0].path), expected)
        return self.engine

    # --- The flow -----------------------------------------------------------------------------------------------------

    def _decoded(self, record: Taken) -> Batch:
        try:
            return batch_of(record, self._decode)
        except ProtocolError:
            return batch_of(record, self._decode_or_none)

    def _decode_or_none(self, frame: bytes) -> Message | None:
        try:
            return self._decode(frame)
        except ProtocolError:
            self.result.unreadable += 1
            return None

    def _digest(self, batch: Batch) -> None:
        step = self._running().take(batch)
        result = self.result
        result.batches += 1
        result.frames += len(batch.frames) + len(batch.asides)
        result.events += len(batch.events)
        if self._rules is None:
            self._compare_rest()
            self._expected = found_in(step)
        if self._from_ns is None or batch.received_time_ns >= self._from_ns:
            result.signals += len(step.signals)
            result.alerts += len(step.alerts)
            self._on_step(batch, step)

    # --- Against what the recorded watch found ------------------------------------------------------------------------

    def _compare(self, found: Found) -> None:
        if self._expected is None:
            return
        self.result.compared += 1
        body = self._expected.pop(0) if self._expected else b"nothing"
        if body != found.body:
            self._note(found.body, body)

    def _compare_rest(self) -> None:
        for body in self._expected or ():
            self.result.compared += 1
            self._note(b"nothing", body)
        self._expected = None

    def _note(self, recorded: bytes, replayed: bytes) -> None:
        self.result.differing += 1
        if len(self.result.differences) < TOLD_DIFFERENCES:
            self.result.differences.append(f"recorded {recorded.decode()}, replayed {replayed.decode()}")


class Past:
    """One pass over candles and trades of the past; the window is as for :class:`Replay`."""

    def __init__(
        self, feed: HistoryFeed, engine: Engine, *, from_ns: int | None = None, to_ns: int | None = None
    ) -> None:
        self.result = Replayed(runs=1)
        self.on_step: Callable[[Batch, Step], None] = lambda batch, step: None
        self.engine = engine
        self._feed = feed
        self._from_ns = from_ns
        self._to_ns = to_ns

    def steps(self) -> Iterator[int]:
        """Replay batch by batch; yields the time that is reached."""
        self.engine.obey(Watch(self._feed.start_ms, self._feed.contracts))
        result = self.result
        for batch in self._feed.batches():
            now_ns = batch.received_time_ns
            if self._to_ns is not None and now_ns >= self._to_ns:
                break
            step = self.engine.take(batch)
            result.batches += 1
            result.events += len(batch.events)
            result.first_ns, result.last_ns = result.first_ns or now_ns, now_ns
            if self._from_ns is None or now_ns >= self._from_ns:
                result.signals += len(step.signals)
                result.alerts += len(step.alerts)
                self.on_step(batch, step)
            yield now_ns


def engine_of(settings: EngineSettings, rules: Sequence[Rule] | None = None) -> Engine:
    """A fresh engine, as recorded, or with other rules."""
    analysis = Analysis(settings.rules if rules is None else rules, shipped_scorer())
    return Engine(analysis, settings.timeframes, is_intrabar=settings.is_intrabar)


def _settings(body: bytes) -> EngineSettings:
    """
    Raises:
        ConfigurationError: settings that this program does not understand.
    """
    try:
        return msgspec.json.decode(body, type=EngineSettings)
    except msgspec.MsgspecError as error:
        expected = f"settings that this perpwatch understands ({error})"
        raise ConfigurationError("recording", "settings", expected) from error


def _source_of(up: StreamUp) -> str:
    return up.source


def span_of(files: Iterable[RecordingFile]) -> tuple[int, int]:
    """First and last time of files, by their headers."""
    chunks = [chunk for file in files for chunk in file.chunks()]
    return min((chunk.first_ns for chunk in chunks), default=0), max((chunk.last_ns for chunk in chunks), default=0)
