"""Train the model and leave all that `stageway register` takes: the model, its metrics and its samples.

    stageway exec -- python train.py
    stageway register outputs/model --metrics outputs/metrics.json --samples outputs/samples

`stageway exec` runs this file in the environment that the service will have (stageway.lock), so what is trained here
can be loaded there. The same arguments give the same model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import joblib
import numpy
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

import score

HERE = Path(__file__).resolve().parent


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the model.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--alpha", type=float, default=1.0, help="strength of Ridge's regularisation")
    parser.add_argument("--features", type=int, default=10, choices=range(1, 11), metavar="N", help="use the first N columns")
    parser.add_argument(
        "--reply",
        choices=["single", "pair"],
        default="single",
        help="what one row is answered with: the prediction, or a pair of the prediction and its logarithm",
    )
    parser.add_argument("--seed", type=int, default=42, help="of the split into training and held-out rows")
    parser.add_argument("--output", type=Path, default=HERE / "outputs", help="folder for what training leaves")
    wanted = parser.parse_args(arguments)

    rows, target = load_diabetes(return_X_y=True)
    rows, held_out, target, truth = train_test_split(rows, target, test_size=0.2, random_state=wanted.seed)

    # Only parts of scikit-learn go into the model, so that the service needs nothing but requirements.txt to load it.
    model = make_pipeline(
        ColumnTransformer([("kept", "passthrough", list(range(wanted.features)))]),
        Ridge(alpha=wanted.alpha),
    )
    if wanted.reply == "pair":
        # Clients agreed to one number a row. `stageway` notices that this breaks them: see the contract gate.
        target = numpy.column_stack([target, numpy.log(target)])
    model.fit(rows, target)

    predicted = model.predict(held_out)
    if wanted.reply == "pair":
        predicted = predicted[:, 0]
    metrics = {
        "rmse": round(float(mean_squared_error(truth, predicted)) ** 0.5, 4),
        "r2": round(float(r2_score(truth, predicted)), 4),
    }

    shutil.rmtree(wanted.output, ignore_errors=True)
    (wanted.output / "model").mkdir(parents=True)
    joblib.dump(model, wanted.output / "model" / "model.joblib")
    (wanted.output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    write_samples(wanted.output)
    print(f"rmse {metrics['rmse']}, r2 {metrics['r2']} on {len(truth)} held-out rows; written to {wanted.output}")


def write_samples(output: Path) -> None:
    """Write each request of samples/ with the reply that this very model gives, through the entry script.

    They are registered with the version. Profile and smoke test send them, and expect these replies.
    """
    os.environ["AZUREML_MODEL_DIR"] = str(output / "model")
    score.init()
    (output / "samples").mkdir()
    for request in sorted((HERE / "samples").glob("*.json")):
        if request.name.endswith(".expected.json"):
            continue
        body = request.read_text(encoding="utf-8")
        (output / "samples" / request.name).write_text(body, encoding="utf-8")
        reply = json.dumps(score.run(body)) + "\n"
        (output / "samples" / f"{request.stem}.expected.json").write_text(reply, encoding="utf-8")


if __name__ == "__main__":
    main()
