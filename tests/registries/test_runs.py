"""Versions that come of MLflow runs, and versions that other tools registered."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from stageway.config.workspace import Workspace
from stageway.errors import ConfigError, RegistryError
from stageway.registries import content
from stageway.registries.base import NewVersion
from stageway.registries.mlflow import MlflowRegistry

MLMODEL = {
    "flavors": {"sklearn": {"sklearn_version": "1.7.2", "pickled_model": "model.pkl"}, "python_function": {}},
    "signature": {
        "inputs": '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]',
        "outputs": '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]',
    },
}


def mlflow_folder(root: Path, content_: bytes = b"pickle", name: str = "model") -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text(yaml.safe_dump(MLMODEL))
    (folder / "model.pkl").write_bytes(content_)
    return folder


class Training:
    """An experiment of another tool, at the registry of the workspace."""

    def __init__(self, client: Any, root: Path) -> None:
        self.client = client
        self.root = root
        self.experiment = client.create_experiment("ridge", artifact_location=(root / "training").as_uri())

    def run(self, *, status: str = "FINISHED", artifact: str | None = "model", **metrics: float) -> str:
        run_id = str(self.client.create_run(self.experiment).info.run_id)
        for name, value in metrics.items():
            self.client.log_metric(run_id, name, value)
        if artifact is not None:
            self.client.log_artifacts(run_id, str(mlflow_folder(self.root / run_id, run_id.encode())), artifact)
        self.client.set_terminated(run_id, status)
        return run_id


@pytest.fixture
def training(client: Any, tmp_path: Path) -> Training:
    return Training(client, tmp_path)


def test_a_runs_artifact_is_registered_where_it_is(
    workspace: Workspace, registry: MlflowRegistry, client: Any, training: Training, tmp_path: Path
) -> None:
    run_id = training.run(rmse=54.0)
    done = registry.register(NewVersion(name="diabetes", run_id=run_id, metrics={"mae": 3.0}, tags={"a": "b"}))
    assert done.new
    assert done.model.run_id == run_id
    assert done.model.metrics == {"rmse": 54.0, "mae": 3.0}
    assert done.model.files == ("model/MLmodel", "model/model.pkl")
    assert (done.model.framework, done.model.framework_version) == ("ScikitLearn", "1.7.2")
    assert done.model.signature is not None
    assert done.model.signature["response"] == {"type": "array", "items": {"type": "number"}}
    fetched = registry.fetch(done.model, tmp_path / "fetched")
    assert (fetched / "model" / "model.pkl").read_bytes() == run_id.encode()
    assert not (workspace.state / "artifacts").exists()
    source = Path(client.get_model_version("diabetes", "1").source.removeprefix("file://"))
    assert (source / "model.pkl").is_file()


def test_a_runs_artifact_that_changes_later_is_noticed(
    registry: MlflowRegistry, client: Any, training: Training, tmp_path: Path
) -> None:
    run_id = training.run()
    model = registry.register(NewVersion(name="diabetes", run_id=run_id)).model
    client.log_artifacts(run_id, str(mlflow_folder(tmp_path / "later", b"another")), "model")
    with pytest.raises(RegistryError, match=r"file 'model/model\.pkl' "):
        registry.fetch(model, tmp_path / "fetched")


def test_a_run_and_a_folder_of_the_same_bytes_are_one_version(
    registry: MlflowRegistry, training: Training, tmp_path: Path
) -> None:
    run_id = training.run()
    first = registry.register(NewVersion(name="diabetes", run_id=run_id)).model
    second = registry.register(NewVersion(name="diabetes", path=tmp_path / run_id / "model"))
    assert (second.new, second.model) == (False, first)


@pytest.mark.parametrize(
    ("best_by", "best"), [("rmse", 3), ("+rmse", 3), ("-rmse", 1), ("-r2", 2)], ids=["high", "plus", "minus", "other"]
)
def test_the_best_run_of_an_experiment_is_taken(
    registry: MlflowRegistry, training: Training, best_by: str, best: int
) -> None:
    runs = {
        1: training.run(rmse=50.0, r2=0.9),
        2: training.run(rmse=55.0, r2=0.1),
        3: training.run(rmse=60.0),
        4: training.run(status="FAILED", rmse=1.0, r2=0.0),
        5: training.run(status="RUNNING", rmse=99.0),
        6: training.run(rmse=math.nan),
        7: training.run(),
    }
    done = registry.register(NewVersion(name="diabetes", experiment="ridge", best_by=best_by))
    assert done.model.run_id == runs[best]


def test_an_experiment_without_the_metric_has_no_best(registry: MlflowRegistry, training: Training) -> None:
    training.run(rmse=math.nan)
    training.run(status="FAILED", rmse=1.0)
    with pytest.raises(RegistryError, match="experiment 'ridge': no finished run has a number for metric 'rmse'"):
        registry.register(NewVersion(name="diabetes", experiment="ridge", best_by="-rmse"))


def test_an_experiment_that_is_not_there_is_answered_with_those_that_are(
    registry: MlflowRegistry, training: Training
) -> None:
    with pytest.raises(RegistryError, match=r"experiment 'rigde': .* has none of this name; it has: .*ridge"):
        registry.register(NewVersion(name="diabetes", experiment="rigde", best_by="-rmse"))


@pytest.mark.parametrize("artifact", ["out/model", "out/model/model.pkl"])
def test_an_artifact_is_named_by_its_path(
    registry: MlflowRegistry, training: Training, tmp_path: Path, artifact: str
) -> None:
    run_id = training.run(artifact="out/model")
    model = registry.register(NewVersion(name="diabetes", run_id=run_id, artifact=artifact)).model
    last = artifact.rpartition("/")[2]
    assert all(path == last or path.startswith(f"{last}/") for path in model.files)
    fetched = registry.fetch(model, tmp_path / "fetched")
    assert {str(one.relative_to(fetched)) for one in fetched.rglob("*") if one.is_file()} == set(model.files)


@pytest.mark.parametrize(
    ("artifact", "says"),
    [
        (None, "which artifact is the model.*it has: out"),
        ("gone", "has no artifact 'gone'; it has: out"),
        ("out/gone", "has no artifact 'out/gone'"),
        ("../../etc", "does not stay in its folder"),
    ],
)
def test_an_artifact_that_is_not_there_is_answered_with_those_that_are(
    registry: MlflowRegistry, training: Training, artifact: str | None, says: str
) -> None:
    run_id = training.run(artifact="out/model")
    with pytest.raises(RegistryError, match=says):
        registry.register(NewVersion(name="diabetes", run_id=run_id, artifact=artifact))


def test_a_run_that_is_not_there_is_said(registry: MlflowRegistry) -> None:
    with pytest.raises(RegistryError, match="Run with id=abc not found"):
        registry.register(NewVersion(name="diabetes", run_id="abc"))


def test_deleting_a_version_leaves_the_run_of_its_training(
    registry: MlflowRegistry, client: Any, training: Training
) -> None:
    run_id = training.run()
    registry.register(NewVersion(name="diabetes", run_id=run_id))
    registry.delete("diabetes:1")
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    assert client.list_artifacts(run_id, "model")


def test_a_version_of_another_tool_gets_its_digest_when_it_is_first_read(
    registry: MlflowRegistry, client: Any, training: Training, tmp_path: Path
) -> None:
    run_id = training.run(rmse=54.0, broken=math.nan)
    client.create_registered_model("diabetes")
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    client.create_model_version("diabetes", source, run_id, tags={"a": "b"}, description="by hand")
    assert registry.versions("diabetes")[0].digest == ""
    model = registry.get("diabetes:1")
    assert model.digest == content.hashed(content.walk(tmp_path / run_id / "model")).digest
    assert model.files == ("model/MLmodel", "model/model.pkl")
    assert model.metrics == {"rmse": 54.0}
    assert (model.framework, model.tags, model.description) == ("ScikitLearn", {"a": "b"}, "by hand")
    assert model.signature is not None
    assert registry.versions("diabetes")[0].digest == model.digest
    assert registry.get("diabetes:1").digest == model.digest
    assert (registry.fetch(model, tmp_path / "fetched") / "model" / "model.pkl").read_bytes() == run_id.encode()
    same = registry.register(NewVersion(name="diabetes", path=tmp_path / run_id / "model"))
    assert (same.new, same.model.label) == (False, "diabetes:1")


def test_a_version_of_another_tool_that_changes_later_is_noticed(
    registry: MlflowRegistry, client: Any, tmp_path: Path
) -> None:
    folder = mlflow_folder(tmp_path / "elsewhere")
    client.create_registered_model("diabetes")
    client.create_model_version("diabetes", str(folder))
    model = registry.get("diabetes:1")
    (folder / "model.pkl").write_bytes(b"another")
    with pytest.raises(RegistryError, match=f"its files are not those of {model.digest} any more"):
        registry.fetch(model, tmp_path / "fetched")


def test_a_version_of_another_tool_whose_files_are_gone_is_said(
    registry: MlflowRegistry, client: Any, tmp_path: Path
) -> None:
    client.create_registered_model("diabetes")
    client.create_model_version("diabetes", str(tmp_path / "nowhere"))
    with pytest.raises(RegistryError, match="nowhere is gone"):
        registry.get("diabetes:1")


def test_models_that_cannot_be_deployed_are_not_listed(registry: MlflowRegistry, client: Any) -> None:
    for name in ("a model", "fine", "a..b"):
        client.create_registered_model(name)
    assert registry.names() == ["fine"]


def test_a_folder_in_mlflows_format_stays_one_for_mlflow(registry: MlflowRegistry, client: Any, tmp_path: Path) -> None:
    model = registry.register(NewVersion(name="diabetes", path=mlflow_folder(tmp_path, name="ridge"))).model
    assert model.files == ("ridge/MLmodel", "ridge/model.pkl")
    assert (model.framework, model.framework_version) == ("ScikitLearn", "1.7.2")
    source = Path(client.get_model_version("diabetes", "1").source.removeprefix("file://"))
    assert sorted(path.name for path in source.iterdir()) == ["MLmodel", "model.pkl"]


def test_what_the_caller_says_comes_before_what_the_files_say(registry: MlflowRegistry, tmp_path: Path) -> None:
    want = NewVersion(name="diabetes", path=mlflow_folder(tmp_path), framework="Custom", framework_version="7")
    model = registry.register(want).model
    assert (model.framework, model.framework_version) == ("Custom", "7")


def test_a_broken_mlmodel_is_refused(registry: MlflowRegistry, tmp_path: Path) -> None:
    folder = mlflow_folder(tmp_path)
    (folder / "MLmodel").write_text("flavors: [")
    with pytest.raises(ConfigError, match="MLmodel: is not YAML"):
        registry.register(NewVersion(name="diabetes", path=folder))


@pytest.mark.slow
def test_what_mlflow_itself_logs_and_registers_is_deployable(
    workspace: Workspace, registry: MlflowRegistry, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.registry_uri)
    rows, targets = load_diabetes(return_X_y=True)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(workspace.registry_uri)
    try:
        with mlflow.start_run() as run:
            fitted = Ridge().fit(rows, targets)
            signature = mlflow.models.infer_signature(rows[:5], fitted.predict(rows[:5]))
            mlflow.sklearn.log_model(fitted, name="model", signature=signature, pip_requirements=["scikit-learn"])
            mlflow.log_metric("rmse", 54.0)
        mlflow.register_model(f"runs:/{run.info.run_id}/model", "foreign")
    finally:
        mlflow.set_tracking_uri(before)
    foreign = registry.get("foreign:1")
    ours = registry.register(NewVersion(name="ours", run_id=run.info.run_id)).model
    for model in (foreign, ours):
        assert model.framework == "ScikitLearn"
        assert model.metrics == {"rmse": 54.0}
        assert model.signature is not None
        row = model.signature["request"]["properties"]["data"]["items"]
        assert (row["minItems"], row["maxItems"]) == (10, 10)
        fetched = registry.fetch(model, tmp_path / model.id.name)
        assert (fetched / "model" / "MLmodel").is_file()
    assert ours.digest == foreign.digest
