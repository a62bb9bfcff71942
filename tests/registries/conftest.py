"""A workspace with the embedded registry, and files to register."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stageway.config.workspace import Workspace
from stageway.registries.mlflow import MlflowRegistry


@pytest.fixture
def workspace(make_workspace: Callable[..., Workspace]) -> Workspace:
    return make_workspace()


@pytest.fixture
def registry(workspace: Workspace) -> MlflowRegistry:
    return MlflowRegistry(workspace)


@pytest.fixture
def client(workspace: Workspace, registry: MlflowRegistry) -> Any:
    """MLflow's own client at the same registry, as another tool would use it."""
    registry.ping()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=workspace.registry_uri, registry_uri=workspace.registry_uri)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.joblib"
    path.write_bytes(b"a model")
    return path


@pytest.fixture
def samples_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps({"data": [[1, 2, 3]]}))
    (folder / "one.expected.json").write_text(json.dumps([1.5]))
    (folder / "two.json").write_text(json.dumps({"data": [[1, 2, 3], [4, 5, 6]]}))
    return folder
