"""The entry script: `init` runs once when the service starts, `run` for every request to /score.

It has the form of Azure ML v1 entry scripts, so a script from there can take this one's place. A request is
`{"data": [[10 numbers], ...]}`; the reply is a list with one prediction for each row.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import joblib
import numpy

COLUMNS = 10

model = None


def init() -> None:
    """Load the model. An exception here keeps the service from becoming ready; what ran before goes on serving."""
    global model
    # AZUREML_MODEL_DIR holds the files of the version, under the names they were registered with.
    model = joblib.load(next(Path(os.environ["AZUREML_MODEL_DIR"]).rglob("model.joblib")))


def run(raw_data: str) -> list:
    """Score one request body. What is wrong with a request is raised, never returned with a status of 200."""
    request = json.loads(raw_data)
    if not isinstance(request, dict) or "data" not in request:
        raise ValueError('the request must be {"data": [[...], ...]}')
    rows = numpy.asarray(request["data"], dtype=float)
    if rows.ndim != 2 or rows.shape[1] != COLUMNS:
        raise ValueError(f"data: rows of {COLUMNS} numbers are expected, these have the shape {rows.shape}")
    return model.predict(rows).tolist()
