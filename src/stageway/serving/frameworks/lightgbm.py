"""LightGBM: one file that a Booster saved, or a pickle of a Booster or of a model with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any, Optional

from stageway.serving.frameworks import files
from stageway.serving.frameworks.tabular import Tabular, column_names, methods_of
from stageway.serving.frameworks.xgboost import both
from stageway.serving.settings import Settings

ENDINGS = (".txt", ".lgb", ".model")
METHODS = ("predict", "predict_proba")
PROBABILITIES = {"binary", "cross_entropy", "multiclass", "multiclassova"}
"""Objectives of which a Booster's ``predict`` returns probabilities."""


class LightGBM(Tabular):
    """One LightGBM model. What has scikit-learn's interface predicts labels, a Booster what its objective says."""

    def __init__(self, settings: Settings) -> None:
        library = files.package("lightgbm", "lightgbm")
        path = files.one_file((*ENDINGS, *files.PICKLES, files.SKOPS))
        suffix = path.suffix.lower()
        if suffix in ENDINGS:
            self.model = files.read(path, lambda path: library.Booster(model_file=str(path)))
        else:
            self.model = files.from_skops(path, "lightgbm") if suffix == files.SKOPS else files.unpickled(path)
        self._booster: Any = self.model
        self._classes: Optional[Any] = None
        if isinstance(self.model, library.Booster):
            objective = str(self.model.params.get("objective", "")).partition(" ")[0]
            methods = list(METHODS) if objective in PROBABILITIES else [METHODS[0]]
        else:
            methods = methods_of(self.model, METHODS, path)
            self._booster = self.model.booster_
            self._classes = getattr(self.model, "classes_", None)
        # Objectives of the user's own give what only the model itself may read.
        self._own = callable(getattr(self.model, "objective_", None))
        self._threads = files.threads()
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        super().__init__(
            methods,
            self._booster.num_feature(),
            _names(self._booster),
            "lightgbm",
            independent=True,
            nameless=True,
        )

    def score(self, method: str, rows: Any) -> Any:
        if self._own:
            return getattr(self.model, method)(rows, num_threads=self._threads)
        # What the model itself would ask its Booster, without the checks that cost more than the answer.
        result = self._booster.predict(rows, num_threads=self._threads)
        if method == "predict_proba" or self._classes is not None:
            result = both(result) if result.ndim == 1 else result
        return result if method == "predict_proba" or self._classes is None else self._classes[result.argmax(axis=1)]


def _names(booster: Any) -> "list[str]":
    """Return the columns' names, unless LightGBM made them up."""
    names = booster.feature_name()
    made_up = ["Column_{}".format(number) for number in range(len(names))]
    return [] if names == made_up else column_names(names)
