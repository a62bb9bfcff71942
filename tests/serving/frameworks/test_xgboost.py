"""XGBoost models served without a script, from each file that they are saved in."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

pytestmark = pytest.mark.frameworks
xgboost = pytest.importorskip("xgboost")

TABLE, YES = load_breast_cancer(return_X_y=True, as_frame=True)
ROWS = TABLE.to_numpy()
SETTINGS = {"n_estimators": 5, "max_depth": 3, "n_jobs": 1}


@pytest.fixture(scope="module")
def classifier() -> Any:
    return xgboost.XGBClassifier(**SETTINGS).fit(TABLE, YES)


@pytest.fixture(scope="module")
def service(serve: Any, classifier: Any) -> Any:
    return serve("XGBoost", lambda folder: classifier.save_model(folder / "model.ubj")).ready()


def test_a_classifier_that_saved_itself_gives_labels_and_probabilities(service: Any, classifier: Any) -> None:
    body = {"data": ROWS[:20].tolist()}
    assert service.score(body).json == {"predict": classifier.predict(TABLE[:20]).tolist()}
    shares = service.score({**body, "method": "predict_proba"}).json["predict_proba"]
    np.testing.assert_allclose(shares, classifier.predict_proba(TABLE[:20]), rtol=1e-6)
    records = TABLE[:3].to_dict(orient="records")
    assert service.score({"data": records}).json == {"predict": classifier.predict(TABLE[:3]).tolist()}
    assert service.score(records).json == {"predict": classifier.predict(TABLE[:3]).tolist()}


def test_values_may_be_missing(service: Any, classifier: Any) -> None:
    row = ROWS[:1].copy()
    row[0, 3] = np.nan
    body = {"data": [[None if value != value else value for value in row[0]]], "method": "predict_proba"}
    np.testing.assert_allclose(service.score(body).json["predict_proba"], classifier.predict_proba(row), rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"data": [[1, 2]]}', "row 0 has 2 values, the model takes 30"),
        (b'{"data": [{"mean radius": 1}]}', "row 0 has no 'mean texture'"),
        (b'{"data": [[%s"a"]]}' % (b"0," * 29), "the model refused the data"),
        (b'{"data": [[%s0]], "method": "fit"}' % (b"0," * 29), "no method 'fit'; the model has predict, predict_proba"),
    ],
)
def test_what_is_wrong_is_said(service: Any, body: bytes, words: str) -> None:
    reply = service.score(body)
    assert reply.status == 400
    assert words in reply.json["message"]


def test_requests_that_come_together_get_their_own_results(service: Any, classifier: Any, at_once: Any) -> None:
    bodies = [{"data": ROWS[at : at + 1].tolist(), "method": "predict_proba"} for at in range(100)]
    expected = classifier.predict_proba(TABLE[:100])
    for number, reply in enumerate(at_once(service, bodies)):
        np.testing.assert_allclose(reply.json["predict_proba"], expected[number : number + 1], rtol=1e-6)


def test_the_model_declares_columns_results_and_tensors(service: Any) -> None:
    contract = service.ask("GET", "/contract.json").json
    assert contract["request"]["properties"]["data"]["items"]["minItems"] == 30
    assert contract["response"]["properties"]["predict"] == {"type": "array", "items": {"type": "integer"}}
    model = service.ask("GET", "/v2/models/ML-service").json
    assert {one["name"]: one["shape"] for one in model["outputs"]} == {"predict": [-1], "predict_proba": [-1, 2]}


def saved_as(model: Any, name: str) -> Any:
    def fill(folder: Path) -> None:
        if name.endswith(("pkl", "joblib")):
            (folder / name).write_bytes(pickle.dumps(model))
        elif name.endswith("xgb"):
            model.save_model(folder / "m.ubj")
            (folder / "m.ubj").rename(folder / name)
        else:
            model.save_model(folder / name)

    return fill


@pytest.mark.parametrize("name", ["m.json", "m.ubj", "m.xgb", "m.pkl"])
def test_every_file_of_a_regressor_gives_the_same(load: Any, scored: Any, name: str) -> None:
    rows, target = load_diabetes(return_X_y=True)
    model = xgboost.XGBRegressor(**SETTINGS).fit(rows, target)
    scorer = load("xgboost", saved_as(model, name))
    bodies = [{"data": rows[at : at + 1 + at % 2].tolist()} for at in range(9)]
    alone = scored(scorer, bodies)
    for at, reply in enumerate(alone):
        np.testing.assert_allclose(reply["predict"], model.predict(rows[at : at + 1 + at % 2]), rtol=1e-6)
    assert scored(scorer, bodies, joined=True) == alone


@pytest.mark.parametrize("name", ["m.json", "m.pkl"])
def test_a_booster_gives_what_its_objective_says(load: Any, scored: Any, name: str) -> None:
    rows, kinds = load_iris(return_X_y=True)
    data = xgboost.DMatrix(rows, kinds)
    model = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, data, 4)
    scorer = load("XGBoost", saved_as(model, name))
    for method in ("predict", "predict_proba"):
        (reply,) = scored(scorer, [{"data": rows.tolist(), "method": method}])
        np.testing.assert_allclose(reply[method], model.predict(data), rtol=1e-6)


def test_a_boosters_yes_and_no_are_both_probabilities(load: Any, scored: Any) -> None:
    data = xgboost.DMatrix(ROWS, YES)
    model = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 4)
    scorer = load("XGBoost", saved_as(model, "m.json"))
    (reply,) = scored(scorer, [{"data": ROWS.tolist(), "method": "predict_proba"}])
    np.testing.assert_allclose(np.array(reply["predict_proba"])[:, 1], model.predict(data), rtol=1e-5)
    np.testing.assert_allclose(np.sum(reply["predict_proba"], axis=1), 1.0, rtol=1e-5)


def test_a_file_that_is_no_model_ends_the_start(serve: Any) -> None:
    service = serve("XGBoost", lambda folder: (folder / "m.json").write_text("{}"))
    assert service.ended() == 1
    assert "m.json cannot be read" in service.lines[-1]
