"""Frames of the exchange, written out once for the tests of feed."""

from __future__ import annotations

from perpwatch.exchanges.mexc import MexcFutures
from perpwatch.model import Stream, stream_of_candles

ADAPTER = MexcFutures()
T0 = 1_791_201_600_000


def kline(symbol: str, at_ms: int, contracts: int = 1, interval: str = "Min1") -> bytes:
    return (
        b'{"symbol":"%(s)b","data":{"symbol":"%(s)b","interval":"%(i)b","t":%(t)d,"o":1,"c":1,"h":1,"l":1,"a":%(q)d,'
        b'"q":%(q)d,"ro":1,"rc":1,"rh":1,"rl":1},"channel":"push.kline","ts":%(ts)d}'
    ) % {
        b"s": symbol.encode(),
        b"i": interval.encode(),
        b"t": at_ms // 60_000 * 60,
        b"q": contracts,
        b"ts": at_ms,
    }


def ack(channel: str, at_ms: int) -> bytes:
    return b'{"channel":"rs.sub.%b","data":"success","ts":%d}' % (channel.encode(), at_ms)


def refusal(text: str, at_ms: int) -> bytes:
    return b'{"channel":"rs.error","data":"%b","ts":%d}' % (text.encode(), at_ms)


def pong(at_ms: int) -> bytes:
    return b'{"channel":"pong","data":%d,"ts":%d}' % (at_ms, at_ms)


def candles(*symbols: str) -> list[Stream]:
    return [stream_of_candles(symbol) for symbol in symbols]
