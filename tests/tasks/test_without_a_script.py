"""A model as MLflow saves it today, from its folder to a reply, without an entry script."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
from mlflow.models import infer_signature
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from stageway import plugins
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.registries.base import NewVersion
from stageway.tasks.base import open_registry, open_target, service_name
from stageway.tasks.deploy import deploy
from stageway.tasks.package import package
from stageway.tasks.smoke_test import smoke_test

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")]

FILE = "model: diabetes\nserve: {dependencies: requirements.txt, samples: samples}\nstages: {dev: {}}\n"


def test_a_model_that_mlflow_saved_is_served_as_it_is(
    make_workspace: Callable[..., Workspace], shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("STAGEWAY_CACHE", str(shared_cache))
    root = make_workspace(file="model: diabetes\nstages: {dev: {}}\n").root
    pins = [f"{name}=={importlib.metadata.version(name)}\n" for name in ("scikit-learn", "skops", "numpy")]
    (root / "requirements.txt").write_text("".join(pins))
    rows, target = load_diabetes(return_X_y=True)
    model = Ridge().fit(rows, target)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    signature = infer_signature(rows, model.predict(rows))
    mlflow.sklearn.save_model(model, str(root / "saved"), signature=signature, pip_requirements=[])
    assert (root / "saved" / "model.skops").is_file()
    (root / "samples").mkdir()
    (root / "samples" / "one.json").write_text(f'{{"data": {rows[:1].tolist()}}}')
    (root / "samples" / "one.expected.json").write_text(f'{{"predict": {model.predict(rows[:1]).tolist()}}}')
    (root / "stageway.yml").write_text(FILE)

    workspace = Workspace.open(root)
    registered = open_registry(workspace).register(NewVersion(name="diabetes", path=root / "saved")).model
    assert registered.framework == "ScikitLearn"
    try:
        dossier = package(Dossier(pipeline="diabetes", model=registered), workspace)
        smoke_test(deploy(dossier, workspace, stage="dev"), workspace, stage="dev")
        endpoint = open_target(workspace, "dev").observe(service_name(workspace, "dev")).endpoint
        reply = requests.post(f"{endpoint}/score", json={"data": rows[:50].tolist()}, timeout=30)
        np.testing.assert_allclose(reply.json()["predict"], model.predict(rows[:50]), rtol=1e-9)
        contract = requests.get(f"{endpoint}/contract.json", timeout=30).json()
        assert list(contract["response"]["properties"]) == ["predict"]
    finally:
        plugins.load("target", "local")(workspace).down()
