"""What the columns of a model may hold, as far as the fitted model or MLflow's signature beside its file tells."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Optional, Sequence

from stageway.contract import Schema

MOST_CHOICES = 100
KINDS = {str: ("string", "BYTES"), bool: ("boolean", "BOOL"), int: ("integer", "INT64"), float: ("number", "FP64")}
VALUES = {"string": "", "boolean": False, "integer": 0, "long": 0, "float": 0.0, "double": 0.0}
INNER = ("best_estimator_", "estimator_", "regressor_")
"""Where the estimators that wrap one keep it once it is fitted."""
SIGNATURE = re.compile(r"^signature:\s*$.*?^  inputs:\s*'((?:[^']|'')*)'", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Column:
    """One column: a *value* that it may hold, ``None`` if nothing is known, and the only *choices* if there are few."""

    value: Any = None
    choices: "tuple[Any, ...]" = ()
    unseen: bool = False
    """Whether the model never looks at it."""

    @property
    def schema(self) -> Schema:
        if self.value is None:
            return {}
        found: Schema = {"type": KINDS[type(self.value)][0]}
        return {**found, "enum": list(self.choices)} if self.choices else found

    @property
    def datatype(self) -> str:
        """Return the protocol's name of what it holds; numbers do where the model does not look."""
        return KINDS[float if self.value is None else type(self.value)][1]

    @property
    def numeric(self) -> bool:
        return self.unseen or isinstance(self.value, (int, float))


def of(model: Any, count: int, names: "Sequence[str]", beside: Optional[Path] = None) -> "list[Column]":
    """Return the *count* columns of a fitted scikit-learn *model*, whose file may lie in a folder that MLflow wrote."""
    found: "dict[int, Column]" = {}
    try:
        _learn(model, list(range(count)), found)
    except Exception:
        # A step of the user's own may keep anything under these names.
        found.clear()
    said = _signature(beside) if beside is not None and names else {}
    for at, name in enumerate(names):
        known = found.get(at)
        if name in said and (known is None or known.value is None):
            found[at] = Column(said[name])
    return [found.get(at, Column()) for at in range(count)]


def _learn(part: Any, places: "list[int]", found: "dict[int, Column]") -> None:
    """Note what the fitted *part* of a model tells of the columns at *places*, which are all that it is given."""
    for inner in [part.__dict__[name] for name in INNER if name in getattr(part, "__dict__", ())]:
        _learn(inner, places, found)
    for step in _first(part):
        _learn(step, places, found)
    for _, branch in getattr(part, "transformer_list", ()):
        _learn(branch, places, found)
    for _, branch, wanted in getattr(part, "transformers_", ()):
        chosen = _chosen(part, wanted, places)
        if isinstance(branch, str):
            for at in chosen if branch == "drop" else ():
                found.setdefault(at, Column(unseen=True))
        else:
            _learn(branch, chosen, found)
    _note(part, places, found)


def _note(part: Any, places: "list[int]", found: "dict[int, Column]") -> None:
    """Note what an encoder or an imputer saw in its columns, or that a vectorizer reads text."""
    categories = getattr(part, "categories_", None)
    if isinstance(categories, list) and len(categories) == len(places):
        strict = getattr(part, "handle_unknown", "") == "error"
        for at, seen in zip(places, categories):
            _keep(at, _column(seen.tolist(), strict), found)
    filled = getattr(part, "statistics_", None)
    if filled is not None and len(filled) == len(places):
        for at, value in zip(places, filled.tolist()):
            _keep(at, _column([value], False), found)
    if callable(getattr(part, "build_analyzer", None)) and len(places) == 1:
        _keep(places[0], Column(next(iter(getattr(part, "vocabulary_", ())), "text")), found)


def _keep(at: int, column: Column, found: "dict[int, Column]") -> None:
    known = found.get(at)
    if column.value is not None and (known is None or known.value is None or (column.choices and not known.choices)):
        found[at] = column


def _column(seen: "list[Any]", strict: bool) -> Column:
    """Return a column in which the values *seen* were, and if *strict* may only be; a gap is none of them."""
    plain = [one.item() if hasattr(one, "item") else one for one in seen]
    values = [one for one in plain if type(one) in KINDS and one == one]
    if not values or len({type(one) for one in values}) > 1:
        return Column()
    return Column(values[0], tuple(values) if strict and len(values) == len(seen) <= MOST_CHOICES else ())


def _first(part: Any) -> "Iterable[Any]":
    """Yield the steps of a pipeline that see its columns as they came: imputers hand them on one by one."""
    for _, step in getattr(part, "steps", ()):
        if step is None or step == "passthrough":
            continue
        yield step
        if not hasattr(step, "statistics_"):
            return


def _chosen(part: Any, wanted: Any, places: "list[int]") -> "list[int]":
    """Return which of *places* a part of a ``ColumnTransformer`` was given; it may name, number, mark or slice them."""
    names = [str(name) for name in getattr(part, "feature_names_in_", ())]
    if isinstance(wanted, slice):
        ends = [wanted.start, wanted.stop]
        start, stop = [names.index(one) if isinstance(one, str) else one for one in ends]
        # Unlike numbers, a slice of names holds the last one too.
        return places[start : stop + 1 if isinstance(wanted.stop, str) else stop : wanted.step]
    listed = [wanted] if isinstance(wanted, (str, int)) else list(wanted)
    if len(listed) == len(places) and all(type(one).__name__ in ("bool", "bool_") for one in listed):
        return [at for at, marked in zip(places, listed) if marked]
    return [places[names.index(one) if isinstance(one, str) else one] for one in listed]


def _signature(path: Path) -> "dict[str, Any]":
    """Return a value for each column that MLflow's signature beside the model file names; it is JSON inside YAML."""
    try:
        text = (path.parent / "MLmodel").read_text(encoding="utf-8")
        inputs = SIGNATURE.search(text)
        given = json.loads(re.sub(r"\s*\n\s+", " ", inputs.group(1).replace("''", "'"))) if inputs else []
        return {one["name"]: VALUES[one["type"]] for one in given if one.get("type") in VALUES and "name" in one}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def expected(model: Any, method: str) -> Any:
    """Return an array of the shape and type that *method* of a classifier gives for one row; ``None`` if not known."""
    import numpy as np

    classes = getattr(model, "classes_", None)
    if not isinstance(classes, np.ndarray):
        return None
    if method == "predict":
        return classes[:1]
    return np.zeros((1, len(classes))) if method in ("predict_proba", "predict_log_proba") else None
