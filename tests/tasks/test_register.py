"""The register task: what it asks of the registry, and what it leaves in the dossier."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import git
import pytest

from stageway import output, plugins
from stageway.config.workspace import Workspace
from stageway.dossier import Dossier
from stageway.errors import ConfigError, RegistryError
from stageway.evidence import Evidence
from stageway.registries.git import commit_of
from stageway.tasks.register import register


@pytest.fixture
def embedded(make_workspace: Callable[..., Workspace]) -> Workspace:
    """A project with a model in it, registered nowhere yet."""
    plugins.found.cache_clear()
    workspace = make_workspace()
    (workspace.root / "model.joblib").write_bytes(b"a model")
    samples = workspace.root / "samples"
    samples.mkdir()
    (samples / "one.json").write_text(json.dumps({"data": [[1, 2, 3]]}))
    (samples / "one.expected.json").write_text(json.dumps([1.5]))
    return workspace


def committed(folder: Path) -> git.Repo:
    repository = git.Repo.init(folder)
    repository.index.add([str(path) for path in folder.iterdir() if path.is_file()])
    author = git.Actor("A", "a@example.com")
    repository.index.commit("First", author=author, committer=author)
    return repository


def test_a_model_is_registered_and_stands_in_the_dossier_with_its_metrics(embedded: Workspace) -> None:
    notes: list[str] = []
    (embedded.root / "metrics.json").write_text('{"rmse": 54.25, "rows": 442}')
    with output.notes_to(notes.append):
        dossier = register(
            Dossier(pipeline="diabetes"),
            embedded,
            path=embedded.root / "model.joblib",
            metrics=[str(embedded.root / "metrics.json"), "r2=0.5"],
            tags=["candidate=yes", "note=a=b"],
            properties=["alpha=0.1"],
            description="ridge",
            framework="ScikitLearn",
            framework_version="1.7.2",
            samples=embedded.root / "samples",
        )
    model = dossier.need_model()
    assert model.label == "diabetes:1"
    assert dossier.pipeline == "diabetes"
    assert model.metrics == {"rmse": 54.25, "rows": 442.0, "r2": 0.5}
    assert model.tags == {"candidate": "yes", "note": "a=b"}
    assert model.properties == {"alpha": "0.1"}
    assert (model.framework, model.framework_version, model.description) == ("ScikitLearn", "1.7.2", "ridge")
    assert model.signature is not None
    assert model.signature["source"] == "samples"
    assert dossier.evidence == (Evidence(kind="metrics", facts={"rmse": 54.25, "rows": 442.0, "r2": 0.5}),)
    assert dossier == Dossier.from_json(dossier.to_json())
    assert notes == [f"registered diabetes:1 (7 bytes, {model.digest[:19]}…)"]


def test_the_same_bytes_are_said_to_be_the_same(embedded: Workspace) -> None:
    notes: list[str] = []
    path = embedded.root / "model.joblib"
    with output.notes_to(notes.append):
        first = register(Dossier(), embedded, path=path)
        second = register(Dossier(), embedded, path=path)
        third = register(Dossier(), embedded, path=path, again=True)
    assert first == second
    assert third.need_model().label == "diabetes:2"
    assert notes[1] == "diabetes:1 has the same bytes already; --again makes another version of them"


def test_the_facts_of_a_registered_version_are_taken_without_registering(embedded: Workspace) -> None:
    made = register(Dossier(), embedded, path=embedded.root / "model.joblib", metrics=["rmse=1"])
    for reference in ("diabetes", "diabetes:1"):
        assert register(Dossier(), embedded, version=reference) == made
    with pytest.raises(RegistryError, match="diabetes:2"):
        register(Dossier(), embedded, version="diabetes:2")
    with pytest.raises(ConfigError, match="is registered already; leave out path"):
        register(Dossier(), embedded, version="diabetes:1", path=embedded.root / "model.joblib")


def test_the_commit_of_the_model_is_noted(embedded: Workspace) -> None:
    repository = committed(embedded.root)
    commit = repository.head.commit.hexsha
    model = register(Dossier(), embedded, path=embedded.root / "model.joblib").need_model()
    assert (model.git_commit, model.git_dirty) == (commit, False)
    (embedded.root / "model.joblib").write_bytes(b"changed, and not committed")
    model = register(Dossier(), embedded, path=embedded.root / "model.joblib").need_model()
    assert (model.git_commit, model.git_dirty) == (commit, True)


def test_a_repository_without_commit_and_no_repository_are_no_error(embedded: Workspace) -> None:
    assert commit_of(embedded.root) is None
    assert commit_of(embedded.root / "nowhere") is None
    git.Repo.init(embedded.root)
    assert commit_of(embedded.root) is None
    assert register(Dossier(), embedded, path=embedded.root / "model.joblib").need_model().git_commit is None


def test_a_machine_without_git_is_no_error(embedded: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(embedded.root)
    monkeypatch.setenv("PATH", "/nowhere")
    found = commit_of(embedded.root)
    assert found is None or found.dirty is False


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("rmse=high", "metrics 'rmse=high': 'high' is not a finite number"),
        ("rmse=nan", "metrics 'rmse=nan': 'nan' is not a finite number"),
        ("rmse=1e999", "is not a finite number"),
        ("metrics.json", r"metrics\.json: rmse: nan is not a finite number"),
        ("list.json", 'metrics are written {"rmse": 54.2}'),
        ("words.json", r"words\.json: rmse: '54' .*|rmse"),
        ("truth.json", r"truth\.json: rmse: True is not a finite number"),
        ("broken.json", r"broken\.json: is not JSON"),
        ("gone.json", r"gone\.json: no such file"),
        (".", "cannot be read"),
    ],
)
def test_metrics_are_finite_numbers(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch, given: str, says: str
) -> None:
    monkeypatch.chdir(embedded.root)
    contents: dict[str, Any] = {
        "metrics.json": {"rmse": math.nan},
        "list.json": [1],
        "words.json": {"rmse": "fifty"},
        "truth.json": {"rmse": True},
    }
    for name, value in contents.items():
        Path(name).write_text(json.dumps(value))
    Path("broken.json").write_text("{")
    with pytest.raises(ConfigError, match=says):
        register(Dossier(), embedded, path=Path("model.joblib"), metrics=[given])


@pytest.mark.parametrize("given", ["candidate", "=yes"])
def test_tags_are_pairs(embedded: Workspace, given: str) -> None:
    with pytest.raises(ConfigError, match=f"tags '{given}': write KEY=VALUE"):
        register(Dossier(), embedded, path=embedded.root / "model.joblib", tags=[given])


def test_a_signature_is_read_from_its_file(embedded: Workspace) -> None:
    path = embedded.root / "signature.json"
    path.write_text(json.dumps({"request": {"type": "object"}, "response": {"type": "number"}}))
    model = register(Dossier(), embedded, path=embedded.root / "model.joblib", signature=path).need_model()
    assert model.signature == {"request": {"type": "object"}, "response": {"type": "number"}, "source": "signature"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "a signature is written"),
        ("{}", "a signature is written"),
        ('{"request": 3}', "request: 3 is not a JSON"),
    ],
)
def test_a_signature_that_is_none_is_refused(embedded: Workspace, text: str, says: str) -> None:
    path = embedded.root / "signature.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        register(Dossier(), embedded, path=embedded.root / "model.joblib", signature=path)


def test_with_several_models_the_name_is_asked_for(make_workspace: Callable[..., Workspace]) -> None:
    plugins.found.cache_clear()
    workspace = make_workspace(file="models: [a, b]\nstages: {dev: {}}\n")
    (workspace.root / "m").write_bytes(b"m")
    with pytest.raises(ConfigError, match=r"name: missing, and stageway\.yml has several models: a, b"):
        register(Dossier(), workspace, path=workspace.root / "m")
    assert register(Dossier(), workspace, path=workspace.root / "m", name="b").need_model().label == "b:1"


def test_nothing_to_register_is_said(embedded: Workspace) -> None:
    with pytest.raises(ConfigError, match="name one source: a path, a run, or an experiment"):
        register(Dossier(), embedded)


def test_a_file_that_is_missing_is_named(embedded: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"gone\.joblib: no such file or folder"):
        register(Dossier(), embedded, path=embedded.root / "gone.joblib")
