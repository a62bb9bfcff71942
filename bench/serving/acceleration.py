"""What a verified ONNX form is worth: time of one call with 1 and 64 rows, original and ONNX, and how they agree.

.venv/bin/python -m bench.serving.acceleration
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from stageway.serving import frameworks
from stageway.serving.convert.verify import NotAcceleratedError, accelerate
from stageway.serving.settings import Settings


def models() -> Iterator[tuple[str, Any]]:
    numbers, classes = load_diabetes(return_X_y=True), load_breast_cancer(return_X_y=True)
    yield "Ridge", Ridge().fit(*numbers)
    yield "RandomForestRegressor(100)", RandomForestRegressor(100, random_state=0).fit(*numbers)
    yield "RandomForestClassifier(100)", RandomForestClassifier(100, random_state=0).fit(*classes)
    yield "HistGradientBoostingRegressor", HistGradientBoostingRegressor(random_state=0).fit(*numbers)
    yield "StandardScaler + LogisticRegression", make_pipeline(StandardScaler(), LogisticRegression()).fit(*classes)
    yield "StandardScaler + SVC", make_pipeline(StandardScaler(), SVC()).fit(*classes)
    yield "KNeighborsClassifier", KNeighborsClassifier().fit(*classes)


def row(name: str, model: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(model, Path(folder, "model.joblib"))
        os.environ["AZUREML_MODEL_DIR"] = folder
        scorer = frameworks.load(Settings(framework="ScikitLearn"))
        form = Path(folder, "form")
        try:
            speed = accelerate(scorer, [], form)
        except NotAcceleratedError as error:
            return f"| {name} | the original serves: {error.message} | | | |"
        report = json.loads((form / "report.json").read_text())
    pairs = [(told["original_us"], told["accelerated_us"]) for told in speed.values()]
    times = [f"{original:,.0f} → {other:,.0f} ({original / other:.0f}×)" for original, other in pairs]
    largest = max(told["largest_difference"] for told in report["compared"].values())
    rows = sum(told["rows"] for told in report["compared"].values())
    return f"| {name} | {times[0]} | {times[1]} | {largest:.0e} | {rows:,} |"


def main() -> None:
    warnings.simplefilter("ignore")
    print("| model | 1 row, µs | 64 rows, µs | largest difference | answers compared |")
    print("| --- | --- | --- | --- | --- |")
    for name, model in models():
        print(row(name, model), flush=True)


if __name__ == "__main__":
    main()
