"""Bytes into meaning. Whatever the bytes, the answer is a Message or a ProtocolError.

A push of today's shape is read by one typed decoder and, for candles, tickers and trades, returned as it is. Everything
else (replies, gzip, older shapes, integers written as ``1.77E9``) takes a second, slower reading.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perpwatch.errors import ProtocolError
from perpwatch.exchanges.adapter import Ack, Ignored, Message, Pong, Refusal, ServerPing
from perpwatch.exchanges.mexc import channels, normalize
from perpwatch.exchanges.mexc.limits import MAX_INFLATED_BYTES
from perpwatch.exchanges.mexc.messages import (
    CommandReply,
    PingRequest,
    PongReply,
    Push,
    PushDeal,
    PushKline,
    PushTicker,
    PushTickers,
    TickerRow,
)

GZIP_MAGIC = b"\x1f\x8b"

#: What msgspec raises for bytes it cannot read; nesting too deep and bad UTF-8 are not its own errors.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, normalize.Unreadable)


def decode(frame: bytes) -> Message:
    """Meaning of one frame, text or gzip.

    Raises:
        ProtocolError: not a message of this exchange; ``reason`` says why and ``frame`` holds its beginning.
    """
    try:
        return _decode_any(frame)
    except UNREADABLE:
        return _read_again(frame)


def decode_all(frames: Sequence[bytes]) -> list[Message]:
    """Meaning of frames that were read together; a third quicker than one by one while all are pushes of today's shape.

    Raises:
        ProtocolError: one of them is not a message of this exchange; :func:`decode` says of each whether it is the one.
    """
    readers = _READERS
    try:
        return [readers[frame[_TELLING]](frame) for frame in frames]
    except (*UNREADABLE, IndexError):
        return [decode(frame) for frame in frames]


def with_integers(value: Any) -> Any:
    """The same JSON value with every whole float as an int: the wire may write 1770330480 as ``1.77033048E9``."""
    match value:
        case float() if value.is_integer() and abs(value) < 2**63:
            return int(value)
        case list():
            return [with_integers(item) for item in value]
        case dict():
            return {key: with_integers(item) for key, item in value.items()}
    return value


def reason_of(error: Exception, value: object = None) -> str:
    """Why a typed reading failed, with the offending time where it was one."""
    text = str(error)
    found = _OUT_OF_RANGE.search(text)
    if found and found["key"] in _TIME_KEYS:
        return (
            f"absurd timestamp {_at(value, found['path'])} at {found['path']} (2015 to 2100, on a whole minute for t)"
        )
    return text


_decode_push: Callable[[bytes], Any] = msgspec.json.Decoder(Push).decode
_decode_ticker = msgspec.json.Decoder(PushTicker).decode
_event_of_ticker = normalize.BUILDERS[PushTicker]


def _decode_any(frame: bytes) -> Message:
    """A push of today's shape, whatever it is about."""
    return normalize.event(_decode_push(frame))


def _ticker(frame: bytes) -> Message:
    return _event_of_ticker(_decode_ticker(frame))


#: The exchange writes what a push is about behind its data: ``"channel":"push.kline","ts":1770330514053}``. The decoder
#: of all pushes goes through the data once to find it and once to read it. The byte at this place tells the most
#: frequent ones apart before; their own decoders check the channel, too, and take two thirds of the time.
_TELLING = -25
_READERS: list[Callable[[bytes], Message]] = [_decode_any] * 256
_READERS[ord("l")] = msgspec.json.Decoder(PushKline).decode  # of push.kline, a name's fourth letter from behind
_READERS[ord("d")] = msgspec.json.Decoder(PushDeal).decode
_READERS[ord("c")] = _ticker

_OUT_OF_RANGE = re.compile(
    r"Expected `int` (?:>=|<=|>|<|that's a multiple).* - at `(?P<path>\$.*?(?P<key>\w+)(?:\[\.*\d*\])*)`"
)
_TIME_KEYS = frozenset(
    {"ts", "t", "ct", "time", "timestamp", "ping", "data", "nextSettleTime", "settleTime", "snapshotTime"}
)
_NAMED_CONTRACT = re.compile(r"Contract \[([^\]]+)\]")


def _read_again(frame: bytes) -> Message:
    """Everything that is not a push of today's shape."""
    if frame[:2] == GZIP_MAGIC:
        frame = _inflate(frame)
        if frame[:2] == GZIP_MAGIC:
            raise ProtocolError("gzip inside gzip", frame)
        return decode(frame)
    try:
        value = with_integers(msgspec.json.decode(frame))
    except UNREADABLE as error:
        raise ProtocolError(f"not JSON: {error}", frame) from error
    if not isinstance(value, dict):
        raise ProtocolError(f"a JSON {type(value).__name__} where an object was expected", frame)
    try:
        return _meaning(value)
    except normalize.Unreadable as error:
        raise ProtocolError(str(error), frame) from error
    except (msgspec.ValidationError, RecursionError) as error:
        raise ProtocolError(reason_of(error, value), frame) from error


def _meaning(value: dict[str, Any]) -> Message:
    channel = value.get("channel")
    if channel is None and "ping" in value:
        ping = msgspec.convert(value, PingRequest).ping
        return ServerPing(msgspec.json.encode({"pong": ping}))
    if not isinstance(channel, str):
        raise normalize.Unreadable("no channel")
    prefix, _, name = channel.partition(".")
    if channel == "pong":
        return Pong(msgspec.convert(value, PongReply).data)
    if channel == "rs.error":
        return _refusal(_command_reply(value))
    if prefix == "rs":
        return _reply(_command_reply(value), name)
    if prefix != "push" or channels.parse_channel(name) is None:
        raise normalize.Unreadable(f"unknown channel {channel!r}")
    return _push(value, channel)


def _push(value: dict[str, Any], channel: str) -> Message:
    content = value.get("data")
    if channel == "push.deal" and isinstance(content, dict):
        value = {**value, "data": [content]}  # the shape before August 2025
    if channel == "push.tickers" and isinstance(content, list):
        return _tickers(value, content)
    return normalize.event(msgspec.convert(value, Push))


def _tickers(value: dict[str, Any], rows: list[Any]) -> Message:
    """The readable rows. The frame is the witness for the whole market and must not be lost for one odd row."""
    readable: list[TickerRow] = []
    first_error: msgspec.ValidationError | None = None
    for row in rows:
        try:
            readable.append(msgspec.convert(row, TickerRow))
        except msgspec.ValidationError as error:
            first_error = first_error or error
    if first_error is not None and not readable:
        raise first_error
    empty = msgspec.convert({**value, "data": []}, PushTickers)
    return PushTickers(tuple(readable), empty.event_time_ms, len(rows) - len(readable))


def _command_reply(value: dict[str, Any]) -> CommandReply:
    return msgspec.convert(value, CommandReply, strict=False)  # the time is a string in documentation


def _reply(reply: CommandReply, name: str) -> Message:
    action, _, channel = name.partition(".")
    if channels.parse_channel(channel) is None or action not in ("sub", "unsub"):
        raise normalize.Unreadable(f"unknown channel {reply.channel!r}")
    if reply.data != "success":
        return _refusal(reply)
    if action == "unsub":
        return Ignored(reply.channel, reply.ts)
    return Ack(channel, reply.ts)


def _refusal(reply: CommandReply) -> Refusal:
    named = _NAMED_CONTRACT.search(reply.data)
    return Refusal(
        text=reply.data,
        symbol=named[1] if named else None,
        closes_connection="close the channel" in reply.data,
        event_time_ms=reply.ts,
    )


def _inflate(frame: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        inflated = inflater.decompress(frame, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise ProtocolError(f"not gzip: {error}", frame) from error
    if inflater.unconsumed_tail:
        raise ProtocolError(f"inflates to more than {MAX_INFLATED_BYTES} bytes", frame)
    if not inflater.eof:
        raise ProtocolError("truncated gzip", frame)
    if inflater.unused_data:
        raise ProtocolError(f"{len(inflater.unused_data)} bytes after the end of gzip", frame)
    return inflated


def _at(value: object, path: str) -> object:
    """What stands at a path such as ``$.data[0].t``; None when the path leads nowhere."""
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        try:
            value = value[key] if key else value[int(index)]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return value
