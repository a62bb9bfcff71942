"""Rows that try a model where its answers change, made from what it knows; the same ones each time.

A tree changes at its thresholds, so most rows lie at thresholds and one step of 64 or 32 bits beside them. What a model
keeps of its training data (centres, neighbours, support vectors) says where its inputs are; beside that come plain
numbers of many sizes. Rows for the last step of a pipeline go backwards through the steps before it, where they can.
"""

from __future__ import annotations

import json
from typing import Any, Iterator, Optional

SEED = 20
ROWS = {"thresholds": 1500, "range": 1000, "known": 500, "normal": 700, "whole": 300, "large": 150, "special": 150}
PACKAGES = ("sklearn", "xgboost", "lightgbm", "imblearn")
SPECIAL = (0.0, -0.0, 0.1, -0.1, 1 / 3, 1.0, -1.0, 16777217.0, -16777217.0, 1e-30, -1e-30, 1e-36, 5e-324, 1e15 + 0.3)
LARGE = (1e3, 1e5, 1e8, 1e12, 1e20, 1e30, 3e37)
MOST_KNOWN = 2000


def generated(model: Any, columns: int, seen: Any = None) -> "dict[str, Any]":
    """Return groups of rows (float64, *columns* wide) by name; *seen* are rows of samples, or ``None``."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    groups = _rows(rng, Known(model, columns, seen), columns)
    steps = getattr(model, "steps", None)
    if steps:
        groups["last step"] = _backwards(rng, [step for _, step in steps], columns)
    return {name: rows for name, rows in groups.items() if rows is not None and len(rows)}


class Known:
    """What a model knows of its inputs: for each column its thresholds, and rows it keeps."""

    def __init__(self, model: Any, columns: int, seen: Any = None) -> None:
        import numpy as np

        found: "list[set[float]]" = [set() for _ in range(columns)]
        kept = [] if seen is None else [seen]
        for part in _parts(model):
            for column, threshold in _thresholds(part):
                if 0 <= column < columns and np.isfinite(threshold):
                    found[column].add(float(threshold))
            kept += _kept(part, columns)
        self.thresholds = [np.array(sorted(one)) for one in found]
        rows = np.concatenate(kept) if kept else np.zeros((0, columns))
        self.rows = rows[:: max(1, len(rows) // MOST_KNOWN)]

    def range(self, column: int) -> "tuple[float, float]":
        """Return where the values of *column* are."""
        import numpy as np

        known = np.concatenate([self.thresholds[column], self.rows[:, column]])
        if not len(known):
            return -3.0, 3.0
        low, high = float(known.min()), float(known.max())
        room = 0.2 * (high - low) or max(1.0, abs(low))
        return low - room, high + room


def _rows(rng: Any, known: Known, columns: int) -> "dict[str, Any]":
    import numpy as np

    low, high = np.array([known.range(column) for column in range(columns)]).T
    groups = {
        "range": rng.uniform(low, high, (ROWS["range"], columns)),
        "normal": rng.normal(size=(ROWS["normal"], columns)) * rng.choice([1e-3, 0.1, 1, 10, 1e3], (ROWS["normal"], 1)),
        "whole": rng.integers(-5, 12, (ROWS["whole"], columns)).astype("float64"),
        "large": rng.normal(size=(ROWS["large"], columns)) * rng.choice(LARGE, (ROWS["large"], 1)),
        "special": rng.choice(SPECIAL, (ROWS["special"], columns)),
    }
    groups["whole"][0] = 0
    groups["normal"][::2] = groups["normal"][::2].astype("float32")
    if any(len(one) for one in known.thresholds):
        groups["thresholds"] = _near(rng, known, rng.uniform(low, high, (ROWS["thresholds"], columns)))
    if len(known.rows):
        chosen = known.rows[rng.integers(0, len(known.rows), ROWS["known"])]
        steps = rng.choice([0, 1e-12, 1e-7, 0.01, 0.3], (len(chosen), 1))
        groups["known"] = chosen + steps * rng.normal(size=chosen.shape) * (known.rows.std(axis=0) + 1e-12)
    return groups


def _near(rng: Any, known: Known, rows: Any) -> Any:
    """Put a value at a threshold, or a step beside it, into half of the places of *rows*."""
    import numpy as np

    for column, thresholds in enumerate(known.thresholds):
        if not len(thresholds):
            continue
        places = np.flatnonzero(rng.random(len(rows)) < 0.5)
        at = rng.choice(thresholds, len(places))
        short = at.astype("float32")
        up, down = np.float32(np.inf), np.float32(-np.inf)
        beside = [
            at,
            np.nextafter(at, np.inf),
            np.nextafter(at, -np.inf),
            short.astype("float64"),
            np.nextafter(short, up).astype("float64"),
            np.nextafter(short, down).astype("float64"),
            at + rng.uniform(-1, 1, len(at)) * np.spacing(np.abs(short)),
            at * (1 + rng.choice([-1e-9, 1e-9], len(at))),
        ]
        rows[places, column] = np.choose(rng.integers(0, len(beside), len(at)), beside)
    return rows


def _backwards(rng: Any, steps: "list[Any]", columns: int) -> Optional[Any]:
    """Return rows for the last of *steps* as rows for the first, or ``None`` where a step has no way back."""
    import numpy as np

    before = [step for step in steps[:-1] if step not in (None, "passthrough")]
    width = getattr(steps[-1], "n_features_in_", None)
    if not before or width is None:
        return None
    known = Known(steps[-1], int(width))
    groups = _rows(rng, known, int(width))
    rows = np.concatenate([groups[name] for name in ("thresholds", "known", "range", "normal") if name in groups])
    try:
        for step in reversed(before):
            rows = np.asarray(step.inverse_transform(rows), dtype="float64")
    except Exception:  # a step of somebody else's may raise anything
        return None
    usable = rows.ndim == 2 and rows.shape[1] == columns
    return rows[np.isfinite(rows).all(axis=1)] if usable else None


def _parts(model: Any) -> "Iterator[Any]":
    """Yield *model* and the estimators, trees and boosters inside it."""
    waiting, met = [model], set()
    while waiting:
        value = waiting.pop()
        if id(value) in met:
            continue
        met.add(id(value))
        if isinstance(value, dict):
            waiting += list(value.values())
        elif isinstance(value, (list, tuple)) or getattr(getattr(value, "dtype", None), "kind", "") == "O":
            waiting += list(value.ravel() if hasattr(value, "ravel") else value)
        elif type(value).__module__.startswith(PACKAGES) or hasattr(value, "get_params"):
            yield value
            waiting += list(getattr(value, "__dict__", {}).values())


def _thresholds(part: Any) -> "Iterator[tuple[int, float]]":
    """Yield (column, threshold) of one tree or booster."""
    package, kind = type(part).__module__.partition(".")[0], type(part).__name__
    if kind == "Tree" and package == "sklearn":
        yield from zip(part.feature.tolist(), part.threshold.tolist())
    elif kind == "TreePredictor":
        inner = part.nodes[part.nodes["is_leaf"] == 0]
        yield from zip(inner["feature_idx"].tolist(), inner["num_threshold"].tolist())
    elif kind == "Booster" and package == "lightgbm":
        for tree in part.dump_model()["tree_info"]:
            yield from _splits(tree["tree_structure"], "split_feature", "threshold", [])
    elif kind == "Booster" and package == "xgboost":
        for text in part.get_dump(dump_format="json"):
            yield from _splits(json.loads(text), "split", "split_condition", list(part.feature_names or []))


def _splits(node: Any, feature: str, threshold: str, names: "list[str]") -> "Iterator[tuple[int, float]]":
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [value for value in one.values() if isinstance(value, (dict, list))]
            if feature in one and isinstance(one.get(threshold), (int, float)):
                name = one[feature]
                yield names.index(name) if name in names else int(str(name).lstrip("f")), float(one[threshold])
        else:
            waiting += one


def _kept(part: Any, columns: int) -> "list[Any]":
    """Return the arrays of rows, *columns* wide, that an estimator keeps."""
    import numpy as np

    found = []
    for value in getattr(part, "__dict__", {}).values():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fi" and value.shape[-1:] == (columns,):
            rows = value.reshape(-1, columns).astype("float64")
            found.append(rows[np.isfinite(rows).all(axis=1)][:MOST_KNOWN])
    return found
