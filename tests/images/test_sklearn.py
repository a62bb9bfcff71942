"""A trained scikit-learn model on its way from training to a reply, with the packages of one lock."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stageway import images
from stageway.bundle import Bundle, trial
from stageway.release import Model

pytestmark = pytest.mark.slow

TRAIN = """\
import json

import joblib
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

rows, target = load_diabetes(return_X_y=True)
model = Ridge().fit(rows, target)
joblib.dump(model, "model.joblib")
with open("expected.json", "w") as file:
    json.dump({"data": rows[:3].tolist(), "reply": model.predict(rows[:3]).tolist()}, file)
"""
SCORE = """\
import json
import os

import joblib


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.joblib"))


def run(data):
    return model.predict(json.loads(data)["data"]).tolist()
"""


@pytest.fixture
def trained(times: Any) -> Any:
    """The project after its training ran with the packages that will serve."""
    times.write("requirements.txt", "scikit-learn>=1.7\njoblib\n")
    times.write("train.py", TRAIN)
    times.write("score.py", SCORE)
    times.serve(entry_script="score.py", dependencies="requirements.txt")
    place = images.environment(times.workspace())
    subprocess.run([*place.argv, "train.py"], cwd=times.root, env={**os.environ, **place.env}, check=True)
    return times


def register(trained: Any, **facts: Any) -> Model:
    """Register the trained file by hand: the shelf's own ``add`` writes text."""
    model: Model = trained.shelf.add(files={"model.joblib": ""}, **facts)
    target: Path = trained.shelf.root / "times" / model.id.version / "model.joblib"
    target.write_bytes((trained.root / "model.joblib").read_bytes())
    return model


def replies(bundle: Bundle, request: Any) -> Any:
    with trial.serve(bundle) as service:
        reply = service.request("POST", "/score", json.dumps(request).encode())
        assert reply.status == 200, reply.body
        return reply.json()


def test_an_entry_script_serves_what_training_predicted(trained: Any) -> None:
    expected = json.loads((trained.root / "expected.json").read_text())
    bundle = images.build(trained.workspace(), register(trained), trained.shelf)
    assert replies(bundle, {"data": expected["data"]}) == pytest.approx(expected["reply"])


def test_the_framework_serves_without_an_entry_script(trained: Any) -> None:
    expected = json.loads((trained.root / "expected.json").read_text())
    trained.serve(dependencies="requirements.txt")
    model = register(trained, framework="ScikitLearn")
    bundle = images.build(trained.workspace(), model, trained.shelf)
    assert replies(bundle, {"data": expected["data"]}) == {"predict": pytest.approx(expected["reply"])}


def test_two_caches_give_the_same_dependency_layer(trained: Any, tmp_path: Path) -> None:
    model = register(trained)
    one = images.build(trained.workspace(), model, trained.shelf)
    other = images.build(trained.workspace(tmp_path / "other"), model, trained.shelf)
    assert one.digest == other.digest
