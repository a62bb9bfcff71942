"""scikit-learn models served without a script: the model file alone decides what is right."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge

FEATURES, TARGET = load_diabetes(return_X_y=True)


@pytest.fixture(scope="module")
def ridge() -> Any:
    return Ridge().fit(FEATURES, TARGET)


def served(start: Any, folder: Path, *files: tuple[str, Any], **more: Any) -> Any:
    models = folder / "azureml-models" / "diabetes" / "1"
    models.mkdir(parents=True)
    for name, model in files:
        if name.endswith("joblib"):
            joblib.dump(model, models / name)
        else:
            (models / name).write_bytes(pickle.dumps(model))
    where = {"AZUREML_MODEL_DIR": "azureml-models/diabetes/1"}
    return start(None, "--framework", "scikitlearn", folder=folder, environment=where, **more)


@pytest.fixture(scope="module")
def service(start: Any, ridge: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return served(start, tmp_path_factory.mktemp("app"), ("model.joblib", ridge)).ready()


def test_predictions_are_those_of_the_model(service: Any, ridge: Any) -> None:
    rows = FEATURES[:100]
    reply = service.score({"data": rows.tolist(), "method": "predict"})
    assert reply.status == 200
    assert reply.json == {"predict": ridge.predict(rows).tolist()}
    assert service.score({"data": rows.tolist()}).json == reply.json


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b'{"data": [[', "the body is not JSON"),
        (b'{"rows": []}', "the parameter 'data' is missing"),
        (b"[[1]]", "the parameter 'data' is missing"),
        (b'{"data": []}', "'data' is not a list of rows"),
        (b'{"data": 3}', "'data' is not a list of rows"),
        (b'{"data": [1, 2]}', "row 0 is 1, not a list of 10 values"),
        (b'{"data": [[1, 2]]}', "row 0 has 2 values, the model takes 10"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,0], [1]]}', "row 1 has 1 values, the model takes 10"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,"ten"]]}', "could not convert string to float: 'ten'"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,null]]}', "Input X contains NaN"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,[1]]]}', "rows differ in shape"),
        (b'{"data": [{"age": 1}]}', "the model has no column names"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,0]], "method": "predict_proba"}', "the model has predict"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,0]], "method": "__init__"}', "no method '__init__'"),
    ],
)
def test_what_the_model_cannot_take_is_refused_with_a_sentence(service: Any, body: bytes, words: str) -> None:
    reply = service.ask("POST", "/score", body, {"content-type": "application/json"})
    assert reply.status == 400
    assert words in reply.json["message"]


def test_the_model_tells_how_many_columns_it_takes(service: Any) -> None:
    contract = service.ask("GET", "/contract.json").json
    assert contract["source"] == "signature"
    row = contract["request"]["properties"]["data"]["items"]
    assert (row["minItems"], row["maxItems"]) == (10, 10)


def test_a_contract_from_outside_wins_over_what_the_model_tells(start: Any, ridge: Any, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"request": null, "response": {"type": "object"}, "source": "samples"}')
    models = tmp_path / "m"
    models.mkdir()
    joblib.dump(ridge, models / "model.pkl")
    where = {"AZUREML_MODEL_DIR": "m"}
    service = start(None, "--framework", "ScikitLearn", "--contract", "c.json", folder=tmp_path, environment=where)
    assert service.ready().ask("GET", "/contract.json").json == {
        "request": None,
        "response": {"type": "object"},
        "source": "samples",
    }


def test_a_classifier_trained_on_a_table_takes_rows_and_records(start: Any, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
    model = LogisticRegression().fit(table, np.array(["no", "no", "yes", "yes"]))
    service = served(start, tmp_path, ("model.pkl", model)).ready()
    assert service.score({"data": [[0, 1], [3, 0]]}).json == {"predict": ["no", "yes"]}
    assert service.score({"data": [{"b": 0, "a": 3}]}).json == {"predict": ["yes"]}
    shares = service.score({"data": [[0, 1]], "method": "predict_proba"}).json
    assert shares == {"predict_proba": model.predict_proba(table[:1]).tolist()}
    reply = service.score({"data": [{"a": 3}]})
    assert (reply.status, reply.json) == (400, {"message": "'data': row 0 has no 'b'"})
    assert not [line for line in service.lines if "feature names" in line]


def test_other_files_beside_the_model_do_not_matter(start: Any, ridge: Any, tmp_path: Path) -> None:
    service = served(start, tmp_path, ("model.pkl", ridge), ("MLmodel", "flavors"), ("requirements.txt", "numpy"))
    assert service.ready().score({"data": FEATURES[:1].tolist()}).status == 200


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "holds 0: none"),
        (["a.pkl", "b.joblib"], "holds 2: a.pkl, b.joblib"),
    ],
)
def test_none_or_several_models_are_refused_at_the_start(
    start: Any, ridge: Any, tmp_path: Path, files: list[str], words: str
) -> None:
    service = served(start, tmp_path, *[(name, ridge) for name in files])
    assert service.ended() == 1
    assert service.lines[-1].startswith("stageway-serving: cannot start: without an entry script one model file is")
    assert words in service.lines[-1]


def test_a_model_that_cannot_be_read_is_refused_at_the_start(start: Any, ridge: Any, tmp_path: Path) -> None:
    service = served(start, tmp_path, ("model.pkl", {"no": "model"}))
    assert service.ended() == 1
    assert service.lines[-1].endswith("model.pkl holds a dict, which has no method predict")
    shutil.rmtree(tmp_path / "azureml-models")
    (tmp_path / "azureml-models" / "diabetes" / "1").mkdir(parents=True)
    (tmp_path / "azureml-models" / "diabetes" / "1" / "model.pkl").write_bytes(b"not a pickle")
    where = {"AZUREML_MODEL_DIR": "azureml-models/diabetes/1"}
    service = start(None, "--framework", "ScikitLearn", folder=tmp_path, environment=where)
    assert service.ended() == 1
    assert "model.pkl cannot be read" in service.lines[-1]
