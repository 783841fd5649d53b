"""A client without a socket: says commands to a session of the simulated exchange and keeps what comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from perpwatch.sim import Session, SimulatedExchange

SAMPLES = Path(__file__).parents[1] / "frames" / "mexc" / "samples"


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


class Client:
    """One connection. ``frames`` holds everything heard so far, decoded; ``raw`` the same as bytes."""

    def __init__(self, exchange: SimulatedExchange) -> None:
        self.exchange = exchange
        self.session: Session = exchange.connect(exchange.now_ms)
        self.frames: list[dict[str, Any]] = []
        self.raw: list[bytes] = []

    def say(self, method: str, **param: Any) -> list[dict[str, Any]]:
        """Send a command; what it was answered with at once."""
        return self.send(json.dumps({"method": method, "param": param}))

    def send(self, text: str) -> list[dict[str, Any]]:
        self.session.receive(text, self.exchange.now_ms)
        return self.hear()

    def ping(self) -> list[dict[str, Any]]:
        return self.send('{"method":"ping"}')

    def hear(self) -> list[dict[str, Any]]:
        """What has arrived since the last call."""
        frames = [json.loads(frame) for frame in self.hear_raw()]
        self.frames += frames
        return frames

    def hear_raw(self) -> list[bytes]:
        """The same as bytes, for frames that are not JSON."""
        raw = self.session.take()
        self.raw += raw
        return raw

    def wait(self, seconds: float, *, ping: bool = True) -> list[dict[str, Any]]:
        """Let time pass, pinging now and then; the data frames heard meanwhile."""
        heard: list[dict[str, Any]] = []
        end_ms = self.exchange.now_ms + round(seconds * 1_000)
        while self.exchange.now_ms < end_ms:
            self.exchange.advance(min(end_ms, self.exchange.now_ms + 10_000))
            heard += self.hear()
            if ping:
                heard += self.ping()
        return [frame for frame in heard if frame["channel"] != "pong"]


def of(channel: str, frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [frame for frame in frames if frame["channel"] == channel]
