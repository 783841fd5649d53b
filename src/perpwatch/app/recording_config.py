"""The ``[recording]`` table of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_FOLDER = "recording"


class RecordingConfig(BaseModel):
    """What is recorded, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    enabled: bool = False  # beside `run`; `perpwatch record` records always
    folder: str = ""  # a folder "recording" beside the configuration
    rest_bodies: bool = True  # answers of REST as they came; replaying needs none
    lines: bool = True  # dials, ends of connections and what was sent; replaying needs none
    file_megabytes: Annotated[float, Field(gt=0)] = 256.0  # a file is closed when it is so large ...
    file_minutes: Annotated[float, Field(gt=0)] = 60.0  # ... or so old
    keep_gigabytes: Annotated[float, Field(ge=0)] = 0.0  # then the oldest file is deleted; 0 keeps everything
    max_waiting_megabytes: Annotated[float, Field(ge=1)] = 64.0  # in memory, while the disk is slow or full

    def path(self, config_file: Path | None) -> Path:
        """The folder."""
        if self.folder:
            return Path(self.folder)
        return (config_file.parent if config_file else Path()) / DEFAULT_FOLDER
