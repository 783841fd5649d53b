"""Streams in the exchange's words: channel names, and the commands that open and close them.

One symbol per command, no batches and no request ids. Promises that reading a command gives back the stream it was
written for: ``stream_of(parse_command(subscribe(stream))) == stream``.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec

from perpwatch.errors import ProtocolError
from perpwatch.model import Kind, Stream, Timeframe

#: Kline intervals of the exchange, which are our own words for them. No Min3 and no Hour1 exist.
TIMEFRAMES = tuple(Timeframe)

#: ``parameter`` of a deal or depth stream that asks for every single change instead of merged ones.
UNMERGED = "unmerged"

#: Levels asked for when a ``depth.full`` stream names none. The limit is always sent: one client was refused without.
DEFAULT_DEPTH = "20"

PING = b'{"method":"ping"}'

_CHANNELS = {
    Kind.TICKERS: "tickers",
    Kind.TICKER: "ticker",
    Kind.CANDLES: "kline",
    Kind.TRADES: "deal",
    Kind.DEPTH: "depth",
    Kind.DEPTH_FULL: "depth.full",
    Kind.DEPTH_STEP: "depth.step",
    Kind.FUNDING_RATE: "funding.rate",
    Kind.INDEX_PRICE: "index.price",
    Kind.FAIR_PRICE: "fair.price",
    Kind.CONTRACTS: "contract",
    Kind.EVENT_CONTRACTS: "event.contract",
}
_KINDS = {name: kind for kind, name in _CHANNELS.items()}
_WHOLE_MARKET = frozenset({Kind.TICKERS, Kind.CONTRACTS, Kind.EVENT_CONTRACTS})


class Parameters(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a command asks for."""

    symbol: str | None = None
    interval: str | None = None  # of klines: Min1 ...
    limit: int | None = None  # of depth.full: 5, 10 or 20
    step: str | None = None  # of depth.step: one of the contract's depthStepList
    compress: bool | None = None  # of deal and depth: false turns merging off; it has nothing to do with bytes


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client sends: ``{"method":"sub.kline","param":{"symbol":"BTC_USDT","interval":"Min1"}}``."""

    method: str
    param: Parameters | None = None

    @property
    def action(self) -> str:
        """``sub``, ``unsub`` or ``ping``; another word means a method the exchange does not know."""
        return self.method.partition(".")[0]

    @property
    def channel(self) -> str:
        """What follows ``sub.`` or ``unsub.``; empty for a ping."""
        return self.method.partition(".")[2]


def channel(stream: Stream) -> str:
    """The exchange's name for what a stream carries: ``kline``, ``depth.full`` ..."""
    return _CHANNELS[stream.kind]


def parse_channel(name: str) -> Kind | None:
    """What a channel carries, or None when the exchange has no such public channel."""
    return _KINDS.get(name)


def subscribe(stream: Stream) -> bytes:
    """The command that opens a stream.

    Raises:
        ValueError: the stream lacks the symbol, timeframe or step that its kind needs, or has one too many.
    """
    return _encode(Command(f"sub.{channel(stream)}", _parameters(stream)))


def unsubscribe(stream: Stream) -> bytes:
    """The command that closes a stream; carries the interval of klines, which documentation omits and demos send.

    Raises:
        ValueError: as for :func:`subscribe`.
    """
    return _encode(Command(f"unsub.{channel(stream)}", _parameters(stream)))


def parse_command(frame: bytes) -> Command:
    """Read what a client sent.

    Raises:
        ProtocolError: not a command.
    """
    try:
        return _COMMAND.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a command: {error}", frame) from error


def stream_of(command: Command) -> Stream:
    """The stream that a ``sub`` or ``unsub`` command is about.

    A kline interval is passed on as it stands; whether the exchange supports it is not decided here.

    Raises:
        ProtocolError: no such channel, or the symbol is missing.
    """
    kind = parse_channel(command.channel)
    if kind is None or command.action not in ("sub", "unsub"):
        _refuse(f"unknown method {command.method!r}", command)
    if kind in _WHOLE_MARKET:
        return Stream(kind)
    parameters = command.param or Parameters()
    if not parameters.symbol:
        _refuse(f"{command.method} without a symbol", command)
    return Stream(kind, parameters.symbol, _stream_parameter(kind, parameters))


_COMMAND = msgspec.json.Decoder(Command)
_encode = msgspec.json.Encoder().encode


def _parameters(stream: Stream) -> Parameters | None:
    symbol, parameter = stream.symbol, stream.parameter
    if stream.kind in _WHOLE_MARKET:
        if symbol or parameter:
            raise ValueError(f"{stream}: {stream.kind} covers the whole market and takes no symbol or parameter")
        # Documentation and demos send an empty param for tickers and none for the two contract channels.
        return Parameters() if stream.kind is Kind.TICKERS else None
    if not symbol:
        raise ValueError(f"{stream}: {stream.kind} needs a symbol")
    match stream.kind:
        case Kind.CANDLES:
            return Parameters(symbol=symbol, interval=Timeframe(parameter).value)
        case Kind.DEPTH_FULL:
            return Parameters(symbol=symbol, limit=int(parameter or DEFAULT_DEPTH))
        case Kind.DEPTH_STEP:
            if not parameter:
                raise ValueError(f"{stream}: {stream.kind} needs a step out of the contract's depthStepList")
            return Parameters(symbol=symbol, step=parameter)
        case Kind.TRADES | Kind.DEPTH if parameter == UNMERGED:
            return Parameters(symbol=symbol, compress=False)
    if parameter:
        raise ValueError(f"{stream}: {stream.kind} takes no parameter {parameter!r}")
    return Parameters(symbol=symbol)


def _stream_parameter(kind: Kind, parameters: Parameters) -> str:
    match kind:
        case Kind.CANDLES:
            return parameters.interval or ""
        case Kind.DEPTH_FULL:
            return DEFAULT_DEPTH if parameters.limit is None else str(parameters.limit)
        case Kind.DEPTH_STEP:
            return parameters.step or ""
        case Kind.TRADES | Kind.DEPTH:
            return UNMERGED if parameters.compress is False else ""
    return ""


def _refuse(reason: str, command: Command) -> NoReturn:
    raise ProtocolError(reason, _encode(command))
