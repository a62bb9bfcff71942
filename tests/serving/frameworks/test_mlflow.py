"""Models in MLflow's format served without a script, in MLflow's forms, against MLflow's own predictions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")]

TABLE, TARGET = load_diabetes(return_X_y=True, as_frame=True)


def ridge(folder: Path) -> None:
    model = Ridge().fit(TABLE, TARGET)
    signature = infer_signature(TABLE, model.predict(TABLE))
    _save(lambda: mlflow.sklearn.save_model(model, str(folder / "model"), signature=signature, pip_requirements=[]))


def shifted(folder: Path) -> None:
    # A class of a function goes into the model's file as it is, one of a module only by its name.
    class Shifted(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined,unused-ignore]
        """Adds a parameter to the sum of a row."""

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return pd.DataFrame({"total": model_input.sum(axis=1) + (params or {}).get("shift", 0.0)})

    table = pd.DataFrame({"a": [1.0], "b": [2.0]})
    signature = infer_signature(table, pd.DataFrame({"total": [3.0]}), params={"shift": 0.0})
    _save(
        lambda: mlflow.pyfunc.save_model(str(folder), python_model=Shifted(), signature=signature, pip_requirements=[])
    )


def _save(save: Any) -> None:
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    save()


@pytest.fixture(scope="module")
def expected() -> Any:
    return Ridge().fit(TABLE, TARGET).predict(TABLE)


@pytest.fixture(scope="module")
def service(serve: Any) -> Any:
    return serve("pyfunc", ridge).ready()


@pytest.fixture(scope="module")
def own(serve: Any) -> Any:
    return serve("MLflow", shifted).ready()


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": TABLE[:3].to_dict(orient="split")},
        {"dataframe_records": TABLE[:3].to_dict(orient="records")},
        {"instances": TABLE[:3].to_dict(orient="records")},
        {"inputs": TABLE[:3].to_dict(orient="list")},
        {"data": TABLE[:3].to_numpy().tolist()},
        {"data": TABLE[:3].to_dict(orient="records")},
        TABLE[:3].to_dict(orient="records"),
    ],
)
def test_every_form_gives_the_predictions(service: Any, expected: Any, body: Any) -> None:
    reply = service.score(body)
    assert reply.status == 200
    np.testing.assert_allclose(reply.json["predictions"], expected[:3], rtol=1e-9)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "one of 'dataframe_split', 'dataframe_records'"),
        (b'{"inputs": [], "data": []}', "one of 'dataframe_split', 'dataframe_records'"),
        (b'{"dataframe_records": 3}', "'dataframe_records' cannot be read"),
        (b'{"dataframe_split": {"rows": []}}', "'dataframe_split' cannot be read"),
        (b'{"dataframe_records": [{"age": 1.0}]}', "the model refused the data"),
        (b'{"dataframe_records": [], "more": 1}', "'more' is not known beside 'dataframe_records'"),
        (b'{"data": 3}', "'data' is not a list of rows"),
        (b'{"data": [[1]]}', "'data' cannot be read"),
        (b'{"data": [[0,0,0,0,0,0,0,0,0,0]], "params": 3}', "'params' is not an object"),
    ],
)
def test_what_is_wrong_is_said(service: Any, body: bytes, words: str) -> None:
    reply = service.score(body)
    assert reply.status == 400
    assert words in reply.json["message"]


def test_a_function_of_the_users_own_gets_its_parameters(own: Any) -> None:
    body = {"dataframe_records": [{"a": 1.5, "b": 2.0}]}
    assert own.score(body).json == {"predictions": [{"total": 3.5}]}
    assert own.score({**body, "params": {"shift": 10.0}}).json == {"predictions": [{"total": 13.5}]}
    given = [{"name": name, "datatype": "FP64", "shape": [1], "data": [1.0]} for name in ("a", "b")]
    reply = own.ask("POST", "/v2/models/ML-service/infer", _bytes({"inputs": given}))
    assert reply.json["outputs"][0]["data"] == [2.0]


def test_the_signature_is_contract_and_tensors(service: Any) -> None:
    contract = service.ask("GET", "/contract.json").json
    row = contract["request"]["properties"]["dataframe_records"]["items"]
    assert row["required"] == sorted(TABLE.columns)
    model = service.ask("GET", "/v2/models/ML-service").json
    assert model["inputs"][0] == {"name": "age", "datatype": "FP64", "shape": [-1, 1]}


def test_rows_are_joined_only_where_the_owner_says_so(load: Any, work: Any, scored: Any) -> None:
    body = {"dataframe_records": TABLE[:1].to_dict(orient="records")}
    scorer = load("MLflow", ridge, batching="on")
    assert work(scorer, body).key is not None
    bodies = [{"dataframe_records": TABLE[at : at + 1 + at % 2].to_dict(orient="records")} for at in range(6)]
    for joined, alone in zip(scored(scorer, bodies, joined=True), scored(scorer, bodies), strict=True):
        np.testing.assert_allclose(joined["predictions"], alone["predictions"], rtol=1e-9)
    scorer._independent = False
    assert work(scorer, body).key is None


def _bytes(value: Any) -> bytes:
    import json

    return json.dumps(value).encode()
