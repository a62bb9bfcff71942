"""Stands in for ``azureml.train.automl``, which scripts import only so that pickles of automated machine learning open.

Other models open without it. A pickle that does need it fails with the sentence below.
"""

from __future__ import annotations

import sys
from typing import Any

print(
    "stageway-serving: azureml.train.automl is not installed; a model that was not made by it needs it for nothing",
    file=sys.stderr,
)


def __getattr__(name: str) -> Any:
    raise AttributeError(
        "azureml.train.automl is not installed, so {!r} is missing; "
        "add azureml-train-automl-runtime to the dependencies".format(name)
    )
