"""Candles for the detectors' tests: drawn from seeds, or read from recorded markets where those are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from perpwatch.app.lab_files import read_candles
from perpwatch.model import Candle, Finality, Timeframe, Trust

#: 2021-04-05 00:00 UTC, a Monday.
START_MS = 1_617_580_800_000


def candle(
    open_time_ms: int,
    close: float,
    turnover: float,
    *,
    symbol: str = "ABC_USDT",
    open: float | None = None,
    timeframe: Timeframe = Timeframe.Min1,
    finality: Finality = Finality.SUCCESSOR,
    trust: Trust = Trust.STREAMED,
    missing_minutes: int = 0,
) -> Candle:
    open = close if open is None else open
    return Candle(
        symbol=symbol,
        timeframe=timeframe,
        open_time_ms=open_time_ms,
        open=open,
        high=max(open, close),
        low=min(open, close),
        close=close,
        contracts=turnover / close,
        base_volume=turnover / close,
        turnover=turnover,
        finality=finality,
        trust=trust,
        missing_minutes=missing_minutes,
    )


def drawn(
    size: int,
    seed: int,
    *,
    symbol: str = "ABC_USDT",
    timeframe: Timeframe = Timeframe.Min1,
    start_ms: int = START_MS,
    bursts: float = 0.005,
) -> list[Candle]:
    """Log-normal turnover, a random walk, and now and then a burst of volume with a move."""
    random = np.random.default_rng(seed)
    is_burst = random.random(size) < bursts
    turnovers = random.lognormal(8.0, 1.0, size) * np.where(is_burst, random.uniform(5.0, 100.0, size), 1.0)
    turnovers *= random.random(size) > 0.05
    returns = random.normal(0.0, 0.001, size) * np.where(is_burst, 8.0, 1.0)
    closes = 100.0 * np.exp(np.cumsum(returns))
    candles = []
    last = 100.0
    for number, (close, turnover) in enumerate(zip(closes.tolist(), turnovers.tolist(), strict=True)):
        open_time_ms = start_ms + number * timeframe.milliseconds
        candles.append(candle(open_time_ms, close, turnover, symbol=symbol, open=last, timeframe=timeframe))
        last = close
    return candles


def recorded_folder(name: str) -> Path:
    """A folder of recorded markets, or a visible skip.

    They may not be shipped with the program (their sources state other licences or none): point ``PERPWATCH_DATA`` to
    the folder that holds them.
    """
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("PERPWATCH_DATA", default)) / name
    if not folder.is_dir():
        pytest.skip(f"recorded markets are not at hand: {folder}; set PERPWATCH_DATA")
    return folder


def recorded(folder: str, symbol: str, size: int, *, timeframe: Timeframe = Timeframe.Min1) -> list[Candle]:
    """The first candles of a recorded symbol."""
    rows = read_candles(recorded_folder(folder) / f"{symbol}.csv.xz")[:size].tolist()
    return [
        candle(int(t_ms), close, volume * (open_ + close) / 2.0, symbol=symbol, open=open_, timeframe=timeframe)
        for t_ms, open_, _, _, close, volume, _ in rows
    ]
