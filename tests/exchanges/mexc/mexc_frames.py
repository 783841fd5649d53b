"""The captured frames, and how to get at them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
FRAMES = ROOT / "tests" / "frames" / "mexc"
#: Frames whose source states no licence; beside the repository where they may be used and not shipped.
UNSHIPPED = ROOT.parent / "shared" / "data" / "frames_mexc" / "mexc_frames.jsonl"


def sample(name: str) -> bytes:
    return (FRAMES / "samples" / f"{name}.json").read_bytes().strip()


def sample_names(prefix: str) -> list[str]:
    return sorted(path.stem for path in (FRAMES / "samples").glob(f"{prefix}*.json"))


def recorded(path: Path = FRAMES / "recorded.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
