"""How much a minute looks like the start of a pump: a number that ranks and colours alerts and never decides.

A model is a small JSON file, trained by ``perpwatch model train`` and shipped with the program. Reading and applying
it needs numpy alone. Without a model, or with one that was trained for other features, everything works and no score
is given.
"""

from __future__ import annotations

import bisect
import importlib.resources
import math
from collections.abc import Sequence

import msgspec
import numpy as np

from perpwatch.detect.features import FEATURES, FeatureBook, Floats
from perpwatch.model import Candle, Finality, Reason, Timeframe

#: Of the file's layout.
FORMAT = 1
#: What a score is called in a signal's reasons.
SCORE = "score"
SHOWN_CONTRIBUTIONS = 3


class Tree(msgspec.Struct, frozen=True, array_like=True):
    """One decision tree; node 0 is the root, a leaf has feature -1."""

    feature: list[int]
    threshold: list[float]
    left: list[int]  # where the feature is at most the threshold
    right: list[int]
    value: list[float]  # share of positives among the training rows of the node


class Budget(msgspec.Struct, frozen=True):
    """What the model found at a number of alerts a day, next to what it was measured on."""

    alerts_per_day_per_750: float
    threshold: float  # raw score
    found: int
    events: int
    loads: dict[str, float]  # alerts a day per 750 symbols, by background


class Split(msgspec.Struct, frozen=True):
    """One way of keeping what is tested apart from what is learned."""

    name: str
    budgets: list[Budget]


class Model(msgspec.Struct, frozen=True):
    """A trained scorer and where it comes from."""

    format: int
    kind: str  # logistic or forest
    features: list[str]
    data_hash: str  # SHA-256 of the files it was trained on
    sources: list[str]  # their folders
    rows: int
    positives: int
    mean: list[float]
    scale: list[float]
    coefficients: list[float]
    intercept: float
    quantiles: list[float]  # raw scores of ordinary minutes that look like alerts, at equal steps from 0 to 1
    splits: list[Split]
    trees: list[Tree] = []


def read_model(text: str | bytes) -> Model:
    """
    Raises:
        ValueError: no model file, or one for another version of the program.
    """
    try:
        model = msgspec.json.decode(text, type=Model)
    except msgspec.DecodeError as error:
        raise ValueError(f"no model file: {error}") from error
    if model.format != FORMAT or model.features != list(FEATURES):
        raise ValueError("the model was trained for other features; train it again with: perpwatch model train")
    sizes = {len(model.features), len(model.mean), len(model.scale), len(model.coefficients)}
    is_whole = len(sizes) == 1 or (model.kind == "forest" and model.trees)
    if not is_whole or len(model.quantiles) < 2 or sorted(model.quantiles) != model.quantiles:
        raise ValueError("the model file is incomplete; train it again with: perpwatch model train")
    return model


def shipped_model_text() -> bytes | None:
    """The model file that comes with the program; None where it was left out."""
    file = importlib.resources.files("perpwatch.detect") / "models" / "pump.json"
    return file.read_bytes() if file.is_file() else None


def raw_scores(model: Model, rows: Floats) -> Floats:
    """The model's own scale, larger is more like a pump: log odds, or the forest's mean share.

    Args:
        rows: (n, features); rows with NaN get NaN.
    """
    if model.kind == "forest":
        is_whole = np.isfinite(rows).all(axis=1)
        result = np.full(len(rows), np.nan)
        result[is_whole] = np.mean([_leaves(tree, rows[is_whole]) for tree in model.trees], axis=0)
        return result
    weights = np.array(model.coefficients) / np.array(model.scale)
    return np.asarray(rows @ weights + (model.intercept - float(weights @ np.array(model.mean))))


def _leaves(tree: Tree, rows: Floats) -> Floats:
    feature, threshold = np.array(tree.feature), np.array(tree.threshold)
    left, right = np.array(tree.left), np.array(tree.right)
    node = np.zeros(len(rows), dtype=np.int64)
    while True:
        is_inner = feature[node] >= 0
        if not is_inner.any():
            return np.asarray(np.array(tree.value)[node])
        inner = node[is_inner]
        goes_left = rows[is_inner, feature[inner]] <= threshold[inner]
        node[is_inner] = np.where(goes_left, left[inner], right[inner])


def contributions(model: Model, row: Floats) -> list[tuple[str, float]]:
    """What each kind of feature adds to the raw score, largest first.

    Of a logistic model: coefficient times distance from the mean, which add up to the score exactly. Of a forest: the
    change of the share of positives at each decision on the way to the leaf (Saabas 2014), averaged over trees.
    """
    parts = dict.fromkeys(FEATURES.values(), 0.0)
    labels = list(FEATURES.values())
    if model.kind == "forest":
        for tree in model.trees:
            node = 0
            while tree.feature[node] >= 0:
                feature = tree.feature[node]
                child = tree.left[node] if row[feature] <= tree.threshold[node] else tree.right[node]
                parts[labels[feature]] += (tree.value[child] - tree.value[node]) / len(model.trees)
                node = child
    else:
        shares = (row - np.array(model.mean)) / np.array(model.scale) * np.array(model.coefficients)
        for label, share in zip(labels, shares.tolist(), strict=True):
            parts[label] += share
    return sorted(parts.items(), key=lambda part: -part[1])


def calibrated(model: Model, raw: float) -> float:
    """Share of ordinary alert-like minutes that score lower: 0.9 means higher than nine in ten of them.

    Beyond the highest of them the remaining share shrinks by half for each of the last steps' width, so that scores
    keep their order.
    """
    quantiles = model.quantiles
    steps = len(quantiles) - 1
    if raw >= quantiles[-1]:
        width = max(quantiles[-1] - quantiles[-2], 1e-9)
        return 1.0 - math.pow(0.5, min((raw - quantiles[-1]) / width, 40.0)) / (2.0 * steps)
    place = bisect.bisect_right(quantiles, raw) - 1
    if place < 0:
        return 0.0
    width = quantiles[place + 1] - quantiles[place]
    top = steps - 0.5  # the last step ends where the tail above begins
    return min((place + (raw - quantiles[place]) / width) / steps, top / steps)


class Scorer:
    """Scores the minute behind a signal.

    Cost: that of ``FeatureBook``; 100 µs per score. Warm-up: 360 closed minutes of the symbol.
    """

    def __init__(self, model: Model | None) -> None:
        self.model = model
        self._book = FeatureBook()
        self._scored: tuple[Candle | None, tuple[Reason, ...]] = None, ()  # the minute that was scored last, and how

    def warm_up(self, symbol: str, minutes: Sequence[Candle]) -> None:
        """Take closed minutes, oldest first, as the whole past of the symbol."""
        if self.model is not None:
            self._scored = None, ()
            self._book.warm_up(symbol, minutes)

    def learn(self, candle: Candle) -> None:
        """Take a closed minute, before the signals on it are scored; other candles are ignored."""
        if self.model is not None:
            self._scored = None, ()
            self._book.learn(candle)

    def forget(self, symbol: str) -> None:
        self._scored = None, ()
        self._book.forget(symbol)

    def reasons(self, candle: Candle, minute: Candle | None = None) -> tuple[Reason, ...]:
        """The score of the minute behind a candle, and what it mostly consists of; nothing where it has none.

        Args:
            candle: what the signal is about.
            minute: the running minute, where the candle is a longer one that still runs.
        """
        model = self.model
        if model is None:
            return ()
        is_running = candle.finality is Finality.OPEN
        if is_running and candle.timeframe is not Timeframe.Min1 and minute is None:
            return ()
        if not is_running:
            return self._reasons(model, candle.symbol, None)
        described = minute or candle
        # A push that stands out does so on several timeframes, and is the same minute on all of them.
        if self._scored[0] is not described:
            self._scored = described, self._reasons(model, candle.symbol, described)
        return self._scored[1]

    def _reasons(self, model: Model, symbol: str, running: Candle | None) -> tuple[Reason, ...]:
        row = self._book.features(symbol, running)
        if row is None:
            return ()
        raw = float(raw_scores(model, row[None, :])[0])
        if not math.isfinite(raw):
            return ()
        score = calibrated(model, raw)
        parts = [part for part in contributions(model, row)[:SHOWN_CONTRIBUTIONS] if part[1] > 0.0]
        text = f"pump score {min(math.floor(100.0 * score) / 100.0, 0.99):.2f}"
        if parts:
            text += f": mostly {', '.join(name for name, _ in parts)}"
        unit = "share" if model.kind == "forest" else "log odds"
        return (
            Reason(SCORE, score, "quantile", text),
            *(Reason(f"{SCORE}: {name}", share, unit) for name, share in parts),
        )
