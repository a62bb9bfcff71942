"""Scripts decorated with the real inference_schema package: arguments, refusals, contract and description."""

from __future__ import annotations

from typing import Any

import pytest

SCRIPT = """
import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
@input_schema("table", PandasParameterType(pd.DataFrame({"a": [1]})), optional=True)
@input_schema("scale", StandardPythonParameterType(1.5), optional=True)
@output_schema(NumpyParameterType(np.array([1.0])))
def run(data, request_headers, table=None, scale=1.0):
    if scale == 9:
        raise ValueError("inside run")
    extra = 0 if table is None else int(table["a"].sum())
    return data.sum(axis=1) * scale + extra + (100 if "x-more" in request_headers else 0)
"""


@pytest.fixture(scope="module")
def service(start: Any) -> Any:
    return start(SCRIPT).ready()


@pytest.mark.parametrize(
    ("asked", "headers", "returned"),
    [
        ({"data": [[1, 2], [3, 4]]}, {}, [3.0, 7.0]),
        ({"data": [[1, 2]], "scale": 3.0}, {}, [9.0]),
        ({"data": [[1, 2]], "table": [{"a": 5}]}, {}, [8.0]),
        ({"data": [[1, 2]], "unknown": 1}, {"X-More": "1"}, [103.0]),
    ],
)
def test_each_declared_parameter_is_an_argument(service: Any, asked: Any, headers: Any, returned: Any) -> None:
    reply = service.score(asked, headers)
    assert (reply.status, reply.json) == (200, returned)


ALONE = """
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema

@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])), convert_to_provided_type=CONVERT)
def run(data):
    if isinstance(data, list):
        return data
    data[0, 0] += 0
    return [type(data).__name__, str(data.dtype), *np.nan_to_num(data, nan=-1).tolist()]
"""


@pytest.mark.parametrize("convert", [True, False])
def test_an_array_alone_is_the_same_whichever_way_it_is_read(start: Any, convert: bool) -> None:
    service = start(ALONE.replace("CONVERT", str(convert))).ready()
    for rows, answer in [
        ([[1, 2]], [[1.0, 2.0]]),
        ([[1.5, 2]] * 500, [[1.5, 2.0]] * 500),
        ([["1", 2]], [[1.0, 2.0]]),
        ([[None, 2]], [[-1.0, 2.0]]),
        ([[1, 2, 3]], 400),
        ([], 400),
        ("text", 400),
    ]:
        reply = service.score({"data": rows})
        if convert and answer == 400:
            assert reply.status == 400
        elif convert:
            assert reply.json == ["ndarray", "float64", *answer]  # type: ignore[misc]
        elif rows != "text":
            assert reply.json == rows
        assert service.score({"data": [[1, 2]], "method": "any", "more": 1}).status == 200


def test_a_get_fills_the_parameters_too(service: Any) -> None:
    assert service.ask("GET", "/score?data=[[1,2]]&scale=2.5").json == [7.5]


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b'{"scale": 1}', "application/json", 400, "the parameter 'data' is missing"),
        (b'{"data": [[1, 2, 3]]}', "application/json; charset=utf-8", 400, "does not fit the declared schema"),
        (b'{"data": [["one", 2]]}', "application/json", 400, "does not fit the declared schema"),
        (b'{"data": 3}', "application/json", 400, "does not fit the declared schema"),
        (b"[[1, 2]]", "application/json", 400, "the body is not a JSON object with 'data', 'table', 'scale'"),
        (b"{", "application/json", 400, "the body is not JSON"),
        (b"", "application/json", 400, "the body is empty"),
        (b"\xff", "application/json", 400, "the body is not UTF-8 text"),
        (b'{"data": [[1, 2]]}', "text/plain", 415, "send application/json"),
    ],
)
def test_what_does_not_fit_is_refused_before_run(service: Any, body: bytes, kind: str, status: int, words: str) -> None:
    reply = service.ask("POST", "/score", body, {"content-type": kind})
    assert reply.status == status
    assert words in reply.json["message"]
    assert reply.headers["x-ms-run-function-failed"] == "False"


def test_an_error_inside_run_is_not_the_clients(service: Any) -> None:
    reply = service.score({"data": [[1, 2]], "scale": 9.0})
    assert reply.status == 500
    assert b"inside run" not in reply.body


def test_the_contract_is_what_the_decorators_declare(service: Any) -> None:
    row = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    record = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert service.ask("GET", "/contract.json").json == {
        "source": "decorators",
        "request": {
            "type": "object",
            "properties": {
                "data": {"type": "array", "items": row},
                "table": {"type": "array", "items": record},
                "scale": {"type": "number"},
            },
            "required": ["data"],
        },
        "response": {"type": "array", "items": {"type": "number"}},
    }


def test_the_decorators_win_over_a_contract_from_outside(start: Any, tmp_path: Any) -> None:
    (tmp_path / "contract.json").write_text('{"request": null, "response": {"type": "string"}, "source": "samples"}')
    service = start(SCRIPT, "--contract", "contract.json", folder=tmp_path).ready()
    assert service.ask("GET", "/contract.json").json["source"] == "decorators"


def test_a_schema_for_a_parameter_that_run_lacks_is_found_at_the_start(start: Any) -> None:
    script = SCRIPT.replace('@input_schema("data"', '@input_schema("rows"')
    service = start(script)
    assert service.ended() == 1
    assert "run() of score.py has a schema for 'rows', which it does not take" in service.lines[-1]
