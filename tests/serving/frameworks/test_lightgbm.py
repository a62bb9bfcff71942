"""LightGBM models served without a script, from each file that they are saved in."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore:X does not have valid feature names")]
lightgbm = pytest.importorskip("lightgbm")

TABLE, YES = load_breast_cancer(return_X_y=True, as_frame=True)
ROWS = TABLE.to_numpy()
SETTINGS = {"n_estimators": 5, "num_leaves": 4, "n_jobs": 1, "verbose": -1}


@pytest.fixture(scope="module")
def classifier() -> Any:
    return lightgbm.LGBMClassifier(**SETTINGS).fit(TABLE, np.array(["no", "yes"])[YES])


@pytest.fixture(scope="module")
def service(serve: Any, classifier: Any) -> Any:
    return serve("LightGBM", lambda folder: (folder / "model.pkl").write_bytes(pickle.dumps(classifier))).ready()


def test_a_classifier_gives_labels_and_probabilities(service: Any, classifier: Any) -> None:
    body = {"data": ROWS[:20].tolist()}
    assert service.score(body).json == {"predict": classifier.predict(TABLE[:20]).tolist()}
    shares = service.score({**body, "method": "predict_proba"}).json["predict_proba"]
    np.testing.assert_allclose(shares, classifier.predict_proba(TABLE[:20]), rtol=1e-12)


def test_records_are_ordered_and_values_may_be_missing(service: Any, classifier: Any) -> None:
    names = [name.replace(" ", "_") for name in TABLE.columns]
    record = dict(reversed(list(zip(names, ROWS[0].tolist(), strict=True))))
    assert service.score([record]).json == {"predict": classifier.predict(TABLE[:1]).tolist()}
    row = ROWS[:1].copy()
    row[0, 3] = np.nan
    reply = service.score({"data": [[None if one != one else one for one in row[0]]]})
    assert reply.json == {"predict": classifier.predict(row).tolist()}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"data": [[1, 2]]}', "row 0 has 2 values, the model takes 30"),
        (b'{"data": [{"mean_radius": 1}]}', "row 0 has no 'mean_texture'"),
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
        np.testing.assert_allclose(reply.json["predict_proba"], expected[number : number + 1], rtol=1e-12)


def test_the_model_declares_columns_results_and_tensors(service: Any) -> None:
    contract = service.ask("GET", "/contract.json").json
    assert contract["request"]["properties"]["data"]["items"]["minItems"] == 30
    assert contract["response"]["properties"]["predict"] == {"type": "array", "items": {"type": "string"}}
    model = service.ask("GET", "/v2/models/ML-service").json
    assert {one["name"]: one["shape"] for one in model["outputs"]} == {"predict": [-1], "predict_proba": [-1, 2]}


def saved_as(model: Any, name: str) -> Any:
    def fill(folder: Path) -> None:
        if name.endswith("pkl"):
            (folder / name).write_bytes(pickle.dumps(model))
        elif name.endswith("skops"):
            import skops.io

            skops.io.dump(model, folder / name)
        else:
            getattr(model, "booster_", model).save_model(folder / name)

    return fill


@pytest.mark.parametrize("name", ["m.txt", "m.lgb", "m.pkl", "m.skops"])
def test_every_file_of_a_regressor_gives_the_same(load: Any, scored: Any, name: str) -> None:
    rows, target = load_diabetes(return_X_y=True)
    model = lightgbm.LGBMRegressor(**SETTINGS).fit(rows, target)
    scorer = load("lightgbm", saved_as(model, name))
    bodies = [{"data": rows[at : at + 1 + at % 2].tolist()} for at in range(9)]
    alone = scored(scorer, bodies)
    for at, reply in enumerate(alone):
        assert reply["predict"] == model.predict(rows[at : at + 1 + at % 2]).tolist()
    assert scored(scorer, bodies, joined=True) == alone


@pytest.mark.parametrize("name", ["m.txt", "m.pkl"])
def test_a_booster_gives_what_its_objective_says(load: Any, scored: Any, name: str) -> None:
    rows, kinds = load_iris(return_X_y=True)
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    model = lightgbm.train(settings, lightgbm.Dataset(rows, kinds), 4)
    scorer = load("LightGBM", saved_as(model, name))
    for method in ("predict", "predict_proba"):
        (reply,) = scored(scorer, [{"data": rows.tolist(), "method": method}])
        np.testing.assert_allclose(reply[method], model.predict(rows), rtol=1e-12)


def test_a_boosters_yes_and_no_are_both_probabilities(load: Any, scored: Any, classifier: Any) -> None:
    scorer = load("LightGBM", saved_as(classifier, "m.txt"))
    (reply,) = scored(scorer, [{"data": ROWS.tolist(), "method": "predict_proba"}])
    np.testing.assert_allclose(reply["predict_proba"], classifier.predict_proba(ROWS), rtol=1e-12)


def test_a_file_that_is_no_model_ends_the_start(serve: Any) -> None:
    service = serve("LightGBM", lambda folder: (folder / "m.txt").write_text("no model"))
    assert service.ended() == 1
    assert "m.txt cannot be read" in service.lines[-1]
