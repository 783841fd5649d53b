"""Rows to store, and a PostgreSQL server to store them in."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psycopg

from perpwatch.model import (
    MINUTE_MS,
    Candle,
    Direction,
    Finality,
    Level,
    Reason,
    Signal,
    Timeframe,
    Trust,
)

T0 = 1_791_201_600_000  # a full hour


def at(minute: int) -> int:
    return T0 + minute * MINUTE_MS


def candle(
    symbol: str = "BTC_USDT",
    minute: int = 0,
    timeframe: Timeframe = Timeframe.Min1,
    *,
    close: float = 100.5,
    finality: Finality = Finality.SUCCESSOR,
    trust: Trust = Trust.STREAMED,
) -> Candle:
    return Candle(
        symbol=symbol,
        timeframe=timeframe,
        open_time_ms=at(minute),
        open=100.0,
        high=101.25,
        low=99.1,
        close=close,
        contracts=12_345.0,
        base_volume=1.2345,
        turnover=123.456789,
        finality=finality,
        trust=trust,
        real_open=100.1,
        real_high=101.25,
        real_low=99.1,
        real_close=None,
    )


def signal(symbol: str = "BTC_USDT", minute: int = 0) -> Signal:
    return Signal(
        detector="volume_ratio",
        symbol=symbol,
        timeframe=Timeframe.Min5,
        open_time_ms=at(minute) - at(minute) % 300_000,
        direction=Direction.UP,
        level=Level.STRONG,
        price=0.1,
        strength=7.5,
        is_running=True,
        trust=Trust.STREAMED,
        reasons=(Reason("turnover_ratio", 7.5, "x", "7.5 mal so viel wie üblich"), Reason("turnover", 5e6, "USDT")),
        event_time_ms=at(minute) + 1_234,
        received_time_ns=(at(minute) + 1_300) * 1_000_000 + 7,
    )


@dataclass
class PostgresServer:
    """A server of our own in a temporary folder, reached through a socket in it and in no other way."""

    programs: Path
    folder: Path
    user: str | None  # who runs it; the server refuses to run as root

    @classmethod
    def installed(cls) -> PostgresServer | None:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        on_path = shutil.which("initdb")
        programs = next((folder for folder in folders if (folder / "initdb").exists()), None)
        if programs is None:
            programs = Path(on_path).resolve().parent if on_path else None
        if programs is None:
            return None
        # In memory where there is room: each new database copies 8 MB.
        memory = Path("/dev/shm")
        has_room = memory.is_dir() and shutil.disk_usage(memory).free > 1_000_000_000
        folder = Path(tempfile.mkdtemp(prefix="perpwatch-postgres-", dir=memory if has_room else None))
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(folder, user)
        return cls(programs, folder, user)

    def start(self) -> None:
        if not (self.folder / "db").exists():
            self._run("initdb", "-D", f"{self.folder}/db", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c unix_socket_permissions=0777"
        self._run(
            "pg_ctl", "-D", f"{self.folder}/db", "-l", f"{self.folder}/log", "-w", "-t", "30", "-o", options, "start"
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", f"{self.folder}/db", "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        if (self.folder / "db" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder)

    def create(self, name: str) -> str:
        """A new database's address."""
        with psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, *arguments],
            check=True,
            user=self.user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )
