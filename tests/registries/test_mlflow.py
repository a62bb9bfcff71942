"""The embedded MLflow registry: registering, reading, fetching, and what it refuses."""

from __future__ import annotations

import errno
import json
import math
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pytest

from stageway.config.workspace import Workspace
from stageway.contract import Contract
from stageway.errors import ConfigError, RegistryError, TryAgainError
from stageway.registries import content
from stageway.registries.base import NewVersion
from stageway.registries.mlflow import MlflowRegistry
from stageway.release import ModelVersion


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored(workspace: Workspace) -> list[Path]:
    return [path for path in (workspace.state / "artifacts").rglob("*") if path.is_file()]


def experiment_runs(client: Any, name: str = "diabetes") -> list[Any]:
    experiment = client.get_experiment_by_name(f"stageway/{name}")
    return list(client.search_runs([experiment.experiment_id])) if experiment is not None else []


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user whom file modes bind, which root is not."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(own)


# Registering


def test_a_file_is_registered_with_all_that_is_said_of_it(
    registry: MlflowRegistry, model_file: Path, samples_folder: Path
) -> None:
    want = NewVersion(
        name="diabetes",
        path=model_file,
        framework="ScikitLearn",
        framework_version="1.7.2",
        metrics={"rmse": 54.25, "r2/test": 0.5},
        tags={"candidate": "yes"},
        properties={"alpha": "0.1"},
        description="ridge\nwith two lines",
        samples=samples_folder,
        git_commit="a" * 40,
        git_dirty=True,
    )
    done = registry.register(want)
    assert done.new
    model = done.model
    assert model.label == "diabetes:1"
    assert model.id.registry == registry.identity
    assert model.files == ("model.joblib",)
    assert model.size == len(b"a model")
    assert model.digest == content.hashed(content.walk(model_file)).digest
    for name in ("framework", "framework_version", "metrics", "tags", "properties", "description"):
        assert getattr(model, name) == getattr(want, name)
    assert (model.git_commit, model.git_dirty) == ("a" * 40, True)
    assert model.has_samples
    assert model == registry.get("diabetes:1") == registry.find(model.id)


def test_a_folder_is_one_model_and_comes_back_as_it_was(registry: MlflowRegistry, tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"w" * 1000)
    (folder / "sub" / "names & more #1%.txt").write_text("ä")
    model = registry.register(NewVersion(name="diabetes", path=folder)).model
    assert model.files == ("outputs/sub/names & more #1%.txt", "outputs/weights.bin")
    into = registry.fetch(model, tmp_path / "fetched")
    assert contents(into / "outputs") == contents(folder)
    assert [path.name for path in into.iterdir()] == ["outputs"]


def test_the_same_bytes_are_the_version_that_they_are(registry: MlflowRegistry, model_file: Path, client: Any) -> None:
    first = registry.register(NewVersion(name="diabetes", path=model_file))
    second = registry.register(NewVersion(name="diabetes", path=model_file, tags={"other": "tag"}))
    assert (second.new, second.model) == (False, first.model)
    assert len(registry.versions("diabetes")) == 1
    assert len(experiment_runs(client)) == 1


def test_again_makes_another_version_of_the_same_bytes(registry: MlflowRegistry, model_file: Path) -> None:
    first = registry.register(NewVersion(name="diabetes", path=model_file)).model
    second = registry.register(NewVersion(name="diabetes", path=model_file, again=True))
    assert second.new
    assert second.model.label == "diabetes:2"
    assert second.model.digest == first.digest
    assert registry.register(NewVersion(name="diabetes", path=model_file)).model == first


def test_the_same_bytes_are_two_models_under_two_names(registry: MlflowRegistry, model_file: Path) -> None:
    assert registry.register(NewVersion(name="one", path=model_file)).new
    assert registry.register(NewVersion(name="two", path=model_file)).new
    assert registry.names() == ["one", "two"]


def test_mlflow_shows_the_schema_beside_the_users_file(
    registry: MlflowRegistry, client: Any, model_file: Path, samples_folder: Path
) -> None:
    registry.register(NewVersion(name="diabetes", path=model_file, samples=samples_folder))
    from mlflow.models import Model

    source = client.get_model_version_download_uri("diabetes", "1")
    said = Model.load(urlsplit(source).path)
    assert said.signature.inputs.to_dict() == [
        {"type": "tensor", "name": "data", "tensor-spec": {"dtype": "float64", "shape": (-1, 3)}}
    ]


def test_what_mlflow_shows_is_not_among_the_users_files(
    registry: MlflowRegistry, model_file: Path, tmp_path: Path
) -> None:
    model = registry.register(NewVersion(name="diabetes", path=model_file)).model
    assert contents(registry.fetch(model, tmp_path / "fetched")) == {"model.joblib": b"a model"}


def test_a_file_called_mlmodel_is_the_users(registry: MlflowRegistry, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("not what it seems")
    model = registry.register(NewVersion(name="diabetes", path=tmp_path / "MLmodel")).model
    assert contents(registry.fetch(model, tmp_path / "fetched")) == {"MLmodel": b"not what it seems"}


@pytest.mark.parametrize("source", ["given", "samples"])
def test_the_contract_is_kept_whole(
    registry: MlflowRegistry, model_file: Path, samples_folder: Path, source: str
) -> None:
    given = Contract({"type": "string", "enum": ["a"]}, {"type": "number"}, "signature")
    rows = {"type": "array", "items": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}}
    inferred = Contract(
        {"type": "object", "properties": {"data": rows}, "required": ["data"]},
        {"type": "array", "items": {"type": "number"}},
        "samples",
    )
    want = NewVersion(
        name="diabetes",
        path=model_file,
        samples=samples_folder,
        signature=given.to_json() if source == "given" else None,
    )
    model = registry.register(want).model
    assert model.signature == (given if source == "given" else inferred).to_json()


def test_samples_without_replies_imply_no_contract(
    registry: MlflowRegistry, model_file: Path, samples_folder: Path
) -> None:
    (samples_folder / "one.expected.json").unlink()
    model = registry.register(NewVersion(name="diabetes", path=model_file, samples=samples_folder)).model
    assert model.has_samples
    assert model.signature is None


def test_samples_come_back_as_they_were(
    registry: MlflowRegistry, model_file: Path, samples_folder: Path, tmp_path: Path
) -> None:
    (samples_folder / "notes.txt").write_text("not a sample")
    model = registry.register(NewVersion(name="diabetes", path=model_file, samples=samples_folder)).model
    back = registry.samples(model, tmp_path / "back")
    assert back is not None
    expected = contents(samples_folder)
    del expected["notes.txt"]
    assert contents(back) == expected


def test_a_version_without_samples_has_none(registry: MlflowRegistry, model_file: Path, tmp_path: Path) -> None:
    model = registry.register(NewVersion(name="diabetes", path=model_file)).model
    assert registry.samples(model, tmp_path / "back") is None
    assert not (tmp_path / "back").exists()


def test_a_file_of_one_framework_only_names_it(registry: MlflowRegistry, tmp_path: Path) -> None:
    for name in ("model.onnx", "model.pkl"):
        (tmp_path / name).write_bytes(b"m")
    assert registry.register(NewVersion(name="a", path=tmp_path / "model.onnx")).model.framework == "Onnx"
    assert registry.register(NewVersion(name="b", path=tmp_path / "model.pkl")).model.framework is None


# Reading


def test_references_name_versions(registry: MlflowRegistry, model_file: Path) -> None:
    for content_ in (b"1", b"2", b"3"):
        model_file.write_bytes(content_)
        registry.register(NewVersion(name="diabetes", path=model_file))
    registry.set_alias("diabetes", "prod", "2")
    assert [registry.get(text).label for text in ("diabetes", "diabetes:1", "diabetes@prod")] == [
        "diabetes:3",
        "diabetes:1",
        "diabetes:2",
    ]


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("diabetes:7", r"model 'diabetes:7': the workspace's registry has only :1, @prod"),
        ("diabetes@gone", r"model 'diabetes@gone': the workspace's registry has only :1, @prod"),
        ("other", r"model 'other': the workspace's registry has no version of it; it has: diabetes"),
        ("other:1", r"it has: diabetes"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    registry: MlflowRegistry, model_file: Path, reference: str, says: str
) -> None:
    registry.register(NewVersion(name="diabetes", path=model_file))
    registry.set_alias("diabetes", "prod", "1")
    with pytest.raises(RegistryError, match=says):
        registry.get(reference)


def test_an_empty_registry_says_so(registry: MlflowRegistry) -> None:
    with pytest.raises(RegistryError, match="it has: no model at all"):
        registry.get("diabetes")
    assert registry.names() == []
    assert registry.versions("diabetes") == []
    assert registry.aliases("diabetes") == {}


@pytest.mark.parametrize("reference", ["a@b@c", "../x", "a:b", "/etc", "a\0", ""])
def test_references_that_cannot_be_are_refused(registry: MlflowRegistry, reference: str) -> None:
    with pytest.raises(ConfigError):
        registry.get(reference)


def test_versions_are_listed_newest_first_from_a_time_on(
    registry: MlflowRegistry, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stageway.registries.mlflow._PAGE", 2)
    made = []
    for number in range(5):
        model_file.write_bytes(bytes([number]))
        made.append(registry.register(NewVersion(name="diabetes", path=model_file)).model)
    assert [one.label for one in registry.versions("diabetes")] == [one.label for one in reversed(made)]
    for at, since in enumerate(one.id.created for one in made):
        expected = [one.label for one in reversed(made) if one.id.created >= since]
        assert [one.label for one in registry.versions("diabetes", since=since)] == expected, at
    assert registry.versions("diabetes", since=made[-1].id.created + 1) == []


def test_a_list_says_what_the_row_says(registry: MlflowRegistry, model_file: Path, samples_folder: Path) -> None:
    want = NewVersion(name="diabetes", path=model_file, samples=samples_folder, metrics={"rmse": 1.0})
    model = registry.register(want).model
    (listed,) = registry.versions("diabetes")
    assert listed == model.model_copy(update={"files": (), "metrics": {}, "signature": None})


def test_versions_are_listed_by_tag(registry: MlflowRegistry, model_file: Path) -> None:
    for number, tags in enumerate([{"candidate": "yes"}, {"candidate": "no"}, {"candidate": "yes", "b": "1"}]):
        model_file.write_bytes(bytes([number]))
        registry.register(NewVersion(name="diabetes", path=model_file, tags=tags))
    assert [one.label for one in registry.versions("diabetes", tags={"candidate": "yes"})] == [
        "diabetes:3",
        "diabetes:1",
    ]
    assert [one.label for one in registry.versions("diabetes", tags={"candidate": "yes", "b": "1"})] == ["diabetes:3"]


def test_tags_are_set_on_exactly_one_version(registry: MlflowRegistry, model_file: Path) -> None:
    model = registry.register(NewVersion(name="diabetes", path=model_file, tags={"a": "1"})).model
    registry.set_tags(model.id, {"a": "2", "stageway.release.dev": "r-1"})
    assert registry.get("diabetes:1").tags == {"a": "2", "stageway.release.dev": "r-1"}
    gone = ModelVersion(registry=model.id.registry, name="diabetes", version="1", created=model.id.created - 1)
    with pytest.raises(RegistryError, match="was deleted and registered again"):
        registry.set_tags(gone, {"a": "3"})


TIMEOUTS = """
import os, sys
from pathlib import Path
from stageway.config.workspace import Workspace
from stageway.registries.mlflow import MlflowRegistry

def timeout():
    print(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])

workspace = Workspace.open(Path(sys.argv[1]), {})
MlflowRegistry(workspace).ping()
timeout()
one, other = (MlflowRegistry(workspace)._connection for _ in range(2))
with one.transfers():
    timeout()
    with other.transfers():
        timeout()
    timeout()
timeout()
"""


@pytest.mark.parametrize(("chosen", "expected"), [(None, "8 300 300 300 8"), ("20", "20 20 20 20 20")])
def test_every_registry_of_a_process_gives_files_their_time(
    workspace: Workspace, registry: MlflowRegistry, chosen: str | None, expected: str
) -> None:
    registry.ping()
    environ = {name: value for name, value in os.environ.items() if name != "MLFLOW_HTTP_REQUEST_TIMEOUT"}
    if chosen is not None:
        environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = chosen
    command = [sys.executable, "-c", TIMEOUTS, str(workspace.root)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected.split()


def test_aliases_move_and_go(registry: MlflowRegistry, model_file: Path) -> None:
    for content_ in (b"1", b"2"):
        model_file.write_bytes(content_)
        registry.register(NewVersion(name="diabetes", path=model_file))
    registry.set_alias("diabetes", "prod", "1")
    registry.set_alias("diabetes", "prod", "2")
    assert registry.aliases("diabetes") == {"prod": "2"}
    registry.delete_alias("diabetes", "prod")
    registry.delete_alias("diabetes", "prod")
    assert registry.aliases("diabetes") == {}
    registry.delete_alias("a-model-that-is-gone", "prod")
    with pytest.raises(RegistryError, match="has only :2, :1"):
        registry.set_alias("diabetes", "prod", "9")


# Deleting


def test_a_deleted_version_is_gone_with_its_files(
    workspace: Workspace, registry: MlflowRegistry, model_file: Path, tmp_path: Path
) -> None:
    model = registry.register(NewVersion(name="diabetes", path=model_file)).model
    assert registry.delete("diabetes:1") == model.id
    assert registry.find(model.id) is None
    assert stored(workspace) == []
    with pytest.raises(RegistryError, match="model diabetes:1: was deleted"):
        registry.fetch(model, tmp_path / "fetched")
    with pytest.raises(RegistryError, match="diabetes:1"):
        registry.delete("diabetes:1")


def test_a_name_alone_is_not_enough_to_delete(registry: MlflowRegistry, model_file: Path) -> None:
    registry.register(NewVersion(name="diabetes", path=model_file))
    with pytest.raises(ConfigError, match="say which version is to be deleted, such as diabetes:1"):
        registry.delete("diabetes")


def test_version_1_of_a_model_that_was_registered_again_is_another(
    registry: MlflowRegistry, client: Any, model_file: Path, tmp_path: Path
) -> None:
    old = registry.register(NewVersion(name="diabetes", path=model_file)).model
    client.delete_registered_model("diabetes")
    new = registry.register(NewVersion(name="diabetes", path=model_file))
    assert new.new
    assert new.model.label == old.label
    assert new.model.id != old.id
    assert registry.find(old.id) is None
    assert registry.find(new.model.id) == new.model
    with pytest.raises(RegistryError, match="was deleted and registered again; start anew"):
        registry.fetch(old, tmp_path / "fetched")


def test_a_version_of_another_registry_is_not_found_here(registry: MlflowRegistry, model_file: Path) -> None:
    model = registry.register(NewVersion(name="diabetes", path=model_file)).model
    assert registry.find(model.id.model_copy(update={"registry": "elsewhere"})) is None


# Verifying


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(b"b model"), "file 'model.joblib' was changed after it was registered"),
        (lambda path: path.write_bytes(b"a mod"), "file 'model.joblib' has 5 bytes, 7 were registered"),
        (lambda path: path.unlink(), "file 'model.joblib' is missing in the registry"),
    ],
)
def test_fetch_names_the_file_that_is_not_what_was_registered(
    workspace: Workspace,
    registry: MlflowRegistry,
    model_file: Path,
    tmp_path: Path,
    damage: Callable[[Path], object],
    says: str,
) -> None:
    model = registry.register(NewVersion(name="diabetes", path=model_file)).model
    (kept,) = [path for path in stored(workspace) if path.name == "model.joblib"]
    damage(kept)
    with pytest.raises(RegistryError, match=says):
        registry.fetch(model, tmp_path / "fetched")
    assert [path.name for path in tmp_path.iterdir() if "fetched" in path.name] == []


def test_a_record_that_points_out_of_its_folder_is_not_followed(
    workspace: Workspace, registry: MlflowRegistry, model_file: Path, tmp_path: Path
) -> None:
    model = registry.register(NewVersion(name="diabetes", path=model_file)).model
    (record,) = [path for path in stored(workspace) if path.name == "manifest.json"]
    value = json.loads(record.read_text())
    value["files"][0]["path"] = "../../../stolen"
    record.write_text(json.dumps(value))
    with pytest.raises(RegistryError, match="does not stay in its folder"):
        registry.fetch(model, tmp_path / "fetched")


def test_files_that_were_exchanged_with_their_record_are_noticed(
    workspace: Workspace, registry: MlflowRegistry, model_file: Path, tmp_path: Path
) -> None:
    first = registry.register(NewVersion(name="diabetes", path=model_file)).model
    model_file.write_bytes(b"another")
    second = registry.register(NewVersion(name="diabetes", path=model_file)).model
    runs = [workspace.state / "artifacts" / "diabetes" / str(one.run_id) / "artifacts" for one in (first, second)]
    shutil.copytree(runs[1] / "model", runs[0] / "model", dirs_exist_ok=True)
    (mine,), (other,) = (list(run.glob("stageway/*/manifest.json")) for run in runs)
    shutil.copyfile(other, mine)
    with pytest.raises(RegistryError, match=f"its files are not those of {first.digest}"):
        registry.fetch(first, tmp_path / "fetched")


def test_a_record_that_is_gone_is_said(workspace: Workspace, registry: MlflowRegistry, model_file: Path) -> None:
    registry.register(NewVersion(name="diabetes", path=model_file))
    shutil.rmtree(workspace.state / "artifacts")
    with pytest.raises(RegistryError, match="model diabetes:1: its record is gone from the registry"):
        registry.get("diabetes:1")


def test_fetch_leaves_what_is_there_alone(registry: MlflowRegistry, model_file: Path, tmp_path: Path) -> None:
    model = registry.register(NewVersion(name="diabetes", path=model_file)).model
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(ConfigError, match="mine: is there already; name a new folder"):
        registry.fetch(model, tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"file": b"mine"}
    (tmp_path / "empty").mkdir()
    assert contents(registry.fetch(model, tmp_path / "empty")) == {"model.joblib": b"a model"}


def test_the_files_move_with_the_workspace(
    workspace: Workspace, registry: MlflowRegistry, model_file: Path, tmp_path: Path
) -> None:
    model = registry.register(NewVersion(name="diabetes", path=model_file)).model
    workspace.root.rename(tmp_path / "moved")
    moved = MlflowRegistry(Workspace.open(tmp_path / "moved", {}))
    assert moved.get("diabetes:1") == model
    assert contents(moved.fetch(model, tmp_path / "fetched")) == {"model.joblib": b"a model"}
    model_file.write_bytes(b"another")
    second = moved.register(NewVersion(name="diabetes", path=model_file)).model
    assert contents(moved.fetch(second, tmp_path / "second")) == {"model.joblib": b"another"}
    assert not workspace.root.exists()


# What is refused


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a\0b", "a@b", "a:b", "", "-a", "a/b", "a..b", "x" * 256])
def test_names_that_could_leave_their_folder_are_refused(registry: MlflowRegistry, model_file: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be called"):
        registry.register(NewVersion(name=name, path=model_file))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"tags": {"a\nb": "1"}}, r"tag 'a\\nb': use letters"),
        ({"tags": {"../a": "1"}}, "tag '../a': use letters"),
        ({"tags": {"a": "1\x00"}}, "tag a: has control characters"),
        ({"tags": {"a": "\x1b[31m"}}, "tag a: has control characters"),
        ({"tags": {"stageway.digest": "sha256:0"}}, "is written by the registry itself"),
        ({"tags": {"mlflow.user": "x"}}, "is written by the registry itself"),
        ({"properties": {"a": "\x07"}}, "property a: has control characters"),
        ({"properties": {"": "x"}}, "property '': use letters"),
        ({"metrics": {"rmse": math.nan}}, "metric rmse: nan is not a finite number"),
        ({"metrics": {"rmse": math.inf}}, "metric rmse: inf is not a finite number"),
        ({"metrics": {"`x` DESC": 1.0}}, "metric '`x` DESC': use letters"),
        ({"description": "\x1b[2J"}, "description: has control characters"),
        ({"framework": "sklearn"}, "framework 'sklearn': is not known; use one of ScikitLearn, Onnx"),
        ({"framework_version": "1.0"}, "name the framework too"),
        ({"run_id": "abc"}, "name one source"),
        ({"experiment": "e", "best_by": "rmse", "path": None, "run_id": "a"}, "name one source"),
        ({"path": None}, "name one source"),
        ({"path": None, "experiment": "e"}, "experiment and best-by belong together"),
        ({"best_by": "rmse"}, "experiment and best-by belong together"),
        ({"path": None, "run_id": "../a"}, "is not the id of an MLflow run"),
        ({"artifact": "model"}, "a path has none"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(
    workspace: Workspace, registry: MlflowRegistry, model_file: Path, more: dict[str, Any], says: str
) -> None:
    want = NewVersion(name="diabetes", path=model_file)
    with pytest.raises(ConfigError, match=says):
        registry.register(want.model_copy(update=more))
    assert not (workspace.state / "artifacts").exists()


@pytest.mark.parametrize("alias", ["latest", "v1", "a@b", "a:b", "", "a b", "../a"])
def test_aliases_that_mean_something_else_are_refused(registry: MlflowRegistry, model_file: Path, alias: str) -> None:
    registry.register(NewVersion(name="diabetes", path=model_file))
    with pytest.raises(ConfigError, match="alias"):
        registry.set_alias("diabetes", alias, "1")


def test_samples_that_are_none_are_refused(registry: MlflowRegistry, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: holds no samples; put NAME\.json"):
        registry.register(NewVersion(name="diabetes", path=model_file, samples=tmp_path / "empty"))


def test_samples_that_link_out_of_their_folder_are_refused(
    registry: MlflowRegistry, model_file: Path, samples_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (samples_folder / "three.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ConfigError, match="the link leaves"):
        registry.register(NewVersion(name="diabetes", path=model_file, samples=samples_folder))


# Disk and database


def test_a_full_disk_is_one_line_and_leaves_nothing(
    workspace: Workspace,
    registry: MlflowRegistry,
    client: Any,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(workspace.state / "artifacts"))

    with monkeypatch.context() as patch:
        patch.setattr(content, "_write_piece", full)
        with pytest.raises(RegistryError, match="the disk is full; make room and try again"):
            registry.register(NewVersion(name="diabetes", path=model_file))
    assert stored(workspace) == []
    assert experiment_runs(client) == []
    assert registry.register(NewVersion(name="diabetes", path=model_file)).new


def test_a_read_only_workspace_is_one_line(mlflow_database: Path) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        model = root / "model.joblib"
        (root / "stageway.yml").write_text("model: diabetes\nstages: {dev: {}}\n")
        model.write_bytes(b"a model")
        workspace = Workspace.open(root, {})
        shutil.copyfile(mlflow_database, workspace.state / "mlflow.db")
        registry = MlflowRegistry(workspace)
        registry.register(NewVersion(name="diabetes", path=model))
        model.write_bytes(b"another")
        for path in (*workspace.state.rglob("*"), workspace.state):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            with as_nobody():
                assert registry.get("diabetes").label == "diabetes:1"
                with pytest.raises(RegistryError, match="cannot be written"):
                    registry.register(NewVersion(name="diabetes", path=model))
                sentence = r"mlflow\.db is read-only; make the workspace writable, or set MLFLOW_TRACKING_URI$"
                with pytest.raises(RegistryError, match=rf"cannot be written: .*{sentence}"):
                    registry.set_alias("diabetes", "prod", "1")
        finally:
            for path in (workspace.state, *workspace.state.rglob("*")):
                path.chmod(0o755)


@pytest.mark.slow
def test_a_database_that_another_process_holds_is_tried_again(
    workspace: Workspace, registry: MlflowRegistry, model_file: Path
) -> None:
    registry.register(NewVersion(name="diabetes", path=model_file))
    with closing(sqlite3.connect(workspace.state / "mlflow.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(TryAgainError, match="the workspace's registry is busy: database is locked"):
            registry.set_alias("diabetes", "prod", "1")
    registry.set_alias("diabetes", "prod", "1")


@pytest.mark.slow
def test_a_new_database_keeps_all_files_in_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_file: Path
) -> None:
    """Those of training runs in MLflow's default experiment too, wherever the first command was given."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "stageway.yml").write_text("model: diabetes\nstages: {dev: {}}\n")
    workspace = Workspace.open(tmp_path / "project", {})
    MlflowRegistry(workspace).ping()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=workspace.registry_uri, registry_uri=workspace.registry_uri)
    client.log_artifact(client.create_run("0").info.run_id, str(model_file))
    assert [path.name for path in stored(workspace)] == ["model.joblib"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not [path for path in workspace.state.iterdir() if path.name.startswith(".mlflow.db")]


def test_a_database_that_is_none_is_said(workspace: Workspace) -> None:
    (workspace.state / "mlflow.db").write_text("this is no database, and long enough to be read as one " * 40)
    with pytest.raises(RegistryError, match=r"mlflow\.db: file is not a database"):
        MlflowRegistry(workspace).ping()


def test_a_database_of_another_mlflow_is_said(workspace: Workspace) -> None:
    with closing(sqlite3.connect(workspace.state / "mlflow.db", isolation_level=None)) as database:
        database.execute("update alembic_version set version_num = '97727af70f4d'")
    with pytest.raises(RegistryError, match="mlflow db upgrade"):
        MlflowRegistry(workspace).ping()
