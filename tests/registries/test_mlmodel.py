"""MLmodel files: frameworks, and signatures as contracts."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from stageway.contract import Contract, infer
from stageway.errors import ConfigError
from stageway.registries import mlmodel

ROWS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}}


def text(
    signature: dict[str, str] | None = None, metadata: Any = None, mlflow_version: str | None = None, **flavors: Any
) -> str:
    value = {"flavors": flavors, "signature": signature, "metadata": metadata, "mlflow_version": mlflow_version}
    return yaml.safe_dump(value)


@pytest.mark.parametrize(
    ("flavor", "options", "expected"),
    [
        ("sklearn", {"sklearn_version": "1.7.2"}, ("ScikitLearn", "1.7.2")),
        ("onnx", {"onnx_version": "1.19.0"}, ("Onnx", "1.19.0")),
        ("tensorflow", {}, ("TensorFlow", None)),
        ("tensorflow", {"model_type": "tf2-module", "saved_model_dir": "tf2model"}, ("TensorFlow", None)),
        ("sklearn", None, ("ScikitLearn", None)),
        ("xgboost", {"xgb_version": "3.0"}, ("XGBoost", "3.0")),
        ("lightgbm", {"lgb_version": "4.7"}, ("LightGBM", "4.7")),
        ("tensorflow", {"model_type": "keras"}, ("MLflow", "3.17")),
        ("pytorch", {"pytorch_version": "2.13.0"}, ("MLflow", "3.17")),
        ("prophet", {}, ("MLflow", "3.17")),
    ],
)
def test_the_framework_is_that_of_the_flavor_else_mlflow_itself(
    flavor: str, options: Any, expected: tuple[str | None, str | None]
) -> None:
    found = mlmodel.read(text(mlflow_version="3.17", **{flavor: options, "python_function": {"loader_module": "x"}}))
    assert (found.framework, found.framework_version) == expected


@pytest.mark.parametrize(
    ("flavor", "expected"),
    [
        ({"pytorch": {"pytorch_version": "2.13.0"}}, ("PyTorch", "2.13.0")),
        ({"keras": {"keras_version": "3.10"}}, ("TfKeras", "3.10")),
        ({"prophet": {}}, (None, None)),
    ],
)
def test_without_a_python_function_only_a_script_serves(flavor: Any, expected: tuple[str | None, str | None]) -> None:
    found = mlmodel.read(text(**flavor))
    assert (found.framework, found.framework_version) == expected


@pytest.mark.parametrize("broken", ["flavors: [", "just text", "{}", "flavors: [a]"])
def test_what_is_not_an_mlmodel_is_said(broken: str) -> None:
    with pytest.raises(ConfigError, match="MLmodel"):
        mlmodel.read(broken)


def test_a_signature_that_cannot_be_read_is_said() -> None:
    with pytest.raises(ConfigError, match="signature: cannot be read"):
        mlmodel.read(text({"inputs": "[{"}, sklearn={}))


@pytest.mark.parametrize(
    ("inputs", "data"),
    [
        ([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}], ROWS),
        ([{"name": name, "type": "double", "required": True} for name in "abc"], ROWS),
        (
            [{"name": "age", "type": "long"}, {"name": "job", "type": "string"}],
            {
                "type": "array",
                "items": {
                    "type": "array",
                    "minItems": 2,
                    "maxItems": 2,
                    "prefixItems": [{"type": "integer"}, {"type": "string"}],
                },
            },
        ),
        ([{"type": "string"}], {"type": "array", "items": {"type": "string"}}),
    ],
)
def test_another_tools_signature_is_read_as_the_body_of_a_service_without_script(
    inputs: list[dict[str, Any]], data: dict[str, Any]
) -> None:
    outputs = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]
    signature = {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs)}
    found = mlmodel.read(text(signature, sklearn={})).signature
    assert found is not None
    assert found.request == {"type": "object", "properties": {"data": data}, "required": ["data"]}
    assert found.response == {"type": "array", "items": {"type": "number"}}
    assert found.source == "signature"


def test_our_own_file_gives_the_contract_back_whole() -> None:
    contract = Contract({"type": "string", "enum": ["a"]}, {"type": "array", "minItems": 2}, "samples")
    found = mlmodel.read(text(metadata={mlmodel.METADATA: contract.to_json()}, stageway={}))
    assert found.signature == contract


@pytest.mark.parametrize(
    "value",
    [
        {"data": [[1.0, 2.0, 3.0]]},
        {"data": [[1.0, 2.0]], "method": "predict"},
        [[1, 2], [3, 4]],
        {"rows": [{"age": 3, "job": "x", "tags": ["a"]}]},
        {"nothing": None, "text": "x"},
        {"empty": []},
        "text",
        3.5,
        True,
    ],
)
def test_mlflow_takes_every_signature_that_is_written(value: Any) -> None:
    from mlflow.models import ModelSignature

    sides = mlmodel.to_signature(Contract(infer(value), infer(value), "samples"))
    assert sides["inputs"] is not None
    signature = ModelSignature.from_dict(sides)
    assert len(signature.inputs) == len(value if isinstance(value, dict) else [value])


@pytest.mark.parametrize("schema", [None, {}, {"type": "null"}, {"type": ["number", "string"]}, {"type": "array"}])
def test_what_a_signature_cannot_say_is_left_out(schema: Any) -> None:
    assert mlmodel.to_signature(Contract(schema, None, "samples")) == {"inputs": None, "outputs": None}


def test_a_tensor_keeps_the_length_of_a_row() -> None:
    sides = mlmodel.to_signature(Contract({"type": "object", "properties": {"data": ROWS}, "required": ["data"]}))
    assert json.loads(sides["inputs"] or "") == [
        {"name": "data", "type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}
    ]
