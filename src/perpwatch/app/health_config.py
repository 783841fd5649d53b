"""The ``[health]`` table of the configuration."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from perpwatch.alert.operational import Thresholds


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give an address like https://host/path")
    return url


class HealthConfig(BaseModel):
    """Who may look at the state of the watch, and from where on something is wrong with it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    enabled: bool = True  # serve /metrics and /healthz; operational alerts are made in any case
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8766  # 0 takes a free one
    unreachable_after_s: Annotated[float, Field(ge=5, le=3_600)] = 15.0  # nothing at all heard from the exchange
    coverage_threshold: Annotated[float, Field(ge=0, le=1)] = 0.95  # share of the contracts; 0 for never
    data_delay_s: Annotated[float, Field(gt=0)] = 10.0
    clock_drift_s: Annotated[float, Field(gt=0)] = 2.0
    error_rate: Annotated[float, Field(gt=0, le=1)] = 0.2  # share of the REST requests of a minute
    bad_frame_rate: Annotated[float, Field(gt=0, le=1)] = 0.01  # share of the frames of a minute
    repair_patience_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0  # that the end of a trouble waits for repairs
    dead_man_url: Annotated[str, AfterValidator(_check_url)] | None = None  # asked regularly while all is well
    dead_man_interval: Annotated[float, Field(ge=5, le=86_400)] = 60.0  # seconds

    def thresholds(self) -> Thresholds:
        return Thresholds(
            unreachable_after_s=self.unreachable_after_s,
            coverage=self.coverage_threshold,
            data_delay_s=self.data_delay_s,
            clock_drift_s=self.clock_drift_s,
            error_rate=self.error_rate,
            bad_frame_rate=self.bad_frame_rate,
            repair_patience_s=self.repair_patience_s,
        )
