"""scikit-learn: one model file of joblib, pickle or skops."""

from __future__ import annotations

import threading
import warnings
from typing import Any, Iterator

from stageway.serving.frameworks import columns, files
from stageway.serving.frameworks.tabular import Tabular, column_names, methods_of
from stageway.serving.settings import Settings

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples", "transform")
LARGE = 1e38
OUTPUT = "_sklearn_output_config"
ORDINARY = ("sklearn", "xgboost", "lightgbm")
OF_THE_BATCH = {"NMF", "MiniBatchNMF", "BernoulliRBM", "FunctionTransformer", "TransformedTargetRegressor"}
"""Estimators whose result for a row may depend on the other rows, on chance, or on a user's function."""
OF_NAMES = {"ColumnTransformer", "FunctionTransformer", "HistGradientBoostingClassifier"}
OF_NAMES |= {"HistGradientBoostingRegressor", "make_column_selector"}
"""Estimators that look at the names or the types of a table's columns."""


class ScikitLearn(Tabular):
    """One scikit-learn model, or one of a package that keeps scikit-learn's interface."""

    def __init__(self, settings: Settings) -> None:
        path = files.one_file((*files.PICKLES, files.SKOPS))
        self.model = files.from_skops(path) if path.suffix.lower() == files.SKOPS else files.unpickled(path)
        self._config = _Config()
        # Rows come without names; the count of their columns is checked instead.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        parts = list(_parts(self.model))
        count = getattr(self.model, "n_features_in_", None)
        names = column_names(getattr(self.model, "feature_names_in_", None))
        super().__init__(
            methods_of(self.model, METHODS, path),
            count,
            names,
            "sklearn",
            independent=settings.batching == "on" or all(map(_by_row, parts)),
            nameless=not any(map(_by_name, parts)),
            known=columns.of(self.model, int(count), names, path) if count else (),
        )

    def expected(self, method: str) -> Any:
        return columns.expected(self.model, method)

    def score(self, method: str, rows: Any) -> Any:
        call = getattr(self.model, method)
        if self._config.quick(rows):
            return call(rows)
        with self._config.strict():
            return call(rows)


class _Config:
    """scikit-learn's checks of what comes in, left out where we know the answer: they cost more than small models.

    Its configuration belongs to a thread, so each prediction thread is set once.
    """

    def __init__(self) -> None:
        import numpy as np
        import sklearn

        self._numpy, self._sklearn = np, sklearn
        self._thread = threading.local()

    def quick(self, rows: Any) -> bool:
        """Tell whether *rows* are numbers that need no check; prepares the thread for them."""
        if not hasattr(self._thread, "set"):
            known = self._sklearn.get_config()
            wanted = {"assume_finite": True, "skip_parameter_validation": True}
            self._sklearn.set_config(**{key: value for key, value in wanted.items() if key in known})
            self._thread.set = True
        kind = getattr(getattr(rows, "dtype", None), "kind", "")
        if kind != "f":
            return kind in ("i", "u", "b")
        # NaN and infinity are not between, nor is what would not fit into the 32 bits that trees use.
        flat, least, most = rows.ravel(), self._numpy.minimum.reduce, self._numpy.maximum.reduce
        return bool(flat.size and most(flat) < LARGE and least(flat) > -LARGE)

    def strict(self) -> Any:
        return self._sklearn.config_context(assume_finite=False)


def _parts(model: Any) -> "Iterator[Any]":
    """Yield the model, the estimators it is made of, and what else they were given that can be called."""
    yield model
    parameters = model.get_params(deep=True) if hasattr(model, "get_params") else {"": model}
    for value in parameters.values():
        if hasattr(value, "get_params") or callable(value):
            yield value


def _by_row(part: Any) -> bool:
    """Tell whether *part* is known to treat every row on its own."""
    return _package(part) in (*ORDINARY, "numpy") and _name(part) not in OF_THE_BATCH


def _by_name(part: Any) -> bool:
    """Tell whether *part* may treat a column by its name, or write names for the next part."""
    return _package(part) not in ("sklearn", "numpy") or _name(part) in OF_NAMES or hasattr(part, OUTPUT)


def _package(part: Any) -> str:
    module = getattr(part, "__module__", None) or type(part).__module__
    return str(module).partition(".")[0]


def _name(part: Any) -> str:
    return str(getattr(part, "__name__", type(part).__name__))
