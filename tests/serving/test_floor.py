"""The serving layer stands apart: old Pythons can read it, and it imports little."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import stageway
from stageway.serving import REQUIREMENTS

SOURCE = Path(stageway.__file__).parent
LAYER = [SOURCE / "errors.py", SOURCE / "contract.py", *sorted((SOURCE / "serving").rglob("*.py"))]
# What a model or a script brings along, imported only when it does.
BROUGHT = {
    *("numpy", "pandas", "joblib", "inference_schema", "sklearn", "flask", "pyspark"),
    # What watches a service, where that is asked for.
    *("opentelemetry", "prometheus_client", "pyarrow"),
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


def test_the_requirements_fit_one_another_on_every_python() -> None:
    for version in ("3.9", "3.10", "3.11", "3.14"):
        environment = {"python_version": version}
        chosen = [
            one for one in map(Requirement, REQUIREMENTS) if one.marker is None or one.marker.evaluate(environment)
        ]
        assert sorted(one.name for one in chosen) == ["granian", "orjson"]
