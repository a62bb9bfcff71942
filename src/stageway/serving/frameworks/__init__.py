"""Frameworks that need no entry script: the model's files alone are served. One file each, named in ``FRAMEWORKS``.

Models are read here, in the service's own process, and nowhere else: some formats run code when they are read.
"""

from __future__ import annotations

import importlib
from typing import Any

from stageway.serving.scorer import Scorer, StartError
from stageway.serving.settings import Settings

FRAMEWORKS = {
    "ScikitLearn": "scikitlearn",
    "Onnx": "onnx",
    "TensorFlow": "tensorflow",
    "XGBoost": "xgboost",
    "LightGBM": "lightgbm",
    "TorchScript": "torchscript",
    "MLflow": "mlflow",
}
"""Name of a framework, as the registry writes it, to the module below this one that has a class of that name."""

ALIASES = {"sklearn": "ScikitLearn", "pyfunc": "MLflow"}


def known_as(framework: str) -> str:
    """Return the name of *framework* as ``FRAMEWORKS`` writes it, whatever the case of its letters."""
    for name in FRAMEWORKS:
        if framework.lower() in (name.lower(), *(alias for alias, of in ALIASES.items() if of == name)):
            return name
    known = ", ".join(FRAMEWORKS)
    raise StartError("framework {!r} needs an entry script; without one there is {}".format(framework, known))


def load(settings: Settings) -> Scorer:
    """Return the scorer of the framework that *settings* name, with the model of ``AZUREML_MODEL_DIR`` read."""
    name = known_as(settings.framework)
    module: Any = importlib.import_module("{}.{}".format(__name__, FRAMEWORKS[name]))
    scorer: Scorer = getattr(module, name)(settings)
    return scorer
