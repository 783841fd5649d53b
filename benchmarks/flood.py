"""An exchange that sends as fast as its client takes, so that a client can be measured and nothing else.

    python benchmarks/flood.py [--symbols 800]       prints its port, ends with its standard input

It speaks as much of MEXC Futures as clients need: the handshake, acknowledgements, pongs, and over HTTP the contracts,
tickers and minutes that perpwatch loads at its start. Everything it sends in a flood is encoded and framed before the
flood begins; connections are served in turn, in pieces of a few hundred milliseconds of market, so that none runs far
ahead of the others. ``prepare`` and ``go`` below ``/flood/`` are for :mod:`harness`. ``stream`` is the same market at a
steady rate, made while it is sent, in which single contracts go wild at known moments.

The market: of the frames 80 % are klines, 15 % tickers of one contract, 5 % deals, at 5,000 a second of the market's
own time, evenly over all symbols. Within a minute the volume of each symbol only grows; from minute to minute it is
log-normal around what the history has. The same seed gives the same frames.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import numpy as np

#: 2026-10-05 12:00 UTC; market time stands still between floods.
START_MS = 1_791_201_600_000
RATE = 5_000
#: Frames between two turns of the connections.
FRAMES_A_TURN = 1_000
#: Between two floods each connection gets a frame so often: perpwatch would replace one that brings nothing.
TRICKLE_S = 5.0
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Median turnover of a symbol's minute, quote coin, and the width of its logarithm.
MINUTE_TURNOVER, SPREAD = 40_000.0, 0.8
HISTORY_ROWS = 2_000
#: A wild minute has at least so many times the median turnover.
WILD = 60
#: Seconds between two deliveries of a stream.
TICK_S = 0.005
#: A stream looks so often who has subscribed to what.
TARGETS_EVERY_S = 1.0
#: Frames in a second of the market while it bursts.
BURST_RATE = 1_000_000


def names(count: int) -> list[str]:
    return [f"COIN{number:05}_USDT" for number in range(count)]


def framed(payload: bytes) -> bytes:
    """An unmasked text frame, as servers send them."""
    if len(payload) < 126:
        return bytes((0x81, len(payload))) + payload
    if len(payload) < 65_536:
        return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload
    return b"\x81\x7f" + len(payload).to_bytes(8, "big") + payload


@dataclass(slots=True)
class Symbol:
    """One contract as the flood moves it."""

    name: str
    price: float
    first_price: float  # around which the past is drawn, whenever it is read
    contracts_24h: int = 5_000_000
    minute_s: int = 0
    contracts: int = 0
    goal: int = 0  # contracts of the whole running minute
    open: float = 0.0
    high: float = 0.0
    low: float = 0.0
    close: float = 0.0


class Market:
    """Frames in the order of the market's time, each with the number of its symbol."""

    def __init__(self, symbols: int, seed: int = 1, rate: int = RATE) -> None:
        chance = random.Random(seed)
        self.rate = rate
        self.symbols = []
        for name in names(symbols):
            price = round(10.0 ** chance.uniform(-2, 4), 4)
            self.symbols.append(Symbol(name, price, price, close=price))
        self.sent = 0
        self.chance = chance
        self._draws = np.random.default_rng(seed)

        self._elapsed = 0  # in units of a millisecond divided by the rate

    @property
    def now_ms(self) -> int:
        return START_MS + self._elapsed // self.rate

    def at_rate(self, rate: int) -> None:
        """From now on a second of the market has so many frames."""
        self._elapsed = self._elapsed * rate // self.rate
        self.rate = rate

    def frames(self, count: int, spelling: str) -> Iterator[tuple[int, bytes]]:
        """The next frames, framed, each behind the number of its symbol."""
        kline, ticker, deal = SPELLINGS[spelling]
        numbers = self._draws.integers(0, len(self.symbols), count).tolist()
        kinds = self._draws.random(count).tolist()
        steps = (1.0 + 0.0002 * self._draws.standard_normal(count)).tolist()
        for number, kind, step in zip(numbers, kinds, steps, strict=True):
            now_ms = self.now_ms
            one = self.symbols[number]
            self._trade(one, now_ms, step)
            self.sent += 1
            self._elapsed += 1_000
            made = kline(one, now_ms) if kind < 0.8 else ticker(one, now_ms) if kind < 0.95 else deal(one, now_ms)
            yield number, framed(made.encode())

    def wild(self, number: int) -> tuple[int, bytes]:
        """A push that no detector can pass over: the market's time, and a frame as in :meth:`frames`.

        The price is 3 % above that of the minute before, and the volume at least twice what was sent before.
        """
        one, now_ms = self.symbols[number], self.now_ms
        self._trade(one, now_ms, 1.03 if one.close < 1.02 * one.open or one.minute_s != now_ms // 60_000 * 60 else 1.0)
        one.contracts = max(int(2.1 * one.contracts), int(WILD * MINUTE_TURNOVER / one.price / 0.01))
        return now_ms, framed(_kline(one, now_ms).encode())

    def _trade(self, one: Symbol, now_ms: int, step: float) -> None:
        minute_s = now_ms // 60_000 * 60
        if minute_s != one.minute_s:
            one.minute_s, one.contracts = minute_s, 0
            turnover = MINUTE_TURNOVER * self.chance.lognormvariate(0.0, SPREAD)
            one.goal = max(400, int(turnover / one.price / 0.01))
            one.open = one.high = one.low = one.close = one.price
        one.price = one.close = round(one.price * step, 6)
        one.high, one.low = max(one.high, one.close), min(one.low, one.close)
        traded = max(1, one.goal * len(self.symbols) // (self.rate * 60))
        one.contracts += traded
        one.contracts_24h += traded


def _kline(one: Symbol, now_ms: int) -> str:
    amount = one.contracts * 0.01 * one.close
    return (
        f'{{"symbol":"{one.name}","data":{{"symbol":"{one.name}","interval":"Min1","t":{one.minute_s},'
        f'"o":{one.open},"c":{one.close},"h":{one.high},"l":{one.low},"a":{amount:.5f},"q":{one.contracts},'
        f'"ro":{one.open},"rc":{one.close},"rh":{one.high},"rl":{one.low}}},"channel":"push.kline","ts":{now_ms}}}'
    )


def _ticker(one: Symbol, now_ms: int) -> str:
    last = one.close
    return (
        f'{{"symbol":"{one.name}","data":{{"symbol":"{one.name}","lastPrice":{last},"riseFallRate":-0.0292,'
        f'"fairPrice":{last},"indexPrice":{last},"volume24":{one.contracts_24h},"amount24":157589.74,'
        f'"maxBidPrice":{last * 1.2:.4f},"minAskPrice":{last * 0.8:.4f},"lower24Price":{one.low},'
        f'"high24Price":{one.high},"timestamp":{now_ms},"bid1":{last},"ask1":{last},"holdVol":546882118,'
        f'"riseFallValue":-47.2,"fundingRate":0.000072,"zone":"UTC+8","riseFallRates":[-0.0005,0.0011,0.0701],'
        f'"riseFallRatesOfTimezone":[0.0035,0.0057,-0.0005]}},"channel":"push.ticker","ts":{now_ms}}}'
    )


def _deal(one: Symbol, now_ms: int) -> str:
    return (
        f'{{"symbol":"{one.name}","data":[{{"p":{one.close},"v":13,"T":1,"O":3,"M":1,"t":{now_ms},'
        f'"i":"16435741160","cts":"{now_ms}"}}],"channel":"push.deal","ts":{now_ms}}}'
    )


def _binance_kline(one: Symbol, now_ms: int) -> str:
    name = one.name.replace("_", "")
    open_ms, turnover = one.minute_s * 1_000, one.contracts * 0.01 * one.close
    return (
        f'{{"stream":"{name.lower()}@kline_1m","data":{{"e":"kline","E":{now_ms},"s":"{name}","k":{{"t":{open_ms},'
        f'"T":{open_ms + 59_999},"s":"{name}","i":"1m","f":1,"L":{one.contracts},"o":"{one.open:.6f}",'
        f'"c":"{one.close:.6f}","h":"{one.high:.6f}","l":"{one.low:.6f}","v":"{one.contracts}","n":{one.contracts},'
        f'"x":false,"q":"{turnover:.4f}","V":"{one.contracts // 2}","Q":"{turnover / 2:.4f}","B":"0"}}}}}}'
    )


def _binance_quote(one: Symbol, now_ms: int) -> str:
    name, last = one.name.replace("_", ""), f"{one.close:.6f}"
    return (
        f'{{"stream":"{name.lower()}@bookTicker","data":{{"e":"bookTicker","u":400900217,"E":{now_ms},"T":{now_ms},'
        f'"s":"{name}","b":"{last}","B":"31.210","a":"{last}","A":"40.660"}}}}'
    )


def _binance_trade(one: Symbol, now_ms: int) -> str:
    name = one.name.replace("_", "")
    return (
        f'{{"stream":"{name.lower()}@aggTrade","data":{{"e":"aggTrade","E":{now_ms},"a":16435741160,"s":"{name}",'
        f'"p":"{one.close:.6f}","q":"13","nq":"13","f":100,"l":105,"T":{now_ms},"m":true}}}}'
    )


SPELLINGS = {"mexc": (_kline, _ticker, _deal), "binance": (_binance_kline, _binance_quote, _binance_trade)}


# --- The server -----------------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Connection:
    """A client: its socket, under which tag it came, and what it asked for."""

    socket: socket.socket
    tag: str
    sending: threading.Lock = field(default_factory=threading.Lock)
    symbols: set[str] = field(default_factory=set)


class Server:
    def __init__(self, symbols: int, rate: int) -> None:
        self.markets = {spelling: Market(symbols, rate=rate) for spelling in SPELLINGS}
        self.market = self.markets["mexc"]
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.connections: list[Connection] = []
        self.now_ms: dict[str, int] = {}  # by tag: the market's time as far as it was sent
        self._prepared: dict[str, list[tuple[int, list[tuple[Connection, bytes]]]]] = {}  # with the time they begin at
        self._blocks: dict[str, tuple[int, list[tuple[int, bytes]]]] = {}  # by spelling: number and frames

    def serve(self) -> None:
        threading.Thread(target=self._trickle, daemon=True).start()
        while True:
            accepted, _ = self.listener.accept()
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._talk, args=(accepted,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        try:
            waiting = b""
            while True:
                while b"\r\n\r\n" not in waiting:
                    more = client.recv(65_536)
                    if not more:
                        return
                    waiting += more
                head, _, waiting = waiting.partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                path = lines[0].split(" ")[1]
                headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
                if "upgrade" in headers.get("connection", "").lower():
                    self._websocket(client, path, headers["sec-websocket-key"], waiting)
                    return
                body = json.dumps(self._answer(path)).encode()
                client.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
        except OSError:
            pass  # the client has gone
        finally:
            client.close()

    # WebSocket

    def _websocket(self, client: socket.socket, path: str, key: str, waiting: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(key.encode() + MAGIC).digest())
        client.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        connection = Connection(client, path.strip("/").partition("/")[0].partition("?")[0])
        streams = parse_qs(urlsplit(path).query).get("streams", [""])[0]  # Binance's way of naming them
        connection.symbols.update(_binance_symbol(stream) for stream in streams.split("/") if stream)
        self.connections.append(connection)
        try:
            while True:
                while (cut := _unmask(waiting)) is not None:
                    opcode, payload, waiting = cut
                    if opcode == 8:
                        return
                    answer = self._reply(connection, opcode, payload)
                    if answer:
                        with connection.sending:
                            client.sendall(answer)
                more = client.recv(65_536)
                if not more:
                    return
                waiting += more
        finally:
            self.connections.remove(connection)

    def _reply(self, connection: Connection, opcode: int, payload: bytes) -> bytes:
        if opcode == 9:
            return bytes((0x8A, len(payload))) + payload
        if opcode != 1:
            return b""
        command = json.loads(payload)
        now_ms = self.now_ms.get(connection.tag, START_MS)
        method = command.get("method", "")
        if method == "ping":
            return framed(b'{"channel":"pong","data":%d,"ts":%d}' % (now_ms, now_ms))
        if isinstance(method, str) and method.startswith("sub."):
            symbol = (command.get("param") or {}).get("symbol")
            if symbol and method == "sub.kline":
                connection.symbols.add(symbol)
            return framed(f'{{"channel":"rs.{method}","data":"success","ts":{now_ms}}}'.encode())
        if method == "SUBSCRIBE":
            connection.symbols.update(map(_binance_symbol, command["params"]))
            return framed(json.dumps({"result": None, "id": command.get("id")}).encode())
        return b""

    def _trickle(self) -> None:
        """Keep the connections of perpwatch from looking dead while they wait for their turn."""
        by_name = {one.name: one for one in self.market.symbols}
        while True:
            time.sleep(TRICKLE_S)
            for connection in list(self.connections):
                tag = connection.tag
                if tag == "perpwatch" and tag not in self._prepared and connection.symbols:
                    one = by_name[min(connection.symbols)]
                    with contextlib.suppress(OSError), connection.sending:
                        connection.socket.sendall(framed(_ticker(one, self.now_ms.get(tag, START_MS)).encode()))

    # HTTP

    def _answer(self, address: str) -> object:
        parts = urlsplit(address)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        match parts.path.strip("/").split("/"):
            case ["flood", "prepare"]:
                return self._prepare(
                    query["tag"], int(query["frames"]), int(query["block"]), int(query.get("turn", FRAMES_A_TURN))
                )
            case ["flood", "go"]:
                return self._go(query["tag"], float(query.get("turns_per_second", 0.0)))
            case ["flood", "stream"]:
                return self._stream(
                    query["tag"],
                    int(query["rate"]),
                    float(query["seconds"]),
                    burst=int(query.get("burst", 0)),
                    every_s=float(query.get("every_s", 1.0)),
                    wild=int(query.get("wild", 0)),
                    first=int(query.get("first", 0)),
                    symbols=int(query.get("symbols", 1)),
                )
            case ["flood", "subscribed"]:
                return {"symbols": sum(len(one.symbols) for one in self.connections if one.tag == query["tag"])}
            case ["api", "v1", "contract", *rest]:
                return {"success": True, "code": 0, "data": self._exchange(rest, query)}
        return {}

    def _exchange(self, path: list[str], query: dict[str, str]) -> object:
        symbols = self.market.symbols
        match path:
            case ["ping"]:
                return self.market.now_ms
            case ["detail"]:
                return [_contract(one.name) for one in symbols]
            case ["ticker"]:
                fields = {"riseFallRate": 0.0, "volume24": 5_000_000, "amount24": 5e7, "holdVol": 1.0}
                return [fields | {"symbol": one.name, "lastPrice": one.price, "timestamp": 0} for one in symbols]
            case ["kline", symbol]:
                return self._minutes(symbol, int(query["start"]), int(query["end"]))
        return []

    def _minutes(self, symbol: str, start_s: int, end_s: int) -> dict[str, list[float]]:
        """History as dull as the flood itself: the same turnover, prices that go nowhere."""
        one = self.market.symbols[int(symbol[4:9])]
        last_s = min(end_s, self.market.now_ms // 1_000) // 60 * 60
        times = np.arange(max(-(-start_s // 60) * 60, last_s - (HISTORY_ROWS - 1) * 60), last_s + 1, 60)
        draws = np.random.default_rng(int(symbol[4:9]))
        prices = (one.first_price * (1.0 + 0.001 * draws.standard_normal(len(times)))).round(6)
        opens = np.concatenate([prices[:1], prices[:-1]])
        high, low = np.maximum(opens, prices), np.minimum(opens, prices)
        turnover = MINUTE_TURNOVER * draws.lognormal(0.0, SPREAD, len(times))
        contracts = np.maximum(1, (turnover / prices / 0.01)).round()
        columns = {"time": times, "open": opens, "close": prices, "high": high, "low": low, "vol": contracts}
        columns |= {"amount": contracts * 0.01 * prices, "realOpen": opens, "realClose": prices}
        columns |= {"realHigh": high, "realLow": low}
        return {name: column.tolist() for name, column in columns.items()}

    # Floods

    def _prepare(self, tag: str, count: int, block: int, turn: int) -> dict[str, int]:
        """Make ready the frames of a block for the connections of a tag; all tags get the same ones."""
        spelling = "binance" if tag.startswith("binance") else "mexc"
        market = self.markets[spelling]
        number, frames = self._blocks.get(spelling, (-1, []))
        if number != block:
            frames = list(market.frames(count, spelling))
            self._blocks[spelling] = block, frames
        targets = self._targets(tag, market)
        turns: list[tuple[int, list[tuple[Connection, bytes]]]] = []
        start = market.sent - len(frames)
        frames = frames[:count]
        for first in range(0, len(frames), turn):
            parts: dict[Connection, list[bytes]] = {}
            for number, frame in frames[first : first + turn]:
                target = targets[number]
                if target is not None:
                    parts.setdefault(target, []).append(frame)
            begins_ms = START_MS + (start + first) * 1_000 // market.rate
            turns.append((begins_ms, [(connection, b"".join(part)) for connection, part in parts.items()]))
        self._prepared[tag] = turns
        sent = sum(targets[number] is not None for number, _ in frames)
        return {"frames": sent, "bytes": sum(len(part) for _, parts in turns for _, part in parts)}

    def _targets(self, tag: str, market: Market) -> list[Connection | None]:
        """Who gets the frames of each symbol."""
        places: dict[str, Connection] = {}
        for connection in list(self.connections):
            if connection.tag == tag:
                places |= dict.fromkeys(list(connection.symbols), connection)
        return [places.get(one.name) or places.get(one.name.replace("_", "")) for one in market.symbols]

    def _stream(
        self, tag: str, rate: int, seconds: float, *, burst: int, every_s: float, wild: int, first: int, symbols: int
    ) -> dict[str, object]:
        """Send at a steady rate, as it becomes due.

        Args:
            burst: so many frames more at once, every ``every_s`` seconds.
            wild: pushes a second of contracts that go wild, ``symbols`` of them in turn from number ``first`` on.
        Returns:
            Frames sent, by how many seconds the sending was late at worst, and for each wild push its symbol, the
            market's time in it, and the monotonic time in nanoseconds at which it was about to be sent.
        """
        market = self.market
        market.at_rate(rate)
        next_targets_s, targets = TARGETS_EVERY_S, self._targets(tag, market)
        told: list[tuple[str, int, int]] = []
        sent = due_sent = wild_sent = 0
        late_s = 0.0
        began_s, next_burst_s = time.monotonic(), every_s if burst else float("inf")
        while (elapsed_s := time.monotonic() - began_s) < seconds:
            count = int(rate * elapsed_s) - due_sent
            due_sent += count
            frames = list(market.frames(count, "mexc"))
            if elapsed_s >= next_burst_s:
                next_burst_s += every_s
                market.at_rate(BURST_RATE)
                frames += market.frames(burst, "mexc")
                market.at_rate(rate)
            sent += len(frames)
            parts: dict[Connection, list[bytes]] = {}
            for number, frame in frames:
                target = targets[number]
                if target is not None:
                    parts.setdefault(target, []).append(frame)
            due: dict[Connection, list[tuple[str, int]]] = {}
            while wild_sent < int(wild * elapsed_s):
                number = first + wild_sent % symbols
                wild_sent += 1
                target = targets[number]
                if target is not None:
                    now_ms, frame = market.wild(number)
                    parts.setdefault(target, []).append(frame)
                    due.setdefault(target, []).append((market.symbols[number].name, now_ms))
            self.now_ms[tag] = market.now_ms
            for connection, part in parts.items():
                with connection.sending:
                    now_ns = time.monotonic_ns()
                    with contextlib.suppress(OSError):  # the client has replaced it
                        connection.socket.sendall(b"".join(part))
                told += [(*one, now_ns) for one in due.get(connection, ())]
            if elapsed_s >= next_targets_s:
                next_targets_s, targets = elapsed_s + TARGETS_EVERY_S, self._targets(tag, market)
            late_s = max(late_s, time.monotonic() - began_s - elapsed_s - TICK_S)
            time.sleep(max(0.0, began_s + elapsed_s + TICK_S - time.monotonic()))
        return {"frames": sent, "late_s": late_s, "wild": told}

    def _go(self, tag: str, turns_per_second: float) -> dict[str, float]:
        """Send what was prepared, at full speed or so many turns a second; returns the seconds it took."""
        started_s = time.perf_counter()
        for number, (begins_ms, turn) in enumerate(self._prepared[tag]):
            self.now_ms[tag] = begins_ms
            if turns_per_second:
                time.sleep(max(0.0, started_s + number / turns_per_second - time.perf_counter()))
            for connection, part in turn:
                with connection.sending:
                    connection.socket.sendall(part)
        del self._prepared[tag]
        return {"seconds": time.perf_counter() - started_s}


def _binance_symbol(stream: str) -> str:
    return stream.partition("@")[0].upper()


def _unmask(waiting: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame of a client: its opcode, its payload and what follows; None until it is whole."""
    if len(waiting) < 6:
        return None
    size, start = waiting[1] & 0x7F, 2
    if size == 126:
        size, start = int.from_bytes(waiting[2:4], "big"), 4
    elif size == 127:
        size, start = int.from_bytes(waiting[2:10], "big"), 10
    end = start + 4 + size
    if len(waiting) < end:
        return None
    mask = waiting[start : start + 4]
    payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(waiting[start + 4 : end]))
    return waiting[0] & 0x0F, payload, waiting[end:]


def _contract(symbol: str) -> dict[str, object]:
    base = symbol.removesuffix("_USDT")
    coins = {"symbol": symbol, "baseCoin": base, "quoteCoin": "USDT", "settleCoin": "USDT"}
    return coins | {"contractSize": 0.01, "state": 0, "priceUnit": 1e-6, "priceScale": 6, "isHidden": False}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--symbols", type=int, default=800)
    parser.add_argument("--rate", type=int, default=RATE, help="frames in a second of the market's own time")
    arguments = parser.parse_args()
    server = Server(arguments.symbols, arguments.rate)
    threading.Thread(target=server.serve, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
