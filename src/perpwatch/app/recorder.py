"""A bot whose every input is recorded: what the exchange sent, in the order in which it was digested.

The feed's own order is not repeatable: tasks, sockets and timers take turns as the machine lets them. The engine is, so
the recording is cut in front of it: a record for each batch, at the moment it is digested, with the frames it was
decoded from. Dials, sent frames and REST bodies are recorded at the ports, for whoever wants to know why.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perpwatch.app.analysis import TEST
from perpwatch.app.bot import Bot
from perpwatch.app.config import Config
from perpwatch.app.engine import Command, Mute, Past, Step, SwapRules, Teach, Watch
from perpwatch.app.recording_config import RecordingConfig
from perpwatch.app.rules_file import RuleSources
from perpwatch.detect.rules import Rule
from perpwatch.feed.connection import Clock
from perpwatch.feed.ports import Dial, HttpGet
from perpwatch.feed.recording import (
    SETTINGS,
    Began,
    Changed,
    Found,
    RecordingTrouble,
    RecordingWriter,
    Watched,
    recorded_dial,
    recorded_get,
    taken,
)
from perpwatch.model import MINUTE_MS, Batch, Candle, Timeframe

logger = logging.getLogger(__name__)

#: Names of the records of what the engine is given besides batches and contracts: what is known of minutes and what was
#: told before the watch began, candles from before a history, and a symbol whose past new detectors are taught.
LEDGER, DESK, PAST, TEACH, MUTE = "ledger", "desk", "past", "teach", "mute"


class PastPart(msgspec.Struct, frozen=True, array_like=True):
    """What the engine was answered when it asked for candles from before a history."""

    symbol: str
    timeframe: Timeframe
    start_ms: int
    end_ms: int
    candles: list[Candle]


class EngineSettings(msgspec.Struct, frozen=True):
    """What makes an engine."""

    timeframes: tuple[Timeframe, ...]
    is_intrabar: bool
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, config: Config) -> EngineSettings:
        """As configured.

        Raises:
            ConfigurationError: rules that cannot be read.
        """
        rules = RuleSources(config).read()
        return cls(tuple(config.timeframes), config.websocket.enable_real_time_analysis, rules)


class LedgerPart(msgspec.Struct, frozen=True, array_like=True):
    """What the ledger knew of one symbol."""

    symbol: str
    start_ms: int
    codes: bytes


@dataclass(frozen=True, slots=True)
class Recorder:
    """Records what goes through a bot. Made by :func:`recorder`; give the bot its ports, then :meth:`attach` it."""

    writer: RecordingWriter
    config: RecordingConfig
    clock: Clock

    def ports(self, dial: Dial, get: HttpGet) -> tuple[Dial, HttpGet]:
        """The same ways to the exchange, recorded as far as is wanted."""
        return (
            recorded_dial(dial, self.writer, self.clock.time_ns) if self.config.lines else dial,
            recorded_get(get, self.writer, self.clock.time_ns) if self.config.rest_bodies else get,
        )

    def attach(self, bot: Bot) -> None:
        """Record everything that the engine of ``bot`` is given; call it before the bot runs."""
        put, tell, is_first = self.writer.put, bot.on_step, True
        writer = self.writer
        bot.keepers["recording"] = lambda: writer.trouble.reason if writer.trouble is not None else ""
        settings = EngineSettings.of(bot.config)

        def on_command(command: Command) -> None:
            nonlocal is_first, settings
            now_ns = self.clock.time_ns()
            match command:
                case Watch(now_ms=now_ms, contracts=contracts):
                    if is_first:
                        is_first = False
                        put(Changed(now_ns, LEDGER, _ledger_of(bot, now_ms)))
                        put(Changed(now_ns, DESK, bot.engine.analysis.desk.state()))
                        if bot.engine.past is not None:
                            bot.engine.past = self._recorded_past(bot.engine.past)
                    put(Watched(now_ns, now_ms, list(contracts)))
                case SwapRules(rules=rules):
                    settings = msgspec.structs.replace(settings, rules=rules)
                    put(Changed(now_ns, SETTINGS, msgspec.json.encode(settings)))
                case Teach(symbol=symbol):
                    put(Changed(now_ns, TEACH, symbol.encode()))
                case Mute():
                    put(Changed(now_ns, MUTE, msgspec.json.encode(command)))

        def on_step(batch: Batch, step: Step) -> None:
            if batch.source != TEST:  # which the engine has not seen
                put(taken(batch))
                for body in found_in(step):
                    put(Found(batch.received_time_ns, body))
            tell(batch, step)

        bot.on_command, bot.on_step = on_command, on_step

    def _recorded_past(self, past: Past) -> Past:
        def recorded(symbol: str, timeframe: Timeframe, start_ms: int, end_ms: int) -> Sequence[Candle]:
            candles = past(symbol, timeframe, start_ms, end_ms)
            if candles:
                part = PastPart(symbol, timeframe, start_ms, end_ms, list(candles))
                self.writer.put(Changed(self.clock.time_ns(), PAST, msgspec.msgpack.encode(part)))
            return candles

        return recorded


def _ledger_of(bot: Bot, now_ms: int) -> bytes:
    ledger = bot.engine.ledger
    end_ms = now_ms - now_ms % MINUTE_MS + MINUTE_MS
    start_ms = end_ms - ledger.minutes * MINUTE_MS
    parts = [LedgerPart(symbol, start_ms, ledger.codes(symbol, start_ms, end_ms)) for symbol in ledger.symbols()]
    return msgspec.msgpack.encode([part for part in parts if any(part.codes)])


def found_in(step: Step) -> list[bytes]:
    """What a step brought for people, as JSON, in the order in which it is recorded."""
    return [msgspec.json.encode(one) for one in (*step.signals, *step.alerts)]


@contextlib.contextmanager
def recorder(config: Config, config_file: Path | None, clock: Clock) -> Iterator[Recorder]:
    """A recorder that writes where the configuration says.

    Raises:
        ConfigurationError: the folder cannot be used.
    """
    settings = config.recording
    program = importlib.metadata.version("perpwatch")
    engine = msgspec.json.encode(EngineSettings.of(config))
    began = Began(clock.time_ns(), program, config.exchange, engine, is_start=True)
    writer = RecordingWriter(
        settings.path(config_file),
        began,
        file_bytes=round(settings.file_megabytes * 1e6),
        file_s=settings.file_minutes * 60.0,
        keep_bytes=round(settings.keep_gigabytes * 1e9),
        max_waiting_bytes=round(settings.max_waiting_megabytes * 1e6),
        on_trouble=_tell_trouble,
        on_recovered=_tell_recovery,
    )
    with writer:
        logger.info("recording into %s", writer.folder)
        yield Recorder(writer, settings, clock)
    counters = writer.counters
    logger.info(
        "recorded %d frames, %.1f MB as received, in %.1f MB",
        *(counters.frames, counters.raw_bytes / 1e6, counters.written_bytes / 1e6),
    )


def _tell_trouble(trouble: RecordingTrouble) -> None:
    logger.error("the recording cannot be written: %s; what does not fit into memory will be missing", trouble.reason)


def _tell_recovery(trouble: RecordingTrouble) -> None:
    logger.warning("the recording is written again (%s); %d records are missing", trouble.reason, trouble.lost)
