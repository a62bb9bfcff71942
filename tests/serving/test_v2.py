"""The Open Inference Protocol as its public client speaks it, against real servers."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stageway.serving import v2
from stageway.serving.settings import Settings

ARRAYS = """
import numpy as np
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType as Array

@input_schema("rows", Array(np.array([[1.0, 2.0]])))
@input_schema("factor", Array(np.array([2], dtype="int32")))
@output_schema(Array(np.array([[1.0]])))
def run(rows, factor):
    assert rows.dtype == "float64" and factor.dtype == "int32"
    if factor[0] == 0:
        raise ValueError("the factor")
    if factor[0] == 1:
        return {"no": "array"}
    rows *= factor
    return rows.tolist()
"""

TABLE = """
import pandas as pd
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType as Table

@input_schema("data", Table(pd.DataFrame({"name": ["a"], "age": [1], "weight": [1.5]})))
@output_schema(Table(pd.DataFrame({"name": ["a"], "old": [True]})))
def run(data):
    assert list(data.columns) == ["name", "age", "weight"]
    return pd.DataFrame({"name": data["name"].str.upper(), "old": data["age"] > 40})
"""

COUNTING = """
import time
from pathlib import Path
import numpy as np
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType as Array

@input_schema("data", Array(np.array([[1.0, 2.0]])))
@output_schema(Array(np.array([1])))
def run(data):
    if data[0, 0] < 0:
        Path("begun").touch()
        while not Path("go").exists():
            time.sleep(0.01)
    return np.full(len(data), len(data))
"""

PLAIN = """
def run(data):
    return data
"""


@pytest.fixture(scope="module")
def arrays(start: Any) -> Any:
    return start(ARRAYS, "--port", "0", "--model-version", "diabetes:3", "--max-body", "100000").ready()


@pytest.fixture(scope="module")
def table(start: Any) -> Any:
    return start(TABLE, environment={"SERVICE_NAME": "Ages & weights"}).ready()


@pytest.fixture(scope="module")
def classifier(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    model = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0], [0.2, 1.0], [1.0, 0.1]], [0, 1, 0, 1])
    joblib.dump(model, folder / "model.joblib")
    return start(
        None, "--framework", "ScikitLearn", "--batching", "on", environment={"AZUREML_MODEL_DIR": str(folder)}
    ).ready()


def infer(service: Any, model: str, *inputs: Any, **other: Any) -> Any:
    document = json.dumps({"inputs": list(inputs), **other}).encode()
    return service.ask("POST", f"/v2/models/{model}/infer", document)


def tensor(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


FACTOR = tensor("factor", "INT32", [1], [3])


def test_the_public_client_reads_writes_and_is_told_what_is_wrong(arrays: Any, tmp_path: Path) -> None:
    """In a process of its own, since the client replaces parts of Python's own library."""
    script = Path(__file__).with_name("triton_client.py")
    done = subprocess.run([sys.executable, str(script), str(arrays.port)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"


def test_a_model_is_described(arrays: Any) -> None:
    described = {
        "name": "diabetes",
        "versions": ["3"],
        "platform": "python",
        "inputs": [
            {"name": "rows", "datatype": "FP64", "shape": [-1, 2]},
            {"name": "factor", "datatype": "INT32", "shape": [-1]},
        ],
        "outputs": [{"name": "output", "datatype": "FP64", "shape": [-1, -1]}],
    }
    for path in ("/v2/models/diabetes", "/v2/models/diabetes/versions/3"):
        assert arrays.ask("GET", path).json == described
        assert arrays.ask("GET", path + "/ready").json == {"ready": True}
        assert arrays.ask("HEAD", path).status == 200
    assert arrays.ask("GET", "/v2/health/live").json == {"live": True}
    assert arrays.ask("GET", "/v2/health/ready").json == {"ready": True}


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        (Settings(model="diabetes:3", service_name="s"), ("diabetes", "3")),
        (Settings(model="a:b:12"), ("a:b", "12")),
        (Settings(service_name="My service!"), ("My-service", "1")),
        (Settings(service_name="服务"), ("服务", "1")),
        (Settings(service_name="!"), ("model", "1")),
    ],
)
def test_the_model_has_the_name_that_the_registry_or_the_service_gave_it(settings: Settings, known: Any) -> None:
    assert v2.identity(settings) == known


def test_numbers_may_be_narrower_than_declared_and_are_the_models_own(arrays: Any) -> None:
    reply = infer(arrays, "diabetes", FACTOR, tensor("rows", "FP32", [1, 2], [[1.5, 2]]), id="ä")
    assert reply.json == {
        "model_name": "diabetes",
        "model_version": "3",
        "id": "ä",
        "outputs": [{"name": "output", "datatype": "FP64", "shape": [1, 2], "data": [4.5, 6.0]}],
    }


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ([FACTOR], "the input 'rows' is missing"),
        ([FACTOR, tensor("more", "FP64", [1], [1])], "the model has no input 'more'; it takes 'rows', 'factor'"),
        (
            [FACTOR, tensor("rows", "FP64", [2, 1], [1, 2])],
            "the input 'rows' has the shape [2, 1], the model takes [-1, 2]",
        ),
        ([FACTOR, tensor("rows", "FP64", [2], [1, 2])], "the input 'rows' has the shape [2], the model takes [-1, 2]"),
        ([FACTOR, tensor("rows", "BYTES", [1, 2], ["1", "2"])], "the input 'rows' is BYTES, the model takes FP64"),
        (
            [tensor("factor", "FP64", [1], [1.5]), tensor("rows", "FP64", [1, 2], [1, 2])],
            "the input 'factor' is FP64, the model takes INT32",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(arrays: Any, inputs: Any, sentence: str) -> None:
    reply = infer(arrays, "diabetes", *inputs)
    assert (reply.status, reply.json) == (400, {"error": sentence})


def test_every_error_is_in_the_protocols_form(arrays: Any) -> None:
    rows = tensor("rows", "FP64", [1, 2], [1, 2])
    ask = arrays.ask
    cases = [
        (
            infer(arrays, "diabetes", rows, FACTOR, outputs=[{"name": "y"}]),
            400,
            "the model has no output 'y'; it gives",
        ),
        (infer(arrays, "diabetes", rows, tensor("factor", "INT32", [1], [0])), 500, "the model's code raised an error"),
        (
            infer(arrays, "diabetes", rows, tensor("factor", "INT32", [1], [1])),
            500,
            "the model's result is not what it",
        ),
        (
            infer(arrays, "iris", rows),
            404,
            "there is no /v2/models/iris/infer; the model here is 'diabetes', version '3': /v2/models/diabetes",
        ),
        (ask("GET", "/v2/models/diabetes/versions/4"), 404, "there is no /v2/models/diabetes/versions/4"),
        (ask("GET", "/v2/models/diabetes/infer"), 405, "/v2/models/diabetes/infer does not take GET"),
        (ask("POST", "/v2/models/diabetes/infer", b"["), 400, "the body is not JSON"),
        (ask("POST", "/v2/models/diabetes/infer", bytes(100_001)), 413, "the body is larger than the 100000 bytes"),
        (ask("POST", "/v2/models/diabetes/infer", b"", {"x-request-id": "x" * 101}), 431, "the header x-request-id"),
        (
            ask("POST", "/v2/models/diabetes/infer", gzip.compress(bytes(10**6)), {"content-encoding": "gzip"}),
            413,
            "the body is larger than the 100000 bytes",
        ),
    ]
    for reply, status, sentence in cases:
        assert (reply.status, list(reply.json)) == (status, ["error"]), reply
        assert reply.json["error"].startswith(sentence)


def test_a_table_is_one_tensor_for_each_column(table: Any) -> None:
    described = table.ask("GET", "/v2/models/Ages-weights").json
    assert described["inputs"] == [
        {"name": "name", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "age", "datatype": "INT64", "shape": [-1, 1]},
        {"name": "weight", "datatype": "FP64", "shape": [-1, 1]},
    ]
    assert [one["datatype"] for one in described["outputs"]] == ["BYTES", "BOOL"]
    columns = [
        tensor("weight", "FP32", [2], [1.5, 2]),
        tensor("age", "UINT8", [2, 1], [[41], [40]]),
        tensor("name", "BYTES", [2, 1], ["ä", "b"]),
    ]
    assert infer(table, "Ages-weights", *columns).json["outputs"] == [
        {"name": "name", "datatype": "BYTES", "shape": [2, 1], "data": ["Ä", "B"]},
        {"name": "old", "datatype": "BOOL", "shape": [2, 1], "data": [True, False]},
    ]
    chosen = infer(table, "Ages-weights", *columns, outputs=[{"name": "old"}]).json
    assert [one["name"] for one in chosen["outputs"]] == ["old"]
    uneven = infer(table, "Ages-weights", *columns[:2], tensor("name", "BYTES", [1], ["a"]))
    assert (uneven.status, uneven.json["error"]) == (400, "the input 'age' has 2 rows where 'name' has 1")


def test_a_model_without_a_script_gives_the_output_that_is_asked_for(classifier: Any) -> None:
    model = "ML-service"
    rows = tensor("anything", "FP64", [2, 2], [[0, 1], [1, 0]])
    assert infer(classifier, model, rows).json["outputs"] == [
        {"name": "predict", "datatype": "INT64", "shape": [2], "data": [0, 1]}
    ]
    expected = classifier.score({"data": [[0, 1], [1, 0]], "method": "predict_proba"}).json["predict_proba"]
    for asked in ({"outputs": [{"name": "predict_proba"}]}, {"parameters": {"method": "predict_proba"}}):
        (output,) = infer(classifier, model, rows, **asked).json["outputs"]
        assert (output["name"], output["shape"]) == ("predict_proba", [2, 2])
        assert np.reshape(output["data"], (2, 2)).tolist() == expected
    two = infer(classifier, model, rows, outputs=[{"name": "predict"}, {"name": "predict_proba"}])
    assert (two.status, two.json["error"].split(";")[0]) == (400, "the model gives one output at a time")


def test_what_comes_in_either_form_is_scored_together(start: Any, until: Any) -> None:
    service = start(COUNTING, "--batching", "on").ready()
    calls = [
        lambda: service.score({"data": [[-1, 0]]}).json,
        lambda: service.score({"data": [[1, 2], [3, 4]]}).json,
        lambda: infer(service, "ML-service", tensor("data", "FP32", [1, 2], [5, 6])).json["outputs"][0]["data"],
    ]
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(calls[0])
        until((service.folder / "begun").exists)
        others = [threads.submit(call) for call in calls[1:]]
        until(lambda: b"\nstageway_queue_length 2" in service.ask("GET", "/metrics").body)
        (service.folder / "go").touch()
        assert first.result() == [1]
        assert [one.result() for one in others] == [[3, 3], [3]]


def test_a_script_without_declared_arrays_is_described_and_says_where_to_go(start: Any) -> None:
    service = start(PLAIN).ready()
    described = service.ask("GET", "/v2/models/ML-service").json
    assert (described["inputs"], described["outputs"]) == ([], [])
    reply = infer(service, "ML-service", FACTOR)
    assert (reply.status, reply.json) == (
        404,
        {
            "error": "the model declares no tensors: its script has no decorators with samples of arrays or of a "
            "table; send its own JSON to /score"
        },
    )
