"""The serving layer stands apart: old Pythons can read it, and it imports little."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import stageway
from stageway.serving import FEATURES, REQUIREMENTS

SOURCE = Path(stageway.__file__).parent
LAYER = [SOURCE / "errors.py", SOURCE / "contract.py", *sorted((SOURCE / "serving").rglob("*.py"))]
# What a model or a script brings along, imported only when it does.
BROUGHT = {
    *("numpy", "pandas", "joblib", "inference_schema", "sklearn", "flask", "pyspark"),
    *("lightgbm", "xgboost", "tensorflow", "torch", "mlflow", "skops"),
    # What a stage may ask for, or what makes a service faster where it is there.
    *("opentelemetry", "prometheus_client", "pyarrow", "jwt", "cryptography", "simdjson"),
    # A verified ONNX form, and what makes one while packaging.
    *("onnxruntime", "skl2onnx", "onnxmltools", "onnx"),
}


@pytest.mark.parametrize("path", LAYER, ids=lambda path: path.name)
def test_python_3_9_can_read_it(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("path", LAYER, ids=lambda path: path.name)
def test_it_imports_its_own_floor_and_its_few_packages(path: Path) -> None:
    own = {"stageway.errors", "stageway.contract", "stageway.serving"}
    packages = {Requirement(one).name for one in REQUIREMENTS}
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            top = name.partition(".")[0]
            allowed = top in sys.stdlib_module_names | packages | BROUGHT or ".".join(name.split(".")[:2]) in own
            assert allowed, f"{path.name} imports {name}"
            # A stand-in is loaded when a script imports it, and its package would need the same.
            late = node not in tree.body or "standins" in path.parts
            assert top not in BROUGHT or late, f"{path.name} imports {name} at its top"


def test_what_stages_ask_for_is_brought_by_packages_of_that_name() -> None:
    names = {Requirement(one).name for packages in FEATURES.values() for one in packages}
    assert names == {"pyjwt", "pyarrow", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"}


def test_a_python_of_an_image_can_serve_with_it() -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    command = [sys.executable, "-W", "error", str(Path(__file__).with_name("floor_check.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_requirements_fit_one_another_on_every_python() -> None:
    for version in ("3.9", "3.10", "3.11", "3.14"):
        environment = {"python_version": version}
        chosen = [
            one for one in map(Requirement, REQUIREMENTS) if one.marker is None or one.marker.evaluate(environment)
        ]
        always = ["granian", "orjson", "prometheus-client", "uvloop"]
        assert sorted(one.name for one in chosen if one.name != "pysimdjson") == always
