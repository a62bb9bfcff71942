"""Frameworks that need no entry script: the model file alone is served. One class each, named in ``FRAMEWORKS``.

The model is unpickled here, in the service's own process, and nowhere else.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Callable, Optional

from stageway.contract import Contract, Schema
from stageway.serving import replies
from stageway.serving.replies import BadRequestError, loads
from stageway.serving.scorer import Alone, Call, Scorer, ScoringError, StartError, Work, log_traceback, said

PICKLES = (".pkl", ".pickle", ".joblib", ".sav")
METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples", "transform")


class ScikitLearn(Alone):
    """One scikit-learn model: ``{"data": [[...]], "method": "predict"}`` is answered by ``{"predict": [...]}``."""

    declared: "Optional[dict[str, Any]]" = None

    def __init__(self) -> None:
        path = _model_file(Path(os.environ.get("AZUREML_MODEL_DIR", "azureml-models")))
        self._model = _unpickled(path)
        self._methods = [name for name in METHODS if callable(getattr(self._model, name, None))]
        if not self._methods:
            kind = type(self._model).__name__
            raise StartError("{} holds a {}, which has no method predict".format(path, kind))
        self._columns = getattr(self._model, "n_features_in_", None)
        self._names = _column_names(self._model)
        self.contract = self._known()
        # Rows come without names; the count of their columns is checked instead.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")

    def start(self) -> None:
        """Nothing more: the constructor has read the model."""

    def read(self, call: Call) -> Work:
        given: Any = call.query_values() if call.method == "GET" else loads(call.body)
        if not isinstance(given, dict) or "data" not in given:
            raise BadRequestError("the parameter 'data' is missing; send {\"data\": [[...]]}")
        method = given.get("method", "predict")
        if method not in self._methods:
            raise BadRequestError("no method {!r}; the model has {}".format(method, ", ".join(self._methods)))
        rows = self._rows(given["data"])
        return Work((method, rows), lambda result: replies.of({method: result}))

    def run(self, data: Any) -> Any:
        method, rows = data
        try:
            return getattr(self._model, method)(rows)
        except (ValueError, TypeError) as error:
            raise BadRequestError("the model refused the data: {}".format(said(error))) from None
        except BaseException as error:
            log_traceback(error)
            raise ScoringError(said(error)) from error

    def _rows(self, data: Any) -> Any:
        """Return what the model's methods take, once each row has as many columns as the model was trained on."""
        if not isinstance(data, list) or not data:
            raise BadRequestError("'data' is not a list of rows; send {\"data\": [[...]]}")
        if self._columns is None:
            return data
        for number, row in enumerate(data):
            if not isinstance(row, (list, dict)):
                sentence = "'data' is not a list of rows: row {} is {!r}, not a list of {} values"
                raise BadRequestError(sentence.format(number, row, self._columns))
            if isinstance(row, list) and len(row) != self._columns:
                sentence = "'data': row {} has {} values, the model takes {}"
                raise BadRequestError(sentence.format(number, len(row), self._columns))
        return self._table(data) if self._names else _array(data)

    def _table(self, data: "list[Any]") -> Any:
        import pandas as pd

        for number, row in enumerate(data):
            lacking = [name for name in self._names if name not in row] if isinstance(row, dict) else []
            if lacking:
                raise BadRequestError("'data': row {} has no {!r}".format(number, lacking[0]))
        return pd.DataFrame(
            [[row[name] for name in self._names] if isinstance(row, dict) else row for row in data],
            columns=self._names,
        )

    def _known(self) -> Contract:
        """Return what the model itself tells: how many columns a row has."""
        if self._columns is None:
            return Contract()
        row: Schema = {"type": "array", "minItems": int(self._columns), "maxItems": int(self._columns)}
        if not self._names:
            row["items"] = {"type": "number"}
        properties = {
            "data": {"type": "array", "items": row},
            "method": {"type": "string", "enum": list(self._methods)},
        }
        return Contract({"type": "object", "properties": properties, "required": ["data"]}, None, "signature")


FRAMEWORKS: "dict[str, Callable[[], Scorer]]" = {"ScikitLearn": ScikitLearn}


def load(framework: str) -> Scorer:
    """Return the scorer of *framework*, whatever the case of its letters."""
    for name, scorer in FRAMEWORKS.items():
        if name.lower() == framework.lower():
            return scorer()
    known = ", ".join(FRAMEWORKS)
    raise StartError("framework {!r} needs an entry script; without one there is {}".format(framework, known))


def _model_file(folder: Path) -> Path:
    """Return the one model file below *folder*: by its ending, else the only file there is."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    models = [path for path in files if path.suffix.lower() in PICKLES] or files
    if len(models) == 1:
        return models[0]
    found = ", ".join(str(path.relative_to(folder)) for path in models[:5]) or "none"
    sentence = "without an entry script one model file is served; {} holds {}: {}"
    raise StartError(sentence.format(folder, len(models), found))


def _unpickled(path: Path) -> Any:
    try:
        import joblib
    except ImportError as error:
        raise StartError("{} cannot be read: {}; add scikit-learn to the dependencies".format(path, error)) from error
    try:
        return joblib.load(path)
    except BaseException as error:
        log_traceback(error)
        raise StartError("model {} cannot be read: {}".format(path, said(error))) from error


def _column_names(model: Any) -> "list[str]":
    """Return the names a model was trained with, if it was trained on a table and tables can be made here."""
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return []
    try:
        import pandas  # noqa: F401
    except ImportError:
        return []
    return [str(name) for name in names]


def _array(data: "list[Any]") -> Any:
    import numpy as np

    if isinstance(data[0], dict):
        raise BadRequestError("'data': row 0 is an object; the model has no column names, send a list of values")
    try:
        array = np.asarray(data)
    except ValueError:
        raise BadRequestError("'data' is not a table: its rows differ in shape") from None
    if array.dtype.kind in "biuf":
        return array
    try:
        return np.asarray(data, dtype=float) if array.dtype.kind == "O" else np.asarray(data, dtype=object)
    except (TypeError, ValueError):
        return np.asarray(data, dtype=object)
