"""XGBoost: one file that a Booster or a model with scikit-learn's interface saved, or a pickle of either."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from stageway.serving.frameworks import files
from stageway.serving.frameworks.tabular import Tabular, column_names, methods_of
from stageway.serving.settings import Settings

ENDINGS = (".json", ".ubj", ".model", ".bst", ".xgb")
METHODS = ("predict", "predict_proba")
PROBABILITIES = {"binary:logistic", "multi:softprob"}
"""Objectives of which a Booster's ``predict`` returns probabilities."""


class XGBoost(Tabular):
    """One XGBoost model. What scikit-learn's interface saved predicts labels, a Booster what its objective says."""

    def __init__(self, settings: Settings) -> None:
        library = files.package("xgboost", "xgboost")
        path = files.one_file((*ENDINGS, *files.PICKLES))
        pickled = path.suffix.lower() in files.PICKLES
        self.model = files.unpickled(path) if pickled else files.read(path, lambda path: _loaded(library, path))
        self._booster: Any = self.model
        if isinstance(self.model, library.Booster):
            objective = json.loads(self.model.save_config())["learner"]["objective"]["name"]
            methods = list(METHODS) if objective in PROBABILITIES else [METHODS[0]]
        else:
            methods = methods_of(self.model, METHODS, path)
            self._booster = self.model.get_booster()
            self.model.set_params(n_jobs=files.threads())
        self._booster.set_param({"nthread": files.threads()})
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        super().__init__(
            methods,
            self._booster.num_features(),
            column_names(self._booster.feature_names),
            "xgboost",
            independent=True,
            nameless=True,
        )

    def score(self, method: str, rows: Any) -> Any:
        if self.model is not self._booster:
            return getattr(self.model, method)(rows)
        result = self._booster.inplace_predict(rows)
        return both(result) if method == "predict_proba" and result.ndim == 1 else result


def both(result: Any) -> Any:
    """Return the probabilities of no and of yes, from those of yes."""
    import numpy as np

    return np.stack([1 - result, result], axis=1)


def _loaded(library: Any, path: Path) -> Any:
    """Return the Booster in *path*, or the classifier or regressor that wrote itself down with it."""
    # XGBoost guesses the format from these two endings, and from the content of what has no name.
    source: Any = str(path) if path.suffix.lower() in (".json", ".ubj") else bytearray(path.read_bytes())
    booster = library.Booster(model_file=source)
    kind = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    kinds = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}
    if kind not in kinds:
        return booster
    model = getattr(library, kinds[kind])()
    model.load_model(source)
    return model
