"""The ``[store]`` table of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from perpwatch.model import Timeframe

if TYPE_CHECKING:
    from perpwatch.store import Retention

DEFAULT_NAME = "perpwatch.db"
#: Under this key the store remembers why minutes are missing.
GAPS_KEY = "gaps"

Days = Annotated[float, Field(ge=0)]  # 0 is for ever


class RetentionConfig(BaseModel):
    """Days that are kept; 0 keeps for ever."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    Min1: Days = 7.0  # some 200 MB a day for the whole market
    Min5: Days = 30.0
    Min15: Days = 90.0
    Min60: Days = 365.0
    ledger: Days = 7.0
    signals: Days = 365.0
    alerts: Days = 0.0


class StoreConfig(BaseModel):
    """Where things are kept, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    url: str = ""  # a file perpwatch.db beside the configuration; or postgresql://user:password@host/name
    history: bool = True  # keep the candles that are read at the start, too
    max_waiting: Annotated[int, Field(ge=1_000)] = 300_000  # records in memory while the disk does not take them
    cleaning_interval: Annotated[float, Field(ge=1)] = 600.0  # seconds between looks for what is too old
    retention: RetentionConfig = RetentionConfig()

    def address(self, config_file: Path | None) -> str:
        """The database's address; the default lies beside the configuration, or in the folder without one."""
        folder = config_file.absolute().parent if config_file else Path.cwd()
        return self.url or f"sqlite:///{folder / DEFAULT_NAME}"

    def kept(self) -> Retention:
        from perpwatch.store import Retention  # only here: most commands read settings and no database

        days = self.retention
        return Retention(
            candles={
                Timeframe.Min1: days.Min1,
                Timeframe.Min5: days.Min5,
                Timeframe.Min15: days.Min15,
                Timeframe.Min60: days.Min60,
            },
            ledger=days.ledger,
            signals=days.signals,
            alerts=days.alerts,
        )
