"""Trains the score: labelled pumps against everything else, tested on events and times it has not learned from.

Knows the laboratory's readers, the features and scikit-learn, which is needed nowhere else and is an extra
(``pip install perpwatch[train]``).

Positives are minutes that close 0 to 3 minutes after a labelled start and rose by more than 1 %. Negatives are all
other minutes outside 10 minutes before to 120 minutes after a start, of the tapes and of the candle folders. All busy
ones are kept (volume above twice the hour's mean, or a move above 0.5 %) and one in twenty of the rest.

Two splits say what the model is worth. *Events*: five folds, each holding out whole tapes and whole symbols.
*Forward*: everything before the time at which 60 % of the events are over is learned, everything after is tested. In
both, the threshold is set where the worst background gives as many alerts a day per 750 symbols as the budget says,
with an hour's silence per symbol unless volume doubles, and an event counts as found when an alert falls 0 to 3 minutes
after its start.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from perpwatch.app.lab import MARKET_SIZE, PROMPT_MS, Progress
from perpwatch.app.lab_files import (
    DAY_MS,
    Label,
    Market,
    Series,
    candle_files,
    read_labels,
    read_market,
    read_tape,
)
from perpwatch.detect.features import DAY, FEATURES, Floats, features_of
from perpwatch.detect.score import FORMAT, Budget, Model, Split, Tree
from perpwatch.errors import ConfigurationError
from perpwatch.model import MINUTE_MS, Timeframe

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BUDGETS = (10.0, 30.0, 50.0, 100.0, 1000.0)
FOLDS = 5
FORWARD_SHARE = 0.6
SILENCE_MS = 60 * MINUTE_MS
ESCALATION = 2.0
RISE = 0.01
KEPT_OF_THE_REST = 20
#: The best transparent rule at the smallest budget, which the score is compared with.
RULE_VOLUME, RULE_WINDOW, RULE_RISE = 30.0, 240, 0.05


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What to learn from."""

    trades: Sequence[Path]  # folders of tapes, whose names or labels say when pumps began
    candles: Sequence[Path] = ()  # folders of ordinary markets
    labels: Path | None = None
    is_forest: bool = False  # a random forest instead of the logistic regression


@dataclass(frozen=True, slots=True)
class _Part:
    """The minutes of one symbol or tape."""

    background: str  # its folder; empty for a tape with events
    close_ms: Integers
    rows: npt.NDArray[np.float32]  # features
    is_positive: Mask
    is_learned: Mask
    is_ordinary: Mask  # looks like an alert, far from any event
    is_rule: Mask  # what the transparent rule would have said
    starts_ms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trained:
    """A model and the table that says what it is worth."""

    model: Model
    table: str


@dataclass(slots=True)
class _Data:
    parts: list[_Part] = field(default_factory=list)

    @property
    def tapes(self) -> list[int]:
        return [number for number, part in enumerate(self.parts) if not part.background]


Predict = Callable[[Floats], Floats]


def train(options: TrainOptions, progress: Progress | None = None) -> Trained:
    """
    Raises:
        ConfigurationError: scikit-learn is not installed, a folder or file cannot be used, or too few labelled events.
    """
    _sklearn()
    tell = progress or (lambda done, total, text: None)
    data, digest = _read(options, tell)
    events = sum(len(part.starts_ms) for part in data.parts)
    positives = sum(int(part.is_positive.sum()) for part in data.parts)
    if len(data.tapes) < FOLDS or positives < FOLDS:
        expected = f"at least {FOLDS} tapes with labelled pumps; found {events} events and {positives} positive minutes"
        raise ConfigurationError("trades", [str(folder) for folder in options.trades], expected)
    if not any(part.background for part in data.parts):
        expected = "folders of ordinary markets, without which no false alarm can be counted"
        raise ConfigurationError("candles", "", expected)
    splits = []
    lines = [_HEAD, "-" * len(_HEAD)]
    held_out: list[Floats] = []
    for name, folds in (("events", _event_folds(data)), ("forward", _forward_fold(data))):
        scores: list[Floats | None] = [None] * len(data.parts)
        for number, (learned, tested) in enumerate(folds):
            tell(0.6 + 0.2 * (name == "forward") + 0.2 * number / len(folds), 1.0, f"{name} {number + 1}/{len(folds)}")
            predict = _fit(data, learned, options.is_forest)
            for part in tested:
                scores[part] = predict(data.parts[part].rows.astype(np.float64))
        tested_parts = [(data.parts[n], values) for n, values in enumerate(scores) if values is not None]
        budgets = [_at_budget(tested_parts, wanted) for wanted in BUDGETS]
        splits.append(Split(name, budgets))
        lines += _table_of(name, options, tested_parts, budgets)
        if name == "events":
            held_out = [values[part.is_ordinary] for part, values in tested_parts]
    tell(0.95, 1.0, "final fit")
    model = _final(data, options, digest, splits, np.concatenate(held_out))
    tell(1.0, 1.0, "done")
    return Trained(model, "\n".join(lines))


def to_file(model: Model) -> bytes:
    """The model as the text of its file, the same bytes for the same model."""
    return msgspec.json.format(msgspec.json.encode(_rounded(model)), indent=1) + b"\n"


def _rounded(model: Model) -> Model:
    return msgspec.structs.replace(
        model,
        mean=[round(value, 6) for value in model.mean],
        scale=[round(value, 6) for value in model.scale],
        coefficients=[round(value, 6) for value in model.coefficients],
        intercept=round(model.intercept, 6),
        quantiles=[round(value, 4) for value in model.quantiles],
    )


# --- Reading ----------------------------------------------------------------------------------------------------------


def _read(options: TrainOptions, tell: Progress) -> tuple[_Data, str]:
    labels = read_labels(options.labels) if options.labels else []
    digest = hashlib.sha256()
    files = [path for folder in (*options.trades, *options.candles) for path in candle_files(folder)]
    for path in [*files, *([options.labels] if options.labels else [])]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    data = _Data()
    done = 0
    for folder in options.trades:
        for path in candle_files(folder):
            tell(0.6 * done / len(files), 1.0, path.name)
            tape = read_tape(path)
            minutes = tape.minutes()
            starts = tuple(event.start_ms for event in tape.events(labels, minutes.start_ms, minutes.end_ms))
            # A tape without an event is as good a background as any.
            data.parts.append(_part("" if starts else folder.name, minutes, starts))
            done += 1
    for folder in options.candles:
        market = read_market(folder)
        if market.timeframe is not Timeframe.Min1:
            raise ConfigurationError("candles", str(folder), "a folder of one-minute candles")
        starts_of = _starts_by_symbol(market, labels)
        for series in market.series:
            tell(0.6 * done / len(files), 1.0, f"{folder.name}: {series.symbol}")
            data.parts.append(_part(folder.name, series, starts_of.get(series.symbol, ())))
            done += 1
    return data, digest.hexdigest()


def _starts_by_symbol(market: Market, labels: Sequence[Label]) -> dict[str, tuple[int, ...]]:
    starts: dict[str, tuple[int, ...]] = {}
    for event in market.events(labels, 0):
        starts[event.symbol] = (*starts.get(event.symbol, ()), event.start_ms)
    return starts


def _part(background: str, series: Series, starts_ms: tuple[int, ...]) -> _Part:
    is_known = series.missing == 0
    open_ms = (series.start_ms + np.arange(len(is_known), dtype=np.int64) * MINUTE_MS)[is_known]
    candles = series.values[is_known][:, [0, 1, 2, 3, 5]]
    rows = features_of(candles, np.diff(open_ms, prepend=0) == MINUTE_MS)
    close_ms = open_ms + MINUTE_MS
    rise = candles[:, 3] / candles[:, 0] - 1.0
    is_whole = np.isfinite(rows[:, 0])
    is_positive = np.zeros(len(rows), dtype=np.bool_)
    is_near = np.zeros(len(rows), dtype=np.bool_)
    for start_ms in starts_ms:
        is_positive |= (close_ms >= start_ms) & (close_ms <= start_ms + PROMPT_MS) & (rise > RISE)
        is_near |= (close_ms >= start_ms - 10 * MINUTE_MS) & (close_ms <= start_ms + 120 * MINUTE_MS)
    is_positive &= is_whole
    names = list(FEATURES)
    with np.errstate(invalid="ignore"):
        is_busy = (rows[:, names.index("volume_60")] > np.log(3.0)) | (np.abs(rise) > 0.005)
        # Every twentieth by its time: the same rows at each training, and no random numbers.
        is_sampled = (open_ms // MINUTE_MS * 7919) % KEPT_OF_THE_REST == 0
        is_ordinary = (rows[:, names.index("volume_1440")] > np.log(11.0)) & (
            np.abs(rows[:, names.index("move_ratio")]) > np.log(5.0)
        )
    return _Part(
        background=background,
        close_ms=close_ms,
        rows=rows.astype(np.float32),
        is_positive=is_positive,
        is_learned=is_positive | (is_whole & ~is_near & (is_busy | is_sampled)),
        is_ordinary=is_ordinary & ~is_near,
        is_rule=_rule(candles[:, 4], rise),
        starts_ms=starts_ms,
    )


def _rule(turnover: Floats, rise: Floats) -> Mask:
    total = np.concatenate([[0.0], np.cumsum(turnover)])
    ends = np.arange(len(turnover))
    starts = np.maximum(ends - RULE_WINDOW, 0)
    mean = (total[ends] - total[starts]) / np.maximum(ends - starts, 1)
    return np.asarray((turnover > RULE_VOLUME * mean) & (rise > RULE_RISE) & (ends >= RULE_WINDOW))


# --- Learning ---------------------------------------------------------------------------------------------------------


def _event_folds(data: _Data) -> list[tuple[list[int], list[int]]]:
    """Whole tapes and whole symbols are held out together, so that nothing of an event is both learned and tested."""
    everything = range(len(data.parts))
    tapes = {part: number for number, part in enumerate(data.tapes)}
    folds: list[tuple[list[int], list[int]]] = []
    for fold in range(FOLDS):
        tested = [part for part in everything if (tapes.get(part, part)) % FOLDS == fold]
        kept = set(tested)
        folds.append(([part for part in everything if part not in kept], tested))
    return folds


def _forward_fold(data: _Data) -> list[tuple[list[int], list[int]]]:
    """What ended before the split is learned, what begins after it is tested; nothing in between is used."""
    starts = sorted(start_ms for part in data.parts for start_ms in part.starts_ms)
    split_ms = starts[min(int(FORWARD_SHARE * len(starts)), len(starts) - 1)] - DAY_MS
    learned = [n for n, part in enumerate(data.parts) if len(part.close_ms) and part.close_ms[-1] < split_ms]
    tested = [n for n, part in enumerate(data.parts) if len(part.close_ms) and part.close_ms[0] >= split_ms - DAY_MS]
    has_positives = any(data.parts[part].is_positive.any() for part in learned)
    return [(learned, tested)] if has_positives and tested else []


def _fit(data: _Data, learned: Sequence[int], is_forest: bool) -> Predict:
    estimator, mean, scale = _estimator(data, learned, is_forest)

    def predict(rows: Floats) -> Floats:
        result = np.full(len(rows), np.nan)
        is_whole = np.isfinite(rows).all(axis=1)
        if is_whole.any():
            scaled = (rows[is_whole] - mean) / scale
            result[is_whole] = (
                estimator.predict_proba(scaled)[:, 1] if is_forest else estimator.decision_function(scaled)
            )
        return result

    return predict


def _estimator(data: _Data, learned: Sequence[int], is_forest: bool) -> tuple[Any, Floats, Floats]:
    parts = [data.parts[number] for number in learned]
    rows = np.concatenate([part.rows[part.is_learned] for part in parts]).astype(np.float64)
    target = np.concatenate([part.is_positive[part.is_learned] for part in parts])
    linear_model, ensemble = _sklearn()
    if is_forest:
        # Every fourth negative: trees are slow, and the few positives decide.
        is_kept = target | (np.arange(len(target)) % 4 == 0)
        rows, target = rows[is_kept], target[is_kept]
        forest = ensemble.RandomForestClassifier(n_estimators=100, max_depth=6, random_state=1, n_jobs=2)
        return forest.fit(rows, target), np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale[scale == 0.0] = 1.0
    logistic = linear_model.LogisticRegression(C=0.01, max_iter=1000)
    return logistic.fit((rows - mean) / scale, target), mean, scale


def _sklearn() -> tuple[Any, Any]:
    try:
        # By name, because it is an extra and has no types.
        return importlib.import_module("sklearn.linear_model"), importlib.import_module("sklearn.ensemble")
    except ImportError as error:
        expected = "scikit-learn, which is an extra: pip install 'perpwatch[train]'"
        raise ConfigurationError("model train", "scikit-learn is not installed", expected) from error


def _final(data: _Data, options: TrainOptions, digest: str, splits: list[Split], ordinary: Floats) -> Model:
    estimator, mean, scale = _estimator(data, range(len(data.parts)), options.is_forest)
    ordinary = ordinary[np.isfinite(ordinary)]
    if len(ordinary) < 2:
        raise ConfigurationError("candles", "", "ordinary markets with some minutes of rare volume and a large move")
    return Model(
        format=FORMAT,
        kind="forest" if options.is_forest else "logistic",
        features=list(FEATURES),
        data_hash=digest,
        sources=[folder.name for folder in (*options.trades, *options.candles)],
        rows=sum(int(part.is_learned.sum()) for part in data.parts),
        positives=sum(int(part.is_positive.sum()) for part in data.parts),
        mean=mean.tolist(),
        scale=scale.tolist(),
        coefficients=[] if options.is_forest else estimator.coef_[0].tolist(),
        intercept=0.0 if options.is_forest else float(estimator.intercept_[0]),
        quantiles=np.quantile(ordinary, np.linspace(0.0, 1.0, 201)).tolist(),
        splits=splits,
        trees=[_tree(one.tree_) for one in estimator.estimators_] if options.is_forest else [],
    )


def _tree(tree: Any) -> Tree:
    counts = tree.value[:, 0, :]
    return Tree(
        feature=[int(number) if number >= 0 else -1 for number in tree.feature],
        threshold=[round(float(value), 6) for value in tree.threshold],
        left=tree.children_left.tolist(),
        right=tree.children_right.tolist(),
        value=[round(float(value), 6) for value in counts[:, 1] / counts.sum(axis=1)],
    )


# --- Measuring --------------------------------------------------------------------------------------------------------


def _alerts(part: _Part, is_alert: Mask) -> list[int]:
    """Times of alerts, with an hour's silence that only twice the highest volume alerted breaks, as live."""
    times = []
    last_ms, highest = -SILENCE_MS, 0.0
    ratios = np.expm1(part.rows[is_alert, list(FEATURES).index("volume_1440")])
    for time_ms, ratio in zip(part.close_ms[is_alert].tolist(), ratios.tolist(), strict=True):
        if time_ms - last_ms >= SILENCE_MS or ratio >= ESCALATION * highest:
            times.append(time_ms)
            last_ms, highest = time_ms, ratio
    return times


def _loads(parts: Sequence[tuple[_Part, Mask]]) -> dict[str, float]:
    """Alerts a day per 750 symbols on each background; the first day of a symbol is not counted."""
    alerts: dict[str, int] = {}
    days: dict[str, float] = {}
    for part, is_alert in parts:
        if not part.background or not len(part.close_ms):
            continue
        counted_ms = int(part.close_ms[0]) + DAY_MS
        name = part.background
        alerts[name] = alerts.get(name, 0) + sum(time_ms >= counted_ms for time_ms in _alerts(part, is_alert))
        days[name] = days.get(name, 0.0) + float((part.close_ms >= counted_ms).sum()) / DAY
    return {name: alerts[name] / days[name] * MARKET_SIZE for name in alerts if days[name]}


def _found(parts: Sequence[tuple[_Part, Mask]]) -> int:
    found = 0
    for part, is_alert in parts:
        times = _alerts(part, is_alert) if part.starts_ms else []
        found += sum(any(0 <= time_ms - start <= PROMPT_MS for time_ms in times) for start in part.starts_ms)
    return found


def _at_budget(tested: Sequence[tuple[_Part, Floats]], wanted: float) -> Budget:
    """The lowest threshold at which the worst background stays within the budget."""
    scores = [values[np.isfinite(values)] for part, values in tested if part.background]
    # No threshold that matters lies below the highest fiftieth of all minutes.
    ranked = np.unique(np.concatenate(scores) if scores else np.zeros(1))
    ranked = ranked[-max(1000, len(ranked) // 50) :]
    low, high = 0, len(ranked) - 1
    while low < high:
        middle = (low + high) // 2
        if max(_loads(_above(tested, float(ranked[middle]))).values(), default=0.0) <= wanted:
            high = middle
        else:
            low = middle + 1
    threshold = float(ranked[high])
    alerts = _above(tested, threshold)
    return Budget(
        alerts_per_day_per_750=wanted,
        threshold=round(threshold, 4),
        found=_found(alerts),
        events=sum(len(part.starts_ms) for part, _ in tested),
        loads={name: round(load, 1) for name, load in _loads(alerts).items()},
    )


def _above(tested: Sequence[tuple[_Part, Floats]], threshold: float) -> list[tuple[_Part, Mask]]:
    with np.errstate(invalid="ignore"):
        return [(part, np.asarray(values >= threshold)) for part, values in tested]


_HEAD = f"{'split':<9} {'what':<34} {'budget':>7} {'found':>7} {'load by background (a day per 750)'}"


def _table_of(
    name: str, options: TrainOptions, tested: Sequence[tuple[_Part, Floats]], budgets: Sequence[Budget]
) -> list[str]:
    kind = "random forest" if options.is_forest else "logistic regression"
    rule = [(part, part.is_rule) for part, _ in tested]
    events = sum(len(part.starts_ms) for part, _ in tested)
    what = f"rule v > {RULE_VOLUME:g} x mean({RULE_WINDOW}), {RULE_RISE:+.0%}"
    rows = [(what, "-", _found(rule), _loads(rule))]
    rows += [(kind, f"{one.alerts_per_day_per_750:g}", one.found, one.loads) for one in budgets]
    return [
        f"{name:<9} {what:<34} {budget:>7} {f'{found}/{events}':>7} "
        + ", ".join(f"{background} {load:.0f}" for background, load in loads.items())
        for what, budget, found, loads in rows
    ]
