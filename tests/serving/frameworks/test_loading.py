"""How a framework is found by its name, and what is said when it or its package is not there."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import joblib
import pytest
from sklearn.linear_model import Ridge

from stageway.images.build import PACKAGES
from stageway.registries.base import FRAMEWORKS as REGISTERED
from stageway.serving import frameworks
from stageway.serving.scorer import StartError


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("ScikitLearn", "ScikitLearn"),
        ("scikitlearn", "ScikitLearn"),
        ("sklearn", "ScikitLearn"),
        ("ONNX", "Onnx"),
        ("tensorflow", "TensorFlow"),
        ("pyfunc", "MLflow"),
    ],
)
def test_a_framework_is_known_whatever_the_case(given: str, name: str) -> None:
    assert frameworks.known_as(given) == name


def test_a_framework_that_needs_a_script_is_refused() -> None:
    with pytest.raises(StartError, match="framework 'Custom' needs an entry script; without one there is ScikitLearn"):
        frameworks.known_as("Custom")


def test_the_registry_and_the_lock_know_the_same_frameworks() -> None:
    assert set(PACKAGES) == set(frameworks.FRAMEWORKS)
    assert set(frameworks.FRAMEWORKS) <= set(REGISTERED)


@pytest.mark.parametrize(
    ("framework", "package", "words"),
    [
        ("ScikitLearn", "joblib", "the package scikit-learn is missing"),
        ("Onnx", "onnxruntime", "the package onnxruntime is missing"),
        ("TensorFlow", "tensorflow", "the package tensorflow or tensorflow-cpu is missing"),
        ("XGBoost", "xgboost", "the package xgboost is missing"),
        ("LightGBM", "lightgbm", "the package lightgbm is missing"),
        ("TorchScript", "torch", "the package torch is missing"),
        ("MLflow", "mlflow.pyfunc", "the package mlflow or mlflow-skinny is missing"),
    ],
)
def test_a_missing_package_is_named(
    load: Any, monkeypatch: pytest.MonkeyPatch, framework: str, package: str, words: str
) -> None:
    # What a release lacks is not on its path; here it is kept from being found.
    monkeypatch.setitem(sys.modules, package, None)

    def fill(folder: Any) -> None:
        name = {"TensorFlow": "saved_model.pb", "MLflow": "MLmodel", "Onnx": "m.onnx", "TorchScript": "m.pt"}
        joblib_file = name.get(framework, "m.pkl")
        (folder / joblib_file).write_bytes(b"")

    with pytest.raises(StartError, match=words):
        load(framework, fill)


def test_a_model_of_skops_needs_skops(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(StartError, match="the package skops is missing"):
        load("ScikitLearn", lambda folder: (folder / "m.skops").write_bytes(b""))


def test_what_mlflow_writes_beside_a_model_is_no_second_model(load: Any) -> None:
    def fill(folder: Any) -> None:
        joblib.dump(Ridge().fit([[0.0], [1.0]], [0.0, 1.0]), folder / "model.pkl")
        for name in ("MLmodel", "input_example.json", "serving_input_example.json", "requirements.txt"):
            (folder / name).write_text("{}")

    assert load("ScikitLearn", fill).methods == ["predict"]


@pytest.mark.frameworks
@pytest.mark.parametrize("package", ["tensorflow", "torch", "xgboost", "lightgbm"])
def test_the_environment_has_every_framework(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not here; `tox -e frameworks` would supply it")
