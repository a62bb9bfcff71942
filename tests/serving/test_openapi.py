"""The description of a service as OpenAPI: valid in both versions, and true of the server that gives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pytest
from openapi_spec_validator import OpenAPIV2SpecValidator, OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from sklearn.linear_model import Ridge

from stageway.contract import Contract, Schema, infer
from stageway.serving import openapi, schemas, v2
from stageway.serving.replies import Reply
from stageway.serving.routes import Route
from stageway.serving.scorer import Alone, Call, Signature, Tensor, Work
from stageway.serving.settings import Settings

VALIDATORS = {"2": OpenAPIV2SpecValidator, "3": OpenAPIV30SpecValidator, "3.1": OpenAPIV31SpecValidator}
HEAD = """
import numpy as np, pandas as pd, datetime
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType as Array
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType as Table
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType as Plain
"""
SCRIPTS = {
    "plain": "def run(data):\n    return data\n",
    "raw": "from azureml.contrib.services.aml_request import rawhttp\n@rawhttp\ndef run(request):\n    return 'x'\n",
    "array": HEAD
    + """
@input_schema("data", Array(np.array([[1.0, 2.0]])))
@input_schema("more", Array(np.array(["a"])))
@output_schema(Array(np.array([1.0])))
def run(data, more):
    return data.sum(axis=1)
""",
    "table": HEAD
    + """
@input_schema("data", Table(pd.DataFrame({"a": [1], "b": ["x"], "when": [pd.Timestamp("2020-01-02")]})))
@output_schema(Table(pd.DataFrame({"a": [1.5]})))
def run(data):
    return data[["a"]] * 1.0
""",
    "standard": HEAD
    + """
@input_schema("word", Plain("x"))
@input_schema("count", Plain(2))
@input_schema("when", Plain(datetime.datetime(2020, 1, 2)))
@input_schema("given", Plain([1.5]), optional=True)
@output_schema(Plain({"words": ["x"]}))
def run(word, count, when, given=None):
    return {"words": [word] * count}
""",
    "nested": HEAD
    + """
@input_schema("data", Plain({"rows": Array(np.array([[1, 2]])), "about": {"name": "x", "none": {}}}))
@output_schema(Plain({"sum": 1.5}))
def run(data):
    return {"sum": 1.5}
""",
}


class Declared(Alone):
    """A scorer that declares something, and is never asked to score."""

    declared: dict[str, Any] | None = None

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def start(self) -> None:
        """Nothing to get ready."""

    def read(self, call: Call) -> Work:
        raise NotImplementedError

    def run(self, data: Any) -> Any:
        raise NotImplementedError


class Control:
    ready = True


TABLE: dict[str, Route] = {
    "/": Route(("GET", "HEAD"), page=lambda scope: Reply(200, b"")),
    "/score": Route(
        ("POST", "GET", "OPTIONS"), read=lambda call: Work(None, lambda result: Reply(200, b"")), guarded=True
    ),
}


def document(contract: Contract, version: str = "3.1", **settings: Any) -> Any:
    made = openapi.document(Settings(**settings), Declared(contract), TABLE, version)
    VALIDATORS[version](json.loads(json.dumps(made))).validate()
    return made


@pytest.fixture(scope="module", params=[*SCRIPTS, "sklearn"])
def service(request: Any, start: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param != "sklearn":
        return start(SCRIPTS[request.param], "--model-version", "my model:3", "--docs").ready()
    folder = tmp_path_factory.mktemp("model")
    joblib.dump(Ridge().fit([[0.0, 1.0], [1.0, 0.0]], [0.0, 1.0]), folder / "model.joblib")
    return start(None, "--framework", "ScikitLearn", environment={"AZUREML_MODEL_DIR": str(folder)}).ready()


def test_every_description_of_every_kind_of_service_is_valid(service: Any) -> None:
    for version, validator in VALIDATORS.items():
        reply = service.ask("GET", "/swagger.json?version=" + version)
        assert reply.status == 200
        validator(reply.json).validate()
    assert service.ask("GET", "/swagger.json").json == service.ask("GET", "/swagger.json?version=2.0").json
    newest = service.ask("GET", "/openapi.json").json
    assert newest == service.ask("GET", "/swagger.json?version=3.1").json
    assert newest["openapi"] == "3.1.0"
    unknown = service.ask("GET", "/swagger.json?version=4")
    assert (unknown.status, list(unknown.json)) == (404, ["message"])


def test_every_path_of_the_service_is_in_it_and_answers(service: Any) -> None:
    """What the server itself says it has, against what its description says."""
    described = service.ask("GET", "/openapi.json").json["paths"]
    listed = service.ask("GET", "/nothing").json["message"].partition("this service has ")[2].split(", ")
    assert set(listed) <= set(described)
    for path, operations in described.items():
        assert set(operations) <= {"get", "post"}
        if "get" in operations and path != "/score":
            reply = service.ask("GET", path)
            assert str(reply.status) in operations["get"]["responses"]
            content = operations["get"]["responses"][str(reply.status)]["content"]
            assert reply.headers["content-type"].partition(";")[0] in content


def test_the_examples_of_a_description_are_scored(service: Any) -> None:
    described = service.ask("GET", "/openapi.json").json
    schema = described["components"]["schemas"]["ServiceInput"]
    value = schemas.sample(schema)
    assert service.score(value).status == 200
    for path, operations in described["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            assert service.ask("POST", path, json.dumps(content["example"]).encode()).status == 200


def test_a_list_of_records_is_described_where_it_is_taken(start: Any) -> None:
    service = start(SCRIPTS["table"]).ready()
    body = service.ask("GET", "/openapi.json").json["paths"]["/score"]["post"]["requestBody"]
    whole, rows = body["content"]["application/json"]["schema"]["anyOf"]
    assert whole == {"$ref": "#/components/schemas/ServiceInput"}
    assert (rows["type"], rows["items"]["required"]) == ("array", ["a", "b", "when"])
    assert service.score([{"a": 1, "b": "x", "when": "2020-01-02"}]).json == [{"a": 1.0}]


def test_a_model_with_column_names_takes_a_list_of_records(start: Any, tmp_path: Path) -> None:
    model = Ridge().fit(pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 0.0]}), [0.0, 1.0])
    joblib.dump(model, tmp_path / "model.joblib")
    service = start(None, "--framework", "ScikitLearn", environment={"AZUREML_MODEL_DIR": str(tmp_path)}).ready()
    body = service.ask("GET", "/openapi.json").json["paths"]["/score"]["post"]["requestBody"]
    rows = body["content"]["application/json"]["schema"]["anyOf"][1]
    assert rows["items"] == {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}
    assert len(service.score([{"b": 1, "a": 0}, {"a": 1, "b": 0}]).json["predict"]) == 2


def test_limits_and_keys_are_said_where_they_are_set() -> None:
    plain = document(Contract())
    assert sorted(plain["paths"]["/score"]["post"]["responses"]) == [
        "200", "400", "408", "413", "415", "431", "500", "503",
    ]  # fmt: skip
    assert sorted(plain["paths"]["/"]["get"]["responses"]) == ["200", "431", "503"]
    assert "securitySchemes" not in plain["components"]
    limited = document(Contract(), auth="keys.json", timeout=1.0, prefix="/api/v1")
    assert {"401", "504"} <= set(limited["paths"]["/score"]["get"]["responses"])
    assert limited["paths"]["/score"]["get"]["security"] == [{"bearer": []}]
    assert "security" not in limited["paths"]["/"]["get"]
    assert limited["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert limited["servers"] == [{"url": "/api/v1"}]


def test_a_query_has_the_names_of_the_contract() -> None:
    request: Schema = {"type": "object", "properties": {"a": {"type": "number"}, "b": {}}, "required": ["a"]}
    for version in ("3", "3.1"):
        named = document(Contract(request), version)["paths"]["/score"]["get"]["parameters"]
        assert [(one["name"], one["required"]) for one in named] == [("a", True), ("b", False)]
    (anything,) = document(Contract())["paths"]["/score"]["get"]["parameters"]
    assert (anything["style"], anything["explode"]) == ("form", True)


@pytest.mark.parametrize("version", ["3", "3.1"])
@pytest.mark.parametrize(
    "value",
    [
        {"data": [[1.5, 2.5]], "method": "predict", "none": None, "empty": []},
        [[1, 2], [3, 4]],
        [1, "mixed", None],
        "t",
        None,
    ],
)
def test_every_contract_can_be_written(version: str, value: Any) -> None:
    document(Contract(infer(value), infer(value), "samples"), version)


TEXT = {"type": "string"}
ANY_ARRAY = {"type": "array", "items": {}}
NULLS = {"type": ["number", "null"]}


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({}, {}),
        ({"type": "null"}, {"enum": [None], "nullable": True}),
        ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
        ({"type": ["string", "number"]}, {"anyOf": [TEXT, {"type": "number"}]}),
        ({"type": ["array", "null", "string"]}, {"anyOf": [ANY_ARRAY, TEXT], "nullable": True}),
        ({"type": "array"}, ANY_ARRAY),
        ({"type": "array", "prefixItems": [TEXT, {}], "items": False}, {**ANY_ARRAY, "maxItems": 2}),
        ({"type": "array", "prefixItems": [TEXT], "items": TEXT}, {"type": "array", "items": TEXT}),
        ({"type": "array", "prefixItems": [TEXT]}, ANY_ARRAY),
        (
            {"type": "object", "properties": {"type": NULLS}, "required": ["type"], "examples": [{"type": 1}]},
            {
                "type": "object",
                "properties": {"type": {"type": "number", "nullable": True}},
                "required": ["type"],
                "example": {"type": 1},
            },
        ),
    ],
)
def test_json_schema_becomes_what_3_0_has(schema: Schema, written: Schema) -> None:
    assert schemas.v30(schema) == written


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (None, None),
        ({"type": "number"}, 0.0),
        ({"type": ["string", "null"]}, ""),
        ({"enum": ["predict", "transform"]}, "predict"),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 3}}, [[0, 0, 0]]),
        ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}]}, ["", False]),
        ({"type": "object", "properties": {"a": {"type": "number"}}}, {"a": 0.0}),
        ({"type": "array", "examples": [[7]]}, [7]),
    ],
)
def test_a_sample_is_the_example_or_the_least_that_fits(schema: Schema | None, value: Any) -> None:
    assert schemas.sample(schema) == value


def test_the_protocols_paths_are_those_it_has() -> None:
    settings = Settings(model="a {b}:1")
    scorer = Declared(Contract())
    table = v2.routes(settings, scorer, Control())  # type: ignore[arg-type]
    assert len(openapi.document(settings, scorer, table, "3.1")["paths"]) == len(table) - 2
    scorer.signature = Signature((Tensor("x", "FP64", (-1, 2)),))
    paths = openapi.document(settings, scorer, table, "3.1")["paths"]
    assert len(paths) == len(table)
    content = paths["/v2/models/a%20%7Bb%7D/versions/1/infer"]["post"]["requestBody"]["content"]
    (sample,) = content["application/json"]["example"]["inputs"]
    assert sample == {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [0, 0]}


@pytest.mark.parametrize(
    ("schema", "table", "written"),
    [
        ({"type": "number"}, False, NULLS),
        ({"type": "string"}, False, TEXT),
        ({"type": "string"}, True, {"type": ["string", "null"]}),
        ({"type": ["number", "null"]}, True, NULLS),
        ({"type": ["number", "string"]}, False, {"type": ["number", "string", "null"]}),
        ({"type": "array", "prefixItems": [{"type": "number"}]}, False, {"type": "array", "prefixItems": [NULLS]}),
    ],
)
def test_numbers_of_replies_and_cells_of_their_tables_may_be_null(schema: Schema, table: bool, written: Schema) -> None:
    assert schemas.with_null(schema, table=table) == written
    nested = {"type": "array", "items": {"type": "object", "properties": {"a": schema}}}
    assert schemas.with_null(nested, table=table)["items"]["properties"]["a"] == written
