"""The two models, trained here, with bodies to send and the predictions that replies have to agree with.

Run by the Python of the environment ``stageway`` (``python models.py FOLDER``): a file is read by the scikit-learn that
wrote it. The rows are the diabetes data's own, in several orders, so that no two requests ask for the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MODELS = ("ridge", "forest")
TOLERANCE = 1e-6
"""Relative; what a reply may differ from ``predict`` in this process (JSON texts, another order of sums)."""
LOOSE = 1e-3
"""The same for a verified ONNX form, which computes with other widths; its release says how much it was allowed."""


@dataclass(frozen=True)
class Trained:
    """One model's folder, and its answers: rows, and what ``predict`` says of each."""

    name: str
    folder: Path
    rows: list[list[float]]
    predictions: list[float]


def make(python: str, folder: Path) -> dict[str, Trained]:
    """Train what is not there yet, with *python*; return the models by name."""
    if not (folder / "answers.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([python, __file__, str(folder)], check=True)
    answers = json.loads((folder / "answers.json").read_text())
    return {name: Trained(name, folder / name, answers["rows"], answers[name]) for name in MODELS}


def _train(folder: Path) -> None:
    import joblib
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge

    rows, targets = load_diabetes(return_X_y=True)
    # One thread: the server has one core.
    forest = RandomForestRegressor(n_estimators=100, random_state=0, n_jobs=1)
    answers = {"rows": rows.tolist()}
    for name, model in {"ridge": Ridge(), "forest": forest}.items():
        model.fit(rows, targets)
        place = folder / name / "azureml-models" / "m" / "1"
        place.mkdir(parents=True, exist_ok=True)
        joblib.dump(model, place / "model.joblib")
        answers[name] = model.predict(rows).tolist()
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    _train(Path(sys.argv[1]))
